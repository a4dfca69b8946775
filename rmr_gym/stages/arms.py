"""The arms of a natural comparison: one encoder, one decoder, one batch stream, different P."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from rmr_gym.core.errors import RMRError, unknown_name
from rmr_gym.core.seeding import generator
from rmr_gym.domains.atari import AtariModel, make_core
from rmr_gym.models.rmr.processors import Processor, freeze, load_weights, shuffle_weights


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
    if name not in arms:
        raise unknown_name("arm", name, arms)
    return arms[name]


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
    prepare(name, find_arm(name), processor, pretrained, seed)
    return processor


def fresh_processor(name: str, model: AtariModel, seed: int) -> Processor:
    """Make a P of an arm's core with initial weights; nothing is loaded and nothing frozen."""
    return make_core(model, arm_core(name, model), seed)


def arm_core(name: str, model: AtariModel) -> str:
    """Return the name of the core that an arm's P has."""
    core = find_arm(name).core
    return model.core if core == "configured" else core


def prepare(
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
