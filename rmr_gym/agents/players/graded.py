"""Players of graded skill: who plays while a data set is recorded. One frozen row a player."""

import csv
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import gymnasium as gym
import numpy as np
from jaxtyping import Float16, Float32, Float64, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from rmr_gym.core.actions import ACTION_NAMES
from rmr_gym.core.errors import RMRError, known_name, letters, unknown_name
from rmr_gym.core.files import write_atomically
from rmr_gym.envs.atari.games import GAMES, find_game

if TYPE_CHECKING:
    import torch

Ram = UInt8[np.ndarray, "*batch ram"]
RamFeatures = Float32[np.ndarray, "*batch features"]

UNSKILLED = "none"
SKILLS = ("low", "middle", "high")
"""Levels of skill above none; each game has a trained network a level."""

_BLOCK = 256
RAM_BYTES = 128
HIDDEN = (96, 64)
"""Widths of the two hidden layers."""

Policy = Callable[[Any], Any]
"""Plays one episode: from what the environment shows to an action."""


def game_id(text: str) -> str | None:
    """Return the id of the environment in which a game is played; None if it is no game.

    Args:
        text: A game of the paper's tables in any spelling that
            `rmr_gym.envs.atari.games.find_game` understands, or another one of ALE, for instance
            ``"Enduro"``, ``"enduro"`` or ``"ALE/Enduro-v5"``.

    Raises:
        RMRError: It can only be the name of a game, and no game has it.
    """
    import ale_py  # noqa: F401, PLC0415  (registers its games)

    try:
        return find_game(text).env_id
    except RMRError:
        spellings = {letters(text), letters(f"ALE/{text}-v5")}
        for env_id in gym.registry:
            if env_id.startswith("ALE/") and letters(env_id) in spellings:
                return env_id
        if "/" in text or ":" in text or text in gym.registry or re.search(r"-v\d+$", text):
            return None
        others = [name[4:-3] for name in gym.registry if re.fullmatch(r"ALE/\w+-v5", name)]
        raise unknown_name("game", text, dict.fromkeys((*GAMES, *others))) from None


def game_options(env_id: str) -> dict[str, Any]:
    """Return what the environment of a game is made with: players see the RAM and all actions."""
    ours = not env_id.startswith("ALE/")
    shown = {"pixels": "palette"} if ours else {"obs_type": "ram", "full_action_space": True}
    return {**shown, "frameskip": 4, "repeat_action_probability": 0.0}


def ram_features(ram: Ram, before: Ram) -> RamFeatures:
    """Return what a trained player sees: each byte scaled to [-1, 1], and its change.

    Args:
        ram: RAM now.
        before: RAM one step earlier; the same at the start of an episode.

    Returns:
        Two numbers a byte: all bytes in [-1, 1], then all changes in [-2, 2].
    """
    now = ram.astype(np.float32) / np.float32(127.5)
    then = before.astype(np.float32) / np.float32(127.5)
    return np.concatenate((now - 1, now - then), axis=-1)


def ram_of(observation: Any) -> UInt8[np.ndarray, " ram"]:
    """Return the RAM in what a game shows: an entry of ours, all that ALE's own shows."""
    return observation["ram"] if isinstance(observation, dict) else observation


@dataclass(frozen=True)
class RamNetwork:
    """Three linear layers with tanh between them, run with numpy.

    The arithmetic is in double precision, so that no processor's way of rounding decides what is
    played; the weights are stored in half precision.

    Attributes:
        layers: Weight [out, in] and bias [out] of each layer.
    """

    layers: tuple[tuple[Float64[np.ndarray, "_ _"], Float64[np.ndarray, " _"]], ...]

    def hidden(self, features: RamFeatures) -> Float64[np.ndarray, "*batch width"]:
        """Return the activations of the last hidden layer, from which the actions are scored."""
        values = features.astype(np.float64)
        for weight, bias in self.layers[:-1]:
            values = np.tanh(values @ weight.T + bias)
        return values

    def scores(self, features: RamFeatures) -> Float64[np.ndarray, "*batch actions"]:
        """Return the logit of each action."""
        weight, bias = self.layers[-1]
        return self.hidden(features) @ weight.T + bias

    def tensors(self) -> dict[str, Float16[np.ndarray, "..."]]:
        """Return the layers by name, in half precision, as they are stored."""
        return {
            f"{number}.{part}": values.astype(np.float16)
            for number, layer in enumerate(self.layers)
            for part, values in zip(("weight", "bias"), layer, strict=True)
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray]) -> "RamNetwork":
        """Return the network whose layers `tensors` named.

        Raises:
            RMRError: They are not the layers of such a network.
        """
        widths = (2 * RAM_BYTES, *HIDDEN, len(ACTION_NAMES))
        shapes: dict[str, tuple[int, ...]] = {}
        for number, (inside, outside) in enumerate(pairwise(widths)):
            shapes |= {f"{number}.weight": (outside, inside), f"{number}.bias": (outside,)}
        came = {name: tensor.shape for name, tensor in tensors.items()}
        if came != shapes:
            raise RMRError(f"expected the layers of a RAM policy, {shapes}, found {came}")
        wide = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}
        return cls(tuple((wide[f"{n}.weight"], wide[f"{n}.bias"]) for n in range(len(widths) - 1)))


def save_networks(path: Path, networks: Mapping[str, RamNetwork], notes: Mapping[str, Any]) -> None:
    """Write networks, each under a name, and notes about them, to one safetensors file.

    Raises:
        RMRError: The file cannot be written.
    """
    tensors = {
        f"{name}.{part}": tensor
        for name, network in networks.items()
        for part, tensor in network.tensors().items()
    }
    text = json.dumps(notes, sort_keys=True)
    about = {"notes": text, "sha256": _checksum(tensors, text)}
    write_atomically(path, save(tensors, metadata=about))


def load_networks(path: Path) -> tuple[dict[str, RamNetwork], dict[str, object]]:
    """Return the networks by name, and the notes, that `save_networks` wrote.

    Raises:
        RMRError: The file is missing, damaged or holds something else.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            about = file.metadata() or {}
        notes = json.loads(about.get("notes", "{}"))
    except (OSError, SafetensorError, ValueError) as error:
        raise RMRError(f"expected the weights of trained players in {path}: {error}") from error
    written = about.get("sha256")
    if path.parent == SHIPPED and not written:
        written = json.loads((SHIPPED / "sha256.json").read_text())[path.stem]
    if written and written != _checksum(tensors, about.get("notes", "{}")):
        raise RMRError(f"{path} is damaged: its sha256 is not that of its content: train it again")
    parts: dict[str, dict[str, np.ndarray]] = {}
    for key, tensor in tensors.items():
        name, _, part = key.partition(".")
        parts.setdefault(name, {})[part] = tensor
    return {name: RamNetwork.from_tensors(part) for name, part in parts.items()}, notes


def _checksum(tensors: Mapping[str, np.ndarray], notes: str) -> str:
    digest = hashlib.sha256(notes.encode())
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Player:
    """One way of playing: how well, how often at random, and how long an action is held.

    At each step the action of the step before is kept with probability ``hold``. Otherwise, with
    probability ``exploration``, a new one is drawn from ``preference``; otherwise it is drawn from
    the softmax of the scores of the game's network of that skill.

    Attributes:
        name: Its name in manifests.
        skill: ``"none"``, ``"low"``, ``"middle"`` or ``"high"``.
        exploration: Probability of not asking the network, in [0, 1]; 1 without skill.
        hold: Probability of keeping the action, in [0, 1).
        preference: Probability of each of the 18 actions when the network is not asked.
    """

    name: str
    skill: str
    exploration: float
    hold: float
    preference: tuple[float, ...]

    def policy(self, rng: np.random.Generator, network: RamNetwork | None = None) -> Policy:
        """Return a policy that plays one episode with draws from ``rng``.

        Args:
            rng: Source of every draw.
            network: The game's network of this player's skill, see
                `networks`; players without skill need none.

        Raises:
            RMRError: The player has a skill and no network came.
        """
        if self.skill == UNSKILLED:
            actions = _held_actions(self, rng)
            return lambda _: next(actions)
        if network is None:
            raise RMRError(
                f"expected the network of skill {self.skill!r} for player {self.name!r}, found "
                "none: take it from rmr_gym.agents.players.graded.networks(game)"
            )
        return _skilled(self, rng, network)


def _held_actions(player: Player, rng: np.random.Generator) -> Iterator[int]:
    """Yield actions; they are drawn a block at a time because one by one costs more than a step."""
    cumulative = np.cumsum(player.preference)
    held = _drawn(cumulative, rng.random())
    while True:
        fresh = _drawn(cumulative, rng.random(_BLOCK))
        renewed = rng.random(_BLOCK) >= player.hold
        source = np.maximum.accumulate(np.where(renewed, np.arange(_BLOCK), -1))
        block = np.where(source >= 0, fresh[source], held)
        held = block[-1]
        yield from block.tolist()


def _skilled(player: Player, rng: np.random.Generator, network: RamNetwork) -> Policy:
    """Ask the network with the RAM of this step and of the one before."""
    draws, before, action = _skilled_draws(player, rng), None, 0

    def act(observation: Any) -> int:
        nonlocal before, action
        ram, last = ram_of(observation), before
        before = ram
        held, explored, drawn, noise = next(draws)
        if held and last is not None:
            return action
        if explored:
            action = drawn
        else:
            features = ram_features(ram, ram if last is None else last)
            action = int((network.scores(features) + noise).argmax())
        return action

    return act


def _skilled_draws(
    player: Player, rng: np.random.Generator
) -> Iterator[tuple[bool, bool, int, np.ndarray]]:
    """Yield, for each step, whether to hold, whether to explore, what, and Gumbel noise.

    The largest of scores with Gumbel noise is a draw from their softmax.
    """
    cumulative = np.cumsum(player.preference)
    while True:
        held = rng.random(_BLOCK) < player.hold
        explored = rng.random(_BLOCK) < player.exploration
        drawn = _drawn(cumulative, rng.random(_BLOCK))
        noise = rng.gumbel(size=(_BLOCK, len(player.preference)))
        yield from zip(held.tolist(), explored.tolist(), drawn.tolist(), noise, strict=True)


def _drawn(cumulative: np.ndarray, uniform: Any) -> Any:
    """Return the actions at ``uniform`` in [0, 1); the last takes what rounding leaves."""
    return np.searchsorted(cumulative[:-1], uniform, side="right")


SHIPPED = Path(str(files("rmr_gym.agents.players") / "weights"))
"""Folder of the players, weights and returns that come with the package."""


def _read_table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def _rows() -> Iterator[Player]:
    """Yield one player of each skill in turn, so that the first few already differ."""
    preferences = {
        row["preference"]: tuple(float(row[action]) for action in ACTION_NAMES)
        for row in _read_table(SHIPPED / "preferences.csv")
    }
    for row in _read_table(SHIPPED / "players.csv"):
        how_often = float(row["exploration"]), float(row["hold"])
        yield Player(row["player"], row["skill"], *how_often, preferences[row["preference"]])


PLAYERS: tuple[Player, ...] = tuple(_rows())
"""The 32 players of every game, in the order in which episodes take turns.

24 of trained skill: 3 levels x 4 rates of exploration x 2 lengths of holding; 8 without: as many
preferences for actions, held for 1, 2, 5 or 20 steps on average. Preferences for some actions put
four fifths of the probability on these, the rest on all; mixtures were drawn once (Dirichlet, .4).

Source: RMR, section 5 (transitions from the 32 policy heads of an Agent57).
Differs: those are not public. These grade what PPO learns from the RAM in a modest budget;
`rmr_gym.agents.players.train` makes the networks, `read_returns` tells what each player scores.
"""

UNIFORM = next(player for player in PLAYERS if player.name == "uniform-1")
"""A new action at every step, all 18 equally likely."""


def select_players(choice: str | Sequence[str]) -> tuple[Player, ...]:
    """Return the players that a choice stands for.

    Args:
        choice: ``"all"``; ``"unskilled"`` for those that need no trained network; ``"uniform"`` for
            the uniform random policy alone; names, in a sequence or in one string with commas
            between them.

    Raises:
        RMRError: There is no such player, none is named, or one is named twice.
    """
    if choice == "all":
        return PLAYERS
    if choice == "unskilled":
        return tuple(player for player in PLAYERS if player.skill == UNSKILLED)
    names = choice.split(",") if isinstance(choice, str) else list(choice)
    names = [UNIFORM.name if name.strip() == "uniform" else name.strip() for name in names]
    table = {player.name: player for player in PLAYERS}
    for name in names:
        known_name("player", name, ["all", "unskilled", "uniform", *table])
    if not names or len(set(names)) != len(names):
        raise RMRError(f"expected players, each named once, found {names}")
    return tuple(table[name] for name in names)


COLUMNS = ("game", "head", "episodes", "mean_return", "sem", "minimum", "maximum", "mean_length")
"""Of a table of returns, in which players are called heads."""


@lru_cache(maxsize=4)
def networks(game: str, folder: Path = SHIPPED) -> dict[str, RamNetwork]:
    """Return a game's network of each skill: low, middle, high.

    Raises:
        RMRError: The folder holds no weights of the game, or not of every skill.
    """
    path = weights_path(game, folder)
    by_skill, _ = load_networks(path)
    if set(by_skill) != set(SKILLS):
        raise RMRError(f"expected networks of skill {SKILLS} in {path}, found {sorted(by_skill)}")
    return by_skill


def is_trained(game: str) -> bool:
    """Tell whether networks of a game come with the package."""
    return (SHIPPED / f"{game_name(game)}.safetensors").is_file()


def game_name(game: str) -> str:
    """Return the name of a game of ALE, as its files have it.

    Raises:
        RMRError: There is no such game.
    """
    env_id = game_id(game)
    return find_game(game).name if env_id is None else str(gym.spec(env_id).name)


def weights_path(game: str, folder: Path = SHIPPED) -> Path:
    """Return the file of a game's weights.

    Raises:
        RMRError: There is none.
    """
    name = game_name(game)
    path = folder / f"{name}.safetensors"
    if not path.is_file():
        raise RMRError(
            f"no trained players of {name} in {folder}: train them with `rmr-gym players train "
            f"{name}`, or record with --players unskilled"
        )
    return path


def weights_sha256(game: str, folder: Path = SHIPPED) -> str:
    """Return the sha256 of the file of a game's weights, in hex."""
    return hashlib.sha256(weights_path(game, folder).read_bytes()).hexdigest()


class Reference(NamedTuple):
    """Scores of a game that others measured; see `REFERENCE_SOURCE`."""

    random: float
    human: float


REFERENCE_SOURCE = "Wang et al. (2016), as tabulated for Agent57 by Badia et al. (2020)"


def references() -> dict[str, Reference]:
    """Return the published scores of random play and of a human tester, by game."""
    rows = _read_table(SHIPPED / "references.csv")
    return {row["game"]: Reference(float(row["random"]), float(row["human"])) for row in rows}


def read_returns(path: Path = SHIPPED / "returns.csv") -> list[dict[str, str]]:
    """Return measured returns, a row a game and player; none if there is no file.

    Args:
        path: A table that `rmr_gym.agents.players.train.write_returns` wrote; default: the one of
            the shipped players.

    Raises:
        RMRError: The file holds something else.
    """
    rows = _read_table(path) if path.exists() else []
    if rows and tuple(rows[0]) != COLUMNS:
        raise RMRError(f"expected the columns {', '.join(COLUMNS)} in {path}: choose another file")
    return rows


PLAYER = "player"
"""The name in tables of the arm that is a trained player."""

SKILL = "high"


class PlayerReference(NamedTuple):
    """Features of the probe's frames that a game's trained player has in its hidden layer.

    Source: RMR, Table 1, column Agent57 (the embedding of a trained agent).
    Differs: Agent57 sees pixels and its weights are not public. The shipped players see RAM, so
    that their hidden layer is a privileged reference: it says what a player of this kind keeps of
    the state, and not what can be learned from pixels.
    """

    game: str
    slots: int = 0

    def key(self) -> dict[str, Any]:
        """Return what decides them: the game and the player's weights."""
        layers = networks(self.game)[SKILL].layers
        return {"player": self.game, "sums": [float(weight.sum()) for weight, _ in layers]}

    def features(self, *parts: Any) -> "tuple[torch.Tensor, ...]":
        """Return the player's features of each `rmr_gym.domains.atari.ProbeData`.

        Raises:
            RMRError: There is no trained player of the game.
        """
        import torch  # noqa: PLC0415

        network = networks(self.game)[SKILL]
        return tuple(
            torch.from_numpy(network.hidden(ram_features(part.ram, part.before))).float()
            for part in parts
        )
