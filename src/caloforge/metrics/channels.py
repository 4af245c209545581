"""Metrics of the channel sums, w (N, K), one row a response; the hat marks what was generated.

What to use when: `w1` compares distributions and needs no pairs, but sees marginals only, so a random
response of the training set scores well in it. `mae` compares row by row, for the same particle; it should
approach the value of two simulated responses of one particle, not vanish: a generator of mean responses has
a lower one. Both belong beside the conditional metrics (`caloforge.metrics.conditional`).

Rows may have weights (`caloforge.metrics.weights`): then every mean is a weighted one.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caloforge.metrics.observables import Observables, Result
from caloforge.metrics.weights import Weights, mean, product, uneven

NO_ROWS = "no responses to compare"


def wasserstein(
    a: ArrayLike, b: ArrayLike, weight: ArrayLike | None = None, weight_b: ArrayLike | None = None
) -> float:
    """Computes the exact Wasserstein-1 distance of two samples of numbers, of any sizes.

    W1 = integral over q in [0, 1] of |F^-1(q) - G^-1(q)| = integral over x of |F(x) - G(x)|, with F and G the
    empirical distribution functions.

    Args:
        a: sample, (n,), n > 0.
        b: sample, (m,), m > 0.
        weight: how much each value of a counts, (n,); alike where not given.
        weight_b: the same of b, (m,).

    Returns:
        the distance, in the unit of the samples.

    Raises:
        ValueError: an empty sample, one with a value that is not finite, or weights that are none.
    """
    u, v = uneven(weight), uneven(weight_b)
    order, order_b = (None if w is None else np.argsort(x, kind="stable") for x, w in ((a, u), (b, v)))
    a, b = np.sort(np.asarray(a, np.float64)), np.sort(np.asarray(b, np.float64))
    for sample in (a, b):
        if sample.ndim != 1 or not len(sample):
            raise ValueError(f"a sample must have shape (n,) with n > 0, got {sample.shape}")
        if not np.isfinite(sample).all():
            raise ValueError("a sample must be finite, got NaN or infinity")
    if len(a) == len(b) and u is None and v is None:
        return float(np.abs(a - b).mean())
    x = np.sort(np.concatenate([a, b]))
    f = _below(a, None if u is None else u[order], x[:-1])
    g = _below(b, None if v is None else v[order_b], x[:-1])
    return float(np.abs(f - g) @ np.diff(x))


def _below(
    values: NDArray[np.float64], weight: Weights | None, x: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Returns the empirical distribution function of ascending values, (n,), at x, (m,)."""
    place = np.searchsorted(values, x, side="right")
    if weight is None:
        return np.asarray(place / len(values))
    sums = np.concatenate([[0.0], np.cumsum(weight)])
    return np.asarray(sums[place] / sums[-1])


def mean_wasserstein(
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    weight: Weights | None = None,
    weight_b: Weights | None = None,
) -> float:
    """Averages `wasserstein` over the columns of a (n, K) and b (m, K); NaN where one has no rows."""
    if not len(a) or not len(b):
        return math.nan
    return float(np.mean([wasserstein(a[:, k], b[:, k], weight, weight_b) for k in range(a.shape[1])]))


def distance(
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    weight: Weights | None = None,
    weight_b: Weights | None = None,
) -> Result:
    """Averages `wasserstein` over the columns, as a result."""
    value = mean_wasserstein(a, b, weight, weight_b)
    return Result(value, reason=NO_ROWS if math.isnan(value) else "")


def _pairs(reference: Observables, generated: Observables) -> NDArray[np.float64]:
    if reference.channels.shape != generated.channels.shape:
        raise ValueError(
            "reference and generated must have the same rows and channels, "
            f"got channel sums of shape {reference.channels.shape} and {generated.channels.shape}"
        )
    return np.abs(reference.channels - generated.channels)


def w1(reference: Observables, generated: Observables) -> Result:
    """Averages the Wasserstein-1 distances of the channels.

    w1 = (1/K) sum_i integral over q of |F_i^-1(q) - Fhat_i^-1(q)|, F_i the empirical distribution of w_i.
    """
    return distance(reference.channels, generated.channels, reference.weights, generated.weights)


def w1_photons(reference: Observables, generated: Observables) -> Result:
    """Computes the Wasserstein-1 distance of the photon sum, sum_i w_i."""
    return distance(
        reference.photons[:, None], generated.photons[:, None], reference.weights, generated.weights
    )


def mae(reference: Observables, generated: Observables) -> Result:
    """Averages the absolute difference over rows and channels: (1/n) sum_k (1/K) sum_i |w_i^k - what_i^k|.

    Raises:
        ValueError: different numbers of rows or channels.
    """
    difference = _pairs(reference, generated)
    if not len(difference):
        return Result(math.nan, reason=NO_ROWS)
    both = product(reference.weights, generated.weights)
    return Result(float(difference.mean()) if both is None else mean(difference.mean(axis=1), both))


def mae_sum(reference: Observables, generated: Observables) -> Result:
    """Averages the absolute difference over rows, summed over channels: (1/n) sum_k sum_i |w_i^k - what_i^k|.

    Raises:
        ValueError: different numbers of rows or channels.
    """
    difference = _pairs(reference, generated)
    if not len(difference):
        return Result(math.nan, reason=NO_ROWS)
    return Result(mean(difference.sum(axis=1), product(reference.weights, generated.weights)))


def empty(reference: Observables, generated: Observables) -> Result:
    """Compares the shares of responses without any photon: |(empty / n) - (empty hat / nhat)|."""
    if not len(reference) or not len(generated):
        return Result(math.nan, reason=NO_ROWS)
    shares = [mean(observed.photons == 0, observed.weights) for observed in (reference, generated)]
    return Result(abs(shares[0] - shares[1]))


def energy_score(reference: NDArray[np.float64], generated: NDArray[np.float64]) -> float:
    """Computes the energy score of generated distributions, one for each row; lower is better.

    (1/N) sum_k [ (1/S) sum_s |x_ks - w_k| - 1/(2 S (S - 1)) sum_(s, s') |x_ks - x_ks'| ], with |.| the
    Euclidean norm over channels. It is proper (Gneiting and Raftery 2007): no other distribution has a lower
    mean than the true one, so it needs no repeated particles.

    Args:
        reference: one simulated response a particle, w, (N, K).
        generated: S > 1 responses for each of the same particles, x, (S, N, K).
    """
    draws = len(generated)
    error = np.linalg.norm(generated - reference, axis=2).mean()
    pairs = [
        np.linalg.norm(generated[i] - generated[j], axis=1).mean() for i in range(draws) for j in range(i)
    ]
    return float(error - np.mean(pairs) / 2)
