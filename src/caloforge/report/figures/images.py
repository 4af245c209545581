"""Figures of responses as images: single events side by side, and means with their differences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from caloforge._lookup import require
from caloforge.report import drawing
from caloforge.report.drawing import FAINT, INK, Values, plainly
from caloforge.report.histograms import Mean, relative_difference

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL = 1.2
"""Width of one image of a gallery, in inches."""


def image_of(response: NDArray[np.generic]) -> Values:
    """Returns a response as an image of its first two axes, summed over further ones."""
    return np.asarray(np.asarray(response, np.float64).sum(axis=tuple(range(2, np.ndim(response)))))


def gallery(
    rows: Sequence[Sequence[NDArray[np.generic]]],
    titles: Sequence[str],
    axes_names: Sequence[str],
    unit: str,
) -> bytes:
    """Draws responses side by side on one common log colour scale, as PNG.

    Args:
        rows: one row a shot, each one response a column, in cells along two axes (further ones are summed).
        titles: names of the columns, the reference first.
        axes_names: names of the two axes.
        unit: unit of a cell's content.
    """
    images = [[image_of(response) for response in row] for row in rows]
    every = np.stack([image for row in images for image in row])
    top = float(every.max()) or 1.0
    least = max(float(every[every > 0].min()) if (every > 0).any() else 1.0, top / 1e4)
    names = [drawing.wrapped(title) for title in titles]
    with drawing.settings():
        figure, panels, _ = _image_grid(len(rows), len(titles), every.shape[1:], _lift(names))
        norm = require("matplotlib.colors", "report").LogNorm(least, max(top, least * 10))
        for row, ours in zip(images, panels, strict=True):
            for image, panel in zip(row, ours, strict=True):
                shown = _show(panel, np.ma.masked_less_equal(image, 0), norm=norm, cmap=drawing.ink_map())
                words: dict[str, Any] = {
                    "color": "white",
                    "fontsize": 8,
                    "va": "top",
                    "transform": panel.transAxes,
                }
                behind = {"facecolor": "black", "alpha": 0.55, "linewidth": 0, "pad": 1}
                # right of the ticks, which would look like a minus
                panel.text(0.07, 0.96, f"Σ {image.sum():,.0f}", bbox=behind, **words)
        _label_images(panels, names, axes_names)
        plain = require("matplotlib.ticker", "report").FuncFormatter(plainly)
        _colour_bar(figure, shown, [row[-1] for row in panels], unit, format=plain)
        return drawing.png(figure)


def mean_shower(
    reference: Mean,
    models: Sequence[tuple[str, Mean]],
    axes_names: Sequence[str],
    unit: str,
    limit: float = 0.25,
    reference_name: str = "GEANT",
) -> bytes:
    """Draws mean responses on one log scale and, below, their relative differences to the reference, as PNG.

    Args:
        reference: mean of the reference.
        models: name and mean of each model.
        axes_names: names of the two axes.
        unit: unit of a cell's content.
        limit: relative error of the reference's mean from which a cell has no difference, but is grey.
        reference_name: what the reference is called.
    """
    means = [image_of(values.mean) for values in (reference, *(model for _, model in models))]
    differences = [image_of(relative_difference(model, reference, limit)) for _, model in models]
    seen = np.abs(np.concatenate([values[np.isfinite(values)] for values in differences]))
    reach = min(1.0, max(0.1, math.ceil(10 * float(np.quantile(seen, 0.98))) / 10)) if seen.size else 1.0
    top = float(means[0].max()) or 1.0
    least = max(float(means[0][means[0] > 0].min()) if means[0].any() else 0.1, top / 1e4)
    names = [drawing.wrapped(title) for title in (reference_name, *(name for name, _ in models))]
    with drawing.settings():
        colours, ticker = require("matplotlib.colors", "report"), require("matplotlib.ticker", "report")
        figure, panels, _ = _image_grid(2, len(means), means[0].shape, _lift(names))
        norm = colours.LogNorm(least, max(top, least * 1.01))
        for panel, mean in zip(panels[0], means, strict=True):
            shown = _show(panel, np.ma.masked_less_equal(mean, 0), norm=norm, cmap=drawing.ink_map())
        marks = [step * 10.0**power for power in range(-12, 12) for step in (1, 3)]
        plain = {
            "format": ticker.FuncFormatter(plainly),
            "ticks": [mark for mark in marks if least <= mark <= top],
        }
        _colour_bar(figure, shown, panels[0][-1:], unit, **plain)
        for panel, difference in zip(panels[1][1:], differences, strict=True):
            panel.set_facecolor(FAINT)
            panel.tick_params(color=INK)
            shown = _show(panel, np.ma.masked_invalid(difference), cmap="RdBu_r", vmin=-reach, vmax=reach)
        percent = ticker.PercentFormatter(1, 0)
        _colour_bar(figure, shown, panels[1][-1:], "", extend="both", format=percent)
        _label_images(panels, names, axes_names)
        for panel in (panels[0][0], panels[1][1]):
            panel.tick_params(labelleft=True)
        panels[1][0].set_axis_off()
        words: dict[str, Any] = {
            "ha": "right",
            "va": "center",
            "fontsize": 8.5,
            "transform": panels[1][0].transAxes,
        }
        difference_of = f"(model − {reference_name})\n/ {reference_name}"
        if len(difference_of) > 40:  # a long name does not fit twice
            difference_of = "relative\ndifference"
        panels[1][0].text(0.72, 0.5, difference_of, **words)
        return drawing.png(figure)


def _image_grid(
    rows: int, columns: int, shape: tuple[int, ...], lift: float
) -> tuple[Figure, list[list[Axes]], float]:
    """Lays out rows of equal images with room for titles, labels and a colour bar at the right.

    Args:
        rows: number of rows.
        columns: number of columns.
        shape: cells of an image along its two axes.
        lift: height of the titles, in inches.

    Returns:
        the figure, its axes by row and column, and the height of an image in inches.
    """
    height = PANEL * min(max(shape[1] / shape[0], 0.5), 1.6)
    figure = drawing.figure(0.55 + (PANEL + 0.1) * columns + 0.85, lift + (height + 0.1) * rows + 0.42)
    panels = []
    for i in range(rows):
        bottom = 0.45 + (height + 0.1) * (rows - 1 - i)
        row = [drawing.axes(figure, 0.55 + (PANEL + 0.1) * j, bottom, PANEL, height) for j in range(columns)]
        for j, panel in enumerate(row):
            panel.set_facecolor("black")
            panel.locator_params(nbins=3)
            panel.tick_params(length=2.5, color="white", labelbottom=i == rows - 1, labelleft=j == 0)
        panels.append(row)
    return figure, panels, height


def _colour_bar(figure: Figure, shown: Any, panels: Sequence[Axes], label: str, **options: Any) -> None:
    """Puts a colour bar beside the last of some panels, as high as all of them."""
    corners = [panel.get_position() for panel in panels]
    across, _ = figure.get_size_inches()
    bottom, top = min(corner.y0 for corner in corners), max(corner.y1 for corner in corners)
    place = figure.add_axes((corners[-1].x1 + 0.1 / across, bottom, 0.12 / across, top - bottom))
    bar = figure.colorbar(shown, cax=place, **options)
    bar.set_label(label, fontsize=8.5)
    bar.minorticks_off()


def _show(panel: Axes, image: Any, **options: Any) -> Any:
    """Draws an image with its first axis to the right and its second upwards."""
    return panel.imshow(image.T, origin="lower", aspect="auto", **options)


def _lift(names: Sequence[str]) -> float:
    """Returns the height of titles, in inches, by their lines."""
    return 0.12 + 0.16 * max(name.count("\n") + 1 for name in names)


def _label_images(panels: Sequence[Sequence[Axes]], names: Sequence[str], axes_names: Sequence[str]) -> None:
    for panel, name in zip(panels[0], names, strict=True):
        panel.set_title(name, fontsize=8.5, pad=4)
    for panel in panels[-1]:
        panel.set_xlabel(f"{axes_names[0]} [cells]", fontsize=8.5)
    for row in panels:
        row[0].set_ylabel(f"{axes_names[1]} [cells]", fontsize=8.5)
