r"""Frechet and kernel distances of the high-level features: they see correlations between them.

Two estimators of each, of features over the largest absolute value in the reference:

- `fpd`, `kpd`: those of the Fast Calorimeter Simulation Challenge and of Kansal and others, arXiv 2211.10295. Rows are
  drawn *with* replacement, always in the same numbers, so they tend to the distance of the two finite sets; of two
  sets of the same distribution it is about F / rows and more. Compare with published values of as many rows.
- `frechet_population`, `kernel_population`: rows are drawn *without* replacement, and the distance is extrapolated to
  sets without end: the better estimate, 0 for two sets of the same distribution.

With mean $\mu$ and covariance $\Sigma$ of the features, and $k(x, y) = (x \cdot y / F + 1)^4$:

$$ d_F = |\mu_1 - \mu_2|^2 + \mathrm{tr}(\Sigma_1 + \Sigma_2 - 2 (\Sigma_1 \Sigma_2)^{1/2}), \qquad
d_K = \overline{k(x, x')} + \overline{k(y, y')} - 2 \overline{k(x, y)} $$

where the means go over the pairs of different places in the draw.

Of showers with weights, rows are drawn with replacement in proportion to these, so `fpd` and `kpd` are those of the
weighted sets. Without replacement there is no such draw: the other two have no value then.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caloforge.metrics.observables import Result
from caloforge.metrics.showers.features import Showers, Sizes, Values
from caloforge.metrics.weights import Weights

POINTS = 10
"""Sizes of draws between the least and the largest, even in 1/N."""

SEED = 42
"""Seed of the challenge's draws."""

SEED_STEP = 1000
"""Between the seeds of two draws of the kernel distance."""

LEAST_ROWS = 10
"""Rows of both sets from which there is a distance."""


class Estimate(NamedTuple):
    """A distance and the error that its estimator states."""

    value: float
    error: float


# Distances of two samples


def scaled(real: Values, generated: Values, least: float = 0.0) -> tuple[Values, Values]:
    """Divides features, (N, F) and (M, F), by the largest absolute value of the real ones.

    Where that is not above `least` it counts as 1: a feature that is nothing but 0, or rounding, of a layer that no
    real shower reaches.
    """
    scale = np.abs(real).max(0)
    scale[scale <= least] = 1
    return real / scale, generated / scale


def frechet(
    real: Values,
    generated: Values,
    times: NDArray[np.integer] | None = None,
    times_generated: NDArray[np.integer] | None = None,
) -> float:
    """Computes |mu1 - mu2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) of means and covariances (1/(N-1)) of features.

    Args:
        real: features, (N, F).
        generated: features, (M, F).
        times: how often each real row counts, (N,); once where not given.
        times_generated: the same for the generated rows, (M,).
    """
    (mean, rows), (other, others) = _gaussian(real, times), _gaussian(generated, times_generated)
    total = ((mean - other) ** 2).sum() + (rows**2).sum() + (others**2).sum()
    return float(total - 2 * _trace_of_root(rows, others))


def _gaussian(features: Values, times: NDArray[np.integer] | None) -> tuple[Values, Values]:
    """Returns the mean, (F,), and rows C with the covariance C^T C."""
    if times is None:
        mean = features.mean(0)
        return mean, (features - mean) / math.sqrt(len(features) - 1)
    drawn = np.flatnonzero(times)
    features, weights, total = features[drawn], times[drawn].astype(np.float64), times.sum()
    mean = weights @ features / total
    return mean, (features - mean) * np.sqrt(weights / (total - 1))[:, None]


def _trace_of_root(rows: Values, others: Values) -> float:
    """Returns tr (S1 S2)^(1/2) of the covariances S1 = C1^T C1 and S2 = C2^T C2 of rows (N, F) and (M, F).

    Its eigenvalues are the singular values of C1 C2^T, and those of the symmetric (S1^(1/2) S2 S1^(1/2))^(1/2): the
    first is the smaller matrix where there are fewer rows than features, as of a small sample.
    """
    if len(rows) * len(others) < rows.shape[1] ** 2:
        return float(np.linalg.svd(rows @ others.T, compute_uv=False).sum())
    values, vectors = np.linalg.eigh(rows.T @ rows)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    mixed = np.linalg.eigvalsh(root @ (others.T @ others) @ root)
    return float(np.sqrt(np.maximum(mixed, 0)).sum())


def mmd(
    real: Values,
    generated: Values,
    times: NDArray[np.integer] | None = None,
    times_generated: NDArray[np.integer] | None = None,
    block: int = 2048,
) -> float:
    """Computes the unbiased squared maximum mean discrepancy with the kernel (x.y / F + 1)^4.

    Args:
        real: features, (n, F).
        generated: features, (m, F).
        times: how often each real row counts, (n,); once where not given. A row drawn twice makes a pair with itself.
        times_generated: the same for the generated rows, (m,).
        block: rows of the kernel matrix held at once.
    """

    def chosen(features: Values, counts: NDArray[np.integer] | None) -> tuple[Values, Values]:
        if counts is None:
            return features, np.ones(len(features))
        rows = np.flatnonzero(counts)
        return features[rows], counts[rows].astype(np.float64)

    def total(a: Values, b: Values, weight: Values, weight_b: Values) -> float:
        result = 0.0
        for start in range(0, len(a), block):
            kernel = a[start : start + block] @ b.T / a.shape[1] + 1
            np.square(kernel, out=kernel)
            np.square(kernel, out=kernel)
            result += float(weight[start : start + block] @ (kernel @ weight_b))
        return result

    def within(a: Values, weight: Values) -> float:
        diagonal = float(weight @ (np.einsum("nf,nf->n", a, a) / a.shape[1] + 1) ** 4)
        rows = float(weight.sum())
        return float((total(a, a, weight, weight) - diagonal) / (rows * (rows - 1)))

    (a, u), (b, v) = chosen(real, times), chosen(generated, times_generated)
    return within(a, u) + within(b, v) - 2 * total(a, b, u, v) / float(u.sum() * v.sum())


# The challenge's estimators


def fpd_sizes(least: int = 10_000, largest: int = 50_000) -> NDArray[np.int32]:
    """Returns ten sizes even in 1/N, whole by leaving off the fraction: the last of the default is 49,999."""
    return (1 / np.linspace(1.0 / least, 1.0 / largest, POINTS)).astype(np.int32)


def bounded_line(x: ArrayLike, y: ArrayLike) -> Estimate:
    """Fits y = a + b x by least squares with a and b not below 0, and returns a and its error.

    The error is that of the free fit's covariance, (A^T A)^-1 times the mean square residual, at the bounded line.

    Args:
        x: (n,), n > 2.
        y: (n,).
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    design = np.column_stack([np.ones_like(x), x])
    # the minimum is inside, or on one of the two edges, or at the corner
    slope = ((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum()
    lines = [
        np.array(line)
        for line in (
            (y.mean() - slope * x.mean(), slope),
            (max(y.mean(), 0.0), 0.0),
            (0.0, max((x * y).sum() / (x * x).sum(), 0.0)),
        )
        if min(line) >= 0
    ]
    squares = [float(((design @ line - y) ** 2).sum()) for line in lines]
    best = int(np.argmin(squares))
    # columns of like size, since 1/N is small
    scale = np.linalg.norm(design, axis=0)
    covariance = np.linalg.inv((design / scale).T @ (design / scale)) / np.outer(scale, scale)
    return Estimate(
        float(lines[best][0]), math.sqrt(max(covariance[0, 0] * squares[best] / (len(x) - 2), 0.0))
    )


def _draw(rng: np.random.Generator, rows: int, size: int, weight: Weights | None = None) -> NDArray[np.intp]:
    """Draws rows with replacement, in proportion to weights where given; returns how often each was, (rows,)."""
    shares = None if weight is None else weight / weight.sum()
    return np.bincount(rng.choice(rows, size=size, p=shares), minlength=rows)


def fpd(
    real: Values,
    generated: Values,
    sizes: Sizes | None = None,
    seed: int = SEED,
    weights: tuple[Weights | None, Weights | None] = (None, None),
) -> Estimate:
    """Computes the Frechet physics distance as the challenge does: the distance of the two finite sets.

    At each of ten sizes N, even in 1/N, the mean of `frechet` over draws of N rows of both sets with replacement, one
    generator for all; a line in 1/N with coefficients not below 0 through the means; its value at 1/N = 0.

    Args:
        real: features of the reference, (N, F).
        generated: features of the generated showers, (M, F).
        sizes: least and largest size, number of draws.
        seed: of the draws.
        weights: of the rows of both sets, (N,) and (M,), where they do not count alike.
    """
    sizes = sizes or Sizes()
    real, generated = scaled(real, generated)
    rng = np.random.default_rng(seed)
    numbers = fpd_sizes(sizes.fpd_least, sizes.fpd_largest)
    means = [
        np.mean(
            [
                frechet(
                    real,
                    generated,
                    _draw(rng, len(real), number, weights[0]),
                    _draw(rng, len(generated), number, weights[1]),
                )
                for _ in range(sizes.fpd_draws)
            ]
        )
        for number in numbers
    ]
    return bounded_line(1 / numbers, means)


def kpd(
    real: Values,
    generated: Values,
    sizes: Sizes | None = None,
    seed: int = SEED,
    weights: tuple[Weights | None, Weights | None] = (None, None),
) -> Estimate:
    """Computes the kernel physics distance as the challenge does.

    Of draws with replacement, each from a generator of its own (seed, seed + 1000, ...), the median of `mmd`; its
    error is half of what lies between 16.275 and 83.725 % of them.

    Args:
        real: features of the reference, (N, F).
        generated: features of the generated showers, (M, F).
        sizes: rows and number of draws.
        seed: of the first draw.
        weights: of the rows of both sets, (N,) and (M,), where they do not count alike.
    """
    sizes = sizes or Sizes()
    real, generated = scaled(real, generated)
    distances = []
    for number in range(sizes.kpd_batches):
        rng = np.random.default_rng(seed + SEED_STEP * number)
        times, others = (
            _draw(rng, len(features), sizes.kpd_batch, weight)
            for features, weight in zip((real, generated), weights, strict=True)
        )
        distances.append(mmd(real, generated, times, others))
    low, high = np.percentile(distances, [16.275, 83.725])
    return Estimate(float(np.median(distances)), float(high - low) / 2)


# Without replacement


def population_sizes(rows: int, largest: int = 50_000) -> NDArray[np.intp]:
    """Returns ten sizes even in 1/N, from a fifth of the largest to it, which is `rows` where there are fewer."""
    top = min(rows, largest)
    return np.rint(1 / np.linspace(5 / top, 1 / top, POINTS)).astype(np.intp)


_ROUNDING = 1e-6


def frechet_population(real: Values, generated: Values, seed: int = 0, sizes: Sizes | None = None) -> float:
    """Extrapolates the Frechet distance of features to infinite samples.

    At each of ten sizes N, even in 1/N, the mean of `frechet` over random draws of N rows of both sets, none of them
    twice; a straight line in 1/N through the means; its value at 1/N = 0. It can lie below 0.

    Args:
        real: features of the reference, (N, F).
        generated: features of the generated showers, (M, F).
        seed: of the draws.
        sizes: largest size and number of draws.
    """
    sizes = sizes or Sizes()
    real, generated = scaled(real, generated, _ROUNDING)
    rows = population_sizes(min(len(real), len(generated)), sizes.fpd_largest)
    rng = np.random.default_rng([seed, 0, 3])
    means = []
    for number in rows:
        every = number == len(real) == len(generated)  # then there is but one draw
        means.append(
            np.mean(
                [
                    frechet(
                        real[rng.choice(len(real), number, replace=False)],
                        generated[rng.choice(len(generated), number, replace=False)],
                    )
                    for _ in range(1 if every else sizes.fpd_draws)
                ]
            )
        )
    return float(np.polynomial.polynomial.polyfit(1 / rows, means, 1)[0])


def kernel_population(real: Values, generated: Values, seed: int = 0, sizes: Sizes | None = None) -> float:
    """Takes the median of `mmd` over random batches of features, in none of which a row is twice.

    Args:
        real: features of the reference, (N, F).
        generated: features of the generated showers, (M, F).
        seed: of the batches.
        sizes: number of batches, and their rows: half of the smaller set where that is less.
    """
    sizes = sizes or Sizes()
    real, generated = scaled(real, generated, _ROUNDING)
    batch = min(sizes.kpd_batch, max(min(len(real), len(generated)) // 2, 2))
    rng = np.random.default_rng([seed, 0, 4])
    return float(
        np.median(
            [
                mmd(
                    real[rng.choice(len(real), batch, replace=False)],
                    generated[rng.choice(len(generated), batch, replace=False)],
                )
                for _ in range(sizes.kpd_batches)
            ]
        )
    )


# Of showers, times 1000


def _few(reference: Showers, generated: Showers) -> Result | None:
    few = min(len(reference), len(generated)) < LEAST_ROWS
    return Result(math.nan, reason=f"fewer than {LEAST_ROWS} showers") if few else None


def _weighted(reference: Showers, generated: Showers) -> Result | None:
    weighted = reference.weights is not None or generated.weights is not None
    return (
        Result(math.nan, reason="weighted showers cannot be drawn without replacement") if weighted else None
    )


def fpd_of(reference: Showers, generated: Showers, seed: int, sizes: Sizes) -> Result:
    """Computes `fpd` of showers with the challenge's seed, times 1000."""
    if few := _few(reference, generated):
        return few
    value, error = fpd(
        reference.features, generated.features, sizes, weights=(reference.weights, generated.weights)
    )
    return Result(1e3 * value, error=1e3 * error)


def kpd_of(reference: Showers, generated: Showers, seed: int, sizes: Sizes) -> Result:
    """Computes `kpd` of showers with the challenge's seeds, times 1000."""
    if few := _few(reference, generated):
        return few
    value, error = kpd(
        reference.features, generated.features, sizes, weights=(reference.weights, generated.weights)
    )
    return Result(1e3 * value, error=1e3 * error)


def frechet_population_of(reference: Showers, generated: Showers, seed: int, sizes: Sizes) -> Result:
    """Computes `frechet_population` of showers, times 1000."""
    few = _few(reference, generated) or _weighted(reference, generated)
    return few or Result(1e3 * frechet_population(reference.features, generated.features, seed, sizes))


def kernel_population_of(reference: Showers, generated: Showers, seed: int, sizes: Sizes) -> Result:
    """Computes `kernel_population` of showers, times 1000."""
    few = _few(reference, generated) or _weighted(reference, generated)
    return few or Result(1e3 * kernel_population(reference.features, generated.features, seed, sizes))
