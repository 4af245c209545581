"""The table of metrics, their floors, and the scores of generated events against simulated ones.

Every number stands beside its floor, the value of simulated events against simulated events of as many rows:

- `halves`: two random halves A and B of the reference.
- `pairs`: A and B hold one response each of the same particle, row by row; responses of a particle are
  paired at random, each used once. For metrics of unique particles this splits each particle's responses in
  two, and the responses a particle needs are halved with them.

The floor is metric(reference[A], reference[B]). The matched floor is metric(reference[A], generated[B]): for
a perfect generator it equals the floor on average, since both compare as many rows of the same mix of
particles. The score itself, metric(reference, generated), uses all rows and the same particles on both
sides, so it has less noise than its floor, and may lie below it. To judge, compare the matched floor with
the floor; to rank, compare scores of the same reference.

Bins and particles need a minimum of rows; a split has half the rows, so there the minimum is half as large.
Mean and sample standard deviation (1/(n-1)) go over `SPLITS` splits for floors and over repeats for scores;
split k takes repeat k modulo their number.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from caloforge.events import Primaries
from caloforge.metrics import bright, channels, conditional, images
from caloforge.metrics.observables import Observables, Result
from caloforge.metrics.weights import Weights, effective_size
from caloforge.particles import particle_name

Floor = Literal["halves", "pairs"]


class _Weighted(Protocol):
    """A set of events that may have weights."""

    @property
    def weights(self) -> Weights | None:
        """Of the rows."""

    def __len__(self) -> int: ...


Rows = NDArray[np.intp]

SPLITS = 20
"""Random splits of the reference that make a floor."""

MINIMUM_ROWS = 20
"""Rows of a particle type from which it gets scores of its own."""


@dataclass(frozen=True)
class Metric:
    """Describes a metric.

    Attributes:
        name: key in `METRICS` and in a file of scores.
        title: name for tables and figures.
        unit: unit of the value.
        needs: `channels`: channel sums are enough; `responses`: centre, radius and lit cells are needed too;
            `showers`: layers of voxels (`caloforge.metrics.showers`).
        floor: how the reference is split for the floor.
        function: from reference and generated observables to a result; takes `minimum` where that is not 0.
        formula: the whole formula in one line; n rows, K channels, c unique particles with rows X_c.
        minimum: rows a particle (or a bin) needs in both sets to count; 0 where none are left out.
        symmetric: the value stays when the two sets change places; metrics weighted by occurrences in the
            reference are symmetric for sets of the same particles only.
    """

    name: str
    title: str
    unit: str
    needs: Literal["channels", "responses", "showers"]
    floor: Floor
    function: Callable[..., Result]
    formula: str
    minimum: int = 0
    symmetric: bool = True


_C, _B, _V = conditional.MINIMUM, conditional.BIN_MINIMUM, images.VARIANCE_MINIMUM

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "w1", "W1", "photons", "channels", "halves", channels.w1,
            "(1/K) sum_i W1(w_i, what_i), W1 = integral over q of |F^-1(q) - Fhat^-1(q)|",
        ),
        Metric(
            "mae", "MAE", "photons", "channels", "pairs", channels.mae,
            "(1/n) sum_k (1/K) sum_i |w_i^k - what_i^k|",
        ),
        Metric(
            "mae_sum", "MAE, summed over channels", "photons", "channels", "pairs", channels.mae_sum,
            "(1/n) sum_k sum_i |w_i^k - what_i^k|",
        ),
        Metric(
            "conditional_w1", "conditional W1", "photons", "channels", "halves", conditional.conditional_w1,
            "sum_b n_b (1/K) sum_i W1(w_i, what_i in b) / sum_b n_b, bins b of PDG id x energy x impact",
            minimum=_B, symmetric=False,
        ),
        Metric(
            "mae_c", "MAE_c", "photons", "channels", "pairs", conditional.mae_c,
            "(1/C) sum_c d_c, d_c = (1/K) sum_i |mean over X_c of w_i - mean over Xhat_c of what_i|",
            minimum=_C,
        ),
        Metric(
            "mae_cw", "MAE_cw", "photons", "channels", "pairs", conditional.mae_cw,
            "sum_c |X_c| d_c / sum_c |X_c|, d_c as in MAE_c",
            minimum=_C, symmetric=False,
        ),
        Metric(
            "w1_photons", "W1 of the photon sum", "photons", "channels", "halves", channels.w1_photons,
            "W1(sum_i w_i, sum_i what_i)",
        ),
        Metric(
            "empty", "empty responses, difference of shares", "", "channels", "halves", channels.empty,
            "|share of rows with sum_i w_i = 0 - share of rows with sum_i what_i = 0|",
        ),
        Metric(
            "w1_lit", "W1 of lit cells", "cells", "responses", "halves", images.w1_lit,
            "W1(lit, lit hat), lit = cells with at least one photon",
        ),
        Metric(
            "bright_cells", "bright cells, |ratio − 1|", "", "responses", "halves", bright.bright_cells,
            "|R - 1|, R = cells >= t a row in generated / in reference, t = 99.9 % point of the reference's lit cells",
            symmetric=False,
        ),
        Metric(
            "w1_centre", "W1 of the centre", "cells", "responses", "halves", images.w1_centre,
            "(1/2) sum over two coordinates of W1(centre, centre hat)",
        ),
        Metric(
            "w1_radius", "W1 of the radius", "cells", "responses", "halves", images.w1_radius,
            "W1(radius, radius hat), radius of the circle around the centre that holds 90 % of the photons",
        ),
        Metric(
            "centre_mae", "centre, MAE", "cells", "responses", "pairs", images.centre_mae,
            "sum_c |X_c| (1/2) sum over coordinates |mean over X_c - mean over Xhat_c| / sum_c |X_c|",
            minimum=_C, symmetric=False,
        ),
        Metric(
            "centre_rmse", "centre, RMSE", "cells", "responses", "pairs", images.centre_rmse,
            "sqrt(sum_c |X_c| (1/2) sum over coordinates (mean over X_c - mean over Xhat_c)^2 / sum_c |X_c|)",
            minimum=_C, symmetric=False,
        ),
        Metric(
            "centre_variance_mae", "centre variance, MAE", "cells²", "responses", "pairs",
            images.centre_variance_mae,
            "sum_c |X_c| (1/2) sum over coordinates |var over X_c - var over Xhat_c| / sum_c |X_c|",
            minimum=_V, symmetric=False,
        ),
        Metric(
            "centre_variance_rmse", "centre variance, RMSE", "cells²", "responses", "pairs",
            images.centre_variance_rmse,
            "sqrt(sum_c |X_c| (1/2) sum over coordinates (var over X_c - var over Xhat_c)^2 / sum_c |X_c|)",
            minimum=_V, symmetric=False,
        ),
        Metric(
            "radius_mae", "radius, MAE", "cells", "responses", "pairs", images.radius_mae,
            "sum_c |X_c| |mean over X_c - mean over Xhat_c| / sum_c |X_c|",
            minimum=_C, symmetric=False,
        ),
        Metric(
            "radius_rmse", "radius, RMSE", "cells", "responses", "pairs", images.radius_rmse,
            "sqrt(sum_c |X_c| (mean over X_c - mean over Xhat_c)^2 / sum_c |X_c|)",
            minimum=_C, symmetric=False,
        ),
        Metric(
            "radius_variance_mae", "radius variance, MAE", "cells²", "responses", "pairs",
            images.radius_variance_mae,
            "sum_c |X_c| |var over X_c - var over Xhat_c| / sum_c |X_c|",
            minimum=_V, symmetric=False,
        ),
        Metric(
            "radius_variance_rmse", "radius variance, RMSE", "cells²", "responses", "pairs",
            images.radius_variance_rmse,
            "sqrt(sum_c |X_c| (var over X_c - var over Xhat_c)^2 / sum_c |X_c|)",
            minimum=_V, symmetric=False,
        ),
    )
}  # fmt: skip


def align(reference: Primaries, generated: Primaries) -> None:
    """Checks that generated row k belongs to the particle of reference row k.

    Features may differ by 1e-5 of their value, which a file in text form may cost.

    Raises:
        ValueError: another detector, number of rows or particle; the message names the first row.
    """
    if reference.detector.name != generated.detector.name:
        raise ValueError(f"events must be of {reference.detector.name}, got {generated.detector.name}")
    if len(reference) != len(generated):
        raise ValueError(
            f"generated events must be the reference's {len(reference)} particles, one response each, "
            f"got {len(generated)} rows"
        )
    same = np.isclose(generated.conditions, reference.conditions, rtol=1e-5, atol=0.0)
    bad = ~same.all(axis=1) | (reference.pdg != generated.pdg)
    if not bad.any():
        return
    row = int(np.argmax(bad))
    expected, got = (
        f"{particle_name(int(primaries.pdg[row]))} {primaries.conditions[row].tolist()}"
        for primaries in (reference, generated)
    )
    raise ValueError(
        f"generated events must be of the reference's particles, in its order: "
        f"row {row} must be {expected}, got {got}"
    )


def halves(rows: int, rng: np.random.Generator) -> tuple[Rows, Rows]:
    """Draws two random halves of `rows` rows, as row numbers; an odd row is left out."""
    order = rng.permutation(rows)
    return order[: rows // 2], order[rows // 2 : 2 * (rows // 2)]


def pairs(group: NDArray[np.int32], rng: np.random.Generator) -> tuple[Rows, Rows]:
    """Pairs the rows of each particle at random, each row at most once.

    Args:
        group: particle of each row, (N,).
        rng: source of the random order.

    Returns:
        row numbers a and b, (P,), with group[a] = group[b] and a != b; of a particle with an odd number of
        rows one random row is left out.
    """
    order = rng.permutation(len(group))
    order = order[np.argsort(group[order], kind="stable")]
    _, start, count = np.unique(group[order], return_index=True, return_counts=True)
    place = np.arange(len(order)) - np.repeat(start, count)
    paired = place < np.repeat(count - count % 2, count)
    return order[paired & (place % 2 == 0)], order[paired & (place % 2 == 1)]


def floors(reference: Observables, seed: int = 0, splits: int = SPLITS) -> dict[str, list[Result]]:
    """Computes every metric's floor: its values over random splits of the reference.

    Args:
        reference: simulated events.
        seed: of the splits.
        splits: number of splits.

    Returns:
        results by metric name, one a split.
    """
    drawn = [_split(reference.primaries, seed, number) for number in range(splits)]
    return _over_splits(_applicable([reference]), reference, [reference], drawn)


def score(reference: Observables, generated: Sequence[Observables], seed: int = 0) -> dict[str, Any]:
    """Scores repeated generations of the same particles against the simulated events.

    Args:
        reference: simulated events.
        generated: one entry a repeat; row k of each belongs to row k of the reference.
        seed: of the splits behind the floors; a type's floors depend on the seed and its own rows only.

    Returns:
        the `groups` of a file of scores: `all` and each particle type by PDG name, most rows first, each with
        `n` rows, unique `particles` and `metrics`; NaN is None, with the reason. A type with fewer than
        `MINIMUM_ROWS` rows has no metrics and a `reason`.

    Raises:
        ValueError: nothing generated, rows that do not belong to the reference's, or other channels.
    """
    if not generated:
        raise ValueError("scores need at least one set of generated events, got none")
    for observables in generated:
        align(reference.primaries, observables.primaries)
        if observables.channels.shape != reference.channels.shape:
            raise ValueError(
                f"generated channel sums must have shape {reference.channels.shape}, got {observables.channels.shape}"
            )
    # Rows match, so the generated rows take the reference's groups: files may number particles differently.
    generated = [
        dataclasses.replace(
            observables,
            primaries=dataclasses.replace(reference.primaries, weight=observables.primaries.weight),
        )
        for observables in generated
    ]
    pdg = reference.primaries.pdg
    ids, count = np.unique(pdg, return_counts=True)
    groups = {"all": _score(reference, generated, seed)}
    for number in ids[np.argsort(-count, kind="stable")].tolist():
        rows = np.flatnonzero(pdg == number)
        part = reference.select(rows)
        if len(rows) < MINIMUM_ROWS:
            groups[particle_name(number)] = _counts(part) | {
                "metrics": {},
                "reason": f"fewer than {MINIMUM_ROWS} rows",
            }
        else:
            groups[particle_name(number)] = _score(
                part, [observables.select(rows) for observables in generated], seed
            )
    return groups


def _score(reference: Observables, generated: Sequence[Observables], seed: int) -> dict[str, Any]:
    metrics = _applicable([reference, *generated])
    drawn = [_split(reference.primaries, seed, number) for number in range(SPLITS)]
    floor = _over_splits(metrics, reference, [reference], drawn)
    matched = _over_splits(metrics, reference, generated, drawn)
    size = {kind: len(a) for kind, (a, _) in drawn[0].items()}
    notes = {
        "halves": f"random halves: {size['halves']} rows of the reference against {size['halves']}",
        "pairs": f"rows paired by particle: {size['pairs']} rows of the reference against {size['pairs']}",
    }
    entries = {}
    for metric in metrics:
        results = [metric.function(reference, observables) for observables in generated]
        reasons = [result.reason for result in results if result.reason]
        particles = [result.particles for result in results if result.particles is not None]
        values = [result.value for result in results]
        entries[metric.name] = {
            "values": [finite(value) for value in values],
            **mean_and_std(values),
            "floor": floor_entry(floor[metric.name], f"{notes[metric.floor]} of the reference"),
            "matched_floor": floor_entry(matched[metric.name], f"{notes[metric.floor]} generated"),
            "particles": min(particles) if particles else None,
            "reason": reasons[0] if reasons else "",
        }
    return _counts(reference) | effective(generated) | {"metrics": entries}


def effective(generated: Sequence[_Weighted]) -> dict[str, Any]:
    """Returns, of generated events with weights, how many events without they are worth; the mean over repeats."""
    if all(observed.weights is None for observed in generated):
        return {}
    sizes = [
        len(observed) if observed.weights is None else effective_size(observed.weights)
        for observed in generated
    ]
    return {"effective": float(np.mean(sizes))}


def _counts(reference: Observables) -> dict[str, Any]:
    return {"n": len(reference), "particles": len(np.unique(reference.primaries.group))}


def _applicable(sets: Sequence[Observables]) -> list[Metric]:
    images = all(observables.centre is not None for observables in sets)
    return [metric for metric in METRICS.values() if images or metric.needs == "channels"]


def _split(primaries: Primaries, seed: int, number: int) -> dict[Floor, tuple[Rows, Rows]]:
    rng = np.random.default_rng([seed, number])
    return {"halves": halves(len(primaries), rng), "pairs": pairs(primaries.group, rng)}


def _over_splits(
    metrics: Iterable[Metric],
    reference: Observables,
    others: Sequence[Observables],
    drawn: Sequence[dict[Floor, tuple[Rows, Rows]]],
) -> dict[str, list[Result]]:
    """Computes metric(reference[A], other[B]) over the splits, going round the others."""
    results: dict[str, list[Result]] = {metric.name: [] for metric in metrics}
    for number, split in enumerate(drawn):
        other = others[number % len(others)]
        parts = {kind: (reference.select(a), other.select(b)) for kind, (a, b) in split.items()}
        for metric in metrics:
            needed = {"minimum": metric.minimum // 2} if metric.minimum else {}
            results[metric.name].append(metric.function(*parts[metric.floor], **needed))
    return results


def floor_entry(results: Sequence[Result], note: str) -> dict[str, Any] | None:
    """Returns mean and spread of a floor over its splits; None where there is none, or a value is NaN."""
    values = [result.value for result in results]
    if not values or any(math.isnan(value) for value in values):
        return None
    return mean_and_std(values) | {"splits": len(values), "note": note}


def mean_and_std(values: Sequence[float]) -> dict[str, float | None]:
    """Returns mean and sample standard deviation; None for what is not finite."""
    std = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    return {"mean": finite(float(np.mean(values))), "std": finite(std)}


def finite(value: float) -> float | None:
    """Returns the value, or None where it is not finite."""
    return value if math.isfinite(value) else None
