"""The report: one self-contained HTML page about one or more runs.

It reads run folders and the reference events behind their scores, and computes no score itself. Sections go by
detector and, within, by set, with the runs side by side. What is missing is said in its place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge import metrics
from caloforge.detectors import Detector, detector_named
from caloforge.events import EventSource
from caloforge.io import provenance
from caloforge.io.files import write_text
from caloforge.io.run import Run as Folder
from caloforge.particles import particle_name
from caloforge.report import figures, histograms, pareto, showers, study, sweeps, tables
from caloforge.report.pdf import browser, write_pdf
from caloforge.report.pieces import figure as _figure
from caloforge.report.pieces import image as _image
from caloforge.report.pieces import joined as _joined
from caloforge.report.pieces import missing as _missing
from caloforge.report.pieces import plural as _plural
from caloforge.report.pieces import whole_page
from caloforge.report.runs import Comparison, Run, comparisons, read_runs

SPLITS = {
    "canonical": "the file's folds, by particle: no test particle was trained on",
    "grouped": "by particle: no test particle was trained on",
    "paper": "by row, as in the publications: training and test share particles",
    "ordered": "by place in the file: the last 20 % of its rows are the test part",
    "files": "files of their own: nothing of the reference was trained on, and every row of it judges",
    "unknown": "rows may have been trained on",
}

HEADLINE = ("w1", "conditional_w1", "mae", "mae_c", "mae_cw")
"""Metrics of the first table and of the tables by particle type."""

GALLERY = 6
"""Particles in an event gallery."""

FLOOR_NOTE = "The floor is of half the rows, so a score over all of them can lie below it."

IMAGE_WIDTH = 8.5
"""Least width of one image of a gallery on the page, in rem; narrower screens scroll."""

PANEL_WIDTH = 19.0
"""Least width of a panel of quality against time, in rem."""

LOG_COLUMNS = ("stage", "epoch", "step", "seconds", "samples_per_second")
"""Columns of a log that are no loss."""


def write_report(
    runs: Sequence[Path],
    out: Path,
    references: Mapping[str, Path] | None = None,
    trust: bool = False,
    pdf: bool = False,
) -> None:
    """Writes the report of one or more runs and studies as one HTML file.

    Args:
        runs: run folders with `scores.json` and study folders with `trials.json`; the order is that of the page.
        out: the page; it appears whole or not at all.
        references: reference files by the name of the set, where they are no longer where the scores say.
        trust: run code outside the package that the scores name.
        pdf: also print the page beside it, with the suffix .pdf; this needs Chromium or Chrome.

    Raises:
        ValueError: no runs, no scores, a reference that is missing or is another file, generated events that do not
            belong to its rows, or no browser that prints.
    """
    if pdf:
        browser()  # to learn that there is none, nobody should wait for the page
        if out.suffix == ".pdf":
            raise ValueError(f"--out names the page of HTML, and the PDF goes beside it, got {out}")
    studies = [study.read_study(path) for path in runs if study.is_study(path)]
    folders = [path for path in runs if not study.is_study(path)]
    found = read_runs(folders) if folders or not studies else []
    for run in found:
        detector_named(run.scores["detector"], trust=trust)  # once allowed, the name may be repeated
    parts = comparisons(found, references or {})
    write_text(out, _page(found, parts, studies))
    if pdf:
        write_pdf(out, out.with_suffix(".pdf"))


# Pieces of HTML


def _legend(runs: Sequence[Run]) -> str:
    entries = ['<span class="key"><i class="geant"></i>GEANT</span>']
    for run in runs:
        dashes = " ".join(f"{2 * length:g}" for length in run.look.dashes)
        line = (
            '<svg width="34" height="10"><line x1="0" y1="5" x2="34" y2="5" stroke-width="3" '
            f'stroke="{run.look.colour}" stroke-dasharray="{dashes or "none"}"/></svg>'
        )
        entries.append(f'<span class="key">{line}{escape(run.name)}</span>')
    return f'<div class="legend">{"".join(entries)}</div>'


# Sections of a set


def _headline(part: Comparison) -> str:
    runs = part.runs
    first = runs[0].scores
    kinds = [tables.kind_of(run.scores) for run in runs]
    counts = [
        _plural(kinds.count(kind), kind) for kind in ("generator", "readout", "yardstick") if kind in kinds
    ]
    particles = len(np.unique(part.reference.primaries.group))
    rows = _plural(len(part.reference), "row" if first["part"] == "all" else f"{first['part']} row")
    kept = f" Only {_joined(runs[0].particles)}." if runs[0].particles else ""
    repeats = sorted({int(run.scores["repeats"]) for run in runs})
    seeds = sorted({int(run.scores["seed"]) for run in runs if run.scores.get("seed") is not None})
    text = (
        f"{_joined(counts)} against GEANT, on the {rows} of {part.file.name} ({_plural(particles, 'particle')})."
        f"{kept} Split: {first['split']} ({SPLITS.get(first['split'], SPLITS['unknown'])}). "
        f"Channels: {first['channels']}. Seed {_joined([str(seed) for seed in seeds] or ['not recorded'])}, "
        f"{_joined([str(count) for count in repeats])} repeat{'' if repeats == [1] else 's'}; "
        "± is the spread over the repeats, for the floor over its random splits."
        f"{_simulated(provenance(part.file))}"
    )
    return f"<p>{escape(text)}</p>{_best(part)}"


def _simulated(origin: Mapping[str, Any]) -> str:
    """Says how `caloforge simulate` made a reference, and whether its data sets were Geant4's own."""
    sets = origin.get("data_sets")
    if origin.get("simulation") != "Geant4" or not isinstance(sets, Mapping):
        return ""
    text = f" Simulated with Geant4 {origin.get('geant4', '')}, {origin.get('physics')}, cut {origin.get('cut')} mm"
    if sets.get("origin") == "substitutes":
        return f"{text}, with substitutes for Geant4's data sets: say so wherever these numbers go."
    return f"{text}."


def _best(part: Comparison) -> str:
    """Says which generator has the smallest W1, and which readouts and yardsticks have a smaller one."""
    entries = {run.name: tables.entry_of(run.scores, part.stem, "w1") for run in part.runs}
    values = {name: float(entry["mean"]) for name, entry in entries.items() if entry is not None}
    kinds = {run.name: tables.kind_of(run.scores) for run in part.runs}
    generators = [name for name in values if kinds[name] == "generator"]
    if not generators:
        return ""
    best = min(generators, key=values.__getitem__)
    entry = entries[best] or {}
    floor, matched = ((entry.get(key) or {}).get("mean") for key in ("floor", "matched_floor"))
    which = "Smallest W1 of a generator" if len(generators) > 1 else "W1"
    text = f"{which}: {best}, {tables.number(values[best], entry.get('std'))} {part.detector.unit}"
    if floor and matched is not None:
        text += f", {tables.number(matched / floor)} times the floor at equal numbers of rows"
    ahead = [
        f"{name} ({kinds[name]})" for name in values if name not in generators and values[name] < values[best]
    ]
    if ahead:
        text += f". Ahead of it, but no generators: {_joined(ahead)}; see the conditional metrics"
    return f'<p class="lead">{escape(text)}.</p>'


def _shower_tables(part: Comparison) -> str:
    """Shows the metrics of showers, with times and what the metrics are."""
    lines = [tables.html(tables.showers_table(part.scores, part.stem, part.names))]
    times = [
        f"{run.name} {ms:.3g} ms"
        for run in part.runs
        if (ms := pareto.milliseconds(run.scores.get("timing"))) is not None
    ]
    if times:
        lines.append(f'<p class="note">Median time a shower: {escape(", ".join(times))}.</p>')
    formulas = [tables.METRICS[name] for name in tables.metric_names(part.scores, part.stem)]
    items = "".join(
        f"<dt>{escape(metric.title)}</dt><dd><code>{escape(metric.formula)}</code></dd>"
        for metric in formulas
    )
    lines.append(f"<details><summary>What the metrics are</summary><dl>{items}</dl></details>")
    return "".join(lines)


def _tables(part: Comparison) -> str:
    names = tables.metric_names(part.scores, part.stem)

    def table(wanted: list[str], speed: bool) -> str:
        return tables.html(tables.scores_table(part.scores, part.stem, wanted, names=part.names, speed=speed))

    head = [name for name in HEADLINE if name in names]
    images = [
        name for name in names if name in metrics.METRICS and metrics.METRICS[name].needs == "responses"
    ]
    rest = [name for name in names if name not in head and name not in images]
    lines = [table(head, True)]
    lines.append(
        '<p class="note">Smaller is better; MAE and its sum should come near their floor, not below it. '
        "<b>Bold</b>: the best model, yardsticks aside (they simulate nothing and set the scale). "
        "“× floor”: the score over all rows, divided by the floor, which has fewer rows. "
        "“matched”: reference against generated with as many rows as the floor, divided by it: "
        "a perfect model has 1.</p>"
    )
    if images:
        lines.append(f"<h4>Centre, radius and lit cells</h4>{table(images, False)}")
    if rest:
        lines.append(f"<details><summary>Further metrics</summary>{table(rest, False)}</details>")
    formulas = [metrics.METRICS[name] for name in names if name in metrics.METRICS]
    if formulas:
        items = "".join(
            f"<dt>{escape(metric.title)}</dt><dd><code>{escape(metric.formula)}</code></dd>"
            for metric in formulas
        )
        lines.append(f"<details><summary>What the metrics are</summary><dl>{items}</dl></details>")
    if tables.group_names(part.scores, part.stem):
        lines.append("<h4>By particle type</h4>")
        shown = [name for name in head if tables.has_numbers(part.scores, part.stem, name)]
        for number, name in enumerate(shown):
            title = metrics.METRICS[name].title if name in metrics.METRICS else name
            by_type = tables.html(tables.particles_table(part.scores, part.stem, name, part.names))
            lines.append(
                f"<details{' open' if number == 0 else ''}><summary>{escape(title)} by particle type</summary>"
                f"{by_type}</details>"
            )
    else:
        lines.append(_missing("No scores by particle type were recorded."))
    return "\n".join(lines)


def _not_shown(part: Comparison) -> str:
    silent = [run for run, source in zip(part.runs, part.generated, strict=True) if source is None]
    if not silent:
        return ""
    readouts = [run.name for run in silent if tables.kind_of(run.scores) == "readout"]
    others = [run.name for run in silent if run.name not in readouts]
    texts = []
    if readouts:
        texts.append(f"{_joined(readouts)}: channel sums only, no events to show.")
    if others:
        texts.append(f"{_joined(others)}: no generated events were kept, so there are none to show.")
    return "".join(_missing(text) for text in texts)


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

    def channel(number: int) -> Callable[[metrics.Observables], NDArray[np.float64]]:
        return lambda one: one.channels[:, number]

    def centre(number: int) -> Callable[[metrics.Observables], NDArray[np.float64] | None]:
        return lambda one: None if one.centre is None else one.centre[:, number]

    unit = detector.unit
    found = [
        Quantity(f"Channel: {label}", f"{label} [{unit}]", channel(number))
        for number, label in enumerate(detector.channel_map(channels).labels)
    ]
    found.append(Quantity(f"Sum of {unit}", f"sum [{unit}]", lambda one: one.photons))
    found += [
        Quantity(f"Centre, {axis}", f"centre {axis} [cells]", centre(number), wide=False)
        for number, axis in enumerate(list(detector.axes)[:2])
    ]
    found.append(Quantity("Radius that holds 90 %", "radius [cells]", lambda one: one.radius, wide=False))
    found.append(Quantity("Lit cells", "lit cells", lambda one: one.lit))
    return found


def _distributions(part: Comparison) -> str:
    channels = part.runs[0].scores["channels"]
    reference = metrics.observe(part.reference, channels)
    observed = [(run, metrics.observe(source, channels)) for run, source in part.shown]
    blocks = [_histograms(one, reference, observed) for one in _quantities(part.detector, channels)]
    blocks.append(_cell_contents(part))
    note = (
        "Below each histogram: model over GEANT, with triangles where the ratio leaves the panel. Bands: "
        "statistical, √n a bin (cell contents: from event to event). On the right, bins are merged until each "
        "holds 8 GEANT events. The first repeat of each model is drawn."
    )
    return f'<p class="note">{note}</p><div class="grid">{"".join(blocks)}</div>'


def _histograms(
    quantity: Quantity, reference: metrics.Observables, observed: Sequence[tuple[Run, metrics.Observables]]
) -> str:
    """Draws a quantity twice: with linear and with logarithmic numbers of events."""
    values = quantity.of(reference)
    if values is None:
        return ""
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return _missing(f"{quantity.title}: no response of the reference has one.")
    whole = bool(np.all(finite == np.round(finite)))
    ours = [(run, mine) for run, one in observed if (mine := quantity.of(one)) is not None]
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
            histograms.merged_edges(histograms.fill(values, fine).counts, fine),
            {"y": "log", "per": fine[1] - fine[0], "ylabel": f"events / {fine[1] - fine[0]:g}"},
        ),
    )
    names = ", ".join(run.name for run, _ in ours) or "no model"
    images = []
    for edges, options in views:
        bins = [(run.look, histograms.fill(mine, edges)) for run, mine in ours]
        image = figures.compare(histograms.fill(values, edges), bins, xlabel=quantity.label, **options)
        images.append(
            _image(image, f"{quantity.title}, {options.get('y', 'linear')}: GEANT and {names}, with ratios")
        )
    beyond = [(run.name, count) for run, mine in ours if (count := histograms.outside(mine, fine))]
    caption = f"<b>{escape(quantity.title)}</b>"
    if beyond:
        listed = ", ".join(f"{name} {_plural(count, 'event')}" for name, count in beyond)
        caption += escape(f" Beyond GEANT's range or without a value: {listed}.")
    return _figure(images, caption)


def _cell_contents(part: Comparison) -> str:
    edges = histograms.growing_edges(max(histograms.largest_cell(part.reference), 1.0))[1:]
    edges = histograms.merged_edges(histograms.cell_spectrum(part.reference, edges).counts, edges)
    image = figures.compare(
        histograms.cell_spectrum(part.reference, edges),
        [(run.look, histograms.cell_spectrum(source, edges)) for run, source in part.shown],
        xlabel=f"cell content [{part.detector.unit}]",
        ylabel="cells / bin width",
        x="log",
        y="log",
        per=1.0,
    )
    return _figure(
        [_image(image, "Spectrum of cell contents, with ratios")],
        "<b>Cell contents</b> Empty cells left out.",
        "half",
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
    ids, number = np.unique(primaries.pdg, return_counts=True)
    types = ids[np.argsort(-number, kind="stable")][:count]
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


def _gallery(part: Comparison) -> str:
    if not part.shown:
        return _missing("No generated events were kept: no gallery.")
    if len(part.detector.shape) < 2:
        return _missing("Responses have one axis: no gallery.")
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
        image = figures.gallery(list(zip(*columns, strict=True)), titles, names, part.detector.unit)
        name = particle_name(int(part.reference.primaries.pdg[rows[0]]))
        shots = "one shot" if len(rows) == 1 else f"{len(rows)} shots, one a row"
        caption = f"<b>{escape(name)}</b> {escape(_energy_text(part, rows[0]))}, {shots}"
        alt = f"Responses to {name}: {', '.join(titles)}"
        blocks.append(_figure([_image(image, alt, IMAGE_WIDTH * len(titles))], caption))
    note = (
        f'<p class="note">The same particle in every panel of a row, one logarithmic colour scale a figure; Σ: sum of '
        f"{escape(part.detector.unit)}; black: empty. Particles were chosen by type and energy alone.</p>"
    )
    return f'{note}<div class="grid gallery">{"".join(blocks)}</div>'


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


def _mean_shower(part: Comparison) -> str:
    if not part.shown:
        return _missing("No generated events were kept: no mean shower.")
    if len(part.detector.shape) < 2:
        return _missing("Responses have one axis: no mean shower.")
    image = figures.mean_shower(
        histograms.mean_response(part.reference),
        [(run.name, histograms.mean_response(source)) for run, source in part.shown],
        list(part.detector.axes)[:2],
    )
    caption = (
        f"Above: mean {escape(part.detector.unit)} a cell over all rows. Grey: cells whose mean GEANT knows to no "
        "better than 25 %."
    )
    alt = "Mean shower of GEANT and the models, and relative differences"
    return _figure([_image(image, alt, IMAGE_WIDTH * (1 + len(part.shown)))], caption)


# Settings and speed


def _settings(part: Comparison) -> str:
    floor = tables.floor_of(part.scores, part.stem, "w1")
    ylabel = f"W1 [{part.detector.unit}]"
    swept = sweeps.curves(part.runs, part.stem)
    blocks = [
        _missing(f"{run.name}: the values of {path} are no numbers, so they have no curve.")
        for run, path in sweeps.wordy(part.runs, part.stem)
    ]
    for name, curves in swept.items():
        image = figures.sweep(curves, floor, name, ylabel)
        caption = f"<b>W1 against {escape(name)}</b> {FLOOR_NOTE}"
        blocks.append(_figure([_image(image, f"W1 against {name}")], caption))
    if not swept:
        blocks.append(_missing("No sweep was recorded: no W1 against the number of steps."))
    return f'<div class="grid">{"".join(blocks)}</div>'


def _quality_against_time(part: Comparison) -> str:
    """Draws every run and every setting of its sweeps, one panel a metric that there is."""
    panels = pareto.panels(part.runs, part.stem)
    untimed = [run.name for run in part.runs if pareto.milliseconds(run.scores.get("timing")) is None]
    note = _missing(f"No timing was recorded for {_joined(untimed)}.") if untimed else ""
    if not panels:
        return note
    caption = (
        "Lower left is better. Large marks: the runs as scored; small ones: their sweeps, each with its value. Circles "
        "are generators, triangles readouts, which give no image, crosses yardsticks, which simulate nothing. Lines "
        "join the generators, and the readouts, that no other of their kind beats in both time and quality. "
        f"{FLOOR_NOTE}"
    )
    places = {str(timing.get("machine")) for run in part.runs if (timing := run.scores.get("timing"))}
    if len(places) > 1:
        caption += " <b>Times come from different machines</b>, named below the first table."
    titles = _joined([panel.ylabel.partition(" [")[0] for panel in panels])
    image = _image(
        figures.quality_against_time(panels),
        f"{titles} against milliseconds an event",
        PANEL_WIDTH * (len(panels) + 0.6),
    )
    return _figure([image], caption) + note


# Training, data, provenance


def _number_in(row: Mapping[str, str], column: str) -> float | None:
    try:
        value = float(row.get(column) or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def training_of(run: Run) -> figures.Training | None:
    """Reads the log of a run: losses and validation scores against the epoch, counted through all stages."""
    rows = Folder(run.path).log()
    if not rows:
        return None
    series: dict[str, list[tuple[float, float]]] = {}
    stages: dict[str, float] = {}
    best = None
    wanted = (run.card.get("training") or {}).get("best_epoch")
    for number, row in enumerate(rows, 1):
        stages.setdefault(row.get("stage") or "training", float(number))
        if (
            wanted is not None
            and row.get("epoch") == str(wanted)
            and row.get("stage") == rows[-1].get("stage")
        ):
            best = float(number)
        for column in row:
            if column not in LOG_COLUMNS and (value := _number_in(row, column)) is not None:
                series.setdefault(column, []).append((float(number), value))
    return figures.Training(
        {name: tuple(points) for name, points in series.items() if not name.startswith("validation")},
        {name: tuple(points) for name, points in series.items() if name.startswith("validation")},
        tuple(stages.items()),
        best,
    )


def _training(runs: Sequence[Run]) -> str:
    blocks = []
    for run in runs:
        training = training_of(run)
        if training is None or not (training.losses or training.validations):
            blocks.append(_missing(f"{run.name}: no training log."))
            continue
        spent = run.card.get("training") or {}
        facts = [f"{spent['epochs']} epochs"] if spent.get("epochs") is not None else []
        if spent.get("seconds") is not None:
            facts.append(_duration(float(spent["seconds"])))
        if spent.get("machine"):
            facts.append(str(spent["machine"]))
        if training.best is not None:
            facts.append(f"best epoch {spent['best_epoch']} (dotted)")
        image = _image(figures.training_curves(training), f"Loss and validation of {run.name}")
        blocks.append(_figure([image], f"<b>{escape(run.name)}</b> {escape(', '.join(facts))}"))
    return f'<div class="grid">{"".join(blocks)}</div>'


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _trained_on(runs: Sequence[Run]) -> str:
    """Writes which files and how many of their rows each run was trained on."""
    parts = ("train", "validation", "test")
    rows = []
    for run in runs:
        for one in run.card.get("data") or []:
            sizes = (tables.Cell(f"{one['rows'].get(name, 0):,}") for name in parts)
            texts = (tables.Cell(str(one["name"])), *sizes, tables.Cell(f"{str(one['sha256'])[:16]}…"))
            rows.append(tables.Row(run.name, "data", texts))
    columns = ("file", *(f"{name} rows" for name in parts), "sha256")
    unknown = [run.name for run in runs if not run.card.get("data")]
    lines = (
        [tables.html(tables.Table("model", tuple(map(tables.Column, columns)), tuple(rows)))] if rows else []
    )
    if unknown:
        lines.append(_missing(f"{_joined(unknown)}: no card, so the training data are not known."))
    return "".join(lines)


def _data(parts: Sequence[Comparison], runs: Sequence[Run]) -> str:
    blocks = []
    for part in parts:
        ids, counts = np.unique(part.reference.primaries.pdg, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        names = [particle_name(int(ids[i])) for i in order[:12]]
        sizes = [int(counts[i]) for i in order[:12]]
        if len(order) > 12:
            names.append(f"{len(order) - 12} others")
            sizes.append(int(counts[order[12:]].sum()))
        image = figures.particle_mix(names, sizes, f"{part.runs[0].scores['part']} rows of {part.file.name}")
        feature = part.detector.energy
        energies = None if feature is None else part.reference.primaries.feature(feature.name)
        more = ""
        if feature is not None and energies is not None and len(energies):
            low, middle, high = np.quantile(energies, [0.05, 0.5, 0.95])
            more = f"; energy: median {middle:,.0f}, 90 % within {low:,.0f} to {high:,.0f} {feature.unit}."
        caption = f"<b>{escape(part.file.name)}</b> sha256 {part.sha256[:16]}…{more}"
        blocks.append(_figure([_image(image, f"Particle types of {part.file.name}")], caption))
    return f'{_trained_on(runs)}<div class="grid">{"".join(blocks)}</div>'


def _published(detector: Detector) -> str:
    table = tables.published_table(detector.name) or tables.published_showers_table(detector.name)
    more = tables.published_separations_table(detector.name)
    if table is None:
        return _missing(f"There are no published results for {detector.title}.")
    return (
        '<p class="warn">Published, on other data. These numbers belong to the publications\' own simulation, rows and '
        f"floors: context, not rivals.</p>{tables.html(table)}{'' if more is None else tables.html(more)}"
    )


def _provenance(runs: Sequence[Run]) -> str:
    blocks = []
    for run in runs:
        card, scores = run.card, run.scores
        training = card.get("training") or {}
        facts = {
            "type": scores.get("type"),
            "version": card.get("version"),
            "git revision": card.get("git_revision"),
            "created": card.get("created"),
            "training seed": card.get("seed"),
            "training machine": training.get("machine"),
            "parameters": None if scores.get("parameters") is None else f"{scores['parameters']:,}",
            "rounding": card.get("rounding"),
            "settings": ", ".join(
                f"{key} = {value}" for key, value in (scores.get("settings") or {}).items()
            ),
            "evaluation": f"part {scores.get('part')}, seed {scores.get('seed')}, {scores.get('repeats')} repeats",
        }
        items = "".join(
            f"<dt>{escape(key)}</dt><dd>{escape(str(value)) if value not in (None, '') else 'not recorded'}</dd>"
            for key, value in facts.items()
        )
        recipe = run.path / "recipe.toml"
        text = (
            f"<details><summary>Recipe</summary><pre>{escape(recipe.read_text(encoding='utf-8'))}</pre></details>"
            if recipe.is_file()
            else _missing("No recipe was kept.")
        )
        blocks.append(f"<article><h4>{escape(run.name)}</h4><dl>{items}</dl>{text}</article>")
    return f'<div class="grid">{"".join(blocks)}</div>'


# The page


@dataclass
class _Contents:
    """Collects the sections and their table of contents, one line for a section and those within."""

    lines: list[str] = field(default_factory=list)
    links: list[list[str]] = field(default_factory=list)
    count: int = 0

    def add(self, level: int, title: str, body: str, short: str = "") -> None:
        """Adds a section; with a `short` name it belongs to the one before."""
        self.count += 1
        self.lines.append(f'<section><h{level} id="s{self.count}">{escape(title)}</h{level}>{body}</section>')
        link = f'<a class="l{level}" href="#s{self.count}">{escape(short or title)}</a>'
        if short:
            self.links[-1].append(link)
        else:
            self.links.append([link])

    def navigation(self) -> str:
        """Returns the table of contents."""
        return f"<nav>{''.join(f'<div>{chr(10).join(line)}</div>' for line in self.links)}</nav>"


def _page(runs: Sequence[Run], parts: Sequence[Comparison], studies: Sequence[study.Study]) -> str:
    contents = _Contents()
    for name in dict.fromkeys(part.detector.name for part in parts):
        mine = [part for part in parts if part.detector.name == name]
        ours = [run for run in runs if any(run in part.runs for part in mine)]
        detector = mine[0].detector
        contents.add(2, detector.title, _overview(mine, ours))
        for part in mine:
            first = part.runs[0].scores
            alone = [one.stem for one in mine].count(part.stem) == 1
            title = (
                part.stem if alone else f"{part.stem} ({first['split']} split, {first['channels']} channels)"
            )
            if detector.layers and showers.runs_with_showers(part.runs):
                contents.add(3, title, f"{_headline(part)}{_shower_tables(part)}")
                legend = _legend([run for run, _ in part.shown])
                for short, body in showers.sections(part):
                    contents.add(4, f"{title}: {short}", f"{legend}{body}", short)
                continue
            contents.add(3, title, f"{_headline(part)}{_tables(part)}")
            legend = _legend([run for run, _ in part.shown])
            body = f"{legend}{_not_shown(part)}{_distributions(part)}"
            contents.add(4, f"{title}: distributions", body, "distributions")
            contents.add(4, f"{title}: events", _gallery(part), "events")
            contents.add(4, f"{title}: mean shower", _mean_shower(part), "mean shower")
            contents.add(4, f"{title}: settings", _settings(part), "settings")
            contents.add(
                4, f"{title}: quality against time", _quality_against_time(part), "quality against time"
            )
        contents.add(3, f"{detector.title}: published results", _published(detector))
        contents.add(3, f"{detector.title}: training", _training(ours), "training")
        contents.add(3, f"{detector.title}: data", _data(mine, ours), "data")
    for one in studies:
        contents.add(2, f"Tuning of {one.name}", study.section(one))
    if runs:
        contents.add(2, "Provenance", _provenance(runs))
    names = escape(_joined([*(run.name for run in runs), *(one.name for one in studies)]))
    title = "Surrogates against GEANT" if runs else "Tuning"
    return whole_page(
        f"{_joined([*(run.name for run in runs), *(one.name for one in studies)])}: surrogate report",
        f"<header><h1>{title}</h1><p>{names}</p></header>"
        f"{contents.navigation()}<main>{''.join(contents.lines)}</main>",
    )


def _overview(parts: Sequence[Comparison], runs: Sequence[Run]) -> str:
    """Describes the detector, with W1 of every model on every set where there are several sets."""
    detector = parts[0].detector
    shape = " × ".join(f"{length} ({axis})" for axis, length in detector.axes.items())
    lines = [f"<p>{escape(f'{shape} cells, in {detector.unit}.')}</p>"]
    stems = [part.stem for part in parts]
    if len(set(stems)) == len(stems) > 1:
        metric = "frechet_population" if detector.layers else "w1"
        names = [run.name for run in runs]
        table = tables.overview_table([run.scores for run in runs], stems, metric, names)
        lines.append(f"<h4>{tables.METRICS[metric].title} at a glance</h4>{tables.html(table)}")
    return "".join(lines)
