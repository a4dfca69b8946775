import pandas as pd

from rmr_gym.analysis.run import load_run
from rmr_gym.analysis.tables import terminal_table


def line(text, start):
    return next(line for line in text.splitlines() if line.strip().startswith(start))


def test_good_and_bad_news_stand_in_one_form(make_run):
    run = load_run(make_run(effect={"rmr": {"Pong": 0.02, "Freeway": -0.02}}))
    pong, freeway = terminal_table(run).split("\n\n")[:2]
    assert pong.startswith("Pong: C-SWM hinge, step 1000, ridge probe, 6 seeds")
    assert "better" in line(pong, "RMR (frozen P)")
    assert line(pong, "the paper").strip() == "the paper: RMR 0.762, C-SWM 0.750"
    assert "−0.0" in line(freeway, "RMR (frozen P)")
    assert "worse" in line(freeway, "RMR (frozen P)")


def test_columns_are_aligned_and_lines_are_short(make_run):
    text = terminal_table(load_run(make_run()))
    assert max(map(len, text.splitlines())) <= 80
    block = text.split("\n\n")[0].splitlines()
    start = block[1].index("to C-SWM")
    assert all(each[start - 1] == " " != each[start] for each in block[1:-1])


def test_an_arm_with_fewer_seeds_says_how_many(make_run):
    folder = make_run()
    table = pd.read_csv(folder / "natural.csv")
    table[~((table["arm"] == "no_p") & (table["seed"] > 3))].to_csv(
        folder / "natural.csv", index=False
    )
    shown = line(terminal_table(load_run(folder)), "no P")
    assert "no P (n=4)" in shown
    assert shown.count("(n=4)") == 3


def test_few_seeds_show_their_number_and_no_verdict(make_run):
    text = terminal_table(load_run(make_run(seeds=1)))
    assert "(n=1)" in line(text, "RMR (frozen P)")
    assert "1 seed\n" in text
    block = text.split("\n\n")[0]
    assert "better" not in block
    assert "worse" not in block


def test_a_run_without_results_says_so(make_run):
    assert "No natural results" in terminal_table(load_run(make_run(drop=("natural.csv",))))
