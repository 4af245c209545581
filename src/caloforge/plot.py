"""Pictures of events for notebooks and scripts, drawn as a report draws them: `caloforge.plot`.

    cf.plot.event(events)                            # event displays
    cf.plot.mean_shower(simulated, events)           # mean responses and their relative difference
    cf.plot.channels(simulated, events)              # histograms of channel sums with their ratio

Every function returns a `Plot`, which a notebook shows and `save` writes. The extra `report` has what they need.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from caloforge.events import Events
from caloforge.io.files import replacing
from caloforge.metrics.weights import weights_of
from caloforge.particles import particle_name
from caloforge.report import figures, histograms
from caloforge.report.drawing import Style, Values, style

MOST_EVENTS = 12
"""Events that a display shows at most."""


@dataclass(frozen=True, eq=False)
class Panel:
    """One image.

    Attributes:
        label: what it shows.
        kind: `svg` or `png`.
        content: its bytes.
    """

    label: str
    kind: str
    content: bytes

    def _repr_html_(self) -> str:
        media = "image/svg+xml" if self.kind == "svg" else "image/png"
        data = base64.b64encode(self.content).decode()
        return f'<img alt="{escape(self.label)}" src="data:{media};base64,{data}" style="max-width:100%">'


@dataclass(frozen=True, eq=False)
class Plot:
    """One image or several, shown by a notebook."""

    panels: tuple[Panel, ...]

    def __repr__(self) -> str:
        return f"<plot: {', '.join(panel.label for panel in self.panels)}>"

    def _repr_html_(self) -> str:
        inner = "".join(panel._repr_html_() for panel in self.panels)
        return f'<div style="display:flex;flex-wrap:wrap;gap:8px;background:white">{inner}</div>'

    def save(self, path: str | Path) -> list[Path]:
        """Writes the images; of several, each has its number in the name.

        Args:
            path: a file; its suffix must be that of the images.

        Returns:
            the files.

        Raises:
            ValueError: another suffix, or a folder that cannot be written.
        """
        path, kind = Path(path), self.panels[0].kind
        if path.suffix != f".{kind}":
            raise ValueError(f"{path}: the images are .{kind}, got {path.suffix or 'no suffix'}")
        several = len(self.panels) > 1
        paths = [
            path.with_stem(f"{path.stem}-{number}") if several else path
            for number in range(1, len(self.panels) + 1)
        ]
        for panel, file in zip(self.panels, paths, strict=True):
            with replacing(file) as temporary:
                temporary.write_bytes(panel.content)
        return paths


def event(events: Events, rows: Sequence[int] | None = None) -> Plot:
    """Draws responses: images of two axes on one logarithmic scale, or showers of layers in space.

    Args:
        events: of which.
        rows: which of them; the first four where not given.

    Raises:
        ValueError: no event, more than `MOST_EVENTS`, or a row that is none.
    """
    chosen = list(range(min(4, len(events)))) if rows is None else list(rows)
    if not 0 < len(chosen) <= MOST_EVENTS:
        raise ValueError(f"a display shows 1 to {MOST_EVENTS} events, got {len(chosen)}")
    if not all(-len(events) <= row < len(events) for row in chosen):
        raise ValueError(f"rows must be within the {len(events)} events, got {chosen}")
    detector, responses = events.detector, [events.responses[row] for row in chosen]
    titles = [_title(events, row) for row in chosen]
    if detector.layers:
        voxels = [np.asarray(response, np.float64).ravel() for response in responses]
        drawn = figures.displays(detector, list(zip(titles, voxels, strict=True)))
    else:
        drawn = figures.gallery([responses], titles, _axes(events), f"{detector.unit} a cell")
    return Plot((Panel("event display", "png", drawn),))


def mean_shower(reference: Events, *others: Events, names: Sequence[str] = ()) -> Plot:
    """Draws mean responses on one logarithmic scale and, below, their relative differences to the first.

    Args:
        reference: simulated events; of a detector with two axes.
        others: events to compare with it.
        names: of all sets; "reference", "events 1", ... where not given.

    Raises:
        ValueError: events of different detectors, of layers, none, or another number of names.
    """
    _check(reference, others)
    if reference.detector.layers:
        raise ValueError(f"{reference.detector.name} has layers and no image: use event, or channels")
    first, *titles = _names(others, names)
    mean = histograms.mean_response(reference)
    if not others:
        drawn = figures.gallery(
            [[mean.mean]], [first if names else "mean"], _axes(reference), f"{reference.detector.unit} a cell"
        )
    else:
        models = [
            (title, histograms.mean_response(events)) for title, events in zip(titles, others, strict=True)
        ]
        unit = f"{reference.detector.unit} a cell"
        drawn = figures.mean_shower(mean, models, _axes(reference), unit, reference_name=first)
    return Plot((Panel("mean response", "png", drawn),))


def channels(
    reference: Events,
    *others: Events,
    names: Sequence[str] = (),
    channels: str | None = None,
    bins: int = 40,
) -> Plot:
    """Draws histograms of channel sums with the ratio of each set to the first; a panel a channel.

    Args:
        reference: simulated events, grey.
        others: events to compare with them, scaled to as many.
        names: of all sets; "reference", "events 1", ... where not given.
        channels: name of the channel map; the detector's default where not given.
        bins: largest number of bins.

    Raises:
        ValueError: events of different detectors, none, another number of names, or no such channel map.
    """
    _check(reference, others)
    first, *titles = _names(others, names)
    sums = [events.channels(channels) for events in (reference, *others)]
    weights = [weights_of(events) for events in (reference, *others)]
    panels = []
    for label in sums[0]:
        edges = _edges([columns[label] for columns in sums], reference.detector.counts, bins)
        width = float(edges[1] - edges[0])
        first_bins = histograms.fill(sums[0][label], edges, weights[0])
        edges = histograms.merged_edges(first_bins.counts, edges)
        filled = [
            histograms.fill(columns[label], edges, weight)
            for columns, weight in zip(sums, weights, strict=True)
        ]
        models: list[tuple[Style, histograms.Bins]] = []
        for number, (title, histogram, source) in enumerate(zip(titles, filled[1:], others, strict=True)):
            scale = len(reference) / len(source)
            same = histograms.Bins(edges, histogram.counts * scale, histogram.variances * scale**2)
            models.append((style(number, title), same))
        xlabel = f"{label} [{reference.detector.unit}]"
        drawn = figures.compare(
            filled[0], models, xlabel, f"events / {width:g}", y="log", per=width, legend=first
        )
        panels.append(Panel(label, "svg", drawn))
    return Plot(tuple(panels))


def _edges(values: Sequence[Values], whole: bool, bins: int) -> Values:
    """Returns edges that hold all but the last thousandth of the first set."""
    low = min(float(sums.min()) for sums in values)
    high = float(np.quantile(values[0], 0.999))
    return histograms.nice_edges(low, max(high, low + 1), whole, bins)


def _axes(events: Events) -> tuple[str, ...]:
    return tuple(events.detector.axes)[:2]


def _check(reference: Events, others: Sequence[Events]) -> None:
    for events in (reference, *others):
        if not len(events):
            raise ValueError("there is no event to draw")
        if events.detector.name != reference.detector.name:
            raise ValueError(
                f"events must be of one detector, got {reference.detector.name} and {events.detector.name}"
            )


def _names(others: Sequence[Events], names: Sequence[str]) -> list[str]:
    if names and len(names) != len(others) + 1:
        raise ValueError(f"wanted a name for each of the {len(others) + 1} sets, got {len(names)}")
    return list(names) or ["reference", *(f"events {number}" for number in range(1, len(others) + 1))]


def _title(events: Events, row: int) -> str:
    """Returns the row's number, its particle and, where the detector has one, its energy."""
    energy = events.detector.energy
    second = particle_name(int(events.pdg[row]))
    if energy is not None:
        value = float(events.feature(energy.name)[row])
        larger = {"MeV": "GeV", "GeV": "TeV"}.get(energy.unit) if value >= 1000 else None
        second += f", {value / 1000 if larger else value:.3g} {larger or energy.unit}"
    return f"event {row}\n{second}"
