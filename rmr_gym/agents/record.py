"""Recording: policies play episodes of any environment into a data set, in one resumable loop."""

import copy
import inspect
import logging
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from importlib import import_module
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from rmr_gym.agents.players import graded
from rmr_gym.core import Progress
from rmr_gym.core.errors import RMRError, known_name, limit, unknown_name, whole_number
from rmr_gym.core.files import AnyPath
from rmr_gym.core.processes import in_processes
from rmr_gym.core.seeding import check_seed, generator, integer_seed
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.data.schema import Manifest, flatten
from rmr_gym.data.writer import DatasetWriter, EpisodeWriter
from rmr_gym.envs.arguments import probability
from rmr_gym.envs.atari.env import PairedAtariEnv
from rmr_gym.wrappers.describe import AnyEnv, columns_now, describe, row_of

NUM_ENVS = 32

_log = logging.getLogger(__name__)


class Step(NamedTuple):
    """What an environment shows, by column of the data set, and what led to it."""

    row: Mapping[str, Any]
    action: Any = None
    reward: Any = 0.0
    terminated: Any = False
    truncated: Any = False


class Watched(gym.Wrapper[Any, Any, Any, Any]):
    """Remembers what the last reset and the last step showed, also where what is around resets.

    Args:
        env: The environment.
        emulator: Whether, over ALE, palette indices and RAM are read beside what it shows.
    """

    first: Step
    last: Step

    def __init__(self, env: gym.Env[Any, Any], *, emulator: bool = True):
        super().__init__(env)
        self.inside, self._emulator = env, emulator

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        """Reset the environment."""
        observation, info = self.env.reset(**options)
        self.first = Step(columns_now(self.env, observation, emulator=self._emulator))
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step the environment."""
        outcome = self.env.step(action)
        row = columns_now(self.env, outcome[0], emulator=self._emulator)
        self.last = Step(row, copy.copy(action), *outcome[1:4])
        return outcome


@dataclass(frozen=True)
class Plan:
    """All that decides what an episode holds; together with its number it decides everything.

    This one is of one environment and one policy; those that derive from it say what differs.

    Attributes:
        env: Id of the environment, or the environment itself.
        seed: Of every draw.
        max_steps: Steps after which an episode is cut; None: where the environment ends it.
        options: What the environment is made with.
        policy: Who plays; None: actions are drawn uniformly.
    """

    env: Any
    seed: int
    max_steps: int | None
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    policy: Any = field(default=None, kw_only=True)

    recorder = "record"
    together = 1

    def manifest(self) -> Manifest:
        """Return the manifest of the data set that the plan leads to."""
        return describe(environment_of(self).inside, heads=self.names(), settings=self.settings())

    def names(self) -> tuple[str, ...]:
        """Return the names of those who play, one an episode in turn, as data sets store them."""
        if self.policy is None:
            return (_random_name(environment_of(self).action_space),)
        return (getattr(self.policy, "__name__", type(self.policy).__name__),)

    def settings(self) -> dict[str, Any]:
        """Return what the manifest says of the recording, of a policy its text or its weights."""
        told = {"recorder": self.recorder, "seed": self.seed, "max_steps": self.max_steps}
        weights: Any = getattr(self.policy, "policy", None)
        if hasattr(weights, "state_dict"):
            from rmr_gym.models.rmr.processors import parameter_hash  # noqa: PLC0415  (torch)

            told["policy"] = parameter_hash(weights)
        with suppress(OSError, TypeError):  # no function, or one without a file
            told["policy"] = sha256(inspect.getsource(self.policy).encode()).hexdigest()
        return told

    def episode_seed(self, index: int) -> int:
        """Return what the environment is reset with for an episode."""
        return integer_seed(self.seed, "episode", index)

    def environment(self) -> Watched:
        """Make the environment."""
        with _options_told(self):
            env = gym.make(self.env, **self.options) if isinstance(self.env, str) else self.env
        if not isinstance(env, gym.Env):
            raise RMRError(f"expected a single Gymnasium environment, found {type(env).__name__}")
        return Watched(env)

    def play(self, indices: Sequence[int]) -> Generator[list[Step], None, None]:
        """Play episodes side by side, on and on; yield what resets show, then step after step."""
        (index,) = indices
        env, policy = environment_of(self), self.policy_of(index)
        observation, _ = env.reset(seed=self.episode_seed(index))
        yield [env.first]
        while True:
            observation, *_ = env.step(_checked(policy(observation), env.action_space))
            yield [env.last]

    def policy_of(self, index: int) -> graded.Policy:
        """Return who plays episode ``index``, from its beginning."""
        if self.policy is None:
            return _random_policy(environment_of(self).action_space, self.seed, index)
        if not hasattr(self.policy, "predict"):
            return self.policy
        if hasattr(self.policy, "set_random_seed"):
            self.policy.set_random_seed(integer_seed(self.seed, "policy", index))
        return chooser(self.policy)


@dataclass(frozen=True)
class GamePlan(Plan):
    """The plan of a game that players of graded skill play in turn.

    Attributes:
        players: The players.
        weights: Folder of the networks of those with skill.
    """

    players: tuple[graded.Player, ...] = field(kw_only=True)
    weights: Path = field(default=graded.SHIPPED, kw_only=True)

    recorder = "collect"

    def names(self) -> tuple[str, ...]:
        """Return the names of the players."""
        return tuple(player.name for player in self.players)

    def settings(self) -> dict[str, Any]:
        """Return what the manifest says of the recording, the weights of the players included."""
        if all(player.skill == graded.UNSKILLED for player in self.players):
            return super().settings()
        return {**super().settings(), "policies": graded.weights_sha256(self.env, self.weights)}

    def environment(self) -> Watched:
        """Make the game; the screen of one of ours is read once, as palette indices."""
        env = gym.make(self.env, disable_env_checker=True, **self.options)
        return Watched(env.unwrapped, emulator=not isinstance(env.unwrapped, PairedAtariEnv))

    def policy_of(self, index: int) -> graded.Policy:
        """Return the player of episode ``index``, from its beginning."""
        player = self.players[index % len(self.players)]
        skilled = player.skill != graded.UNSKILLED
        networks = graded.networks(self.env, self.weights) if skilled else {}
        return player.policy(generator(self.seed, "policy", index), networks.get(player.skill))


@dataclass(frozen=True)
class VectorPlan(Plan):
    """The plan of random play in many copies of a registered environment.

    Attributes:
        together: Number of copies.
    """

    together: int = field(default=NUM_ENVS, kw_only=True)

    recorder = "collect_env"

    def environments(self, count: int) -> gym.vector.VectorEnv[Any, Any, Any]:
        """Make copies of the environment: our own vector of it, which is bit-equal, or a loop."""
        mode = "vector_entry_point" if _is_ours(self.env) else "sync"
        with _options_told(self):
            return gym.make_vec(self.env, count, vectorization_mode=mode, **self.options)

    def manifest(self) -> Manifest:
        """Return the manifest of the data set that the plan leads to."""
        with closing(self.environments(1)) as envs:
            name = _random_name(envs.single_action_space)
            return describe(envs, heads=(name,), settings=self.settings())

    def play(self, indices: Sequence[int]) -> Generator[list[Step], None, None]:
        """Play all episodes at once; what follows the end of each is no part of it."""
        with closing(self.environments(len(indices))) as envs:
            space = envs.single_action_space
            policies = [_random_policy(space, self.seed, index) for index in indices]
            seeds: Any = [self.episode_seed(index) for index in indices]
            observations, _ = envs.reset(seed=seeds)
            outcomes: list[Any] = []
            while True:
                columns = flatten(observations)
                yield [
                    Step(row_of(columns, i), *(outcome[i] for outcome in outcomes))
                    for i in range(len(indices))
                ]
                actions = np.stack([policy(None) for policy in policies])
                observations, *outcomes, _ = envs.step(actions)
                outcomes.insert(0, actions)


@contextmanager
def _options_told(plan: Plan) -> Iterator[None]:
    try:
        yield
    except TypeError as error:  # of an option that the environment does not have
        raise RMRError(f"{plan.env} cannot be made with {dict(plan.options)}: {error}") from error


@lru_cache(maxsize=1)
def environment_of(plan: Plan) -> Any:
    """Return the environment of a plan in this process: making it costs hundreds of steps."""
    return plan.environment()


def record(
    env: str | AnyEnv,
    path: AnyPath,
    *,
    episodes: int,
    policy: Any = None,
    players: str | Sequence[str] | None = None,
    weights: Path | None = None,
    max_steps: int | None = None,
    seed: int = 0,
    num_envs: int = NUM_ENVS,
    workers: int = 1,
    overwrite: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> TransitionDataset:
    """Record episodes of a game or of any other environment, all that it shows, without loss.

    A game is played by players of graded skill, one an episode in turn; its RAM and its screen, of
    the same instant, are stored. Other environments are played by a policy of yours, or at random,
    actions drawn uniformly: where there is nothing to choose, as in a passive world of bouncing
    balls, the player is called ``passive``, elsewhere ``random``.

    What episode i holds depends on the arguments and on i alone, not on ``num_envs`` and
    ``workers``; so episodes that are there already are kept, the others are recorded, in whatever
    order, and the files end byte-equal to those of an unbroken run. This needs an environment that
    a reset with a seed determines, as every one of ours is, and a policy that draws nothing or that
    has ``set_random_seed``, as those of Stable-Baselines3.

    Source: RMR, section 5 (96 episodes a game).
    Differs: see `rmr_gym.agents.players.graded.PLAYERS`.

    Args:
        env: A game, in any spelling that `graded.game_id` knows; the id of another environment,
            with more than one worker as ``"package:id"`` if another package registers it; or an
            environment, which is not closed.
        path: Folder of the data set.
        episodes: Episodes that it shall hold, 1 or more; what it holds beyond them stays.
        policy: Who plays: a function from an observation to an action, or a model of
            Stable-Baselines3, see `load_policy`; stored under its name or, failing that, its
            class's.
        players: Who plays a game, as for `rmr_gym.agents.players.graded.select_players`; default:
            all, or those without skill where no networks of the game are shipped.
        weights: Folder of the trained networks of the players with skill; default: the shipped.
        max_steps: Steps after which an episode is cut, its last step marked as truncated; None for
            no cut before the environment's own, which there must be one of then (in games it comes
            after 30 minutes of play).
        seed: Seed of every draw, 0 or larger.
        num_envs: Episodes of random play that run side by side in each process.
        workers: Processes that record side by side, each on episodes of its own. With more than
            one, the calling script needs its ``if __name__ == "__main__":`` guard.
        overwrite: Delete the episodes that are there first.
        progress: Called with (episodes that are there, ``episodes``).
        **options: What the environment is made with, for instance ``balls=4`` or
            ``max_episode_steps=50``; for a game, ``frameskip`` and ``repeat_action_probability``.

    Raises:
        RMRError: An argument is out of range, there is no such environment, it cannot be stored,
            the folder holds something else or was recorded with other arguments, it cannot be
            written, or a recording process died.

    Example:
        >>> from rmr_gym.agents.record import record
        >>> dataset = record("Pong", "pong", episodes=2, max_steps=100)  # doctest: +SKIP
        >>> dataset = record("rmr/BouncingBalls-v0", "b", episodes=9, balls=4)  # doctest: +SKIP
    """
    check_seed(seed)
    num_envs = whole_number("num_envs", num_envs, 1)
    workers, max_steps = whole_number("workers", workers, 1), limit("max_steps", max_steps)
    _check_policy(policy)
    if workers > 1 and (policy is not None or not isinstance(env, str)):
        raise RMRError(
            f"expected one worker for a policy or an environment of yours, found {workers}: "
            "processes cannot share them; take workers=1"
        )
    if policy is not None and players is not None:
        raise RMRError(
            f"expected players or a policy, found players {players!r} and a policy: leave "
            "one of them out"
        )
    game = graded.game_id(env) if isinstance(env, str) else None
    if game is not None:
        _check_game(options)
    elif isinstance(env, str):
        _check_id(env)
    if game is not None and policy is None:
        made_with = {**graded.game_options(game), **options}
        known_name("kind of recorded pixels", made_with.get("pixels", "palette"), ["palette"])
        if players is None and weights is None and not graded.is_trained(game):
            _log.warning("no networks of %s are trained: players without skill play it", game)
            players = "unskilled"
        chosen = graded.select_players(players or "all")
        plan = GamePlan(
            game, seed, max_steps, made_with, players=chosen, weights=weights or graded.SHIPPED
        )
    elif players is not None:
        raise RMRError(
            f"expected players for a game alone, found {players!r} for {env}: games have graded "
            "players, other environments are played at random or by a policy of yours"
        )
    elif policy is not None or not isinstance(env, str):
        plan = Plan(game or env, seed, max_steps, options, policy=policy)
    else:
        alone = {"threads": 1} if workers > 1 and _is_ours(env) else {}
        plan = VectorPlan(env, seed, max_steps, {**alone, **options}, together=num_envs)
    return record_plan(plan, path, episodes, workers, overwrite=overwrite, progress=progress)


def record_plan(
    plan: Plan,
    path: AnyPath,
    episodes: int,
    workers: int = 1,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> TransitionDataset:
    """Record the episodes of a plan that a data set lacks; the arguments are those of `record`."""
    episodes = whole_number("episodes", episodes, 1)
    with DatasetWriter(path, plan.manifest(), overwrite=overwrite) as writer:
        there = set(writer.finished())
        missing = [index for index in range(episodes) if index not in there]
        done = episodes - len(missing)
        rounds = [missing[i : i + plan.together] for i in range(0, len(missing), plan.together)]
        calls = [(plan, indices, writer.path, writer.manifest) for indices in rounds]
        counts = in_processes(_record_beside, calls, workers, f"recorded into {writer.path}")
        for recorded in chain((0,), counts):
            done += recorded
            if progress is not None:
                progress(done, episodes)
    environment_of.cache_clear()
    return TransitionDataset(path)


def _record_beside(plan: Plan, indices: Sequence[int], path: Path, manifest: Manifest) -> int:
    with DatasetWriter(path, manifest, beside=True) as writer:
        return record_round(plan, indices, writer)


def record_round(plan: Plan, indices: Sequence[int], writer: DatasetWriter) -> int:
    """Play and write these episodes of the plan side by side; return their number."""
    names = writer.manifest.heads
    episodes = [
        writer.episode(index, plan.episode_seed(index), names[index % len(names)])
        for index in indices
    ]
    try:
        with closing(plan.play(indices)) as steps:
            for episode, first in zip(episodes, next(steps), strict=True):
                episode.begin(first.row)
            _write_steps(steps, dict(enumerate(episodes)), plan.max_steps)
    finally:
        for episode in episodes:
            episode.abandon()
    return len(indices)


def _write_steps(
    steps: Iterator[list[Step]], running: dict[int, EpisodeWriter], max_steps: int | None
) -> None:
    """Write what environments do until the first episode of each is over."""
    while running:
        outcomes = next(steps)
        for i, episode in list(running.items()):
            row, action, reward, terminated, truncated = outcomes[i]
            terminated = bool(terminated)
            truncated = bool(truncated) or episode.length + 1 == max_steps
            episode.append(action, float(reward), terminated, truncated, row)
            if terminated or truncated:
                episode.finish()
                del running[i]


def chooser(agent: Any) -> graded.Policy:
    """Return how a model of Stable-Baselines3 plays from now; a recurrent one remembers since."""
    memory: Any = None

    def choose(observation: Any) -> Any:
        nonlocal memory
        try:
            actions, memory = agent.predict(observation, memory, deterministic=False)
        except (ValueError, AssertionError) as error:
            raise RMRError(
                f"the model cannot play what this environment shows ({error}): record an "
                "environment that is wrapped as in its training"
            ) from error
        return actions

    return choose


def load_policy(source: str) -> Any:
    """Return a policy for `record`: a function of a module, or a model of Stable-Baselines3 in it.

    Files of models are not read: they hold pickles, so that reading one runs code of the file.

    Args:
        source: ``"module:name"``, a module of this folder or one that is installed.

    Raises:
        RMRError: It is written otherwise, not there, or nothing that plays.
    """
    module, _, name = source.partition(":")
    if not (module and name):
        raise RMRError(
            f"expected a policy as module:function, found {source!r}: a saved model of "
            'Stable-Baselines3 is loaded in a module of yours, agent = PPO.load("model.zip") in '
            "mine.py, and called mine:agent"
        )
    sys.path.insert(0, str(Path.cwd()))
    try:
        policy = attrgetter(name)(import_module(module))
    except (ImportError, AttributeError) as error:
        raise RMRError(f"expected {name!r} in the module {module!r}, found: {error}") from error
    finally:
        sys.path.pop(0)
    _check_policy(policy)
    return policy


def _check_policy(policy: Any) -> None:
    """Refuse what cannot play: a name, a number, a class of which nothing was made."""
    plays = callable(policy) or hasattr(policy, "predict")
    if policy is not None and (isinstance(policy, type) or not plays):
        raise RMRError(
            f"expected a function from observation to action, found {policy!r}: give the function "
            "or a model of Stable-Baselines3, which `rmr_gym.agents.record.load_policy` finds by "
            "name"
        )


def _check_game(options: Mapping[str, Any]) -> None:
    """Refuse options of a game that ALE's own environments fail on, or take in silence."""
    frameskip = options.get("frameskip", 1)
    if not isinstance(frameskip, tuple):
        whole_number("frameskip", frameskip, 1)
    name = "repeat_action_probability"
    probability(name, options.get(name, 0.0))


def _checked(action: Any, actions: gym.spaces.Space[Any]) -> Any:
    """Return an action; of those with numbers, one that is there: lists of actions take a -1."""
    if isinstance(actions, gym.spaces.Discrete) and not actions.contains(action):
        last = actions.start + actions.n - 1
        raise RMRError(
            f"expected a whole number from {actions.start} to {last} as the policy's action, found "
            f"{action!r}: let the policy return one of the environment's actions"
        )
    return action


def _random_policy(actions: gym.spaces.Space[Any], seed: int, index: int) -> graded.Policy:
    """Return uniform play of an episode, a function of seed, episode and step alone."""
    drawn = copy.deepcopy(actions)
    drawn.seed(integer_seed(seed, "policy", index))
    return lambda _: drawn.sample()


def _random_name(actions: gym.spaces.Space[Any]) -> str:
    return "passive" if isinstance(actions, gym.spaces.Discrete) and actions.n == 1 else "random"


def _check_id(env_id: str) -> None:
    """Refuse what is not registered."""
    module, _, name = env_id.rpartition(":")
    try:
        if module:
            import_module(module)
        gym.spec(name)
    except (gym.error.Error, ImportError) as error:
        ours = [known for known in gym.registry if known.startswith("rmr/")]
        raise unknown_name("environment", env_id, ours) from error


def _is_ours(env_id: str) -> bool:
    """Tell whether a vector of our own plays the environment, bit-equal to single ones."""
    return env_id.startswith("rmr/") and gym.spec(env_id).vector_entry_point is not None
