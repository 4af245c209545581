"""`caloforge detector`: detectors of one's own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from caloforge.cli.bars import output


def new(
    name: Annotated[str, typer.Argument(help="Its name, such as ecal.", show_default=False)],
    cells: Annotated[
        str | None, typer.Option(metavar="N,N", help="Cells along each axis, such as 20,20.")
    ] = None,
    unit: Annotated[
        str | None, typer.Option(help="Unit of a cell: photons are counts, MeV and GeV energies.")
    ] = None,
    conditions: Annotated[
        str | None,
        typer.Option(
            metavar="NAME:UNIT,...", help="What is known of a primary: energy:MeV,theta:rad,phi:rad."
        ),
    ] = None,
    channels: Annotated[str, typer.Option(help="Channels to read out: sum, or quadrants.")] = "sum",
    title: Annotated[str, typer.Option(help="Its name in figures and tables.", show_default=False)] = "",
    pitch: Annotated[
        float | None, typer.Option(help="Edge of a cell in cm, for lengths in figures.", show_default=False)
    ] = None,
    threshold: Annotated[float, typer.Option(help="Content below which a cell reads 0.")] = 0.0,
    out: Annotated[Path, typer.Option(help="The folder for both files.")] = Path("."),
) -> None:
    """Write the file of a new detector, and a test for it.

    In a terminal it asks for cells, unit and conditions where you do not give them.
    """
    from caloforge.detectors.template import NewDetector, conditions_of

    cells = _asked("--cells", cells, "Cells along each axis", "20,20")
    unit = _asked("--unit", unit, "Unit of a cell (photons, MeV, GeV)", "MeV")
    conditions = _asked(
        "--conditions", conditions, "Conditions, NAME:UNIT each", "energy:MeV,theta:rad,phi:rad"
    )
    kind: Any = channels
    detector = NewDetector(
        name, _sizes(cells), unit, conditions_of(conditions.split(",")), kind, title, pitch, threshold
    )
    texts = {out / f"{name}.py": detector.file(), out / f"test_{name}.py": detector.test()}
    for path in texts:
        if path.exists():
            raise ValueError(f"{path} is there already: choose another name or --out")
    out.mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        path.write_text(text)
    output.print(f"wrote {' and '.join(map(str, texts))}")
    output.print(
        f"the detector is {name}:{detector.constant}, as in --detector; test it: pytest {out / f'test_{name}.py'}"
    )


def _asked(option: str, value: str | None, question: str, default: str) -> str:
    if value is not None:
        return value
    if not sys.stdin.isatty():
        raise ValueError(f"{option} is missing, such as {option} {default}")
    answer: str = typer.prompt(question, default=default)
    return answer


def _sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.replace("x", ",").split(","))
    except ValueError:
        raise ValueError(f"--cells must be whole numbers with commas, such as 20,20, got {text!r}") from None
