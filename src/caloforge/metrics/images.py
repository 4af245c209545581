"""Metrics of the image: centre, radius and lit cells of a response.

Distributions: `w1_centre`, `w1_radius`, `w1_lit`. Per unique particle c, eight numbers: with q one of the
quantities below, X_c the rows of c (responses without photons left out), mu_c the mean of q over X_c, s_c its
population variance (1/|X_c|), and c over the particles with enough responses in both sets,

    d_c = |mu_c - muhat_c|  (10 responses)   or   d_c = |s_c - shat_c|  (30 responses),
    MAE = sum_c |X_c| mean(d_c) / sum_c |X_c|,   RMSE = sqrt(sum_c |X_c| mean(d_c^2) / sum_c |X_c|),

where mean() goes over the two coordinates of the centre (the radius has one) and |X_c| counts the reference.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from caloforge.metrics.channels import distance, wasserstein
from caloforge.metrics.conditional import MINIMUM, moments, no_particles
from caloforge.metrics.observables import Observables, Result, centre_and_radius
from caloforge.metrics.weights import select

VARIANCE_MINIMUM = 30
"""Responses of a particle from which its variance counts."""


def _quantity(observables: Observables, name: str) -> NDArray[np.float64]:
    """Returns `centre` (N, 2), `radius` (N, 1) or `lit` (N, 1); NaN for empty responses, but for `lit`."""
    value: NDArray[np.float64] | None = getattr(observables, name)
    if value is None:
        raise ValueError(f"{name} needs responses of two axes, got channel sums only")
    return value if value.ndim == 2 else value[:, None]


def _distance(reference: Observables, generated: Observables, name: str) -> Result:
    a, b = _quantity(reference, name), _quantity(generated, name)
    lit, lit_b = (np.flatnonzero(~np.isnan(values[:, 0])) for values in (a, b))
    weight, weight_b = select(reference.weights, lit), select(generated.weights, lit_b)
    return distance(a[lit], b[lit_b], weight, weight_b)


def w1_centre(reference: Observables, generated: Observables) -> Result:
    """Averages the Wasserstein-1 distances of the two coordinates of the centre, in cells."""
    return _distance(reference, generated, "centre")


def w1_radius(reference: Observables, generated: Observables) -> Result:
    """Computes the Wasserstein-1 distance of the radius, in cells."""
    return _distance(reference, generated, "radius")


def w1_lit(reference: Observables, generated: Observables) -> Result:
    """Computes the Wasserstein-1 distance of the number of cells with at least one photon."""
    return _distance(reference, generated, "lit")


def _aggregate(
    reference: Observables, generated: Observables, name: str, minimum: int, variance: bool, power: int
) -> Result:
    sets = []
    for observables in (reference.counting, generated.counting):
        values = _quantity(observables, name)
        filled = np.flatnonzero(~np.isnan(values[:, 0]))
        weight = select(observables.weights, filled)
        sets.append((observables.primaries.group[filled], values[filled], weight))
    (group, values, weight), (group_hat, values_hat, weight_hat) = sets
    count, *moment = moments(group, values, group_hat, minimum, weight)
    _, *moment_hat = moments(group_hat, values_hat, group, minimum, weight_hat)
    if not len(count):
        return no_particles(minimum)
    difference = np.abs(moment[variance] - moment_hat[variance]) ** power
    mean = float(np.average(difference.mean(axis=1), weights=count))
    return Result(mean ** (1 / power), len(count))


def centre_mae(reference: Observables, generated: Observables, minimum: int = MINIMUM) -> Result:
    """Compares the mean centres of each particle, as MAE, in cells."""
    return _aggregate(reference, generated, "centre", minimum, variance=False, power=1)


def centre_rmse(reference: Observables, generated: Observables, minimum: int = MINIMUM) -> Result:
    """Compares the mean centres of each particle, as RMSE, in cells."""
    return _aggregate(reference, generated, "centre", minimum, variance=False, power=2)


def centre_variance_mae(
    reference: Observables, generated: Observables, minimum: int = VARIANCE_MINIMUM
) -> Result:
    """Compares the variances of the centre of each particle, as MAE, in square cells."""
    return _aggregate(reference, generated, "centre", minimum, variance=True, power=1)


def centre_variance_rmse(
    reference: Observables, generated: Observables, minimum: int = VARIANCE_MINIMUM
) -> Result:
    """Compares the variances of the centre of each particle, as RMSE, in square cells."""
    return _aggregate(reference, generated, "centre", minimum, variance=True, power=2)


def radius_mae(reference: Observables, generated: Observables, minimum: int = MINIMUM) -> Result:
    """Compares the mean radii of each particle, as MAE, in cells."""
    return _aggregate(reference, generated, "radius", minimum, variance=False, power=1)


def radius_rmse(reference: Observables, generated: Observables, minimum: int = MINIMUM) -> Result:
    """Compares the mean radii of each particle, as RMSE, in cells."""
    return _aggregate(reference, generated, "radius", minimum, variance=False, power=2)


def radius_variance_mae(
    reference: Observables, generated: Observables, minimum: int = VARIANCE_MINIMUM
) -> Result:
    """Compares the variances of the radius of each particle, as MAE, in square cells."""
    return _aggregate(reference, generated, "radius", minimum, variance=True, power=1)


def radius_variance_rmse(
    reference: Observables, generated: Observables, minimum: int = VARIANCE_MINIMUM
) -> Result:
    """Compares the variances of the radius of each particle, as RMSE, in square cells."""
    return _aggregate(reference, generated, "radius", minimum, variance=True, power=2)


def image_distances(reference: NDArray[np.generic], generated: NDArray[np.generic]) -> dict[str, float]:
    """Compares how photons are placed: Wasserstein-1 of each quantity over its spread in the reference.

    No published metric: a quick judge of image generators in training.

    Args:
        reference: responses, (N, *shape).
        generated: responses, (M, *shape).

    Returns:
        `shape`, the mean over lit cells, brightest cell, centre and radius; and these.
    """
    distances = {}
    generated_places = _places(generated)
    for name, true in _places(reference).items():
        distances[name] = wasserstein(true, generated_places[name]) / true.std()
    return {"shape": float(np.mean(list(distances.values()))), **distances}


def _places(responses: NDArray[np.generic]) -> dict[str, NDArray[np.float64]]:
    centre, radius = centre_and_radius(responses)
    lit = np.isfinite(radius)
    values = {
        "lit": np.count_nonzero(responses, axis=(1, 2)),
        "brightest": responses.max((1, 2)),
        "centre_x": centre[lit, 0],
        "centre_y": centre[lit, 1],
        "radius": radius[lit],
    }
    return {name: value.astype(np.float64) for name, value in values.items()}
