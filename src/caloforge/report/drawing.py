"""What all figures share: colours, styles, fonts, and how a figure becomes the bytes of an image.

Reference events are black and grey everywhere; models have the colours and dashes of `style`, which differ also
without colour vision (Okabe and Ito). Nothing here touches matplotlib's global state: figures are made outside
pyplot, settings hold for one figure.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from caloforge._lookup import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Values = NDArray[np.float64]

INK, GREY, FAINT = "#1a1a1a", "#8c8c8c", "#d9d9d9"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ((), (5, 1.6), (1.2, 1.2), (7, 1.6, 1.2, 1.6))

_SETTINGS: Mapping[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    "axes.labelsize": 9.5,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.unicode_minus": True,
    "figure.dpi": 100,
    "figure.facecolor": "white",
    "image.interpolation": "nearest",
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "mathtext.fontset": "dejavusans",
    "patch.linewidth": 1.4,
    "svg.fonttype": "path",
    "svg.hashsalt": "caloforge",
    "text.color": INK,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "xtick.top": True,
    "ytick.right": True,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
}


@dataclass(frozen=True)
class Style:
    """How one model is drawn on the whole page."""

    label: str
    colour: str
    dashes: tuple[float, ...] = ()


def style(number: int, label: str) -> Style:
    """Returns the style of the run of that number; dashes change with every colour, and again after six."""
    return Style(
        label, COLOURS[number % len(COLOURS)], DASHES[(number + number // len(COLOURS)) % len(DASHES)]
    )


def figure(width: float, height: float) -> Figure:
    """Returns an empty figure of a size in inches."""
    matplotlib = require("matplotlib.figure", "report")
    empty: Figure = matplotlib.Figure(figsize=(width, height))
    return empty


def axes(figure: Figure, left: float, bottom: float, width: float, height: float, **options: Any) -> Axes:
    """Adds axes at a place given in inches: a layout engine would draw every figure twice more."""
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up), **options)


def settings() -> Any:
    """Returns the context that holds fonts, colours and ticks for one figure."""
    return require("matplotlib", "report").rc_context(dict(_SETTINGS))


def svg(figure: Figure) -> bytes:
    """Returns a figure as SVG, the same bytes for the same figure."""
    out = io.BytesIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    # Hundredths of a point are enough for a path, and a third of the size.
    return re.sub(rb' d="[^"]*"', lambda path: re.sub(rb"(\.\d\d)\d+", rb"\1", path[0]), out.getvalue())


def png(figure: Figure, dpi: int = 130) -> bytes:
    """Returns a figure as PNG."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=dpi, metadata={"Software": None})
    return out.getvalue()


def step(axes: Axes, heights: Values, borders: Values, **options: Any) -> None:
    """Draws a histogram as steps."""
    # a tuple, such as a pattern of dashes, would be taken for one value a histogram
    each = {name: [value] if isinstance(value, tuple) else value for name, value in options.items()}
    require("mplhep", "report").histplot(
        heights, borders, ax=axes, flow="none", yerr=False, edges=False, **each
    )


def band(axes: Axes, centre: Values, half: Values, edges: Values, colour: str, alpha: float) -> None:
    """Fills what lies within `half` of the centre, bin by bin."""
    axes.stairs(
        centre + half, edges, baseline=centre - half, fill=True, color=colour, alpha=alpha, linewidth=0
    )


def replica_band(axes: Axes, centre: Values, half: Values | None, edges: Values, colour: str) -> None:
    """Hatches what lies within the spread of a model's replicas, bin by bin; nothing where it has none."""
    if half is None:
        return
    axes.stairs(
        centre + half, edges, baseline=centre - half, fill=True, facecolor="none", edgecolor=colour, hatch="/////",
        linewidth=0.4, alpha=0.8,
    )  # fmt: skip


def wrapped(title: str, width: int = 18) -> str:
    """Breaks each line of a name that is wider than its panel after a hyphen, an underscore or a space."""
    if "\n" in title:
        return "\n".join(wrapped(line, width) for line in title.split("\n"))
    if len(title) <= width:
        return title
    cut = max(title.rfind(mark, 0, width) for mark in "-_ ")
    cut = cut if cut > 0 else width - 1
    return f"{title[: cut + 1]}\n{wrapped(title[cut + 1 :], width)}"


def ink_map() -> Any:
    """Returns a colour map from violet to yellow on black; without its dark end, so one photon is seen."""
    colours = require("matplotlib", "report").colormaps["inferno"](np.linspace(0.33, 1.0, 256))
    return require("matplotlib.colors", "report").ListedColormap(colours).with_extremes(bad="black")


def ratio_frame(
    main: Axes, low: Axes, edges: Values, window: tuple[float, float], labels: tuple[str, str], left: float
) -> None:
    """Labels a panel and the panel of ratios below it.

    Args:
        main: the panel.
        low: the panel of ratios.
        edges: of the bins, whose ends are those of the axis.
        window: ends of the ratios.
        labels: of the axis, and of the entries.
        left: place of the labels at the side, in widths of the panel.
    """
    low.set_ylim(*window)
    low.set_yticks([window[0], 1.0, window[1]])
    low.set_xlim(edges[0], edges[-1])
    low.set_xlabel(labels[0])
    for axes, label in ((main, labels[1]), (low, "ratio")):
        axes.set_ylabel(label)
        axes.yaxis.set_label_coords(left, 0.5)


def floor_line(axes: Axes, floor: tuple[float, float] | None) -> None:
    """Draws a floor and its spread, where there is one, as a line with its name."""
    if floor is not None:
        mean, spread = floor
        axes.axhspan(max(mean - spread, 0.02 * mean), mean + spread, color=GREY, alpha=0.3, linewidth=0)
        axes.axhline(mean, color=INK, linewidth=1)
        axes.annotate(
            "floor", (1, mean), (-4, 3), xycoords=("axes fraction", "data"), textcoords="offset points",
            ha="right", va="bottom", fontsize=8.5,
        )  # fmt: skip


def plainly(value: float, _: int | None = None) -> str:
    """Writes a tick without the power of ten."""
    return f"{value:g}"


def plain_ticks(axis: Any) -> None:
    """Labels a log axis by plain numbers, 1, 2 and 5 of each decade where there is room."""
    ticker = require("matplotlib.ticker", "report")
    low, high = sorted(axis.get_view_interval())
    decades = math.log10(high / low) if low > 0 else 9.0
    axis.set_major_locator(ticker.LogLocator(10, (1, 2, 5) if decades < 2.2 else (1,)))
    axis.set_major_formatter(ticker.FuncFormatter(plainly))
    axis.set_minor_formatter(ticker.NullFormatter())
