import pytest

from rmr_gym.protocol import balls, world_models


@pytest.fixture(autouse=True)
def _forget_loaded_data():
    yield
    balls.open_balls.cache_clear()
    balls.load_part.cache_clear()
    world_models.load_part.cache_clear()
