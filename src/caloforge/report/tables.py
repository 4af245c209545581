"""Tables of scores, as blocks of a document or as strings for a console.

Every function takes scores (`io.scores`), one a model. A table of scores has one row a model
and one column a metric, the floor first, then generators, readouts and yardsticks. A cell shows mean +- spread
over the repeats and two ratios that say different things:

- `ratio`: the score over all rows, divided by the floor, which has fewer rows. A perfect model comes out
  below 1 where the metric falls with the number of rows.
- `matched`: the matched floor (reference against generated, as many rows as the floor) divided by the floor. A
  perfect model comes out at 1; this one judges a model.

The best model of a column is marked, yardsticks aside: they simulate nothing and set the scale. The smallest
value is the best, except where a metric should approach its floor: there the value closest to the floor is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from caloforge.detectors import detector_named
from caloforge.io.scores import ALL, Group, Level, Score, Scores, SweepPoint
from caloforge.metrics import METRICS as IMAGE_METRICS
from caloforge.metrics import Metric
from caloforge.metrics.showers import CLASSIFIER_METRICS, SHOWER_METRICS
from caloforge.report.document import Cell, Column, Row, Table
from caloforge.report.published import (
    PUBLISHED,
    PUBLISHED_SHOWERS,
    SEPARATIONS,
    SOURCE,
    SOURCE_READOUTS,
    SOURCE_SHOWERS,
)

METRICS: Mapping[str, Metric] = {**IMAGE_METRICS, **SHOWER_METRICS, **CLASSIFIER_METRICS}

YARDSTICKS = ("resample", "nearest")
"""Types of models that simulate nothing; they set the scale."""

KINDS = ("floor", "generator", "readout", "yardstick")
"""Kinds of rows, in the order of a table."""

APPROACH = (
    "mae",
    "mae_sum",
    "kpd",
    "kernel_population",
    "precision",
    "recall",
    "density",
    "coverage",
    *(name for name in CLASSIFIER_METRICS if name.startswith("auc")),
)
"""Metrics that should come near their floor, not vanish: errors between two samples of the same particle, shares."""

MISSING = "–"

FEWEST_PARTICLES = 20
"""Particles of a type below which its numbers are shown and no model is called the best."""


def number(value: float, spread: float | None = None) -> str:
    """Formats a value, with its spread in the same decimals: "4.83 ± 0.12"; two decimals from 0.1 to 100."""
    size = abs(value)
    if not math.isfinite(value):
        return MISSING
    if spread is not None and spread < 5e-5 * max(1.0, size):
        spread = None
    if size != 0 and (size < 1e-3 or size >= 1e6):
        return f"{value:.3g}" if spread is None else f"{value:.3g} ± {spread:.2g}"
    decimals = 0 if size >= 1000 else 1 if size >= 100 else 2 if size >= 0.1 or size == 0 else 4
    if spread is not None and round(spread, decimals) == 0:
        decimals = min(4, math.ceil(-math.log10(spread)))
    text = f"{value:,.{decimals}f}"
    return text if spread is None else f"{text} ± {spread:,.{decimals}f}"


def kind_of(scores: Scores) -> str:
    """Returns "generator", "readout" or "yardstick"."""
    return "yardstick" if scores.type in YARDSTICKS else scores.kind


def metric_names(scores: Sequence[Scores], stem: str, group: str = "all") -> list[str]:
    """Lists the metrics any of the models has on a set, in the order of `METRICS`."""
    there = {name for model in scores for name in _metrics(model, stem, group)}
    return [name for name in METRICS if name in there] + sorted(there - set(METRICS))


def has_numbers(scores: Sequence[Scores], stem: str, metric: str) -> bool:
    """Says whether any model has a number for a metric on a set."""
    return any(entry_of(model, stem, metric) is not None for model in scores)


def group_names(scores: Sequence[Scores], stem: str) -> list[str]:
    """Lists the particle types any of the models was scored on, the most frequent first, without "all"."""
    size: dict[str, int] = {}
    for model in scores:
        for name, group in _groups(model, stem).items():
            size[name] = max(size.get(name, 0), group.n)
    return sorted((name for name in size if name != ALL), key=lambda name: (-size[name], name))


def has_group(scores: Sequence[Scores], stem: str, group: str) -> bool:
    """Says whether any of the models was scored on a particle type of a set."""
    return any(group in _groups(model, stem) for model in scores)


def _groups(scores: Scores | SweepPoint, stem: str) -> Mapping[str, Group]:
    return scores.sets[stem].groups if stem in scores.sets else {}


def _group(scores: Scores | SweepPoint, stem: str, group: str) -> Group | None:
    return _groups(scores, stem).get(group)


def _metrics(scores: Scores | SweepPoint, stem: str, group: str) -> Mapping[str, Score]:
    scored = _group(scores, stem, group)
    return {} if scored is None else scored.metrics


def column_of(metric: str, detector: str) -> Column:
    """Returns title and unit of a metric for a detector: what is a sum of photons for one is an energy for another."""
    if metric not in METRICS:
        return Column(metric)
    title, unit = METRICS[metric].title, METRICS[metric].unit
    measured = detector_named(detector, trust=False).unit
    if measured != "photons":
        title, unit = title.replace("photon ", ""), measured if unit == "photons" else unit
    return Column(title, unit)


def _column(metric: str, models: Sequence[Scores]) -> Column:
    return column_of(metric, models[0].detector) if models else Column(metric)


def _floor(scores: Iterable[Scores], stem: str, group: str, metric: str) -> Level | None:
    for model in scores:
        entry = _metrics(model, stem, group).get(metric)
        if entry and entry.floor and entry.floor.mean is not None:
            return entry.floor
    return None


def entry_of(scores: Scores | SweepPoint, stem: str, metric: str) -> Score | None:
    """Returns what scores, or one setting of their sweep, say of a metric over all particles; None without a number."""
    entry = _metrics(scores, stem, ALL).get(metric)
    return entry if entry and entry.mean is not None else None


def floor_of(scores: Iterable[Scores], stem: str, metric: str) -> tuple[float, float] | None:
    """Returns the floor of a metric over all particles of a set and its spread, or None."""
    floor = _floor(scores, stem, ALL, metric)
    return None if floor is None or floor.mean is None else (floor.mean, floor.std or 0.0)


def _floor_cell(floor: Level | None) -> Cell:
    return Cell(MISSING) if floor is None or floor.mean is None else Cell(number(floor.mean, floor.std))


def _cell(entry: Score | None, reason: str) -> Cell:
    if entry is None:
        return Cell(MISSING, reason=reason)
    if entry.mean is None:
        return Cell(MISSING, reason=entry.reason or "no value")
    floor, matched = entry.over_floor
    return Cell(
        number(entry.mean, entry.std if len(entry.values) > 1 else None), ratio=floor, matched=matched
    )


def _column_of_cells(models: Sequence[Scores], stem: str, group: str, metric: str) -> list[Cell]:
    """Returns the cells of one metric: the floor's, then one a model, the best marked."""
    floor = _floor(models, stem, group, metric)
    entries = [_metrics(model, stem, group).get(metric) for model in models]
    cells = [
        _cell(entry, _absent(model, _group(model, stem, group)))
        for entry, model in zip(entries, models, strict=True)
    ]
    best = _best([_distance(metric, entry, floor) for entry in entries], models)
    if best is not None:
        cells[best] = replace(cells[best], best=True)
    return [_floor_cell(floor), *cells]


def _absent(scores: Scores, group: Group | None) -> str:
    if group is not None and group.reason:
        return group.reason
    return "a readout gives channel sums only" if kind_of(scores) == "readout" else "not computed"


def _distance(metric: str, entry: Score | None, floor: Level | None) -> float:
    """Returns what the best model has least of: the value, or its distance to the floor it approaches."""
    if entry is None or entry.mean is None:
        return math.inf
    if metric in APPROACH and floor is not None and floor.mean is not None:
        return abs(entry.mean - floor.mean)
    return entry.mean


def _best(distances: Sequence[float], scores: Sequence[Scores]) -> int | None:
    """Returns the position of the best model, yardsticks aside; None where there is nothing to compare."""
    contenders = [
        (distance, i)
        for i, (distance, model) in enumerate(zip(distances, scores, strict=True))
        if kind_of(model) != "yardstick" and math.isfinite(distance)
    ]
    return min(contenders)[1] if len(contenders) > 1 else None


def ordered(scores: Sequence[Scores], names: Sequence[str] | None = None) -> list[tuple[str, Scores]]:
    """Pairs names and scores, generators first, then readouts, then yardsticks."""
    pairs = list(zip(names or [model.name for model in scores], scores, strict=True))
    return sorted(pairs, key=lambda pair: KINDS.index(kind_of(pair[1])))


def scores_table(
    scores: Sequence[Scores],
    stem: str,
    metrics: Sequence[str] | None = None,
    group: str = "all",
    names: Sequence[str] | None = None,
    speed: bool = False,
) -> Table:
    """Compares models on one set: the floor's row, then one row a model, columns metrics.

    A metric that no model has a number for gets no column but a note with the reason.

    Args:
        scores: one a model.
        stem: name of the set, such as "zn_wide".
        metrics: names of the columns; None for every metric there is.
        group: "all" or a particle type.
        names: names of the rows; None for those in the scores.
        speed: whether to add the milliseconds an event and the number of parameters.
    """
    chosen = list(metrics) if metrics is not None else metric_names(scores, stem, group)
    pairs = [pair for pair in ordered(scores, names) if stem in pair[1].sets]
    models = [model for _, model in pairs]
    cells = {name: _column_of_cells(models, stem, group, name) for name in chosen}
    few = _too_few(models, stem, group)
    if few:
        cells = {name: _unmarked(column) for name, column in cells.items()}
    notes = _no_numbers({_column(name, models).title: column for name, column in cells.items()})
    cells = {name: column for name, column in cells.items() if _has_number(column)}
    columns = [_column(name, models) for name in cells]
    labels = [("floor", "floor"), *((label, kind_of(model)) for label, model in pairs)]
    rows = [
        Row(label, kind, tuple(column[i] for column in cells.values()))
        for i, (label, kind) in enumerate(labels)
    ]
    if speed:
        columns += [Column("time", "ms an event"), Column("parameters")]
        extra = [(Cell(""), Cell("")), *(_speed(model) for model in models)]
        rows = [replace(row, cells=row.cells + more) for row, more in zip(rows, extra, strict=True)]
        notes += _machines(pairs)
    if few:
        notes += [f"Fewer than {FEWEST_PARTICLES} particles in the test part: no claim."]
    notes += _weighted(pairs, stem, group)
    return Table("model", tuple(columns), tuple(rows), (*_particles_used(models, stem, group, cells), *notes))


def _too_few(models: Sequence[Scores], stem: str, group: str) -> bool:
    """Says whether a particle type has too few particles for a claim."""
    scored = [part for model in models if (part := _group(model, stem, group))]
    particles = max((part.particles for part in scored), default=0)
    return group != ALL and particles < FEWEST_PARTICLES


def _unmarked(cells: Sequence[Cell]) -> list[Cell]:
    return [replace(cell, best=False) for cell in cells]


def _has_number(cells: Sequence[Cell]) -> bool:
    """Says whether any model has a number; the first cell is the floor's."""
    return any(cell.text != MISSING for cell in cells[1:])


def _no_numbers(columns: Mapping[str, Sequence[Cell]]) -> list[str]:
    """Says which columns have no number, and why, one sentence a reason."""
    titles: dict[str, list[str]] = {}
    for title, cells in columns.items():
        if not _has_number(cells):
            titles.setdefault(next((cell.reason for cell in cells if cell.reason), "no model"), []).append(
                title
            )
    return [f"No value for {'; '.join(names)}: {reason}." for reason, names in titles.items()]


def _particles_used(models: Sequence[Scores], stem: str, group: str, metrics: Iterable[str]) -> list[str]:
    used: dict[int, list[str]] = {}
    for name in metrics:
        entries = [_metrics(model, stem, group).get(name) for model in models]
        counts = [entry.particles for entry in entries if entry and entry.particles is not None]
        if counts:
            used.setdefault(min(counts), []).append(_column(name, models).title)
    return [f"{'; '.join(titles)}: over {count:,} particles." for count, titles in used.items()]


def overview_table(
    scores: Sequence[Scores], stems: Sequence[str], metric: str, names: Sequence[str] | None = None
) -> Table:
    """Shows one metric of every model on every set: one row a model, one column a set; the floor first."""
    pairs = ordered(scores, names)
    columns: list[list[Cell]] = []
    for stem in stems:
        here = [model for _, model in pairs if stem in model.sets]
        cells = iter(_column_of_cells(here, stem, "all", metric))
        columns.append(
            [next(cells), *(next(cells) if stem in model.sets else Cell("") for _, model in pairs)]
        )
    labels = [("floor", "floor"), *((label, kind_of(model)) for label, model in pairs)]
    rows = (
        Row(label, kind, tuple(column[i] for column in columns)) for i, (label, kind) in enumerate(labels)
    )
    unit = _column(metric, [scores for _, scores in pairs]).unit
    return Table("model", tuple(Column(stem, unit) for stem in stems), tuple(rows))


def _speed(scores: Scores) -> tuple[Cell, Cell]:
    median = scores.timing.ms_per_event.median if scores.timing else None
    parameters = scores.parameters
    return (
        Cell(f"{median:.3g}") if median is not None else Cell(MISSING, reason="not timed"),
        Cell(f"{parameters:,}") if parameters is not None else Cell(MISSING, reason="not recorded"),
    )


def _machines(pairs: Sequence[tuple[str, Scores]]) -> list[str]:
    """Says where the times were taken, one sentence for the models of the same place."""
    places: dict[str, list[str]] = {}
    for label, model in pairs:
        timing = model.timing
        if timing:
            place = (
                f"{timing.device}, {timing.threads} thread{'' if timing.threads == 1 else 's'}, "
                f"batch {timing.batch_size}, {timing.machine}"
            )
            places.setdefault(place, []).append(label)
    if len(places) == 1:
        return [f"Median time on {next(iter(places))}."]
    return [f"Median time of {', '.join(labels)}: {place}." for place, labels in places.items()]


def _weighted(pairs: Sequence[tuple[str, Scores]], stem: str, group: str) -> list[str]:
    """Says which models' events have weights, and how many events without these are worth."""
    told = [
        f"{label} {size:,.0f} of {entry.n:,}"
        for label, model in pairs
        if (entry := _group(model, stem, group)) and (size := entry.effective) is not None
    ]
    return (
        [f"Weighted events, and how many without weights they are worth: {', '.join(told)}."] if told else []
    )


def showers_table(scores: Sequence[Scores], stem: str, names: Sequence[str] | None = None) -> Table:
    """Shows every metric of showers: one row a metric, columns floor, the models and the positive control.

    A model's cell also says what as many showers as the floor's give, where that was computed.
    """
    pairs = [pair for pair in ordered(scores, names) if stem in pair[1].sets]
    models = [model for _, model in pairs]
    columns = [Column("floor"), *(Column(label) for label, _ in pairs), Column("control")]
    rows = []
    for metric in metric_names(models, stem):
        cells = _column_of_cells(models, stem, "all", metric)
        entries = [_metrics(model, stem, ALL).get(metric) for model in models]
        cells = [cells[0]] + [
            replace(cell, ratio=None, matched=None, text=_with_matched(cell.text, entry))
            for cell, entry in zip(cells[1:], entries, strict=True)
        ]
        control = next((entry.control for entry in entries if entry and entry.control), None)
        rows.append(Row(_column(metric, models).label, "all", (*cells, _floor_cell(control))))
    notes = dict.fromkeys(
        [f"{group.note}." for model in models if (group := _group(model, stem, ALL)) and group.note]
        + [
            "Floor: halves of the reference against each other; control: the same with layer energies smeared by "
            "5 %; in brackets: as many generated showers as the floor has."
        ]
        + _weighted(pairs, stem, ALL)
    )
    return Table("metric", tuple(columns), tuple(rows), tuple(notes), fixed=1)


def _with_matched(text: str, entry: Score | None) -> str:
    matched = entry.matched_floor.mean if entry and entry.matched_floor else None
    return text if matched is None or text == MISSING else f"{text} ({number(matched)})"


def published_showers_table(detector: str) -> Table | None:
    """Returns the published rows of a data set of the challenge, or None where nothing is published."""
    if detector not in PUBLISHED_SHOWERS:
        return None
    heads = (
        ("AUC low", ""), ("AUC high", ""), ("FPD", "10⁻³"), ("KPD", "10⁻³"), ("CPU, batch 1", "ms a shower"),
        ("CPU, batch 100", "ms a shower"), ("GPU, batch 1", "ms a shower"), ("GPU, batch 100", "ms a shower"),
        ("parameters", "million"),
    )  # fmt: skip
    rows = []
    for row in PUBLISHED_SHOWERS[detector]:
        values = (row.auc_low, row.auc_high, row.fpd, row.kpd, *row.ms, row.parameters)
        texts = (MISSING if value is None else f"{value:,g}" for value in values)
        rows.append(Row(row.model, row.kind, tuple(Cell(text) for text in texts)))
    columns = tuple(Column(title, unit) for title, unit in heads)
    return Table("model", columns, tuple(rows), (f"{SOURCE_SHOWERS}.",))


def published_separations_table(detector: str) -> Table | None:
    """Returns the published separation powers of a data set of the challenge, or None where there are none."""
    if detector not in SEPARATIONS:
        return None
    rows = (
        Row(METRICS[name].title.removesuffix(" eta"), "all", (Cell(floor), Cell(ours)))
        for name, (ours, floor) in SEPARATIONS[detector].items()
    )
    return Table("metric", (Column("GEANT4"), Column("CaloDREAM")), tuple(rows))


def particles_table(
    scores: Sequence[Scores], stem: str, metric: str, names: Sequence[str] | None = None
) -> Table:
    """Shows one metric by particle type: one row a type, columns events, particles, floor and the models."""
    pairs = [pair for pair in ordered(scores, names) if stem in pair[1].sets]
    models = [model for _, model in pairs]
    columns = [Column("events"), Column("particles"), Column("floor"), *(Column(label) for label, _ in pairs)]
    rows: list[Row] = []
    left_out: dict[str, list[str]] = {}
    few: list[str] = []
    for group in ["all", *group_names(scores, stem)]:
        scored = [part for model in models if (part := _group(model, stem, group))]
        size = max((part.n for part in scored), default=0)
        particles = max((part.particles for part in scored), default=0)
        cells = _column_of_cells(models, stem, group, metric)
        if not _has_number(cells):
            reason = next((cell.reason for cell in cells if cell.reason), "no model")
            left_out.setdefault(reason, []).append(f"{group} ({size:,})")
            continue
        kind = "all" if group == "all" else "particle"
        if _too_few(models, stem, group):
            cells = _unmarked(cells)
            few.append(group)
        judged = (replace(cell, ratio=None if cell.matched is not None else cell.ratio) for cell in cells)
        rows.append(Row(group, kind, (Cell(f"{size:,}"), Cell(f"{particles:,}"), *judged)))
    notes = [f"Without a value (events): {', '.join(types)}: {reason}." for reason, types in left_out.items()]
    if few:
        notes.append(f"Fewer than {FEWEST_PARTICLES} particles, no claim: {', '.join(few)}.")
    return Table("particle", tuple(columns), tuple(rows), tuple(notes), fixed=3)


def published_table(detector: str) -> Table | None:
    """Returns the published rows of a detector, or None where nothing is published."""
    if detector not in PUBLISHED:
        return None
    rows = []
    for row in PUBLISHED[detector]:
        values = (row.w1, row.mae, row.ms)
        texts = (
            MISSING if value is None else f"{value:g}" if i == 2 else f"{value:.2f}"
            for i, value in enumerate(values)
        )
        rows.append(Row(row.model, row.kind, tuple(Cell(text) for text in texts)))
    unit = detector_named(detector, trust=False).unit
    return Table(
        "model",
        (Column("W1", unit), Column("MAE", unit), Column("time", "ms an event")),
        tuple(rows),
        (f"Generators: {SOURCE}.", f"Readouts: {SOURCE_READOUTS}."),
    )


def footnotes(table: Table) -> dict[str, str]:
    """Numbers the distinct reasons of a table: reason to letter."""
    reasons = dict.fromkeys(cell.reason for row in table.rows for cell in row.cells if cell.reason)
    return {reason: chr(ord("a") + i) if i < 26 else str(i) for i, reason in enumerate(reasons)}


def ratio(cell: Cell) -> str:
    """Says how a number compares with the floor: at equal numbers of rows, else over all rows; empty for neither."""
    if cell.matched is not None:
        return f"{number(cell.matched)} ×"
    return "" if cell.ratio is None else f"{number(cell.ratio)} × floor"


RATIOS = (
    "“1.30 ×”: reference against generated with as many rows as the floor, over the floor; a perfect model has 1. "
    "“× floor”: where that was not computed, the score over all rows divided by the floor, which has fewer."
)
"""What the ratios of a table mean."""


@dataclass(frozen=True)
class Distance:
    """Holds how many times its floor a metric is, at equal numbers of rows, and of which particles."""

    times: float
    title: str
    group: str

    @property
    def text(self) -> str:
        """The distance in words, such as "W1 of the radius of p, 4.90 ×"."""
        of = "" if self.group == "all" else f" of {self.group}"
        return f"{self.title}{of}, {number(self.times)} ×"


def distances(scores: Scores, stem: str) -> list[Distance]:
    """Lists how far from the floor a model is, by metric and particle type, the nearest first.

    Metrics that should approach their floor from either side have no such order, and types of too few particles make no
    claim: both are left out.
    """
    measured = []
    for group in ["all", *group_names([scores], stem)]:
        if _too_few([scores], stem, group):
            continue
        for metric, entry in _metrics(scores, stem, group).items():
            _, matched = entry.over_floor
            if metric not in APPROACH and matched is not None:
                title = column_of(metric, scores.detector).title
                measured.append(Distance(matched, title, group))
    return sorted(measured, key=lambda distance: distance.times)


def extremes_table(scores: Sequence[Scores], stem: str, names: Sequence[str] | None = None) -> Table | None:
    """Shows where each model is nearest to its floor and farthest from it; None with fewer than two models."""
    rows = []
    for label, model in ordered(scores, names):
        measured = distances(model, stem)
        overall = [distance for distance in measured if distance.group == "all"]
        types = [distance for distance in measured if distance.group != "all"]
        if overall:
            texts = (overall[0].text, overall[-1].text, types[-1].text if types else MISSING)
            rows.append(Row(label, kind_of(model), tuple(map(Cell, texts))))
    columns = (Column("nearest to the floor"), Column("farthest"), Column("farthest by particle"))
    return Table("model", columns, tuple(rows)) if len(rows) > 1 else None


def console(table: Table) -> list[list[str]]:
    """Returns the header and the rows as plain strings; the best are marked by an asterisk.

    The ratio in brackets is the matched floor over the floor, or the score over it where nothing matched.
    """
    rows = [[table.head, *(column.label for column in table.columns)]]
    for row in table.rows:
        line = [row.name]
        for cell in row.cells:
            times = cell.ratio if cell.matched is None else cell.matched
            line.append(
                cell.text
                + (f" ({number(times)}×)" if times is not None else "")
                + (" *" if cell.best else "")
            )
        rows.append(line)
    return rows
