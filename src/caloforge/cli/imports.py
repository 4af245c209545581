"""`caloforge import`: weights that others trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from caloforge.cli.bars import output
from caloforge.cli.options import Settings


def calodream(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="STATE_DICT...",
            help="State dictionaries of the energy network, the shape network and, if latent, the autoencoder.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="The run folder to write.", show_default=False)],
    data: Annotated[
        list[str],
        typer.Option(
            help="The files they were trained on: means and spreads are fitted to them; may be repeated.",
            show_default=False,
        ),
    ],
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Recipe with the sizes of the networks [default: found by the shape network].",
            show_default=False,
        ),
    ] = None,
    normalization: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            metavar="MEANS.npy STDS.npy",
            help="The authors' means and spreads of voxels and u, in place of the fit.",
            show_default=False,
        ),
    ] = None,
    settings: Settings = None,
) -> None:
    """Turn the CaloDREAM authors' state dictionaries into a run folder that samples, evaluates and exports."""
    from caloforge.samples import located
    from caloforge.training.calodream_weights import import_calodream

    counts = import_calodream(
        files,
        out,
        [located(name) for name in data],
        recipe=recipe,
        settings=settings or [],
        normalization=normalization,
    )
    for kind, parameters in counts.items():
        output.print(f"{kind}: {parameters:,} parameters")
    output.print(f"wrote {out}")
