"""Configurations of the stages and the named presets."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from rmr_gym.core.errors import RMRError, unknown_name
from rmr_gym.domains.atari import AtariModel

OBJECTIVES = (
    "cswm",
    "infonce",
    "infonce_3step",
    "cswm_aligned",
    "infonce_aligned",
)
NEGATIVES = ("paper", "code")
PROBES = ("ridge", "adam_raw", "adam_std")


def _check_checkpoints(checkpoints: tuple[int, ...], steps: int) -> None:
    rising = list(checkpoints) == sorted(set(checkpoints))
    if not checkpoints or not rising or checkpoints[0] < 1 or checkpoints[-1] != steps:
        raise RMRError(
            f"checkpoints must be rising steps from 1 that end at {steps}, got {checkpoints}"
        )


@dataclass(frozen=True)
class Recording:
    """How transitions are recorded and split.

    Attributes:
        train_episodes: Episodes for training every stage (the paper: 48).
        validation_episodes: Episodes that only scores are computed on (the paper: 48).
        max_steps: Agent steps after which an episode is cut.
        heads: Which behaviour heads play: "all", "uniform" or names.
        frameskip: Emulated frames an agent step.
        repeat_action_probability: Sticky actions; 0 keeps RAM deterministic.
    """

    train_episodes: int = 48
    validation_episodes: int = 48
    max_steps: int = 500
    heads: str = "all"
    frameskip: int = 4
    repeat_action_probability: float = 0.0


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
        _check_checkpoints(self.checkpoints, self.steps)


@dataclass(frozen=True)
class Natural:
    """How the pixel pipeline is trained.

    Attributes:
        objective: A name in `rmr_gym.protocol.natural.OBJECTIVES`: "cswm" is the paper's hinge,
            "infonce" is flattened and within one episode; the rest are their variants.
        checkpoints: Steps at which encoders are kept and probed, fixed before the run.
        batch: Transitions a step.
        learning_rate: Of Adam.
        sigma: Width of the C-SWM energy.
        hinge: Margin of the C-SWM hinge.
        negatives: "paper" (predicted against permuted next) or "code" (current against current).
        temperature: Of the InfoNCE similarities.
        episodes: Train on the first so many of the training episodes; None: on all.
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

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise unknown_name("objective", self.objective, OBJECTIVES)
        if self.negatives not in NEGATIVES:
            raise unknown_name("kind of negatives", self.negatives, NEGATIVES)
        if self.episodes is not None and self.episodes < 1:
            raise RMRError(f"natural training needs 1 episode or more, got {self.episodes}")
        _check_checkpoints(self.checkpoints, max(self.checkpoints, default=0))

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
        entropy_threshold: RAM cells above so many nats are predicted.
    """

    probes: tuple[str, ...] = PROBES
    train_rows: int = 6000
    test_rows: int = 3000
    entropy_threshold: float = 0.6

    def __post_init__(self) -> None:
        for probe in self.probes:
            if probe not in PROBES:
                raise unknown_name("probe", probe, PROBES)


@dataclass(frozen=True)
class Preset:
    """Everything that fixes a comparison but games and seeds, which it only proposes."""

    name: str
    games: tuple[str, ...]
    seeds: int
    model: AtariModel = field(default_factory=AtariModel)
    recording: Recording = field(default_factory=Recording)
    pretraining: Pretraining = field(default_factory=Pretraining)
    natural: Natural = field(default_factory=Natural)
    probing: Probing = field(default_factory=Probing)

    def with_objective(self, objective: str | None) -> "Preset":
        """Return this preset under another objective (None: unchanged)."""
        if objective is None:
            return self
        return replace(self, natural=replace(self.natural, objective=objective))


_SMALL = AtariModel(trunk="nature", height=84, width=84)

PRESETS: dict[str, Preset] = {
    "smoke": Preset(
        name="smoke",
        games=("Pong", "Breakout"),
        seeds=3,
        model=_SMALL,
        recording=Recording(train_episodes=12, validation_episodes=6, max_steps=200),
        pretraining=Pretraining(steps=80, batch=32, checkpoints=(40, 80), validation_rows=400),
        natural=Natural(checkpoints=(5, 15), batch=32),
        probing=Probing(probes=("ridge", "adam_std"), train_rows=800, test_rows=500),
    ),
    "laptop": Preset(
        name="laptop",
        games=("Pong", "Breakout", "Freeway"),
        seeds=5,
        model=replace(_SMALL, precision="bf16"),
        recording=Recording(train_episodes=48, validation_episodes=48, max_steps=500),
        pretraining=Pretraining(steps=2000, checkpoints=(500, 1000, 2000), validation_rows=5000),
        natural=Natural(checkpoints=(100, 300)),
        probing=Probing(probes=("ridge",), train_rows=3000, test_rows=3000),
    ),
    "paper": Preset(name="paper", games=("all",), seeds=20),
}
"""Presets by name; games ("all",) stands for the paper's 24."""


def find_preset(name: str) -> Preset:
    """Return a preset by name.

    Raises:
        RMRError: With the choices and the nearest, if there is none of that name.
    """
    if name not in PRESETS:
        raise unknown_name("preset", name, PRESETS)
    return PRESETS[name]


def as_json(config: Any) -> dict[str, Any]:
    """Return a configuration as plain JSON values (tuples become lists)."""
    return _plain(asdict(config))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value
