"""Grids on which all agents are played, and seen: battles (MAgent2) and trains (flatland-rl)."""

import random
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.utils import EzPickle
from jaxtyping import Bool, Int

from rmr_gym.core.errors import RMRError, optional, whole_number
from rmr_gym.envs.arguments import Arrays, Info, Seed, one_action, plain_seed, probability

LARGEST, MOST_TRAINS = 100, 50
FLATLAND = "--no-deps flatland-rl==4.2.6 attrs fastenum importlib-resources msgpack-numpy"
"""What pip installs for trains: flatland-rl asks for NumPy below 2, and works with newer ones."""
_LIT, _REACH = 255, 6
_MOVES = ((1, 2, 3), (5, 6, 7), (9, 10, 11))
_ATTACKS = ((13, 14, 15), (16, 6, 17), (18, 19, 20))
_ACTIONS = np.array([_MOVES, _ATTACKS], np.int32)
"""MAgent2's numbers of moves to the neighbouring cells and of attacks on them; 6 is to stay."""
_WAYS, _STEPS = ("north", "east", "south", "west"), np.array([(-1, 0), (0, 1), (1, 0), (0, -1)])
_FORWARD, _TURNS = 2, (2, 3, 2, 1)
"""flatland's numbers of going on, and of going on, right, back and left."""


class PlayedEnv(gym.Env[Any, Any], EzPickle, ABC):
    """A square grid on which all agents are played; what they do next is seen as well.

    Observation: ``Dict(pixels: uint8[size, size, channels], places: int16[agents, 2])``. The first
    channel marks the agents, 0 or 255. Places are (row, column) of each, -1 for those that are not
    there.

    Action: ``Discrete(1)``, a no-op. Reward: 0.

    Start state: everything is drawn from the environment's generator, so that a seed determines it.

    Attributes:
        package: What plays it, named in manifests.
        channels: Of a frame.

    Args:
        size: Height and width of the grid.
        smallest: The least that it can be.
        agents: What they are called, and their number.
        most: How many there can be.
        noise: Probability of a step that is not the best.

    Raises:
        RMRError: There is no such grid, number of agents or probability.
    """

    package: ClassVar[str]
    channels: ClassVar[tuple[str, ...]]

    def __init__(self, size: int, smallest: int, agents: tuple[str, int], most: int, noise: float):
        (kind, self.agents), self.size = agents, size
        self.noise = probability("noise", noise)
        if not smallest <= size <= LARGEST or not 1 <= self.agents <= most:
            raise RMRError(
                f"expected a grid of {smallest} to {LARGEST} cells a side with 1 to {most} {kind}, "
                f"found {self.agents} on one of {size}"
            )
        frame = gym.spaces.Box(0, _LIT, (size, size, len(self.channels)), np.uint8)
        places = gym.spaces.Box(-1, size - 1, (self.agents, 2), np.int16)
        self.observation_space = gym.spaces.Dict(pixels=frame, places=places)
        self.action_space = gym.spaces.Discrete(1)
        self._world: Any = None

    def get_action_meanings(self) -> list[str]:
        """Name the one action."""
        return ["no-op"]

    def reset(self, *, seed: Seed = None, options: Info | None = None) -> tuple[Arrays, Info]:
        """Begin anew."""
        super().reset(seed=plain_seed(seed), options=options)
        self._begin(int(self.np_random.integers(2**31)))
        return self._observe()[0], {}

    def step(self, action: Any) -> tuple[Arrays, float, bool, bool, Info]:
        """Let all agents do what they have decided, and decide anew."""
        if self._world is None:
            raise RMRError("expected an episode that runs, found none: call reset() before step()")
        one_action(action, 1)
        self._advance()
        observation, over = self._observe()
        return observation, 0.0, over, False, {}

    def _observe(self) -> tuple[Arrays, bool]:
        frame = np.zeros((self.size, self.size, len(self.channels)), np.uint8)
        places = np.full((self.agents, 2), -1, np.int16)
        over = self._decide(frame, places)
        return {"pixels": frame, "places": places}, over

    @abstractmethod
    def _begin(self, seed: int) -> None:
        """Make the world."""

    @abstractmethod
    def _advance(self) -> None:
        """Let all agents do what they have decided."""

    @abstractmethod
    def _decide(self, frame: np.ndarray, places: np.ndarray) -> bool:
        """Let all agents decide, write what there is and what they do next, tell if all is over."""


class BattlesEnv(PlayedEnv):
    """Two teams fight on a square grid; one of them, the friends, is seen with all that it does.

    Both teams are played: a unit attacks the nearest enemy where that is a neighbour, one of 8
    cells, and else goes a cell towards it; with the probability ``noise`` it goes to a neighbouring
    cell at random, or stays. What two units want that only one can have is drawn by MAgent2. A hit
    takes a fifth of the health of a whole unit, of which a hundredth comes back a step.

    Observation: see `PlayedEnv`. The channels are markers of friends and enemies, 0 or 255; the
    health of either, 255 for whole; and what each friend does next, 0 or 255: whether it attacks,
    and which way. Places are those of friends, -1 for the fallen.

    Episode end: ``terminated`` where a team has fallen; ``truncated`` by the step limit that the id
    registers.

    Start state: friends anywhere in the left third of the grid, enemies in the right third, all
    whole.

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
    channels = ("friend", "enemy", "health", "attacks", "up", "down", "left", "right")

    def __init__(self, team: int = 8, size: int = 24, noise: float = 0.2):
        EzPickle.__init__(self, team, size, noise)
        self._magent = optional("magent2", "battles")
        self._battle = optional("magent2.environments.battle.battle", "battles")
        size, team = whole_number("size", size), whole_number("team", team)
        most = (size - 2) * (size // 3 - 1)  # as many as fit into a third of the grid
        super().__init__(size, 12, ("units a team", team), most, noise)

    def _begin(self, seed: int) -> None:
        config = self._battle.get_config(self.size, False, seed, **self._battle.default_reward_args)
        self._world = self._magent.GridWorld(config, map_size=self.size)
        self._world.reset()
        self._teams, rows = self._world.get_handles(), self.size - 2
        for left, handle in zip((1, self.size - self.size // 3), self._teams, strict=True):
            cells = self.np_random.choice(rows * (self.size // 3 - 1), self.agents, replace=False)
            places = np.stack([left + cells // rows, 1 + cells % rows, 0 * cells], axis=1)
            self._world.add_agents(handle, method="custom", pos=places.tolist())

    def _advance(self) -> None:
        for handle, decided in zip(self._teams, self._decided, strict=True):
            self._world.set_action(handle, decided)
        self._world.step()
        self._world.clear_dead()

    def _decide(self, frame: np.ndarray, places: np.ndarray) -> bool:
        # MAgent2's places are (column, row)
        teams = [self._world.get_pos(handle)[:, ::-1] for handle in self._teams]
        plans = [self._plan(*teams), self._plan(*teams[::-1])]
        self._decided = [_ACTIONS[hits.astype(int), *(way.T + 1)] for hits, way in plans]
        for channel, (handle, cells) in enumerate(zip(self._teams, teams, strict=True)):
            health = self._world.get_observation(handle)[0][:, _REACH, _REACH, 2]
            frame[*cells.T, channel], frame[*cells.T, 2] = _LIT, np.rint(_LIT * health)
        hits, (down, right) = plans[0][0], plans[0][1].T
        told = [hits, down < 0, down > 0, right < 0, right > 0]
        frame[*teams[0].T, 3:] = _LIT * np.stack(told, axis=1)
        places[self._world.get_agent_id(self._teams[0])] = teams[0]
        return not all(map(len, teams))

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


class TrainsEnv(PlayedEnv):
    """Trains run on rails between stations, by the shortest ways to their targets.

    All are played: with the probability ``noise`` a train takes the longer way at a switch. Those
    whose station is taken set out as soon as it is free; all are gone where they arrive. A train
    waits for a cell that another stands on; two that meet head-on wait for ever.

    Observation: see `PlayedEnv`. The channels, all 0 or 255, are markers of trains, of targets of
    trains that have not arrived, and of rails; which way each train leaves its cell next; and to
    which sides each cell has rails. Places are -1 for trains that wait to set out or have arrived.

    Episode end: ``terminated`` where all have arrived; ``truncated`` by the step limit that the id
    registers.

    Start state: rails and stations of up to four cities, starts and targets, drawn by flatland.

    Source: flatland-rl, RailEnv with the sparse generators, for S2RM, Appendix A. Differs: 30 x 30
    cells and not 60 x 60; which channels the paper's views have is not stated.

    Args:
        trains: Their number.
        size: Height and width of the grid.
        noise: Probability of the longer way at a switch, in [0, 1].

    Raises:
        RMRError: flatland is not installed, or there is no such grid, number or probability.

    Example:
        >>> import gymnasium as gym
        >>> import rmr_gym
        >>> env = gym.make("rmr/Trains-v0", trains=5)  # doctest: +SKIP
    """

    package = "flatland-rl"
    channels = ("train", "target", "rail", *_WAYS, *(f"rail {way}" for way in _WAYS))

    def __init__(self, trains: int = 8, size: int = 30, noise: float = 0.1):
        EzPickle.__init__(self, trains, size, noise)
        self._rail_env = optional("flatland.envs.rail_env", install=FLATLAND)
        self._flatland = optional("flatland", install=FLATLAND)
        size, trains = whole_number("size", size), whole_number("trains", trains)
        super().__init__(size, 22, ("trains", trains), MOST_TRAINS, noise)

    def _begin(self, seed: int) -> None:
        core, envs = self._flatland.core, self._flatland.envs
        kept = random.getstate()  # flatland seeds Python's generator
        self._world = self._rail_env.RailEnv(
            *(self.size, self.size),
            rail_generator=envs.rail_generators.sparse_rail_generator(4, True, 4),
            line_generator=envs.line_generators.sparse_line_generator(),
            timetable_generator=envs.timetable_generators.ttgen_flatland2,
            obs_builder_object=core.env_observation_builder.DummyObservationBuilder(),
            number_of_agents=self.agents,
        )
        self._world.reset(random_seed=seed)
        for _ in range(2):  # ready to depart, then on the rails
            self._world.step(dict.fromkeys(range(self.agents), _FORWARD))
        random.setstate(kept)
        # 16 bits a cell: for each of four ways in, which of four ways out there are
        exits = np.bitwise_or.reduce([self._world.rail.grid >> 4 * way for way in range(4)])
        self._sides = (exits[..., None] >> np.arange(4)[::-1]) & 1

    def _advance(self) -> None:
        self._world.step(self._decided)

    def _decide(self, frame: np.ndarray, places: np.ndarray) -> bool:
        frame[..., 2], frame[..., 7:] = _LIT * self._sides.any(-1), _LIT * self._sides
        wander = self.np_random.random(self.agents) < self.noise
        self._decided = dict.fromkeys(range(self.agents), _FORWARD)
        for train, agent in enumerate(self._world.agents):
            if not self._world.dones[train]:
                frame[*agent.target, 1] = _LIT
            if agent.position is not None:
                way = self._ways(train, agent)[-1 if wander[train] else 0]
                frame[*agent.position, [0, 3 + way]], places[train] = _LIT, agent.position
                self._decided[train] = _TURNS[(way - agent.direction) % 4]
        return self._world.dones["__all__"]

    def _ways(self, train: int, agent: Any) -> Int[np.ndarray, " ways"]:
        """Return the ways on from where a train is, the shortest to its target first."""
        ways = np.flatnonzero(self._world.rail.get_transitions(agent.current_configuration))
        ahead = agent.position + _STEPS[ways]
        distances = self._world.distance_map.get()[train][*ahead.T, ways]
        return ways[distances.argsort(kind="stable")]
