"""The command line: verbs that meet through files only, one in each module here.

    simulate -> events file --train--> run folder --export--> bundle --sample--> events file --evaluate--> scores.json
    --report--> report.html, and `sample` takes the run folder as well

A verb reads its arguments, calls the function of its name, and prints. Every error of the user's making is one message
on standard error and exit code 2.
"""

from __future__ import annotations

import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Annotated

import typer

from caloforge import __version__
from caloforge._errors import explained
from caloforge.cli import (
    compare,
    data,
    demo,
    detector,
    evaluate,
    export,
    generate,
    imports,
    info,
    report,
    sample,
    simulate,
    train,
    tune,
    weigh,
)
from caloforge.cli.bars import messages, output, show_warning
from caloforge.cli.commands import Verb, Verbs


def main() -> None:
    """Runs the command line; errors of the user's making exit with code 2, defects with code 1, each in one line."""
    # wherever it stands
    words = [word for word in sys.argv[1:] if word != "--traceback"]
    full = len(words) < len(sys.argv) - 1
    warnings.showwarning = show_warning
    try:
        code = app(words, prog_name="caloforge", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        messages.print("interrupted")
        sys.exit(130)
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            output.print(str(error))
            sys.exit(2)
        if full:
            traceback.print_exc()
        line, code = explained(error)
        messages.print(line)
    sys.exit(code)


def _version(asked: bool) -> None:
    if asked:
        output.print(f"caloforge {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    _: Annotated[
        bool, typer.Option("--traceback", help="Show where an error came from, for a report of a defect.")
    ] = False,
) -> None:
    """Fast generative surrogates of calorimeter simulation: train, sample, evaluate, report."""


app = typer.Typer(
    name="caloforge",
    help="Fast generative surrogates of calorimeter simulation.",
    cls=Verbs,
    callback=_root,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
_data = typer.Typer(
    cls=Verbs, help="Look at data files, convert and merge them.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(_data, name="data")
_detector = typer.Typer(
    cls=Verbs, help="Write the file of a detector of your own.", no_args_is_help=True, rich_markup_mode=None
)
_detector.command("new", cls=Verb)(detector.new)
app.add_typer(_detector, name="detector")
_import = typer.Typer(
    cls=Verbs, help="Bring weights that others trained.", no_args_is_help=True, rich_markup_mode=None
)
_import.command("calodream", cls=Verb)(imports.calodream)
app.add_typer(_import, name="import")
VERBS: tuple[Callable[..., None], ...] = (
    simulate.simulate,
    train.train,
    tune.tune,
    sample.sample,
    generate.generate,
    export.export,
    evaluate.evaluate,
    weigh.weigh,
    report.report,
    compare.compare,
    demo.demo,
    info.info,
)
DATA_VERBS: tuple[Callable[..., None], ...] = (data.inspect, data.convert, data.merge)
for _verb in VERBS:
    app.command(cls=Verb)(_verb)
for _verb in DATA_VERBS:
    _data.command(cls=Verb)(_verb)
