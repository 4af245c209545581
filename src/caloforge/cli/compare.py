"""`caloforge compare`: every model of a plan, trained, scored and timed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from caloforge.cli.bars import messages, output
from caloforge.samples import located


def compare(
    out: Annotated[Path, typer.Argument(help="The folder of the comparison.", show_default=False)],
    plan: Annotated[
        str, typer.Option(help="What is compared: a TOML file, or the name of a plan that ships.")
    ] = "papers",
    files: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            help="Events to train on and to compare with, in place of its detector's sample; may be repeated.",
            show_default=False,
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Of the plan's models only this one; may be repeated.", show_default=False),
    ] = None,
    shipped: Annotated[
        bool,
        typer.Option(
            "--shipped", help="Train nothing: only models whose weights ship, or that were trained."
        ),
    ] = False,
    page: Annotated[
        Path | None, typer.Option(help="The page to write [default: OUT/results.md].", show_default=False)
    ] = None,
) -> None:
    """Train, score and time every model of a plan and write one page; the same command again goes on."""
    from caloforge.comparison import Comparing, data_by_detector, read_plan

    restricted = read_plan(plan).restricted(only or [])
    data = data_by_detector([located(name) for name in files or []])
    command = ["caloforge compare", out.name, f"--plan {Path(plan).name}" if plan != "papers" else ""]
    command += [f"--data {Path(name).name}" for name in files or []]
    command += [f"--only {name}" for name in only or []] + (["--shipped"] if shipped else [])

    def say(text: str) -> None:
        messages.print(text)

    comparing = Comparing(restricted, out, data, train=not shipped, say=say)
    written = comparing.run(page, " ".join(filter(None, command)))
    output.print(f"wrote {written} and {written.with_suffix('.html')}")
