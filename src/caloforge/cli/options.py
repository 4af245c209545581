"""Arguments and options that several verbs share, and what their values stand for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from caloforge.cli import commands

if TYPE_CHECKING:
    from caloforge.detectors import Detector
    from caloforge.io import Layout
    from caloforge.recipe import Recipe

Source = Annotated[
    str,
    typer.Argument(
        help="A data file, or sample:NAME for one that ships.",
        autocompletion=commands.data,
        show_default=False,
    ),
]
RunArgument = Annotated[
    str,
    typer.Argument(
        help="A run folder, or the name of weights that ship.",
        autocompletion=commands.runs,
        show_default=False,
    ),
]
DetectorName = Annotated[
    str | None,
    typer.Option(
        "--detector",
        help="The detector, where the file does not name it, as in a .csv.",
        autocompletion=commands.detectors,
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH.TO.KEY=VALUE", help="Change a value of the recipe; may be repeated."),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Run code outside caloforge that a run or bundle names: if you trust its maker.",
    ),
]
Device = Annotated[str, typer.Option(help="PyTorch device: cpu, cuda, ...")]
Batch = Annotated[int, typer.Option("--batch-size", min=1, help="Events at once.")]
Seed = Annotated[int, typer.Option(min=0, max=2**64 - 1, help="Event k is a function of the seed and k.")]
Replica = Annotated[
    int,
    typer.Option(
        min=0,
        help="Which weights of a Bayesian network, or member of a committee, from 1; 0: the mean weights, or the first "
        "member.",
    ),
]
RecipeArgument = Annotated[
    str,
    typer.Argument(
        help="A TOML file, or the name of a recipe that ships.",
        autocompletion=commands.recipes,
        show_default=False,
    ),
]
Data = Annotated[
    list[str] | None,
    typer.Option(
        "--data", help="Training data in place of the recipe's; may be repeated.", show_default=False
    ),
]


Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--columns",
        metavar="NAME=COLUMN,...",
        help="What the file calls its columns: energy=E,px=p_x; pdg=22 is the same in every row.",
        show_default=False,
    ),
]
Tree = Annotated[
    str | None,
    typer.Option(
        "--tree",
        help="The tree or RNTuple of a ROOT file, if it is not the only one and not called events.",
        show_default=False,
    ),
]


def layout_given(columns: list[str] | None, tree: str | None, detector: str | None = None) -> Layout | None:
    """Returns the layout that options give; None where they give none, and the file's own counts."""
    from caloforge.io.columns import layout_of, parse_columns

    if not columns and tree is None:
        return None
    return layout_of(parse_columns(",".join(columns or [])) if columns else {}, tree, detector)


def run_path(name: str) -> Path:
    """Returns the folder of a run or bundle, or of weights that ship by their name."""
    from caloforge.runtime import folders

    return folders.run_path(name)


def detector_of(name: str | None) -> Detector | None:
    """Returns the detector of that name, or none where no name was given."""
    from caloforge.detectors import detector_named

    return detector_named(name) if name else None


def recipe_of(
    name: str,
    files: list[str] | None,
    settings: list[str] | None,
    reference: list[str] | None = None,
    start: str | None = None,
) -> Recipe:
    """Reads a recipe with the changes of the command line."""
    from caloforge import face

    return face.recipe_of(name, files or [], settings or [], reference or [], start)


def is_classifier(path: Path) -> bool:
    """Tells whether a run predicts which particles leave a response at all."""
    from caloforge.io.run import Run

    return Run(path).card().kind == "classifier"
