"""Measures beside the bit probe: labels (Anand et al. 2019), ranks, and measures with headroom.

Headroom: few labelled frames, one slot a byte, bytes that a frame does not show, bits to come.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from rmr_gym.core.errors import RMRError
from rmr_gym.core.metrics import States, bit_f1, class_scores, ranking_scores
from rmr_gym.core.seeding import generator
from rmr_gym.data.sampling import byte_entropy
from rmr_gym.domains import atari
from rmr_gym.domains.atari import CATEGORIES, AtariModel, Label, label_values, ram_labels
from rmr_gym.models.rmr.pipeline import EncodeProcessDecode, find_device
from rmr_gym.models.rmr.processors import load_weights
from rmr_gym.runs.store import Artifact, stage
from rmr_gym.stages import probe
from rmr_gym.stages.games import PRETRAIN_SEED, PROBE_SEED, GameData, ProbeSets, probe_sets
from rmr_gym.stages.natural import AbstractWorld, kept_pipeline, kept_steps
from rmr_gym.stages.presets import ARMS, OBJECTIVES, Natural, Probing

COMPONENTS, SMALLEST = 1024, 1e-7
ROUNDS, ROUND_STEPS, ROUNDS_WAITED = 40, 5, 3
"""L-BFGS iterations between two looks at the validating rows; how many looks, and how patient."""

SCORES = ("macro_f1", "weighted_f1", "accuracy")
AVERAGE = "average"
ALL_LABELS, ALL_CATEGORIES = "all_labels", "all_categories"
"""Categories of the two averages over everything, which stand beside one a category."""


@stage(version=3)
def label_probe(
    data: GameData,
    model: AtariModel,
    config: Probing,
    features: Artifact | probe.Reference,
    device: str = "cpu",
) -> Artifact:
    """Read named labels linearly off frozen features; see `probe` and `label_rows`."""
    sets = probe_sets(data, model, config)
    labels = label_sets(data, model, config)
    parts = probe.checkpoint_features(model, sets, features, device)
    return probe.rows_by_step(parts, lambda part: label_rows(part, sets, labels))


class LabelSets(NamedTuple):
    """The labels of a game that vary enough, on the probe's training and test frames."""

    labels: tuple[Label, ...]
    training: UInt8[np.ndarray, "rows labels"]
    test: UInt8[np.ndarray, "others labels"]


@lru_cache(maxsize=1)
def label_sets(data: GameData, model: AtariModel, config: Probing) -> LabelSets:
    """Return the labels of a game on the frames that `rmr_gym.stages.games.probe_sets` holds.

    Source: Anand et al. 2019, section 5: only labels whose entropy exceeds 0.6 nats.
    Differs: entropy is taken over the training episodes alone, not over all.

    Raises:
        RMRError: No label of the game varies that much.
    """
    episodes, threshold = data.open(), data.entropy_threshold
    ram = episodes.dataset.load(columns=("ram",), episodes=episodes.training)["ram"]
    known = ram_labels(data.label)
    entropy = byte_entropy(label_values(ram, known))
    labels = tuple(label for label, nats in zip(known, entropy, strict=True) if nats > threshold)
    if not labels:
        raise RMRError(
            f"expected a label of {data.label} of more than {threshold} nats of entropy, found at "
            f"most {entropy.max():.3f}: record longer or more varied episodes"
        )
    sets = probe_sets(data, model, config)
    values = (label_values(part.ram, labels) for part in (sets.training, sets.test))
    return LabelSets(labels, *values)


def label_rows(features: probe.Features, sets: ProbeSets, labels: LabelSets) -> probe.Records:
    """Probe features of the probe's frames for every label; averages come last.

    Source: Anand et al. 2019, section 5 and Table 2; the probe of their code (linear, 256-way a
    label, stopped on validation episodes).
    Differs: classes are those of the training frames (the others' optimum is never to be
    predicted); L-BFGS over all rows instead of Adam; each label keeps the weights of its own best
    round, and they are used for the test (there the best are saved and the last are tested);
    F1 is the mean over classes (macro, the headline), with the weighted F1 beside it (there the
    weights are those of the predicted classes, because the arguments are swapped).

    Args:
        features: Of the frames of both sets.
        sets: The frames.
        labels: Theirs.

    Returns:
        One record a label and average: label, category, macro_f1, weighted_f1, accuracy, classes.
    """
    fit = probe.fitting_rows(sets.training.episode, PROBE_SEED)
    train, test = features.train.cpu(), features.test.cpu()
    predicted = predict_labels(train, labels.training, fit, test)
    rows = []
    for column, label in enumerate(labels.labels):
        scores = class_scores(predicted[:, column], labels.test[:, column])
        classes = len(np.unique(labels.training[:, column]))
        named = {"label": label.name, "category": label.category}
        rows.append(named | vars(scores) | {"classes": classes})
    return [*rows, *averages(rows)]


def averages(rows: probe.Records) -> probe.Records:
    """Return the mean scores of each category, of all labels, and of the categories' means."""
    groups = {name: [row for row in rows if row["category"] == name] for name in CATEGORIES}
    means = [_mean(category, group) for category, group in groups.items() if group]
    return [*means, _mean(ALL_LABELS, rows), _mean(ALL_CATEGORIES, means)]


def _mean(category: str, rows: probe.Records) -> dict[str, Any]:
    means = {name: float(np.mean([row[name] for row in rows])) for name in SCORES}
    return {"label": AVERAGE, "category": category} | means | {"classes": None}


def predict_labels(
    train: Float[Tensor, "rows width"],
    labels: UInt8[np.ndarray, "rows labels"],
    fit: Bool[np.ndarray, " rows"],
    test: Float[Tensor, "others width"],
) -> UInt8[np.ndarray, "others labels"]:
    """Fit one multinomial logistic read-out a label and predict the labels of the test rows.

    Features count along the `COMPONENTS` directions that vary most, halfway between as they are and
    whitened: the read-out is as linear as before, and L-BFGS needs far fewer iterations.
    All labels of a game are one linear layer, whose cross-entropies are summed and minimised by
    L-BFGS over all rows at once. After every `ROUND_STEPS` iterations each label is scored on the
    rows that are held back, and keeps the weights of its best round; fitting ends when no label
    has become better for `ROUNDS_WAITED` rounds.

    Args:
        train: Features of the training episodes.
        labels: Their labels.
        fit: Rows to fit on; the others stop the fitting.
        test: Features to predict labels for.
    """
    values, others = probe.principal_components(train, test, COMPONENTS, SMALLEST, whitening=0.5)
    classes = [np.unique(column) for column in labels.T]
    targets = torch.from_numpy(
        np.stack([np.searchsorted(c, column) for c, column in zip(classes, labels.T, strict=True)])
    )
    rows, held = probe.split_rows(fit, train.device)
    sizes = [len(each) for each in classes]
    weights = _fit(values[rows], targets[:, rows], values[held], targets[:, held], sizes)
    chosen = [scores.argmax(1).numpy() for scores in _scores(others, weights, sizes)]
    return np.stack([c[index] for c, index in zip(classes, chosen, strict=True)], axis=1)


def _fit(
    values: Float[Tensor, "rows width"],
    targets: Int[Tensor, "labels rows"],
    held: Float[Tensor, "held width"],
    held_targets: Int[Tensor, "labels held"],
    sizes: list[int],
) -> Float[Tensor, "weights outputs"]:
    """Return the weights, with the biases as last row, of each label's best round."""
    weights = values.new_zeros(values.shape[1] + 1, sum(sizes)).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weights], max_iter=ROUND_STEPS, history_size=10, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        scores = _scores(values, weights, sizes)
        total = sum(nn.functional.cross_entropy(s, t) for s, t in zip(scores, targets, strict=True))
        assert isinstance(total, Tensor)
        total.backward()
        return total

    best, reached, waited = weights.detach().clone(), torch.full((len(sizes),), -1.0), 0
    for _ in range(ROUNDS):
        torch.set_flush_denormal(True)  # tiny probabilities would slow the fit tenfold
        try:
            optimizer.step(loss)
        finally:
            torch.set_flush_denormal(False)
        with torch.no_grad():
            scores = _scores(held, weights, sizes)
            right = [(s.argmax(1) == t) for s, t in zip(scores, held_targets, strict=True)]
        now = torch.stack([each.float().mean() for each in right])
        better = now > reached
        outputs = better.repeat_interleave(torch.tensor(sizes))
        best[:, outputs] = weights.detach()[:, outputs]
        reached = torch.where(better, now, reached)
        waited = 0 if better.any() else waited + 1
        if waited >= ROUNDS_WAITED:
            break
    return best


def _scores(
    values: Float[Tensor, "rows width"], weights: Float[Tensor, "weights outputs"], sizes: list[int]
) -> tuple[Float[Tensor, "rows _"], ...]:
    return torch.addmm(weights[-1], values, weights[:-1]).split(sizes, dim=1)


AHEAD = (1, 5, 10)
"""Numbers of predicted steps, as C-SWM reports them."""

PATHS = 1000
"""Size of the reference set: so many paths of validation episodes."""

BATCH = 100


@stage(version=4)
def ranking(
    data: GameData, model: AtariModel, config: Natural, pipelines: Artifact, device: str = "cpu"
) -> Artifact:
    """Rank what the pipelines of all checkpoints predict, by the similarity that they learnt by.

    Args:
        data: Paths come from its validation episodes.
        model: Sizes.
        config: Its objective says by which similarity.
        pipelines: What `rmr_gym.stages.natural.natural` left.
        device: Where to compute.

    Returns:
        The record holds ``rows``, see `rank_predictions`, one list a checkpoint.
    """
    paths, similarity = ranking_paths(data, model), OBJECTIVES[config.objective].similarity
    rows = []
    for step in kept_steps(pipelines):
        pipeline = kept_pipeline(model, pipelines, step).to(find_device(device)).eval()
        ranked = rank_predictions(pipeline, paths, similarity)
        rows += [{"step": step, **row} for row in ranked]
    return Artifact({"rows": rows})


class Paths(NamedTuple):
    """Frames of a set of paths: where each starts, its actions, and where it is later."""

    start: UInt8[Tensor, "rows height width"]
    action: Int[Tensor, "rows time"]
    later: dict[int, UInt8[Tensor, "rows height width"]]


@lru_cache(maxsize=1)
def ranking_paths(data: GameData, model: AtariModel) -> Paths:
    """Draw paths of the validation episodes; the same for every encoder and number of steps.

    Raises:
        RMRError: No validation episode is long enough.
    """
    return _paths(data, model, "validation", AHEAD)[0]


def _paths(
    data: GameData, model: AtariModel, part: str, steps: tuple[int, ...]
) -> tuple[Paths, dict[int, atari.ProbeData]]:
    """Return paths of some episodes, and what is probed at their start (0) and so many steps on."""
    opened, known = data.open(), data.abstract(part)
    loaded = atari.load_natural(opened.dataset, getattr(opened, part), model.height, model.width)
    starts = path_starts(loaded.current, steps[-1], PATHS, "ranking paths")
    action = torch.stack([loaded.action[starts + step] for step in range(steps[-1])], dim=1)
    instants = {}
    for ahead in (0, *steps):
        rows = loaded.current[starts] + ahead
        bits, ram = known.bits[rows][:, data.scored_bytes], known.ram[rows]
        parts = (loaded.frames[rows], bits, loaded.episode[starts], ram, ram)
        instants[ahead] = atari.ProbeData(*parts)
    later = {ahead: instants[ahead].frames for ahead in steps}
    return Paths(instants[0].frames, action, later), instants


def path_starts(
    current: Int[np.ndarray, " transitions"], steps: int, most: int, stream: str
) -> Int[np.ndarray, " starts"]:
    """Draw transitions from each of which so many follow on in one episode.

    Args:
        current: Row of the observation before each transition; rows of an episode are successive.
        steps: Successive transitions, the drawn one among them.
        most: At most so many are drawn.
        stream: Name of what they are drawn for.

    Raises:
        RMRError: No episode is long enough.
    """
    last = current[steps - 1 :]
    starts = np.flatnonzero(last - current[: len(last)] == steps - 1)
    if len(starts) == 0:
        raise RMRError(f"expected an episode of {steps} steps to predict: record longer episodes")
    rng = generator(0, stream)
    return np.sort(rng.choice(starts, size=min(most, len(starts)), replace=False))


@torch.no_grad()
def rank_predictions(
    pipeline: EncodeProcessDecode, paths: Paths, similarity: str = "euclidean"
) -> probe.Records:
    r"""Score the latents that the pipeline predicts against those of the frames that came.

    .. math:: \hat z_0 = f(x_0), \qquad \hat z_{t+1} = g(P(\hat z_t, a_t))

    Source: C-SWM (Kipf et al. 2020), section 4 and appendix; its evaluation code.
    Differs: paths start anywhere in the episodes and not only at their beginning; 1, 5 and 10 steps
    are scored on the same paths; states are compared by the similarity of the objective; beside the
    prediction stands the present state, taken for one.

    Args:
        pipeline: Pixel encoder, P and decoder onto latents.
        paths: See `ranking_paths`.
        similarity: "euclidean", or "cosine" of the flattened latents.

    Returns:
        Records of ahead, similarity, hits_at_1, mrr, tied, copy_hits_at_1, copy_mrr and rows, one a
        number of steps.
    """

    def latents(frames: Tensor) -> np.ndarray:
        return probe.encode(pipeline.encoder, frames, BATCH).cpu().numpy()

    predicted, rows = _unrolled(pipeline, paths), []
    present = latents(paths.start)
    for ahead, frames in paths.later.items():
        true = latents(frames)
        scores = ranking_scores(true, predicted.pop(ahead), similarity)
        copied = ranking_scores(true, present, similarity)
        beside = {"copy_hits_at_1": copied.hits_at_1, "copy_mrr": copied.mrr, "rows": len(true)}
        rows.append({"ahead": ahead, "similarity": similarity, **scores._asdict(), **beside})
    return rows


@torch.no_grad()
def _unrolled(pipeline: EncodeProcessDecode, paths: Paths) -> dict[int, States]:
    place = next(pipeline.parameters()).device
    parts: dict[int, list[np.ndarray]] = {ahead: [] for ahead in paths.later}
    for frames, actions in zip(paths.start.split(BATCH), paths.action.split(BATCH), strict=True):
        latent = pipeline.encoder(frames.to(place))
        for step, action in enumerate(actions.to(place).unbind(1), 1):
            latent = pipeline.decoder(pipeline.processor(latent, action))
            if step in parts:
                parts[step].append(latent.flatten(1).cpu().numpy())
    return {ahead: np.concatenate(latents) for ahead, latents in parts.items()}


LABELLED = (50, 200, 1000, 3000)
"""Numbers of labelled frames; all that the probe is fitted on stand beside."""

FORECAST = (1, 4, 16)
"""Numbers of steps to the bits that are forecast."""

SHRINKAGE = 1e-3
"""Penalty of the read-out of a slot, as a share of its variance."""

Given = Artifact | probe.Reference
Guess = tuple[str, int, atari.Predicted, ProbeSets]
# a measure, at what it is taken, the bits that were read, and whose these are


@stage(version=1)
def headroom(
    data: GameData, model: AtariModel, config: Probing, read: Artifact, features: Given, device: str
) -> Artifact:
    """Read RAM bits off frozen features under measures that raw pixels do not fill.

    Read-outs are ridge regressions, see `rmr_gym.stages.probe`, of the last checkpoint.

    Args:
        data: Its training and validation episodes.
        model: Sizes.
        config: Rows of the probe.
        read: What `rmr_gym.stages.belief.evidence` left: says which bytes one frame does not show.
        features: Pipelines or encoders, or features from elsewhere.
        device: Where to compute.

    Returns:
        The record holds ``rows``: step, measure, at, bytes ("all", those that one frame hides, or
        shows) and micro_f1. Measures: "frames" (read-out fitted to ``at`` labelled frames), "slot"
        (each byte from its best slot of ``at`` numbers), and of the bits ``at`` steps on
        "forecast" (from latents rolled so far by the arm's own P), "present" (from present ones)
        and "ceiling" (from the latents of that instant). Without a P nothing is forecast.
    """
    sets = probe_sets(data, model, config)
    step, part = next(probe.checkpoint_features(model, sets, features, device, -1))
    hidden = read.tensors["hidden"].numpy()[data.scored_bytes]
    kinds = {"all": np.ones_like(hidden), "hidden": hidden, "shown": ~hidden}
    guesses = [("slot", model.dim, best_slots(part, sets, model.dim), sets)]
    guesses += [*_few_frames(part, sets), *_forecasts(data, model, features, device)]
    rows = []
    for measure, at, bits, scored in guesses:
        for kind in (kind for kind in kinds if kinds[kind].any()):
            f1 = bit_f1(bits[:, kinds[kind]], scored.test.bits[:, kinds[kind]]).micro_f1
            rows.append({"step": step, "measure": measure, "at": at, "bytes": kind, "micro_f1": f1})
    return Artifact({"rows": rows})


def _read(features: probe.Features, sets: ProbeSets) -> atari.Predicted:
    """Return the bits of the test rows as ridge regression reads them."""
    bits = torch.from_numpy(sets.training.bits).flatten(1).float().to(features.train.device)
    fit = probe.fitting_rows(sets.training.episode, PROBE_SEED)
    predicted = probe.PROBES["ridge"](features.train, bits, fit, features.test, PROBE_SEED)
    return predicted.cpu().numpy().reshape(sets.test.bits.shape)


def _few_frames(features: probe.Features, sets: ProbeSets) -> Iterator[Guess]:
    """Read bits after fitting to few frames; those of fewer are among those of more."""
    count = len(sets.training.frames)
    order = generator(PROBE_SEED, "labelled frames").permutation(count)
    for labels in sorted({count, *(number for number in LABELLED if number < count)}):
        rows = np.sort(order[:labels])
        bits, episode = sets.training.bits[rows], sets.training.episode[rows]
        few = sets._replace(training=sets.training._replace(bits=bits, episode=episode))
        yield "frames", labels, _read(features._replace(train=features.train[rows]), few), sets


def best_slots(features: probe.Features, sets: ProbeSets, width: int) -> atari.Predicted:
    """Read each byte from the one slot that reads it best on held-out training episodes.

    Features without slots are read from so many leading components.

    Args:
        features: Of the frames of both sets.
        sets: The frames.
        width: Of a slot.
    """
    bits = torch.from_numpy(sets.training.bits).double().to(features.train.device)
    fit = probe.fitting_rows(sets.training.episode, PROBE_SEED)
    rows, held = probe.split_rows(fit, bits.device)
    mean, truth, slots = bits[rows].mean(0), bits[held] > 0.5, features.slots or 1
    train, test = (
        part[:, -slots * width :].unflatten(1, (slots, -1)).transpose(0, 1).double()
        for part in (features.train, features.test)
    )
    shift = train[:, rows].mean(1, keepdim=True)
    fitted = train[:, rows] - shift
    gram = fitted.mT @ fitted
    variance = gram.diagonal(dim1=1, dim2=2)
    variance.add_(SHRINKAGE * variance.mean(1, keepdim=True) + 1e-9)
    weight = torch.linalg.solve(gram, fitted.mT @ (bits[rows] - mean).flatten(1))
    guess = ((train[:, held] - shift) @ weight).unflatten(2, mean.shape) + mean > 0.5
    hits, errors = 2 * (guess & truth).sum((1, 3)), (guess != truth).sum((1, 3))
    best = (hits / (hits + errors).clamp(min=1)).argmax(0)
    chosen = weight.unflatten(2, mean.shape)[best, :, torch.arange(len(best), device=best.device)]
    return (((test - shift)[best] @ chosen).transpose(0, 1) + mean > 0.5).cpu().numpy()


@lru_cache(maxsize=1)
def forecast_sets(data: GameData, model: AtariModel) -> tuple[tuple, dict[int, ProbeSets]]:
    """Draw paths of training and validation episodes, and what is probed so many steps on.

    Raises:
        RMRError: No episode is long enough.
    """
    parts = [_paths(data, model, part, FORECAST) for part in ("training", "validation")]
    paths, (training, test) = zip(*parts, strict=True)
    return paths, {ahead: ProbeSets(training[ahead], test[ahead], 0) for ahead in training}


def _forecasts(data: GameData, model: AtariModel, given: Given, device: str) -> Iterator[Guess]:
    """Read the bits to come from present latents, from those to come, and from P's of them."""
    paths, instants = forecast_sets(data, model)
    _, present = next(probe.checkpoint_features(model, instants[0], given, device, -1))
    rolled = []
    if isinstance(given, Artifact) and given.record["arm"] in ARMS:
        pipeline = kept_pipeline(model, given, kept_steps(given)[-1]).to(find_device(device))
        rolled = [_unrolled(pipeline, part) for part in paths]
    for ahead in FORECAST:
        sets = instants[ahead]
        _, reached = next(probe.checkpoint_features(model, sets, given, device, -1))
        yield "present", ahead, _read(present, sets), sets
        yield "ceiling", ahead, _read(reached, sets), sets
        if rolled:
            train, test = (torch.from_numpy(part[ahead]).to(present.train) for part in rolled)
            yield "forecast", ahead, _read(probe.Features(train, test, atari.SLOTS), sets), sets


HORIZONS = (1, 2, 4, 8, 16, 32, 64)
"""Numbers of steps that an abstract pipeline goes on from its own predictions."""

ROLLOUTS = 250
"""Validation paths that it is scored on, at most."""


@stage(version=1)
def horizons(
    data: AbstractWorld, model: AtariModel, pretrained: Artifact, device: str = "cpu"
) -> Artifact:
    """Score an abstract pipeline that goes on from its own predictions, on RAM alone.

    Source: none in the paper, which predicts one step.

    Args:
        data: Paths come from its validation episodes.
        model: Sizes.
        pretrained: What `rmr_gym.stages.natural.pretrain` left.
        device: Where to compute.

    Returns:
        The record holds ``rows``: k and the scores of the RAM k steps on (its mask: the bytes that
        differ from the start's); beside them, as model "copy", those of the start's RAM.

    Raises:
        RMRError: No validation episode is long enough.
    """
    validation = data.abstract("validation")
    pipeline = atari.abstract_pipeline(model, PRETRAIN_SEED).to(find_device(device))
    load_weights(pipeline, pretrained.tensors, "the abstract pipeline")
    index = path_starts(validation.current, HORIZONS[-1], ROLLOUTS, "horizons")
    observed = validation.current[index]
    start = bits = validation.bits[observed]
    rows = []
    for ahead in range(1, HORIZONS[-1] + 1):
        action = validation.action[index + ahead - 1]
        here = atari.AbstractData(bits, action, np.arange(len(index)), validation.ram)
        bits = atari.predict_ram(pipeline, here).astype(np.uint8)
        if ahead in HORIZONS:
            for guess, named in ((start, {"model": "copy"}), (bits, {})):
                truth = validation.bits[observed + ahead]
                scores = atari.ram_scores(guess > 0, start, truth, data.scored_bytes)
                rows.append({**named, "k": ahead, **scores._asdict()})
    return Artifact({"rows": rows})
