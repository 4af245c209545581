"""`caloforge data`: look at data files, convert and merge them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from caloforge.cli.bars import counting, output, warn
from caloforge.cli.options import DetectorName, Source, detector_of
from caloforge.samples import located

if TYPE_CHECKING:
    from caloforge.io import Summary


def inspect(file: Source, detector: DetectorName = None) -> None:
    """Show what a data file holds; every row is read and checked."""
    from caloforge.io import open_data, summarize
    from caloforge.runtime.doubts import doubts

    found = open_data(located(file), detector_of(detector))
    _print_summary(summarize(found), file)
    for doubt in doubts(found):
        warn(doubt)


def _print_summary(summary: Summary, file: str) -> None:
    def show(title: str, rows: Sequence[tuple[str, ...]]) -> None:
        table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
        for row in rows:
            table.add_row(*row)
        output.print(table)
        output.print()

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
    show(file, rows)
    show("particles", [(name, f"{100 * share:.2f} %") for name, share in summary.mix.items()])
    if summary.responses is None:
        return
    found = summary.responses
    show(
        f"sum of {found.unit}, quantiles",
        [(f"{100 * probability:g} %", f"{value:g}") for probability, value in found.quantiles.items()],
    )
    show(
        "cells",
        [
            ("lit", f"{found.lit:.1f} on average, {100 * found.occupancy:.2f} % of all"),
            ("counts", "whole numbers" if found.whole else "not whole numbers"),
        ],
    )
    for name, means in found.channels.items():
        show(
            f"mean of each channel, map {name}",
            [(label, f"{value:.2f} {found.unit}") for label, value in means.items()],
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
) -> None:
    """Convert a data file to another format: .h5, .npz, .parquet, .root, .csv."""
    from caloforge.io import convert

    path = located(source)
    with counting("convert") as count:
        events = convert(path, out, detector_of(detector), particles, count)
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
