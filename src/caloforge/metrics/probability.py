"""Scores of predicted probabilities against trials: row i was tried n_i times with k_i hits, predicted p_i.

All of them count trials, so a row weighs n_i. What to use when: the Brier score for the whole, beside the floor that
the trials' own randomness sets; the ROC AUC for how well hits and misses are told apart; the reliability for
whether a probability means what it says; the fractions of groups for what an experiment would count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.integer]
Values = NDArray[np.float64]

EDGES = (0.0, 0.001, 0.01, 0.03, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97, 0.99, 1.0)
"""Edges of the bins of predicted probability."""


def brier(trials: Counts, hits: Counts, probability: Values) -> float:
    """Returns sum_i [k_i (1 - p_i)^2 + (n_i - k_i) p_i^2] / sum_i n_i; smaller is better."""
    squared = hits * (1 - probability) ** 2 + (trials - hits) * probability**2
    return float(squared.sum() / trials.sum())


def brier_floor(trials: Counts, hits: Counts) -> float | None:
    """Returns the Brier score of the true probabilities, estimated from the rows tried more than once.

    sum_i n_i v_i / sum_i n_i with v_i = k_i (n_i - k_i) / (n_i (n_i - 1)), the unbiased estimate of p_i (1 - p_i);
    None where no row was tried more than once. Only to be compared with a score over the same rows.
    """
    repeated = trials > 1
    if not repeated.any():
        return None
    n, k = trials[repeated].astype(np.float64), hits[repeated].astype(np.float64)
    return float((k * (n - k) / (n - 1)).sum() / n.sum())


def roc_auc(trials: Counts, hits: Counts, probability: Values) -> float:
    """Returns the probability that a hit has a greater p than a miss, ties counted half; NaN without both."""
    values, index = np.unique(probability, return_inverse=True)
    positive = np.bincount(index, hits, len(values))
    negative = np.bincount(index, trials - hits, len(values))
    below = np.cumsum(negative) - negative
    pairs = positive.sum() * negative.sum()
    return float((positive * (below + negative / 2)).sum() / pairs) if pairs else float("nan")


@dataclass(frozen=True)
class Fraction:
    """What was observed and what was predicted for some rows.

    Attributes:
        trials: their trials.
        observed: hits over trials.
        predicted: mean probability, each row as often as it was tried.
        error: of the difference if the prediction is right, [sum_i n_i p_i (1 - p_i)]^1/2 / sum_i n_i.
        scatter: of the difference if the rows are independent and what happens within one need not be,
            [sum_i (k_i - n_i p_i)^2]^1/2 / sum_i n_i; near `error` where every row was tried once.
    """

    trials: int
    observed: float
    predicted: float
    error: float
    scatter: float

    @property
    def pull(self) -> float:
        """The difference in units of its error; 0 where both are equal, infinite where it cannot be."""
        difference = self.predicted - self.observed
        return difference / self.error if self.error else (0.0 if difference == 0 else np.inf * difference)


def fraction(trials: Counts, hits: Counts, probability: Values) -> Fraction:
    """Compares hits with predictions; there has to be a trial at least."""
    n = trials.astype(np.float64)
    total = n.sum()
    error = np.sqrt((n * probability * (1 - probability)).sum()) / total
    scatter = np.sqrt(((hits - n * probability) ** 2).sum()) / total
    return Fraction(
        int(total),
        float(hits.sum() / total),
        float((n * probability).sum() / total),
        float(error),
        float(scatter),
    )


def reliability(
    trials: Counts, hits: Counts, probability: Values, edges: Sequence[float] = EDGES
) -> list[Fraction]:
    """Compares hits with predictions in bins of the predicted probability; empty bins are left out."""
    bins = np.clip(np.searchsorted(np.asarray(edges), probability, side="right") - 1, 0, len(edges) - 2)
    rows = [np.flatnonzero(bins == number) for number in range(len(edges) - 1)]
    return [fraction(trials[row], hits[row], probability[row]) for row in rows if len(row)]
