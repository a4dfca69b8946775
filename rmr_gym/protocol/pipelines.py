"""Whole natural pipelines at their checkpoints, for measures that need P and decoder as well."""

from typing import Any

from torch import Tensor

from rmr_gym.domains.atari import natural_pipeline
from rmr_gym.models.rmr.pipeline import EncodeProcessDecode
from rmr_gym.models.rmr.processors import load_weights
from rmr_gym.protocol import stages
from rmr_gym.protocol.arms import arm_processor
from rmr_gym.protocol.config import as_json
from rmr_gym.protocol.stages import GameTask
from rmr_gym.protocol.store import Artifact, Scratch, Store
from rmr_gym.protocol.training import Progress


def trained_pipelines(
    task: GameTask,
    arm: str,
    seed: int,
    donor: Artifact | None = None,
    progress: Progress | None = None,
) -> Artifact:
    """Return an arm's encoder, P and decoder at the checkpoints, trained now or found.

    The stage "natural" keeps encoders alone. Training is a function of its key, so it is done again
    here, byte for byte, and what "natural" would hold is put into the store as well: an arm costs
    a second training only where it was trained before, without its pipeline.

    Args:
        task: The recipient game.
        arm: A name in `rmr_gym.protocol.arms.ARMS`.
        seed: Shared by paired arms.
        donor: Pretrained pipeline whose P is used; by default the game's own.
        progress: Called after every step.

    Returns:
        Tensors ``<step>.<part>.*`` of encoder, processor and decoder; the record is that of
        `rmr_gym.protocol.natural.train_natural`.
    """
    preset, store = task.preset, Store(task.store)
    key = stages.data_key(task) | {"config": as_json(preset.natural), "seed": seed}
    key |= stages.donor_key(task, arm, donor)

    def run(scratch: Scratch) -> Artifact:
        keeping = PipelineScratch(scratch, preset.natural.checkpoints)

        def train(_: Scratch) -> Artifact:
            return stages.run_natural(task, arm, seed, donor, progress, keeping)

        trained = store.get_or_run("natural", key, train)
        if not keeping.kept:
            trained = train(keeping)
        return Artifact(dict(trained.record), keeping.kept)

    return store.get_or_run("natural_pipeline", key, run)


def kept_pipeline(
    task: GameTask, arm: str, seed: int, artifact: Artifact, step: int
) -> EncodeProcessDecode:
    """Rebuild the pipeline that was kept at a checkpoint."""
    weights = artifact.part(str(step))
    processor = {
        name.removeprefix("processor."): tensor
        for name, tensor in weights.items()
        if name.startswith("processor.")
    }
    model = task.preset.model
    affine = "encoder.affine.weight" in weights
    core = arm_processor(arm, model, seed, processor)
    pipeline = natural_pipeline(model, core, seed, affine=affine)
    load_weights(pipeline, weights, f"the pipeline at step {step}")
    return pipeline


class PipelineScratch(Scratch):
    """Room for unfinished state that also keeps the whole model of every checkpoint.

    Training saves its state at each checkpoint, weights of the whole pipeline included; they are
    carried along in what is saved, so that a run that was killed and resumed still has them.
    """

    def __init__(self, inner: Scratch, checkpoints: tuple[int, ...]):
        super().__init__(inner.folder)
        self._checkpoints = checkpoints
        self.kept: dict[str, Tensor] = {}

    def load(self) -> Artifact | None:
        """Return the last saved state, and recall what was kept before."""
        state = super().load()
        self.kept = state.part("pipelines") if state else {}
        return state

    def save(self, state: Artifact) -> None:
        """Replace the saved state; keep the model where it stands at a checkpoint."""
        step: Any = state.record["step"]
        if step in self._checkpoints:
            self.kept |= {
                f"{step}.{name}": tensor.detach().cpu().clone()
                for name, tensor in state.part("model").items()
            }
        kept = {f"pipelines.{name}": tensor for name, tensor in self.kept.items()}
        super().save(Artifact(state.record, state.tensors | kept))
