"""The report: one self-contained page about one or more runs.

It reads run folders and the reference events behind their scores, and computes no score itself. Sections go by
detector and, within, by set, with the runs side by side. What is missing is said in its place.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from caloforge import metrics
from caloforge.detectors import Detector, detector_named
from caloforge.io import provenance
from caloforge.io.files import write_text
from caloforge.io.run import Run as Folder
from caloforge.io.study import is_study
from caloforge.particles import particle_name
from caloforge.report import figures, html, pareto, sweeps, tables
from caloforge.report.document import (
    Block,
    Cell,
    Column,
    Details,
    Document,
    Facts,
    Figure,
    Grid,
    Image,
    Key,
    Legend,
    Listing,
    Paragraph,
    Row,
    Section,
    Span,
    Table,
    missing,
    note,
)
from caloforge.report.pages import challenge, events, showers
from caloforge.report.pages import study as tuning
from caloforge.report.pages.uncertainty import uncertainty
from caloforge.report.pdf import browser, write_pdf
from caloforge.report.runs import Comparison, Run, comparisons, read_runs
from caloforge.report.study import Study, read_study
from caloforge.report.words import joined, plural

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

FLOOR_NOTE = "The floor is of half the rows, so a score over all of them can lie below it."

PANEL_WIDTH = 19.0
"""Least width of a panel of quality against time, in rem."""

LOG_COLUMNS = ("stage", "epoch", "step", "seconds", "samples_per_second")
"""Columns of a log that are no loss."""


def write_report(
    runs: Sequence[str | Path],
    out: str | Path,
    references: Mapping[str, str | Path] | None = None,
    trust: bool = False,
    pdf: bool = False,
) -> None:
    """Writes the report of one or more runs and studies as one HTML file.

    Args:
        runs: run folders with `scores.json`, files of scores, and study folders with `trials.json`; the order is that
            of the page.
        out: the page; it appears whole or not at all.
        references: reference files by the name of the set, where they are no longer where the scores say.
        trust: run code outside the package that the scores name.
        pdf: also print the page beside it, with the suffix .pdf; this needs Chromium or Chrome.

    Raises:
        ValueError: no runs, no scores, a reference that is missing or is another file, generated events that do not
            belong to its rows, or no browser that prints.
    """
    out = Path(out)
    if pdf:
        browser()  # to learn that there is none, nobody should wait for the page
        if out.suffix == ".pdf":
            raise ValueError(f"--out names the page of HTML, and the PDF goes beside it, got {out}")
    paths = [Path(path) for path in runs]
    studies = [read_study(path) for path in paths if is_study(path)]
    folders = [path for path in paths if not is_study(path)]
    evaluated = read_runs(folders) if folders or not studies else []
    for run in evaluated:
        detector_named(run.scores.detector, trust=trust)  # once allowed, the name may be repeated
    parts = comparisons(evaluated, {name: Path(path) for name, path in (references or {}).items()})
    write_text(out, html.write(page_of(evaluated, parts, studies)))
    if pdf:
        write_pdf(out, out.with_suffix(".pdf"))


# Sections of a set


def _headline(part: Comparison) -> list[Block]:
    runs = part.runs
    first = runs[0].scores
    kinds = [tables.kind_of(run.scores) for run in runs]
    counts = [
        plural(kinds.count(kind), kind) for kind in ("generator", "readout", "yardstick") if kind in kinds
    ]
    particles = len(np.unique(part.reference.primaries.group))
    rows = plural(len(part.reference), "row" if first.part == "all" else f"{first.part} row")
    only = f" Only {joined(runs[0].particles)}." if runs[0].particles else ""
    repeats = sorted({run.scores.repeats for run in runs})
    seeds = sorted({run.scores.seed for run in runs if run.scores.seed is not None})
    text = (
        f"{joined(counts)} against GEANT, on the {rows} of {part.file.name} ({plural(particles, 'particle')})."
        f"{only} Split: {first.split} ({SPLITS.get(first.split, SPLITS['unknown'])}). "
        f"Channels: {first.channels}. Seed {joined([str(seed) for seed in seeds] or ['not recorded'])}, "
        f"{joined([str(count) for count in repeats])} repeat{'' if repeats == [1] else 's'}; "
        "± is the spread over the repeats, for the floor over its random splits."
        f"{_simulated(provenance(part.file))}"
    )
    return [Paragraph(text), *_best(part)]


def _simulated(origin: Mapping[str, Any]) -> str:
    """Says how `caloforge simulate` made a reference, and whether its data sets were Geant4's own."""
    sets = origin.get("data_sets")
    if origin.get("simulation") != "Geant4" or not isinstance(sets, Mapping):
        return ""
    text = f" Simulated with Geant4 {origin.get('geant4', '')}, {origin.get('physics')}, cut {origin.get('cut')} mm"
    if sets.get("origin") == "substitutes":
        return f"{text}, with substitutes for Geant4's data sets: say so wherever these numbers go."
    return f"{text}."


def _best(part: Comparison) -> list[Block]:
    """Says which generator has the smallest W1, who is ahead of it, and how far from the floor each is."""
    entries = {run.name: tables.entry_of(run.scores, part.stem, "w1") for run in part.runs}
    values = {name: entry.mean for name, entry in entries.items() if entry and entry.mean is not None}
    kinds = {run.name: tables.kind_of(run.scores) for run in part.runs}
    generators = [name for name in values if kinds[name] == "generator"]
    blocks: list[Block] = []
    if generators:
        best = min(generators, key=values.__getitem__)
        entry = entries[best]
        spread, matched = (entry.std, entry.over_floor[1]) if entry else (None, None)
        which = "Smallest W1 of a generator" if len(generators) > 1 else "W1"
        text = f"{which}: {best}, {tables.number(values[best], spread)} {part.detector.unit}"
        if matched is not None:
            text += f", {tables.number(matched)} times the floor at equal numbers of rows"
        ahead = [
            f"{name} ({kinds[name]})"
            for name in values
            if name not in generators and values[name] < values[best]
        ]
        if ahead:
            text += f". Ahead of it, but no generators: {joined(ahead)}; see the conditional metrics"
        blocks.append(Paragraph(f"{text}.", "lead"))
        scores = next(run.scores for run in part.runs if run.name == best)
        if extremes := _extremes(tables.distances(scores, part.stem)):
            blocks.append(Paragraph(f"{best}: {extremes}.", "lead"))
    table = tables.extremes_table(part.scores, part.stem, part.names)
    if table is not None:
        blocks.append(Details("Nearest to the floor and farthest from it, by model", (table,)))
    return blocks


def _extremes(measured: Sequence[tables.Distance]) -> str:
    """Says which metric is nearest to the floor and which is farthest, over all particles and by their type."""
    overall = [distance for distance in measured if distance.group == "all"]
    types = [distance for distance in measured if distance.group != "all"]
    if len(overall) < 2:
        return ""
    text = f"nearest to the floor in {overall[0].text}; farthest in {overall[-1].text}"
    return f"{text}; by particle, farthest in {types[-1].text}" if types else text


def _formulas(known: Iterable[metrics.Metric]) -> Block:
    pairs = tuple((metric.title, (Span(metric.formula, "code"),)) for metric in known)
    return Details("What the metrics are", (Facts(pairs),))


def _shower_tables(part: Comparison) -> list[Block]:
    """Shows the metrics of showers, with times and what the metrics are."""
    blocks: list[Block] = [tables.showers_table(part.scores, part.stem, part.names)]
    times = [
        f"{run.name} {ms:.3g} ms"
        for run in part.runs
        if (ms := pareto.milliseconds(run.scores.timing)) is not None
    ]
    if times:
        blocks.append(note(f"Median time a shower: {', '.join(times)}."))
    names = tables.metric_names(part.scores, part.stem)
    return [*blocks, _formulas(tables.METRICS[name] for name in names)]


def _tables(part: Comparison) -> list[Block]:
    names = tables.metric_names(part.scores, part.stem)

    def table(columns: Sequence[str], speed: bool = False) -> Table:
        return tables.scores_table(part.scores, part.stem, columns, names=part.names, speed=speed)

    head = [name for name in HEADLINE if name in names]
    known = [name for name in names if name in metrics.METRICS]
    images = [name for name in known if metrics.METRICS[name].needs == "responses"]
    rest = [name for name in names if name not in head and name not in images]
    first = table(head, speed=True)
    bold = (
        (
            " ",
            Span("Bold", "strong"),
            ": the best model, yardsticks aside (they simulate nothing and set the scale).",
        )
        if first.has_best
        else ()
    )
    about = "Smaller is better; MAE and its sum should come near their floor, not below it. "
    blocks: list[Block] = [first, note(about, tables.RATIOS, *bold)]
    if images:
        blocks.append(Section("Centre, radius and lit cells", (table(images),), listed=False))
    if rest:
        blocks.append(Details("Further metrics", (table(rest),)))
    if known:
        blocks.append(_formulas(metrics.METRICS[name] for name in known))
    return [*blocks, *_by_particle(part, head)]


def _by_particle(part: Comparison, names: Sequence[str]) -> list[Block]:
    if not tables.group_names(part.scores, part.stem):
        return [missing("No scores by particle type were recorded.")]
    numbered = [name for name in names if tables.has_numbers(part.scores, part.stem, name)]
    blocks = tuple(
        Details(
            f"{tables.column_of(name, part.detector.name).label} by particle type",
            (tables.particles_table(part.scores, part.stem, name, part.names),),
            shown=number == 0,
        )
        for number, name in enumerate(numbered)
    )
    return [Section("By particle type", blocks, listed=False)]


# Settings and speed


def _settings(part: Comparison) -> Block:
    floor = tables.floor_of(part.scores, part.stem, "w1")
    ylabel = f"W1 [{part.detector.unit}]"
    swept = sweeps.curves(part.runs, part.stem)
    blocks: list[Block] = [
        missing(f"{run.name}: the values of {path} are no numbers, so they have no curve.")
        for run, path in sweeps.wordy(part.runs, part.stem)
    ]
    for name, curves in swept.items():
        image = Image(figures.sweep(curves, floor, name, ylabel), f"W1 against {name}")
        blocks.append(Figure((image,), f"W1 against {name}", FLOOR_NOTE))
    if not swept:
        blocks.append(missing("No sweep was recorded: no W1 against the number of steps."))
    return Grid(tuple(blocks))


def _quality_against_time(part: Comparison) -> list[Block]:
    """Draws every run and every setting of its sweeps, one panel a metric that there is."""
    panels = pareto.panels(part.runs, part.stem)
    untimed = [run.name for run in part.runs if pareto.milliseconds(run.scores.timing) is None]
    blocks: list[Block] = [missing(f"No timing was recorded for {joined(untimed)}.")] if untimed else []
    if not panels:
        return blocks
    caption = (
        "Lower left is better. Large marks: the runs as scored; small ones: their sweeps, each with its value. Circles "
        "are generators, triangles readouts, which give no image, crosses yardsticks, which simulate nothing. Lines "
        "join the generators, and the readouts, that no other of their kind beats in both time and quality. "
        f"{FLOOR_NOTE}"
    )
    places = {run.scores.timing.machine for run in part.runs if run.scores.timing}
    if len(places) > 1:
        caption += " Times come from different machines, named below the first table."
    titles = joined([panel.ylabel.partition(" [")[0] for panel in panels])
    image = Image(
        figures.quality_against_time(panels),
        f"{titles} against milliseconds an event",
        PANEL_WIDTH * (len(panels) + 0.6),
    )
    return [Figure((image,), caption=caption), *blocks]


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
    best_epoch = run.card.training.best_epoch if run.card else None
    for number, row in enumerate(rows, 1):
        stages.setdefault(row.get("stage") or "training", float(number))
        if (
            best_epoch is not None
            and row.get("epoch") == str(best_epoch)
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


def _training(runs: Sequence[Run]) -> Block:
    blocks: list[Block] = []
    for run in runs:
        training = training_of(run)
        if training is None or not (training.losses or training.validations):
            blocks.append(missing(f"{run.name}: no training log."))
            continue
        facts = []
        if run.card is not None:
            budget = run.card.training
            facts = [plural(budget.epochs, "epoch"), _duration(budget.seconds), budget.machine]
            if training.best is not None:
                facts.append(f"best epoch {budget.best_epoch} (dotted)")
        image = Image(figures.training_curves(training), f"Loss and validation of {run.name}")
        blocks.append(Figure((image,), run.name, ", ".join(facts)))
    return Grid(tuple(blocks))


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _trained_on(runs: Sequence[Run]) -> list[Block]:
    """Says which files and how many of their rows each run was trained on."""
    parts = ("train", "validation", "test")
    rows = []
    for run in runs:
        for file in run.card.data if run.card else ():
            sizes = (f"{file.rows.get(name, 0):,}" for name in parts)
            texts = (file.name, *sizes, f"{file.sha256[:16]}…")
            rows.append(Row(run.name, "data", tuple(map(Cell, texts))))
    columns = ("file", *(f"{name} rows" for name in parts), "sha256")
    unknown = [run.name for run in runs if run.card is None]
    blocks: list[Block] = []
    if rows:
        blocks.append(Table("model", tuple(map(Column, columns)), tuple(rows)))
    if unknown:
        blocks.append(missing(f"{joined(unknown)}: no card, so the training data are not known."))
    return blocks


def _data(parts: Sequence[Comparison], runs: Sequence[Run]) -> list[Block]:
    drawn = []
    for part in parts:
        ids, counts = np.unique(part.reference.primaries.pdg, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        names = [particle_name(int(ids[i])) for i in order[:12]]
        sizes = [int(counts[i]) for i in order[:12]]
        if len(order) > 12:
            names.append(f"{len(order) - 12} others")
            sizes.append(int(counts[order[12:]].sum()))
        mix = figures.particle_mix(names, sizes, f"{part.runs[0].scores.part} rows of {part.file.name}")
        feature = part.detector.energy
        energies = None if feature is None else part.reference.primaries.feature(feature.name)
        more = ""
        if feature is not None and energies is not None and len(energies):
            low, middle, high = np.quantile(energies, [0.05, 0.5, 0.95])
            more = f"; energy: median {middle:,.0f}, 90 % within {low:,.0f} to {high:,.0f} {feature.unit}."
        image = Image(mix, f"Particle types of {part.file.name}")
        drawn.append(Figure((image,), part.file.name, f"sha256 {part.sha256[:16]}…{more}"))
    return [*_trained_on(runs), Grid(tuple(drawn))]


def _published(detector: Detector) -> list[Block]:
    table = tables.published_table(detector.name) or tables.published_showers_table(detector.name)
    if table is None:
        return [missing(f"There are no published results for {detector.title}.")]
    warning = (
        "Published, on other data. These numbers belong to the publications' own simulation, rows and floors: context, "
        "not rivals."
    )
    more = tables.published_separations_table(detector.name)
    return [Paragraph(warning, "warning"), table, *([] if more is None else [more])]


def _provenance(runs: Sequence[Run]) -> Block:
    blocks = []
    for run in runs:
        card, scores = run.card, run.scores
        facts = {
            "type": scores.type,
            "version": card.version if card else None,
            "git revision": card.git_revision if card else None,
            "created": card.created if card else None,
            "training seed": card.seed if card else None,
            "training machine": card.training.machine if card else None,
            "parameters": None if scores.parameters is None else f"{scores.parameters:,}",
            "rounding": card.rounding if card else None,
            "settings": ", ".join(f"{key} = {value}" for key, value in scores.settings.items()),
            "evaluation": f"part {scores.part}, seed {scores.seed}, {plural(scores.repeats, 'repeat')}",
        }
        pairs = ((key, "not recorded" if value in (None, "") else str(value)) for key, value in facts.items())
        recipe = run.path / "recipe.toml"
        text: Block = (
            Details("Recipe", (Listing(recipe.read_text(encoding="utf-8")),))
            if recipe.is_file()
            else missing("No recipe was kept.")
        )
        blocks.append(Section(run.name, (Facts(tuple(pairs)), text), listed=False))
    return Grid(tuple(blocks))


# The page


def page_of(runs: Sequence[Run], parts: Sequence[Comparison], studies: Sequence[Study]) -> Document:
    """Returns the whole page.

    Args:
        runs: evaluated runs.
        parts: what was compared of them.
        studies: searches of settings.
    """
    blocks = [
        _detector([part for part in parts if part.detector.name == name], runs)
        for name in dict.fromkeys(part.detector.name for part in parts)
    ]
    blocks += [Section(f"Tuning of {study.name}", tuple(tuning.blocks(study))) for study in studies]
    if runs:
        blocks.append(Section("Provenance", (_provenance(runs),)))
    names = joined([*(run.name for run in runs), *(study.name for study in studies)])
    heading = "Surrogates against GEANT" if runs else "Tuning"
    return Document(f"{names}: surrogate report", heading, tuple(blocks), about=names, contents=True)


def _detector(parts: Sequence[Comparison], runs: Sequence[Run]) -> Section:
    """Returns all that is said of the runs of one detector."""
    detector = parts[0].detector
    ours = [run for run in runs if any(run in part.runs for part in parts)]
    stems = [part.stem for part in parts]
    inner = [_set(part, alone=stems.count(part.stem) == 1) for part in parts]
    title = detector.title
    return Section(
        title,
        (
            *_overview(parts, ours),
            *inner,
            Section(f"{title}: published results", tuple(_published(detector))),
            Section(f"{title}: training", (_training(ours),), "training"),
            Section(f"{title}: data", tuple(_data(parts, ours)), "data"),
        ),
    )


def _set(part: Comparison, alone: bool) -> Section:
    """Returns all that is said of one set; where it is not alone of its name, its title says what differs."""
    first = part.runs[0].scores
    title = part.stem if alone else f"{part.stem} ({first.split} split, {first.channels} channels)"
    legend = Legend(
        (Key("GEANT"), *(Key(run.name, run.look.colour, run.look.dashes) for run, _ in part.shown))
    )

    def inner(short: str, *blocks: Block) -> Section:
        return Section(f"{title}: {short}", blocks, short)

    if part.detector.layers and showers.runs_with_showers(part.runs):
        scores = [*_headline(part), *_shower_tables(part)]
        numbers = inner("CaloChallenge", *challenge.blocks([run.scores for run in part.runs], part.stem))
        return Section(
            title,
            (*scores, numbers, *(inner(short, legend, *body) for short, body in showers.sections(part))),
        )
    return Section(
        title,
        (
            *_headline(part),
            *_tables(part),
            inner("distributions", legend, *events.not_shown(part), *events.distributions(part)),
            inner("events", *events.gallery(part)),
            inner("mean shower", events.mean_shower(part)),
            *([inner("uncertainty", *blocks)] if (blocks := uncertainty(part)) else []),
            inner("settings", _settings(part)),
            inner("quality against time", *_quality_against_time(part)),
        ),
    )


def _overview(parts: Sequence[Comparison], runs: Sequence[Run]) -> list[Block]:
    """Describes the detector, with W1 of every model on every set where there are several sets."""
    detector = parts[0].detector
    shape = " × ".join(f"{length} ({axis})" for axis, length in detector.axes.items())
    blocks: list[Block] = [Paragraph(f"{shape} cells, in {detector.unit}.")]
    stems = [part.stem for part in parts]
    if len(set(stems)) == len(stems) > 1:
        metric = "frechet_population" if detector.layers else "w1"
        names = [run.name for run in runs]
        table = tables.overview_table([run.scores for run in runs], stems, metric, names)
        blocks.append(Section(f"{tables.METRICS[metric].title} at a glance", (table,), listed=False))
    return blocks
