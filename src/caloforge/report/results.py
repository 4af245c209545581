"""The comparison of all models as a page of Markdown with its figures: the publications' tables on one's own data.

Every number comes from `scores.json`, the card or the recipe of a run, or from `published`; every row says by which
command and on what budget it was made. Figures lie in `images/NAME/` beside the page NAME.md.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge import __version__, metrics
from caloforge._lookup import require
from caloforge.detectors import Detector
from caloforge.events import Primaries
from caloforge.io.files import write_text
from caloforge.io.run import Run as Folder
from caloforge.particles import particle_name
from caloforge.recipe import packaged, read
from caloforge.report import figures, pareto, sweeps, tables
from caloforge.report.pieces import data_uri, whole_page
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
from caloforge.report.study import Study, reached
from caloforge.report.tables import MISSING, Cell, Column, Row, Table, kind_of

GENERATORS = ("w1", "conditional_w1", "mae", "mae_c", "mae_cw", "w1_lit", "w1_radius")
"""Metrics of the table of generators."""

READOUTS = ("w1", "conditional_w1", "mae", "mae_c", "mae_cw")
"""Metrics of the table of direct estimation."""


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
    """

    command: str
    runs: Sequence[Trained]
    studies: Sequence[Study] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    maps: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    references: Mapping[str, Path] = field(default_factory=dict)


class _Page:
    """Collects text, and figures beside it."""

    def __init__(self, out: Path) -> None:
        self.out, self.lines = out, list[str]()
        self.images: dict[str, bytes] = {}

    def text(self, *paragraphs: str) -> None:
        self.lines += [line for one in paragraphs if one for line in (one, "")]

    def heading(self, level: int, title: str) -> None:
        self.text(f"{'#' * level} {title}")

    def table(self, table: Table | None) -> None:
        if table is not None and table.rows:
            self.text(tables.markdown(table).rstrip("\n"), " ".join(table.notes))

    def figure(self, name: str, data: bytes, caption: str) -> None:
        kind = "png" if data.startswith(b"\x89PNG") else "svg"
        file = f"{name}.{kind}"
        self.images[file] = data
        self.text(f"![{caption}](images/{self.out.stem}/{file})", caption)

    def write(self) -> None:
        """Writes the page, its figures and the same as one file; figures of an earlier page of this name go."""
        folder = self.out.parent / "images" / self.out.stem
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for file, data in self.images.items():
            (folder / file).write_bytes(data)
        text = "\n".join(self.lines).rstrip("\n") + "\n"
        write_text(self.out, text)
        write_text(self.out.with_suffix(".html"), self._html(text))

    def _html(self, text: str) -> str:
        """Renders the page with its figures inside."""
        body: str = require("markdown_it", "report").MarkdownIt("commonmark").enable("table").render(text)
        body = body.replace("<table>", '<div class="scroll"><table>').replace("</table>", "</table></div>")
        body = re.sub(r" \(([^()]*)\)</td>", r"<small>\1</small></td>", body)
        body = re.sub(
            r"<p>(<img [^>]*>)</p>\n<p>(.*?)</p>",
            r"<figure class='fit'>\1<figcaption>\2</figcaption></figure>",
            body,
        )
        for file, data in self.images.items():
            body = body.replace(f'"images/{self.out.stem}/{file}"', f'"{data_uri(data)}"')
        return whole_page("Results", f"<main>{body}</main>")


def write_results(out: Path, contents: Contents) -> None:
    """Writes the page of results.

    Args:
        out: the page, NAME.md; figures go to images/NAME beside it.
        contents: what it is made of.

    Raises:
        ValueError: no run, no scores, or a reference that is missing or is another file.
    """
    runs = read_runs([one.path for one in contents.runs])
    parts = comparisons(runs, contents.references)
    made = dict(zip((run.name for run in runs), contents.runs, strict=True))
    page = _Page(out)
    page.heading(1, "Results")
    page.text(
        f"Written by `{contents.command}` of caloforge {__version__}: every number comes from a file of scores, "
        "none is typed by hand. Scores are of test particles that no model was trained on, mean and spread over the "
        "repeats; in brackets the score over its floor (simulated events against simulated events, half the rows) and, "
        "after *matched*, the same with as many rows as the floor has: 1 for a perfect model. The best of a column is "
        "bold. "
        "**Published numbers belong to other data**: they give the scale, not a rival.",
        "How long each model was trained is in the table of budgets below: most of them minutes on one core, where "
        "the publications took hours on a GPU.",
    )
    for name in dict.fromkeys(part.detector.name for part in parts):
        mine = [part for part in parts if part.detector.name == name]
        page.heading(2, mine[0].detector.title)
        if mine[0].detector.layers:
            _showers(page, mine)
        else:
            _images(page, mine, contents)
    for study in contents.studies:
        _study(page, study)
    page.heading(2, "Budgets")
    page.table(_budgets(runs, made))
    page.table(_optimizers(runs))
    if contents.failed:
        page.heading(2, "Without a result")
        page.text(*(f"- `{name}`: {reason}" for name, reason in contents.failed.items()))
    page.write()


# Images: the ZDC


def _images(page: _Page, parts: Sequence[Comparison], contents: Contents) -> None:
    for part in parts:
        page.heading(3, f"{part.stem}: generators")
        generators = [run for run in part.runs if kind_of(run.scores) != "readout"]
        page.table(_scores(part, generators, GENERATORS, SOURCE))
        readouts = [run for run in part.runs if kind_of(run.scores) == "readout"]
        if readouts:
            page.heading(3, f"{part.stem}: direct estimation of the channel sums")
            yardsticks = [run for run in generators if kind_of(run.scores) == "yardstick"]
            page.table(_scores(part, [*readouts, *yardsticks], READOUTS, SOURCE_READOUTS))
    for part in parts:
        _flows(page, part)
    for part in parts:
        _curves(page, part, "w1")
        panels = pareto.panels(part.runs, part.stem)
        if panels:
            page.figure(
                f"{part.stem}-time",
                figures.quality_against_time(panels),
                f"Quality against time on {part.stem}: lower left is better; small marks are settings of the sweeps.",
            )
    page.heading(3, f"{parts[0].detector.title}: the data")
    _data(page, parts, contents.maps)


def _scores(part: Comparison, runs: Sequence[Run], wanted: Sequence[str], source: str) -> Table:
    """Returns the scores of runs beside what is published of the same models."""
    names = [run.name for run in runs]
    table = tables.scores_table([run.scores for run in runs], part.stem, wanted, names=names, speed=True)
    published = {row.recipe: row for row in PUBLISHED.get(part.detector.name, ()) if row.recipe}
    floor = next((row for row in PUBLISHED.get(part.detector.name, ()) if row.kind == "floor"), None)
    single = {run.name: pareto.milliseconds(run.scores.get("timing_single")) for run in runs}
    rows = []
    for row in table.rows:
        found = floor if row.kind == "floor" else published.get(_recipe(part.detector, row.name))
        values = (None, None, None) if found is None else (found.w1, found.mae, found.ms)
        alone = single.get(row.name)
        more = (
            "" if alone is None else f"{alone:.3g}",
            *("" if one is None else f"{one:g}" for one in values),
        )
        rows.append(replace(row, cells=(*row.cells, *(Cell(text) for text in more))))
    columns = (
        Column("time, batch 1", "ms"),
        Column("W1, published"),
        Column("MAE, published"),
        Column("time, published", "ms"),
    )
    rows_scored = f"{len(part.reference):,} test rows"
    notes = (f"{rows_scored}.", *table.notes, f"Published: {source}.")
    return replace(table, columns=(*table.columns, *columns), rows=tuple(rows), notes=notes)


def _recipe(detector: Detector, name: str) -> str:
    return name.removeprefix(f"{detector.name}-")


def _flows(page: _Page, part: Comparison) -> None:
    """Writes the tables of the publication on flows: by particle type, and centre and radius."""
    known = set(PUBLISHED_FLOWS["all"])
    flows = [run for run in part.runs if _recipe(part.detector, run.name) in known]
    names, scores = [run.name for run in flows], [run.scores for run in flows]
    groups = [group for group in PUBLISHED_FLOWS if tables.has_group(scores, part.stem, group)]
    if not flows or not groups:
        return
    page.heading(3, f"{part.stem}: flows by particle type")
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
    page.table(Table("particle", heads, tuple(rows), (*notes, f"Published: {SOURCE_FLOWS}.")))
    shapes = tables.scores_table(scores, part.stem, SHAPE_METRICS, names=names)
    if not shapes.columns:
        return
    page.heading(3, f"{part.stem}: centre and radius of the flows")
    rows = []
    for row in shapes.rows:
        found = PUBLISHED_SHAPES.get(_recipe(part.detector, row.name))
        text = "" if found is None else " / ".join(f"{value:.2f}" for value in found)
        rows.append(replace(row, cells=(*row.cells, Cell(text))))
    heads = (
        *shapes.columns,
        Column("published, all eight: centre, its variance, radius, its variance, as MAE / RMSE"),
    )
    page.table(replace(shapes, columns=heads, rows=tuple(rows)))


def _padded(cells: Sequence[Cell], have: Sequence[Column], wanted: Sequence[Column]) -> Iterator[Cell]:
    """Gives the cells of wanted columns; a group too small for a metric has no column of it."""
    held = dict(zip(have, cells, strict=True))
    return (held.get(column, Cell(MISSING)) for column in wanted)


def _curves(page: _Page, part: Comparison, metric: str) -> None:
    floor = tables.floor_of(part.scores, part.stem, metric)
    known = tables.METRICS[metric]
    label = f"{known.title} [{known.unit}]" if known.unit else known.title
    for name, found in sweeps.curves(part.runs, part.stem, metric).items():
        caption = f"{known.title} against {name} on {part.stem}, with the floor."
        if name == "steps" and any(curve.held for curve in found):
            caption += " A step of midpoint is two evaluations of the network, one of rk4 four."
        page.figure(f"{part.stem}-{metric}-{name}", figures.sweep(found, floor, name, label), caption)


def _data(page: _Page, parts: Sequence[Comparison], maps: Mapping[str, NDArray[np.float64]]) -> None:
    detector = parts[0].detector
    primaries = {part.stem: part.reference.primaries for part in parts}
    channels = detector.channel_map(detector.default_channels)
    sums = {part.stem: metrics.observe(part.reference, detector.default_channels).channels for part in parts}
    features = [
        figures.Quantity(
            f"{feature.name} [{feature.unit}]",
            {stem: one.feature(feature.name).astype(np.float64) for stem, one in primaries.items()},
            log=feature == detector.energy,
        )
        for feature in detector.conditions
    ]
    readings = [
        figures.Quantity(
            f"channel {label} [{detector.unit}]",
            {stem: one[:, number] for stem, one in sums.items()},
        )
        for number, label in enumerate(channels.labels)
    ]
    page.figure(
        f"{detector.name}-features",
        figures.histograms(features),
        "Features of the test particles, share of events; the outermost 0.5 % are left out.",
    )
    page.figure(
        f"{detector.name}-channels",
        figures.histograms(readings),
        "Channel sums of the test events, share of events; the outermost 0.5 % are left out.",
    )
    for stem, one in primaries.items():
        kinds = [particle_name(int(pdg)) for pdg in one.pdg]
        names, counts = np.unique(kinds, return_counts=True)
        order = np.argsort(-counts, kind="stable")[:12]
        page.figure(
            f"{stem}-mix",
            figures.particle_mix(
                [str(names[i]) for i in order], [int(counts[i]) for i in order], f"test rows of {stem}"
            ),
            f"Particle types among the test rows of {stem}.",
        )
        if stem in maps:
            shown = [kinds[row] for row in map_rows(one)]
            page.figure(
                f"{stem}-map",
                figures.embedding(maps[stem], shown),
                f"t-SNE of the standardised features of {len(shown):,} test particles of {stem}.",
            )


def map_rows(primaries: Primaries) -> NDArray[np.intp]:
    """Chooses one row of each particle for a map, evenly among them where there are more than it shows."""
    first = np.sort(np.unique(primaries.group, return_index=True)[1])
    return first[np.unique(np.linspace(0, len(first) - 1, min(len(first), MAPPED)).round().astype(np.intp))]


# Showers: the CaloChallenge


def _showers(page: _Page, parts: Sequence[Comparison]) -> None:
    for part in parts:
        page.heading(3, f"{part.stem}: {len(part.reference):,} test showers")
        page.table(tables.showers_table(part.scores, part.stem, part.names))
        timed = [run for run in part.runs if pareto.milliseconds(run.scores.get("timing")) is not None]
        rows = [
            Row(
                run.name,
                kind_of(run.scores),
                (
                    Cell(_ms(run.scores.get("timing_single"))),
                    Cell(_ms(run.scores.get("timing"))),
                    Cell(f"{run.scores.get('parameters') or 0:,}"),
                ),
            )
            for run in timed
        ]
        heads = (Column("batch 1", "ms a shower"), Column("large batch", "ms a shower"), Column("parameters"))
        page.table(Table("model", heads, tuple(rows)))
        for metric in SWEPT_SHOWERS:
            _curves(page, part, metric)
    page.text("Published:")
    page.table(tables.published_showers_table(parts[0].detector.name))
    page.table(tables.published_separations_table(parts[0].detector.name))


def _ms(timing: Mapping[str, Any] | None) -> str:
    value = pareto.milliseconds(timing)
    return MISSING if value is None else f"{value:.3g}"


# How the rows came about


def _study(page: _Page, study: Study) -> None:
    values = [value for trial in study.trials if (value := reached(trial)) is not None]
    if not values:
        return
    finished = [float(trial["value"]) for trial in study.finished]
    page.heading(2, f"Trials of {study.name}")
    page.figure(
        f"trials-{study.name}",
        figures.cumulative(values, len(study.trials), finished, study.label),
        f"Share of the trials of {study.content['type']} ({study.content['detector']}) that reach a value.",
    )


def _budgets(runs: Sequence[Run], made: Mapping[str, Trained]) -> Table:
    """Says by which command each model was trained, on how much data, for how long and where."""
    rows = []
    for run in runs:
        card, row = run.card, made[run.name]
        training = card.get("training") or {}
        trained = sum(int(one["rows"].get("train", 0)) for one in card.get("data") or [])
        seconds = training.get("seconds")
        cells = (
            f"`{row.command}`",
            "yes" if row.ships else "",
            f"{trained:,}" if trained else MISSING,
            MISSING if seconds is None else f"{float(seconds) / 60:.1f}",
            str(training.get("machine") or MISSING),
            str(run.scores["repeats"]),
        )
        rows.append(Row(run.name, kind_of(run.scores), tuple(map(Cell, cells))))
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
        paper = f"{run.scores['name']}-paper"
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
    return Table("recipe", tuple(map(Column, heads)), tuple(rows), (note,))


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
