"""Metrics that look at one kind of particle at a time: they see what the overall distributions hide.

A random response of the training set has the right overall distributions and simulates nothing: here it
fails.

- `conditional_w1`: the distances within bins of like particles. Works for any data set.
- `mae_c`, `mae_cw`: mean responses of unique particles c, with X_c the rows of c. They need data in which
  particles repeat; a particle counts if it has at least `MINIMUM` responses in both sets.

The bins are PDG id x energy x straight-line impact position: where the primary would cross the plane of the
detector's face at |z| = D if nothing bent, stopped or split it,

    x = vx + (px / |pz|) (D - sign(pz) vz),   y = vy + (py / |pz|) (D - sign(pz) vz)   [cm],

a label of the particle, not a place where light is seen: magnets sweep charged particles away from it. The
edges below were chosen once, on training folds, and are fixed: about thirds of the ZN's face (-3.52 to 3.52
cm), where the four quadrant channels differ, and in x two more for the ZP, which neutral particles hit at
about 16 to 38 cm; energies that part gammas (90 % below 1.4 TeV) and nucleons (mostly above 1 TeV). Of 5,000
ZN rows some 80 % lie in bins that count, of 1,100 ZP rows about half.

Where a detector has no impact position, the bins are PDG id x thirds of each of the first three conditions, with edges
at the quantiles 1/3 and 2/3 of the reference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.events import Primaries
from caloforge.metrics.channels import mean_wasserstein
from caloforge.metrics.observables import Observables, Result
from caloforge.metrics.weights import Weights, select

MINIMUM = 10
"""Responses of a particle from which its mean counts."""

BIN_MINIMUM = 30
"""Events in a bin, of the reference and of the generated set, from which the bin counts."""

ENERGY_EDGES = (400.0, 1000.0, 2500.0)
"""Energy [GeV]."""

X_EDGES = (-1.0, 1.0, 12.0, 26.0)
"""Straight-line impact position, x [cm]."""

Y_EDGES = (-1.0, 1.0)
"""Straight-line impact position, y [cm]."""

THIRDS = 3
"""Conditions whose thirds make the bins where there is no impact position."""

_NEEDED = {"energy", "vx", "vy", "vz", "px", "py", "pz"}


def impact(primaries: Primaries) -> NDArray[np.float64]:
    """Extends each particle's straight line to the plane of the detector's face.

    Returns:
        x and y in cm, (N, 2); NaN or infinite for a particle that flies along the plane (pz = 0).

    Raises:
        ValueError: the detector has no face, or its conditions lack vertex or momentum.
    """
    detector = primaries.detector
    if detector.face is None or not set(detector.features) >= _NEEDED:
        raise ValueError(
            f"an impact position needs a face and the conditions {', '.join(sorted(_NEEDED))}; "
            f"{detector.name} has face {detector.face} and {', '.join(detector.features)}"
        )
    vx, vy, vz, px, py, pz = (
        primaries.feature(name).astype(np.float64) for name in ("vx", "vy", "vz", "px", "py", "pz")
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        length = (detector.face.z - np.sign(pz) * vz) / np.abs(pz)
        return np.stack([vx + px * length, vy + py * length], axis=1)


def bins(primaries: Primaries) -> NDArray[np.int64]:
    """Numbers the bin of PDG id x energy x impact position each particle falls in, (N,).

    A value on an edge belongs to the upper bin. Equal numbers mean equal bins, in every data set.

    Raises:
        ValueError: as `impact`.
    """
    x, y = impact(primaries).T
    energy = primaries.feature("energy").astype(np.float64)
    number = primaries.pdg.astype(np.int64)
    for value, edges in ((energy, ENERGY_EDGES), (x, X_EDGES), (y, Y_EDGES)):
        number = number * (len(edges) + 1) + np.digitize(value, edges)
    return number


def _thirds(
    primaries: Primaries, features: Sequence[str], edges: Sequence[NDArray[np.float64]]
) -> NDArray[np.int64]:
    """Numbers the bin of PDG id x thirds of some features each particle falls in, (N,)."""
    number = primaries.pdg.astype(np.int64)
    for name, cuts in zip(features, edges, strict=True):
        number = number * (len(cuts) + 1) + np.digitize(primaries.feature(name), cuts)
    return number


def conditional_w1(reference: Observables, generated: Observables, minimum: int = BIN_MINIMUM) -> Result:
    """Averages `w1` within bins of like particles, weighted by their occupancy.

    conditional_w1 = sum_b n_b W1_b / sum_b n_b, with W1_b = (1/K) sum_i W1 of channel i between the rows of
    bin b, n_b the rows of b in the reference, and b over the bins with at least `minimum` rows in both sets.

    Args:
        reference: simulated responses.
        generated: generated ones; its rows need not be those of the reference.
        minimum: rows a bin needs in both sets.

    Returns:
        the mean, with the number of unique particles of the reference in the bins used.
    """
    reference, generated = reference.counting, generated.counting
    detector = reference.primaries.detector
    if detector.face is None or not set(detector.features) >= _NEEDED:
        features = detector.features[:THIRDS]
        names = f"PDG id x thirds of {', '.join(features)}"
        edges = [
            np.quantile(reference.primaries.feature(name).astype(np.float64), (1 / 3, 2 / 3))
            for name in features
        ]
        first, second = (
            _thirds(observables.primaries, features, edges) for observables in (reference, generated)
        )
    else:
        names = "PDG id x energy x position"
        first, second = bins(reference.primaries), bins(generated.primaries)
    rows_of, others_of = _rows_by(first), _rows_by(second)
    weight, weight_hat = reference.weights, generated.weights
    distances, occupancy, used = [], [], []
    for number, rows in rows_of.items():
        others = others_of.get(number)
        if others is None or min(len(rows), len(others)) < minimum:
            continue
        ours, theirs = select(weight, rows), select(weight_hat, others)
        distances.append(mean_wasserstein(reference.channels[rows], generated.channels[others], ours, theirs))
        occupancy.append(len(rows) if ours is None else float(ours.sum()))
        used.append(rows)
    if not used:
        return Result(math.nan, 0, f"no bin of {names} has {minimum} events in both sets")
    particles = np.unique(reference.primaries.group[np.concatenate(used)])
    return Result(float(np.average(distances, weights=occupancy)), len(particles))


def mae_c(reference: Observables, generated: Observables, minimum: int = MINIMUM) -> Result:
    """Compares mean channel sums of unique particles, each particle once.

    mae_c = (1/C) sum_c (1/K) sum_i |(1/|X_c|) sum_(k in X_c) w_i^k - (1/|Xhat_c|) sum_(k in Xhat_c) what_i^k|
    with c over the C particles with at least `minimum` responses in both sets.
    """
    return _mean_difference(reference, generated, minimum, weighted=False)


def mae_cw(reference: Observables, generated: Observables, minimum: int = MINIMUM) -> Result:
    """Compares mean channel sums of unique particles, each weighted by its occurrences in the reference.

    mae_cw = sum_c |X_c| d_c / sum_c |X_c|, with d_c the summand of `mae_c` and c over the same particles.
    """
    return _mean_difference(reference, generated, minimum, weighted=True)


def _mean_difference(reference: Observables, generated: Observables, minimum: int, weighted: bool) -> Result:
    reference, generated = reference.counting, generated.counting
    group, group_hat = reference.primaries.group, generated.primaries.group
    count, mean, _ = moments(group, reference.channels, group_hat, minimum, reference.weights)
    _, mean_hat, _ = moments(group_hat, generated.channels, group, minimum, generated.weights)
    if not len(count):
        return no_particles(minimum)
    difference = np.abs(mean - mean_hat).mean(axis=1)
    return Result(float(np.average(difference, weights=count if weighted else None)), len(count))


def no_particles(minimum: int) -> Result:
    """Returns NaN with the reason that no particle has enough responses."""
    return Result(math.nan, 0, f"no particle has at least {minimum} responses in both sets")


def moments(
    group: NDArray[np.int32],
    values: NDArray[np.float64],
    other: NDArray[np.int32],
    minimum: int,
    weight: Weights | None = None,
) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[np.float64]]:
    """Computes count, mean and variance of the responses of each particle that both sets hold often enough.

    Args:
        group: particle of each row, (N,).
        values: numbers of each row, (N, K).
        other: particles of the rows of the other set, (M,).
        minimum: rows a particle needs in both sets, whatever their weights.
        weight: of each row, above 0, (N,); alike where not given.

    Returns:
        rows of each particle, or the sum of their weights, (C,), their mean and their population variance (1/|X_c|),
        (C, K); particles in ascending order, so that the two sets' results match.
    """
    numbers, inverse, count = np.unique(group, return_inverse=True, return_counts=True)
    others, count_of_others = np.unique(other, return_counts=True)
    shared = (count >= minimum) & np.isin(numbers, others[count_of_others >= minimum])
    if weight is None:
        total, each = count, np.ones(1)
    else:
        total, each = np.bincount(inverse, weight, len(numbers)), weight[:, None]
    mean = _sums(inverse, values * each, len(numbers)) / total[:, None]
    variance = _sums(inverse, (values - mean[inverse]) ** 2 * each, len(numbers)) / total[:, None]
    return total[shared], mean[shared], variance[shared]


def _sums(index: NDArray[np.intp], values: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    columns = [np.bincount(index, values[:, k], size) for k in range(values.shape[1])]
    return np.stack(columns, axis=1)


def _rows_by(number: NDArray[np.int64]) -> dict[int, NDArray[np.intp]]:
    order = np.argsort(number, kind="stable")
    numbers, starts, count = np.unique(number[order], return_index=True, return_counts=True)
    return {
        key: order[start : start + n] for key, start, n in zip(numbers.tolist(), starts, count, strict=True)
    }
