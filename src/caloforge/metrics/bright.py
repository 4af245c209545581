"""The rate of bright cells: whether the upper end of the cell spectrum is there.

With t the edge above which at most 0.1 % of the reference's lit cells lie (`metrics.spectrum`), n and nhat the rows of
reference and generated, and m and mhat their cells at or above t,

    R = (mhat / nhat) / (m / n),    bright_cells = |R - 1|.

A model without bright cells has R = 0 and a score of 1. The threshold is the reference's, so the score changes where
the sets change places.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from caloforge.metrics.observables import Observables, Result
from caloforge.metrics.spectrum import EDGES, bright_from, total
from caloforge.metrics.weights import Weights, effective_size, mean

LEAST = 8
"""Bright cells of the reference below which there is no rate."""


@dataclass(frozen=True)
class BrightRate:
    """Holds how many bright cells there are.

    Attributes:
        threshold: content from which a cell is bright, in the detector's unit.
        reference: bright cells an event in the reference.
        ratio: of generated to reference.
        error: of the ratio: the standard deviation of the mean over the events of both sets.
    """

    threshold: float
    reference: float
    ratio: float
    error: float


def bright_rate(reference: Observables, generated: Observables) -> BrightRate | None:
    """Compares the rates of bright cells; None where the reference has fewer than `LEAST`, or a set has no spectra.

    Args:
        reference: simulated events.
        generated: generated events, of any number of rows.
    """
    if reference.spectra is None or generated.spectra is None or not len(generated):
        return None
    first = bright_from(total(reference.spectra))
    if first is None:
        return None
    ours, theirs = (_an_event(observables.spectra, first) for observables in (reference, generated))
    if ours.sum() < LEAST:
        return None
    rate, rate_hat = mean(ours, reference.weights), mean(theirs, generated.weights)
    if rate <= 0:
        return None
    spread = [
        _error(cells, observables.weights) / rate
        for cells, observables in ((ours, reference), (theirs, generated))
    ]
    ratio = rate_hat / rate
    return BrightRate(float(EDGES[first]), rate, ratio, math.hypot(ratio * spread[0], spread[1]))


def _error(values: NDArray[np.float64], weight: Weights | None) -> float:
    """Returns the standard deviation of the mean of numbers, (N,)."""
    if weight is None:
        return float(values.std() / math.sqrt(len(values)))
    variance = mean((values - mean(values, weight)) ** 2, weight)
    return math.sqrt(variance / effective_size(weight))


def _an_event(spectra: NDArray[np.uint16] | None, first: int) -> NDArray[np.float64]:
    assert spectra is not None
    return np.asarray(spectra[:, first:].sum(axis=1, dtype=np.int64), np.float64)


def bright_cells(reference: Observables, generated: Observables) -> Result:
    """Compares the rates of cells above the reference's 99.9 % point: the distance of their ratio from 1."""
    if reference.spectra is None or generated.spectra is None:
        return Result(math.nan, reason="the spectra of the cells were not read")
    rate = bright_rate(reference, generated)
    if rate is None:
        return Result(math.nan, reason=f"fewer than {LEAST} bright cells in the reference")
    return Result(abs(rate.ratio - 1.0))
