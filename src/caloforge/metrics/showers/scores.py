"""The judgement of the Fast Calorimeter Simulation Challenge: every metric of showers, with floor and control.

What to use when: separation powers say which distribution is wrong; FPD and KPD see correlations between the
features; precision, recall, density and coverage look at the voxels themselves, and tell showers like none of the
simulation's (precision, density) from kinds of showers that are missing (recall, coverage). The classifiers of
`caloforge.evaluation.classifier` see everything, and need training.

Sizes are those of the publications where there are rows enough, and smaller by a fixed rule where not (`Sizes`);
values of different sizes cannot be compared, and scores say so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from caloforge.metrics.observables import Result
from caloforge.metrics.scores import Metric, finite, floor_entry, halves, mean_and_std
from caloforge.metrics.showers.features import CONTROL, Showers, Sizes
from caloforge.metrics.showers.frechet import fpd_of, kpd_of
from caloforge.metrics.showers.neighbours import NEIGHBOURS, prdc_of
from caloforge.metrics.showers.separation import (
    CENTRE,
    CENTRE_R,
    WIDTH,
    WIDTH_R,
    Z,
    sep_layers,
    sep_moment,
    sep_sparsity,
    sep_total,
    sep_voxels,
)

COMPARABLE = 50_000
"""Rows of both sets from which FPD and KPD have the sizes of the publications."""


def _metric(name: str, title: str, unit: str, function: Any, formula: str, symmetric: bool = False) -> Metric:
    return Metric(name, title, unit, "showers", "halves", function, formula, symmetric=symmetric)


_SEPARATION = "separation power, 0.5 sum (h1 - h2)^2 / (h1 + h2)"
_DISTANCE = "features over max |real|"
_POINTS = f"k = {NEIGHBOURS}, log10 of the voxels, empty ones 0.1 MeV"

SHOWER_METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        _metric("sep_layers", "sep. E_layer", "", sep_layers, f"{_SEPARATION}, of E_l, mean over layers"),
        _metric("sep_total", "sep. E_tot/E_inc", "", sep_total, f"{_SEPARATION}, of E_tot / E_inc", True),
        _metric("sep_voxels", "sep. voxels", "", sep_voxels, f"{_SEPARATION}, of voxel energies"),
        *(
            _metric(
                f"sep_{what}_{z}", f"sep. {what} {z}", "", sep_moment(moment, k, edges),
                f"{_SEPARATION}, of the {what} in {z}, mean over layers", True,
            )
            for what, moment, edges_of in (
                ("centre", "centres", (CENTRE, CENTRE, CENTRE_R)), ("width", "widths", (WIDTH, WIDTH, WIDTH_R)),
            )
            for k, (z, edges) in enumerate(zip(Z, edges_of, strict=True))
        ),
        _metric("sep_sparsity", "sep. sparsity", "", sep_sparsity, f"{_SEPARATION}, mean over layers", True),
        _metric(
            "fpd", "FPD", "10⁻³", fpd_of,
            f"|mu1 - mu2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) at 1/N -> 0, {_DISTANCE}",
        ),
        _metric("kpd", "KPD", "10⁻³", kpd_of, f"median over batches of MMD^2, kernel (x.y / F + 1)^4, {_DISTANCE}"),
        _metric("precision", "precision", "", None, f"share of generated within a real radius, {_POINTS}"),
        _metric("recall", "recall", "", None, f"share of real within a generated radius, {_POINTS}"),
        _metric("density", "density", "", None, f"real radii a generated shower lies in, over k, {_POINTS}"),
        _metric("coverage", "coverage", "", None, f"share of real radii that hold a generated one, {_POINTS}"),
    )
}  # fmt: skip
"""Metrics of showers by name; a function takes reference, generated, seed and sizes."""

CLASSIFIER_METRICS: dict[str, Metric] = {
    f"{name}_{view}": _metric(f"{name}_{view}", f"{title}, {view}", unit, None, f"{formula}, classifier of {of}")
    for name, title, unit, formula in (
        ("auc", "AUC", "", "share of pairs of a true and a generated shower that are put in order"),
        ("jsd", "JSD", "bits", "1 + mean log2 of the calibrated probability of the right class"),
    )
    for view, of in (
        ("low", "voxels / E_inc"), ("high", "the high-level features"), ("conv", "voxels, 3-D residual network"),
    )
}  # fmt: skip
"""What `caloforge.evaluation.classifier` adds to scores, for tables; it has its own functions."""

SLOW = ("fpd", "kpd", "precision", "recall", "density", "coverage")
"""Metrics whose floors are of few splits."""


def compare(
    reference: Showers, generated: Showers, seed: int = 0, sizes: Sizes | None = None, slow: bool = True
) -> dict[str, Result]:
    """Computes every metric, by name.

    Args:
        reference: simulated showers.
        generated: generated ones; their rows need not be those of the reference.
        seed: of random draws.
        sizes: of the metrics that take long.
        slow: whether to compute those too.

    Raises:
        ValueError: other edges of the voxel spectrum.
    """
    if not np.array_equal(reference.edges, generated.edges):
        raise ValueError("both sets must have the reference's edges of the voxel spectrum")
    sizes = sizes or Sizes()
    found = {
        name: metric.function(reference, generated, seed, sizes)
        for name, metric in SHOWER_METRICS.items()
        if metric.function is not None and (slow or name not in SLOW)
    }
    return found | (prdc_of(reference, generated, sizes) if slow else {})


def score_showers(
    reference: Showers,
    generated: Sequence[Showers],
    control: Showers | None = None,
    seed: int = 0,
    sizes: Sizes | None = None,
    report: Callable[[str], None] = lambda what: None,
) -> dict[str, Any]:
    """Scores generated showers against simulated ones, each metric beside its floor and its positive control.

    The floor compares random halves A and B of the reference, the control A and the smeared B, the matched floor A
    and as many generated showers.

    Args:
        reference: simulated showers.
        generated: one entry a repeat.
        control: the reference, smeared; its rows belong to the reference's.
        seed: of splits and draws.
        sizes: of the metrics that take long.
        report: called with what is about to be computed.

    Returns:
        the `groups` of a file of scores: `all` with `n` rows, `particles`, `metrics`, and a `note` where sizes are
        smaller than the published ones.
    """
    if not generated:
        raise ValueError("scores need at least one set of generated showers, got none")
    sizes = sizes or Sizes()
    rows = min(len(reference), *(len(one) for one in generated))
    large = rows > sizes.large
    scores = []
    for number, one in enumerate(generated):
        report(f"scores {number + 1}")
        scores.append(compare(reference, one, seed, sizes))
    found: dict[str, dict[str, list[Result]]] = {kind: {} for kind in ("floor", "matched_floor", "control")}
    for number in range(sizes.splits):
        slow = number < (1 if large else sizes.slow_splits)
        if slow:
            report(f"floor {number + 1}")
        rng = np.random.default_rng([seed, 1, number])
        a, b = halves(len(reference), rng)
        other = generated[number % len(generated)]
        c = rng.permutation(len(other))[: len(b)]
        half = reference.select(a)
        parts = [("floor", reference.select(b), slow), ("matched_floor", other.select(c), slow and not large)]
        if control is not None:
            parts.append(("control", control.select(b), slow))
        for kind, part, all_of_them in parts:
            for name, result in compare(half, part, seed, sizes, all_of_them).items():
                found[kind].setdefault(name, []).append(result)
    half_rows = len(reference) // 2
    notes = {
        "floor": f"random halves: {half_rows} rows of the reference against {half_rows} of the reference",
        "matched_floor": f"random halves: {half_rows} rows of the reference against {half_rows} generated",
        "control": f"{half_rows} rows of the reference against {half_rows} with layer energies smeared by "
        f"{CONTROL:.0%}",
    }
    entries = {}
    for name in SHOWER_METRICS:
        results = [one[name] for one in scores]
        values = [result.value for result in results]
        entries[name] = {
            "values": [finite(value) for value in values],
            **mean_and_std(values),
            **{kind: floor_entry(by_name.get(name, ()), notes[kind]) for kind, by_name in found.items()},
            "particles": None,
            "reason": next((result.reason for result in results if result.reason), ""),
        }
    groups = {"n": len(reference), "particles": len(np.unique(reference.primaries.group))}
    return {"all": {**groups, "note": _note(rows, sizes), "metrics": entries}}


def _note(rows: int, sizes: Sizes) -> str:
    """Says where sizes are smaller than those of the publications; empty where none is."""
    if rows >= COMPARABLE and sizes == Sizes():
        return ""
    top = min(rows, sizes.fpd_largest)
    return (
        f"{rows:,} showers: FPD of up to {top:,} and KPD of batches of {min(sizes.kpd_batch, rows // 2):,} are not "
        f"comparable with published numbers, which have 50,000 and 10,000"
    )
