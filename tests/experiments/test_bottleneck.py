import numpy as np
import pytest

from rmr_gym.core.errors import RMRError
from rmr_gym.experiments import write_report
from rmr_gym.experiments.studies import report as studies
from rmr_gym.experiments.studies.report import (
    abstract_size_curves,
    at_sizes,
    missing_sizes,
    size_curves,
)
from rmr_gym.report.page import findings_of
from rmr_gym.report.runs import load_run


def load(folder):
    return load_run(folder, studies.NARROWED)


def size_table(run):
    return studies.size_table(at_sizes(run, "ridge"))


def narrowing_table(run):
    return studies.narrowing_table(at_sizes(run, "ridge"))


def abstract_sizes(run):
    return studies.abstract_sizes(run["bottleneck_abstract"])


def row(table, **wanted):
    for column, value in wanted.items():
        table = table[table[column] == value]
    assert len(table) == 1
    return table.iloc[0]


def said_of(folder):
    page = studies.bottleneck(folder)
    return {found.subject: found.statement for found in findings_of(studies.bottleneck, page)}


def test_each_size_has_its_paired_differences(make_bottleneck):
    table = size_table(load(make_bottleneck()))
    assert len(table) == 2 * 3 * 3
    narrow = row(table, game="Pong", dim=2, arm="rmr")
    assert narrow["cswm_difference"] == pytest.approx(-0.1, abs=0.004)
    assert narrow["cswm_verdict"] == "worse"
    assert row(table, game="Pong", dim=64, arm="untrained")["seeds"] == 6


def test_narrowing_is_against_the_widest_by_seed(make_bottleneck):
    table = narrowing_table(load(make_bottleneck()))
    assert set(table["widest"]) == {64}
    found = row(table, game="Breakout", arm="rmr", dim=2)
    assert found["difference"] == pytest.approx(-0.2 + 0.4 / 64, abs=0.004)
    assert (found["verdict"], found["pairs"], found["p_worse"]) == ("worse", 6, 1 / 64)


def test_no_significance_under_five_seeds(make_bottleneck):
    table = narrowing_table(load(make_bottleneck(seeds=3)))
    assert set(table["verdict"]) == set(table["verdict_bh"]) == {"too few seeds"}


def test_null_data_is_not_marked(make_bottleneck):
    folder = make_bottleneck(games=6, fall={"rmr": 0.0, "cswm": 0.0, "untrained": 0.0})
    table = narrowing_table(load(folder))
    assert set(table["verdict_bh"]) == {"same"}


def test_missing_sizes_are_named(make_bottleneck):
    folder = make_bottleneck(missing={("Pong", 8), ("Breakout", 64)})
    sweep = load(folder)
    table = size_table(sweep)
    assert missing_sizes(sweep, table) == ["Pong at dim 8", "Breakout at dim 64"]
    narrowing = narrowing_table(sweep)
    assert set(narrowing[narrowing["game"] == "Breakout"]["widest"]) == {8}
    assert said_of(folder)["No score of RMR (frozen P)"] == "Pong at dim 8 and Breakout at dim 64."


def test_p_itself_is_read_at_its_last_step(make_bottleneck):
    table = abstract_sizes(load(make_bottleneck()))
    found = row(table, game="Pong", dim=2)
    assert (found["step"], found["bit_f1"]) == (500, pytest.approx(0.9))
    assert found["relative"] == pytest.approx(100 * (0.9 / (0.95 - 0.1 / 64) - 1))
    assert row(table, game="Pong", dim=64)["relative"] == 0


def test_the_reading_sets_the_fall_beside_that_of_no_training(make_bottleneck):
    said = said_of(make_bottleneck())
    fall = said["The narrowest latent of RMR (frozen P), dim 2 against 64"]
    assert "worse on 2 (Pong and Breakout)" in fall
    assert "mean difference in bit F1 −0.19" in fall
    beside = said["Is the fall larger than that of untrained encoder?"]
    assert "larger for RMR on 2 of 2 games" in beside
    few = said_of(make_bottleneck("few", seeds=3))
    assert (
        "no significance is claimed on 2 games"
        in few["The narrowest latent of RMR (frozen P), dim 2 against 64"]
    )


def test_curves_show_means_ranges_and_sizes(make_bottleneck):
    sweep = load(make_bottleneck())
    pong = size_curves(sweep).axes[0]
    lines = {line.get_label(): line for line in pong.lines}
    assert list(lines["RMR (frozen P)"].get_xdata()) == [2, 8, 64]
    table = size_table(sweep)
    means = table[(table["game"] == "Pong") & (table["arm"] == "rmr")]["micro_f1_mean"]
    assert lines["RMR (frozen P)"].get_ydata() == pytest.approx(np.array(means))
    assert len(pong.collections) == 3
    assert [tick.get_text() for tick in pong.get_xticklabels()] == ["2", "8", "64"]
    abstract = abstract_size_curves(sweep).axes[0]
    assert abstract.lines[0].get_ydata()[0] == pytest.approx(0.9)


def test_nothing_to_draw_is_an_error_that_names_the_file(make_bottleneck):
    folder = make_bottleneck()
    for file in ("bottleneck.csv", "bottleneck_abstract.csv"):
        (folder / file).unlink()
    sweep = load(folder)
    with pytest.raises(RMRError, match=r"bottleneck\.csv"):
        size_curves(sweep)
    with pytest.raises(RMRError, match=r"bottleneck_abstract\.csv"):
        abstract_size_curves(sweep)
    assert size_table(sweep).empty
    assert narrowing_table(sweep).empty


@pytest.mark.parametrize("dims", [(2, 64), (64,)])
def test_a_finished_run_is_not_said_to_have_no_scores(make_bottleneck, dims):
    text = write_report(make_bottleneck(seeds=1, games=1, dims=dims))[1]
    assert "RMR (frozen P) minus C-SWM (P trained), mean of games: dim" in text
    assert "no results" not in text
    assert "No score" not in text


def test_a_whole_report(make_bottleneck):
    folder = make_bottleneck(seeds=3)
    page = write_report(folder)[0].read_text(encoding="utf-8")
    for heading in (
        *("What the numbers say", "Bit F1 by latent size", "Against the widest latent"),
        *("RMR and controls at each size", "P itself, on RAM", "What was run", "How to read this"),
    ):
        assert f"<h2>{heading}</h2>" in page
    assert "▼" not in page
    saved = {file.name for file in (folder / "figures").iterdir()}
    assert saved == {"bottleneck_ridge.svg", "bottleneck_abstract.svg"}
    assert (folder / "bottleneck_narrowing.csv").is_file()
    (folder / "bottleneck.csv").unlink()
    assert "<h2>Unfinished</h2>" in write_report(folder)[0].read_text(encoding="utf-8")
