"""Figures of curves: settings of models, reliability, logs of trainings."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from caloforge._lookup import require
from caloforge.report import drawing
from caloforge.report.drawing import GREY, INK, Style, Values, floor_line, plain_ticks, plainly, style
from caloforge.report.sweeps import Curve


def sweep(curves: Sequence[Curve], floor: tuple[float, float] | None, xlabel: str, ylabel: str) -> bytes:
    """Draws a metric against a setting of the models, with the floor and its spread, as SVG."""
    with drawing.settings():
        figure = drawing.figure(5.4, 3.6)
        axes = drawing.axes(figure, 0.68, 0.52, 4.58, 2.94)
        floor_line(axes, floor)
        marks = dict(
            zip(dict.fromkeys(curve.held for curve in curves), itertools.cycle("os^Dv"), strict=False)
        )
        for curve in curves:
            axes.errorbar(
                curve.x, curve.y, curve.spread, color=curve.look.colour, dashes=curve.look.dashes or (None, None),
                marker=marks[curve.held], markersize=4, capsize=2,
                label=", ".join(filter(None, (curve.look.label, curve.held))),
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
        axes.legend()
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


def training_curves(training: Training) -> bytes:
    """Draws losses above and validation scores below, against the epoch, as SVG."""
    with drawing.settings():
        parts = [part for part in (training.losses, training.validations) if part]
        figure = drawing.figure(4.6, 0.6 + 1.6 * len(parts))
        panels = [
            drawing.axes(figure, 0.68, 0.5 + 1.6 * (len(parts) - 1 - number), 3.78, 1.5)
            for number in range(len(parts))
        ]
        for panel in panels[:-1]:
            panel.sharex(panels[-1])
            panel.tick_params(labelbottom=False)
        for panel, part in zip(panels, parts, strict=True):
            values = [value for points in part.values() for _, value in points]
            for number, (name, points) in enumerate(part.items()):
                epochs, heights = zip(*points, strict=True)
                look = style(number, name)
                panel.plot(
                    epochs, heights, color=look.colour, dashes=look.dashes or (None, None),
                    marker="o" if part is training.validations else None, markersize=3, label=name,
                )  # fmt: skip
            if min(values) > 0 and max(values) > 3 * min(values):
                panel.set_yscale("log")
                plain_ticks(panel.yaxis)
            if training.best is not None:
                panel.axvline(training.best, color=GREY, linewidth=1, linestyle=":")
            for name, start in training.stages[1:]:
                panel.axvline(start - 0.5, color=INK, linewidth=0.8)
                panel.annotate(
                    name, (start, 1), (3, -3), xycoords=("data", "axes fraction"), textcoords="offset points",
                    va="top", fontsize=8,
                )  # fmt: skip
            panel.legend()
        panels[-1].set_xlabel("epoch")
        panels[-1].xaxis.set_major_locator(require("matplotlib.ticker", "report").MaxNLocator(integer=True))
        return drawing.svg(figure)
