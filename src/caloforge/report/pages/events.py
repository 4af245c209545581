"""What a page shows of the events of one set: distributions, single events, the mean shower."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from caloforge import metrics
from caloforge.detectors import Detector
from caloforge.events import EventSource
from caloforge.metrics.bright import bright_rate
from caloforge.metrics.weights import Weights, effective_size
from caloforge.particles import particle_name
from caloforge.report import figures, histograms
from caloforge.report.document import Block, Figure, Grid, Image, missing, note
from caloforge.report.pages.uncertainty import hatched
from caloforge.report.runs import Comparison, Run
from caloforge.report.tables import kind_of, number
from caloforge.report.words import joined, plural

GALLERY = 6
"""Particles in an event gallery."""

IMAGE_WIDTH = 8.5
"""Least width of one image of a gallery on the page, in rem; narrower screens scroll."""


Observed: TypeAlias = tuple[Run, metrics.Observables, Sequence[metrics.Observables]]
"""A run, what its events have, and what those of its replicas have."""


@dataclass(frozen=True, eq=False)
class Quantity:
    """One number of every event, to be histogrammed.

    Attributes:
        title: what it is.
        label: label of the axis, with the unit.
        of: takes it from observables, (N,).
        wide: whether it spans decades.
    """

    title: str
    label: str
    of: Callable[[metrics.Observables], NDArray[np.float64] | None]
    wide: bool = True


def _quantities(detector: Detector, channels: str) -> list[Quantity]:
    """Lists the channels, their sum, centre, radius and lit cells."""

    def channel(place: int) -> Callable[[metrics.Observables], NDArray[np.float64]]:
        return lambda events: events.channels[:, place]

    def centre(place: int) -> Callable[[metrics.Observables], NDArray[np.float64] | None]:
        return lambda events: None if events.centre is None else events.centre[:, place]

    unit = detector.unit
    return [
        *(
            Quantity(f"Channel: {label}", f"{label} [{unit}]", channel(place))
            for place, label in enumerate(detector.channel_map(channels).labels)
        ),
        Quantity(f"Sum of {unit}", f"sum [{unit}]", lambda events: events.photons),
        *(
            Quantity(f"Centre, {axis}", f"centre {axis} [cells]", centre(place), wide=False)
            for place, axis in enumerate(list(detector.axes)[:2])
        ),
        Quantity("Radius that holds 90 %", "radius [cells]", lambda events: events.radius, wide=False),
        Quantity("Lit cells", "lit cells", lambda events: events.lit),
    ]


def weighted(sets: Sequence[tuple[str, Weights | None]]) -> list[Block]:
    """Says which models' events have weights, and how many events without these are worth."""
    told = [
        f"{name}: {len(weight):,} events worth {effective_size(weight):,.0f}"
        for name, weight in sets
        if weight is not None
    ]
    return (
        [note(f"Weighted events, effective sample size (sum w)² / sum w²: {'; '.join(told)}.")]
        if told
        else []
    )


def not_shown(part: Comparison) -> list[Block]:
    """Says which runs kept no events."""
    silent = [run for run, source in zip(part.runs, part.generated, strict=True) if source is None]
    readouts = [run.name for run in silent if kind_of(run.scores) == "readout"]
    others = [run.name for run in silent if run.name not in readouts]
    blocks: list[Block] = []
    if readouts:
        blocks.append(missing(f"{joined(readouts)}: channel sums only, no events to show."))
    if others:
        blocks.append(missing(f"{joined(others)}: no generated events were kept, so there are none to show."))
    return blocks


def distributions(part: Comparison) -> list[Block]:
    """Draws the numbers of every event, and the contents of the cells."""
    channels = part.runs[0].scores.channels
    reference = metrics.observe(part.reference, channels)
    observed = [
        (
            run,
            metrics.observe(source, channels),
            [metrics.observe(replica, channels) for replica in part.replicas_of(run)],
        )
        for run, source in part.shown
    ]
    drawn = [_histograms(quantity, reference, observed) for quantity in _quantities(part.detector, channels)]
    return [
        *weighted([(run.name, events.weights) for run, events, _ in observed]),
        note(
            "Below each histogram: model over GEANT, with triangles where the ratio leaves the panel. Bands: "
            "statistical, √n a bin (cell contents: from event to event). On the right, bins are merged until each "
            "holds 8 GEANT events. The first repeat of each model is drawn.",
            *hatched(part),
        ),
        Grid((*(block for block in drawn if block is not None), _cell_contents(part, reference, observed))),
    ]


def _histograms(
    quantity: Quantity, reference: metrics.Observables, observed: Sequence[Observed]
) -> Block | None:
    """Draws a quantity twice: with linear and with logarithmic numbers of events."""
    values = quantity.of(reference)
    if values is None:
        return None
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return missing(f"{quantity.title}: no response of the reference has one.")
    whole = bool(np.all(finite == np.round(finite)))
    ours = [
        (
            run,
            theirs,
            events.weights,
            [(other, one.weights) for one in replicas if (other := quantity.of(one)) is not None],
        )
        for run, events, replicas in observed
        if (theirs := quantity.of(events)) is not None
    ]
    fine = histograms.nice_edges(float(finite.min()), float(finite.max()), whole)
    growing = quantity.wide and whole
    views: tuple[tuple[NDArray[np.float64], dict[str, Any]], ...] = (
        (
            histograms.growing_edges(float(finite.max())) if growing else fine,
            {"x": "symlog", "ylabel": "events / bin"}
            if growing
            else {"ylabel": f"events / {fine[1] - fine[0]:g}"},
        ),
        (
            histograms.merged_edges(histograms.fill(values, fine, reference.weights).counts, fine),
            {"y": "log", "per": fine[1] - fine[0], "ylabel": f"events / {fine[1] - fine[0]:g}"},
        ),
    )
    names = ", ".join(run.name for run, *_ in ours) or "no model"
    images = []
    for edges, options in views:
        bins = [
            (
                run.look,
                histograms.with_replicas(
                    histograms.fill(theirs, edges, weight),
                    [histograms.fill(other, edges, weight) for other, weight in replicas],
                ),
            )
            for run, theirs, weight, replicas in ours
        ]
        simulated = histograms.fill(values, edges, reference.weights)
        drawn = figures.compare(simulated, bins, xlabel=quantity.label, **options)
        images.append(
            Image(drawn, f"{quantity.title}, {options.get('y', 'linear')}: GEANT and {names}, with ratios")
        )
    beyond = [
        f"{run.name} {plural(count, 'event')}"
        for run, theirs, *_ in ours
        if (count := histograms.outside(theirs, fine))
    ]
    caption = f"Beyond GEANT's range or without a value: {', '.join(beyond)}." if beyond else ""
    return Figure(tuple(images), quantity.title, caption)


def _cell_contents(part: Comparison, reference: metrics.Observables, observed: Sequence[Observed]) -> Figure:
    edges = histograms.growing_edges(max(histograms.largest_cell(part.reference), 1.0))[1:]
    edges = histograms.merged_edges(histograms.cell_spectrum(part.reference, edges).counts, edges)
    drawn = figures.compare(
        histograms.cell_spectrum(part.reference, edges),
        [
            (
                run.look,
                histograms.with_replicas(
                    histograms.cell_spectrum(source, edges),
                    [histograms.cell_spectrum(replica, edges) for replica in part.replicas_of(run)],
                ),
            )
            for run, source in part.shown
        ],
        xlabel=f"cell content [{part.detector.unit}]",
        ylabel="cells / bin width",
        x="log",
        y="log",
        per=1.0,
    )
    image = Image(drawn, "Spectrum of cell contents, with ratios")
    return Figure(
        (image,), "Cell contents", f"Empty cells left out. {_bright(part, reference, observed)}", half=True
    )


def _bright(part: Comparison, reference: metrics.Observables, observed: Sequence[Observed]) -> str:
    """Says how many of the brightest cells each model has."""
    rates = [(run, rate) for run, events, _ in observed if (rate := bright_rate(reference, events))]
    if not rates:
        return ""
    listed = ", ".join(f"{run.name} {number(rate.ratio, rate.error)}" for run, rate in rates)
    return (
        f"Bright cells, from {rates[0][1].threshold:.3g} {part.detector.unit} on (0.1 % of GEANT's lit cells), over "
        f"GEANT's: {listed}."
    )


def gallery_particles(source: EventSource, count: int = GALLERY) -> list[NDArray[np.intp]]:
    """Chooses particles by type and energy alone: the rows of each, at most two.

    The most frequent types come first, one particle each, at energies spread over their quantiles; with fewer types
    than places the types come round again. Within a type a particle simulated more than once is preferred.
    """
    primaries = source.primaries
    energy = (
        primaries.feature("energy") if "energy" in primaries.detector.features else primaries.conditions[:, 0]
    )
    ids, counts = np.unique(primaries.pdg, return_counts=True)
    types = ids[np.argsort(-counts, kind="stable")][:count]
    quantiles = (0.5, 0.9, 0.25, 0.75, 0.1, 0.6)
    chosen: list[NDArray[np.intp]] = []
    taken: set[int] = set()
    for place in range(count):
        rows = np.flatnonzero(primaries.pdg == types[place % len(types)])
        groups, sizes = np.unique(primaries.group[rows], return_counts=True)
        groups, sizes = groups[~np.isin(groups, list(taken))], sizes[~np.isin(groups, list(taken))]
        if groups.size == 0:
            continue
        groups = groups[sizes > 1] if (sizes > 1).any() else groups
        first = np.array([rows[np.argmax(primaries.group[rows] == group)] for group in groups])
        order = np.argsort(energy[first], kind="stable")
        group = groups[order[min(int(quantiles[place % len(quantiles)] * len(order)), len(order) - 1)]]
        taken.add(int(group))
        chosen.append(rows[primaries.group[rows] == group][:2])
    return chosen


def gallery(part: Comparison) -> list[Block]:
    """Shows what GEANT and the models give for the same particles."""
    if not part.shown:
        return [missing("No generated events were kept: no gallery.")]
    if len(part.detector.shape) < 2:
        return [missing("Responses have one axis: no gallery.")]
    blocks = []
    titles = ["GEANT", *(run.name for run, _ in part.shown)]
    names = list(part.detector.axes)[:2]
    chosen = gallery_particles(part.reference)
    chosen.sort(key=lambda rows: _energy(part, rows[0]))
    for rows in chosen:
        columns = [
            part.reference.slices(rows).responses,
            *(source.slices(rows).responses for _, source in part.shown),
        ]
        drawn = figures.gallery(list(zip(*columns, strict=True)), titles, names, part.detector.unit)
        name = particle_name(int(part.reference.primaries.pdg[rows[0]]))
        shots = "one shot" if len(rows) == 1 else f"{len(rows)} shots, one a row"
        image = Image(drawn, f"Responses to {name}: {', '.join(titles)}", IMAGE_WIDTH * len(titles))
        blocks.append(Figure((image,), name, f"{_energy_text(part, rows[0])}, {shots}"))
    return [
        note(
            "The same particle in every panel of a row, one logarithmic colour scale a figure; Σ: sum of "
            f"{part.detector.unit}; black: empty. Particles were chosen by type and energy alone."
        ),
        Grid(tuple(blocks)),
    ]


def _energy(part: Comparison, row: int) -> float:
    features = part.detector.features
    column = features.index("energy") if "energy" in features else 0
    return float(part.reference.primaries.conditions[row, column])


def _energy_text(part: Comparison, row: int) -> str:
    features = part.detector.conditions
    column = part.detector.features.index("energy") if "energy" in part.detector.features else 0
    value, feature = _energy(part, row), features[column]
    if feature.unit == "GeV" and value >= 1000:
        return f"{feature.name} {value / 1000:.2f} TeV"
    return f"{feature.name} {value:.3g} {feature.unit}"


def mean_shower(part: Comparison) -> Block:
    """Shows the mean response of GEANT and of the models, and their differences."""
    if not part.shown:
        return missing("No generated events were kept: no mean shower.")
    if len(part.detector.shape) < 2:
        return missing("Responses have one axis: no mean shower.")
    drawn = figures.mean_shower(
        histograms.mean_response(part.reference),
        [(run.name, histograms.mean_response(source)) for run, source in part.shown],
        list(part.detector.axes)[:2],
        part.detector.unit,
    )
    caption = (
        f"Above: mean {part.detector.unit} a cell over all rows. Grey: cells whose mean GEANT knows to no better than "
        "25 %."
    )
    alt = "Mean shower of GEANT and the models, and relative differences"
    return Figure((Image(drawn, alt, IMAGE_WIDTH * (1 + len(part.shown))),), caption=caption)
