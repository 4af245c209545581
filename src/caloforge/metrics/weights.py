r"""Weights of rows, and how many events they are worth.

A row of weight $w_k$ counts $w_k$ times: a row of weight 2 is as good as that row twice. Sums over rows become sums of
weights, so only ratios of weights matter: equal ones are as good as none, and leave every number as it is, to the bit.

The effective sample size (Kish 1965) is the number of unweighted events whose mean has the same variance,

$$ n_\mathrm{eff} = \frac{(\sum_k w_k)^2}{\sum_k w_k^2} $$
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caloforge.events import Primaries

Weights = NDArray[np.float64]


def weights_of(primaries: Primaries) -> Weights | None:
    """Returns the weights of particles, (N,), divided by their mean; None where all count alike.

    Raises:
        ValueError: a negative weight, or none above 0.
    """
    return uneven(primaries.weight)


def uneven(weight: ArrayLike | None) -> Weights | None:
    """Returns weights, (N,), divided by their mean; None where there are none or all are equal.

    Raises:
        ValueError: a weight that is not finite or negative, or none above 0.
    """
    if weight is None:
        return None
    weight = np.asarray(weight, np.float64)
    bad = ~(np.isfinite(weight) & (weight >= 0))
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(f"metrics need weights of at least 0, got {weight[row]:g} in row {row}")
    if not len(weight):
        return None
    if not weight.any():
        raise ValueError(f"metrics need a weight above 0, got {len(weight)} rows of weight 0")
    return None if (weight == weight[0]).all() else weight / weight.mean()


def effective_size(weight: ArrayLike) -> float:
    """Computes (sum w)^2 / sum w^2 of weights, (N,): N for equal ones, 1 where a single one is not 0."""
    weight = np.asarray(weight, np.float64)
    square = float((weight**2).sum())
    return float(weight.sum()) ** 2 / square if square > 0 else 0.0


def mean(values: ArrayLike, weight: Weights | None) -> float:
    """Averages numbers, (N,), by weights, (N,); plainly where there are none."""
    values = np.asarray(values)
    return float(values.mean()) if weight is None else float(weight @ values / weight.sum())


def select(weight: Weights | None, rows: NDArray[np.generic]) -> Weights | None:
    """Returns the weights of some rows; None where there are none."""
    return None if weight is None else weight[rows]


def product(weight: Weights | None, other: Weights | None) -> Weights | None:
    """Multiplies the weights of two sets row by row; None where neither has any."""
    if weight is None or other is None:
        return other if weight is None else weight
    return weight * other
