import pytest
import torch

from rmr_gym.core.errors import RMRError
from rmr_gym.models.rmr.pipeline import (
    EncodeProcessDecode,
    LatentDecoder,
    RamDecoder,
    RamEncoder,
    SlotCNN,
    build,
    torch_generator,
)
from rmr_gym.models.rmr.processors import freeze, make_processor
from rmr_gym.models.rmr.stacked import StackedModule, StackedPipeline

SLOTS, DIM, ACTIONS, BATCH = 5, 4, 3, 6
# (core, frozen, seed of P): neighbours share kind; the second and third share a frozen P.
KINDS = [
    ("mpnn", True, 0),
    ("mpnn", True, 1),
    ("mpnn", True, 1),
    ("mpnn", False, 2),
    ("mpnn", False, 3),
    ("none", False, 0),
    ("deep_sets", False, 0),
    ("mlp", False, 0),
    ("interaction", False, 0),
]


def drawn(factory, seed):
    return build(factory, torch_generator(seed)).double()


def pipeline(core, frozen, seed, number=0, aggregation="max"):
    options = {"aggregation": aggregation}
    processor = drawn(
        lambda: make_processor(core, slots=SLOTS, actions=ACTIONS, dim=DIM, **options), seed
    )
    if frozen:
        freeze(processor)
    encoder = drawn(lambda: SlotCNN(61, 46, slots=SLOTS, maps=2, dim=DIM, trunk="nature"), number)
    noise = torch.rand(61, 46, generator=torch.Generator().manual_seed(number))
    encoder.standardise_by(99 + noise.double(), 40.0 + number)
    return EncodeProcessDecode(encoder, processor, drawn(lambda: LatentDecoder(DIM), number))


def inputs(runs):
    g = torch.Generator().manual_seed(9)
    frames = torch.randint(0, 256, (runs, BATCH, 61, 46), generator=g, dtype=torch.uint8)
    return frames, torch.randint(0, ACTIONS, (runs, BATCH), generator=g)


def losses_of(stack, frames, action):
    predicted = stack.decoder(stack.process(stack.encoder(frames), action))
    return predicted.square().flatten(1).mean(1)


@pytest.mark.parametrize("aggregation", ["max", "mean"])
def test_every_run_of_a_stack_has_the_outputs_and_gradients_that_it_has_alone(aggregation):
    alone = [pipeline(*each, n, aggregation) for n, each in enumerate(KINDS)]
    stack = StackedPipeline([pipeline(*each, n, aggregation) for n, each in enumerate(KINDS)])
    assert [len(part) for part in stack.processors] == [3, 2, 1, 1, 1, 1]
    assert stack.processors[0].shared() == [1, 2]
    frames, action = inputs(len(KINDS))
    losses = losses_of(stack, frames, action)
    losses.sum().backward()
    first = 0
    for part in stack.processors:
        for row in range(len(part)):
            model, run = alone[first + row], first + row
            loss = model(frames[run], action[run]).square().mean()
            loss.backward()
            torch.testing.assert_close(losses[run], loss, rtol=1e-12, atol=0)
            pairs = [(stack.encoder, run, model.encoder), (part, row, model.processor)]
            for stacked, place, module in [*pairs, (stack.decoder, run, model.decoder)]:
                for name, parameter in module.named_parameters():
                    weight = stacked.weights[name]
                    assert weight.requires_grad == parameter.requires_grad
                    if parameter.requires_grad:
                        torch.testing.assert_close(
                            weight.grad[place], parameter.grad, rtol=1e-9, atol=1e-12
                        )
        first += len(part)


def test_the_abstract_encoder_and_decoder_stack_too():
    encoders = [drawn(lambda: RamEncoder(SLOTS, 8, DIM), n) for n in range(2)]
    decoders = [drawn(lambda: RamDecoder(DIM, 8), n) for n in range(2)]
    bits = torch.rand(2, BATCH, SLOTS, 8, dtype=torch.double).round()
    latents = StackedModule(encoders)(bits)
    mask, written = StackedModule(decoders)(latents)
    for run in range(2):
        expected = decoders[run](encoders[run](bits[run]))
        torch.testing.assert_close(mask[run], expected.mask)
        torch.testing.assert_close(written[run], expected.bits)


def test_runs_that_leave_take_their_optimizer_state_along():
    stack = StackedPipeline([pipeline(*each, n) for n, each in enumerate(KINDS)])
    full = StackedPipeline([pipeline(*each, n) for n, each in enumerate(KINDS)])
    optimizers = [torch.optim.Adam(each.trainable(), lr=0.01) for each in (stack, full)]
    frames, action = inputs(len(KINDS))
    kept = [1, 3, 4, 6]
    for step in range(3):
        for each, optimizer in zip((stack, full), optimizers, strict=True):
            optimizer.zero_grad()
            losses_of(each, frames[each.runs], action[each.runs]).sum().backward()
            optimizer.step()
        if step == 0:
            stack.keep(kept, optimizers[0])
    assert stack.runs == kept
    torch.testing.assert_close(
        losses_of(stack, frames[kept], action[kept]), losses_of(full, frames, action)[kept]
    )
    stack.write_back()
    written = stack.encoder.modules[2].state_dict()["project.weight"]
    torch.testing.assert_close(written, full.encoder.weights["project.weight"][4].detach())


def test_a_run_of_nan_leaves_the_others_alone():
    frames, action = inputs(len(KINDS))
    stack = StackedPipeline([pipeline(*each, n) for n, each in enumerate(KINDS)])
    clean = losses_of(stack, frames, action).detach()
    with torch.no_grad():
        stack.encoder.weights["trunk.0.weight"][3] = torch.nan
    losses = losses_of(stack, frames, action)
    assert losses.isnan().tolist() == [n == 3 for n in range(len(KINDS))]
    others = [n for n in range(len(KINDS)) if n != 3]
    assert torch.equal(losses[others], clean[others])


def test_bfloat16_convolutions_change_little_and_only_when_asked_for():
    frames, _ = inputs(2)
    encoders = [pipeline(*KINDS[0], n).encoder.float() for n in range(2)]
    plain, half = (StackedModule(encoders, cnn)(frames) for cnn in ("fp32", "bf16"))
    assert half.dtype == torch.float32
    difference = (half - plain).norm() / plain.norm()
    assert 1e-5 < difference < 0.05
    with pytest.raises(RMRError, match="bf16"):
        StackedModule(encoders, "bf61")


def test_what_cannot_be_stacked_is_refused():
    with pytest.raises(RMRError, match="one by one"):
        StackedModule([SlotCNN(84, 84, slots=SLOTS, dim=DIM, trunk="nature", affine=True)])
