"""How much the responses of one and the same particle differ: f_div and the weights made of it.

With X_c the rows of particle c and n_k the photons in cell k,

    f_div(c) = sum_k std over X_c of n_k,   the population's standard deviation (1/|X_c|), f_div_inv_w(c) =
s(c) |X_c| + epsilon * mean,   s(c) = [1/f_div(c)] scaled to [0, 1] over all c (min-max),

with `mean` the average of s(c) |X_c| over the responses, and the result divided by its own average over the
responses, so that a loss weighted by it keeps its scale: sum_c |X_c| f_div_inv_w(c) / sum_c |X_c| = 1.

Both need repeats: c runs over particles with at least 10 responses. A particle whose responses are all equal
has f_div = 0; its inverse would be infinite and flatten all others, so `f_div_inv_w` leaves such particles
out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from caloforge.events import EventSource, in_slices
from caloforge.metrics.conditional import MINIMUM

EPSILON = 1e-3
"""Weight added to every particle, as a part of the mean weight."""

_EQUAL = 1e-9
"""Part of the largest f_div below which a smaller one is rounding: the responses are equal."""


@dataclass(frozen=True, eq=False)
class Diversity:
    """A number for each unique particle.

    Attributes:
        group: the particles, ascending, (C,).
        count: their responses |X_c|, (C,).
        value: f_div in the detector's unit, or a weight, (C,).
    """

    group: NDArray[np.int32]
    count: NDArray[np.intp]
    value: NDArray[np.float64]


def f_div(source: EventSource, minimum: int = MINIMUM) -> Diversity:
    """Sums, for each particle, the standard deviations of all cells over its responses.

    Reads the source slice by slice; keeps two numbers a cell and particle. Slices are merged by the update of
    Chan, Golub and LeVeque (1983), doi:10.1080/00031305.1983.10483115.

    Args:
        source: events, in memory or a file.
        minimum: responses a particle needs; others are left out.

    Returns:
        f_div of each particle; no particles where none has enough responses.
    """
    primaries = source.primaries
    group, count = np.unique(primaries.group, return_counts=True)
    group, count = group[count >= minimum], count[count >= minimum]
    cells = primaries.detector.cells
    seen = np.zeros((len(group), 1))
    mean, squares = np.zeros((len(group), cells)), np.zeros((len(group), cells))
    for events in in_slices(source):
        rows = np.flatnonzero(np.isin(events.group, group))
        rows = rows[np.argsort(events.group[rows], kind="stable")]
        if not len(rows):
            continue
        here, starts, size = np.unique(events.group[rows], return_index=True, return_counts=True)
        images = events.responses[rows].reshape(len(rows), cells).astype(np.float64)
        n = size[:, None]
        slice_mean = np.add.reduceat(images, starts, axis=0) / n
        slice_squares = np.add.reduceat((images - np.repeat(slice_mean, size, axis=0)) ** 2, starts, axis=0)
        index = np.searchsorted(group, here)
        shift, before = slice_mean - mean[index], seen[index]
        mean[index] += shift * n / (before + n)
        squares[index] += slice_squares + shift**2 * before * n / (before + n)
        seen[index] += n
    return Diversity(group, count, np.sqrt(squares / np.maximum(seen, 1)).sum(axis=1))


def f_div_inv_w(diversity: Diversity, epsilon: float = EPSILON) -> Diversity:
    """Turns f_div into weights that favour particles whose responses hardly differ.

    Args:
        diversity: what `f_div` returned.
        epsilon: weight added to every particle, as a part of the mean weight; above 0.

    Returns:
        the weight of each particle with f_div > 0; its mean over the responses is 1.

    Raises:
        ValueError: epsilon that is not positive, or no particle with f_div > 0.
    """
    if not epsilon > 0:
        raise ValueError(f"epsilon must be positive, got {epsilon}")
    varied = diversity.value > _EQUAL * diversity.value.max(initial=0.0)
    if not varied.any():
        raise ValueError(
            f"diversity weights need particles with repeated, different responses, got {len(varied)} "
            f"particles with enough responses and none with f_div > 0"
        )
    count, inverse = diversity.count[varied], 1.0 / diversity.value[varied]
    low, high = inverse.min(), inverse.max()
    scaled = (inverse - low) / (high - low) if high > low else np.ones_like(inverse)
    weight = scaled * count
    weight += epsilon * np.average(weight, weights=count)
    return Diversity(diversity.group[varied], count, weight / np.average(weight, weights=count))
