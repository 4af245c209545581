"""Reads showers of voxels and keeps what their metrics need: the high-level features, the spectrum, some voxels.

Voxels below the detector's threshold are set to 0 first. With x the voxels of a layer [MeV], z one of
eta = r cos(alpha), phi = r sin(alpha) and r at their middles [mm], and <z> = sum z x / (sum x + 1e-16):

- layer energy E_l = sum x; E_tot their sum;
- centre <z>, width sqrt(max(<z^2> - <z>^2, 0)); in eta and phi of layers with more than one angle;
- sparsity: 1 - share of the layer's voxels above 0;
- depth of radial slice k: d_k = sum_l l E_lk / (E_k + 1e-8), where all layers are alike.

The high-level features are log10 E_inc, log10(E_l + 1e-8), the centres and the widths in eta and phi over 100,
log10(E_tot + 1e-8), the sparsities, the centres in r and the widths in r over 100: 362 for data sets 2 and 3, 30 for
the photons of data set 1 and 46 for its pions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.detectors import Detector
from caloforge.events import Events, EventSource, Primaries, Rows, in_slices, with_responses
from caloforge.metrics.showers.sparse import SparseRows
from caloforge.metrics.weights import Weights, select, weights_of

Values = NDArray[np.float64]

SPECTRUM_EDGES = 50
"""Edges of the voxel spectrum, evenly spaced in the logarithm from the threshold to the reference's largest voxel."""

CONTROL = 0.05
"""Relative smearing of the layer energies in the positive control."""

TINY = 1e-16
"""Added to sums that something is divided by."""

_BLOCK_CELLS = 2**21


@dataclass(frozen=True)
class Sizes:
    """How many showers the distances that take long are computed from, and how often.

    Attributes:
        fpd_least: rows of the smallest of ten draws of the Frechet distance.
        fpd_largest: rows of the largest.
        fpd_draws: random draws at each size.
        kpd_batch: rows of a draw of the kernel distance.
        kpd_batches: such draws.
        prdc_rows: rows for precision, recall, density and coverage.
        splits: random halves of the reference behind a floor.
        slow_splits: the same for the distances that take long.
        large: rows from which that is one, without a matched floor, since sizes then no longer grow.
    """

    fpd_least: int = 10_000
    fpd_largest: int = 50_000
    fpd_draws: int = 20
    kpd_batch: int = 10_000
    kpd_batches: int = 10
    prdc_rows: int = 5_000
    splits: int = 20
    slow_splits: int = 3
    large: int = 20_000


@dataclass(frozen=True, eq=False)
class Showers:
    """Numbers of a set of showers, row by row.

    Attributes:
        primaries: the particles, N of them.
        layers: energy of each layer [MeV], (N, L).
        centres: centre of each layer in eta, phi and r [mm], (N, L, 3).
        widths: its width likewise [mm], (N, L, 3).
        sparsity: share of a layer's voxels that are empty, (N, L).
        depth: mean layer of each radial slice, (N, R); R = 0 where layers differ.
        spectrum: voxels of each bin of `edges`, (N, B).
        edges: of the voxel spectrum [MeV], (B + 1,).
        voxels: log10 of the voxels [MeV] plus 1, empty ones as 0.1 MeV and thus 0, of some of the rows, (M, cells).
        kept: place of each row in `voxels`, or -1, (N,).
        below: voxels between 0 and the threshold, which count as empty, (N,).
    """

    primaries: Primaries
    layers: Values
    centres: Values
    widths: Values
    sparsity: Values
    depth: Values
    spectrum: NDArray[np.uint16]
    edges: Values
    voxels: SparseRows
    kept: NDArray[np.intp]
    below: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.layers)

    @property
    def weights(self) -> Weights | None:
        """Weights of the rows over their mean, (N,); None where all count alike."""
        return weights_of(self.primaries)

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
        wide = wide_layers(self.primaries.detector)
        return np.column_stack(
            [
                np.log10(self.incident),
                np.log10(self.layers + 1e-8),
                *(self.centres[:, wide, k] / 100 for k in (0, 1)),
                *(self.widths[:, wide, k] / 100 for k in (0, 1)),
                np.log10(self.total + 1e-8),
                self.sparsity,
                self.centres[:, :, 2] / 100,
                self.widths[:, :, 2] / 100,
            ]
        )

    def select(self, rows: Rows) -> Showers:
        """Returns some of the rows; the voxels are shared."""
        names = ("layers", "centres", "widths", "sparsity", "depth", "spectrum", "kept", "below")
        chosen: dict[str, Any] = {name: getattr(self, name)[rows] for name in names}
        return replace(self, primaries=self.primaries.select(rows), **chosen)

    def some_voxels(self, most: int) -> NDArray[np.float32]:
        """Returns the voxels of the first rows that have them, at most `most`, (M, cells)."""
        return self.voxels[self.kept[self._with_voxels(most)]]

    def _with_voxels(self, most: int) -> NDArray[np.intp]:
        return np.flatnonzero(self.kept >= 0)[:most]

    def some_weights(self, most: int) -> Weights | None:
        """Returns the weights of the rows of `some_voxels`, (M,); None where all count alike."""
        return select(self.weights, self._with_voxels(most))


def wide_layers(detector: Detector) -> list[int]:
    """Returns the places of the layers with more than one angle, which have a centre in eta and phi."""
    return [place for place, layer in enumerate(detector.layers) if layer.angles > 1]


def directions(primaries: Primaries) -> Values:
    """Returns sin(theta) cos(phi) and sin(theta) sin(phi) of particles, (N, 2); (N, 0) where they have no angles."""
    if not {"theta", "phi"} <= set(primaries.detector.features):
        return np.empty((len(primaries), 0))
    theta, phi = (primaries.feature(name).astype(np.float64) for name in ("theta", "phi"))
    return np.column_stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi)])


def feature_names(detector: Detector) -> tuple[str, ...]:
    """Names the high-level features of a detector, in order."""
    numbers = [layer.number for layer in detector.layers]
    wide = [numbers[place] for place in wide_layers(detector)]
    return (
        "log10 E_inc",
        *(f"log10 E_{number}" for number in numbers),
        *(f"centre {z} {number}" for z in ("eta", "phi") for number in wide),
        *(f"width {z} {number}" for z in ("eta", "phi") for number in wide),
        "log10 E_tot",
        *(f"sparsity {number}" for number in numbers),
        *(f"{what} r {number}" for what in ("centre", "width") for number in numbers),
    )


def cut(detector: Detector, responses: NDArray[np.generic]) -> Values:
    """Returns the voxels of showers, (N, *shape), as (N, cells) float64 with those below the threshold at 0."""
    voxels = responses.reshape(len(responses), -1).astype(np.float64)
    voxels[voxels < detector.threshold] = 0
    return voxels


def moments_of(detector: Detector, voxels: Values) -> dict[str, Values]:
    """Computes layers, centres, widths, sparsity and depth of voxels [MeV], (N, cells), as `Showers` has them."""
    rows, start = len(voxels), 0
    by_name: dict[str, list[Values]] = {"layers": [], "sparsity": [], "centres": [], "widths": []}
    for layer in detector.layers:
        part = voxels[:, start : start + layer.cells]
        start += layer.cells
        z = np.stack(layer.centres, 1)
        sums = part @ np.column_stack([np.ones(layer.cells), z, z**2])
        by_name["layers"].append(sums[:, 0])
        by_name["sparsity"].append(1 - np.count_nonzero(part, axis=1) / layer.cells)
        mean, square = (sums[:, k : k + 3] / (sums[:, :1] + TINY) for k in (1, 4))
        by_name["centres"].append(mean)
        by_name["widths"].append(np.sqrt(np.maximum(square - mean**2, 0)))
    moments = {name: np.stack(parts, 1) for name, parts in by_name.items()}
    moments["depth"] = np.empty((rows, 0))
    if len(detector.shape) == 3:
        slices = voxels.reshape(rows, *detector.shape).sum(2)
        numbers = np.array([layer.number for layer in detector.layers])
        moments["depth"] = np.einsum("l,nlk->nk", numbers, slices) / (slices.sum(1) + 1e-8)
    return moments


def spectrum_of(voxels: Values, edges: Values) -> NDArray[np.uint16]:
    """Counts the voxels of each shower, (N, cells), in bins, (N, B); those outside are left out."""
    row, column = np.nonzero(voxels)
    place = places_of(voxels[row, column], edges)
    inside = place >= 0
    bins = len(edges) - 1
    counts = np.bincount(row[inside] * bins + place[inside], minlength=len(voxels) * bins)
    return counts.reshape(len(voxels), bins).astype(np.uint16)


def places_of(values: Values, edges: Values) -> NDArray[np.intp]:
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
    return log_edges(low, high, SPECTRUM_EDGES)


def log_edges(low: float, high: float, number: int) -> Values:
    """Returns `number` edges even in the logarithm, the first and the last exactly as they were given."""
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
    places = np.full(rows, -1)
    places[np.sort(np.random.default_rng([seed, 0, 1]).permutation(rows)[:most])] = np.arange(most)
    voxels = SparseRows(most, detector.cells)
    parts: list[dict[str, Values]] = []
    spectra, below = [], []
    start, block = 0, max(_BLOCK_CELLS // detector.cells, 1)
    for events in in_slices(source):
        for first in range(0, len(events), block):
            responses = events.responses[first : first + block].reshape(-1, detector.cells)
            cells = cut(detector, responses)
            below.append(np.count_nonzero(responses, axis=1) - np.count_nonzero(cells, axis=1))
            parts.append(moments_of(detector, cells))
            spectra.append(spectrum_of(cells, edges))
            here = places[start : start + len(cells)]
            logs = np.log10(np.where(cells > 0, 10 * cells, 1)[here >= 0])
            for place, row in zip(here[here >= 0], logs, strict=True):
                voxels.put(int(place), row)
            start += len(cells)
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Showers(
        primaries,
        **columns,
        spectrum=np.concatenate(spectra),
        edges=edges,
        voxels=voxels,
        kept=places,
        below=np.concatenate(below),
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
