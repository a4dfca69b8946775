import pandas as pd
import pytest

from rmr_gym.experiments import write_report
from rmr_gym.experiments.compare.report import compare
from rmr_gym.report.page import findings_of


def said(folder):
    return {finding.subject: finding.statement for finding in findings_of(compare, compare(folder))}


def edit(folder, change, file="natural.csv"):
    table = pd.read_csv(folder / file)
    change(table).to_csv(folder / file, index=False)


AGAINST = "RMR (frozen P) against C-SWM (P trained)"


def test_counts_follow_the_numbers_whatever_they_are(make_run):
    mixed = said(make_run("mixed", effect={"rmr": {"Pong": 0.02, "Freeway": -0.02}}))
    assert mixed[AGAINST].startswith(
        "of 2 games better on 1 (Pong), worse on 1 (Freeway), not significant on 0; "
    )
    worse = said(make_run("worse", effect={"rmr": -0.02}))
    assert "better on 0, worse on 2 (Pong and Freeway), not significant on 0" in worse[AGAINST]
    assert "mean difference in bit F1 −0.020" in worse[AGAINST]
    assert "worse on 2" in worse["RMR (frozen P) against untrained encoder"]
    assert "worse on 2" in worse["RMR (frozen P) against weight-shuffled P"]


def test_few_seeds_claim_nothing(make_run):
    found = said(make_run(seeds=3, effect={"rmr": {"Pong": 0.2, "Freeway": -0.2}}))
    assert found[AGAINST].startswith(
        "no significance is claimed on 2 games with fewer than 5 pairs, where the mean "
        "difference is above 0 on 1 and below 0 on 1; "
    )
    assert "too few seeds for a verdict" in " ".join(found.values())


def test_signs_over_probes_and_checkpoints(make_run):
    folder = make_run(effect={"rmr": {"Pong": 0.02, "Freeway": 0.02}})

    def flip(table):
        here = (table["game"] == "Freeway") & (table["arm"] == "rmr") & (table["step"] == 300)
        return table.assign(micro_f1=table["micro_f1"] - 0.1 * here)

    edit(folder, flip)
    found = said(folder)["RMR (frozen P) minus C-SWM (P trained) over all probes and checkpoints"]
    assert "always above 0 on 1 (Pong)" in found
    assert "of either sign on 1 (Freeway: above 0 in 2 of 4)" in found


def test_what_stands_highest_and_the_paper(make_run):
    found = said(make_run(effect={"untrained": 0.2}))
    assert "untrained encoder on 2" in found["Highest mean bit F1 of what never reads RAM"]
    paper = next(text for subject, text in found.items() if subject.startswith("The paper on RMR"))
    assert paper.startswith("better on 2 (Pong and Freeway), worse on 0, not significant on 0")


def test_an_objective_that_is_hardly_learnt_is_named(make_run):
    folder = make_run()

    def change(table):
        alike = (table["arm"] == "rmr") & (table["game"] == "Pong") & (table["step"] == 1000)
        table.loc[alike, "positive_energy"] = 0.98 * table.loc[alike, "negative_energy"]
        table.loc[table["arm"] == "cswm", "negative_energy"] = 4.0
        return table.assign(
            positive_energy=table["positive_energy"].where(table["arm"] != "cswm", 1.0)
        )

    edit(folder, change, "natural_curves.csv")
    found = said(folder)["How far the objective is learnt"]
    assert "RMR (frozen P) 0.5" in found
    assert "above 0.95 on 1 of 2 (Pong); " in found
    assert "C-SWM (P trained) 0.25, above 0.95 on 0 of 2;" in found


def test_collapse_is_named(make_run):
    folder = make_run()
    healthy = said(folder)
    subject = "Collapse (more than half of the 128 slots dead at a checkpoint)"
    assert healthy[subject] == "none."

    def kill(table):
        here = (table["game"] == "Pong") & (table["arm"] == "cswm") & (table["seed"] == 3)
        dead = table["dead_slots"].mask(here & (table["step"] == 300), 100)
        return table.assign(dead_slots=dead)[~(here & (table["step"] == 1000))]

    edit(folder, kill)
    found = said(folder)
    assert found[subject] == "C-SWM (P trained) on Pong, seed 3, step 300 (100 dead)."


def test_missing_arms_are_named(make_run):
    folder = make_run()
    edit(folder, lambda table: table[~((table["arm"] == "no_p") & (table["step"] == 1000))])
    assert said(folder)["no P"].startswith("no score on ")


def test_what_failed_is_repeated(make_run):
    folder = make_run(info={"problems": ["natural Pong no_p 0: broken"]}, games=("Pong",))
    assert "What failed on the way: natural Pong no_p 0: broken." in write_report(folder)[1]


def test_abstract_models_against_the_copy(make_run):
    folder = make_run()

    def below(table):
        here = (table["model"] == "mpnn") & (table["game"] == "Pong")
        return table.assign(bit_f1=table["bit_f1"].mask(here, 0.1))

    edit(folder, below, "abstract.csv")
    found = said(folder)["Abstract models with a mean bit F1 above the copy baseline's"]
    assert found == "MLP on 2 of 2 games; Deep Sets on 2 of 2 games; MPNN on 1 of 2 games."


def test_objectives_are_told_apart(make_run):
    folder = make_run()
    edit(
        folder,
        lambda table: pd.concat(
            [table, table[table["arm"].isin(["rmr", "cswm"])].assign(objective="infonce")]
        ),
    )
    assert {f"C-SWM hinge, {AGAINST}", f"InfoNCE, {AGAINST}"} <= set(said(folder))


def test_an_empty_run_says_nothing(make_run):
    assert said(make_run(drop=("natural.csv", "abstract.csv"))) == {}


@pytest.fixture
def _undrawn(monkeypatch):
    monkeypatch.setattr("rmr_gym.report.page._saved", lambda *_: {})


def text_of(folder):
    return write_report(folder)[1]


def line(text, start):
    return next(line for line in text.splitlines() if line.strip().startswith(start))


@pytest.mark.usefixtures("_undrawn")
def test_good_and_bad_news_stand_in_one_form(make_run):
    folder = make_run(effect={"rmr": {"Pong": 0.02, "Freeway": -0.02}})
    pong, freeway = text_of(folder).split("\n\n")[:2]
    head = "Pong: C-SWM hinge, step 1000, ridge probe, 6 seeds"
    assert pong.startswith(f"{head}\n  the paper: RMR 0.762, C-SWM 0.750")
    assert "better" in line(pong, "RMR (frozen P)")
    assert "−0.0" in line(freeway, "RMR (frozen P)")
    assert "worse" in line(freeway, "RMR (frozen P)")


@pytest.mark.usefixtures("_undrawn")
def test_columns_are_aligned_and_lines_are_short(make_run):
    blocks = text_of(make_run()).split("\n\n")
    assert max(len(line) for block in blocks[:2] for line in block.splitlines()) <= 80
    block = blocks[0].splitlines()[1:]
    start = block[1].index("to C-SWM")
    assert all(each[start - 1] == " " != each[start] for each in block[1:])


@pytest.mark.usefixtures("_undrawn")
def test_an_arm_with_fewer_seeds_says_how_many(make_run):
    folder = make_run()
    table = pd.read_csv(folder / "natural.csv")
    table[~((table["arm"] == "no_p") & (table["seed"] > 3))].to_csv(
        folder / "natural.csv", index=False
    )
    shown = line(text_of(folder), "no P")
    assert "no P (n=4)" in shown
    assert shown.count("(n=4)") == 3


@pytest.mark.usefixtures("_undrawn")
def test_few_seeds_show_their_number_and_no_verdict(make_run):
    text = text_of(make_run(seeds=1))
    assert "(n=1)" in line(text, "RMR (frozen P)")
    assert "1 seed\n" in text
    block = text.split("\n\n")[0]
    assert "better" not in block
    assert "worse" not in block


@pytest.mark.usefixtures("_undrawn")
def test_a_run_without_results_says_so(make_run):
    assert "no natural results" in text_of(make_run(drop=("natural.csv",)))
