"""`rmr-gym doctor`: what this machine has, what it lacks, and what each missing thing costs."""

import os
import platform
import shutil
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from rich.table import Table
from rich.text import Text

from rmr_gym import __version__
from rmr_gym.commands.console import out_console
from rmr_gym.core.errors import RMRError
from rmr_gym.envs.arguments import parallel
from rmr_gym.wrappers.describe import installed

IMPORTED = ("torch", "ale_py", "mujoco", "h5py", "hdf5plugin", "cv2", "stable_baselines3")
"""Packages with compiled parts, which can be installed and yet fail to load."""

EXTRAS = (
    ("minari", "minari", "No data set goes to Minari or comes from there."),
    ("digits", "scikit-learn", "`rmr-gym run sequences --preset digits` has no images."),
    ("minigrid", "minigrid", "No agent plays in worlds of MiniGrid and BabyAI."),
    ("battles", "magent2", "There are no battles (rmr/Battles-v0)."),
    ("video", "imageio-ffmpeg", "Films are GIF, not MP4."),
    ("video", "moviepy", "Gymnasium's RecordVideo is refused."),
    ("window", "pygame-ce", 'No environment opens a window (render_mode="human").'),
    ("bars", "tqdm", "Stable-Baselines3 shows no bars of its own."),
    ("tensorboard", "tensorboard", "No training is logged for TensorBoard."),
)
"""Extra, package, and what is missing without it."""

ENOUGH = 10
"""GB of disk for the data sets and the store of a run of several games."""


Check = tuple[str, str, str]
"""What was looked for, what was found, and what it costs that it is not as it should be."""


def doctor(root: Path = Path("runs")) -> None:
    """Print what this machine has and lacks, and what each missing thing costs.

    Args:
        root: Folder of data sets and finished stages, whose disk and permissions are looked at.

    Raises:
        RMRError: Something without which the package does not work is missing or broken.
    """
    table, broken = Table("", "what", "found"), []
    for what, found, cost in (*_packages(), *_kernels(), *_machine(root)):
        mark = ("broken" if what in ("packages", "store") else "less") if cost else "ok"
        style = {"broken": "bold red", "less": "yellow", "ok": "green"}[mark]
        words = Text.assemble(found, ("\n" * bool(cost) + cost, style), overflow="fold")
        table.add_row(Text(mark, style), Text(what, overflow="fold"), words)
        broken += [what] if mark == "broken" else []
    out_console.print(table)
    if broken:
        raise RMRError(f"missing or broken, and needed: {', '.join(broken)}")


def _packages() -> Iterator[Check]:
    """Look at the versions that rmr-gym asks for, and load what has compiled parts."""
    yield "rmr-gym", f"{__version__} on Python {platform.python_version()}", ""
    needs = [need for need in map(Requirement, requires("rmr-gym") or []) if not need.marker]
    wrong = [
        f"{need.name} is {found or 'missing'}, expected {need.specifier}"
        for need in needs
        if not need.specifier.contains((found := installed(need.name)) or "0", prereleases=True)
    ] + [why for name in IMPORTED if (why := _unloadable(name))]
    known = ", ".join(f"{need.name} {installed(need.name)}" for need in needs)
    repair = "Install it again: `pip install --upgrade rmr-gym`." if wrong else ""
    yield "packages", "; ".join(wrong) or known, repair
    for extra, name, cost in EXTRAS:
        found = installed(name)
        lack = "" if found else f"{cost} `pip install 'rmr-gym[{extra}]'`"
        yield name, found or "missing", lack


def _unloadable(name: str) -> str:
    """Return why a package does not load; nothing where it does."""
    try:
        import_module(name)
    except (ImportError, OSError, RuntimeError) as error:
        return f"{name} does not load ({error})"
    return ""


def _kernels() -> Iterator[Check]:
    """Look at compiler, message passing, GPU and OpenGL, where torch and mujoco load."""
    if any(map(_unloadable, ("torch", "mujoco"))):
        return
    import torch  # noqa: PLC0415

    from rmr_gym.envs.balls.pictures import choose_back_end  # noqa: PLC0415
    from rmr_gym.models.rmr import kernels  # noqa: PLC0415
    from rmr_gym.models.rmr.message_passing import describe_backend  # noqa: PLC0415

    slower = "PyTorch computes the messages of P, on a CPU about 3 times slower."
    yield _tried("compiler", lambda: " ".join(kernels.find_compiler()), f"{slower} Install g++.")
    yield _tried("kernel cache", lambda: str(kernels.cache_folder()), slower)
    gpus = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    yield "GPU", ", ".join(gpus) or "none", "" if gpus else "All is computed on the CPU."
    for device in ("cpu", "cuda") if gpus else ("cpu",):
        kernel = describe_backend(device, "fp32")
        yield f"kernel, {device}", kernel, slower if kernel.startswith("PyTorch") else ""
    refused = 'Balls with renderer="mujoco" are refused; the default renderer needs no OpenGL.'
    yield _tried("OpenGL", choose_back_end, refused)


def _tried(what: str, find: Callable[[], str], cost: str) -> Check:
    """Return what was found, or what was said instead and what that costs."""
    try:
        return what, find(), ""
    except (RMRError, OSError) as error:
        return what, str(error), cost


def _machine(root: Path) -> Iterator[Check]:
    """Look at cores, disk, permissions and screen."""
    cores = parallel("cores", None, 1)
    yield "cores", str(cores), "" if cores > 1 else "Jobs of a run follow one another."
    there = next(folder for folder in (root, *root.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free / 1e9
    little = f"A run of several games may need {ENOUGH} GB." if free < ENOUGH else ""
    yield "free disk", f"{free:.0f} GB", little
    closed = not os.access(there, os.W_OK | os.X_OK)
    refused = "Nothing can be kept there: choose another folder with --root." if closed else ""
    yield "store", f"{root / 'store'}", refused
    screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or ""
    unseen = "" if screen or platform.system() != "Linux" else "No window can be shown."
    yield "screen", screen or "none", unseen
