"""Figures of histograms: reference and models, with the ratio of each model to the reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from caloforge._lookup import require
from caloforge.report import drawing
from caloforge.report.drawing import FAINT, GREY, INK, Style, Values, plainly
from caloforge.report.histograms import Bins, per_width, ratio

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def compare(
    reference: Bins,
    models: Sequence[tuple[Style, Bins]],
    xlabel: str,
    ylabel: str,
    x: Literal["linear", "log", "symlog"] = "linear",
    y: Literal["linear", "log"] = "linear",
    per: float | None = None,
    legend: str = "",
) -> bytes:
    """Draws histograms of reference and models, and the ratio of each model to the reference, as SVG.

    Args:
        reference: histogram of the reference; drawn grey, with its statistical band.
        models: style and histogram of each model, of the same edges; their bands are in the ratio panel, those of their
            replicas hatched and in both.
        xlabel: label of the axis, with its unit.
        ylabel: label of the entries.
        x: scale of the axis; "symlog" is linear below 1.
        y: scale of the entries.
        per: show entries for each `per` of the axis; None for entries a bin.
        legend: name of the reference in a legend of all; no legend where empty.
    """
    edges = reference.edges
    shown = [
        bins if per is None else per_width(bins, per) for bins in (reference, *(bins for _, bins in models))
    ]
    with drawing.settings():
        figure = drawing.figure(3.7, 3.2)
        main = drawing.axes(figure, 0.64, 1.34, 2.96, 1.78)
        low = drawing.axes(figure, 0.64, 0.48, 2.96, 0.74, sharex=main)
        main.tick_params(labelbottom=False)
        main.stairs(shown[0].counts, edges, fill=True, color=FAINT)
        drawing.step(main, shown[0].counts, edges, color=INK, linewidth=1.1)
        drawing.band(main, shown[0].counts, np.sqrt(shown[0].variances), edges, GREY, 0.6)
        _, _, error = ratio(reference, reference)
        low.axhline(1, color=INK, linewidth=0.8)
        drawing.band(low, np.ones_like(error), error, edges, GREY, 0.45)
        window = (0.0, 2.0) if y == "log" else (0.5, 1.5)
        for (look, bins), drawn in zip(models, shown[1:], strict=True):
            line = {"color": look.colour, "linestyle": (0, look.dashes) if look.dashes else "-"}
            drawing.step(main, drawn.counts, edges, **line)
            drawing.replica_band(main, drawn.counts, drawn.replicas, edges, look.colour)
            value, error, _ = ratio(bins, reference)
            drawing.step(low, value, edges, **line)
            drawing.band(low, value, error, edges, look.colour, 0.2)
            if bins.replicas is not None:
                with np.errstate(divide="ignore", invalid="ignore"):
                    half = np.where(reference.counts > 0, bins.replicas / reference.counts, np.nan)
                drawing.replica_band(low, value, half, edges, look.colour)
            _off_window(low, value, edges, window, look.colour, x != "linear")
        if y == "log":
            main.set_yscale("log")
            main.yaxis.set_minor_formatter(require("matplotlib.ticker", "report").NullFormatter())
            positive = shown[0].counts[shown[0].counts > 0]
            main.set_ylim(bottom=0.3 * float(positive.min()) if positive.size else None)
        else:
            main.set_ylim(bottom=0)
        if x == "log":
            main.set_xscale("log")
        elif x == "symlog":
            main.set_xscale("symlog", linthresh=1, linscale=0.4)
        if x != "linear":
            main.xaxis.set_major_formatter(require("matplotlib.ticker", "report").FuncFormatter(plainly))
        if legend:
            _legend(main, legend, [look for look, _ in models])
        drawing.ratio_frame(main, low, edges, window, (xlabel, ylabel), -0.155)
        return drawing.svg(figure)


def _legend(axes: Axes, reference: str, looks: Sequence[Style]) -> None:
    """Names the reference and the models, above the histograms where there is least in the way."""
    lines, patches = require("matplotlib.lines", "report"), require("matplotlib.patches", "report")
    handles = [patches.Patch(facecolor=FAINT, edgecolor=INK, linewidth=1.1, label=drawing.wrapped(reference))]
    for look in looks:
        line = lines.Line2D([], [], color=look.colour, linestyle=(0, look.dashes) if look.dashes else "-")
        line.set_label(drawing.wrapped(look.label))
        handles.append(line)
    axes.legend(handles=handles, loc="upper right", handlelength=2.2)


def _off_window(
    axes: Axes, value: Values, edges: Values, window: tuple[float, float], colour: str, geometric: bool
) -> None:
    """Marks ratios outside the panel by triangles at its rim."""
    centres = 0.5 * (edges[1:] + edges[:-1])
    if geometric and edges[0] > 0:
        centres = np.sqrt(edges[1:] * edges[:-1])
    for bad, place, marker in ((value > window[1], window[1], "^"), (value < window[0], window[0], "v")):
        if bad.any():
            heights = np.full(int(bad.sum()), place)
            axes.plot(centres[bad], heights, marker, color=colour, markersize=3.5, clip_on=False, zorder=9)
