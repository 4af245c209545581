"""Figures of curves: settings of models, reliability, logs of trainings."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from caloforge._lookup import require
from caloforge.report import drawing
from caloforge.report.drawing import GREY, INK, Style, Values, floor_line, plain_ticks, plainly, style
from caloforge.report.sweeps import Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def sweep(curves: Sequence[Curve], floor: tuple[float, float] | None, xlabel: str, ylabel: str) -> bytes:
    """Draws a metric against a setting of the models, with the floor and its spread, as SVG."""
    with drawing.settings():
        figure = drawing.figure(5.4, 3.6 + 0.17 * len(curves))
        axes = drawing.axes(figure, 0.68, 0.52, 4.58, 2.94)
        floor_line(axes, floor)
        marks = dict(
            zip(dict.fromkeys(curve.settings for curve in curves), itertools.cycle("os^Dv"), strict=False)
        )
        for curve in curves:
            axes.errorbar(
                curve.x, curve.y, curve.spread, color=curve.look.colour, dashes=curve.look.dashes or (None, None),
                marker=marks[curve.settings], markersize=4, capsize=2,
                label=", ".join(filter(None, (curve.look.label, curve.settings))),
            )  # fmt: skip
        ticks = sorted({value for curve in curves for value in curve.x})
        if all(value > 0 for value in ticks):
            ticker = require("matplotlib.ticker", "report")
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(ticker.FixedLocator(ticks))
            axes.xaxis.set_major_formatter(ticker.FuncFormatter(plainly))
            axes.xaxis.set_minor_locator(ticker.NullLocator())
        axes.set_yscale("log")
        plain_ticks(axes.yaxis)
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.01), borderaxespad=0, ncols=1, fontsize=8)
        return drawing.svg(figure)


@dataclass(frozen=True, eq=False)
class Reliability:
    """Observed fractions against predicted probabilities, with their errors, (B,) each."""

    look: Style
    predicted: Values
    observed: Values
    error: Values


def reliability(curves: Sequence[Reliability], xlabel: str, ylabel: str) -> bytes:
    """Draws how often what was predicted with some probability happened, and the difference, as SVG."""
    with drawing.settings():
        figure = drawing.figure(5.4, 5.0)
        axes = drawing.axes(figure, 0.68, 1.85, 4.58, 3.0)
        lower = drawing.axes(figure, 0.68, 0.52, 4.58, 1.2, sharex=axes)
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1)
        lower.axhline(0, color=GREY, linewidth=1)
        for curve in curves:
            look: dict[str, Any] = {"color": curve.look.colour, "dashes": curve.look.dashes or (None, None)}
            look |= {"marker": "o", "markersize": 4, "capsize": 2}
            axes.errorbar(curve.predicted, curve.observed, curve.error, label=curve.look.label, **look)
            lower.errorbar(curve.predicted, curve.observed - curve.predicted, curve.error, **look)
        axes.tick_params(labelbottom=False)
        axes.set_ylabel(ylabel)
        lower.set_ylabel("difference")
        lower.set_xlabel(xlabel)
        axes.legend()
        return drawing.svg(figure)


@dataclass(frozen=True)
class Training:
    """Holds the columns of a log: epochs through all stages, and each column's points (epoch, value)."""

    losses: Mapping[str, tuple[tuple[float, float], ...]]
    validations: Mapping[str, tuple[tuple[float, float], ...]]
    stages: tuple[tuple[str, float], ...] = ()
    best: float | None = None


LEGEND = 1.75
"""Width of a legend beside its axes, in inches."""


def _legend_beside(axes: Axes) -> None:
    """Puts the legend to the right of axes, where it covers no curve."""
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.02), borderaxespad=0, handlelength=1.6, fontsize=8)


def training_curves(training: Training) -> bytes:
    """Draws losses above and validation scores below, against the epoch through all stages, as SVG."""
    parts = {"loss": training.losses, "validation": training.validations}
    parts = {name: part for name, part in parts.items() if part}
    width, height, gap = 3.78, 1.5, 0.12
    with drawing.settings():
        ends = [
            max((epoch for points in part.values() for epoch, _ in points), default=1)
            for part in parts.values()
        ]
        rows = stage_rows(training.stages, max(ends, default=1.0), width) if len(training.stages) > 1 else []
        lift = 0.1 + 0.15 * (max(rows, default=-1) + 1)
        figure = drawing.figure(0.72 + width + LEGEND, 0.5 + (height + gap) * len(parts) + lift)
        panels = [
            drawing.axes(figure, 0.68, 0.5 + (height + gap) * (len(parts) - 1 - number), width, height)
            for number in range(len(parts))
        ]
        for panel in panels[:-1]:
            panel.sharex(panels[-1])
            panel.tick_params(labelbottom=False)
        for panel, (label, part) in zip(panels, parts.items(), strict=True):
            values = [value for points in part.values() for _, value in points]
            for number, (name, points) in enumerate(part.items()):
                epochs, heights = zip(*points, strict=True)
                look = style(number, name.removeprefix("validation_"))
                panel.plot(
                    epochs, heights, color=look.colour, dashes=look.dashes or (None, None),
                    marker="o" if part is training.validations or len(epochs) == 1 else None, markersize=3,
                    label=look.label,
                )  # fmt: skip
            if min(values) > 0 and max(values) > 3 * min(values):
                panel.set_yscale("log")
                plain_ticks(panel.yaxis)
            panel.set_ylabel(label)
            panel.yaxis.set_label_coords(-0.135, 0.5)
            if training.best is not None:
                panel.axvline(training.best, color=GREY, linewidth=1, linestyle=":")
            for _, start in training.stages[1:]:
                panel.axvline(start - 0.5, color=INK, linewidth=0.8)
            if len(part) > 1:
                _legend_beside(panel)
        for (name, start), row in zip(training.stages, rows, strict=False):
            panels[0].annotate(
                name, (start - 0.5, 1), (1, 3 + 10.8 * row), xycoords=("data", "axes fraction"),
                textcoords="offset points", fontsize=8, annotation_clip=False,
            )  # fmt: skip
        panels[-1].set_xlim(0.5, max(ends, default=1.0) + 0.5)
        panels[-1].set_xlabel("epoch")
        panels[-1].xaxis.set_major_locator(require("matplotlib.ticker", "report").MaxNLocator(integer=True))
        return drawing.svg(figure)


def stage_rows(stages: Sequence[tuple[str, float]], end: float, width: float) -> list[int]:
    """Places the names of stages above their beginnings in as few rows as leave none over another.

    Args:
        stages: name and first epoch of each, in order.
        end: the last epoch.
        width: of the axes, in inches.

    Returns:
        the row of each name, 0 the lowest.
    """
    free: list[float] = []
    rows = []
    for name, start in stages:
        left = (start - 0.5) / max(end, 1.0) * width
        row = next((number for number, right in enumerate(free) if right <= left), len(free))
        free[row : row + 1] = [left + 0.075 * len(name) + 0.05]
        rows.append(row)
    return rows
