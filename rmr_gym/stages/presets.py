"""Configurations of the Atari stages and the named presets."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

from rmr_gym.core.errors import RMRError, unknown_name
from rmr_gym.domains.atari import AtariModel
from rmr_gym.runs.training import check_checkpoints

OBJECTIVES = ("cswm", "infonce", "infonce_3step", "cswm_aligned", "infonce_aligned")
NEGATIVES = ("paper", "code")
PROBES = ("ridge", "adam_raw", "adam_std")
CNN_PRECISIONS = ("fp32", "bf16")

Named = TypeVar("Named")


@dataclass(frozen=True)
class Recording:
    """How transitions are recorded, split and scored.

    Attributes:
        train_episodes: Episodes for training every stage (the paper: 48).
        validation_episodes: Episodes that only scores are computed on (the paper: 48).
        max_steps: Agent steps after which an episode is cut.
        players: Which players play: "all", "unskilled", "uniform" or names; default: all, or those
            without skill where no networks of the game are shipped.
        frameskip: Emulated frames an agent step.
        repeat_action_probability: Sticky actions; 0 keeps RAM deterministic.
        entropy_threshold: RAM bytes above so many nats are scored.
    """

    train_episodes: int = 48
    validation_episodes: int = 48
    max_steps: int = 500
    players: str | None = None
    frameskip: int = 4
    repeat_action_probability: float = 0.0
    entropy_threshold: float = 0.6

    @property
    def episodes(self) -> int:
        """Episodes in all."""
        return self.train_episodes + self.validation_episodes


@dataclass(frozen=True)
class Pretraining:
    """How the abstract pipeline is trained (RMR, Appendix B: Adam, batch 50, rate 1e-3).

    Attributes:
        steps: Gradient steps.
        batch: Transitions a step.
        learning_rate: Of Adam.
        checkpoints: Steps at which the validation scores are taken; the last is ``steps``.
        validation_rows: At most so many validation transitions are scored.
    """

    steps: int = 20000
    batch: int = 50
    learning_rate: float = 1e-3
    checkpoints: tuple[int, ...] = (20000,)
    validation_rows: int = 10000

    def __post_init__(self) -> None:
        check_checkpoints(self.checkpoints, self.steps)


@dataclass(frozen=True)
class Natural:
    """How the pixel pipeline is trained.

    Attributes:
        objective: A name in `rmr_gym.stages.natural.OBJECTIVES`: "cswm" is the paper's hinge,
            "infonce" is flattened and within one episode; the rest are their variants.
        checkpoints: Steps at which pipelines are kept and probed, fixed before the run.
        batch: Transitions a step.
        learning_rate: Of Adam.
        sigma: Width of the C-SWM energy.
        hinge: Margin of the C-SWM hinge.
        negatives: "paper" (predicted against permuted next) or "code" (current against current).
        temperature: Of the InfoNCE similarities.
        episodes: Train on the first so many of the training episodes; None: on all.
        cnn: Convolutions in "fp32", or "bf16" with channels last.
    """

    objective: str = "cswm"
    checkpoints: tuple[int, ...] = (300, 1000, 5000, 20000)
    batch: int = 50
    learning_rate: float = 1e-3
    sigma: float = 0.5
    hinge: float = 1.0
    negatives: str = "paper"
    temperature: float = 0.02
    episodes: int | None = None
    cnn: str = "fp32"

    def __post_init__(self) -> None:
        for kind, name, choices in (
            ("objective", self.objective, OBJECTIVES),
            ("kind of negatives", self.negatives, NEGATIVES),
            ("precision of the convolutions", self.cnn, CNN_PRECISIONS),
        ):
            if name not in choices:
                raise unknown_name(kind, name, choices)
        if self.episodes is not None and self.episodes < 1:
            raise RMRError(f"natural training needs 1 episode or more, got {self.episodes}")
        check_checkpoints(self.checkpoints)

    @property
    def label(self) -> str:
        """What tells it from others in titles."""
        return self.objective if self.episodes is None else f"{self.objective}/{self.episodes}"

    @property
    def steps(self) -> int:
        """Gradient steps in all: the last checkpoint."""
        return self.checkpoints[-1]


@dataclass(frozen=True)
class Probing:
    """How encoders are probed for RAM bits.

    Attributes:
        probes: "ridge" (converged, the headline), "adam_raw" and "adam_std" (short, stochastic).
        train_rows: Frames of the training episodes that the probe is fitted on.
        test_rows: Frames of the validation episodes that it is scored on.
    """

    probes: tuple[str, ...] = PROBES
    train_rows: int = 6000
    test_rows: int = 3000

    def __post_init__(self) -> None:
        for probe in self.probes:
            if probe not in PROBES:
                raise unknown_name("probe", probe, PROBES)


@dataclass(frozen=True)
class Preset:
    """Everything that fixes a comparison but games and seeds, which it only proposes.

    Attributes:
        games: Names of games; ("all",) stands for the paper's 24.
        seeds: Number of paired seeds.
        model: Sizes.
        recording: How data are recorded and split.
        pretraining: The abstract stage.
        natural: The pixel stage.
        probing: The probe.
    """

    games: tuple[str, ...]
    seeds: int
    model: AtariModel = field(default_factory=AtariModel)
    recording: Recording = field(default_factory=Recording)
    pretraining: Pretraining = field(default_factory=Pretraining)
    natural: Natural = field(default_factory=Natural)
    probing: Probing = field(default_factory=Probing)


_SMALL = AtariModel(trunk="nature", height=84, width=84)

PRESETS: dict[str, Preset] = {
    "smoke": Preset(
        games=("Pong", "Breakout"),
        seeds=3,
        model=_SMALL,
        recording=Recording(train_episodes=12, validation_episodes=6, max_steps=200),
        pretraining=Pretraining(steps=80, batch=32, checkpoints=(40, 80), validation_rows=400),
        natural=Natural(checkpoints=(5, 15), batch=32),
        probing=Probing(probes=("ridge", "adam_std"), train_rows=800, test_rows=500),
    ),
    "laptop": Preset(
        games=("Pong", "Breakout", "Freeway"),
        seeds=5,
        model=replace(_SMALL, precision="bf16"),
        recording=Recording(train_episodes=48, validation_episodes=48, max_steps=500),
        pretraining=Pretraining(steps=2000, checkpoints=(500, 1000, 2000), validation_rows=5000),
        natural=Natural(checkpoints=(100, 300)),
        probing=Probing(probes=("ridge",), train_rows=3000, test_rows=3000),
    ),
    "paper": Preset(games=("all",), seeds=20),
}
"""Atari presets by name."""


_LAPTOP = PRESETS["laptop"]


@dataclass(frozen=True)
class AtariPreset:
    """A preset of which single settings can be changed, for the command line.

    Attributes:
        preset: smoke, laptop or paper: sizes, steps, checkpoints, probes, seeds and games.
        model: Sizes.
        recording: How data are recorded and split.
        pretraining: The abstract stage.
        natural: The pixel stage.
        probing: The probe.
    """

    preset: str = "laptop"
    model: AtariModel = field(default_factory=lambda: _LAPTOP.model)
    recording: Recording = field(default_factory=lambda: _LAPTOP.recording)
    pretraining: Pretraining = field(default_factory=lambda: _LAPTOP.pretraining)
    natural: Natural = field(default_factory=lambda: _LAPTOP.natural)
    probing: Probing = field(default_factory=lambda: _LAPTOP.probing)

    @staticmethod
    def proposals(name: str) -> dict[str, Any]:
        """Return the fields that a preset proposes.

        Raises:
            RMRError: There is no such preset.
        """
        preset = find_preset(PRESETS, name)
        stages = ("model", "recording", "pretraining", "natural", "probing")
        return {"preset": name} | {stage: getattr(preset, stage) for stage in stages}

    @property
    def chosen(self) -> Preset:
        """The preset with what was changed of it."""
        configs = (self.model, self.recording, self.pretraining, self.natural, self.probing)
        proposed = find_preset(PRESETS, self.preset)
        return Preset(proposed.games, proposed.seeds, *configs)


def find_preset(presets: Mapping[str, Named], name: str) -> Named:
    """Return a preset by name.

    Raises:
        RMRError: With the choices and the nearest, if there is none of that name.
    """
    if name not in presets:
        raise unknown_name("preset", name, presets)
    return presets[name]


def as_json(config: Any) -> dict[str, Any]:
    """Return a configuration as plain JSON values (tuples become lists)."""
    return _plain(asdict(config))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value
