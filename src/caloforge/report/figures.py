"""Figures of events and scores, each returned as the bytes of one image.

Statistical bands: a bin of n entries has variance n; where one event gives many entries (cells), the variance is the
sum over events of the squared number of entries, since cells of one event are not independent. With r and g the bins of
reference and model,

    ratio = g / r,    its error = sqrt(var g) / r,    band of the reference = 1 +- sqrt(var r) / r.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from caloforge._lookup import require
from caloforge.events import EventSource, in_slices
from caloforge.report import drawing
from caloforge.report.drawing import COLOURS, FAINT, GREY, INK, Style, Values, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Bins:
    """Holds a filled histogram: edges (B + 1,), entries (B,) and their variances (B,)."""

    edges: Values
    counts: Values
    variances: Values


@dataclass(frozen=True, eq=False)
class Mean:
    """Holds the mean response, (*shape), and its standard error, in the detector's unit."""

    mean: Values
    error: Values


# Data of figures


def nice_edges(low: float, high: float, whole: bool, bins: int = 40) -> Values:
    """Returns evenly spaced edges over [low, high], at most about `bins`, of a width 1, 2 or 5 x 10^k.

    Args:
        low: smallest value to cover.
        high: largest value to cover.
        whole: whether values are integers; bins then hold the same number of them, edges lie between.
        bins: largest number of bins wanted.
    """
    span = max(high - low, 1e-9)
    power = 10.0 ** math.floor(math.log10(span / bins))
    width = next(step * power for step in (1, 2, 5, 10) if step * power * bins >= span * (1 - 1e-9))
    width = max(width, 1.0) if whole else width
    start = math.floor(low / width) * width - (0.5 if whole else 0.0)
    number = max(1, math.ceil((high - start) / width + (1e-9 if whole else -1e-9)))
    return np.asarray(start + width * np.arange(number + 1))


def growing_edges(top: float, factor: float = 1.33) -> Values:
    """Returns edges between integers, -0.5, 0.5, 1.5, ..., that widen by `factor` where that is more than 1."""
    edges = [-0.5, 0.5]
    width = 1.0
    while edges[-1] < top:
        width = max(width, float(np.round(edges[-1] * (factor - 1))))
        edges.append(edges[-1] + width)
    return np.asarray(edges)


def merged_edges(counts: Values, edges: Values, least: int = 8) -> Values:
    """Leaves out edges from the right until every bin holds `least` entries, so that its ratio says something."""
    kept, held = [float(edges[-1])], 0.0
    for edge, count in zip(edges[-2::-1], counts[::-1], strict=True):
        held += count
        if held >= least:
            kept.append(float(edge))
            held = 0.0
    if kept[-1] != edges[0]:
        kept[max(len(kept) - 1, 1) :] = [float(edges[0])]
    return np.asarray(kept[::-1])


def fill(values: Values, edges: Values) -> Bins:
    """Fills a histogram of independent entries; values outside the edges and NaN are left out."""
    hist = require("hist", "report")
    histogram = hist.Hist(hist.axis.Variable(edges), storage=hist.storage.Double())
    histogram.fill(values[np.isfinite(values)])
    counts = np.asarray(histogram.values(), np.float64)
    return Bins(edges, counts, counts)


def outside(values: Values, edges: Values) -> int:
    """Counts the values a histogram of these edges does not show, NaN among them."""
    return int(np.count_nonzero(~((values >= edges[0]) & (values <= edges[-1]))))


def ratio(model: Bins, reference: Bins) -> tuple[Values, Values, Values]:
    """Returns ratio, its error and the reference's relative error; NaN where the reference is empty."""
    with np.errstate(divide="ignore", invalid="ignore"):
        empty = reference.counts == 0
        value = np.where(empty, np.nan, model.counts / reference.counts)
        error = np.where(empty, np.nan, np.sqrt(model.variances) / reference.counts)
        band = np.where(empty, np.nan, np.sqrt(reference.variances) / reference.counts)
    return value, error, band


def per_width(bins: Bins, width: float) -> Bins:
    """Returns entries for each `width` of the axis, for bins of unequal widths."""
    scale = width / np.diff(bins.edges)
    return Bins(bins.edges, bins.counts * scale, bins.variances * scale**2)


def largest_cell(source: EventSource) -> float:
    """Returns the largest cell content of a source."""
    return max((float(events.responses.max()) for events in in_slices(source) if len(events)), default=0.0)


def cell_spectrum(source: EventSource, edges: Values) -> Bins:
    """Counts cells by content, over all events; variances are those of sums over independent events."""
    counts, variances = np.zeros(len(edges) - 1), np.zeros(len(edges) - 1)
    for events in in_slices(source, 1024):
        cells = events.responses.reshape(len(events), -1)
        row, column = np.nonzero(cells)
        place = np.searchsorted(edges, cells[row, column], side="right") - 1
        inside = (place >= 0) & (place < len(counts))
        flat = row[inside] * len(counts) + place[inside]
        table = np.bincount(flat, minlength=len(events) * len(counts)).reshape(len(events), len(counts))
        counts += table.sum(axis=0)
        variances += (table.astype(np.float64) ** 2).sum(axis=0)
    return Bins(edges, counts, variances)


def mean_response(source: EventSource) -> Mean:
    """Returns the mean response of a source and its standard error, read in slices."""
    rows = len(source)
    total, squares = np.zeros(source.primaries.detector.shape), np.zeros(source.primaries.detector.shape)
    for events in in_slices(source, 1024):
        total += events.responses.sum(axis=0, dtype=np.float64)
        squares += np.einsum("n...,n...->...", *[events.responses.astype(np.float64)] * 2)
    mean = total / rows
    variance = np.maximum(squares / rows - mean**2, 0)
    return Mean(mean, np.sqrt(variance / rows))


def relative_difference(model: Mean, reference: Mean, limit: float = 0.25) -> Values:
    """Returns (model - reference) / reference by cell; NaN where the reference is not known to `limit`."""
    with np.errstate(divide="ignore", invalid="ignore"):
        difference = (model.mean - reference.mean) / reference.mean
        known = (reference.mean > 0) & (reference.error <= limit * reference.mean)
    return np.asarray(np.where(known, difference, np.nan))


def image_of(response: NDArray[np.generic]) -> Values:
    """Returns a response as an image of its first two axes, summed over further ones."""
    return np.asarray(np.asarray(response, np.float64).sum(axis=tuple(range(2, np.ndim(response)))))


# Images


def compare(
    reference: Bins,
    models: Sequence[tuple[Style, Bins]],
    xlabel: str,
    ylabel: str,
    x: Literal["linear", "log", "symlog"] = "linear",
    y: Literal["linear", "log"] = "linear",
    per: float | None = None,
) -> bytes:
    """Draws histograms of reference and models, and the ratio of each model to the reference, as SVG.

    Args:
        reference: histogram of the reference; drawn grey, with its statistical band.
        models: style and histogram of each model, of the same edges; their bands are in the ratio panel.
        xlabel: label of the axis, with its unit.
        ylabel: label of the entries.
        x: scale of the axis; "symlog" is linear below 1.
        y: scale of the entries.
        per: show entries for each `per` of the axis; None for entries a bin.
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
            value, error, _ = ratio(bins, reference)
            drawing.step(low, value, edges, **line)
            drawing.band(low, value, error, edges, look.colour, 0.2)
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
            main.xaxis.set_major_formatter(require("matplotlib.ticker", "report").FuncFormatter(_plainly))
        low.set_ylim(*window)
        low.set_yticks([window[0], 1.0, window[1]])
        low.set_xlim(edges[0], edges[-1])
        low.set_xlabel(xlabel)
        for axes, label in ((main, ylabel), (low, "ratio")):
            axes.set_ylabel(label)
            axes.yaxis.set_label_coords(-0.155, 0.5)
        return drawing.svg(figure)


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


PANEL = 1.2
"""Width of one image of a gallery, in inches."""


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
    bottom, top = min(one.y0 for one in corners), max(one.y1 for one in corners)
    place = figure.add_axes((corners[-1].x1 + 0.1 / across, bottom, 0.12 / across, top - bottom))
    figure.colorbar(shown, cax=place, label=label, **options).minorticks_off()


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
                panel.text(0.04, 0.96, f"Σ {image.sum():,.0f}", bbox=behind, **words)
        _label_images(panels, names, axes_names)
        _colour_bar(figure, shown, [row[-1] for row in panels], unit)
        return drawing.png(figure)


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


def mean_shower(
    reference: Mean,
    models: Sequence[tuple[str, Mean]],
    axes_names: Sequence[str],
    limit: float = 0.25,
) -> bytes:
    """Draws mean responses on one log scale and, below, their relative differences to the reference, as PNG.

    Args:
        reference: mean of the reference.
        models: name and mean of each model.
        axes_names: names of the two axes.
        limit: relative error of the reference's mean from which a cell has no difference, but is grey.
    """
    means = [image_of(one.mean) for one in (reference, *(model for _, model in models))]
    differences = [image_of(relative_difference(model, reference, limit)) for _, model in models]
    seen = np.abs(np.concatenate([one[np.isfinite(one)] for one in differences]))
    reach = min(1.0, max(0.1, math.ceil(10 * float(np.quantile(seen, 0.98))) / 10)) if seen.size else 1.0
    top = float(means[0].max()) or 1.0
    least = max(float(means[0][means[0] > 0].min()) if means[0].any() else 0.1, top / 1e4)
    names = [drawing.wrapped(title) for title in ("GEANT", *(name for name, _ in models))]
    with drawing.settings():
        colours, ticker = require("matplotlib.colors", "report"), require("matplotlib.ticker", "report")
        figure, panels, _ = _image_grid(2, len(means), means[0].shape, _lift(names))
        norm = colours.LogNorm(least, max(top, least * 1.01))
        for panel, mean in zip(panels[0], means, strict=True):
            shown = _show(panel, np.ma.masked_less_equal(mean, 0), norm=norm, cmap=drawing.ink_map())
        marks = [step * 10.0**power for power in range(-12, 12) for step in (1, 3)]
        plain = {
            "format": ticker.FuncFormatter(_plainly),
            "ticks": [mark for mark in marks if least <= mark <= top],
        }
        _colour_bar(figure, shown, panels[0][-1:], "", **plain)
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
        panels[1][0].text(0.72, 0.5, "(model − GEANT)\n/ GEANT", **words)
        return drawing.png(figure)


@dataclass(frozen=True)
class Curve:
    """Holds points of one run: x, y, the spread of y (0 where there is one repeat) and what was held, if anything."""

    look: Style
    x: tuple[float, ...]
    y: tuple[float, ...]
    spread: tuple[float, ...]
    held: str = ""


def _floor_line(axes: Axes, floor: tuple[float, float] | None) -> None:
    if floor is not None:
        mean, spread = floor
        axes.axhspan(max(mean - spread, 0.02 * mean), mean + spread, color=GREY, alpha=0.3, linewidth=0)
        axes.axhline(mean, color=INK, linewidth=1)
        axes.annotate(
            "floor", (1, mean), (-4, 3), xycoords=("axes fraction", "data"), textcoords="offset points",
            ha="right", va="bottom", fontsize=8.5,
        )  # fmt: skip


def _plainly(value: float, _: int | None = None) -> str:
    return f"{value:g}"


def _plain_ticks(axis: Any) -> None:
    """Labels a log axis by plain numbers, 1, 2 and 5 of each decade where there is room."""
    ticker = require("matplotlib.ticker", "report")
    low, high = sorted(axis.get_view_interval())
    decades = math.log10(high / low) if low > 0 else 9.0
    axis.set_major_locator(ticker.LogLocator(10, (1, 2, 5) if decades < 2.2 else (1,)))
    axis.set_major_formatter(ticker.FuncFormatter(_plainly))
    axis.set_minor_formatter(ticker.NullFormatter())


def sweep(curves: Sequence[Curve], floor: tuple[float, float] | None, xlabel: str, ylabel: str) -> bytes:
    """Draws a metric against a setting of the models, with the floor and its spread, as SVG."""
    with drawing.settings():
        figure = drawing.figure(5.4, 3.6)
        axes = drawing.axes(figure, 0.68, 0.52, 4.58, 2.94)
        _floor_line(axes, floor)
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
            axes.xaxis.set_major_formatter(ticker.FuncFormatter(_plainly))
            axes.xaxis.set_minor_locator(ticker.NullLocator())
        axes.set_yscale("log")
        _plain_ticks(axes.yaxis)
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        axes.legend()
        return drawing.svg(figure)


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


MARKS = {"generator": "o", "readout": "^", "yardstick": "X"}
FRONTIERS: Mapping[str, Mapping[str, Any]] = {
    "generator": {"color": INK, "linestyle": "-"},
    "readout": {"color": GREY, "linestyle": (0, (4, 2))},
}
LEGEND_ROWS = 14
"""Runs that a legend has in one column."""

TALLEST = 100.0
"""A value beyond so many times the smallest is shown at the upper edge, with its number."""


def frontier(points: Iterable[Priced]) -> list[Priced]:
    """Returns the points that no other one beats in time and quality, by rising time."""
    best: list[Priced] = []
    for point in sorted(points, key=lambda point: (point.ms, point.value)):
        if not best or point.value < best[-1].value:
            best.append(point)
    return best


def quality_against_time(panels: Sequence[PricePanel], image: Literal["svg", "png"] = "svg") -> bytes:
    """Draws metrics against milliseconds an event, both log: a mark a run and a setting, and the frontiers.

    Where there are more runs than colours, each mark also has the run's number in the legend.

    Args:
        panels: one a metric, side by side.
        image: format of the image.
    """
    found = {point.look: point.kind for panel in panels for point in panel.points}
    runs = dict(sorted(found.items(), key=lambda pair: list(MARKS).index(pair[1])))
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
    _floor_line(axes, panel.floor)
    for kind, options in FRONTIERS.items():
        best = frontier(point for point in shown if point.kind == kind)
        axes.plot([one.ms for one in best], [one.value for one in best], linewidth=1, zorder=3, **options)
    for look in dict.fromkeys(point.look for point in panel.points):
        swept = sorted((one.ms, one.value) for one in shown if one.look == look and one.setting)
        times, values = ([one[column] for one in swept] for column in (0, 1))
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
    _plain_ticks(axes.xaxis)
    _plain_ticks(axes.yaxis)
    axes.set_xlabel("time [ms an event]")
    axes.set_ylabel(panel.ylabel)


def cumulative(values: Sequence[float], total: int, finished: Sequence[float], xlabel: str) -> bytes:
    """Draws the share of trials whose value lies below x, against x on a log scale, as SVG.

    Args:
        values: what each trial reached, where it reached anything.
        total: number of trials; those without a value count and never come below.
        finished: values of the finished trials, drawn dashed as a share of themselves.
        xlabel: label of the values with their unit.
    """
    with drawing.settings():
        figure = drawing.figure(5.4, 3.6)
        axes = drawing.axes(figure, 0.68, 0.52, 4.58, 2.94)
        right = 1.08 * max(values)
        for drawn, among, options in (
            (
                finished,
                len(finished),
                {"color": GREY, "linestyle": (0, (4, 2)), "label": f"finished ({len(finished)})"},
            ),
            (values, total, {"color": COLOURS[0], "linewidth": 2, "label": f"all ended ({total})"}),
        ):
            if drawn:
                ordered = sorted(drawn)
                shares = [number / among for number in range(len(ordered) + 1)]
                axes.step([*ordered, right], [*shares[1:], shares[-1]], where="post", **options)
                axes.vlines(
                    ordered[0], 0, shares[1], color=options["color"], linestyle=options.get("linestyle", "-")
                )
        axes.set_xscale("log")
        axes.set_xlim(min(values) / 1.08, right)
        axes.set_ylim(0, 1.03)
        _plain_ticks(axes.xaxis)
        axes.set_xlabel(xlabel)
        axes.set_ylabel("share of trials below")
        axes.legend(loc="upper left")
        return drawing.svg(figure)


def parameter(
    points: Sequence[tuple[Any, float | None, str]],
    choices: Sequence[Any] | None,
    log: bool,
    xlabel: str,
    ylabel: str,
) -> bytes:
    """Draws what trials reached against one of their parameters, as SVG.

    Args:
        points: value of the parameter, what the trial reached (None: nothing) and its state.
        choices: the values, where they are a list of choices.
        log: whether the parameter has a logarithmic range.
        xlabel: label of the parameter.
        ylabel: label of what is reached.
    """
    with drawing.settings():
        figure = drawing.figure(3.7, 3.0)
        axes = drawing.axes(figure, 0.68, 0.52, 2.9, 2.36)
        transform = axes.get_xaxis_transform()
        for value, height, state in points:
            place = list(choices).index(value) if choices else value
            if height is None or state == "failed":
                axes.plot(place, 0.97, "x", color=COLOURS[1], markersize=5, transform=transform)
                continue
            face = COLOURS[0] if state == "finished" else "white"
            axes.plot(place, height, "o", color=COLOURS[0], markerfacecolor=face, markersize=5, zorder=4)
        if choices:
            axes.set_xticks(range(len(choices)), [str(choice) for choice in choices])
            axes.set_xlim(-0.6, len(choices) - 0.4)
        elif log:
            axes.set_xscale("log")
        axes.set_yscale("log")
        axes.margins(0.06, 0.12)
        _plain_ticks(axes.yaxis)
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
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
                _plain_ticks(panel.yaxis)
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
        _plain_ticks(axes.xaxis)
        axes.set_xlabel(label)
        return drawing.svg(figure)
