"""Scores of a zero response on primaries it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from caloforge.evaluation.scoring import origin_of, rows_to_score
from caloforge.events import EventSource
from caloforge.io import open_trials, sha256
from caloforge.io.run import Run
from caloforge.io.scores import ClassifiedSet, ClassifierScores, Outcome, ReferenceFile, Repeated
from caloforge.metrics.probability import brier, brier_floor, fraction, reliability, roc_auc
from caloforge.models.parts.inference import probabilities_in_memory
from caloforge.particles import particle_name
from caloforge.training.checkpoint import load_classifier
from caloforge.trials import Trials

BOTH = "both"
"""The coincidence of the two modules, which follows from the other three."""


def with_both(hits: NDArray[Any]) -> NDArray[Any]:
    """Appends the coincidence, ZN + ZP - any, to counts or probabilities of ZN, ZP, any: (N, 4)."""
    return np.column_stack([hits, np.maximum(hits[:, 0] + hits[:, 1] - hits[:, 2], 0)])


def evaluate_classifier(path: Path, references: Sequence[Path], *, trust: bool = False) -> ClassifierScores:
    """Scores the test part of each reference.

    Args:
        path: the run folder of a classifier.
        references: files of trials.
        trust: run code outside the package that the run names.

    Returns:
        for each reference the scores of each outcome over all rows, over those tried more than once (`repeated`) with
        the Brier floor, the reliability, and the fractions of each type of particle.

    Raises:
        ValueError: not a finished run of a classifier, or a reference without test rows.
    """
    recipe, model = load_classifier(path, trust=trust)
    card = Run(path).card()
    sets = {}
    for reference in references:
        source = open_trials(reference, model.detector)
        test = rows_to_score(cast(EventSource, source), origin_of(recipe))
        trials = source.slices(test.rows)
        probabilities = probabilities_in_memory(model, trials.conditions).astype(np.float64)
        sets[reference.stem] = ClassifiedSet(
            reference=ReferenceFile(
                path=str(reference.resolve()), sha256=sha256(reference), rows=len(trials)
            ),
            outcomes=scores_of(trials, probabilities, model.outcomes),
        )
    return ClassifierScores(
        format=1,
        name=card.name,
        type=card.type,
        kind="classifier",
        detector=card.detector,
        parameters=card.parameters,
        split=card.split,
        part="test",
        sets=sets,
    )


def scores_of(
    trials: Trials, probabilities: NDArray[np.float64], outcomes: Sequence[str]
) -> dict[str, Outcome]:
    """Scores probabilities, (N, 3), outcome by outcome, their coincidence last."""
    scores = {}
    n, repeated = trials.trials, trials.trials > 1
    names = (*outcomes, BOTH)
    for name, k, p in zip(names, with_both(trials.hits).T, with_both(probabilities).T, strict=True):
        scores[name] = Outcome(
            brier=brier(n, k, p),
            auc=_number(roc_auc(n, k, p)),
            repeated=Repeated(
                brier=brier(n[repeated], k[repeated], p[repeated]) if repeated.any() else None,
                floor=brier_floor(n, k),
            ),
            reliability=tuple(reliability(n, k, p)),
            all=fraction(n, k, p),
            particles={label: fraction(n[rows], k[rows], p[rows]) for label, rows in by_particle(trials)},
        )
    return scores


def by_particle(trials: Trials) -> list[tuple[str, NDArray[np.intp]]]:
    """Returns names and rows of the types of particle, the most frequent first."""
    kinds = {pdg: np.flatnonzero(trials.pdg == pdg) for pdg in np.unique(trials.pdg).tolist()}
    order = sorted(kinds, key=lambda pdg: -int(trials.trials[kinds[pdg]].sum()))
    return [(particle_name(pdg), kinds[pdg]) for pdg in order]


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None
