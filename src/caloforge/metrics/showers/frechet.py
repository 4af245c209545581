"""Frechet and kernel distances of the high-level features: they see correlations between them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from caloforge.metrics.observables import Result
from caloforge.metrics.showers.features import Showers, Sizes, Values


def scaled(real: Values, generated: Values) -> tuple[Values, Values]:
    """Divides features, (N, F) and (M, F), by the largest absolute value of the real ones.

    Where that is below 1e-6 it counts as 1: a feature that is nothing but rounding, of a layer that no real shower
    reaches.
    """
    scale = np.abs(real).max(0)
    scale[scale < 1e-6] = 1
    return real / scale, generated / scale


def frechet(real: Values, generated: Values) -> float:
    """Computes |mu1 - mu2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) of means and covariances (1/(N-1)) of features."""
    (mean, covariance), (other, others) = _gaussian(real), _gaussian(generated)
    values, vectors = np.linalg.eigh(covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    # (S1 S2)^(1/2) has the eigenvalues of the symmetric (S1^(1/2) S2 S1^(1/2))^(1/2)
    mixed = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ others @ root), 0)).sum()
    return float(((mean - other) ** 2).sum() + np.trace(covariance) + np.trace(others) - 2 * mixed)


def _gaussian(features: Values) -> tuple[Values, Values]:
    mean = features.mean(0)
    centred = features - mean
    return mean, centred.T @ centred / (len(features) - 1)


def fpd_sizes(rows: int, largest: int = 50_000) -> NDArray[np.intp]:
    """Returns ten sizes even in 1/N, from a fifth of the largest to it, which is `rows` where there are fewer."""
    top = min(rows, largest)
    return np.rint(1 / np.linspace(5 / top, 1 / top, 10)).astype(np.intp)


def fpd(real: Values, generated: Values, seed: int = 0, sizes: Sizes | None = None) -> float:
    """Extrapolates the Frechet distance of features to infinite samples.

    Features over their largest real absolute value; at each of ten sizes N, even in 1/N, the mean of `frechet` over
    random draws of N rows of both sets; a straight line in 1/N through the means; its value at 1/N = 0.

    Args:
        real: features of the reference, (N, F).
        generated: features of the generated showers, (M, F).
        seed: of the draws.
        sizes: largest size and number of draws.
    """
    sizes = sizes or Sizes()
    real, generated = scaled(real, generated)
    rows = fpd_sizes(min(len(real), len(generated)), sizes.fpd_largest)
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


def mmd(real: Values, generated: Values, block: int = 2048) -> float:
    """Computes the unbiased squared maximum mean discrepancy with the kernel (x.y / F + 1)^4.

    Args:
        real: features, (n, F).
        generated: features, (m, F).
        block: rows of the kernel matrix held at once.
    """

    def total(a: Values, b: Values) -> float:
        result = 0.0
        for start in range(0, len(a), block):
            kernel = a[start : start + block] @ b.T / a.shape[1] + 1
            np.square(kernel, out=kernel)
            result += float(np.vdot(kernel, kernel))
        return result

    def diagonal(a: Values) -> float:
        return float(((np.einsum("nf,nf->n", a, a) / a.shape[1] + 1) ** 4).sum())

    n, m = len(real), len(generated)
    within = (total(real, real) - diagonal(real)) / (n * (n - 1))
    others = (total(generated, generated) - diagonal(generated)) / (m * (m - 1))
    return within + others - 2 * total(real, generated) / (n * m)


def kpd(real: Values, generated: Values, seed: int = 0, sizes: Sizes | None = None) -> float:
    """Takes the median of `mmd` over random batches of features, over their largest real absolute value.

    Args:
        real: features of the reference, (N, F).
        generated: features of the generated showers, (M, F).
        seed: of the batches.
        sizes: rows and number of batches.
    """
    sizes = sizes or Sizes()
    real, generated = scaled(real, generated)
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


def fpd_of(reference: Showers, generated: Showers, seed: int, sizes: Sizes) -> Result:
    """Computes `fpd` of showers, times 1000."""
    if min(len(reference), len(generated)) < 10:
        return Result(math.nan, reason="fewer than 10 showers")
    return Result(1e3 * fpd(reference.features, generated.features, seed, sizes))


def kpd_of(reference: Showers, generated: Showers, seed: int, sizes: Sizes) -> Result:
    """Computes `kpd` of showers, times 1000."""
    if min(len(reference), len(generated)) < 10:
        return Result(math.nan, reason="fewer than 10 showers")
    return Result(1e3 * kpd(reference.features, generated.features, seed, sizes))
