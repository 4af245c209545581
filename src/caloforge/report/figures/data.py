"""Figures of the data themselves: features and channels of the particles, and the map of the features."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from caloforge._lookup import require
from caloforge.report import drawing
from caloforge.report.drawing import COLOURS, GREY, Values, plain_ticks, style
from caloforge.report.histograms import fill, nice_edges

ACROSS = 3
"""Panels side by side."""


@dataclass(frozen=True, eq=False)
class Quantity:
    """Holds one number of every event, by the name of the set, and its label with the unit."""

    label: str
    values: Mapping[str, Values]
    log: bool = False


def histograms(quantities: Sequence[Quantity]) -> bytes:
    """Draws a panel a quantity with one line a set, each normalised to its events, as SVG.

    Values beyond the 0.5 % on either side of all sets together are left out of the panel, not out of the norm.
    """
    rows = math.ceil(len(quantities) / ACROSS)
    with drawing.settings():
        figure = drawing.figure(0.3 + 2.9 * ACROSS, 0.35 + 2.1 * rows)
        for number, quantity in enumerate(quantities):
            across, down = number % ACROSS, number // ACROSS
            axes = drawing.axes(figure, 0.55 + 2.9 * across, 0.3 + 2.1 * (rows - 1 - down) + 0.35, 2.45, 1.55)
            edges = _edges(quantity)
            for line, (name, values) in enumerate(quantity.values.items()):
                look = style(line, name)
                dashes = {"linestyle": (0, look.dashes) if look.dashes else "-"}
                bins = fill(values, edges)
                drawing.step(
                    axes, bins.counts / max(len(values), 1), edges, color=look.colour, label=name, **dashes
                )
            if quantity.log:
                axes.set_xscale("log")
            axes.set_yscale("log")
            axes.yaxis.set_minor_formatter(require("matplotlib.ticker", "report").NullFormatter())
            axes.set_xlabel(quantity.label)
            axes.set_xlim(edges[0], edges[-1])
            if across == 0:
                axes.set_ylabel("share of events")
            if number == 0:
                axes.legend()
        return drawing.svg(figure)


def _edges(quantity: Quantity) -> Values:
    together = np.concatenate([values[np.isfinite(values)] for values in quantity.values.values()])
    if quantity.log:
        together = together[together > 0]
    low, high = (float(edge) for edge in np.quantile(together, (0.005, 0.995)))
    if quantity.log:
        return np.geomspace(low, max(high, 1.01 * low), 41)
    margin = (high - low) / 40 if high > low else 0.5
    return nice_edges(low - margin, high + margin, whole=False)


def embedding(points: Values, kinds: Sequence[str], shown: int = 6) -> bytes:
    """Draws a map of events in the plane, coloured by kind, as PNG.

    Args:
        points: places, (N, 2), without unit.
        kinds: kind of each event, such as the particle's name.
        shown: the most frequent kinds that get a colour; the others are grey.
    """
    names, counts = np.unique(np.asarray(kinds), return_counts=True)
    frequent = [str(names[i]) for i in np.argsort(-counts, kind="stable")][: min(shown, len(COLOURS))]
    labels = np.asarray(kinds)
    with drawing.settings():
        figure = drawing.figure(5.6, 4.2)
        axes = drawing.axes(figure, 0.15, 0.15, 3.9, 3.9)
        others = ~np.isin(labels, frequent)
        groups = [("others", others, GREY)] if others.any() else []
        groups += [(name, labels == name, COLOURS[number]) for number, name in enumerate(frequent)]
        for name, rows, colour in groups:
            x, y = points[rows].T
            axes.scatter(x, y, s=4, color=colour, linewidths=0, label=f"{name} ({rows.sum():,})")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), markerscale=3, handletextpad=0.2)
        return drawing.png(figure)


def particle_mix(names: Sequence[str], counts: Sequence[int], label: str) -> bytes:
    """Draws how many events each particle type has, as SVG."""
    with drawing.settings():
        figure = drawing.figure(4.6, 0.7 + 0.21 * len(names))
        axes = drawing.axes(figure, 0.85, 0.5, 3.65, 0.1 + 0.21 * len(names))
        places = np.arange(len(names))
        axes.barh(places, counts, color=GREY, height=0.72)
        axes.set_yticks(places, names)
        axes.invert_yaxis()
        axes.set_xscale("log")
        axes.set_xlim(0.6, max(counts, default=1) * 15)
        for place, count in zip(places, counts, strict=True):
            share = 100 * count / max(sum(counts), 1)
            axes.annotate(
                f"{count:,}  ({share:.1f} %)", (count, place), (3, 0), textcoords="offset points", va="center",
                fontsize=8,
            )  # fmt: skip
        axes.tick_params(axis="y", length=0)
        plain_ticks(axes.xaxis)
        axes.set_xlabel(label)
        return drawing.svg(figure)
