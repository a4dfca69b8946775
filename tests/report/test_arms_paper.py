import pytest

from rmr_gym.report.arms import paper_abstract, paper_natural, paper_verdict

GAMES = [
    "Asteroids",
    "BattleZone",
    "Berzerk",
    "Bowling",
    "Boxing",
    "Breakout",
    "DemonAttack",
    "Freeway",
    "Frostbite",
    "Hero",
    "MontezumaRevenge",
    "MsPacman",
    "Pitfall",
    "Pong",
    "PrivateEye",
    "Qbert",
    "Riverraid",
    "Seaquest",
    "Skiing",
    "SpaceInvaders",
    "Tennis",
    "Venture",
    "VideoPinball",
    "YarsRevenge",
]


@pytest.mark.parametrize("game", GAMES)
def test_every_game_of_the_paper_is_found_by_its_ale_name(game):
    natural, abstract = paper_natural(game), paper_abstract(game)
    assert natural["title"] == abstract["title"]
    assert 0.3 < natural["rmr_mean"] < 1
    assert 0.4 < abstract["mpnn_slot_acc"] < 1
    assert 0.7 < abstract["mpnn_bit_f1"] < 1


def test_figures_of_pong():
    natural = paper_natural("Pong")
    assert (natural["rmr_mean"], natural["rmr_std"], natural["p_value"]) == (0.762, 0.010, "0.001")
    abstract = paper_abstract("pong")
    assert abstract["copy_slot_acc"] == pytest.approx(0.6876)
    assert abstract["deep_sets_bit_f1"] == 0.920


def test_titles_lead_to_the_same_rows():
    for title, game in [
        ("Yars' Revenge", "YarsRevenge"),
        ("Montezuma's Revenge", "MontezumaRevenge"),
        ("Ms. Pac-Man", "MsPacman"),
        ("Q*Bert", "Qbert"),
    ]:
        assert paper_natural(title) == paper_natural(game)


def test_verdicts_are_the_papers_counts():
    verdicts = [paper_verdict(game) for game in GAMES]
    assert verdicts.count("worse") == 1
    assert paper_verdict("Pitfall") == "worse"
    assert verdicts.count("better") == 15


def test_a_game_that_the_paper_lacks():
    assert paper_natural("Adventure") == {}
    assert paper_abstract("Adventure") == {}
    assert paper_verdict("Adventure") is None
