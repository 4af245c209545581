"""Precision, recall, density and coverage: neighbourhoods of voxels.

They tell showers like none of the simulation's (precision, density) from kinds of showers that are missing (recall,
coverage).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from caloforge.metrics.observables import Result
from caloforge.metrics.showers.features import Showers, Sizes
from caloforge.metrics.weights import Weights, mean

NEIGHBOURS = 5
"""k of precision, recall, density and coverage."""


def prdc(
    real: NDArray[np.floating],
    generated: NDArray[np.floating],
    k: int = NEIGHBOURS,
    weight: Weights | None = None,
    weight_generated: Weights | None = None,
) -> dict[str, float]:
    """Computes precision, recall, density and coverage (Naeem and others 2020).

    With r_i the distance of real shower i to its k-th nearest real one, s_j that of generated shower j to its k-th
    nearest generated one, and d_ij the distance of i and j:

        precision = share of j with d_ij < r_i for some i,    recall = share of i with d_ij < s_j for some j,
        density = (1 / (k M)) sum_ij [d_ij < r_i],            coverage = share of i with d_ij < r_i for some j.

    Args:
        real: points, (N, F), N > k.
        generated: points, (M, F), M > k.
        k: which neighbour makes the radius.
        weight: how much each real point counts in the shares of real ones, (N,); radii know no weights.
        weight_generated: the same of generated points, (M,).
    """
    radius, other_radius = _radius(real, k), _radius(generated, k)
    inside_real = np.zeros(len(generated), np.intp)
    recalled, covered = [], []
    for start in range(0, len(real), 1024):
        here = slice(start, start + 1024)
        squared = _squared(real[here], generated)
        within = squared < radius[here, None]
        inside_real += within.sum(0)
        recalled.append((squared < other_radius).any(1))
        covered.append(within.any(1))
    return {
        "precision": mean(inside_real > 0, weight_generated),
        "recall": mean(np.concatenate(recalled), weight),
        "density": mean(inside_real, weight_generated) / k,
        "coverage": mean(np.concatenate(covered), weight),
    }


def _squared(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.floating]:
    """Returns squared distances, (n, m)."""
    norms = np.einsum("nf,nf->n", a, a)[:, None] + np.einsum("mf,mf->m", b, b)
    return np.asarray(np.maximum(norms - 2 * (a @ b.T), 0))


def _radius(points: NDArray[np.floating], k: int) -> NDArray[np.floating]:
    """Returns the squared distance of each point to its k-th nearest other point, (n,)."""
    parts = []
    for start in range(0, len(points), 1024):
        squared = _squared(points[start : start + 1024], points)
        rows = np.arange(len(squared))
        squared[rows, start + rows] = np.inf
        parts.append(np.partition(squared, k - 1, axis=1)[:, k - 1])
    return np.concatenate(parts)


def prdc_of(reference: Showers, generated: Showers, sizes: Sizes) -> dict[str, Result]:
    """Computes `prdc` of as many showers as both sets have the voxels of, `sizes.prdc_rows` at most."""
    rows = min(sizes.prdc_rows, *(int((showers.kept >= 0).sum()) for showers in (reference, generated)))
    if rows <= NEIGHBOURS:
        none = Result(math.nan, reason=f"needs more than {NEIGHBOURS} showers of each set")
        return dict.fromkeys(("precision", "recall", "density", "coverage"), none)
    weights = reference.some_weights(rows), generated.some_weights(rows)
    values = prdc(reference.some_voxels(rows), generated.some_voxels(rows), NEIGHBOURS, *weights)
    return {name: Result(value) for name, value in values.items()}
