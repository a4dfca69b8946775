import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from rmr_gym.core.errors import RMRError
from rmr_gym.experiments.compare.report import difference_dots, natural_curves
from rmr_gym.report import arms
from rmr_gym.report.charts import LOOKS, figure_bytes, save_figure
from rmr_gym.report.pictures import frames_beside_ram
from rmr_gym.report.runs import load_run, read_frames


def load(folder):
    return load_run(folder, arms.NATURAL | arms.ABSTRACT)


def natural_table(run):
    return arms.natural_table(*scored(run))


def scored(run):
    rows = arms.standing(run["natural"], run.games, "ridge")
    return rows, arms.arm_pairs(rows)


def course(run, score="micro_f1", probe="ridge"):
    return arms.checkpoint_curves(run["natural"], run.games, probe, (score,))


def panels(figure):
    return [panel for panel in figure.axes if panel.get_title()]


def labelled(panel):
    return {line.get_label(): line for line in panel.lines if not line.get_label().startswith("_")}


def test_curves_show_each_seed_and_the_mean(make_run):
    run = load(make_run(seeds=3))
    pong, freeway = panels(natural_curves(run))
    assert (pong.get_title(), freeway.get_title()) == ("Pong", "Freeway")
    curves = run["natural_curves"].query("game == 'Pong' and arm == 'rmr'")
    mean = labelled(pong)["RMR (frozen P)"]
    assert mean.get_ydata() == pytest.approx(curves.groupby("step")["loss"].mean().to_numpy())
    same_colour = [
        line for line in pong.lines if to_hex(line.get_color()) == LOOKS["rmr"]["color"].lower()
    ]
    assert len(same_colour) == 4


def test_the_ceiling_with_its_other_loss_is_left_out_of_the_curves(make_run):
    folder = make_run(seeds=1)
    curves = pd.read_csv(folder / "natural_curves.csv")
    ceiling = curves[curves["arm"] == "rmr"].assign(arm="supervised", loss=0.5)
    pd.concat([curves, ceiling]).to_csv(folder / "natural_curves.csv", index=False)
    pong = panels(natural_curves(load(folder)))[0]
    assert list(labelled(pong)) == [
        "RMR (frozen P)",
        "C-SWM (P trained)",
        "frozen random P",
        "weight-shuffled P",
        "no P",
    ]


def test_long_curves_are_averaged_in_groups(make_run):
    folder = make_run(seeds=1, games=("Pong",))
    steps = np.arange(1, 1001)
    pd.DataFrame(
        {"game": "Pong", "model": "mpnn", "seed": 0, "step": steps, "loss": steps * 2.0}
    ).to_csv(folder / "abstract_curves.csv", index=False)
    (panel,) = panels(arms.abstract_curves(load(folder)))
    line = labelled(panel)["MPNN"]
    assert len(line.get_xdata()) == 200
    assert line.get_xdata()[0] == 3
    assert line.get_ydata() == pytest.approx(2 * line.get_xdata())


def test_checkpoint_means_and_the_untrained_level(make_run):
    run = load(make_run())
    pong = panels(course(run))[0]
    lines = labelled(pong)
    table = natural_table(run)
    table = table[table["game"] == "Pong"].set_index("arm")["micro_f1_mean"]
    assert list(lines["C-SWM (P trained)"].get_xdata()) == [300, 1000]
    assert lines["C-SWM (P trained)"].get_ydata()[-1] == pytest.approx(table["cswm"])
    untrained = lines["untrained encoder"]
    assert untrained.get_linestyle() == "--"
    assert list(untrained.get_ydata()) == pytest.approx([table["untrained"]] * 2)


def test_differences_show_each_pair(make_run):
    run = load(make_run(effect={"rmr": -0.02}))
    pong = panels(difference_dots(run))[0]
    dots = [
        line
        for line in pong.lines
        if line.get_marker() == "o" and to_hex(line.get_color()) == LOOKS["rmr"]["color"].lower()
    ]
    (points,) = dots
    assert len(points.get_xdata()) == 6
    expected = natural_table(run).query("game == 'Pong' and arm == 'rmr'")["cswm_difference"].item()
    assert np.mean(points.get_xdata()) == pytest.approx(expected)
    assert expected < -0.01


def test_ram_is_written_in_hexadecimal_and_changes_are_framed(make_run):
    run = load(make_run(seeds=1))
    figure = frames_beside_ram(read_frames(run.folder), "Pong")
    memory = [panel for panel in figure.axes if panel.texts]
    assert [text.get_text() for text in memory[2].texts] == [
        f"{byte:02X}" for byte in read_frames(run.folder)["Pong_ram"][2]
    ]
    assert [len(panel.patches) for panel in memory] == [0, 2, 3]


@pytest.mark.parametrize("seeds", [1, 2])
def test_every_figure_draws_with_few_seeds_and_gaps(make_run, seeds):
    folder = make_run(seeds=seeds, games=("Pong",))
    table = pd.read_csv(folder / "natural.csv")
    lost = table["arm"].isin(["cswm", "pca"]) & (table["step"] != 300)
    table.assign(micro_f1=table["micro_f1"].mask(lost)).to_csv(folder / "natural.csv", index=False)
    curves = pd.read_csv(folder / "natural_curves.csv")
    curves.loc[curves["arm"] == "no_p", ["loss", "negative_energy"]] = [np.nan, 0.0]
    curves.to_csv(folder / "natural_curves.csv", index=False)
    run = load(folder)
    for figure in (
        natural_curves(run),
        natural_curves(run, "negative_energy"),
        course(run),
        course(run, "effective_rank", "adam_raw"),
        difference_dots(run, step=300),
    ):
        assert figure_bytes(figure, "png").startswith(b"\x89PNG")
    assert "no P" not in labelled(panels(natural_curves(run))[0])


def test_nothing_to_draw_is_an_error_that_names_the_file(make_run):
    drop = ("natural.csv", "natural_curves.csv", "abstract_curves.csv", "frames.npz")
    run = load(make_run(seeds=1, drop=drop))
    for draw, file in (
        (natural_curves, "natural_curves.csv"),
        (arms.abstract_curves, "abstract_curves.csv"),
        (course, "natural.csv"),
        (difference_dots, "natural.csv"),
        (lambda run: frames_beside_ram(read_frames(run.folder), "Pong"), "frames.npz"),
    ):
        with pytest.raises(RMRError, match=file):
            draw(run)


def test_files_are_reproducible_and_settings_untouched(make_run, tmp_path):
    run = load(make_run(seeds=1, games=("Pong",)))
    before = dict(mpl.rcParams)
    paths = [
        save_figure(arms.abstract_curves(run), tmp_path / name)
        for name in ("a.svg", "b.svg", "c.png")
    ]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert paths[2].read_bytes().startswith(b"\x89PNG")
    assert dict(mpl.rcParams) == before
    with pytest.raises(RMRError, match=r"ending of \.svg or \.png"):
        save_figure(arms.abstract_curves(run), tmp_path / "a.pdf")
