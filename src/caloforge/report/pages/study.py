"""What a page says of a study: what its trials reached, by which settings, and what they matter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from caloforge.io.study import BEST, Choices, Parameter
from caloforge.report import figures, tables
from caloforge.report.document import (
    Block,
    Cell,
    Column,
    Details,
    Facts,
    Figure,
    Grid,
    Image,
    Listing,
    Paragraph,
    Row,
    Section,
    Table,
    missing,
)
from caloforge.report.study import Study
from caloforge.report.words import plural

SHOWN = 10
"""Trials in the table of the best."""


def blocks(study: Study) -> list[Block]:
    """Returns what a page says of a study."""
    content, ended = study.content, study.content.ended
    if not ended:
        return [missing("No trial has ended yet.")]
    counts = {
        state: sum(trial.state == state for trial in ended) for state in ("finished", "pruned", "failed")
    }
    listed = ", ".join(f"{count} {state}" for state, count in counts.items())
    running = len(content.trials) - len(ended)
    still = f"; {running} running, or interrupted on another machine" if running else ""
    text = (
        f"{content.type} for {content.detector}, {plural(len(ended), 'ended trial')} ({listed}){still}. "
        "Pruned: stopped as worse than the median of finished trials at the same epoch."
    )
    said: list[Block] = [Paragraph(text)]
    if content.finished:
        best = content.finished[0]
        value = f"{study.label} {tables.number(best.value or 0.0)} at epoch {best.best_epoch}"
        said.append(Paragraph(f"Best: trial {best.number}, {value}.", "lead"))
    said.append(_figures(study))
    said.append(Section("Parameters", (_parameters(study),), listed=False))
    if content.finished:
        said.append(Section("Best trials", (_best(study),), listed=False))
    said += _failures(study)
    if (study.path / BEST).is_file():
        recipe = Listing((study.path / BEST).read_text(encoding="utf-8"))
        said.append(Details("Recipe of the best trial", (recipe,)))
    return said


def _figures(study: Study) -> Block:
    ended = study.content.ended
    numbers = [trial.reached for trial in ended if trial.reached is not None]
    if not numbers:
        return missing("No trial came to a validation: nothing to draw.")
    finished = [trial.value for trial in study.content.finished if trial.value is not None]
    cumulative = figures.cumulative(numbers, len(ended), finished, study.label)
    reached_by = Figure(
        (Image(cumulative, f"Share of trials below each {study.label}"),),
        "What trials reach",
        "Share of all ended trials whose objective came below a value; a pruned trial counts with what it had reached. "
        "Dashed: finished trials alone.",
    )
    panels = []
    for path, parameter in study.content.space.parameters.items():
        points = [
            (trial.parameters[path], trial.reached, trial.state)
            for trial in ended
            if path in trial.parameters
        ]
        choices = list(parameter.choices) if isinstance(parameter, Choices) else None
        log = not isinstance(parameter, Choices) and parameter.log
        drawn = figures.parameter(points, choices, log, path.removeprefix("model."), study.label)
        panels.append(Image(drawn, f"{study.label} against {path}"))
    about = "What each trial reached. Filled: finished; open: pruned; crosses at the top: failed."
    return Grid((reached_by, Figure(tuple(panels), "By parameter", about)))


def _parameters(study: Study) -> Table:
    importance, finished = study.content.importance, study.content.finished
    best = finished[0].parameters if finished else {}
    rows = []
    for path, parameter in study.content.space.parameters.items():
        texts = (_range(parameter), _text(best.get(path)), _text(importance.get(path)))
        rows.append(Row(path, "data", tuple(Cell(text) for text in texts)))
    columns = (Column("searched"), Column("best"), Column("importance"))
    note = (
        "Importance: how much of the variance of the objective a parameter explains, by functional ANOVA of a random "
        "forest over finished trials."
        if importance
        else "Importance is estimated at the end of a worker, from ten finished trials."
    )
    return Table("key of the recipe", columns, tuple(rows), (note,))


def _range(parameter: Parameter) -> str:
    if isinstance(parameter, Choices):
        return ", ".join(_text(choice) for choice in parameter.choices)
    return f"{parameter.low:g} to {parameter.high:g}{', log' if parameter.log else ''}"


def _text(value: Any) -> str:
    if value is None:
        return tables.MISSING
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _best(study: Study) -> Table:
    paths = list(study.content.space.parameters)
    rows = []
    for trial in study.content.finished[:SHOWN]:
        texts = [
            tables.number(trial.value or 0.0),
            _text(trial.best_epoch),
            tables.MISSING if trial.seconds is None else f"{trial.seconds:.0f}",
            *(_text(trial.parameters.get(path)) for path in paths),
        ]
        rows.append(Row(f"trial {trial.number}", "data", tuple(map(Cell, texts))))
    columns = [
        Column(study.content.objective),
        Column("epoch"),
        Column("time", "s"),
        *(Column(path.rpartition(".")[2]) for path in paths),
    ]
    return Table("trial", tuple(columns), tuple(rows))


def _failures(study: Study) -> list[Block]:
    reasons: dict[str, list[str]] = {}
    for trial in study.content.ended:
        if trial.state == "failed":
            reasons.setdefault(trial.reason, []).append(str(trial.number))
    if not reasons:
        return []
    pairs = ((", ".join(_few(numbers)), reason) for reason, numbers in reasons.items())
    return [Details("Failed trials", (Facts(tuple(pairs)),))]


def _few(numbers: Sequence[str]) -> list[str]:
    return list(numbers) if len(numbers) <= SHOWN else [*numbers[:SHOWN], "..."]
