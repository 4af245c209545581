"""Separation powers of showers: histograms of two sets against each other, 0 for equal ones, 1 for disjoint ones.

They say which distribution is wrong, one at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from caloforge.metrics.observables import Result
from caloforge.metrics.showers.features import TINY, Showers, Sizes, Values, log_edges, places_of

LAYER_EDGES = 40
"""Edges of a layer's energy, even in the logarithm from the threshold to the layer's largest one in the reference."""

RATIO = np.linspace(0.5, 1.5, 101)
"""Edges of E_tot / E_inc."""

CENTRE = np.linspace(-30.0, 30.0, 101)
CENTRE_R = np.linspace(0.0, 42.0, 101)
WIDTH = np.linspace(0.0, 30.0, 101)
WIDTH_R = np.linspace(0.0, 20.0, 101)
SPARSITY = np.linspace(0.0, 1.0, 21)

Z = ("eta", "phi", "r")
"""Directions of centres and widths."""


def separation(counts: ArrayLike, others: ArrayLike) -> float:
    """Compares two histograms of the same bins: 0.5 sum (h1 - h2)^2 / (h1 + h2 + 1e-16), each of unit sum.

    0 for equal ones, 1 for ones without a bin in common; NaN where one is empty.
    """
    h1, h2 = np.asarray(counts, np.float64), np.asarray(others, np.float64)
    if not h1.sum() or not h2.sum():
        return math.nan
    h1, h2 = h1 / h1.sum(), h2 / h2.sum()
    return float(0.5 * ((h1 - h2) ** 2 / (h1 + h2 + TINY)).sum())


def _of_columns(columns: Sequence[tuple[Values, Values, Values]], what: str) -> Result:
    """Averages the separation of columns (values, others, edges); columns without an entry are left out."""
    values = []
    for ours, theirs, edges in columns:
        counts, others = (
            np.bincount(place[place >= 0], minlength=len(edges) - 1)
            for place in (places_of(ours, edges), places_of(theirs, edges))
        )
        if counts.sum():
            values.append(separation(counts, others) if others.sum() else 1.0)
    if not values:
        return Result(math.nan, reason=f"no {what} within the bins")
    return Result(float(np.mean(values)))


def sep_layers(reference: Showers, generated: Showers, seed: int, sizes: Sizes) -> Result:
    """Averages the separation powers of the layer energies."""
    low = reference.primaries.detector.threshold
    columns = []
    for number in range(reference.layers.shape[1]):
        ours, theirs = reference.layers[:, number], generated.layers[:, number]
        if ours.max() > low:
            columns.append((ours, theirs, log_edges(low, float(ours.max()), LAYER_EDGES)))
    return _of_columns(columns, "layer energy")


def sep_total(reference: Showers, generated: Showers, seed: int, sizes: Sizes) -> Result:
    """Computes the separation power of E_tot / E_inc."""
    return _of_columns([(reference.ratio, generated.ratio, RATIO)], "E_tot / E_inc")


def sep_voxels(reference: Showers, generated: Showers, seed: int, sizes: Sizes) -> Result:
    """Computes the separation power of the voxel energies."""
    value = separation(*(one.spectrum.sum(0, dtype=np.int64) for one in (reference, generated)))
    return Result(value, reason="no voxel within the bins" if math.isnan(value) else "")


def sep_sparsity(reference: Showers, generated: Showers, seed: int, sizes: Sizes) -> Result:
    """Averages the separation powers of the sparsities."""
    pairs = zip(reference.sparsity.T, generated.sparsity.T, strict=True)
    return _of_columns([(ours, theirs, SPARSITY) for ours, theirs in pairs], "sparsity")


def sep_moment(name: str, z: int, edges: Values) -> Callable[..., Result]:
    """Returns what averages the separation powers of centres or widths in one direction over layers."""

    def of(reference: Showers, generated: Showers, seed: int, sizes: Sizes) -> Result:
        pairs = zip(getattr(reference, name)[:, :, z].T, getattr(generated, name)[:, :, z].T, strict=True)
        return _of_columns([(ours, theirs, edges) for ours, theirs in pairs], name)

    return of
