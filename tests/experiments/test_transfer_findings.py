from rmr_gym.experiments.transfer.report import transfer
from rmr_gym.report.page import findings_of


def said_of(folder):
    return {
        finding.subject: finding.statement for finding in findings_of(transfer, transfer(folder))
    }


OWN, OTHER = "Does a frozen P of the same game help?", "Does a frozen P of another game help?"


def test_a_lead_that_a_random_p_shares_is_no_knowledge(make_transfer):
    controls = {"cswm": 0.0, "random_p": 0.03, "shuffled_p": 0.0, "untrained": -0.05}
    said = said_of(make_transfer(gain=lambda *_: 0.02, controls=controls))
    assert "against C-SWM (P trained) yes: +0.02" in said[OTHER]
    assert "against a frozen random P no, worse: −0.0" in said[OTHER]
    assert "not above a frozen random P: that what P learnt helps is not shown" in said[OTHER]
    assert "untrained encoder: that training" not in said[OTHER]


def test_a_lead_over_all_that_know_nothing_is_said_and_so_is_the_untrained_encoder(make_transfer):
    controls = {"cswm": 0.0, "random_p": 0.01, "shuffled_p": 0.0, "untrained": 0.06}
    said = said_of(make_transfer(gain=lambda *_: 0.03, controls=controls))
    assert "that P was trained makes a difference" in said[OWN]
    assert "not above an untrained encoder: that training so helps is not shown" in said[OWN]


def test_without_the_controls_nothing_is_concluded(make_transfer):
    controls = {"cswm": 0.0, "random_p": 0.0}
    said = said_of(make_transfer(gain=lambda *_: 0.03, controls=controls))
    assert "Not run: a weight-shuffled P and an untrained encoder; so no lead" in said[OWN]


def test_donors_that_are_no_game_are_asked_about_on_their_own(make_transfer):
    question = "Is it knowledge of games?"
    said = said_of(make_transfer("a", gain=lambda donor, _: 0.0 if donor == "balls" else 0.03))
    assert "against C-SWM (P trained) yes" not in said["Does a frozen P of balls, no game, help?"]
    assert said["Other games' P against the own"].startswith("not significantly different")
    assert said[question].startswith("P of balls, no game, is worse than the recipient's own P: −")
    assert said[question].endswith("what helps is more than any trained P has.")
    said = said_of(make_transfer("b", gain=lambda donor, _: 0.05 if donor == "balls" else 0.03))
    assert "is better than the recipient's own P" in said[question]
    assert said[question].endswith("that knowledge of games helps is not shown.")
    said = said_of(make_transfer("c", others=()))
    assert said[question].endswith("whether any trained P would do as well is open.")
    said = said_of(make_transfer("d", games=3))
    assert said[question].endswith("these numbers settle nothing.")


def test_counts_stand_beside_the_papers(make_transfer):
    said = said_of(make_transfer(gain=lambda *_: 0.03))
    counts = said["Pairs of games, frozen P against C-SWM (P trained)"]
    assert counts.startswith(
        "of 36 pairs 36 (100.0%) better, 0 (0.0%) not significant, 0 (0.0%) worse"
    )
    assert "64.6% better, 33.7% same, 1.7% worse" in counts
    assert "Other games' P against the own" in said


def test_few_seeds_and_few_recipients_settle_nothing(make_transfer):
    said = said_of(make_transfer(games=3, seeds=3, gain=lambda *_: 0.2))
    assert "these numbers settle nothing" in said[OTHER]
    counts = said["Pairs of games, frozen P against C-SWM (P trained)"]
    assert counts.startswith("no significance is claimed on 9 with fewer than 5 seeds")
    assert "How coarse the test of a pair is" not in said


def test_the_coarseness_of_five_seeds_is_said(make_transfer):
    said = said_of(make_transfer())
    assert (
        "p cannot be below 0.0312; after correction over 36 pairs none is marked unless at "
        "least 23 reach it" in said["How coarse the test of a pair is"]
    )


def test_missing_pairs_and_failed_jobs_are_said(make_transfer):
    folder = make_transfer(games=3, missing={("balls", "Pong")})
    lines = "a,done,1,1,\nb,failed,1,2,NaN loss\nc,waiting,,0,\n"
    (folder / "jobs.csv").write_text(f"key,state,seconds,attempts,error\n{lines}")
    said = said_of(folder)
    assert said["Missing pairs"] == "1 of 12 have no pair of seeds (balls to Pong)."
    assert said["Unfinished"] == "of 3 jobs of the sweep 1 done, 1 failed, 1 waiting."
