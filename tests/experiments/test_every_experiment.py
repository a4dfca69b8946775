import pytest

from rmr_gym import cli
from rmr_gym.experiments import experiments, part_of
from rmr_gym.experiments.base import Experiment

NAMES = [*experiments()]


def test_folders_with_a_grid_are_the_experiments(capsys):
    assert {"compare", "table2", "transfer"} <= {*NAMES}
    cli.main(["run"])
    listed = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[0].replace("-", "_") for line in listed] == NAMES
    assert all(len(line.split()) > 2 for line in listed)


@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_is_options_and_a_folder_name(name):
    experiment = part_of(name, "grid")
    assert issubclass(experiment, Experiment)
    assert experiment.__doc__
    assert callable(part_of(name, "report"))


def test_an_unknown_experiment_names_the_nearest(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["run", "tabel2"])
    assert stop.value.code == 2
    assert "did you mean 'table2'" in " ".join(capsys.readouterr().err.split())
