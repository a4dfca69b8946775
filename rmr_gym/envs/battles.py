"""Battles of two teams on a grid, played by MAgent2: what units see of each other, and do."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import EzPickle
from jaxtyping import Bool, Int

from rmr_gym.core.errors import RMRError, optional, whole_number
from rmr_gym.envs.arguments import Arrays, Info, Seed, one_action, plain_seed, probability

CHANNELS = ("friend", "enemy", "health", "attacks", "up", "down", "left", "right")
"""Of a frame; the last five are the action that a friend takes next."""
SMALLEST, LARGEST = 12, 100
_LIT, _REACH = 255, 6
_MOVES = ((1, 2, 3), (5, 6, 7), (9, 10, 11))
_ATTACKS = ((13, 14, 15), (16, 6, 17), (18, 19, 20))
_ACTIONS = np.array([_MOVES, _ATTACKS], np.int32)
"""MAgent2's numbers of moves to the neighbouring cells and of attacks on them; 6 is to stay."""


class BattlesEnv(gym.Env[Any, Any], EzPickle):
    """Two teams fight on a square grid; one of them, the friends, is seen with all that it does.

    Both teams are played: a unit attacks the nearest enemy where that is a neighbour, one of 8
    cells, and else goes a cell towards it; with the probability ``noise`` it goes to a neighbouring
    cell at random, or stays. What two units want that only one can have is drawn by MAgent2. A hit
    takes a fifth of the health of a whole unit, of which a hundredth comes back a step.

    Observation: ``Dict(pixels: uint8[size, size, 8], places: int16[team, 2])``. The channels of a
    frame are `CHANNELS`: markers of friends and enemies, 0 or 255; the health of either, 255 for
    whole; and what each friend does next, 0 or 255: whether it attacks, and which way. Places are
    (row, column) of each friend, -1 for the fallen.

    Action: ``Discrete(1)``, a no-op. Reward: 0.

    Episode end: ``terminated`` where a team has fallen; ``truncated`` by the step limit that the id
    registers.

    Start state: friends anywhere in the left third of the grid, enemies in the right third, all
    whole; everything is drawn from the environment's generator, so that a seed determines it.

    Source: MAgent2, battle_v4, for S2RM, Appendix B.1 (markers, health and actions as channels).
    Differs: frames are of the whole grid and not polar; crops of them are the views.

    Args:
        team: Units of each team.
        size: Height and width of the grid, its outermost cells being wall.
        noise: Probability of a random step, in [0, 1].

    Raises:
        RMRError: MAgent2 is not installed, or there is no such grid, team or probability.

    Example:
        >>> import gymnasium as gym
        >>> import rmr_gym
        >>> env = gym.make("rmr/Battles-v0", team=4)  # doctest: +SKIP
    """

    package = "magent2"

    def __init__(self, team: int = 8, size: int = 24, noise: float = 0.2):
        EzPickle.__init__(self, team, size, noise)
        self._magent = optional("magent2", "battles")
        self._battle = optional("magent2.environments.battle.battle", "battles")
        self.size, self.noise = whole_number("size", size), probability("noise", noise)
        self.team, most = whole_number("team", team), (self.size - 2) * (self.size // 3 - 1)
        if not SMALLEST <= self.size <= LARGEST or not 1 <= self.team <= most:
            raise RMRError(
                f"expected a grid of {SMALLEST} to {LARGEST} cells a side, and teams of 1 unit to "
                f"as many as fit into a third of it ({most}), found size={size} and team={team}"
            )
        frame = gym.spaces.Box(0, _LIT, (self.size, self.size, len(CHANNELS)), np.uint8)
        places = gym.spaces.Box(-1, self.size - 1, (self.team, 2), np.int16)
        self.observation_space = gym.spaces.Dict(pixels=frame, places=places)
        self.action_space = gym.spaces.Discrete(1)
        self._grid: Any = None

    def get_action_meanings(self) -> list[str]:
        """Name the one action."""
        return ["no-op"]

    def reset(self, *, seed: Seed = None, options: Info | None = None) -> tuple[Arrays, Info]:
        """Begin a battle."""
        super().reset(seed=plain_seed(seed), options=options)
        rewards, number = self._battle.default_reward_args, int(self.np_random.integers(2**31))
        config = self._battle.get_config(self.size, False, number, **rewards)
        self._grid = self._magent.GridWorld(config, map_size=self.size)
        self._grid.reset()
        self._teams, rows = self._grid.get_handles(), self.size - 2
        for left, handle in zip((1, self.size - self.size // 3), self._teams, strict=True):
            cells = self.np_random.choice(rows * (self.size // 3 - 1), self.team, replace=False)
            places = np.stack([left + cells // rows, 1 + cells % rows, 0 * cells], axis=1)
            self._grid.add_agents(handle, method="custom", pos=places.tolist())
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Arrays, float, bool, bool, Info]:
        """Let all units do what they have decided, and decide anew."""
        if self._grid is None:
            raise RMRError("expected an episode that runs, found none: call reset() before step()")
        one_action(action, 1)
        for handle, decided in zip(self._teams, self._decided, strict=True):
            self._grid.set_action(handle, decided)
        self._grid.step()
        self._grid.clear_dead()
        return self._observe(), 0.0, not all(map(len, self._decided)), False, {}

    def _observe(self) -> Arrays:
        """Let all units decide, and return what is there and what friends have decided."""
        # MAgent2's places are (column, row)
        places = [self._grid.get_pos(handle)[:, ::-1] for handle in self._teams]
        plans = [self._plan(*places), self._plan(*places[::-1])]
        self._decided = [_ACTIONS[hits.astype(int), *(way.T + 1)] for hits, way in plans]
        frame = np.zeros((self.size, self.size, len(CHANNELS)), np.uint8)
        for channel, (handle, cells) in enumerate(zip(self._teams, places, strict=True)):
            health = self._grid.get_observation(handle)[0][:, _REACH, _REACH, 2]
            frame[*cells.T, channel], frame[*cells.T, 2] = _LIT, np.rint(_LIT * health)
        hits, (down, right) = plans[0][0], plans[0][1].T
        told = [hits, down < 0, down > 0, right < 0, right > 0]
        frame[*places[0].T, 3:] = _LIT * np.stack(told, axis=1)
        known = np.full((self.team, 2), -1, np.int16)
        known[self._grid.get_agent_id(self._teams[0])] = places[0]
        return {"pixels": frame, "places": known}

    def _plan(
        self, own: Int[np.ndarray, "units 2"], others: Int[np.ndarray, "others 2"]
    ) -> tuple[Bool[np.ndarray, " units"], Int[np.ndarray, "units 2"]]:
        """Return which units attack, and which way each attacks or goes: (-1 to 1, -1 to 1)."""
        wander = self.np_random.random(len(own)) < self.noise
        drawn = self.np_random.integers(-1, 2, own.shape)
        if not len(others):
            return np.zeros(len(own), bool), drawn
        apart = others - own[:, None]
        nearest = apart[np.arange(len(own)), np.abs(apart).max(axis=-1).argmin(axis=-1)]
        hits = (np.abs(nearest).max(axis=-1) == 1) & ~wander
        return hits, np.where(wander[:, None], drawn, np.sign(nearest))
