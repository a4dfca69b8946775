import numpy as np
import pytest
from gymnasium.vector import AutoresetMode


@pytest.fixture
def beside_singles():
    """Steps a vector and the same environments one by one; yields what both show of each."""
    return _beside_singles


def _beside_singles(envs, singles, mode, steps=14):
    seen, _ = envs.reset(seed=0)
    alone = [env.reset(seed=i)[0] for i, env in enumerate(singles)]
    over, ended, rng = np.zeros(len(singles), bool), 0, np.random.default_rng(0)
    for _ in range(steps):
        assert seen in envs.observation_space
        yield from ((_row(seen, i), shown) for i, shown in enumerate(alone))
        if mode is AutoresetMode.DISABLED and over.any():
            seen, _ = envs.reset(options={"reset_mask": over.copy()})
            alone = [env.reset()[0] if over[i] else alone[i] for i, env in enumerate(singles)]
            over[:] = False
            continue
        actions = rng.integers(18, size=len(singles))
        seen, _, terminated, truncated, infos = envs.step(actions)
        for i, env in enumerate(singles):
            if mode is AutoresetMode.NEXT_STEP and over[i]:
                alone[i] = env.reset()[0]
                continue
            alone[i], _, *ends, _ = env.step(actions[i])
            assert any(ends) == (terminated[i] or truncated[i])
            if mode is AutoresetMode.SAME_STEP and any(ends):
                yield infos["final_obs"][i], alone[i]
                alone[i] = env.reset()[0]
        over = terminated | truncated
        ended += over.sum()
    assert ended >= 5


def _row(rows, i):
    return {name: entry[i] for name, entry in rows.items()} if isinstance(rows, dict) else rows[i]
