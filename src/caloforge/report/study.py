"""A study of trainings, as `trials.json` has it: what was reached, by which settings, and what they matter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from caloforge.io.files import read_json
from caloforge.metrics import METRICS
from caloforge.report import figures, tables
from caloforge.report.pieces import figure, image, missing, plural

FORMAT = 1
"""Format of `trials.json`."""

TRIALS, BEST = "trials.json", "best.toml"

SHOWN = 10
"""Trials in the table of the best."""


@dataclass(frozen=True, eq=False)
class Study:
    """Holds what a study folder says.

    Attributes:
        path: the folder.
        name: name of the study.
        content: contents of `trials.json`.
    """

    path: Path
    name: str
    content: Mapping[str, Any]

    @property
    def trials(self) -> list[Mapping[str, Any]]:
        """Trials that have ended, by number."""
        return [trial for trial in self.content["trials"] if trial["state"] != "running"]

    @property
    def finished(self) -> list[Mapping[str, Any]]:
        """Trials that came to their last epoch, the best first."""
        done = [trial for trial in self.trials if trial["state"] == "finished"]
        return sorted(done, key=lambda trial: (trial["value"], trial["number"]))

    @property
    def label(self) -> str:
        """The objective with its unit."""
        name = self.content["objective"]
        if name not in METRICS:
            return f"validation {name}"
        return f"validation {METRICS[name].title} [{METRICS[name].unit}]"


def is_study(path: Path) -> bool:
    """Says whether a folder holds a study."""
    return (path / TRIALS).is_file()


def read_study(path: Path) -> Study:
    """Reads a study folder.

    Raises:
        ValueError: another format.
    """
    content = read_json(path / TRIALS)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        got = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{path / TRIALS} must have format {FORMAT}, got {got!r}")
    return Study(path, str(content["study"]), content)


def reached(trial: Mapping[str, Any]) -> float | None:
    """Returns the value of a finished trial, of a stopped one the smallest objective until then, or None."""
    if trial["value"] is not None:
        return float(trial["value"])
    return min((float(value) for _, value in trial["validations"]), default=None)


def section(study: Study) -> str:
    """Writes what a page says of a study."""
    if not study.trials:
        return missing("No trial has ended yet.")
    counts = {
        state: sum(trial["state"] == state for trial in study.trials)
        for state in ("finished", "pruned", "failed")
    }
    listed = ", ".join(f"{count} {state}" for state, count in counts.items())
    running = len(study.content["trials"]) - len(study.trials)
    still = f"; {running} running, or interrupted on another machine" if running else ""
    content = study.content
    text = (
        f"{content['type']} for {content['detector']}, {plural(len(study.trials), 'ended trial')} ({listed}){still}. "
        "Pruned: stopped as worse than the median of finished trials at the same epoch."
    )
    lines = [f"<p>{escape(text)}</p>"]
    if study.finished:
        best = study.finished[0]
        value = f"{study.label} {tables.number(best['value'])} at epoch {best['best_epoch']}"
        lines.append(f'<p class="lead">Best: trial {best["number"]}, {escape(value)}.</p>')
    lines.append(_figures(study))
    lines.append(f"<h4>Parameters</h4>{tables.html(_parameters(study))}")
    if study.finished:
        lines.append(f"<h4>Best trials</h4>{tables.html(_best(study))}")
    lines.append(_failures(study))
    if (study.path / BEST).is_file():
        text = escape((study.path / BEST).read_text(encoding="utf-8"))
        lines.append(f"<details><summary>Recipe of the best trial</summary><pre>{text}</pre></details>")
    return "".join(lines)


def _figures(study: Study) -> str:
    values = {trial["number"]: reached(trial) for trial in study.trials}
    held = [value for value in values.values() if value is not None]
    if not held:
        return missing("No trial came to a validation: nothing to draw.")
    finished = [float(trial["value"]) for trial in study.finished]
    cumulative = figures.cumulative(held, len(study.trials), finished, study.label)
    blocks = [
        figure(
            [image(cumulative, f"Share of trials below each {study.label}")],
            "<b>What trials reach</b> Share of all ended trials whose objective came below a value; a pruned trial "
            "counts with what it had reached. Dashed: finished trials alone.",
        )
    ]
    panels = []
    for path, parameter in study.content["space"]["parameters"].items():
        points = [
            (trial["parameters"][path], values[trial["number"]], trial["state"])
            for trial in study.trials
            if path in trial["parameters"]
        ]
        choices, label = parameter.get("choices"), path.removeprefix("model.")
        drawn = figures.parameter(points, choices, parameter.get("log", False), label, study.label)
        panels.append(image(drawn, f"{study.label} against {path}"))
    blocks.append(
        figure(
            panels,
            "<b>By parameter</b> What each trial reached. Filled: finished; open: pruned; crosses at the top: failed.",
        )
    )
    return f'<div class="grid">{"".join(blocks)}</div>'


def _parameters(study: Study) -> tables.Table:
    importance = study.content["importance"]
    best = study.finished[0]["parameters"] if study.finished else {}
    rows = []
    for path, parameter in study.content["space"]["parameters"].items():
        texts = (_range(parameter), _text(best.get(path)), _text(importance.get(path)))
        rows.append(tables.Row(path, "data", tuple(tables.Cell(text) for text in texts)))
    columns = (tables.Column("searched"), tables.Column("best"), tables.Column("importance"))
    note = (
        "Importance: how much of the variance of the objective a parameter explains, by functional ANOVA of a random "
        "forest over finished trials."
        if importance
        else "Importance is estimated at the end of a worker, from ten finished trials."
    )
    return tables.Table("key of the recipe", columns, tuple(rows), (note,))


def _range(parameter: Mapping[str, Any]) -> str:
    if "choices" in parameter:
        return ", ".join(_text(choice) for choice in parameter["choices"])
    return f"{parameter['low']:g} to {parameter['high']:g}{', log' if parameter['log'] else ''}"


def _text(value: Any) -> str:
    if value is None:
        return tables.MISSING
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _best(study: Study) -> tables.Table:
    paths = list(study.content["space"]["parameters"])
    rows = []
    for trial in study.finished[:SHOWN]:
        texts = [
            tables.number(trial["value"]),
            _text(trial["best_epoch"]),
            f"{trial['seconds']:.0f}",
            *(_text(trial["parameters"].get(path)) for path in paths),
        ]
        rows.append(tables.Row(f"trial {trial['number']}", "data", tuple(map(tables.Cell, texts))))
    columns = [
        tables.Column(study.content["objective"]),
        tables.Column("epoch"),
        tables.Column("time", "s"),
        *(tables.Column(path.rpartition(".")[2]) for path in paths),
    ]
    return tables.Table("trial", tuple(columns), tuple(rows))


def _failures(study: Study) -> str:
    reasons: dict[str, list[str]] = {}
    for trial in study.trials:
        if trial["state"] == "failed":
            reasons.setdefault(str(trial["reason"]), []).append(str(trial["number"]))
    if not reasons:
        return ""
    items = "".join(
        f"<dt>{escape(', '.join(_few(numbers)))}</dt><dd>{escape(reason)}</dd>"
        for reason, numbers in reasons.items()
    )
    return f"<details><summary>Failed trials</summary><dl>{items}</dl></details>"


def _few(numbers: Sequence[str]) -> list[str]:
    return list(numbers) if len(numbers) <= SHOWN else [*numbers[:SHOWN], "..."]
