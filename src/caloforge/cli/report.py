"""`caloforge report`: one page on runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from caloforge.cli import commands
from caloforge.cli.bars import output
from caloforge.cli.options import Trust, is_classifier, run_path
from caloforge.samples import located


def report(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="Evaluated run folders, scores of events files, and studies of `tune`.",
            autocompletion=commands.runs,
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
    reference: Annotated[
        list[str] | None,
        typer.Option(help="Where a reference now lies, if not where it was.", show_default=False),
    ] = None,
    pdf: Annotated[
        bool, typer.Option("--pdf", help="Also print the page as a PDF (needs Chromium).")
    ] = False,
    trust: Trust = False,
) -> None:
    """Write one self-contained page: runs side by side with floors, figures and published results; studies."""
    from caloforge.report import write_report

    paths = [Path(run) if Path(run).is_file() else run_path(run) for run in runs]
    for path in paths:
        if (path / "card.json").is_file() and is_classifier(path):
            raise ValueError(f"{path} is a classifier: a report compares generators and readouts")
    references = {path.stem: path for path in map(located, reference or [])}
    write_report(paths, out, references, trust, pdf)
    output.print(f"wrote {out}{' and ' + str(out.with_suffix('.pdf')) if pdf else ''}")
