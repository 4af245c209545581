"""Curves of a metric against a setting of the models, as the sweeps of `scores.json` have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from caloforge.report.drawing import Style
from caloforge.report.runs import Run
from caloforge.report.tables import entry_of


@dataclass(frozen=True)
class Curve:
    """Holds points of one run: x, y, the spread of y (0 where there is one repeat) and what was held, if anything."""

    look: Style
    x: tuple[float, ...]
    y: tuple[float, ...]
    spread: tuple[float, ...]
    held: str = ""


def curves(runs: Sequence[Run], stem: str, metric: str = "w1") -> dict[str, list[Curve]]:
    """Returns curves by the swept setting's last name, such as "steps"; a run's second one of a name has its path.

    A curve for which other settings were held says them.

    Args:
        runs: evaluated runs.
        stem: name of the set.
        metric: what is drawn.
    """
    found: dict[str, list[Curve]] = {}
    for run in runs:
        for (path, held), points in _points(run, stem, metric).items():
            if all(isinstance(x, int | float) for x, _ in points):
                x, entries = zip(*sorted(points, key=lambda point: point[0]), strict=True)
                means, spreads = (
                    tuple(float(entry.get(key) or 0.0) for entry in entries) for key in ("mean", "std")
                )
                name = path.rpartition(".")[2]
                taken = any(curve.look == run.look and curve.held == held for curve in found.get(name, []))
                found.setdefault(path if taken else name, []).append(Curve(run.look, x, means, spreads, held))
    return found


def wordy(runs: Sequence[Run], stem: str, metric: str = "w1") -> list[tuple[Run, str]]:
    """Lists runs and settings that were swept over values that are no numbers, and so have no curve."""
    return [
        (run, path)
        for run in runs
        for (path, _), points in _points(run, stem, metric).items()
        if not all(isinstance(x, int | float) for x, _ in points)
    ]


def held_of(one: Mapping[str, Any]) -> str:
    """Returns the values of the settings that were held while another was swept, such as "euler"."""
    return ", ".join(str(value) for value in (one.get("settings") or {}).values())


def _points(run: Run, stem: str, metric: str) -> dict[tuple[str, str], list[tuple[Any, Mapping[str, Any]]]]:
    points: dict[tuple[str, str], list[tuple[Any, Mapping[str, Any]]]] = {}
    for one in run.scores.get("sweep") or []:
        if (entry := entry_of(one, stem, metric)) is not None:
            points.setdefault((one["path"], held_of(one)), []).append((one["value"], entry))
    return points
