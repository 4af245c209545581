"""`caloforge data`: look at data files, convert and merge them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from caloforge.cli.bars import counting, output, warn
from caloforge.cli.options import Columns, DetectorName, Source, Tree, detector_of, layout_given
from caloforge.events import Primaries
from caloforge.samples import located

if TYPE_CHECKING:
    from caloforge.events import EventSource
    from caloforge.io import Layout, Summary


def inspect(
    file: Source,
    detector: DetectorName = None,
    columns: Columns = None,
    tree: Tree = None,
    remember: Annotated[
        bool,
        typer.Option(
            "--remember",
            help="Keep detector, columns and tree in FILE.columns.toml, which whatever opens the file reads.",
        ),
    ] = False,
) -> None:
    """Show what a data file holds; every row is read and checked."""
    from caloforge.io import columns as layouts
    from caloforge.io import open_data, provenance, summarize
    from caloforge.runtime.doubts import doubts

    path = located(file)
    layout = layout_given(columns, tree, detector)
    if layout is None and remember and detector:
        layout = dataclasses.replace(
            layouts.remembered(path), detector=layouts.layout_of({}, None, detector).detector
        )
    source = open_data(path, detector_of(detector), layout)
    _print_summary(summarize(source), file)
    _print_further(path, source, layout)
    origin = provenance(path, layout)
    if origin:
        _print_table("provenance", [(name, _short(value)) for name, value in origin.items()])
    for doubt in doubts(source):
        warn(doubt)
    if remember:
        if layout is None:
            raise ValueError("--remember keeps --detector, --columns and --tree: give one of them")
        output.print(f"wrote {layouts.remember(path, layout)}")


def _short(value: object) -> str:
    """Writes a value of the provenance in at most 100 characters."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 100 else f"{text[:99]}…"


def _print_further(path: Path, source: EventSource | Primaries, layout: Layout | None) -> None:
    """Shows the columns that are neither of the particles nor the responses."""
    from caloforge.io.formats import further_columns

    try:
        detector = (source if isinstance(source, Primaries) else source.primaries).detector
        further = further_columns(path, detector, layout)
        values = further.read(0, min(len(source), 100)) if further.names else {}
    except ValueError as error:
        warn(f"further columns cannot be shown: {error}")
        return
    rows = []
    for name in further.names:
        column = values[name]
        width = f", {' x '.join(map(str, column.shape[1:]))} a row" if column.ndim > 1 else ""
        rows.append((name, f"{column.dtype}{width}"))
    if rows:
        _print_table("further columns", rows)


def _print_table(title: str, rows: Sequence[tuple[str, ...]]) -> None:
    table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    output.print(table)
    output.print()


def _print_summary(summary: Summary, file: str) -> None:
    least, median, greatest = summary.repeats
    rows = [
        ("detector", summary.detector),
        ("events", f"{summary.rows:,}"),
        ("unique particles", f"{summary.particles:,}, of which {summary.repeated:,} with at least 10 events"),
        ("events a particle", f"{least} to {greatest}, median {median:g}"),
    ]
    if summary.energy is not None:
        low, mean, high = summary.energy
        unit = summary.energy_unit
        rows.append(("energy", f"{low:.4g} to {high:.4g} {unit}, mean {mean:.4g} {unit}"))
    if summary.folds:
        rows.append(("folds", " ".join(f"{fold}:{count}" for fold, count in summary.folds.items())))
    _print_table(file, rows)
    _print_table("particles", [(name, f"{100 * share:.2f} %") for name, share in summary.mix.items()])
    if summary.responses is None:
        return
    responses = summary.responses
    _print_table(
        f"sum of {responses.unit}, quantiles",
        [(f"{100 * probability:g} %", f"{value:g}") for probability, value in responses.quantiles.items()],
    )
    _print_table(
        "cells",
        [
            ("lit", f"{responses.lit:.1f} on average, {100 * responses.occupancy:.2f} % of all"),
            ("counts", "whole numbers" if responses.whole else "not whole numbers"),
        ],
    )
    for name, means in responses.channels.items():
        _print_table(
            f"mean of each channel, map {name}",
            [(label, f"{value:.2f} {responses.unit}") for label, value in means.items()],
        )


def convert(
    source: Source,
    out: Annotated[
        Path, typer.Argument(help="The file to write; its suffix names the format.", show_default=False)
    ],
    particles: Annotated[
        Path | None,
        typer.Option(help="The particles of a pair of npz files, where not beside the responses."),
    ] = None,
    detector: DetectorName = None,
    columns: Columns = None,
    tree: Tree = None,
) -> None:
    """Convert a data file to another format: .h5, .npz, .parquet, .root, .csv."""
    from caloforge.io import convert

    path = located(source)
    with counting("convert") as count:
        events = convert(path, out, detector_of(detector), particles, count, layout_given(columns, tree))
    output.print(f"wrote {events} events to {out}")


def merge(
    sources: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="Files of one detector.", show_default=False)
    ],
    out: Annotated[Path, typer.Argument(help="The file to write.", show_default=False)],
) -> None:
    """Write the rows of several files into one; shards of one job in the order of their events."""
    from caloforge.io import merge

    with counting("merge") as count:
        events = merge([located(name) for name in sources], out, count)
    output.print(f"wrote {events} events to {out}")
