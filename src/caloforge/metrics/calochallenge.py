"""The judgement of the Fast Calorimeter Simulation Challenge: features of showers, and distances made of them.

Voxels below the detector's threshold are set to 0 first, in both samples. With x the voxels of a layer [MeV], z one
of eta = r cos(alpha), phi = r sin(alpha) and r at their middles [mm], and <z> = sum z x / (sum x + 1e-16):

- layer energy E_l = sum x; E_tot their sum;
- centre <z>, width sqrt(max(<z^2> - <z>^2, 0)), of layers with more than one angle;
- sparsity: 1 - share of the layer's voxels above 0;
- depth of radial slice k: d_k = sum_l l E_lk / (E_k + 1e-8), where all layers are alike.

The high-level features, 362 for 45 layers, are log10 E_inc, log10(E_l + 1e-8), the centres and the widths in eta
and phi over 100, log10(E_tot + 1e-8), the sparsities, the centres in r and the widths in r.

What to use when: separation powers say which distribution is wrong; FPD and KPD see correlations between the
features; precision, recall, density and coverage look at the voxels themselves, and tell showers like none of the
simulation's (precision, density) from kinds of showers that are missing (recall, coverage). The classifiers of
`caloforge.evaluation.classifier` see everything, and need training.

Sizes are those of the publications where there are rows enough, and smaller by a fixed rule where not (`Sizes`);
values of different sizes cannot be compared, and scores say so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caloforge.detectors import Detector
from caloforge.events import Events, EventSource, Primaries, Rows, in_slices, with_responses
from caloforge.metrics.observables import Result
from caloforge.metrics.scores import Metric, finite, floor_entry, halves, mean_and_std

Values = NDArray[np.float64]

SPECTRUM_EDGES = 50
"""Edges of the voxel spectrum, evenly spaced in the logarithm from the threshold to the reference's largest voxel."""

LAYER_EDGES = 40
"""Edges of a layer's energy, likewise, to the layer's largest energy in the reference."""

RATIO = np.linspace(0.5, 1.5, 101)
"""Edges of E_tot / E_inc."""

CENTRE = np.linspace(-30.0, 30.0, 101)
CENTRE_R = np.linspace(0.0, 42.0, 101)
WIDTH = np.linspace(0.0, 30.0, 101)
WIDTH_R = np.linspace(0.0, 20.0, 101)
SPARSITY = np.linspace(0.0, 1.0, 21)

COMPARABLE = 50_000
"""Rows of both sets from which FPD and KPD have the sizes of the publications."""

CONTROL = 0.05
"""Relative smearing of the layer energies in the positive control."""

_BLOCK_CELLS = 2**21
_TINY = 1e-16
_Z = ("eta", "phi", "r")


@dataclass(frozen=True)
class Sizes:
    """How many showers the distances that take long are computed from, and how often.

    Attributes:
        fpd_largest: rows of the largest of ten sizes; fewer where a set has fewer. The smallest is a fifth of it.
        fpd_draws: random draws at each size.
        kpd_batch: rows of a batch; half of the smaller set where that is less.
        kpd_batches: batches.
        prdc_rows: rows for precision, recall, density and coverage.
        splits: random halves of the reference behind a floor.
        slow_splits: the same for the distances that take long.
        large: rows from which that is one, without a matched floor, since sizes then no longer grow.
    """

    fpd_largest: int = 50_000
    fpd_draws: int = 20
    kpd_batch: int = 10_000
    kpd_batches: int = 10
    prdc_rows: int = 5_000
    splits: int = 20
    slow_splits: int = 3
    large: int = 20_000


# What is kept of showers


@dataclass(frozen=True, eq=False)
class Showers:
    """Numbers of a set of showers, row by row.

    Attributes:
        primaries: the particles, N of them.
        layers: energy of each layer [MeV], (N, L).
        centres: centre of each layer with angles in eta, phi and r [mm], (N, C, 3).
        widths: its width likewise [mm], (N, C, 3).
        sparsity: share of a layer's voxels that are empty, (N, L).
        depth: mean layer of each radial slice, (N, R); R = 0 where layers differ.
        spectrum: voxels of each bin of `edges`, (N, B).
        edges: of the voxel spectrum [MeV], (B + 1,).
        voxels: log10 of the voxels [MeV] plus 1, empty ones as 0.1 MeV and thus 0, of some of the rows, (M, cells).
        kept: place of each row in `voxels`, or -1, (N,).
    """

    primaries: Primaries
    layers: Values
    centres: Values
    widths: Values
    sparsity: Values
    depth: Values
    spectrum: NDArray[np.uint16]
    edges: Values
    voxels: NDArray[np.float32]
    kept: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.layers)

    @property
    def incident(self) -> Values:
        """Incident energies [MeV], (N,)."""
        return self.primaries.feature("incident_energy").astype(np.float64)

    @property
    def total(self) -> Values:
        """E_tot [MeV], (N,)."""
        return np.asarray(self.layers.sum(1))

    @property
    def ratio(self) -> Values:
        """E_tot / E_inc, (N,)."""
        return self.total / self.incident

    @property
    def features(self) -> Values:
        """The high-level features in the order of the module's docstring, (N, F)."""
        return np.column_stack(
            [
                np.log10(self.incident),
                np.log10(self.layers + 1e-8),
                *(self.centres[:, :, k] / 100 for k in (0, 1)),
                *(self.widths[:, :, k] / 100 for k in (0, 1)),
                np.log10(self.total + 1e-8),
                self.sparsity,
                self.centres[:, :, 2],
                self.widths[:, :, 2],
            ]
        )

    def select(self, rows: Rows) -> Showers:
        """Returns some of the rows; the voxels are shared."""
        names = ("layers", "centres", "widths", "sparsity", "depth", "spectrum", "kept")
        chosen: dict[str, Any] = {name: getattr(self, name)[rows] for name in names}
        return replace(self, primaries=self.primaries.select(rows), **chosen)

    def some_voxels(self, most: int) -> NDArray[np.float32]:
        """Returns the voxels of the first rows that have them, at most `most`, (M, cells)."""
        return self.voxels[self.kept[self.kept >= 0][:most]]


def feature_names(detector: Detector) -> tuple[str, ...]:
    """Names the high-level features of a detector, in order."""
    numbers = [layer.number for layer in detector.layers]
    wide = [layer.number for layer in detector.layers if layer.angles > 1]
    return (
        "log10 E_inc",
        *(f"log10 E_{number}" for number in numbers),
        *(f"centre {z} {number}" for z in ("eta", "phi") for number in wide),
        *(f"width {z} {number}" for z in ("eta", "phi") for number in wide),
        "log10 E_tot",
        *(f"sparsity {number}" for number in numbers),
        *(f"{what} r {number}" for what in ("centre", "width") for number in wide),
    )


def cut(detector: Detector, responses: NDArray[np.generic]) -> Values:
    """Returns the voxels of showers, (N, *shape), as (N, cells) float64 with those below the threshold at 0."""
    voxels = responses.reshape(len(responses), -1).astype(np.float64)
    voxels[voxels < detector.threshold] = 0
    return voxels


def moments_of(detector: Detector, voxels: Values) -> dict[str, Values]:
    """Computes layers, centres, widths, sparsity and depth of voxels [MeV], (N, cells), as `Showers` has them."""
    rows, start = len(voxels), 0
    found: dict[str, list[Values]] = {"layers": [], "sparsity": [], "centres": [], "widths": []}
    for layer in detector.layers:
        part = voxels[:, start : start + layer.cells]
        start += layer.cells
        z = np.stack(layer.centres, 1)
        sums = part @ np.column_stack([np.ones(layer.cells), z, z**2])
        found["layers"].append(sums[:, 0])
        found["sparsity"].append(1 - np.count_nonzero(part, axis=1) / layer.cells)
        if layer.angles > 1:
            mean, square = (sums[:, k : k + 3] / (sums[:, :1] + _TINY) for k in (1, 4))
            found["centres"].append(mean)
            found["widths"].append(np.sqrt(np.maximum(square - mean**2, 0)))
    empty = np.empty((rows, 0, 3))
    moments = {name: np.stack(parts, 1) if parts else empty for name, parts in found.items()}
    moments["depth"] = np.empty((rows, 0))
    if len(detector.shape) == 3:
        slices = voxels.reshape(rows, *detector.shape).sum(2)
        numbers = np.array([layer.number for layer in detector.layers])
        moments["depth"] = np.einsum("l,nlk->nk", numbers, slices) / (slices.sum(1) + 1e-8)
    return moments


def spectrum_of(voxels: Values, edges: Values) -> NDArray[np.uint16]:
    """Counts the voxels of each shower, (N, cells), in bins, (N, B); those outside are left out."""
    row, column = np.nonzero(voxels)
    place = _places(voxels[row, column], edges)
    inside = place >= 0
    bins = len(edges) - 1
    counts = np.bincount(row[inside] * bins + place[inside], minlength=len(voxels) * bins)
    return counts.reshape(len(voxels), bins).astype(np.uint16)


def _places(values: Values, edges: Values) -> NDArray[np.intp]:
    """Returns the bin of each value, the last one closed on both sides; -1 for values outside."""
    place = np.searchsorted(edges, values, side="right") - 1
    place[values == edges[-1]] = len(edges) - 2
    return np.where(place == len(edges) - 1, -1, place)


def spectrum_edges(source: EventSource) -> Values:
    """Reads a reference once and returns the edges of its voxel spectrum [MeV].

    Raises:
        ValueError: no voxel above the threshold.
    """
    low = source.primaries.detector.threshold
    high = max(float(events.responses.max(initial=0)) for events in in_slices(source))
    if not high > low:
        raise ValueError(f"the reference has no voxel above the threshold of {low:g} MeV")
    return _log_edges(low, high, SPECTRUM_EDGES)


def _log_edges(low: float, high: float, number: int) -> Values:
    edges = np.geomspace(low, high, number)
    edges[[0, -1]] = low, high  # exactly, so that the largest value lies in the last bin
    return edges


def observe_showers(
    source: EventSource, edges: Values | None = None, sizes: Sizes | None = None, seed: int = 0
) -> Showers:
    """Reads showers slice by slice and keeps what the metrics need of each.

    Args:
        source: showers of a detector with layers, in memory or a file.
        edges: of the voxel spectrum, those of the reference; of the source itself where not given, which reads it
            twice.
        sizes: says of how many rows the voxels are kept: twice `prdc_rows`, drawn at random.
        seed: of that draw.

    Raises:
        ValueError: the detector has no layers, or there are no showers.
    """
    primaries, rows = source.primaries, len(source)
    detector = primaries.detector
    if not detector.layers or rows == 0:
        raise ValueError(f"wanted showers of a detector with layers, got {rows} events of {detector.name}")
    edges = spectrum_edges(source) if edges is None else edges
    most = min(2 * (sizes or Sizes()).prdc_rows, rows)
    kept = np.full(rows, -1)
    kept[np.sort(np.random.default_rng([seed, 0, 1]).permutation(rows)[:most])] = np.arange(most)
    voxels = np.empty((most, detector.cells), np.float32)
    parts: list[dict[str, Values]] = []
    spectra = []
    start, block = 0, max(_BLOCK_CELLS // detector.cells, 1)
    for events in in_slices(source):
        for first in range(0, len(events), block):
            cells = cut(detector, events.responses[first : first + block])
            parts.append(moments_of(detector, cells))
            spectra.append(spectrum_of(cells, edges))
            here = kept[start : start + len(cells)]
            voxels[here[here >= 0]] = np.log10(np.where(cells > 0, 10 * cells, 1))[here >= 0]
            start += len(cells)
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Showers(
        primaries, **columns, spectrum=np.concatenate(spectra), edges=edges, voxels=voxels, kept=kept
    )


class Smeared:
    """A source whose layer energies are multiplied by 1 + `by` times a normal each: the positive control.

    Args:
        source: showers.
        by: relative smearing.
        seed: of the normals.
    """

    def __init__(self, source: EventSource, by: float = CONTROL, seed: int = 0) -> None:
        self._source = source
        self.primaries = source.primaries
        layers = self.primaries.detector.layers
        normals = np.random.default_rng([seed, 0, 2]).standard_normal((len(source), len(layers)), np.float32)
        self._factors = np.maximum(1 + np.float32(by) * normals, 0)
        self._cells = [layer.cells for layer in layers]

    def __len__(self) -> int:
        return len(self._source)

    def slices(self, rows: Rows) -> Events:
        """Reads some rows."""
        events = self._source.slices(rows)
        factors = np.repeat(self._factors[rows], self._cells, axis=1).reshape(events.responses.shape)
        return with_responses(events.primaries, events.responses * factors)


# Separation powers


def separation(counts: ArrayLike, others: ArrayLike) -> float:
    """Compares two histograms of the same bins: 0.5 sum (h1 - h2)^2 / (h1 + h2 + 1e-16), each of unit sum.

    0 for equal ones, 1 for ones without a bin in common; NaN where one is empty.
    """
    h1, h2 = np.asarray(counts, np.float64), np.asarray(others, np.float64)
    if not h1.sum() or not h2.sum():
        return math.nan
    h1, h2 = h1 / h1.sum(), h2 / h2.sum()
    return float(0.5 * ((h1 - h2) ** 2 / (h1 + h2 + _TINY)).sum())


def _of_columns(columns: Sequence[tuple[Values, Values, Values]], what: str) -> Result:
    """Averages the separation of columns (values, others, edges); columns without an entry are left out."""
    values = []
    for ours, theirs, edges in columns:
        counts, others = (
            np.bincount(place[place >= 0], minlength=len(edges) - 1)
            for place in (_places(ours, edges), _places(theirs, edges))
        )
        if counts.sum():
            values.append(separation(counts, others) if others.sum() else 1.0)
    if not values:
        return Result(math.nan, reason=f"no {what} within the bins")
    return Result(float(np.mean(values)))


def _sep_layers(reference: Showers, generated: Showers, seed: int, sizes: Sizes) -> Result:
    low = reference.primaries.detector.threshold
    columns = []
    for number in range(reference.layers.shape[1]):
        ours, theirs = reference.layers[:, number], generated.layers[:, number]
        if ours.max() > low:
            columns.append((ours, theirs, _log_edges(low, float(ours.max()), LAYER_EDGES)))
    return _of_columns(columns, "layer energy")


def _sep_total(reference: Showers, generated: Showers, seed: int, sizes: Sizes) -> Result:
    return _of_columns([(reference.ratio, generated.ratio, RATIO)], "E_tot / E_inc")


def _sep_voxels(reference: Showers, generated: Showers, seed: int, sizes: Sizes) -> Result:
    value = separation(*(one.spectrum.sum(0, dtype=np.int64) for one in (reference, generated)))
    return Result(value, reason="no voxel within the bins" if math.isnan(value) else "")


def _sep_sparsity(reference: Showers, generated: Showers, seed: int, sizes: Sizes) -> Result:
    pairs = zip(reference.sparsity.T, generated.sparsity.T, strict=True)
    return _of_columns([(ours, theirs, SPARSITY) for ours, theirs in pairs], "sparsity")


def _sep_moment(name: str, z: int, edges: Values) -> Callable[..., Result]:
    def of(reference: Showers, generated: Showers, seed: int, sizes: Sizes) -> Result:
        pairs = zip(getattr(reference, name)[:, :, z].T, getattr(generated, name)[:, :, z].T, strict=True)
        return _of_columns([(ours, theirs, edges) for ours, theirs in pairs], name)

    return of


# Frechet and kernel distances


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


def _fpd(reference: Showers, generated: Showers, seed: int, sizes: Sizes) -> Result:
    if min(len(reference), len(generated)) < 10:
        return Result(math.nan, reason="fewer than 10 showers")
    return Result(1e3 * fpd(reference.features, generated.features, seed, sizes))


def _kpd(reference: Showers, generated: Showers, seed: int, sizes: Sizes) -> Result:
    if min(len(reference), len(generated)) < 10:
        return Result(math.nan, reason="fewer than 10 showers")
    return Result(1e3 * kpd(reference.features, generated.features, seed, sizes))


# Precision, recall, density, coverage

NEIGHBOURS = 5
"""k of precision, recall, density and coverage."""


def prdc(
    real: NDArray[np.floating], generated: NDArray[np.floating], k: int = NEIGHBOURS
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
        "precision": float((inside_real > 0).mean()),
        "recall": float(np.concatenate(recalled).mean()),
        "density": float(inside_real.mean() / k),
        "coverage": float(np.concatenate(covered).mean()),
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


def _prdc(reference: Showers, generated: Showers, sizes: Sizes) -> dict[str, Result]:
    rows = min(sizes.prdc_rows, *(int((one.kept >= 0).sum()) for one in (reference, generated)))
    if rows <= NEIGHBOURS:
        none = Result(math.nan, reason=f"needs more than {NEIGHBOURS} showers of each set")
        return dict.fromkeys(("precision", "recall", "density", "coverage"), none)
    found = prdc(reference.some_voxels(rows), generated.some_voxels(rows))
    return {name: Result(value) for name, value in found.items()}


# The table, and scores


def _metric(name: str, title: str, unit: str, function: Any, formula: str, symmetric: bool = False) -> Metric:
    return Metric(name, title, unit, "showers", "halves", function, formula, symmetric=symmetric)


_SEPARATION = "separation power, 0.5 sum (h1 - h2)^2 / (h1 + h2)"
_DISTANCE = "features over max |real|"
_POINTS = f"k = {NEIGHBOURS}, log10 of the voxels, empty ones 0.1 MeV"

SHOWER_METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        _metric("sep_layers", "sep. E_layer", "", _sep_layers, f"{_SEPARATION}, of E_l, mean over layers"),
        _metric("sep_total", "sep. E_tot/E_inc", "", _sep_total, f"{_SEPARATION}, of E_tot / E_inc", True),
        _metric("sep_voxels", "sep. voxels", "", _sep_voxels, f"{_SEPARATION}, of voxel energies"),
        *(
            _metric(
                f"sep_{what}_{z}", f"sep. {what} {z}", "", _sep_moment(moment, k, edges),
                f"{_SEPARATION}, of the {what} in {z}, mean over layers", True,
            )
            for what, moment, edges_of in (
                ("centre", "centres", (CENTRE, CENTRE, CENTRE_R)), ("width", "widths", (WIDTH, WIDTH, WIDTH_R)),
            )
            for k, (z, edges) in enumerate(zip(_Z, edges_of, strict=True))
        ),
        _metric("sep_sparsity", "sep. sparsity", "", _sep_sparsity, f"{_SEPARATION}, mean over layers", True),
        _metric(
            "fpd", "FPD", "10⁻³", _fpd,
            f"|mu1 - mu2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) at 1/N -> 0, {_DISTANCE}",
        ),
        _metric("kpd", "KPD", "10⁻³", _kpd, f"median over batches of MMD^2, kernel (x.y / F + 1)^4, {_DISTANCE}"),
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
    return found | (_prdc(reference, generated, sizes) if slow else {})


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
