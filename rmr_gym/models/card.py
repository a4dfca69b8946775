"""The card of a pretrained encoder: what it is, what it was made from, how good it is."""

from collections.abc import Mapping, Sequence
from typing import Any

_HEAD = """\
---
license: mit
library_name: rmr-gym
tags: [reinforcement-learning, representation-learning, {tag}]
---
# Slot encoder of {game}

{what} to
{slots} slots of {dim} numbers. {processor}

{use}
Licence: MIT. The files are `config.json` and `weights.safetensors`; neither can run code.
"""

_OF_GAMES = {
    "tag": "atari",
    "what": (
        "From gray frames of {game} "
        "({height} x {width} pixels, shrunk from the whole screen by area)"
    ),
    "use": """\
    import ale_py, gymnasium as gym
    from rmr_gym.wrappers.features import RMRObservationWrapper

    gym.register_envs(ale_py)
    env = RMRObservationWrapper(gym.make("ALE/{game}-v5"), "FOLDER OF THIS FILE")
""",
}

_OF_BALLS = {
    "tag": "bouncing-balls",
    "what": (
        "From the last {instants} frames of {game} "
        "(RGB, {resolution} x {resolution} pixels, shrunk from larger ones by area)"
    ),
    "use": """\
    import gymnasium as gym, rmr_gym
    from rmr_gym.wrappers.features import RMRObservationWrapper

    env = RMRObservationWrapper(gym.make("rmr/{game}-v0"), "FOLDER OF THIS FILE")

It knows the balls of the world that its data were recorded from, with the options below.
""",
}


def card(config: Mapping[str, Any], provenance: Mapping[str, Any]) -> str:
    """Return the card in Markdown.

    Args:
        config: The encoder's configuration as plain JSON.
        provenance: ``data``, ``training`` and ``versions`` by name; ``metrics``, a list of rows
            that share their columns. All optional.
    """
    core = config["core"]
    processor = f"P ({core}) is included." if core else "P is not included."
    own = _OF_BALLS if "resolution" in config else _OF_GAMES
    own = {name: text.format(**config) for name, text in own.items()}
    parts = [_HEAD.format(**config, **own, processor=processor)]
    for title in ("data", "training"):
        if provenance.get(title):
            parts.append(f"## {title.capitalize()}\n\n{_facts(provenance[title])}")
    if provenance.get("metrics"):
        parts.append(f"## Metrics\n\n{_table(provenance['metrics'])}")
    if provenance.get("versions"):
        parts.append(f"## Versions\n\n{_facts(provenance['versions'])}")
    return "\n".join(parts)


def _facts(facts: Mapping[str, Any]) -> str:
    return "".join(f"- {name}: {value}\n" for name, value in facts.items())


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns)]
    lines += [[_cell(row.get(name)) for name in columns] for row in rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
