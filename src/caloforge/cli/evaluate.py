"""`caloforge evaluate`: scores of a model, or of a file of events."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from caloforge import samples
from caloforge.cli import commands
from caloforge.cli.bars import counting_each, output
from caloforge.cli.options import (
    Batch,
    DetectorName,
    Device,
    Seed,
    Settings,
    Trust,
    detector_of,
    is_classifier,
    run_path,
)

if TYPE_CHECKING:
    from caloforge.io.scores import Scores
    from caloforge.report.document import Table as ReportTable


def evaluate(
    target: Annotated[
        str,
        typer.Argument(
            metavar="RUN|EVENTS",
            help="A run folder, the name of weights that ship, or an events file.",
            autocompletion=commands.runs,
            show_default=False,
        ),
    ],
    reference: Annotated[
        list[str], typer.Option(help="GEANT events to compare with; may be repeated.", show_default=False)
    ],
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="Files that the model was trained on: a reference of their content is refused; may be repeated. "
            "The card of a run of the split files has them.",
            show_default=False,
        ),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="How often every event is generated.")] = 5,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The scores [default: scores.json in the run folder; of weights that ship NAME.scores.json here].",
            show_default=False,
        ),
    ] = None,
    seed: Seed = 0,
    batch_size: Batch = 256,
    device: Device = "cpu",
    settings: Settings = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH=V1,V2,...",
            help="Repeat over a setting, the others as they are: solver.steps=1,2,4,8, or, with one that goes along, "
            "'solver.method=midpoint solver.steps=1,2'; may be repeated.",
        ),
    ] = None,
    detector: DetectorName = None,
    classifiers: Annotated[
        str | None,
        typer.Option(
            metavar="small|paper|full|challenge",
            help="Of showers: also train classifiers of generated against simulated ones.",
            show_default=False,
        ),
    ] = None,
    challenge: Annotated[
        bool,
        typer.Option(
            "--challenge",
            help="Of showers: also show the numbers of the CaloChallenge beside published ones, and write them as "
            "Markdown beside the scores. The classifiers' are there with --classifiers challenge.",
        ),
    ] = False,
    true_sums: Annotated[
        bool, typer.Option(help="Give the generator the photon sum of each test response; flows can take it.")
    ] = False,
    replicas: Annotated[
        int,
        typer.Option(
            min=0,
            help="Also generate the events with so many replicas, members of a committee or draws of Gaussian weights, "
            "for bands in the report.",
        ),
    ] = 0,
    trust: Trust = False,
) -> None:
    """Score a model on rows it was not trained on, or a file of generated events against a reference."""
    from caloforge import face
    from caloforge.io.run import Run
    from caloforge.training.devices import check_device

    events_folder = None
    if Path(target).is_file():
        out = out or Path(target).with_suffix(".scores.json")
    else:
        path = run_path(target)
        shipped = path == samples.weights().get(target)
        name = "true_sums" if true_sums else "scores"
        out = out or (Path(f"{target}.{name}.json") if shipped else path / f"{name}.json")
        if is_classifier(path):
            check_device(device)
            _evaluate_classifier(path, [samples.located(name) for name in reference], out, trust)
            return
        events_folder = None if shipped else Run(path).generated("").parent
    with counting_each("repeats") as count:
        scores = face.evaluate(
            target,
            reference,
            data=data or (),
            repeats=repeats,
            seed=seed,
            batch_size=batch_size,
            device=device,
            settings=settings or (),
            sweeps=sweep or (),
            detector=detector_of(detector),
            classifiers=classifiers,
            true_sums=true_sums,
            replicas=replicas,
            trust=trust,
            out=out,
            events_folder=events_folder,
            report=count,
        )
    _print_scores(scores, trust)
    output.print(f"wrote {out}")
    if challenge:
        _show_challenge(scores, out)


def _show_challenge(scores: Scores, out: Path) -> None:
    """Prints and writes the table of the CaloChallenge.

    Raises:
        ValueError: scores of another detector than one of voxels, or of layer energies alone.
    """
    from caloforge.io.files import write_text
    from caloforge.report import challenge
    from caloforge.report.pages.challenge import text

    for stem in scores.sets:
        if not challenge.group_of(scores, stem):
            raise ValueError(f"--challenge is for showers of voxels, got {scores.detector} {scores.kind}s")
        name = challenge.data_set_title([scores], stem)
        for table in (challenge.numbers_table([scores], stem), challenge.separations_table([scores], stem)):
            _print_table(table, f"CaloChallenge, {name}: {stem}", table.notes)
    page = out.with_suffix(".challenge.md")
    write_text(page, text(scores))
    output.print(f"wrote {page}")


def _print_table(table_of: ReportTable, title: str, notes: Sequence[str]) -> None:
    from caloforge.report.tables import console

    header, *rows = console(table_of)
    table = Table(*header, title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    Console(width=max(output.width, 40 + 12 * len(header)), highlight=False, markup=False).print(table)
    for note in notes:
        output.print(note)


def _evaluate_classifier(path: Path, references: list[Path], out: Path, trust: bool) -> None:
    """Scores a zero response, whose references are files of trials."""
    from caloforge.evaluation.zero_response import evaluate_classifier
    from caloforge.io.typed import write_typed

    scores = evaluate_classifier(path, references, trust=trust)
    write_typed(out, scores)
    header = ("outcome", "trials", "observed", "predicted", "Brier", "repeated: Brier", "floor", "ROC AUC")
    for stem, classified in scores.sets.items():
        table = Table(*header, title=f"{stem}: {scores.split} split, test rows", title_justify="left")
        for name, outcome in classified.outcomes.items():
            rows, repeated = outcome.all, outcome.repeated
            values = (
                rows.observed, rows.predicted, outcome.brier, repeated.brier, repeated.floor, outcome.auc,
            )  # fmt: skip
            cells = ["-" if value is None else f"{value:.4f}" for value in values]
            table.add_row(name, f"{rows.trials:,}", *cells)
        Console(width=max(output.width, 120), highlight=False, markup=False).print(table)
    output.print(f"wrote {out}")


def _print_scores(scores: Scores, trust: bool) -> None:
    from caloforge.detectors import detector_named
    from caloforge.report.tables import scores_table, showers_table

    showers = detector_named(scores.detector, trust=trust).layers and scores.kind != "readout"
    for stem in scores.sets:
        table_of = showers_table([scores], stem) if showers else scores_table([scores], stem)
        title = f"{stem}: {scores.split} split, {scores.part} rows"
        _print_table(table_of, title, table_of.notes if showers else ())
