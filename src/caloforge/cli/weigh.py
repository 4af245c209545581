"""`caloforge weigh`: weights that bring generated events nearer to the simulation's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from caloforge.cli import commands
from caloforge.cli.bars import counting_each, output
from caloforge.cli.options import DetectorName, Device, Seed, detector_of


def weigh(
    events: Annotated[Path, typer.Argument(help="Generated events.", show_default=False)],
    out: Annotated[
        Path, typer.Argument(help="The events file to write, with the column weight.", show_default=False)
    ],
    reference: Annotated[
        str,
        typer.Option(
            help="GEANT events to learn from; of a model's test part none is learned from.",
            autocompletion=commands.data,
            show_default=False,
        ),
    ],
    generated: Annotated[
        Path | None,
        typer.Option(
            help="Generated events to learn from, such as the model's answers to the reference's particles "
            "[default: EVENTS themselves, by folds].",
            show_default=False,
        ),
    ] = None,
    view: Annotated[
        str,
        typer.Option(
            metavar="high|low|low-normed|resnet",
            help="What the classifier sees: sums, centres and widths, or cells. The last two are for showers.",
        ),
    ] = "high",
    classifier: Annotated[
        str, typer.Option(metavar="small|paper|full|challenge", help="Settings of the classifier.")
    ] = "small",
    folds: Annotated[
        int, typer.Option(min=3, help="Parts of the particles; no classifier weighs what it learned from.")
    ] = 5,
    clip: Annotated[float, typer.Option(help="Largest weight; one over it is the smallest.")] = 10.0,
    seed: Seed = 0,
    device: Device = "cpu",
    detector: DetectorName = None,
) -> None:
    """Weigh generated events by a classifier, so that metrics and histograms of them come nearer to GEANT's."""
    from caloforge import face

    with counting_each("weigh") as count:
        refined = face.weigh(
            events,
            out,
            reference,
            generated=generated,
            view=view,
            classifier=classifier,
            folds=folds,
            clip=clip,
            seed=seed,
            device=device,
            detector=detector_of(detector),
            report=count,
        )
    output.print(
        f"learned from {refined.learned:,} generated events, by folds; AUC {refined.auc:.3f} "
        "(0.5: nothing to correct)"
    )
    output.print(
        f"weights: mean {refined.factor.mean():.3f}, {refined.clipped:.1%} clipped at {1 / clip:g} and {clip:g}; "
        f"{len(refined.weight):,} events are worth {refined.effective:,.0f}"
    )
    output.print(f"wrote {out}")
