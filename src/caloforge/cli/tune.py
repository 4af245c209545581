"""`caloforge tune`: search the settings of a recipe."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from caloforge.cli.bars import messages, output
from caloforge.cli.options import Data, RecipeArgument, Settings, recipe_of


def tune(
    recipe: RecipeArgument,
    space: Annotated[
        str,
        typer.Option(
            help="The search space: a TOML file, or the name of one that ships.", show_default=False
        ),
    ],
    trials: Annotated[
        int | None,
        typer.Option(
            min=1, help="Begin no trial when the study holds so many that have ended.", show_default=False
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(min=0, help="Begin no trial after so many seconds.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The study folder [default: studies/NAME].", show_default=False)
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.log|URL",
            help="What workers share: a journal file, or a database such as sqlite:///FILE "
            "[default: OUT/journal.log].",
            show_default=False,
        ),
    ] = None,
    study: Annotated[
        str | None,
        typer.Option(help="Name of the study in the storage [default: the recipe's].", show_default=False),
    ] = None,
    files: Data = None,
    settings: Settings = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the run folders of the trials.")] = False,
) -> None:
    """Search a recipe's settings as one worker of a study; the same command again goes on with it."""
    from caloforge.training.space import read_space

    parsed = recipe_of(recipe, files, settings)
    ranges = read_space(space)
    folder = out or Path("studies") / (study or parsed.name)

    from caloforge.io.study import BEST, Trial
    from caloforge.training.tune import tune as run_study

    def show(trial: Trial) -> None:
        text = trial.reason or f"{ranges.objective} {trial.reached:.4g}"
        keys = " ".join(f"{path}={_short(value)}" for path, value in trial.parameters.items())
        messages.print(f"trial {trial.number} {trial.state}: {text}  {keys}")

    try:
        result = run_study(
            parsed, ranges, folder, storage=storage, name=study, trials=trials, timeout=timeout, keep=keep,
            report=show,
        )  # fmt: skip
    except KeyboardInterrupt:
        messages.print("interrupted; the same command goes on with the study")
        sys.exit(130)
    ended = len(result.ended)
    if not result.finished:
        output.print(f"{ended} trials, none of them finished: see {folder}")
        return
    best = result.finished[0]
    output.print(
        f"{ended} trials; the best is {best.number}, {ranges.objective} {best.value:.4g}: wrote {folder / BEST}"
    )


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
