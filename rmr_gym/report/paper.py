"""The paper's own figures (RMR, Tables 1 and 2), looked up by game."""

import re
from functools import cache
from importlib.resources import files

import pandas as pd


def paper_key(name: str) -> str:
    """Return what a game's title and its name here have in common.

    >>> paper_key("Montezuma's Revenge") == paper_key("MontezumaRevenge")
    True
    """
    return re.sub(r"[^a-z0-9]", "", re.sub(r"['’]s\b", "", name.lower()))


@cache
def _table(name: str) -> pd.DataFrame:
    with (files("rmr_gym.report") / "paper_figures" / name).open(encoding="utf-8") as file:
        table = pd.read_csv(file, dtype={"p_value": str})
    return table.assign(key=[paper_key(game) for game in table["game"]]).set_index("key")


def paper_natural(game: str) -> dict[str, float | str]:
    """Return the row of the paper's Table 1 for a game; empty if it has none.

    Args:
        game: Name or title of the game.

    Returns:
        ``title``, ``agent57_mean``, ``agent57_std``, ``cswm_mean``, ``cswm_std``, ``rmr_mean``,
        ``rmr_std`` (bit F1 over 20 seeds) and ``p_value`` (text, as printed there).
    """
    return _row("rmr_table1_natural_f1.csv", game)


def paper_abstract(game: str) -> dict[str, float | str]:
    """Return the row of the paper's Table 2 for a game; empty if it has none.

    Args:
        game: Name or title of the game.

    Returns:
        ``title`` and, for each of copy, mlp, deepsets and mpnn, ``<model>_slot_acc`` (a share;
        the paper prints per cent) and ``<model>_bit_f1``.
    """
    row = _row("rmr_table2_abstract.csv", game)
    return {
        name: value / 100 if name.endswith("slot_acc") and not isinstance(value, str) else value
        for name, value in row.items()
    }


def paper_verdict(game: str) -> str | None:
    """Return what the paper found for RMR against C-SWM: better, worse, same; None if not there.

    Its p-value is of one one-sided test in the direction of the difference, 20 seeds, alpha 0.05.
    """
    row = paper_natural(game)
    if not row:
        return None
    if float(str(row["p_value"]).removeprefix("<")) >= 0.05:
        return "same"
    return "better" if float(row["rmr_mean"]) > float(row["cswm_mean"]) else "worse"


def _row(table: str, game: str) -> dict[str, float | str]:
    rows = _table(table)
    key = paper_key(game)
    if key not in rows.index:
        return {}
    row = {"title": str(rows.at[key, "game"])}
    return row | {
        str(name): rows.at[key, name] if name == "p_value" else float(str(rows.at[key, name]))
        for name in rows.columns
        if name != "game"
    }
