"""A map of how sure a model is."""

from __future__ import annotations

import numpy as np

from caloforge._lookup import require
from caloforge.report import drawing
from caloforge.report.drawing import FAINT, Values

WRITTEN = 100
"""Bins up to which each has its number written into it."""


def uncertainty_map(first: Values, second: Values, relative: Values, xlabel: str, ylabel: str) -> bytes:
    """Draws relative uncertainties in bins of two quantities, as SVG; bins are drawn with equal sizes.

    Args:
        first: borders along the axis, (E + 1,).
        second: borders upwards, (K + 1,).
        relative: uncertainties, (E, K), 0.01 for one per cent; NaN is grey.
        xlabel: label of the axis, with its unit.
        ylabel: label upwards, likewise.
    """
    per_cent = 100 * relative.T
    top = float(np.nanquantile(per_cent, 0.98)) if np.isfinite(per_cent).any() else 1.0
    with drawing.settings():
        figure = drawing.figure(4.6, 3.6)
        axes = drawing.axes(figure, 0.75, 0.75, 2.95, 2.7)
        colours = require("matplotlib", "report").colormaps["viridis"].with_extremes(bad=FAINT)
        mesh = axes.imshow(
            np.ma.masked_invalid(per_cent),
            origin="lower",
            aspect="auto",
            cmap=colours,
            vmin=0,
            vmax=top or 1.0,
        )
        if per_cent.size <= WRITTEN:
            for (row, column), value in np.ndenumerate(per_cent):
                if np.isfinite(value):
                    colour = "white" if value < 0.6 * top else "black"
                    axes.text(column, row, f"{value:.2g}", ha="center", va="center", color=colour, fontsize=7)
        for axis, borders in ((axes.xaxis, first), (axes.yaxis, second)):
            every = max((len(borders) - 1) // 8, 1)
            places = np.arange(0, len(borders), every)
            axis.set_ticks(places - 0.5, [f"{float(f'{borders[place]:.3g}'):g}" for place in places])
        for label in axes.get_xticklabels():
            label.set(rotation=45, horizontalalignment="right", rotation_mode="anchor")
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel, fontsize=8.5)
        bar = figure.colorbar(mesh, cax=drawing.axes(figure, 3.82, 0.75, 0.14, 2.7))
        bar.set_label("relative uncertainty [%]")
        return drawing.svg(figure)
