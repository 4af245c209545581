"""`caloforge demo`: every verb on what ships."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from caloforge.cli.bars import output
from caloforge.cli.data import inspect
from caloforge.cli.evaluate import evaluate
from caloforge.cli.options import run_path
from caloforge.cli.report import report
from caloforge.cli.sample import sample
from caloforge.cli.train import train


def demo(
    out: Annotated[Path, typer.Option(help="Where runs, events and the report go.")] = Path("caloforge-demo"),
    detector: Annotated[str, typer.Option(help="zp, or zn, which takes three times as long.")] = "zp",
) -> None:
    """Run every verb on the sample and the weights that ship: under five minutes on two cores."""
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty: choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    shipped = f"{detector}-factorized_flow_matching"
    references = [f"sample:{detector}_wide", f"sample:{detector}"]
    runs = {name: str(out / name) for name in (shipped, "miniature", "resample", "nearest")}

    output.rule("1. look at the data")
    inspect(references[0])
    output.rule("2. train a miniature and two yardsticks")
    miniature = [
        "name=miniature",
        "model.epochs=1",
        "model.validation_events=256",
        "training.validate_every=1",
    ]
    train(f"{detector}-flow_matching", out=Path(runs["miniature"]), settings=miniature)
    for yardstick in ("resample", "nearest"):
        train(f"{detector}-{yardstick}", out=Path(runs[yardstick]))
    output.rule("3. generate events with the weights that ship")
    shutil.copytree(run_path(shipped), runs[shipped])
    sample(runs[shipped], references[1], out / "events.h5")
    output.rule("4. evaluate")
    for name, run in runs.items():
        sweep = ["image.end=0.7,0.8"] if name == shipped else []
        evaluate(run, references, repeats=2, sweep=sweep)
    output.rule("5. report")
    report(list(runs.values()), out=out / "report.html")
    output.print(f"open {(out / 'report.html').resolve()}")
