"""Many pipelines of one architecture as one: their weights stacked along a first axis, ``runs``.

Convolutions become grouped ones, all else runs under torch.vmap, so that a step of forty small
models keeps a GPU busy where forty steps of one would wait for it. Runs share nothing: the gradient
of the sum of their losses is, run by run, the gradient of each. The modules stay the owners of the
architecture, of the initial weights, and, through `StackedPipeline.write_back`, of the results.
"""

from collections.abc import Sequence
from functools import partial
from itertools import accumulate, groupby
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from rmr_gym.core.errors import RMRError, known_name
from rmr_gym.models.rmr.pipeline import EncodeProcessDecode, SlotCNN
from rmr_gym.models.rmr.processors import Processor, parameter_hash

CNN_PRECISIONS = ("fp32", "bf16")


class StackedModule:
    """The weights of modules of one architecture, and how the stack of them computes.

    Neighbours with the same frozen weights, as the P of the seeds of one donor, compute as one, on
    one large batch.

    Args:
        modules: One a run; parameters that need no gradient need none in the stack.
        cnn: "fp32", or "bf16": convolutions in bfloat16 with the channels last in memory.

    Raises:
        RMRError: An encoder with an affine map a slot, or no such precision.
    """

    def __init__(self, modules: Sequence[nn.Module], cnn: str = "fp32"):
        if getattr(modules[0], "affine", None) is not None:
            raise RMRError("encoders with an affine map a slot train one by one: a stack of 1")
        known_name("precision of the convolutions", cnn, CNN_PRECISIONS)
        self.modules, self.cnn = list(modules), cnn
        states = [{**dict(m.named_parameters()), **dict(m.named_buffers())} for m in modules]
        self.weights: dict[str, Tensor] = {}
        for name, first in states[0].items():
            weights = torch.stack([state[name].detach() for state in states])
            self.weights[name] = weights.requires_grad_(first.requires_grad)
        learns = bool(self.trainable())
        self._same = [row if learns else parameter_hash(m) for row, m in enumerate(modules)]

    def __len__(self) -> int:
        """Count the runs."""
        return len(self.modules)

    def __call__(self, *inputs: Tensor) -> Any:
        """Compute what the modules do, each on its run's part of the inputs [runs ...]."""
        module, sizes = self.modules[0], self.shared()
        if isinstance(module, SlotCNN):
            return _slot_cnn(self, module, *inputs)
        if len(sizes) == len(self):
            return torch.vmap(partial(torch.func.functional_call, module))(self.weights, inputs)
        firsts = accumulate(sizes[:-1], initial=0)
        groups = zip(firsts, *(part.split(sizes) for part in inputs), strict=True)
        parts = [self.modules[first](*(x.flatten(0, 1) for x in group)) for first, *group in groups]
        return torch.cat(parts).unflatten(0, inputs[0].shape[:2])

    def shared(self) -> list[int]:
        """Return how many neighbours share each module; the sum is the number of runs."""
        return [len(list(group)) for _, group in groupby(self._same)]

    def trainable(self) -> list[Tensor]:
        """Return the stacked parameters that need gradients."""
        return [weight for weight in self.weights.values() if weight.requires_grad]

    @torch.no_grad()
    def write_back(self) -> None:
        """Give every module its run's weights."""
        for row, module in enumerate(self.modules):
            module.load_state_dict({name: weight[row] for name, weight in self.weights.items()})

    def keep(self, rows: list[int], optimizer: torch.optim.Optimizer) -> None:
        """Go on with some of the runs; the optimizer's state follows."""
        self.modules = [self.modules[row] for row in rows]
        self._same = [self._same[row] for row in rows]
        for name, old in self.weights.items():
            new = self.weights[name] = old.detach()[rows].requires_grad_(old.requires_grad)
            if old in optimizer.state:
                optimizer.state[new] = {
                    slot: value[rows] if value.dim() else value
                    for slot, value in optimizer.state.pop(old).items()
                }


class StackedPipeline:
    """Pipelines that differ in their weights and, by neighbours, in core and freezing of P.

    Args:
        pipelines: One a run, on one device.
        cnn: See `StackedModule`.

    Raises:
        RMRError: Encoders that cannot be stacked, see `StackedModule`.
    """

    def __init__(self, pipelines: Sequence[EncodeProcessDecode], cnn: str = "fp32"):
        self.encoder = StackedModule([pipeline.encoder for pipeline in pipelines], cnn)
        self.decoder = StackedModule([pipeline.decoder for pipeline in pipelines])
        processors = [pipeline.processor for pipeline in pipelines]
        self.processors = [StackedModule(list(group)) for _, group in groupby(processors, kind)]
        self.runs = list(range(len(pipelines)))
        """The runs that are still there, by their place among those that there were."""

    def process(
        self, z: Float[Tensor, "runs batch slots dim"], action: Int[Tensor, "runs batch"]
    ) -> Float[Tensor, "runs batch slots dim"]:
        """Apply each run's P."""
        sizes = [len(processor) for processor in self.processors]
        parts = zip(self.processors, z.split(sizes), action.split(sizes), strict=True)
        return torch.cat([processor(*inputs) for processor, *inputs in parts])

    def trainable(self) -> list[Tensor]:
        """Return the stacked parameters that need gradients."""
        return [weight for part in self._parts() for weight in part.trainable()]

    def write_back(self) -> None:
        """Give the pipelines that are still there their weights."""
        for part in self._parts():
            part.write_back()

    def keep(self, rows: list[int], optimizer: torch.optim.Optimizer) -> None:
        """Go on with some of the runs, given by their place among those still there."""
        self.encoder.keep(rows, optimizer)
        self.decoder.keep(rows, optimizer)
        first = 0
        for processor in self.processors:
            count = len(processor)
            processor.keep([row - first for row in rows if 0 <= row - first < count], optimizer)
            first += count
        self.processors = [processor for processor in self.processors if len(processor)]
        self.runs = [self.runs[row] for row in rows]
        optimizer.param_groups[0]["params"] = self.trainable()

    def _parts(self) -> list[StackedModule]:
        return [self.encoder, *self.processors, self.decoder]


def kind(processor: Processor) -> tuple[str, bool]:
    """Return what neighbours in a stack must share: the core's type, and whether P learns."""
    learns = any(parameter.requires_grad for parameter in processor.parameters())
    return type(processor.core).__name__, learns


def _slot_cnn(stack: StackedModule, encoder: SlotCNN, frames: Tensor) -> Tensor:
    """Encode gray frames [runs batch height width]; see `SlotCNN`."""
    weights = stack.weights
    gray = frames.transpose(0, 1).to(weights["mean_frame"].dtype)
    x = (gray - weights["mean_frame"]) / weights["deviation"][:, None, None]
    with torch.autocast(x.device.type, torch.bfloat16, enabled=stack.cnn == "bf16"):
        for index, layer in enumerate(encoder.trunk):
            if isinstance(layer, nn.Conv2d):
                x = _convolution(stack, x, f"trunk.{index}", layer.stride[0])
            else:
                x = layer(x)
        maps = _convolution(stack, x, "slot_maps", 1)
        sizes = {"runs": len(stack), "slots": encoder.slots}
        slots = rearrange(maps, "b (runs slots maps) h w -> runs b slots (maps h w)", **sizes)
        project = weights["project.weight"], weights["project.bias"]
        return torch.vmap(F.linear)(slots, *project).to(weights["mean_frame"].dtype)


def _convolution(stack: StackedModule, x: Tensor, name: str, stride: int) -> Tensor:
    weight, bias = stack.weights[f"{name}.weight"], stack.weights[f"{name}.bias"]
    if weight.shape[2] == 1 and weight.shape[-1] % stride == 0:
        x, weight, stride = *_in_blocks(x, weight, stride), 1
    if stack.cnn == "bf16":
        x = x.contiguous(memory_format=torch.channels_last)
    return F.conv2d(x, weight.flatten(0, 1), bias.flatten(), stride, groups=len(stack))


def _in_blocks(x: Tensor, weight: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Turn a convolution of one channel a run into one of stride 1 over blocks of pixels.

    A GPU takes groups of a single channel for a depthwise convolution, which is slow with large
    kernels; with stride x stride channels a group it is an ordinary one.
    """
    rows, columns = (side - side % stride for side in x.shape[-2:])
    blocks = F.pixel_unshuffle(x[..., :rows, :columns], stride)
    return blocks, rearrange(
        weight, "runs out 1 (h i) (w j) -> runs out (i j) h w", i=stride, j=stride
    )
