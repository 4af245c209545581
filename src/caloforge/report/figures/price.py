"""The figure of quality against time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from caloforge._lookup import require
from caloforge.report import drawing
from caloforge.report.drawing import COLOURS, GREY, INK, Style, floor_line, plain_ticks
from caloforge.report.pareto import PricePanel, frontier

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKS = {"generator": "o", "readout": "^", "yardstick": "X"}


FRONTIERS: Mapping[str, Mapping[str, Any]] = {
    "generator": {"color": INK, "linestyle": "-"},
    "readout": {"color": GREY, "linestyle": (0, (4, 2))},
}


LEGEND_ROWS = 14
"""Runs that a legend has in one column."""


TALLEST = 100.0
"""A value beyond so many times the smallest is shown at the upper edge, with its number."""


def quality_against_time(panels: Sequence[PricePanel], image: Literal["svg", "png"] = "svg") -> bytes:
    """Draws metrics against milliseconds an event, both log: a mark a run and a setting, and the frontiers.

    Where there are more runs than colours, each mark also has the run's number in the legend.

    Args:
        panels: one a metric, side by side.
        image: format of the image.
    """
    kinds = {point.look: point.kind for panel in panels for point in panel.points}
    runs = dict(sorted(kinds.items(), key=lambda pair: list(MARKS).index(pair[1])))
    numbers = {look: str(number) for number, look in enumerate(runs, 1)} if len(runs) > len(COLOURS) else {}
    lines = require("matplotlib.lines", "report")
    columns = 1 + (len(runs) > LEGEND_ROWS)
    width, height, gap, legend = 3.5, 3.3, 0.75, 2.35 * columns
    with drawing.settings():
        figure = drawing.figure(0.7 + len(panels) * (width + gap) - gap + legend, height + 0.7)
        for number, panel in enumerate(panels):
            axes = drawing.axes(figure, 0.7 + number * (width + gap), 0.52, width, height)
            _price_panel(axes, panel, numbers)
        handles = [
            lines.Line2D([], [], color=look.colour, marker=MARKS[kind], linestyle="none", markersize=7,
                markeredgecolor="white", label=drawing.wrapped(f"{numbers.get(look, '')} {look.label}".strip(), 30))
            for look, kind in runs.items()
        ]  # fmt: skip
        handles += [
            lines.Line2D([], [], linewidth=1, label=f"best {kind}s", **options)
            for kind, options in FRONTIERS.items()
            if kind in runs.values()
        ]
        across, up = figure.get_size_inches()
        place = (1 - (legend - 0.05) / across, (0.52 + height) / up)
        figure.legend(
            handles=handles,
            loc="upper left",
            bbox_to_anchor=place,
            borderaxespad=0,
            handletextpad=0.3,
            ncols=columns,
        )
        return drawing.svg(figure) if image == "svg" else drawing.png(figure)


def _price_panel(axes: Axes, panel: PricePanel, numbers: Mapping[Style, str]) -> None:
    top = TALLEST * min(point.value for point in panel.points)
    shown = [point for point in panel.points if point.value <= top]
    floor_line(axes, panel.floor)
    for kind, options in FRONTIERS.items():
        best = frontier(point for point in shown if point.kind == kind)
        axes.plot([dot.ms for dot in best], [dot.value for dot in best], linewidth=1, zorder=3, **options)
    for look in dict.fromkeys(point.look for point in panel.points):
        swept = sorted((dot.ms, dot.value) for dot in shown if dot.look == look and dot.setting)
        times, values = ([dot[column] for dot in swept] for column in (0, 1))
        axes.plot(times, values, color=look.colour, linewidth=2.5, alpha=0.25)
    for point in panel.points:
        beyond = point.value > top
        large = not point.setting
        axes.errorbar(
            point.ms, min(point.value, top), 0 if beyond else point.spread, color=point.look.colour,
            marker=MARKS[point.kind], markersize=8 if large else 4.5, linestyle="none", markeredgecolor="white",
            markeredgewidth=0.7, elinewidth=1, capsize=0, zorder=6 if large else 5,
        )  # fmt: skip
        value = f"{point.value:,.0f}" if point.value < 1e6 else f"{point.value:.0e}"
        text = f"↑ {value}" if beyond else point.setting or numbers.get(point.look, "")
        axes.annotate(
            text, (point.ms, min(point.value, top)), (4, -3), textcoords="offset points", fontsize=7, ha="left",
            va="top", color=point.look.colour, zorder=7, fontweight="bold" if large else "normal",
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.margins(0.09)
    plain_ticks(axes.xaxis)
    plain_ticks(axes.yaxis)
    axes.set_xlabel("time [ms an event]")
    axes.set_ylabel(panel.ylabel)
