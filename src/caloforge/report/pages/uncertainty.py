"""What a page shows of how sure models are: how far the events of their replicas lie apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from caloforge.detectors import Detector
from caloforge.events import EventSource, in_slices
from caloforge.metrics.conditional import impact
from caloforge.report import figures
from caloforge.report.document import Block, Figure, Grid, Image, note
from caloforge.report.runs import Comparison

PARTS = 8
"""Parts of the energy, and of the distance, in a map; each holds as many events."""

LEAST = 10
"""Events of a bin of a map."""


def hatched(part: Comparison) -> list[str]:
    """Says what hatched bands are, where a run has replicas."""
    counts = [f"{run.name} {len(part.replicas_of(run))}" for run in part.runs if part.replicas_of(run)]
    if not counts:
        return []
    return [
        " Hatched: standard deviation over replicas of the model with the same noise, how far another training would "
        f"lie ({', '.join(counts)})."
    ]


def uncertainty(part: Comparison) -> list[Block]:
    """Draws where in energy and impact, or energy and layer, each model with replicas is sure; none without them."""
    with_replicas = [run for run in part.runs if len(part.replicas_of(run)) > 1]
    detector = part.detector
    if not with_replicas or detector.energy is None or not (detector.face or detector.layers):
        return []
    energies, scale, unit = _energies(part.reference)
    shares = np.linspace(0, 1, PARTS + 1)
    edges = np.unique(np.quantile(energies, shares))
    across, other = _across(part.reference)
    drawn = []
    for run in with_replicas:
        relative = relative_spread(part.replicas_of(run), energies, edges, across, other)
        label = "layer" if across is None else "impact from the middle of the face [cm]"
        image = figures.uncertainty_map(edges * scale, other, relative, f"energy [{unit}]", label)
        drawn.append(
            Figure((Image(image, f"{run.name}: relative uncertainty"),), f"{run.name}: relative uncertainty")
        )
    what = "energy of each layer" if across is None else f"sum of {detector.unit}"
    text = (
        f"Standard deviation of the mean {what} over the replicas, over its mean. Grey: fewer than {LEAST} events, or "
        "none of them with light."
    )
    return [note(text), Grid(tuple(drawn))]


def relative_spread(
    replicas: tuple[EventSource, ...],
    energies: NDArray[np.float64],
    edges: NDArray[np.float64],
    across: NDArray[np.float64] | None,
    others: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Returns the standard deviation of a mean over replicas, over its mean, in bins of two quantities.

    Args:
        replicas: the same events by each replica, row by row.
        energies: of the events, (N,).
        edges: borders of the bins of the energy, (E + 1,).
        across: the other quantity of the events, (N,), where the mean is that of the sum of an event; None: the mean
            energy of each layer, and the layers are the other axis.
        others: borders of its bins, (K + 1,).

    Returns:
        (E, K); NaN where there are too few events, or no light.
    """
    row = np.clip(np.digitize(energies, edges[1:-1]), 0, len(edges) - 2)
    means = []
    for source in replicas:
        detector = source.primaries.detector
        channels = "layers" if across is None else detector.default_channels
        sums = np.concatenate(
            [detector.readout(part.responses, channels) for part in in_slices(source, 1024)]
        )
        table, counts = (np.zeros((len(edges) - 1, len(others) - 1)) for _ in range(2))
        if across is None:
            np.add.at(table, row, sums)
            counts += np.bincount(row, minlength=len(table))[:, None]
        else:
            column = np.clip(np.digitize(across, others[1:-1]), 0, len(others) - 2)
            np.add.at(table, (row, column), sums.sum(1))
            np.add.at(counts, (row, column), 1)
        means.append(np.where(counts >= LEAST, table / np.maximum(counts, 1), np.nan))
    stacked = np.stack(means)
    mean = stacked.mean(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(mean > 0, stacked.std(0, ddof=1) / mean, np.nan))


def _energies(source: EventSource) -> tuple[NDArray[np.float64], float, str]:
    """Returns energies, (N,), what they are multiplied by, and their unit then."""
    energy = source.primaries.detector.energy
    assert energy is not None
    values = source.primaries.feature(energy.name).astype(np.float64)
    return (values, 1e-3, "GeV") if energy.unit == "MeV" else (values, 1.0, energy.unit)


def _across(source: EventSource) -> tuple[NDArray[np.float64] | None, NDArray[np.float64]]:
    """Returns the distance of each impact from the middle of the face and its borders; None and those of layers."""
    detector: Detector = source.primaries.detector
    if detector.layers or detector.face is None:
        return None, np.arange(len(detector.layers) + 1, dtype=np.float64) - 0.5
    x, y = impact(source.primaries).T
    distance = np.hypot(x - detector.face.x, y - detector.face.y)
    return distance, np.unique(np.quantile(distance[np.isfinite(distance)], np.linspace(0, 1, PARTS + 1)))
