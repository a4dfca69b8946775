"""Compile the kernels with the system's C++ compiler, once, and load them from a private cache."""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from rmr_gym.core.errors import RMRError

FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-shared", "-fPIC", "-pthread")
PROCESSOR_FLAGS = ("-march=native", "-mcpu=native")
"""How compilers are told to use all that this processor has; the first that one takes."""

COMPILERS = ("c++", "g++", "clang++")
SWITCH = "RMR_GYM_KERNELS"


class KernelError(RMRError):
    """The kernels cannot be had on this machine; the message says why."""


def load_library(source: Path) -> ctypes.CDLL:
    """Return the shared library of one C++ source, compiled now or earlier.

    The library is kept in ``$XDG_CACHE_HOME/rmr_gym/kernels`` (``~/.cache`` by default) under a
    hash of sources, flags, compiler and processor. ``RMR_GYM_KERNELS=0`` switches the kernels off.

    Args:
        source: The file to compile; it may include headers that lie beside it.

    Raises:
        KernelError: Switched off, no compiler, no private cache, or compiling failed.
    """
    if os.environ.get(SWITCH, "1") == "0":
        raise KernelError(f"switched off by {SWITCH}=0")
    if os.name != "posix":
        raise KernelError("only POSIX systems are supported")
    compiler = find_compiler()
    try:
        library = cache_folder() / f"{_fingerprint(source, compiler)}.so"
        if not library.exists():
            _compile(source, compiler, library)
        return ctypes.CDLL(str(library))
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        raise KernelError(str(error)) from error


def find_compiler() -> list[str]:
    """Return the command of the C++ compiler: ``$CXX``, else the first of `COMPILERS` on the path.

    Raises:
        KernelError: There is none.
    """
    chosen = shlex.split(os.environ.get("CXX", ""))
    for command in [chosen] if chosen else [[name] for name in COMPILERS]:
        if path := shutil.which(command[0]):
            return [path, *command[1:]]
    raise KernelError(f"no C++ compiler ({' '.join(chosen) or ', '.join(COMPILERS)}) found")


def cache_folder() -> Path:
    """Return the folder of compiled kernels, which only its owner may read or write.

    Raises:
        KernelError: The folder belongs to somebody else or is open to others.
        OSError: It cannot be made.
    """
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = root / "rmr_gym" / "kernels"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise KernelError(
            f"{folder} must belong to you and have mode 700, as code is loaded from it"
        )
    return folder


def _compile(source: Path, compiler: list[str], library: Path) -> None:
    """Compile next to ``library`` and rename, so that no process ever loads half a file."""
    handle, name = tempfile.mkstemp(suffix=".so", dir=library.parent)
    os.close(handle)
    temporary = Path(name)
    complaints = []
    try:
        for flag in PROCESSOR_FLAGS:
            command = [*compiler, *FLAGS, flag, str(source), "-o", name]
            done = subprocess.run(  # noqa: S603
                command, check=False, capture_output=True, text=True, timeout=600
            )
            if done.returncode == 0:
                temporary.chmod(0o700)
                temporary.replace(library)
                return
            complaints.append(done.stderr.strip()[:500])
        raise KernelError(f"{compiler[0]} failed: {complaints[0]}")
    finally:
        temporary.unlink(missing_ok=True)


def _fingerprint(source: Path, compiler: list[str]) -> str:
    version = subprocess.run(  # noqa: S603
        [*compiler, "--version"], check=True, capture_output=True, timeout=60
    ).stdout
    code = [path.read_bytes() for path in sorted(source.parent.glob("*.[ch]pp"))]
    settings = repr((source.name, compiler, FLAGS, PROCESSOR_FLAGS, _processor())).encode()
    return hashlib.sha256(b"\0".join([*code, version, settings])).hexdigest()[:32]


def _processor() -> str:
    """Return what ``-march=native`` depends on."""
    names = ("model name", "flags", "Features")
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    known = sorted({line for line in lines if line.startswith(names)})
    return "\n".join([platform.machine(), platform.processor(), platform.platform(), *known])
