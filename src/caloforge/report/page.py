"""The report: one self-contained HTML page about one or more runs.

It reads run folders and the reference events behind their scores, and computes no score itself. Sections go by
detector and, within, by set: runs stand side by side where they were scored on the same rows of the same file
with the same channels. What is missing is said in its place.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge import metrics
from caloforge.detectors import Detector, detector_named
from caloforge.events import EventSource, Selected, split
from caloforge.io import open_events, sha256
from caloforge.io.files import read_json, write_text
from caloforge.io.run import Run as Folder
from caloforge.particles import particle_name
from caloforge.report import figures, tables

FORMAT = 1

SPLITS = {
    "canonical": "the file's folds, by particle: no test particle was trained on",
    "grouped": "by particle: no test particle was trained on",
    "paper": "by row, as in the publications: training and test share particles",
}

HEADLINE = ("w1", "conditional_w1", "mae", "mae_c", "mae_cw")
"""Metrics of the first table and of the tables by particle type."""

GALLERY = 6
"""Particles in an event gallery."""

LOG_COLUMNS = ("stage", "epoch", "step", "seconds", "samples_per_second")
"""Columns of a log that are no loss."""


@dataclass(frozen=True, eq=False)
class Run:
    """Holds what a run folder says.

    Attributes:
        path: the folder.
        name: unique on the page.
        scores: contents of `scores.json`.
        card: contents of `card.json`; empty where there is none.
        look: how the run is drawn.
    """

    path: Path
    name: str
    scores: Mapping[str, Any]
    card: Mapping[str, Any]
    look: figures.Style

    @property
    def split_seed(self) -> int:
        """The seed of the split: the training's, where there was one."""
        return int(self.card.get("seed", self.scores.get("seed", 0)))


@dataclass(frozen=True, eq=False)
class Comparison:
    """Holds runs that were scored on the same rows of the same file.

    Attributes:
        detector: the detector.
        stem: name of the set in the scores.
        reference: the test rows of the reference, in order.
        file: the reference file.
        sha256: its hash.
        runs: the runs, as on the whole page.
        generated: for each run the events of its first repeat, row by row; None where none were kept.
    """

    detector: Detector
    stem: str
    reference: EventSource
    file: Path
    sha256: str
    runs: tuple[Run, ...]
    generated: tuple[EventSource | None, ...]

    @property
    def shown(self) -> list[tuple[Run, EventSource]]:
        """Runs with generated events."""
        return [
            (run, source) for run, source in zip(self.runs, self.generated, strict=True) if source is not None
        ]

    @property
    def scores(self) -> list[Mapping[str, Any]]:
        """Scores of the runs."""
        return [run.scores for run in self.runs]

    @property
    def names(self) -> list[str]:
        """Names of the runs."""
        return [run.name for run in self.runs]


def write_report(runs: Sequence[Path], out: Path, references: Mapping[str, Path] | None = None) -> None:
    """Writes the report of one or more runs as one HTML file.

    Args:
        runs: run folders with `scores.json`; the order is that of the page.
        out: the page; it appears whole or not at all.
        references: reference files by the name of the set, where they are no longer at the place the scores name.

    Raises:
        ValueError: no runs, no scores, a reference that is missing or is another file, or generated events that do
            not belong to its rows.
    """
    found = read_runs(runs)
    parts = comparisons(found, references or {})
    write_text(out, _page(found, parts))


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """Reads run folders; two of the same name are told apart by their folders.

    Raises:
        ValueError: no runs, the same folder twice, or no readable scores.
    """
    folders = [Path(path) for path in paths]
    if not folders:
        raise ValueError("a report needs at least one run")
    for folder in folders:
        if folders.count(folder) > 1:
            raise ValueError(f"each run may be given once, got {folder} {folders.count(folder)} times")
        if not (folder / "scores.json").is_file():
            raise ValueError(f"{folder} has no scores.json: caloforge evaluate writes it")
    scores = [read_json(folder / "scores.json") for folder in folders]
    for folder, one in zip(folders, scores, strict=True):
        if not isinstance(one, dict) or one.get("format") != FORMAT:
            got = one.get("format") if isinstance(one, dict) else type(one).__name__
            raise ValueError(f"{folder}/scores.json must have format {FORMAT}, got {got!r}")
    names = [str(one["name"]) for one in scores]
    runs = []
    for number, (folder, one, name) in enumerate(zip(folders, scores, names, strict=True)):
        unique = f"{name} ({folder.name})" if names.count(name) > 1 else name
        card = Folder(folder).card() if (folder / "card.json").is_file() else {}
        runs.append(Run(folder, unique, one, card, figures.style(number, unique)))
    return runs


def comparisons(runs: Sequence[Run], references: Mapping[str, Path]) -> list[Comparison]:
    """Opens the reference of every set and the events generated for it, and puts runs of equal rows together.

    Raises:
        ValueError: as `write_report`.
    """
    unknown = sorted(set(references) - {stem for run in runs for stem in run.scores["sets"]})
    if unknown:
        raise ValueError(f"--reference {unknown[0]}=...: no run was scored on a set of that name")
    together: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        for stem, one in run.scores["sets"].items():
            kind = run.scores["split"]
            key = (
                run.scores["detector"], stem, one["reference"]["sha256"], one["reference"]["rows"],
                run.scores["channels"], kind, run.scores["part"], None if kind == "canonical" else run.split_seed,
            )  # fmt: skip
            together.setdefault(key, []).append(run)
    return [_comparison(stem, mine, references) for (_, stem, *_), mine in together.items()]


def _comparison(stem: str, runs: Sequence[Run], references: Mapping[str, Path]) -> Comparison:
    first = runs[0]
    detector = detector_named(first.scores["detector"])
    wanted = first.scores["sets"][stem]["reference"]
    file = Path(references.get(stem, wanted["path"]))
    if not file.is_file():
        raise ValueError(
            f"the reference {stem} of {first.path} is not at {file}: say where it is with --reference {stem}=PATH"
        )
    if sha256(file) != wanted["sha256"]:
        raise ValueError(
            f"{file} is not the file {first.path} was scored on (its sha256 must be {wanted['sha256'][:12]}..., "
            f"got {sha256(file)[:12]}...): say where that file is with --reference {stem}=PATH"
        )
    source = open_events(file, detector)
    rows = _rows(source, first)
    if len(rows) != wanted["rows"]:
        raise ValueError(
            f"the {first.scores['part']} rows of {file} must be the {wanted['rows']} that {first.path} was scored on, "
            f"got {len(rows)}"
        )
    reference = Selected(source, rows)
    generated: list[EventSource | None] = []
    for run in runs:
        name = run.scores["sets"][stem].get("generated")
        if not name:
            generated.append(None)
            continue
        events = open_events(run.path / name, detector)
        try:
            metrics.align(reference.primaries, events.primaries)
        except ValueError as error:
            raise ValueError(f"{run.path / name}: {error}") from error
        generated.append(events)
    return Comparison(detector, stem, reference, file, wanted["sha256"], tuple(runs), tuple(generated))


def _rows(source: EventSource, run: Run) -> NDArray[np.intp]:
    part = run.scores["part"]
    if part == "all":
        return np.arange(len(source))
    return split(source, run.scores["split"], run.split_seed)[part]


# Pieces of HTML


def _image(data: bytes, alt: str, wide: bool = False) -> str:
    kind = "png" if data.startswith(b"\x89PNG") else "svg+xml"
    text = base64.b64encode(data).decode("ascii")
    image = f'<img src="data:image/{kind};base64,{text}" alt="{escape(alt, quote=True)}">'
    return f'<div class="scroll wide">{image}</div>' if wide else image


def _figure(images: Iterable[str], caption: str) -> str:
    return f'<figure><div class="images">{"".join(images)}</div><figcaption>{caption}</figcaption></figure>'


def _missing(text: str) -> str:
    return f'<p class="missing">{escape(text)}</p>'


def _joined(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _plural(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def _legend(runs: Sequence[Run]) -> str:
    entries = ['<span class="key"><i class="geant"></i>GEANT</span>']
    for run in runs:
        dashes = " ".join(f"{2 * length:g}" for length in run.look.dashes)
        line = (
            '<svg width="34" height="10" aria-hidden="true"><line x1="0" y1="5" x2="34" y2="5" stroke-width="3" '
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
    how = (
        ""
        if first["part"] == "all"
        else f" Split: {first['split']} ({SPLITS.get(first['split'], 'unknown')})."
    )
    repeats = sorted({int(run.scores["repeats"]) for run in runs})
    seeds = sorted({int(run.scores["seed"]) for run in runs})
    text = (
        f"{_joined(counts)} against GEANT, on the {rows} of {part.file.name} ({_plural(particles, 'particle')})."
        f"{how} Channels: {first['channels']}. Seed {_joined([str(seed) for seed in seeds])}, "
        f"{_joined([str(repeat) for repeat in repeats])} repeats; "
        "± is the spread over the repeats, for the floor over its random splits."
    )
    return f"<p>{escape(text)}</p>{_best(part)}"


def _best(part: Comparison) -> str:
    """Says in a sentence which model has the smallest W1, and whether a yardstick has a smaller one."""
    entries = {
        run.name: (run.scores["sets"][part.stem]["groups"]["all"]["metrics"].get("w1") or {}).get("mean")
        for run in part.runs
    }
    models = [
        run
        for run in part.runs
        if tables.kind_of(run.scores) != "yardstick" and entries[run.name] is not None
    ]
    if not models:
        return ""
    best = min(models, key=lambda run: entries[run.name])
    entry = best.scores["sets"][part.stem]["groups"]["all"]["metrics"]["w1"]
    floor, matched = ((entry.get(key) or {}).get("mean") for key in ("floor", "matched_floor"))
    text = f"{'Smallest ' if len(models) > 1 else ''}W1: {best.name}, {tables.number(entry['mean'])} {part.detector.unit}"
    if floor and matched is not None:
        text += f"; at equal numbers of rows {tables.number(matched / floor)} times the floor"
    ahead = [
        run.name
        for run in part.runs
        if run not in models and (entries[run.name] or math.inf) < entries[best.name]
    ]
    if ahead:
        text += (
            f". {_joined(ahead)}, which simulate{'s' if len(ahead) == 1 else ''} nothing, "
            f"{'is' if len(ahead) == 1 else 'are'} ahead in W1: look at the conditional metrics"
        )
    return f'<p class="lead">{escape(text)}.</p>'


def _tables(part: Comparison) -> str:
    names = tables.metric_names(part.scores, part.stem)
    table = lambda wanted, speed: tables.html(  # noqa: E731
        tables.scores_table(part.scores, part.stem, wanted, names=part.names, speed=speed)
    )
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
        for number, name in enumerate(head):
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
        low, high: quantiles of the reference between which the linear histogram lies.
    """

    title: str
    label: str
    of: Callable[[metrics.Observables], NDArray[np.float64] | None]
    low: float = 0.0
    high: float = 0.97


def _quantities(detector: Detector, channels: str) -> list[Quantity]:
    unit = detector.unit
    found = [
        Quantity(f"Channel {label}", f"{label} [{unit}]", lambda one, i=number: one.channels[:, i])  # type: ignore[misc]
        for number, label in enumerate(detector.channel_map(channels).labels)
    ]
    found.append(Quantity("Sum over channels", f"sum of {unit}", lambda one: one.photons))
    for number, axis in enumerate(list(detector.axes)[:2]):
        found.append(
            Quantity(
                f"Centre, {axis}",
                f"centre {axis} [cells]",
                lambda one, i=number: None if one.centre is None else one.centre[:, i],  # type: ignore[misc]
                0.005,
                0.995,
            )  # fmt: skip
        )
    found.append(Quantity("Radius that holds 90 %", "radius [cells]", lambda one: one.radius, 0.0, 0.99))
    found.append(Quantity("Lit cells", "lit cells", lambda one: one.lit, 0.0, 0.995))
    return found


def _distributions(part: Comparison) -> str:
    channels = part.runs[0].scores["channels"]
    reference = metrics.observe(part.reference, channels)
    observed = [(run, metrics.observe(source, channels)) for run, source in part.shown]
    blocks = [_histograms(quantity, reference, observed) for quantity in _quantities(part.detector, channels)]
    blocks.append(_cell_contents(part))
    note = (
        '<p class="note">Left: linear, without the tail; right: the whole range, logarithmic. Below each: model over '
        "GEANT; triangles mark ratios outside the panel. Bands: statistical, √n a bin (cell contents: event to event). "
        "The first repeat of each model is drawn.</p>"
    )
    return f'{note}<div class="grid">{"".join(blocks)}</div>'


def _histograms(
    quantity: Quantity, reference: metrics.Observables, observed: Sequence[tuple[Run, metrics.Observables]]
) -> str:
    values = quantity.of(reference)
    if values is None:
        return ""
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return _missing(f"{quantity.title}: no response of the reference has one.")
    whole = bool(np.all(finite == np.round(finite)))
    ours = [(run, mine) for run, one in observed if (mine := quantity.of(one)) is not None]
    low, high = np.quantile(finite, [quantity.low, quantity.high])
    images = []
    edges = np.zeros(0)
    for log, (bottom, top) in ((False, (low, high)), (True, (finite.min(), finite.max()))):
        edges = figures.nice_edges(float(bottom), float(top), whole)
        width = edges[1] - edges[0]
        images.append(
            _image(
                figures.compare(
                    figures.fill(values, edges),
                    [(run.look, figures.fill(mine, edges)) for run, mine in ours],
                    quantity.label,
                    f"events / {width:g}",
                    log=log,
                ),
                f"{quantity.title}: GEANT and {', '.join(run.name for run, _ in ours) or 'no model'}, "
                f"{'logarithmic' if log else 'linear'}, with ratios",
            )
        )
    beyond = [(run.name, count) for run, mine in ours if (count := figures.outside(mine, edges))]
    caption = f"<b>{escape(quantity.title)}</b>"
    if beyond:
        listed = ", ".join(f"{name} {_plural(count, 'event')}" for name, count in beyond)
        caption += escape(f" Beyond the right-hand axis: {listed}.")
    return _figure(images, caption)


def _cell_contents(part: Comparison) -> str:
    top = max(figures.largest_cell(part.reference), 1.0)
    edges = figures.whole_edges(top)
    image = figures.compare(
        figures.cell_spectrum(part.reference, edges),
        [(run.look, figures.cell_spectrum(source, edges)) for run, source in part.shown],
        f"cell content [{part.detector.unit}]",
        "cells / bin",
        log=True,
        log_x=True,
    )
    return _figure(
        [_image(image, "Spectrum of cell contents, with ratios")],
        "<b>Cell contents</b> Empty cells left out.",
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
        shots = "shot once" if len(rows) == 1 else f"{len(rows)} shots, one a row"
        caption = f"<b>{escape(name)}</b> {escape(_energy_text(part, rows[0]))}, {shots}"
        blocks.append(
            _figure([_image(image, f"Responses to {name}: GEANT and {', '.join(titles[1:])}", True)], caption)
        )
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
        figures.mean_response(part.reference),
        [(run.name, figures.mean_response(source)) for run, source in part.shown],
        list(part.detector.axes)[:2],
        part.detector.unit,
    )
    caption = "Mean over all rows. Grey: cells whose mean GEANT knows to no better than 25 %."
    return _figure(
        [_image(image, "Mean shower of GEANT and the models, and relative differences", True)], caption
    )


# Speed and settings


def _w1(scores: Mapping[str, Any]) -> Mapping[str, Any] | None:
    entry = scores["groups"]["all"]["metrics"].get("w1")
    return entry if entry and entry.get("mean") is not None else None


def _point(run: Run, points: Sequence[tuple[float, Mapping[str, Any]]]) -> figures.Curve:
    ordered = sorted(points, key=lambda point: point[0])
    return figures.Curve(
        run.look,
        tuple(float(x) for x, _ in ordered),
        tuple(float(entry["mean"]) for _, entry in ordered),
        tuple(float(entry.get("std") or 0.0) for _, entry in ordered),
    )


def _ms(timing: Mapping[str, Any] | None) -> float | None:
    value = ((timing or {}).get("ms_per_event") or {}).get("median")
    return None if value is None else float(value)


def _speed(part: Comparison) -> str:
    floor = next(
        (
            (float(entry["floor"]["mean"]), float(entry["floor"]["std"] or 0.0))
            for run in part.runs
            if (entry := _w1(run.scores["sets"][part.stem])) and entry.get("floor")
        ),
        None,
    )
    ylabel = f"W1 [{part.detector.unit}]"
    blocks = []
    swept: dict[str, list[figures.Curve]] = {}
    by_time = []
    for run in part.runs:
        found = [
            (one, entry)
            for one in run.scores.get("sweep") or []
            if part.stem in one["sets"] and (entry := _w1(one["sets"][part.stem]))
        ]
        for path in dict.fromkeys(one["path"] for one, _ in found):
            mine = [(one, entry) for one, entry in found if one["path"] == path]
            if all(isinstance(one["value"], int | float) for one, _ in mine):
                swept.setdefault(path, []).append(_point(run, [(one["value"], entry) for one, entry in mine]))
            timed = [(ms, entry) for one, entry in mine if (ms := _ms(one)) is not None]
            if timed:
                by_time.append(_point(run, timed))
    for path, curves in swept.items():
        image = figures.sweep(curves, floor, path, ylabel)
        blocks.append(
            _figure([_image(image, f"W1 against {path}")], f"<b>W1 against {escape(path)}</b> All test rows.")
        )
    if not swept:
        blocks.append(_missing("No sweep was recorded: no W1 against the number of steps."))
    timed_runs = [
        (run, ms, entry)
        for run in part.runs
        if (ms := _ms(run.scores.get("timing"))) is not None and (entry := _w1(run.scores["sets"][part.stem]))
    ]
    if timed_runs:
        points = [_point(run, [(ms, entry)]) for run, ms, entry in timed_runs]
        image = figures.quality_against_time(points, by_time, floor, ylabel)
        caption = "<b>Quality against time</b> Diamonds: the runs as scored; small points: their sweeps. Lower left is better."
        places = {str((run.scores["timing"] or {}).get("machine")) for run, _, _ in timed_runs}
        if len(places) > 1:
            caption += " <b>Times come from different machines</b>, named below the first table."
        blocks.append(_figure([_image(image, "W1 against milliseconds an event")], caption))
    untimed = [run.name for run in part.runs if run not in [one for one, _, _ in timed_runs]]
    if untimed:
        blocks.append(_missing(f"No timing was recorded for {_joined(untimed)}."))
    return f'<div class="grid">{"".join(blocks)}</div>'


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


def _data(parts: Sequence[Comparison], runs: Sequence[Run]) -> str:
    lines = []
    for run in runs:
        files = run.card.get("data") or []
        if not files:
            lines.append(_missing(f"{run.name}: no card, so its training data are not known."))
            continue
        names = list(dict.fromkeys(name for one in files for name in one.get("rows", {})))
        table = tables.Table(
            "file",
            (*(tables.Column(f"{name} rows") for name in names), tables.Column("sha256")),
            tuple(
                tables.Row(
                    str(one.get("name")),
                    "data",
                    (
                        *(tables.Cell(f"{one.get('rows', {}).get(name, 0):,}") for name in names),
                        tables.Cell(f"{str(one.get('sha256'))[:16]}…"),
                    ),
                )
                for one in files
            ),
        )
        lines.append(f"<h4>Trained on: {escape(run.name)}</h4>{tables.html(table)}")
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
        energies = (
            part.reference.primaries.conditions[:, part.detector.features.index("energy")]
            if "energy" in part.detector.features
            else None
        )
        more = ""
        if energies is not None and len(energies):
            low, middle, high = np.quantile(energies, [0.05, 0.5, 0.95])
            more = f" Energy: median {middle:,.0f} GeV, 90 % within {low:,.0f} to {high:,.0f} GeV."
        caption = f"<b>{escape(part.file.name)}</b> sha256 {part.sha256[:16]}….{more}"
        blocks.append(_figure([_image(image, f"Particle types of {part.file.name}")], caption))
    return f'{"".join(lines)}<div class="grid">{"".join(blocks)}</div>'


def _published(detector: Detector) -> str:
    table = tables.published_table(detector.name)
    if table is None:
        return _missing(f"There are no published results for {detector.title}.")
    return (
        '<p class="warn">Published, on other data. These numbers belong to the publications\' own simulation, rows and '
        f"floors: context, not rivals.</p>{tables.html(table)}"
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
            "parameters": scores.get("parameters"),
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
    """Collects the sections and their table of contents."""

    lines: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)

    def add(self, level: int, title: str, body: str) -> None:
        anchor = f"s{len(self.links)}"
        self.lines.append(f'<section><h{level} id="{anchor}">{escape(title)}</h{level}>{body}</section>')
        self.links.append(f'<a class="l{level}" href="#{anchor}">{escape(title)}</a>')


def _page(runs: Sequence[Run], parts: Sequence[Comparison]) -> str:
    contents = _Contents()
    for name in dict.fromkeys(part.detector.name for part in parts):
        mine = [part for part in parts if part.detector.name == name]
        ours = [run for run in runs if run.scores["detector"] == name]
        detector = mine[0].detector
        shape = " × ".join(f"{length} ({axis})" for axis, length in detector.axes.items())
        contents.add(2, detector.title, f"<p>{escape(f'{shape} cells, in {detector.unit}.')}</p>")
        for part in mine:
            first = part.runs[0].scores
            alone = [one.stem for one in mine].count(part.stem) == 1
            title = (
                part.stem if alone else f"{part.stem}, {first['split']} split, {first['channels']} channels"
            )
            contents.add(3, title, f"{_headline(part)}{_tables(part)}")
            legend = _legend([run for run, _ in part.shown])
            contents.add(4, f"{title}: distributions", f"{legend}{_not_shown(part)}{_distributions(part)}")
            contents.add(4, f"{title}: events", _gallery(part))
            contents.add(4, f"{title}: mean shower", _mean_shower(part))
            contents.add(4, f"{title}: settings and speed", _speed(part))
        contents.add(3, f"{detector.title}: published results", _published(detector))
        contents.add(3, f"{detector.title}: training", _training(ours))
        contents.add(3, f"{detector.title}: data", _data(mine, ours))
    contents.add(2, "Provenance", _provenance(runs))
    title = f"{_joined([run.name for run in runs])}: surrogate report"
    style = (resources.files("caloforge.report") / "page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{style}</style></head><body>"
        f"<header><h1>Surrogates against GEANT</h1><p>{escape(_joined([run.name for run in runs]))}</p></header>"
        f"<nav>{''.join(contents.links)}</nav><main>{''.join(contents.lines)}</main></body></html>\n"
    )
