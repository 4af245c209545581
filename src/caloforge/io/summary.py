"""What is in a file of events: the numbers `caloforge data inspect` shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from caloforge.events import SLICE, Events, EventSource, Primaries, in_slices
from caloforge.particles import particle_name

QUANTILES = (0.0, 0.01, 0.25, 0.5, 0.75, 0.99, 1.0)


@dataclass(frozen=True)
class ResponseSummary:
    """Describes the responses of a set of events.

    Attributes:
        unit: of the cells and sums.
        quantiles: of the sum over all cells, by probability.
        channels: mean of each channel by label, for each channel map.
        lit: mean number of cells above zero.
        occupancy: the same as a fraction of all cells.
        whole: whether every cell holds a whole number.
    """

    unit: str
    quantiles: dict[float, float]
    channels: dict[str, dict[str, float]]
    lit: float
    occupancy: float
    whole: bool


@dataclass(frozen=True)
class Summary:
    """Describes a set of events, or of particles alone.

    Attributes:
        detector: its name.
        rows: number of events.
        particles: number of unique particles.
        repeats: least, median and greatest number of events of one particle.
        repeated: unique particles with at least 10 events.
        mix: fraction of events by PDG name, the most frequent first.
        energy: least, mean and greatest energy; None for a detector without that feature.
        energy_unit: unit of the energy.
        folds: number of events in each fold; empty where there are none.
        responses: None for particles alone.
    """

    detector: str
    rows: int
    particles: int
    repeats: tuple[int, float, int]
    repeated: int
    mix: dict[str, float]
    energy: tuple[float, float, float] | None
    energy_unit: str
    folds: dict[int, int]
    responses: ResponseSummary | None


def summarize(source: EventSource | Primaries) -> Summary:
    """Summarizes events, reading every response once in slices; the slices check the values.

    Args:
        source: events in memory or of a file, or particles alone.

    Raises:
        ValueError: no rows, or a broken cell; the message names the row.
    """
    particles = source if isinstance(source, Primaries) else source.primaries
    if len(particles) == 0:
        raise ValueError("no rows to summarize")
    _, repeats = np.unique(particles.group, return_counts=True)
    pdg, counts = np.unique(particles.pdg, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    folds, in_fold = np.unique(particles.fold[particles.fold >= 0], return_counts=True)
    feature = particles.detector.energy
    energy = None if feature is None else particles.feature(feature.name).astype(np.float64)
    return Summary(
        detector=particles.detector.name,
        rows=len(particles),
        particles=len(repeats),
        repeats=(int(repeats.min()), float(np.median(repeats)), int(repeats.max())),
        repeated=int((repeats >= 10).sum()),
        mix={particle_name(int(pdg[k])): float(counts[k] / len(particles)) for k in order},
        energy=None if energy is None else (float(energy.min()), float(energy.mean()), float(energy.max())),
        energy_unit="" if feature is None else feature.unit,
        folds={int(fold): int(count) for fold, count in zip(folds, in_fold, strict=True)},
        responses=None
        if isinstance(source, Primaries) and not isinstance(source, Events)
        else _responses(source),
    )


def _responses(source: EventSource) -> ResponseSummary:
    detector = source.primaries.detector
    totals = np.empty(len(source))
    sums = {name: np.zeros(len(channel_map.labels)) for name, channel_map in detector.channels.items()}
    lit, whole = 0, True
    start = 0
    for events in in_slices(source, SLICE):
        cells = events.responses.reshape(len(events), -1)
        totals[start : start + len(events)] = cells.sum(1, dtype=np.float64)
        lit += int(np.count_nonzero(cells))
        whole = whole and (cells.dtype.kind in "iu" or bool((cells == np.rint(cells)).all()))
        for name, total in sums.items():
            total += detector.readout(events.responses, name).sum(0)
        start += len(events)
    return ResponseSummary(
        unit=detector.unit,
        quantiles={q: float(np.quantile(totals, q)) for q in QUANTILES},
        channels={
            name: dict(zip(detector.channels[name].labels, (total / len(source)).tolist(), strict=True))
            for name, total in sums.items()
        },
        lit=lit / len(source),
        occupancy=lit / len(source) / detector.cells,
        whole=whole,
    )
