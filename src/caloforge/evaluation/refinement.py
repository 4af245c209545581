r"""Weights that correct generated events: how much more often the simulation gives such an event than the generator.

A classifier that tells simulated from generated events by their conditions and responses, with C its calibrated
probability of simulation, estimates the ratio of the two densities,

$$ w = \frac{C}{1 - C} \, \frac{n_\mathrm{generated}}{n_\mathrm{simulated}}
\approx \frac{p_\mathrm{simulated}(x)}{p_\mathrm{generated}(x)} $$

with n the rows that it was calibrated by. Histograms of generated events that are filled with these weights are those
of the simulation, as far as the classifier sees (Diefenbacher and others, arXiv 2009.03796).

Both sets answer the same particles, so the mean of w over the responses to one particle is 1. What a network learned
from some thousand rows strays from that, and would change the mix of particles. So w is divided by its mean given the
particle, a regression of w on the particle's features by gradient boosting.

What weights cannot do:

- make events where the generator makes none: a true event without generated neighbours has no one to weigh;
- correct what the classifier does not see: `high` sees sums, centres, widths and no single cell;
- come for nothing: the weights scatter, and N events are worth `metrics.effective_size` of them.

**No row is weighed by a classifier that learned from it.** Particles are cut into folds. For each fold a network is
trained on all others but one, which chooses the epoch and calibrates, and weighs the fold that is left; the regression
goes by the same folds. Rows outside of what is learned from get the mean of all these weights. Of events whose model
has a split, only rows outside of the test part are learned from, so that the test part can judge the weights. Weights
beyond `clip` and 1 / `clip` are set to these, before the regression and in the end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from caloforge._lookup import require
from caloforge.detectors import Detector
from caloforge.evaluation.classifier import (
    SUITES,
    Calibration,
    ClassifierConfig,
    Fitted,
    Inputs,
    Part,
    SomeInputs,
    View,
    auc_of,
    fit,
    inputs_of,
)
from caloforge.evaluation.scoring import rows_to_score
from caloforge.events import EventSource, Selected, groups_of
from caloforge.io import create, open_to_judge, provenance
from caloforge.io.content import content_hash
from caloforge.io.formats import WEIGHT, further_columns, in_parts
from caloforge.io.source import reading
from caloforge.metrics import align
from caloforge.metrics.weights import Weights, effective_size, select, weights_of
from caloforge.models.parts.particle_features import ParticleFeatures

FEWEST = 100
"""Rows of either set from which weights are learned."""


class RefinementConfig(BaseModel):
    """How weights are learned.

    Attributes:
        view: what the classifier sees.
        classifier: its network and training; `views`, `parts` and `seeds` of it say nothing here.
        patience: epochs without a better one after which a network's training ends.
        folds: parts of the particles; all but two train each network.
        clip: largest weight, and one over the smallest.
        conditional: divide weights by their mean given the particle, and by the mean of what is left.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    view: View = "high"
    classifier: ClassifierConfig = SUITES["small"]
    patience: int = Field(5, ge=1)
    folds: int = Field(5, ge=3)
    clip: float = Field(10.0, gt=1)
    conditional: bool = True


@dataclass(frozen=True, eq=False)
class Refined:
    """Weights of events.

    Attributes:
        weight: of each event, those it had before multiplied, (N,).
        factor: of each event, what it was multiplied by, (N,).
        auc: of the classifiers on the rows that they learned nothing from: 0.5 means that there is nothing to correct.
        learned: rows of the generated events that were learned from, each in all but one of the classifiers.
        clipped: share of the factors that were clipped.
    """

    weight: Weights
    factor: Weights
    auc: float
    learned: int
    clipped: float

    @property
    def effective(self) -> float:
        """Unweighted events that these are worth."""
        return effective_size(self.weight)


@dataclass(frozen=True, eq=False)
class _Classifier:
    """A calibrated network, and generated over true rows that calibrated it."""

    fitted: Fitted
    calibration: Calibration
    ratio: float

    def probability(self, inputs: Inputs) -> NDArray[np.float64]:
        if not len(inputs):
            return np.empty(0)
        # a set of no generated rows beside: only the first one is asked for
        part = Part(inputs, SomeInputs(inputs, np.empty(0, np.intp)))
        return self.calibration(self.fitted.logits(part).numpy())

    def weights(self, inputs: Inputs, clip: float) -> Weights:
        probability = self.probability(inputs)
        return np.clip(self.ratio * probability / (1 - probability), 1 / clip, clip)


def learnable(reference: EventSource, generated: EventSource, origin: dict[str, Any]) -> Selected | None:
    """Returns the rows of a reference outside of the test part of the generator's split; None where all may be used.

    Args:
        reference: simulated events.
        generated: generated events; those of a known split belong to the reference row by row.
        origin: provenance of the generated events.

    Raises:
        ValueError: rows that do not belong to each other, or none outside of the test part.
    """
    if origin.get("split", "files") == "files":
        return None
    align(reference.primaries, generated.primaries)
    test = rows_to_score(reference, origin).rows
    rows = np.setdiff1d(np.arange(len(reference)), test)
    if not len(rows):
        raise ValueError(
            "every row of the reference is in the test part of the model: no rows to learn weights from"
        )
    return Selected(reference, rows)


def refine(
    events: EventSource,
    reference: EventSource,
    generated: EventSource | None = None,
    *,
    rows: NDArray[np.intp] | None = None,
    config: RefinementConfig | None = None,
    seed: int = 0,
    device: str = "cpu",
    report: Callable[[str, int, int], None] = lambda what, done, total: None,
    folder: Path | None = None,
) -> Refined:
    """Learns weights from simulated and generated events, and weighs events.

    Args:
        events: generated events to weigh.
        reference: simulated events to learn from.
        generated: generated events to learn from; `events` themselves where not given.
        rows: of both `reference` and the generated events to learn from, by number; all where not given.
        config: how.
        seed: of folds and networks.
        device: PyTorch device.
        report: called with what is done, how much of it, out of how much.
        folder: where temporary files lie, if the events do not fit into memory.

    Raises:
        ValueError: events of different detectors, or too few of them.
    """
    config = config or RefinementConfig()
    detector, own = events.primaries.detector, generated is None
    generated = events if generated is None else generated
    names = {source.primaries.detector.name for source in (events, reference, generated)}
    if len(names) > 1:
        raise ValueError(f"weights need events of one detector, got {', '.join(sorted(names))}")
    every = np.arange(len(reference)), np.arange(len(generated))
    chosen = every if rows is None else (rows, rows)
    if min(map(len, chosen)) < FEWEST:
        raise ValueError(
            f"weights are learned from {FEWEST} simulated and as many generated events at least, "
            f"got {len(chosen[0])} and {len(chosen[1])}"
        )
    truth, others = inputs_of(reference, config.view, folder), inputs_of(generated, config.view, folder)
    fold, fold_of_others = _folds(reference, generated, config.folds, seed)
    counts = weights_of(reference.primaries), weights_of(generated.primaries)
    classifiers, held, held_others = [], [], []
    for number in range(config.folds):
        report("classifiers", number, config.folds)
        here = [values[part] for values, part in zip((fold, fold_of_others), chosen, strict=True)]
        validating = (number + 1) % config.folds
        parts = [
            [part[(own_fold != number) & ((own_fold == validating) == chooses)] for chooses in (False, True)]
            for own_fold, part in zip(here, chosen, strict=True)
        ]
        classifier = _classifier(
            (truth, others), parts, counts, detector, config, seed * config.folds + number, device
        )
        classifiers.append(classifier)
        held.append(classifier.probability(SomeInputs(truth, chosen[0][here[0] == number])))
        held_others.append(classifier.probability(SomeInputs(others, chosen[1][here[1] == number])))
    report("classifiers", config.folds, config.folds)
    seen = chosen[1]
    of_others = np.asarray([classifier.weights(others, config.clip) for classifier in classifiers])
    held_weight = of_others[fold_of_others[seen], seen]
    mean = _ConditionalMean(
        Selected(generated, seen), held_weight if config.conditional else None, fold_of_others[seen], seed
    )
    held_factor = held_weight / mean(Selected(generated, seen), fold_of_others[seen])
    if own:
        factor = of_others.mean(0) / mean(events, None)
        factor[seen] = held_factor
    else:
        mine = inputs_of(events, config.view, folder)
        factor = np.mean([classifier.weights(mine, config.clip) for classifier in classifiers], axis=0)
        factor /= mean(events, None)
    if config.conditional:
        # a mean that is itself uncertain is too often divided by where it came out small
        factor /= np.average(held_factor, weights=select(counts[1], seen))
    clipped = np.clip(factor, 1 / config.clip, config.clip)
    before = events.primaries.weight
    weights = [
        [select(count, part[values[part] == n]) for n in range(config.folds)]
        for count, part, values in zip(counts, chosen, (fold, fold_of_others), strict=True)
    ]
    return Refined(
        clipped if before is None else before * clipped,
        clipped,
        float(np.mean([auc_of(*pair) for pair in zip(held, held_others, *weights, strict=True)])),
        len(chosen[1]),
        float(np.mean((clipped == config.clip) | (clipped == 1 / config.clip))),
    )


class _ConditionalMean:
    """The mean of weights given the particle, by gradient boosting of the features that the models see.

    Args:
        source: generated events that were learned from.
        weight: of each, by the classifier that did not learn from it, (N,); None for a mean of 1.
        fold: of each, (N,).
        seed: of the rows that stop the boosting.
    """

    def __init__(
        self, source: EventSource, weight: Weights | None, fold: NDArray[np.intp], seed: int
    ) -> None:
        self._every: Any = None
        if weight is None:
            return
        features, before = self._features(source), source.primaries.weight
        boosting = require("sklearn.ensemble", "train").HistGradientBoostingRegressor

        def fitted(rows: NDArray[np.intp]) -> Any:
            model = boosting(
                loss="poisson",
                learning_rate=0.05,
                max_iter=200,
                max_leaf_nodes=8,
                min_samples_leaf=50,
                early_stopping=True,
                validation_fraction=0.25,
                random_state=seed % 2**32,
            )
            return model.fit(features[rows], weight[rows], select(before, rows))

        self._every = fitted(np.arange(len(fold)))
        self._others = {int(number): fitted(np.flatnonzero(fold != number)) for number in np.unique(fold)}

    @staticmethod
    def _features(source: EventSource) -> NDArray[np.float32]:
        primaries = source.primaries
        features: torch.Tensor = ParticleFeatures(primaries.detector)(torch.from_numpy(primaries.conditions))
        return features.numpy()

    def __call__(self, source: EventSource, fold: NDArray[np.intp] | None) -> Weights:
        """Returns the mean for some events, (M,); by what learned from none of their fold where folds are given."""
        if self._every is None:
            return np.ones(len(source))
        features = self._features(source)
        if fold is None:
            return np.asarray(self._every.predict(features))
        mean = np.empty(len(features))
        for number, model in self._others.items():
            rows = np.flatnonzero(fold == number)
            if len(rows):
                mean[rows] = model.predict(features[rows])
        return mean


def _folds(
    reference: EventSource, generated: EventSource, folds: int, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Cuts the particles of both sets into folds: the same particle has the same fold in both, (N,) and (M,)."""
    both = reference.primaries, generated.primaries
    group = groups_of(
        *(np.concatenate([getattr(one, name) for one in both]) for name in ("conditions", "pdg"))
    )
    number = np.random.default_rng([seed, 7]).permutation(int(group.max()) + 1) % folds
    first, second = np.split(number[group], [len(reference)])
    return first, second


def _classifier(
    inputs: tuple[Inputs, Inputs],
    parts: list[list[NDArray[np.intp]]],
    counts: tuple[Weights | None, Weights | None],
    detector: Detector,
    config: RefinementConfig,
    seed: int,
    device: str,
) -> _Classifier:
    """Trains a network on the first part of the rows of both sets and calibrates it by the second."""
    train, validation = (
        Part(
            SomeInputs(inputs[0], truth),
            SomeInputs(inputs[1], others),
            (select(counts[0], truth), select(counts[1], others)),
        )
        for truth, others in zip(*parts, strict=True)
    )
    training = config.classifier.model_copy(update={"patience": config.patience})
    fitted = fit(train, validation, config.view, detector, training, seed, device)
    calibration = Calibration(
        fitted.logits(validation).numpy(),
        validation.labels.numpy(),
        config.classifier.clip,
        validation.weight,
    )
    return _Classifier(fitted, calibration, len(parts[1][1]) / len(parts[0][1]))


def weigh_events(
    path: Path,
    out: Path,
    reference: Path,
    generated: Path | None = None,
    *,
    config: RefinementConfig | None = None,
    detector: Detector | None = None,
    seed: int = 0,
    device: str = "cpu",
    report: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Refined:
    """Learns weights and writes a file of events again with them, in the column `weight`.

    Args:
        path: generated events.
        out: the file to write; its suffix names the format.
        reference: simulated events to learn from.
        generated: generated events to learn from, the model's answers to the reference's particles where the model has
            a split; the file of events itself where not given.
        config: how.
        detector: where the files do not tell it.
        seed: of folds and networks.
        device: PyTorch device.
        report: called with what is done, how much of it, out of how much.

    Raises:
        ValueError: files that do not fit, or too few events.
    """
    config = config or RefinementConfig()
    if generated is not None and generated.resolve() == path.resolve():
        raise ValueError(f"{path} is given twice: without other generated events it is learned from by folds")
    truth = open_to_judge(reference, detector)
    detector = truth.primaries.detector
    events = open_to_judge(path, detector)
    others = None if generated is None else open_to_judge(generated, detector)
    origin = provenance(path)
    part = learnable(
        truth, events if others is None else others, origin if generated is None else provenance(generated)
    )
    refined = refine(
        events,
        truth,
        others,
        rows=None if part is None else part.rows,
        config=config,
        seed=seed,
        device=device,
        report=report,
        folder=out.absolute().parent,
    )
    told = {
        "reference": reference.name,
        "content": content_hash(truth),
        "generated": None if generated is None else generated.name,
        "rows": "all" if part is None else "not test",
        "seed": seed,
        **config.model_dump(exclude={"classifier"}),
        "auc": refined.auc,
        "effective": refined.effective,
        "version": version("caloforge"),
    }
    further = further_columns(path, detector)
    with create(out, detector, {**origin, "weighed": told}) as writer:
        for rows, part_of_events in in_parts(events):
            with reading(path):
                columns = further.read(rows.start, rows.stop)
            writer.append(part_of_events, {**columns, WEIGHT: refined.weight[rows]})
            report("events", rows.stop, len(events))
    return refined
