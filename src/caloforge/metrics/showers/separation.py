r"""Separation powers of showers: histograms of two sets against each other, 0 for equal ones, 1 for disjoint ones.

They say which distribution is wrong, one at a time:

$$ S = \frac12 \sum_b \frac{(h_b - h'_b)^2}{h_b + h'_b + 10^{-16}} $$

with histograms of unit sum; what lies outside of the bins is dropped before. Bins are those of the Fast Calorimeter
Simulation Challenge (`Bins`): even in the number, but for energies of layers and voxels, which are even in the
logarithm from the threshold to the largest value in the reference. Of showers with weights the histograms hold sums of
weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caloforge.detectors import Detector
from caloforge.metrics.observables import Result
from caloforge.metrics.showers.features import TINY, Showers, Sizes, Values, log_edges, places_of, wide_layers
from caloforge.metrics.weights import Weights, select

LAYER_EDGES = 40
"""Edges of a layer's energy, even in the logarithm from the threshold to the layer's largest one in the reference."""

RATIO = np.linspace(0.5, 1.5, 101)
"""Edges of E_tot / E_inc."""

SPARSITY = np.linspace(0.0, 1.0, 21)

FIXED_ENERGIES = 2.0 ** np.arange(8, 23)
"""Incident energies of data set 1 [MeV], each of which has a histogram of E_tot / E_inc: [E, 2 E)."""

Z = ("eta", "phi", "r")
"""Directions of centres and widths."""


@dataclass(frozen=True)
class Bins:
    """Says where the histograms of centres and widths lie, 100 bins each, in mm.

    Attributes:
        ranges: lower and upper end by `centres eta`, `centres r`, `widths eta`, `widths r`; phi is as eta.
        deep: the same for some layers, by their numbers.
        fixed_energies: whether E_tot / E_inc has a histogram for each of `FIXED_ENERGIES` too.
    """

    ranges: Mapping[str, tuple[float, float]]
    deep: Mapping[str, tuple[tuple[int, ...], tuple[float, float]]]
    fixed_energies: bool = False

    def edges(self, moment: str, z: str, number: int) -> Values:
        """Returns the edges of centres or widths in one direction of the layer of that number, (101,)."""
        key = f"{moment} {'r' if z == 'r' else 'eta'}"
        numbers, deep = self.deep.get(key, ((), (0.0, 0.0)))
        return np.linspace(*(deep if number in numbers else self.ranges[key]), 101)


DENSE = Bins({"centres eta": (-30, 30), "centres r": (0, 42), "widths eta": (0, 30), "widths r": (0, 20)}, {})
"""Histograms of data sets 2 and 3, and of every detector whose layers are alike."""

RAGGED = Bins(
    {"centres eta": (-100, 100), "centres r": (0, 500), "widths eta": (0, 100), "widths r": (0, 500)},
    {
        "centres eta": ((12, 13), (-500, 500)),
        "centres r": ((12, 13, 14), (0, 1500)),
        "widths eta": ((12, 13), (0, 400)),
        "widths r": ((12, 13, 14), (0, 1500)),
    },
    fixed_energies=True,
)
"""Histograms of data set 1, and of every detector whose layers differ."""


def bins_of(detector: Detector) -> Bins:
    """Returns the histograms that a detector is judged by."""
    return DENSE if len(detector.shape) == 3 else RAGGED


def separation(counts: ArrayLike, others: ArrayLike) -> float:
    """Compares two histograms of the same bins: 0.5 sum (h1 - h2)^2 / (h1 + h2 + 1e-16), each of unit sum.

    0 for equal ones, 1 for ones without a bin in common; NaN where one is empty.
    """
    h1, h2 = np.asarray(counts, np.float64), np.asarray(others, np.float64)
    if not h1.sum() or not h2.sum():
        return math.nan
    h1, h2 = h1 / h1.sum(), h2 / h2.sum()
    return float(0.5 * ((h1 - h2) ** 2 / (h1 + h2 + TINY)).sum())


def separation_of(
    ours: Values,
    theirs: Values,
    edges: Values,
    weight: Weights | None = None,
    weight_of_theirs: Weights | None = None,
) -> float:
    """Compares the histograms of values of the reference, (N,), and of others, (M,), with weights where given.

    NaN where the reference has no value within the edges, 1 where the others have none.
    """
    counts, others = (
        np.bincount(place[place >= 0], select(w, place >= 0), minlength=len(edges) - 1)
        for place, w in ((places_of(ours, edges), weight), (places_of(theirs, edges), weight_of_theirs))
    )
    if not counts.sum():
        return math.nan
    return separation(counts, others) if others.sum() else 1.0


Separations = Iterator[tuple[str, float]]


def layer_energies(reference: Showers, generated: Showers) -> Separations:
    """Yields `E_layer NUMBER` and the separation power of its energy; of layers that the reference reaches."""
    detector, weights = reference.primaries.detector, (reference.weights, generated.weights)
    for place, layer in enumerate(detector.layers):
        ours, theirs = reference.layers[:, place], generated.layers[:, place]
        if ours.max() > detector.threshold:
            edges = log_edges(detector.threshold, float(ours.max()), LAYER_EDGES)
            yield f"E_layer {layer.number}", separation_of(ours, theirs, edges, *weights)


def sparsities(reference: Showers, generated: Showers) -> Separations:
    """Yields `sparsity NUMBER` and its separation power, layer by layer."""
    weights = reference.weights, generated.weights
    for place, layer in enumerate(reference.primaries.detector.layers):
        pair = (reference.sparsity[:, place], generated.sparsity[:, place])
        yield f"sparsity {layer.number}", separation_of(*pair, SPARSITY, *weights)


def moments(reference: Showers, generated: Showers, moment: str, z: str) -> Separations:
    """Yields names like `EC_eta NUMBER` and the separation powers of `centres` or `widths` in eta, phi or r.

    Eta and phi: of the layers with more than one angle.
    """
    detector = reference.primaries.detector
    bins, k, weights = bins_of(detector), Z.index(z), (reference.weights, generated.weights)
    for place in range(len(detector.layers)) if z == "r" else wide_layers(detector):
        number = detector.layers[place].number
        ours, theirs = (getattr(showers, moment)[:, place, k] for showers in (reference, generated))
        name = {"centres": "EC", "widths": "width"}[moment]
        yield f"{name}_{z} {number}", separation_of(ours, theirs, bins.edges(moment, z, number), *weights)


def ratios(reference: Showers, generated: Showers) -> Separations:
    """Yields `E_tot/E_inc` and its separation power; of data set 1 also at each of its energies."""
    weights = reference.weights, generated.weights
    yield "E_tot/E_inc", separation_of(reference.ratio, generated.ratio, RATIO, *weights)
    detector = reference.primaries.detector
    if not bins_of(detector).fixed_energies:
        return
    for number, energy in enumerate(FIXED_ENERGIES):
        narrow = detector.pdg == 22 and number >= 4  # the response of photons narrows with the energy
        edges = np.linspace(0.9, 1.1, 21) if narrow else np.linspace(0.4, 1.4, 21)
        rows = [_within(showers.incident, energy) for showers in (reference, generated)]
        ours, theirs = reference.ratio[rows[0]], generated.ratio[rows[1]]
        parts = [select(weight, chosen) for weight, chosen in zip(weights, rows, strict=True)]
        yield f"E_tot/E_inc {energy:.0f} MeV", separation_of(ours, theirs, edges, *parts)


def _within(incident: Values, energy: float) -> NDArray[np.bool_]:
    return np.asarray((incident >= energy) & (incident < 2 * energy))


def voxel_energies(reference: Showers, generated: Showers) -> Separations:
    """Yields `voxels` and the separation power of the voxels' energies."""
    yield (
        "voxels",
        separation(*(_all_voxels(showers) for showers in (reference, generated))),
    )


def _all_voxels(showers: Showers) -> NDArray[Any]:
    weight = showers.weights
    return showers.spectrum.sum(0, dtype=np.int64) if weight is None else weight @ showers.spectrum


def separations(reference: Showers, generated: Showers) -> dict[str, float]:
    """Computes the separation power of every histogram of the challenge, by name.

    NaN where the reference has nothing within the bins.
    """
    parts = [ratios(reference, generated), layer_energies(reference, generated)]
    parts += [moments(reference, generated, moment, z) for moment in ("centres", "widths") for z in Z]
    parts += [sparsities(reference, generated), voxel_energies(reference, generated)]
    return {name: value for part in parts for name, value in part}


def mean_separation(of: Callable[[Showers, Showers], Separations], what: str) -> Callable[..., Result]:
    """Returns the metric that averages separation powers; histograms without an entry in the reference are left out.

    Args:
        of: yields them.
        what: they are of, for the reason why there is none.
    """

    def metric(reference: Showers, generated: Showers, seed: int, sizes: Sizes) -> Result:
        values = [value for _, value in of(reference, generated) if not math.isnan(value)]
        if not values:
            return Result(math.nan, reason=f"no {what} within the bins")
        return Result(float(np.mean(values)))

    return metric


def total_separation(reference: Showers, generated: Showers, seed: int, sizes: Sizes) -> Result:
    """Computes the separation power of E_tot / E_inc at all energies."""
    value = separation_of(reference.ratio, generated.ratio, RATIO, reference.weights, generated.weights)
    return Result(value, reason="no E_tot / E_inc within the bins" if math.isnan(value) else "")
