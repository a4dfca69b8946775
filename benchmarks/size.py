"""How large the package is: code lines, files, modules a folder, the spine; run by `make check`.

    python benchmarks/size.py

Code lines are those without docstrings, comments and blank lines. Beside each measure stands what
the design aims at, and the ceiling: it goes down with what is cut, and up only with a feature whose
size was agreed on before (the belief of RAM: 900 lines, its controls: 300; what a new user needs,
of which doctor, live page, logs and charts: 200 lines, 2 files; reading and wrappers: 100 lines;
the compiled pixel encoder: 81 lines, a file; beliefs around environments: 176 lines;
imitation under perturbation: 140 lines, a file; battles and what models of crops say of them: 147
lines, a file; the value in films of agents: 10 lines). It never passes 20,000.
The exit status is 1 where a ceiling is passed, so that growth is a decision and not an accident.
"""

import ast
import io
import sys
import tokenize
from collections import Counter
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "rmr_gym"
AIMS = {"code lines": 17_000, "files": 130, "modules in a folder": 15, "spine": 5_500}
CEILINGS = {"code lines": 19_999, "files": 143, "modules in a folder": 13, "spine": 6_060}

SPINE = (
    "core", "envs/atari", "data", "models/rmr", "runs", "report", "experiments/base.py",
    "experiments/atari.py", "experiments/__init__.py", "experiments/compare",
    *(f"stages/{name}.py" for name in (
        "presets", "games", "natural", "probe", "chain",
    )),
)  # fmt: skip
"""What a first reader reads: from a recorded game to the page of a comparison."""

WINGS = (
    "core/processes.py",
    "data/minari.py",
    "data/windows.py",
    "models/rmr/belief.py",
    "models/rmr/kernels/",
    "models/rmr/stacked.py",
    "runs/cluster.py",
)
"""What lies in rooms of the spine and is entered by those alone who need it."""

QUIET = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
    tokenize.ENDMARKER,
}  # fmt: skip


def code_lines(path: Path) -> int:
    """Count the lines of a file that hold code."""
    text, lines = path.read_text(), set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in QUIET:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - _docstring_lines(text))


def _docstring_lines(text: str) -> set[int]:
    lines: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        body = getattr(node, "body", None)
        for part in body if isinstance(body, list) else []:
            constant = part.value if isinstance(part, ast.Expr) else None
            if isinstance(constant, ast.Constant) and isinstance(constant.value, str):
                lines.update(range(part.lineno, (part.end_lineno or part.lineno) + 1))
    return lines


def in_spine(path: Path) -> bool:
    """Tell whether a file is read by a first reader."""
    name = path.relative_to(PACKAGE).as_posix()
    return not name.startswith(WINGS) and any(
        name == part or name.startswith(f"{part}/") for part in SPINE
    )


def main() -> None:
    """Print the measures beside aims and ceilings."""
    counts = {path: code_lines(path) for path in sorted(PACKAGE.rglob("*.py"))}
    modules = Counter(path.parent for path in counts if path.name != "__init__.py")
    folders: Counter[str] = Counter()
    for path, count in counts.items():
        folders[path.relative_to(PACKAGE).parts[0]] += count
    fullest = max(modules, key=lambda folder: modules[folder])
    measures = {
        "code lines": sum(counts.values()),
        "files": len(counts),
        "modules in a folder": modules[fullest],
        "spine": sum(count for path, count in counts.items() if in_spine(path)),
    }
    print(", ".join(f"{name} {count:,}" for name, count in folders.most_common()))
    for name, measure in measures.items():
        print(f"{name}: {measure:,} (aim {AIMS[name]:,}, ceiling {CEILINGS[name]:,})")
    sys.exit(any(measure > CEILINGS[name] for name, measure in measures.items()))


if __name__ == "__main__":
    main()
