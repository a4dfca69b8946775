"""Configurations of the stages: the arms of a comparison, the Atari presets by name."""

import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar, cast, get_args, get_type_hints

from torch import Tensor, nn

from rmr_gym.core.errors import Checked, RMRError, known_name, limit
from rmr_gym.core.seeding import generator
from rmr_gym.domains.atari import AtariModel, make_core
from rmr_gym.models.rmr.pipeline import ContrastiveTerms, hinge_loss, info_nce_loss
from rmr_gym.models.rmr.processors import Processor, freeze, load_weights, shuffle_weights
from rmr_gym.models.rmr.stacked import CNN_PRECISIONS
from rmr_gym.runs.training import Falling, Phase, check_checkpoints

PROBE_NAMES = ("ridge", "adam_raw", "adam_std")

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
class Pretraining(Checked):
    """How the abstract pipeline is trained (RMR, Appendix B: Adam, batch 50, rate 1e-3).

    Attributes:
        steps: Gradient steps.
        batch: Transitions a step.
        learning_rate: Of Adam.
        checkpoints: Steps at which the validation scores are taken; the last is ``steps``.
        validation_rows: At most so many validation transitions are scored.
        rollout: Steps that are predicted, each after the first from P's own prediction; the loss is
            their mean. 1 is the paper's.
        noise: Largest share of the bits that are flipped before a first step; 0 is the paper's.
        warmup: Steps over which the rate rises to ``learning_rate``.
        end: Share of the rate that is left at the last step, down to which it follows a cosine; 1
            is the paper's.
    """

    ranges: ClassVar = {**Falling.ranges, "noise": "[0, 0.5)"}

    steps: int = 20000
    batch: int = 50
    learning_rate: float = 1e-3
    checkpoints: tuple[int, ...] = (20000,)
    validation_rows: int = 10000
    rollout: int = 1
    noise: float = 0.0
    warmup: int = 0
    end: float = 1.0

    def __post_init__(self) -> None:
        check_checkpoints(self.checkpoints, self.steps)
        super().__post_init__()

    @property
    def phase(self) -> Falling:
        """The one phase of training."""
        return Falling(self.steps, self.learning_rate, self.batch, 1, self.warmup, self.end)


class PredictedStep(NamedTuple):
    """What an objective sees: g(P(f(x), a)), f(x), f(y) and the negative partners."""

    predicted: Tensor
    current: Tensor
    following: Tensor
    permutation: Tensor


def _cswm(config: "Natural", latents: PredictedStep) -> ContrastiveTerms:
    return hinge_loss(*latents, sigma=config.sigma, hinge=config.hinge, negatives=config.negatives)


def _infonce(config: "Natural", latents: PredictedStep) -> ContrastiveTerms:
    return info_nce_loss(
        latents.predicted, latents.following, temperature=config.temperature, sigma=config.sigma
    )


class Objective(NamedTuple):
    """A loss on latents, the batches that it is defined on, and how training goes.

    Attributes:
        terms: The loss on the latents of one predicted step.
        sampling: Kind of batch, see `rmr_gym.data.sampling.batch_indices`.
        similarity: What it draws a prediction to the next state by: "euclidean" or "cosine".
        horizon: Predicted steps; each goes through P and the decoder, the loss is their mean.
    """

    terms: Callable[["Natural", PredictedStep], ContrastiveTerms]
    sampling: Literal["uniform", "window"]
    similarity: Literal["euclidean", "cosine"]
    horizon: int = 1


OBJECTIVES: dict[str, Objective] = {
    "cswm": Objective(_cswm, "uniform", "euclidean"),
    "infonce": Objective(_infonce, "window", "cosine"),
    "infonce_3step": Objective(_infonce, "window", "cosine", horizon=3),
}
"""Objectives by name. ``_3step``: three steps are predicted."""


@dataclass(frozen=True)
class Natural(Checked):
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
        cnn: Arithmetic of the pixel encoder in training: "fp32", or "bf16" (fp32 sums).
    """

    choices: ClassVar = {
        "objective": ("objective", OBJECTIVES),
        "negatives": ("kind of negatives", ("paper", "code")),
        "cnn": ("precision of the convolutions", CNN_PRECISIONS),
    }

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
        limit("episodes", self.episodes)
        check_checkpoints(self.checkpoints)
        super().__post_init__()

    @property
    def label(self) -> str:
        """What tells it from others in titles."""
        return self.objective if self.episodes is None else f"{self.objective}/{self.episodes}"

    @property
    def steps(self) -> int:
        """Gradient steps in all: the last checkpoint."""
        return self.checkpoints[-1]

    @property
    def phase(self) -> Phase:
        """The one phase of training."""
        return Phase(self.steps, self.learning_rate, self.batch)


@dataclass(frozen=True)
class Probing:
    """How encoders are probed for RAM bits.

    Attributes:
        probes: "ridge" (converged, the headline), "adam_raw" and "adam_std" (short, stochastic).
        train_rows: Frames of the training episodes that the probe is fitted on.
        test_rows: Frames of the validation episodes that it is scored on.
    """

    probes: tuple[str, ...] = PROBE_NAMES
    train_rows: int = 6000
    test_rows: int = 3000

    def __post_init__(self) -> None:
        for probe in self.probes:
            known_name("probe", probe, PROBE_NAMES)


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


def read_presets(family: str, kind: type[Named]) -> dict[str, Named]:
    """Return the presets of a family by name, as presets.toml says them."""
    return {name: kind(**values) for name, values in read_values(family, kind).items()}


def read_values(family: str, kind: type) -> dict[str, dict[str, Any]]:
    """Return what presets.toml says of a family, by preset and field of a dataclass."""
    families = tomllib.loads(Path(__file__).with_name("presets.toml").read_text())
    return {name: _fields(kind, values) for name, values in families[family].items()}


def _fields(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {name: _made(hints[name], value) for name, value in values.items()}


def _made(hint: Any, value: Any) -> Any:
    """Return a value of TOML as what a field's type says: a dataclass, a tuple, or as it is."""
    if is_dataclass(hint):
        return cast("Any", hint)(**_fields(cast("Any", hint), value))
    if isinstance(value, list):
        return tuple(_made(get_args(hint)[0], part) for part in value)
    return value


PRESETS = read_presets("atari", Preset)
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
        return {"preset": name} | _configurations(find_preset(PRESETS, name))

    @property
    def chosen(self) -> Preset:
        """The preset with what was changed of it."""
        return replace(find_preset(PRESETS, self.preset), **_configurations(self))


def _configurations(preset: Preset | AtariPreset) -> dict[str, Any]:
    names = ("model", "recording", "pretraining", "natural", "probing")
    return {name: getattr(preset, name) for name in names}


def find_preset(presets: Mapping[str, Named], name: str) -> Named:
    """Return a preset by name.

    Raises:
        RMRError: With the choices and the nearest, if there is none of that name.
    """
    return presets[known_name("preset", name, presets)]


def as_json(config: Any) -> dict[str, Any]:
    """Return a configuration as plain JSON values (tuples become lists)."""
    return json.loads(json.dumps(asdict(config), default=str))


@dataclass(frozen=True)
class Arm:
    """Where an arm's P comes from and whether it learns.

    Attributes:
        core: "configured" (the model's own core) or "none" (action encoder and skip alone).
        pretrained: P comes from abstract pretraining; otherwise it is initialised afresh.
        shuffled: The entries of every weight of P are permuted.
        frozen: P takes no part in training.
    """

    core: str = "configured"
    pretrained: bool = False
    shuffled: bool = False
    frozen: bool = False


ARMS: dict[str, Arm] = {
    "rmr": Arm(pretrained=True, frozen=True),
    "cswm": Arm(),
    "random_p": Arm(frozen=True),
    "shuffled_p": Arm(pretrained=True, shuffled=True, frozen=True),
    "no_p": Arm(core="none"),
}
"""Trained arms by name. ``cswm`` and ``random_p`` start from the same P; only one of them moves."""


def find_arm(name: str, arms: Mapping[str, Arm] = ARMS) -> Arm:
    """Return an arm by name.

    Raises:
        RMRError: With the choices and the nearest, if there is none of that name.
    """
    return arms[known_name("arm", name, arms)]


def arm_processor(
    name: str, model: AtariModel, seed: int, pretrained: dict[str, Tensor] | None
) -> Processor:
    """Make the processor of an arm.

    Args:
        name: A name in `ARMS`.
        model: Sizes and core.
        seed: Fixes a fresh P and the permutation of a shuffled one.
        pretrained: State dict of the donor's processor, for the arms that need one.

    Raises:
        RMRError: Unknown arm, missing donor, or a donor of other sizes.
    """
    processor = fresh_processor(name, model, seed)
    prepare_processor(name, find_arm(name), processor, pretrained, seed)
    return processor


def fresh_processor(name: str, model: AtariModel, seed: int) -> Processor:
    """Make a P of an arm's core with initial weights; nothing is loaded and nothing frozen."""
    return make_core(model, arm_core(name, model), seed)


def arm_core(name: str, model: AtariModel) -> str:
    """Return the name of the core that an arm's P has."""
    core = find_arm(name).core
    return model.core if core == "configured" else core


def prepare_processor(
    name: str, arm: Arm, processor: nn.Module, pretrained: dict[str, Tensor] | None, seed: int
) -> None:
    """Load, shuffle and freeze a fresh processor, as its arm asks for.

    Raises:
        RMRError: Missing donor, or a donor of other sizes.
    """
    if arm.pretrained:
        if pretrained is None:
            raise RMRError(f"the arm {name!r} needs a pretrained processor: pretrain one first")
        load_weights(processor, pretrained, "the donor's processor")
    if arm.shuffled:
        shuffle_weights(processor, generator(seed, "shuffled P"))
    if arm.frozen:
        freeze(processor)
