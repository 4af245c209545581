"""`caloforge train`: a model from a recipe."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from caloforge.cli.bars import TrainingBar, messages, output
from caloforge.cli.options import Columns, Data, RecipeArgument, Settings, Tree, layout_given, recipe_of


def train(
    recipe: RecipeArgument,
    files: Data = None,
    reference: Annotated[
        list[str] | None,
        typer.Option(
            help="Files that judge: then all rows of the training data train, but for 2 % that choose the weights; "
            "may be repeated.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run folder [default: runs/NAME].", show_default=False)
    ] = None,
    settings: Settings = None,
    start: Annotated[
        str | None,
        typer.Option(
            metavar="WEIGHTS",
            help="Trained weights to begin with: a name of those that ship, or a run folder. What fits is taken.",
            show_default=False,
        ),
    ] = None,
    members: Annotated[
        int,
        typer.Option(
            min=1,
            help="Networks of a committee, which differ in their first weights and batches; below the run folder.",
        ),
    ] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    columns: Columns = None,
    tree: Tree = None,
) -> None:
    """Train a model by a recipe; leaves a run folder."""
    layout = layout_given(columns, tree)
    if layout is not None:
        named = [f"data.columns.{name}={json.dumps(value)}" for name, value in layout.columns]
        settings = [*(settings or []), *named, *([f"data.tree={json.dumps(tree)}"] if tree else [])]
    parsed = recipe_of(recipe, files, settings, reference, start)
    folder = out or Path("runs") / parsed.name

    from caloforge import face

    def say(line: str) -> None:
        if line:
            output.print(line)

    try:
        face.train(parsed, folder, members=members, resume=resume, reporter=TrainingBar, say=say)
    except KeyboardInterrupt:
        messages.print(
            f"interrupted; go on with: caloforge train {recipe} --out {folder} --resume (and the same options)"
        )
        sys.exit(130)
    output.print(f"wrote {folder}")
