import pytest

from rmr_gym.protocol import world_models
from rmr_gym.stages import balls


@pytest.fixture(autouse=True)
def _forget_loaded_data():
    yield
    balls.forget_balls()
    world_models.load_part.cache_clear()
