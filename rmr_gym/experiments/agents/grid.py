"""Agents on different features or with different algorithms, over worlds and seeds."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

from rmr_gym.agents.sb3 import worlds
from rmr_gym.agents.sb3.agent import kept_agents, load_agent, random_returns, returns, train_agent
from rmr_gym.core.errors import RMRError, known_name
from rmr_gym.experiments import base
from rmr_gym.models.pretrained import find_artifact
from rmr_gym.runs.store import Artifact, Place, stage

RANDOM = "random"
EVALUATION_SEED = 0


@dataclass(frozen=True)
class Budget:
    """How long agents learn and how they are measured.

    Attributes:
        steps: Steps over all copies.
        checkpoints: How often an agent is kept and measured, evenly spread.
        episodes: Episodes of a measurement, the same for every agent of a world.
    """

    steps: int = 100_000
    checkpoints: int = 5
    episodes: int = 10


@stage(version=2, later=("tests",))
def agent(
    config: worlds.AgentConfig,
    encoder: tuple[str | None],
    budget: Budget,
    place: Place,
    tests: tuple[str, ...] = (),
) -> Artifact:
    """Train an agent, or go on where it stopped, and measure all that were kept of it.

    Args:
        config: What to train; the path of its encoder decides nothing.
        encoder: Hash of its weights, None without one: it counts, and no title says it.
        budget: How long and how often.
        place: Folder of the agent.
        tests: Further worlds that it is measured in.
    """
    train_agent(config, place.path, steps=budget.steps, checkpoints=budget.checkpoints)
    rows = []
    for path in kept_agents(place.path):
        made = load_agent(place.path, path)
        for world in (config.game, *tests):
            where = replace(config, game=world)
            points = returns(where, made, episodes=budget.episodes, seed=EVALUATION_SEED)
            row = {"env": world, "step": int(path.stem), "return": fmean(points)}
            rows.append(row | {"episodes": len(points)})
    return Artifact({"rows": rows})


@stage(version=2)
def random_play(world: str, max_steps: int, episodes: int) -> Artifact:
    """Measure actions chosen at random in the same episodes."""
    config = worlds.AgentConfig(world, worlds.features_of(world)[-1], max_steps=max_steps)
    points = random_returns(config, episodes=episodes, seed=EVALUATION_SEED)
    return Artifact({"rows": [{"step": 0, "return": fmean(points), "episodes": len(points)}]})


@dataclass(frozen=True)
class Agents(Budget, base.Experiment):
    """Train agents on several features or with several algorithms, over seeds, and compare them.

    Features that a world does not have are left out there: ram is of games, state is of balls, and
    arms of balls come in where their encoders were written.

    Attributes:
        games: Names of games, PushedBalls, and worlds of MiniGrid.
        features: What agents see, as in `rmr-gym agent train`.
        algorithms: How agents learn, as in `rmr-gym agent train`.
        copies: Games that an agent plays side by side.
        max_steps: Steps after which an episode is cut.
        tests: Further worlds of MiniGrid that the agents of a single one are measured in, for
            instance BabyAI-GoToRedBallGreyN6-v0, with 6 distractors.
        encoders: Folder of encoders, called GAME-ARM-SEED-STEP; rmr is shipped for some games.
    """

    kind = "agents"
    folder_name = "agents-comparison"
    seeds: int | None = 5
    games: tuple[str, ...] = ("Pong", "Breakout", worlds.BALLS)
    features: tuple[str, ...] = ("rmr", "cnn", "ram", "state", "view")
    algorithms: tuple[str, ...] = ("ppo",)
    copies: int = 8
    max_steps: int = 4500
    tests: tuple[str, ...] = ()
    encoders: Path = Path("runs/encoders")

    @property
    def config(self) -> dict[str, int]:
        """How long agents learn, and how long their episodes are."""
        return asdict(self.budget) | {"copies": self.copies, "max_steps": self.max_steps}

    @property
    def budget(self) -> Budget:
        """How long agents learn and how they are measured."""
        return Budget(self.steps, self.checkpoints, self.episodes)

    def plan(self, progress_for: base.ProgressFor) -> base.Plan:
        """Return what is to be computed."""
        games = [worlds.find_world(name) for name in self.games]
        named: dict[str, Any] = {"games": games, "features": self.features}
        named |= {"algorithms": self.algorithms, "tests": self.tests}
        base.require_distinct("game", [*games, *self.tests])
        for world in (*games, *self.tests) if self.tests else ():
            worlds.grid_options(world)
        if self.tests and len(games) > 1:
            raise RMRError(f"expected one game to train in with --tests, found {', '.join(games)}")
        for name in self.features:
            known_name("kind of features", worlds.parted(name)[0], worlds.FEATURES)
        base.require_distinct("kind of features", self.features)
        base.require_known("algorithm", self.algorithms, worlds.ALGORITHMS)
        configs = list(self.configs(games))
        if not configs:
            has = [f"{name} has {', '.join(worlds.features_of(name))}" for name in games]
            raise RMRError(
                f"expected features of {' or '.join(games)}, found {', '.join(self.features)}: "
                f"{'; '.join(has)}; those of encoders need one in --encoders, {self.encoders}"
            )
        named["encoders"] = {Path(own.encoder).name for own in configs if own.encoder}
        lists = {name: sorted(values) for name, values in named.items()}
        rows = [*map(self._random_rows, (*games, *self.tests)), *map(self._rows, configs)]
        return base.Plan(rows, self.config | lists)

    def configs(self, games: list[str]) -> Iterator[worlds.AgentConfig]:
        """Yield the agents of the grid; features that a world does not have are left out there.

        Raises:
            RMRError: No agent is left, or an encoder is not there.
        """
        grid = product(games, self.algorithms, self.features, self.seed_list)
        for world, algorithm, seen, seed in grid:
            if has_features(world, seen, self.encoders):
                arm, _ = worlds.parted(seen)
                encoded = arm in worlds.ENCODED
                encoder = encoder_for(self.encoders, world, arm, seed) if encoded else None
                sizes = (self.copies, self.max_steps)
                yield worlds.AgentConfig(world, seen, algorithm, encoder, seed, *sizes)

    def _rows(self, config: worlds.AgentConfig) -> base.Rows:
        names = {"env": config.game, "algorithm": config.algorithm, "features": config.features}
        place = Place((self.folder() / "agents" / config.label.replace(" ", "-")).resolve())
        task = agent(config, (worlds.weights_of(config),), self.budget, place, self.tests)
        return base.Rows("results", task, names | {"seed": config.seed})

    def _random_rows(self, world: str) -> base.Rows:
        names = {"env": world, "algorithm": "", "features": RANDOM, "seed": 0}
        return base.Rows("results", random_play(world, self.max_steps, self.episodes), names)


def has_features(world: str, features: str, encoders: Path) -> bool:
    """Tell whether a world has these features.

    Where no encoder of balls was written or is shipped, its features are left out.
    """
    arm, _ = worlds.parted(features)
    made = arm in worlds.ENCODED and worlds.find_shipped_arm(world, arm) is None
    if made and world == worlds.BALLS:
        return any(encoders.glob(f"{world}-{arm}-*"))
    return arm in worlds.features_of(world)


def encoder_for(folder: Path, game: str, arm: str, seed: int) -> str:
    """Return the encoder of an agent: the one of its seed, else the only one of the arm.

    Args:
        folder: Where ``GAME-ARM-SEED-STEP`` lie, as `rmr-gym encoder export` and, of balls,
            `rmr-gym train` write them.
        game: The game.
        arm: What made the encoder; it may also be shipped with the package.
        seed: Of the agent.

    Raises:
        RMRError: There is none, or several that fit alike.
    """
    every = sorted(folder.glob(f"{game}-{arm}-*"))
    own = [path for path in every if path.name.startswith(f"{game}-{arm}-{seed}-")]
    fitting = own or every
    if len(fitting) == 1:
        return str(fitting[0])
    if not fitting and (shipped := worlds.find_shipped_arm(game, arm)):
        return str(find_artifact(shipped))
    names = ", ".join(path.name for path in fitting) or "none"
    verb = "train" if arm == worlds.BELIEF else "export"
    command = "train" if game == worlds.BALLS else f"encoder {verb} --game {game}"
    raise RMRError(
        f"expected one encoder {game}-{arm}-{seed}-STEP in {folder}, found {names}: write it with "
        f"`rmr-gym {command} --arm {arm} --seed {seed}`"
    )
