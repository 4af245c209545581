"""Quality and time of every run and of every setting of its sweeps, as `scores.json` has them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from caloforge.io.scores import Scores, SweepPoint, Timing
from caloforge.report.drawing import Style
from caloforge.report.runs import Run
from caloforge.report.sweeps import settings_of
from caloforge.report.tables import column_of, entry_of, floor_of, kind_of

METRICS = ("w1", "conditional_w1", "mae_c")
"""Metrics that are drawn against time; smaller is better in all."""


@dataclass(frozen=True)
class Priced:
    """Holds one model at one setting: its quality and what it costs.

    Attributes:
        look: how the run is drawn.
        kind: "generator", "readout" or "yardstick".
        ms: milliseconds an event.
        value: the metric, smaller is better.
        spread: over repeats; 0 where there is one.
        setting: the swept value as text; empty for the run as scored.
    """

    look: Style
    kind: str
    ms: float
    value: float
    spread: float = 0.0
    setting: str = ""


@dataclass(frozen=True)
class PricePanel:
    """Holds the points of one metric, its floor with its spread, and the label of the axis with the unit."""

    points: tuple[Priced, ...]
    floor: tuple[float, float] | None
    ylabel: str


def milliseconds(timing: Timing | None) -> float | None:
    """Returns the median of milliseconds an event, or None where no time was taken."""
    return None if timing is None else timing.ms_per_event.median


def priced(runs: Sequence[Run], stem: str, metric: str) -> list[Priced]:
    """Returns the points of one metric on one set: each timed run, then each timed setting of its sweeps.

    Args:
        runs: evaluated runs.
        stem: name of the set.
        metric: one of `METRICS`, or another of which less is better.
    """
    points = []
    for run in runs:
        settings: list[tuple[str, float | None, Scores | SweepPoint]] = [
            ("", milliseconds(run.scores.timing), run.scores),
            *(
                (f"{settings_of(point)} {point.value}".strip(), point.ms_per_event.median, point)
                for point in run.scores.sweep
            ),
        ]
        for setting, ms, scores in settings:
            entry = entry_of(scores, stem, metric)
            if ms is not None and entry is not None and entry.mean is not None:
                kind = kind_of(run.scores)
                points.append(Priced(run.look, kind, ms, entry.mean, entry.std or 0.0, setting))
    return points


def panels(runs: Sequence[Run], stem: str) -> list[PricePanel]:
    """Returns a panel for each of `METRICS` that any timed run has a number for on a set."""
    scores = [run.scores for run in runs]
    return [
        PricePanel(
            tuple(points),
            floor_of(scores, stem, metric),
            column_of(metric, runs[0].scores.detector).label,
        )
        for metric in METRICS
        if (points := priced(runs, stem, metric))
    ]


def frontier(points: Iterable[Priced]) -> list[Priced]:
    """Returns the points that no other one beats in time and quality, by rising time."""
    best: list[Priced] = []
    for point in sorted(points, key=lambda point: (point.ms, point.value)):
        if not best or point.value < best[-1].value:
            best.append(point)
    return best
