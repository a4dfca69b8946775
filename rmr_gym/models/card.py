"""The card of a pretrained encoder: what it is, what it was made from, how good it is."""

from collections.abc import Mapping, Sequence
from typing import Any

_HEAD = """\
---
license: mit
library_name: rmr-gym
tags: [reinforcement-learning, representation-learning, atari]
---
# Slot encoder of {game}

From gray frames of {game} ({height} x {width} pixels, shrunk from the whole screen by area) to
{slots} slots of {dim} numbers. {processor}

    import ale_py, gymnasium as gym
    from rmr_gym.wrappers.rmr_features import RMRObservationWrapper

    gym.register_envs(ale_py)
    env = RMRObservationWrapper(gym.make("ALE/{game}-v5"), "FOLDER OF THIS FILE")

Licence: MIT. The files are `config.json` and `weights.safetensors`; neither can run code.
"""


def card(config: Mapping[str, Any], provenance: Mapping[str, Any]) -> str:
    """Return the card in Markdown.

    Args:
        config: The encoder's configuration as plain JSON.
        provenance: ``data``, ``training`` and ``versions`` by name; ``metrics``, a list of rows
            that share their columns. All optional.
    """
    core = config["core"]
    processor = f"P ({core}) is included." if core else "P is not included."
    parts = [_HEAD.format(**config, processor=processor)]
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
    return f"{value:.4f}" if isinstance(value, float) else str(value)
