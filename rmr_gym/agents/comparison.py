"""Agents on different features, compared over games and seeds: a run folder of kind "agents"."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm

from rmr_gym.agents.sb3.config import BALLS, ENCODED, FEATURES, AgentConfig, features_of
from rmr_gym.agents.sb3.play import random_returns, returns
from rmr_gym.agents.sb3.train import ALGORITHMS, kept_agents, train_agent
from rmr_gym.agents.sb3.worlds import encoder_of
from rmr_gym.core.errors import RMRError
from rmr_gym.core.files import write_atomically
from rmr_gym.envs.atari.games import find_game
from rmr_gym.experiments.base import VERSIONS, circumstances, write_table
from rmr_gym.models.pretrained import WEIGHTS, find_artifact
from rmr_gym.protocol.computing import Computing
from rmr_gym.protocol.run_folder import problems
from rmr_gym.protocol.sweep import Cell, Outcome, run_cells

KIND = "agents"
RANDOM = "random"
COLUMNS = ("env", "algorithm", "features", "seed", "step", "return", "episodes")
EVALUATION_SEED = 0


@dataclass(frozen=True)
class Budget:
    """How long agents learn and how they are measured.

    Attributes:
        steps: Steps over all copies.
        checkpoints: How often an agent is kept and measured, evenly spread.
        episodes: Episodes of a measurement, the same for every agent of a game.
    """

    steps: int = 100_000
    checkpoints: int = 5
    episodes: int = 10


def agent_cell(config: AgentConfig, folder: Path, budget: Budget) -> dict[str, Any]:
    """Train an agent, or go on where it stopped, and measure all that were kept of it."""
    train_agent(config, folder, steps=budget.steps, checkpoints=budget.checkpoints)
    rows = []
    for path in kept_agents(folder):
        agent: BaseAlgorithm = ALGORITHMS[config.algorithm][0].load(path, device="cpu")
        points = returns(folder, episodes=budget.episodes, seed=EVALUATION_SEED, agent=agent)
        rows.append(_row(config, config.features, int(path.stem), points))
    return {"rows": rows}


def random_cell(config: AgentConfig, budget: Budget) -> dict[str, Any]:
    """Measure actions chosen at random in the same episodes."""
    points = random_returns(config, episodes=budget.episodes, seed=EVALUATION_SEED)
    return {"rows": [_row(config, RANDOM, 0, points)]}


def compare_agents(
    configs: Sequence[AgentConfig],
    budget: Budget,
    out: Path,
    computing: Computing,
) -> list[str]:
    """Train and measure agents; finished ones are kept and never trained again.

    The folder gets ``results.csv``, ``run.json``, ``jobs.csv`` and the agents themselves.

    Args:
        configs: The agents.
        budget: How long they learn and how they are measured.
        out: Run folder.
        computing: How; agents know no stacks.

    Returns:
        One sentence for every agent that failed.

    Raises:
        RMRError: No agents, equal ones, results of other settings, or every cell failed.
    """
    if not configs:
        raise RMRError("a comparison of agents needs at least one game, features and seed")
    started = datetime.now(UTC)
    how = {"command": computing.command, "workers": computing.workers}
    _describe(out, configs, budget, started, **how, problems=[])
    outcomes = run_cells(
        agent_cells(configs, budget, out),
        workers=computing.workers,
        scheduler=computing.scheduler,
        folder=out,
        progress=computing.progress_for("agents"),
        grown=lambda outcomes: _write(out, outcomes),
    )
    found = problems(outcomes)
    _describe(out, configs, budget, started, **how, problems=found)
    return found


def agent_configs(
    games: Sequence[str],
    features: Sequence[str],
    seeds: Sequence[int],
    encoders: Path,
    algorithms: Sequence[str] = ("ppo",),
    **settings: Any,
) -> list[AgentConfig]:
    """Return the agents of a grid; features that a world does not have are left out there.

    Args:
        games: Names of worlds, as `rmr_gym.agents.sb3.config.find_world` gives them.
        features: What agents see.
        seeds: Paired seeds.
        encoders: Folder with encoders, as `encoder_for` looks them up.
        algorithms: How agents learn.
        **settings: Further fields of `rmr_gym.agents.sb3.config.AgentConfig`.

    Raises:
        RMRError: Unknown features, or an encoder that is not there.
    """
    found = []
    for game, algorithm, seen, seed in product(games, algorithms, features, seeds):
        if not _has(game, seen, encoders):
            continue
        encoder = encoder_for(encoders, game, seen, seed) if seen in ENCODED else None
        found.append(AgentConfig(game, seen, algorithm, encoder, seed, **settings))
    return found


def encoder_for(folder: Path, game: str, arm: str, seed: int) -> str:
    """Return the encoder of an agent: the one of its seed, else the only one of the arm.

    Args:
        folder: Where ``GAME-ARM-SEED-STEP`` lie, as `rmr-gym encoder export` and, of balls,
            `rmr-gym balls natural export` write them.
        game: The game.
        arm: What made the encoder; "rmr" may also be shipped with the package.
        seed: Of the agent.

    Raises:
        RMRError: There is none, or several that fit alike.
    """
    every = sorted(folder.glob(f"{game}-{arm}-*"))
    own = [path for path in every if path.name.startswith(f"{game}-{arm}-{seed}-")]
    fitting = own or every
    if len(fitting) == 1:
        return str(fitting[0])
    if not fitting and arm == "rmr" and game != BALLS:
        return str(find_artifact(find_game(game).rom))
    names = ", ".join(path.name for path in fitting) or "none"
    command = "balls natural export" if game == BALLS else f"encoder export --game {game}"
    raise RMRError(
        f"expected one encoder {game}-{arm}-{seed}-STEP in {folder}, found {names}: export it with "
        f"`rmr-gym {command} --arm {arm} --seed {seed}`"
    )


def agent_cells(configs: Sequence[AgentConfig], budget: Budget, out: Path) -> list[Cell]:
    """Return a cell for each agent, and one for random play of each game."""
    cells = []
    for config in {config.game: config for config in configs}.values():
        plain = _plain(config)
        inputs = {"max_steps": plain.max_steps, "episodes": budget.episodes}
        cells.append(Cell(f"random {plain.game}", random_cell, (plain, budget), inputs=inputs))
    for config in configs:
        name = f"{config.game}-{config.features}-{config.algorithm}-{config.seed}"
        arguments = (config, out / "agents" / name, budget)
        cells.append(Cell(f"agent {name}", agent_cell, arguments, inputs=_inputs(config, budget)))
    return cells


def _has(game: str, features: str, encoders: Path) -> bool:
    """Tell whether a world has these features; unknown ones are told by `AgentConfig`.

    Of balls no encoder is shipped: where none was exported, its features are left out.
    """
    if features in ENCODED and game == BALLS and not any(encoders.glob(f"{game}-{features}-*")):
        return False
    return features in features_of(game) or features not in FEATURES


def _plain(config: AgentConfig) -> AgentConfig:
    """Return a configuration of the same game that needs no encoder and costs least."""
    features = "state" if config.game == BALLS else "ram"
    return AgentConfig(config.game, features, max_steps=config.max_steps)


def _inputs(config: AgentConfig, budget: Budget) -> dict[str, Any]:
    facts = asdict(config) | asdict(budget)
    if config.encoder is not None:
        encoder_of(config)
        weights = find_artifact(config.encoder) / WEIGHTS
        facts["encoder"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    return facts


def _row(config: AgentConfig, features: str, step: int, points: Sequence[float]) -> dict[str, Any]:
    algorithm = "" if features == RANDOM else config.algorithm
    named = (config.game, algorithm, features, config.seed, step, fmean(points), len(points))
    return dict(zip(COLUMNS, named, strict=True))


def _write(out: Path, outcomes: Sequence[Outcome]) -> None:
    rows = [row for each in outcomes if each.error is None for row in each.value["rows"]]
    write_table(out / "results.csv", rows, COLUMNS)


def _describe(
    out: Path, configs: Sequence[AgentConfig], budget: Budget, started: datetime, **facts: Any
) -> None:
    versions = (*VERSIONS, "stable-baselines3")
    described = {
        "kind": KIND,
        "games": sorted({config.game for config in configs}),
        "features": sorted({config.features for config in configs}),
        "algorithms": sorted({config.algorithm for config in configs}),
        "seeds": sorted({config.seed for config in configs}),
        "copies": configs[0].copies,
        "max_steps": configs[0].max_steps,
        **asdict(budget),
        **circumstances(started, facts["workers"], versions),
        **facts,
    }
    write_atomically(out / "run.json", json.dumps(described, indent=1))
