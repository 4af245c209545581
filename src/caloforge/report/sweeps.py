"""Curves of a metric against a setting of the models, as the sweeps of `scores.json` have them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from caloforge.io.scores import Score, SweepPoint
from caloforge.report.drawing import Style
from caloforge.report.runs import Run
from caloforge.report.tables import entry_of


@dataclass(frozen=True)
class Curve:
    """Holds points of one run: x, y, the spread of y (0 where there is one repeat) and what else was set."""

    look: Style
    x: tuple[float, ...]
    y: tuple[float, ...]
    spread: tuple[float, ...]
    settings: str = ""


def curves(runs: Sequence[Run], stem: str, metric: str = "w1") -> dict[str, list[Curve]]:
    """Returns curves by the swept setting's last name, such as "steps"; a run's second one of a name has its path.

    A curve for which other settings were held says them.

    Args:
        runs: evaluated runs.
        stem: name of the set.
        metric: what is drawn.
    """
    by_name: dict[str, list[Curve]] = {}
    for run in runs:
        for (path, settings), points in _points(run, stem, metric).items():
            if all(isinstance(x, int | float) for x, _ in points):
                x, entries = zip(*sorted(points, key=lambda point: point[0]), strict=True)
                means = tuple(entry.mean or 0.0 for entry in entries)
                spreads = tuple(entry.std or 0.0 for entry in entries)
                name = path.rpartition(".")[2]
                there = by_name.get(name, [])
                taken = any(curve.look == run.look and curve.settings == settings for curve in there)
                curve = Curve(run.look, x, means, spreads, settings)
                by_name.setdefault(path if taken else name, []).append(curve)
    return by_name


def wordy(runs: Sequence[Run], stem: str, metric: str = "w1") -> list[tuple[Run, str]]:
    """Lists runs and settings that were swept over values that are no numbers, and so have no curve."""
    return [
        (run, path)
        for run in runs
        for (path, _), points in _points(run, stem, metric).items()
        if not all(isinstance(x, int | float) for x, _ in points)
    ]


def settings_of(point: SweepPoint) -> str:
    """Returns the values of the settings that went along while another was swept, such as "euler"."""
    return ", ".join(point.settings.values())


def _points(run: Run, stem: str, metric: str) -> dict[tuple[str, str], list[tuple[Any, Score]]]:
    points: dict[tuple[str, str], list[tuple[Any, Score]]] = {}
    for point in run.scores.sweep:
        if (entry := entry_of(point, stem, metric)) is not None:
            points.setdefault((point.path, settings_of(point)), []).append((point.value, entry))
    return points
