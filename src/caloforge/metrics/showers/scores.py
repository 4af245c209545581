"""The judgement of the Fast Calorimeter Simulation Challenge: every metric of showers, with floor and control.

What to use when: separation powers say which distribution is wrong; FPD and KPD see correlations between the
features and are what publications state, `frechet_population` and `kernel_population` are better estimates of the
same; precision, recall, density and coverage look at the voxels themselves, and tell showers like none of the
simulation's (precision, density) from kinds of showers that are missing (recall, coverage). The classifiers of
`caloforge.evaluation.classifier` see everything, and need training.

FPD, KPD and the classifiers depend on the number of rows: with fewer than the publications have, values do not
compare with published ones, and scores say so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from caloforge.metrics.observables import Result
from caloforge.metrics.scores import Metric, effective, finite, floor_entry, halves, mean_and_std
from caloforge.metrics.showers.challenge import PUBLISHED_ROWS, challenge_numbers, data_set, unit_doubt
from caloforge.metrics.showers.features import CONTROL, Showers, Sizes
from caloforge.metrics.showers.frechet import fpd_of, frechet_population_of, kernel_population_of, kpd_of
from caloforge.metrics.showers.neighbours import NEIGHBOURS, prdc_of
from caloforge.metrics.showers.separation import (
    Z,
    layer_energies,
    mean_separation,
    moments,
    sparsities,
    total_separation,
    voxel_energies,
)


def _metric(name: str, title: str, unit: str, function: Any, formula: str, symmetric: bool = False) -> Metric:
    return Metric(name, title, unit, "showers", "halves", function, formula, symmetric=symmetric)


_SEPARATION = "separation power, 0.5 sum (h1 - h2)^2 / (h1 + h2)"
_FRECHET = "|mu1 - mu2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) at 1/N"
_KERNEL = "median over batches of MMD^2, kernel (x.y / F + 1)^4"
_DISTANCE = "features over max |real|"
_POINTS = f"k = {NEIGHBOURS}, log10 of the voxels, empty ones 0.1 MeV"

SHOWER_METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        _metric(
            "sep_layers", "sep. E_layer", "", mean_separation(layer_energies, "layer energy"),
            f"{_SEPARATION}, of E_l, mean over layers",
        ),
        _metric("sep_total", "sep. E_tot/E_inc", "", total_separation, f"{_SEPARATION}, of E_tot / E_inc", True),
        _metric(
            "sep_voxels", "sep. voxels", "", mean_separation(voxel_energies, "voxel"),
            f"{_SEPARATION}, of voxel energies",
        ),
        *(
            _metric(
                f"sep_{what}_{z}", f"sep. {what} {z}", "",
                mean_separation(partial(moments, moment=f"{what}s", z=z), f"{what} in {z}"),
                f"{_SEPARATION}, of the {what} in {z}, mean over layers", True,
            )
            for what in ("centre", "width")
            for z in Z
        ),
        _metric(
            "sep_sparsity", "sep. sparsity", "", mean_separation(sparsities, "sparsity"),
            f"{_SEPARATION}, mean over layers", True,
        ),
        _metric("fpd", "FPD", "10⁻³", fpd_of, f"{_FRECHET} -> 0, drawn with replacement, {_DISTANCE}"),
        _metric("kpd", "KPD", "10⁻³", kpd_of, f"{_KERNEL}, drawn with replacement, {_DISTANCE}"),
        _metric(
            "frechet_population", "Frechet distance", "10⁻³", frechet_population_of,
            f"{_FRECHET} -> 0, drawn without replacement, {_DISTANCE}",
        ),
        _metric(
            "kernel_population", "kernel distance", "10⁻³", kernel_population_of,
            f"{_KERNEL}, drawn without replacement, {_DISTANCE}",
        ),
        _metric("precision", "precision", "", None, f"share of generated within a real radius, {_POINTS}"),
        _metric("recall", "recall", "", None, f"share of real within a generated radius, {_POINTS}"),
        _metric("density", "density", "", None, f"real radii a generated shower lies in, over k, {_POINTS}"),
        _metric("coverage", "coverage", "", None, f"share of real radii that hold a generated one, {_POINTS}"),
    )
}  # fmt: skip
"""Metrics of showers by name; a function takes reference, generated, seed and sizes."""

_PAIRS = "share of pairs of a true and a generated shower that are put in order"
_BITS = "1 + mean log2 of the probability of the right class"
_VIEWS = {
    "low": "voxels / E_inc",
    "low-normed": "voxels / E_layer and E_layer",
    "high": "the high-level features",
    "resnet": "voxels / E_inc, 3-D ResNet-18",
}

CLASSIFIER_METRICS: dict[str, Metric] = {
    metric.name: metric
    for view, of in _VIEWS.items()
    for metric in (
        _metric(f"auc_{view}", f"AUC, {view}", "", None, f"{_PAIRS}, calibrated, classifier of {of}"),
        _metric(f"jsd_{view}", f"JSD, {view}", "bits", None, f"{_BITS}, calibrated, classifier of {of}"),
        _metric(f"auc_raw_{view}", f"AUC, {view}, raw", "", None, f"{_PAIRS}, classifier of {of}"),
        _metric(f"jsd_raw_{view}", f"JSD, {view}, raw", "bits", None, f"{_BITS}, classifier of {of}"),
    )
}
"""What `caloforge.evaluation.classifier` adds to scores, for tables; it has its own functions."""

CHALLENGE = ("fpd", "kpd")
"""Metrics that take longest, since they draw as many rows from small sets as from large ones: one split's floor."""

SLOW = (*CHALLENGE, "frechet_population", "kernel_population", "precision", "recall", "density", "coverage")
"""Metrics whose floors are of few splits."""


def compare(
    reference: Showers,
    generated: Showers,
    seed: int = 0,
    sizes: Sizes | None = None,
    slow: bool = True,
    challenge: bool = True,
) -> dict[str, Result]:
    """Computes every metric, by name.

    Args:
        reference: simulated showers.
        generated: generated ones; their rows need not be those of the reference.
        seed: of random draws.
        sizes: of the metrics that take long.
        slow: whether to compute those too.
        challenge: with `slow`, whether to compute FPD and KPD.

    Raises:
        ValueError: other edges of the voxel spectrum.
    """
    if not np.array_equal(reference.edges, generated.edges):
        raise ValueError("both sets must have the reference's edges of the voxel spectrum")
    sizes = sizes or Sizes()
    results = {
        name: metric.function(reference, generated, seed, sizes)
        for name, metric in SHOWER_METRICS.items()
        if metric.function is not None and (slow or name not in SLOW) and (challenge or name not in CHALLENGE)
    }
    return results | (prdc_of(reference, generated, sizes) if slow else {})


def score_showers(
    reference: Showers,
    generated: Sequence[Showers],
    control: Showers | None = None,
    seed: int = 0,
    sizes: Sizes | None = None,
    report: Callable[[str], None] = lambda what: None,
    known: Mapping[str, Mapping[str, Any]] | None = None,
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
        known: `floor` and `control` of every metric, where they were computed before for this reference, seed and
            sizes; they do not depend on what was generated.

    Returns:
        the `groups` of a file of scores: `all` with `n` rows, `particles`, `metrics`, the numbers of the `challenge`
        of the first repeat, and a `note` of what keeps them from being compared.
    """
    if not generated:
        raise ValueError("scores need at least one set of generated showers, got none")
    sizes = sizes or Sizes()
    rows = min(len(reference), *(len(observed) for observed in generated))
    large = rows > sizes.large
    scores = []
    for number, observed in enumerate(generated):
        report(f"scores {number + 1}")
        scores.append(compare(reference, observed, seed, sizes))
    levels: dict[str, dict[str, list[Result]]] = {kind: {} for kind in ("floor", "matched_floor", "control")}
    for number in range(sizes.splits):
        slow = number < (1 if large else sizes.slow_splits)
        if slow:
            report(f"floor {number + 1}")
        rng = np.random.default_rng([seed, 1, number])
        a, b = halves(len(reference), rng)
        other = generated[number % len(generated)]
        c = rng.permutation(len(other))[: len(b)]
        half = reference.select(a)
        parts = [("matched_floor", other.select(c), slow and not large)]
        if not known:
            parts.append(("floor", reference.select(b), slow))
        if not known and control is not None:
            parts.append(("control", control.select(b), slow))
        for kind, part, all_of_them in parts:
            for name, result in compare(half, part, seed, sizes, all_of_them, number == 0).items():
                levels[kind].setdefault(name, []).append(result)
    half_rows = len(reference) // 2
    notes = {
        "floor": f"random halves: {half_rows} rows of the reference against {half_rows} of the reference",
        "matched_floor": f"random halves: {half_rows} rows of the reference against {half_rows} generated",
        "control": f"{half_rows} rows of the reference against {half_rows} with layer energies smeared by "
        f"{CONTROL:.0%}",
    }
    entries = {}
    for name in SHOWER_METRICS:
        results = [observed[name] for observed in scores]
        values = [result.value for result in results]
        entries[name] = {
            "values": [finite(value) for value in values],
            **mean_and_std(values),
            **{kind: floor_entry(by_name.get(name, ()), notes[kind]) for kind, by_name in levels.items()},
            **(known or {}).get(name, {}),
            "particles": None,
            "reason": next((result.reason for result in results if result.reason), ""),
        }
    groups = {"n": len(reference), "particles": len(np.unique(reference.primaries.group))}
    sets = [("the reference's showers", reference), ("the generated showers", generated[0])]
    doubts = [f"{name} have {doubt}" for name, showers in sets if (doubt := unit_doubt(showers))]
    notes_of_all = [_note(reference, rows, sizes), _cut_note(sets), *doubts]
    return {
        "all": {
            **groups,
            **effective(generated),
            "note": "; ".join(filter(None, notes_of_all)),
            "metrics": entries,
            "challenge": challenge_numbers(reference, generated[0], scores[0]),
        }
    }


def _note(showers: Showers, rows: int, sizes: Sizes) -> str:
    """Says where there are fewer rows than publications have, or other sizes; empty where there are not."""
    name = data_set(showers.primaries.detector)
    published = PUBLISHED_ROWS.get(name or "", max(PUBLISHED_ROWS.values()))
    if rows >= published and sizes == Sizes():
        return ""
    return (
        f"{rows:,} showers: FPD, KPD and classifiers are not comparable with published numbers, which have "
        f"{published:,} of each set"
    )


def _cut_note(sets: Sequence[tuple[str, Showers]]) -> str:
    """Says how many voxels were set to 0 for being below the threshold; empty where none was."""
    counts = [f"{below:,} of {name}" for name, showers in sets if (below := int(showers.below.sum()))]
    threshold = sets[0][1].primaries.detector.threshold
    return f"voxels below {threshold:.4g} MeV, set to 0: {', '.join(counts)}" if counts else ""
