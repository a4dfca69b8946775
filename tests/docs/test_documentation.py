"""What README and docs show works: code runs at tiny size, commands run or are parsed.

Every page is read from top to bottom in a folder of its own: what a block leaves, later ones find.
"""

import functools
import importlib
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from rmr_gym import cli
from rmr_gym.agents.players.graded import SHIPPED
from rmr_gym.commands import console
from rmr_gym.experiments import experiments

CHEAP = (
    *("record", "pretrain", "train", "probe", "dataset", "players list"),
    *("encoder list", "encoder show"),
)
"""Commands that run; every other one is parsed by its own parser, which stops there."""

WHOLE = ("getting_started.md",)
"""Pages of which every command runs."""

SMALLER_COMMANDS = {
    "record": {"--episodes": "6", "--max-steps": "70", "--workers": "1"},
    "run": {"--games": "Pong", "--seeds": "1", "--workers": "1"},
}
"""Options that a command gets in place of its own; every preset of games is the tests'
`tiny_preset`, every preset of balls is its smoke."""

SMALLER_CODE = {
    r"episodes=\d+": "episodes=6",
    r"max_steps=\d+": "max_steps=70",
    r"workers=\d+": "workers=1",
    r"num_envs=\d+": "num_envs=2",
    r"-v0\", (8|16)\b": '-v0", 2',
    r"train=48, validation=48": "train=4, validation=2",
    r"range\(\d+\)": "range(3)",
    r"buffer_size=[\d_]+": "buffer_size=100",
}
"""What code says in place of what stands on the page."""

GIVEN_COMMANDS = {
    "agents.md": [
        "agent train --game Pong --steps 8 --checkpoints 1 --copies 2 --max-steps 20",
        "record --game Pong --out data/pong-by-agent",
    ],
    "datasets.md": [
        "record --game Seaquest --out seaquest-0",
        "record --game Seaquest --out seaquest-1 --seed 1",
    ],
}
GIVEN_ENCODERS = {
    "wrappers.md": {
        "runs/encoders/Enduro-rmr-0-300": "Enduro",
        "runs/encoders/BouncingBalls-rmr_aligned-0-1100": "BouncingBalls",
    },
}
GIVEN_PLAYERS = {"players.md": "runs/players/weights"}
"""What commands of a page that are only parsed would have left for those that run."""

REASONS = ("a cluster of another program", "flatland-rl is installed apart")
"""Why nobody reads a block: `# not run by the tests: REASON` stands in it."""

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SHOWN = ("python", "diff", "text")
SHELLS = ("console", "bash")
FORMAT_NAME = "rmr_gym.dataset"
"""Is no module, but what episodes and manifests call their format."""

_FENCE = re.compile(r"^```(\S*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_REASON = re.compile(r"^# not run by the tests: (.*)$", re.MULTILINE)
_INLINE = re.compile(r"`rmr-gym ([a-z][^`]*)`")
_MODULE = re.compile(r"(?<![\w/])rmr_gym(?:\.[A-Za-z_]\w*)+")
_FILE = re.compile(r"(?<![\w/.-])(?:docs|results|benchmarks|examples|rmr_gym|tests)/[\w./-]*\w")


class Block(NamedTuple):
    """A fenced block: what stands behind its fence, what is in it, and where it begins."""

    language: str
    code: str
    line: int

    @property
    def reason(self):
        """Why it is not read, as a comment in it says; None without one."""
        match = _REASON.search(self.code)
        return match[1] if match else None

    @property
    def commands(self):
        """The commands of a shell, split into words; what they print is left out."""
        lines = self.code.replace("\\\n", " ").splitlines()
        if self.language == "console":
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        return [words for line in lines if (words := shlex.split(line, comments=True))]


class Parsed(Exception):  # noqa: N818  (no error)
    """A command's words were understood."""


def blocks_of(page):
    text = page.read_text()
    return [
        Block(match[1], match[2], text.count("\n", 0, match.start()) + 1)
        for match in _FENCE.finditer(text)
    ]


def by_name(pages):
    return [pytest.param(page, id=page.stem) for page in pages]


@pytest.fixture
def tiny(monkeypatch, tiny_preset):
    from rmr_gym.stages.balls import BALLS_PRESETS
    from rmr_gym.stages.presets import PRESETS

    for presets, smallest in ((PRESETS, tiny_preset), (BALLS_PRESETS, BALLS_PRESETS["smoke"])):
        for name in list(presets):
            monkeypatch.setitem(presets, name, smallest)


@pytest.mark.parametrize("page", by_name(PAGES))
def test_every_block_says_what_it_is(page):
    for language, _, line in (blocks := blocks_of(page)):
        known = language in (*SHOWN, *SHELLS) or language.startswith("{")
        assert known, f"{page.name}, line {line}: expected one of {(*SHOWN, *SHELLS)}"
    assert {block.reason for block in blocks} <= {None, *REASONS}


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("page", by_name(page for page in PAGES if "\n```" in page.read_text()))
def test_what_a_page_shows_works(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    lay_given(page.name)
    namespace = {"__name__": "__main__"}
    for block in blocks_of(page):
        place = f"{page.name}, line {block.line}"
        if block.language == "python" and not block.reason:
            exec(compile(smaller(block.code), place, "exec"), namespace)
        elif block.language in SHELLS and not block.reason:
            for words in block.commands:
                check(words, f"{place}: {shlex.join(words)}", page.name in WHOLE)


def test_features_in_a_fresh_process():
    """What a reader copies alone has no other block's imports before it."""
    (code,) = (
        block.code for block in blocks_of(ROOT / "README.md") if "RMRBeliefWrapper(" in block.code
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("page", by_name(page for page in PAGES if "\n```diff" in page.read_text()))
def test_differences_can_be_made_and_what_is_new_imports(page):
    for block in blocks_of(page):
        if block.language == "diff":
            check = ["git", "apply", "--check", "-"]
            subprocess.run(check, cwd=ROOT, input=block.code, text=True, check=True)
            for name, code in new_modules(block.code):
                exec(compile(code, name, "exec"), {"__name__": name})


def new_modules(diff):
    """Yield name and text of every module that a difference makes."""
    for part in diff.split("--- /dev/null\n+++ b/")[1:]:
        name, *lines = part.splitlines()
        if name.endswith(".py"):
            yield name, "\n".join(line[1:] for line in lines if line.startswith("+"))


def lay_given(page):
    for command in GIVEN_COMMANDS.get(page, ()):
        run(command.split())
    for folder, game in GIVEN_ENCODERS.get(page, {}).items():
        save_encoder(Path(folder), game)
    if page in GIVEN_PLAYERS:
        shutil.copytree(SHIPPED, GIVEN_PLAYERS[page])


def save_encoder(folder, game):
    """Write an encoder as it is before training."""
    from rmr_gym.models.pretrained import BallsEncoderConfig, EncoderConfig, PretrainedEncoder
    from rmr_gym.models.rmr.pipeline import build, torch_generator

    balls = BallsEncoderConfig("BouncingBalls", resolution=16, slots=3, dim=8, slot_dim=8)
    config = balls if game == "BouncingBalls" else EncoderConfig(game, dim=4)
    encoder = build(config.encoder, torch_generator(0))
    PretrainedEncoder(config, encoder).save_pretrained(folder)


def smaller(code):
    for pattern, text in SMALLER_CODE.items():
        code = re.sub(pattern, text, code)
    return code


def check(words, place, whole):
    program, *rest = words
    if program == "rmr-gym" and (whole or begins(rest, CHEAP)):
        run(rest)
    elif program == "rmr-gym":
        parse(rest, place)
    elif program == "python":
        options = {word for word in rest if word.startswith("--")}
        known = (ROOT / rest[0]).read_text()
        assert all(f'"{option}"' in known for option in options), place
    else:
        assert program == "make", place
        assert f"\n{rest[0]}:" in (ROOT / "Makefile").read_text(), place


def begins(words, names):
    """Return which of the names of commands the words begin with, or None."""
    return next((name for name in names if name.split() == words[: len(name.split())]), None)


def run(words):
    if "--help" in words:
        with suppress(SystemExit):
            cli.main(words)
        return
    name = begins(words, SMALLER_COMMANDS)
    for option, value in SMALLER_COMMANDS.get(name, {}).items():
        words = [*without(option, words), option, value]
    cli.main(words)


def without(option, words):
    """Return the words without an option and its values."""
    if option not in words:
        return words
    start = words.index(option)
    later = (n for n, word in enumerate(words) if n > start and word.startswith("--"))
    return [*words[:start], *words[next(later, len(words)) :]]


def parse(words, place):
    """Let the parser of a command read its words, and the command do nothing."""
    assert words[0] in cli.COMMANDS, place
    with pytest.MonkeyPatch.context() as patched:
        stop_after_parsing(patched, cli.COMMANDS[words[0]])
        with pytest.raises(Parsed):
            cli.main(words)


def stop_after_parsing(patched, command):
    module = importlib.import_module(f"rmr_gym.commands.{command.module}")
    for place in (console, module):
        if hasattr(place, "parsed"):
            patched.setattr(place, "parsed", stopped(console.parsed, after=True))
    what = getattr(module, command.what)
    if isinstance(what, dict):
        for name, part in what.items():
            if not isinstance(part, type):
                patched.setitem(what, name, stopped(part))
    elif not command.words and not isinstance(what, type):
        patched.setattr(module, command.what, stopped(what))


def stopped(function, *, after=False):
    @functools.wraps(function)
    def stop(*args, **kwargs):
        if after:
            function(*args, **kwargs)
        raise Parsed

    return stop


SOURCES = [
    path for path in sorted((ROOT / "rmr_gym").rglob("*.py")) if "rmr-gym" in path.read_text()
]
SPOKEN = [*PAGES, ROOT / "results" / "README.md", *sorted((ROOT / "examples").rglob("*.py"))]


@pytest.mark.parametrize("text", by_name([*SPOKEN, *SOURCES]))
def test_commands_that_a_text_names_are_there(text):
    for command in _INLINE.findall(text.read_text()):
        first, *rest = command.split()
        assert first in cli.COMMANDS, command
        if rest and re.fullmatch("[a-z][a-z0-9-]*", rest[0]):
            assert rest[0] in subcommands(first), command


def subcommands(name):
    """Return what may stand behind a command: experiments, or the names of its app."""
    if name == "run":
        return [name.replace("_", "-") for name in experiments()]
    module = importlib.import_module(f"rmr_gym.commands.{cli.COMMANDS[name].module}")
    what = getattr(module, cli.COMMANDS[name].what)
    return what if isinstance(what, dict) else ()


BUILT = "docs/_build/"
"""Where `make docs` puts the pages: not there in a fresh checkout."""


@pytest.mark.parametrize("page", by_name(SPOKEN))
def test_modules_and_files_that_a_text_names_are_there(page):
    text = page.read_text()
    for name in {*_MODULE.findall(text)} - {FORMAT_NAME}:
        assert names_something(name), name
    for name in {*_FILE.findall(text)}:
        assert name.startswith(BUILT) or (ROOT / name).exists(), name


def names_something(dotted):
    """Tell whether a dotted name is a module, or something in one."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        try:
            thing = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        return all((thing := getattr(thing, part, None)) is not None for part in parts[length:])
    return False
