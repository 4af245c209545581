"""The comparison of all models as a page of Markdown with its figures: the publications' tables on one's own data.

Every number comes from `scores.json`, the card or the recipe of a run, or from `published`; every row says by which
command and on what budget it was made. Figures lie in `images/NAME/` beside the page NAME.md.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge import __version__, metrics
from caloforge.detectors import Detector
from caloforge.events import Primaries
from caloforge.io.files import write_text
from caloforge.io.run import Run as Folder
from caloforge.io.scores import Timing
from caloforge.particles import particle_name
from caloforge.recipe import packaged, read
from caloforge.report import figures, html, markdown, pareto, sweeps, tables
from caloforge.report.document import (
    Block,
    Bullets,
    Cell,
    Column,
    Details,
    Document,
    Figure,
    Image,
    Paragraph,
    Row,
    Section,
    Span,
    Table,
    walk,
)
from caloforge.report.published import (
    FLOW_METRICS,
    PUBLISHED,
    PUBLISHED_FLOWS,
    PUBLISHED_SHAPES,
    SHAPE_METRICS,
    SOURCE,
    SOURCE_FLOWS,
    SOURCE_READOUTS,
)
from caloforge.report.runs import Comparison, Run, comparisons, read_runs
from caloforge.report.study import Study
from caloforge.report.tables import MISSING, kind_of

GENERATORS = ("w1", "conditional_w1", "mae", "mae_c", "mae_cw", "w1_lit", "w1_radius", "bright_cells")
"""Metrics of the table of generators."""

FURTHER = ("MAE_c", "MAE_cw", "parameters", "time, batch 1", "MAE, published")
"""Columns that are shown on demand."""

READOUTS = ("w1", "conditional_w1", "mae", "mae_c", "mae_cw")
"""Metrics of the table of direct estimation."""

TYPE_METRICS = ("w1", "conditional_w1", "mae_c")
"""Metrics of the tables by particle type."""


SWEPT_SHOWERS = ("auc_high", "frechet_population", "sep_voxels")
"""Metrics of showers that are drawn against a setting."""

MAPPED = 2000
"""Test particles on a map."""


@dataclass(frozen=True)
class Trained:
    """An evaluated run and how it came about.

    Attributes:
        path: the run folder.
        command: what trained it.
        ships: whether its weights come with the package.
    """

    path: Path
    command: str
    ships: bool = False


@dataclass(frozen=True)
class Contents:
    """What a page of results is made of.

    Attributes:
        command: what writes the page.
        runs: the models, in the order of the tables.
        studies: searches of settings, for the share of trials.
        failed: models that came to nothing, and why.
        maps: for each set a map of its test particles in the plane, (M, 2), for the rows of `map_rows`.
        references: reference files by the name of the set, where they are no longer where the scores say.
        title: heading of the page.
    """

    command: str
    runs: Sequence[Trained]
    studies: Sequence[Study] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    maps: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    references: Mapping[str, Path] = field(default_factory=dict)
    title: str = "Results"


def write_results(out: Path, contents: Contents) -> None:
    """Writes the page of results.

    Args:
        out: the page, NAME.md; figures go to images/NAME beside it.
        contents: what it is made of.

    Raises:
        ValueError: no run, no scores, or a reference that is missing or is another file.
    """
    document = page_of(contents)
    text, images = markdown.write(document, f"images/{out.stem}")
    folder = out.parent / "images" / out.stem
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file, data in images.items():
        (folder / file).write_bytes(data)
    write_text(out, text)
    write_text(out.with_suffix(".html"), html.write(document))


def page_of(contents: Contents) -> Document:
    """Returns the page of results."""
    runs = read_runs([trained.path for trained in contents.runs])
    parts = comparisons(runs, contents.references)
    trained = dict(zip((run.name for run in runs), contents.runs, strict=True))
    blocks: list[Block] = []
    for name in dict.fromkeys(part.detector.name for part in parts):
        ours = [part for part in parts if part.detector.name == name]
        inner = _showers(ours) if ours[0].detector.layers else _images(ours, contents)
        blocks.append(Section(ours[0].detector.title, tuple(inner)))
    blocks += [section for study in contents.studies for section in _study(study)]
    blocks.append(Section("Budgets", (_budgets(runs, trained), *_filled(_optimizers(runs)))))
    if contents.failed:
        items = tuple((Span(name, "code"), f": {reason}") for name, reason in contents.failed.items())
        blocks.append(Section("Without a result", (Bullets(items),)))
    bold = any(isinstance(block, Table) and block.has_best for block in walk(blocks))
    return Document(contents.title, contents.title, (*_introduction(contents.command, parts, bold), *blocks))


def _introduction(command: str, parts: Sequence[Comparison], bold: bool) -> list[Block]:
    """Says where the numbers come from and how to read them."""
    ratios = any(not part.detector.layers for part in parts)
    floors = "floor (simulated events against simulated events, half the rows)"
    pieces = (
        "Written by ",
        Span(command, "code"),
        f" of caloforge {__version__}: every number comes from a file of scores, none is typed by hand. Scores are of "
        "test particles that no model was trained on, mean and spread over the repeats, and beside them "
        + (f"how many times their {floors} they are. {tables.RATIOS} " if ratios else f"the {floors}. "),
        "The best of a column is bold. " if bold else "",
        Span("Published numbers belong to other data", "strong"),
        ": they give the scale, not a rival.",
    )
    budgets = (
        "How long each model was trained is in the table of budgets below: most of them minutes on one core, where the "
        "publications took hours on a GPU."
    )
    return [Paragraph(pieces), Paragraph(budgets)]


def _filled(*tables: Table | None) -> list[Table]:
    """Returns the tables that have rows."""
    return [table for table in tables if table is not None and table.rows]


def _figure(name: str, drawn: bytes, caption: str) -> Figure:
    return Figure((Image(drawn, caption),), caption=caption, name=name)


# Images: the ZDC


def _images(parts: Sequence[Comparison], contents: Contents) -> list[Block]:
    blocks: list[Block] = []
    for part in parts:
        generators = [run for run in part.runs if kind_of(run.scores) != "readout"]
        inner = _scores(part, generators, GENERATORS, SOURCE)
        blocks.append(Section(f"{part.stem}: generators", inner))
        readouts = [run for run in part.runs if kind_of(run.scores) == "readout"]
        if readouts:
            yardsticks = [run for run in generators if kind_of(run.scores) == "yardstick"]
            inner = _scores(part, [*readouts, *yardsticks], READOUTS, SOURCE_READOUTS)
            blocks.append(Section(f"{part.stem}: direct estimation of the channel sums", inner))
    for part in parts:
        blocks += _by_type(part)
    for part in parts:
        blocks += _flows(part)
    for part in parts:
        drawn: list[Block] = [*_curves(part, "w1")]
        panels = pareto.panels(part.runs, part.stem)
        if panels:
            caption = (
                f"Quality against time on {part.stem}: lower left is better; small marks are of the sweeps."
            )
            drawn.append(_figure(f"{part.stem}-time", figures.quality_against_time(panels), caption))
        if drawn:
            blocks.append(Section(f"{part.stem}: settings and time", tuple(drawn)))
    return [*blocks, Section(f"{parts[0].detector.title}: the data", tuple(_data(parts, contents.maps)))]


def _scores(part: Comparison, runs: Sequence[Run], wanted: Sequence[str], source: str) -> tuple[Block, ...]:
    """Returns the scores of runs beside what is published of the same models, and further columns on demand."""
    names = [run.name for run in runs]
    table = tables.scores_table([run.scores for run in runs], part.stem, wanted, names=names, speed=True)
    published = {row.recipe: row for row in PUBLISHED.get(part.detector.name, ()) if row.recipe}
    floor = next((row for row in PUBLISHED.get(part.detector.name, ()) if row.kind == "floor"), None)
    single = {run.name: pareto.milliseconds(run.scores.timing_single) for run in runs}
    rows = []
    for row in table.rows:
        theirs = floor if row.kind == "floor" else published.get(_recipe(part.detector, row.name))
        values = (None, None, None) if theirs is None else (theirs.w1, theirs.mae, theirs.ms)
        alone = single.get(row.name)
        more = (
            "" if alone is None else f"{alone:.3g}",
            *("" if value is None else f"{value:g}" for value in values),
        )
        rows.append(replace(row, cells=(*row.cells, *(Cell(text) for text in more))))
    columns = (
        Column("time, batch 1", "ms"),
        Column("W1, published", part.detector.unit),
        Column("MAE, published", part.detector.unit),
        Column("time, published", "ms"),
    )
    rows_scored = f"{len(part.reference):,} test rows"
    notes = (f"{rows_scored}.", *table.notes, f"Published: {source}.")
    whole = replace(table, columns=(*table.columns, *columns), rows=tuple(rows), notes=notes)
    further = [number for number, column in enumerate(whole.columns) if column.title in FURTHER]
    first = [number for number in range(len(whole.columns)) if number not in further]
    rest = replace(whole.chosen(further), notes=())
    return whole.chosen(first), Details("Further columns", (rest,))


def _recipe(detector: Detector, name: str) -> str:
    return name.removeprefix(f"{detector.name}-")


def _by_type(part: Comparison) -> list[Block]:
    """Returns tables by particle type of what is trained: neutrons and protons apart, and so on."""
    runs = [run for run in part.runs if kind_of(run.scores) != "yardstick"]
    names, scores = [run.name for run in runs], [run.scores for run in runs]
    every = ((name, tables.particles_table(scores, part.stem, name, names)) for name in TYPE_METRICS)
    folded = tuple(
        Details(tables.column_of(name, part.detector.name).label, (table,))
        for name, table in every
        if table.rows
    )
    return [Section(f"{part.stem}: by particle type", folded)] if folded else []


def _flows(part: Comparison) -> list[Block]:
    """Returns the tables of the publication on flows: by particle type, and centre and radius."""
    known = set(PUBLISHED_FLOWS["all"])
    flows = [run for run in part.runs if _recipe(part.detector, run.name) in known]
    names, scores = [run.name for run in flows], [run.scores for run in flows]
    groups = [group for group in PUBLISHED_FLOWS if tables.has_group(scores, part.stem, group)]
    if not flows or not groups:
        return []
    rows: list[Row] = []
    columns: tuple[Column, ...] = ()
    notes: dict[str, None] = {}
    for group in groups:
        table = tables.scores_table(scores, part.stem, FLOW_METRICS, group, names)
        columns = columns or table.columns
        for row in table.rows:
            values = PUBLISHED_FLOWS[group].get(_recipe(part.detector, row.name))
            text = "" if values is None else " / ".join(f"{value:.2f}" for value in values)
            cells = (Cell(row.name), *_padded(row.cells, table.columns, columns), Cell(text))
            rows.append(replace(row, name=group, cells=cells))
        notes |= dict.fromkeys(f"{group}: {note}" for note in table.notes)
    heads = (Column("model"), *columns, Column("published, W1 / MAE_c / MAE_cw"))
    by_type = Table("particle", heads, tuple(rows), (*notes, f"Published: {SOURCE_FLOWS}."), fixed=1)
    blocks: list[Block] = [Section(f"{part.stem}: flows by particle type", (by_type,))]
    shapes = tables.scores_table(scores, part.stem, SHAPE_METRICS, names=names)
    if not shapes.columns:
        return blocks
    rows = []
    for row in shapes.rows:
        theirs = PUBLISHED_SHAPES.get(_recipe(part.detector, row.name), ())
        text = " / ".join(f"{value:.2f}" for value in theirs)
        rows.append(replace(row, cells=(*row.cells, Cell(text))))
    heads = (
        *shapes.columns,
        Column("published, all eight: centre, its variance, radius, its variance, as MAE / RMSE"),
    )
    table = replace(shapes, columns=heads, rows=tuple(rows))
    return [*blocks, Section(f"{part.stem}: centre and radius of the flows", (table,))]


def _padded(cells: Sequence[Cell], have: Sequence[Column], wanted: Sequence[Column]) -> Iterator[Cell]:
    """Gives the cells of wanted columns; a group too small for a metric has no column of it."""
    by_column = dict(zip(have, cells, strict=True))
    return (by_column.get(column, Cell(MISSING)) for column in wanted)


def _curves(part: Comparison, metric: str) -> Iterator[Figure]:
    """Draws a metric against every setting that was swept."""
    floor = tables.floor_of(part.scores, part.stem, metric)
    column = tables.column_of(metric, part.detector.name)
    for name, curves in sweeps.curves(part.runs, part.stem, metric).items():
        caption = f"{column.title} against {name} on {part.stem}, with the floor."
        if name == "steps" and any(curve.settings for curve in curves):
            caption += " A step of midpoint is two evaluations of the network, one of rk4 four."
        yield _figure(
            f"{part.stem}-{metric}-{name}", figures.sweep(curves, floor, name, column.label), caption
        )


def _data(parts: Sequence[Comparison], maps: Mapping[str, NDArray[np.float64]]) -> Iterator[Figure]:
    """Draws the features and the channel sums of the test particles, their types and maps."""
    detector = parts[0].detector
    primaries = {part.stem: part.reference.primaries for part in parts}
    channels = detector.channel_map(detector.default_channels)
    sums = {part.stem: metrics.observe(part.reference, detector.default_channels).channels for part in parts}
    features = [
        figures.Quantity(
            f"{feature.name} [{feature.unit}]",
            {stem: values.feature(feature.name).astype(np.float64) for stem, values in primaries.items()},
            log=feature == detector.energy,
        )
        for feature in detector.conditions
    ]
    readings = [
        figures.Quantity(
            f"channel {label} [{detector.unit}]",
            {stem: values[:, number] for stem, values in sums.items()},
        )
        for number, label in enumerate(channels.labels)
    ]
    yield _figure(
        f"{detector.name}-features",
        figures.histograms(features),
        "Features of the test particles, share of events; the outermost 0.5 % are left out.",
    )
    yield _figure(
        f"{detector.name}-channels",
        figures.histograms(readings),
        "Channel sums of the test events, share of events; the outermost 0.5 % are left out.",
    )
    for stem, values in primaries.items():
        kinds = [particle_name(int(pdg)) for pdg in values.pdg]
        names, counts = np.unique(kinds, return_counts=True)
        order = np.argsort(-counts, kind="stable")[:12]
        yield _figure(
            f"{stem}-mix",
            figures.particle_mix(
                [str(names[i]) for i in order], [int(counts[i]) for i in order], f"test rows of {stem}"
            ),
            f"Particle types among the test rows of {stem}.",
        )
        if stem in maps:
            shown = [kinds[row] for row in map_rows(values)]
            yield _figure(
                f"{stem}-map",
                figures.embedding(maps[stem], shown),
                f"t-SNE of the standardised features of {len(shown):,} test particles of {stem}.",
            )


def map_rows(primaries: Primaries) -> NDArray[np.intp]:
    """Chooses one row of each particle for a map, evenly among them where there are more than it shows."""
    first = np.sort(np.unique(primaries.group, return_index=True)[1])
    return first[np.unique(np.linspace(0, len(first) - 1, min(len(first), MAPPED)).round().astype(np.intp))]


# Showers: the CaloChallenge


def _showers(parts: Sequence[Comparison]) -> list[Block]:
    blocks: list[Block] = []
    for part in parts:
        timed = [run for run in part.runs if pareto.milliseconds(run.scores.timing) is not None]
        rows = [
            Row(
                run.name,
                kind_of(run.scores),
                (
                    Cell(_ms(run.scores.timing_single)),
                    Cell(_ms(run.scores.timing)),
                    Cell(f"{run.scores.parameters or 0:,}"),
                ),
            )
            for run in timed
        ]
        heads = (Column("batch 1", "ms a shower"), Column("large batch", "ms a shower"), Column("parameters"))
        inner = _filled(
            tables.showers_table(part.scores, part.stem, part.names), Table("model", heads, tuple(rows))
        )
        drawn = [figure for metric in SWEPT_SHOWERS for figure in _curves(part, metric)]
        blocks.append(Section(f"{part.stem}: {len(part.reference):,} test showers", (*inner, *drawn)))
    detector = parts[0].detector
    published = _filled(
        tables.published_showers_table(detector.name), tables.published_separations_table(detector.name)
    )
    return [*blocks, Section(f"{detector.title}: published results", tuple(published))]


def _ms(timing: Timing | None) -> str:
    value = pareto.milliseconds(timing)
    return MISSING if value is None else f"{value:.3g}"


# How the rows came about


def _study(study: Study) -> Iterator[Section]:
    """Draws the share of trials, where any reached a value."""
    ended = study.content.ended
    values = [trial.reached for trial in ended if trial.reached is not None]
    if not values:
        return
    finished = [trial.value for trial in study.content.finished if trial.value is not None]
    drawn = _figure(
        f"trials-{study.name}",
        figures.cumulative(values, len(ended), finished, study.label),
        f"Share of the trials of {study.content.type} ({study.content.detector}) that reach a value.",
    )
    yield Section(f"Trials of {study.name}", (drawn,))


def _budgets(runs: Sequence[Run], commands: Mapping[str, Trained]) -> Table:
    """Says by which command each model was trained, on how much data, for how long and where."""
    rows = []
    for run in runs:
        card, row = run.card, commands[run.name]
        trained = sum(file.rows.get("train", 0) for file in card.data) if card else 0
        cells = (
            "yes" if row.ships else "",
            f"{trained:,}" if trained else MISSING,
            f"{card.training.seconds / 60:.1f}" if card else MISSING,
            card.training.machine if card else MISSING,
            str(run.scores.repeats),
        )
        command = Cell(row.command, code=True)
        rows.append(Row(run.name, kind_of(run.scores), (command, *map(Cell, cells))))
    heads = (
        Column("trained by"),
        Column("ships"),
        Column("training events"),
        Column("training", "minutes"),
        Column("on"),
        Column("repeats scored"),
    )
    note = "Minutes are wall time of a shared machine: upper bounds."
    return Table("model", heads, tuple(rows), (note,))


def _optimizers(runs: Sequence[Run]) -> Table:
    """Shows rates and schedules beside those of the publications' recipes."""
    rows = []
    shipped = packaged()
    for run in runs:
        ours = Folder(run.path).recipe().model if (run.path / "recipe.toml").is_file() else {}
        paper = f"{run.scores.name}-paper"
        theirs = read(paper)["model"] if paper in shipped else {}
        if not theirs:
            continue
        for name, model in ((run.name, ours), (paper, theirs)):
            rows += [
                Row(name, "all", tuple(map(Cell, (stage, *_rates(section)))))
                for stage, section in _stages(model)
            ]
    heads = ("stage", "learning rate", "β1", "β2", "schedule", "weight decay", "epochs", "batch")
    note = "A recipe that ends in -paper has the publication's settings, and is not trained here."
    return Table("recipe", tuple(map(Column, heads)), tuple(rows), (note,), fixed=1)


def _stages(model: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Finds the sections of a recipe's model with a learning rate; epochs and batch are those around it."""
    for key, value in model.items():
        if not isinstance(value, Mapping):
            continue
        inner = f"{path}.{key}".strip(".")
        around = {name: model[name] for name in ("epochs", "batch_size") if name in model}
        if "learning_rate" in value:
            yield inner, {**around, **value}
        yield from _stages({**around, **value}, inner)


def _rates(section: Mapping[str, Any]) -> list[str]:
    keys = ("learning_rate", "beta1", "beta2", "schedule", "weight_decay", "epochs", "batch_size")
    values = [section.get(key) for key in keys]
    return [
        MISSING if value is None else f"{value:g}" if isinstance(value, float) else str(value)
        for value in values
    ]
