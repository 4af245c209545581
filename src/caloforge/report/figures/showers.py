"""Figures of showers: profiles, response against energy, displays of single showers, weights of classifiers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from caloforge._lookup import require
from caloforge.detectors import Detector
from caloforge.report import drawing
from caloforge.report.drawing import FAINT, GREY, INK, Style, Values
from caloforge.report.histograms import Points


def profile(
    edges: Values,
    reference: Points,
    models: Sequence[tuple[Style, Points]],
    xlabel: str,
    ylabel: str,
    x: Literal["linear", "log"] = "linear",
    y: Literal["linear", "log"] = "linear",
    window: tuple[float, float] = (0.8, 1.2),
) -> bytes:
    """Draws a mean in bins of something, and the ratio of each model to the reference, as SVG.

    Args:
        edges: borders of the K bins.
        reference: of the reference, grey with its band.
        models: style and points of each model; the spread of replicas is hatched.
        xlabel: label of the axis, with its unit.
        ylabel: label of the mean.
        x: scale of the axis.
        y: scale of the mean.
        window: range of the ratio panel.
    """
    with drawing.settings():
        figure = drawing.figure(3.7, 3.2)
        main = drawing.axes(figure, 0.7, 1.34, 2.9, 1.78)
        low = drawing.axes(figure, 0.7, 0.48, 2.9, 0.74, sharex=main)
        main.tick_params(labelbottom=False)
        main.stairs(reference.mean, edges, color=INK, linewidth=1.1)
        drawing.band(main, reference.mean, reference.error, edges, GREY, 0.5)
        low.axhline(1, color=INK, linewidth=0.8)
        with np.errstate(divide="ignore", invalid="ignore"):
            drawing.band(
                low, np.ones(len(edges) - 1), reference.error / np.abs(reference.mean), edges, GREY, 0.45
            )
            for look, points in models:
                line: dict[str, Any] = {
                    "color": look.colour,
                    "linestyle": (0, look.dashes) if look.dashes else "-",
                }
                main.stairs(points.mean, edges, **line)
                low.stairs(points.mean / reference.mean, edges, **line)
                drawing.band(
                    low, points.mean / reference.mean, points.error / np.abs(reference.mean), edges,
                    look.colour, 0.2,
                )  # fmt: skip
                if points.replicas is not None:
                    drawing.replica_band(main, points.mean, points.replicas, edges, look.colour)
                    relative = points.mean / reference.mean, points.replicas / np.abs(reference.mean)
                    drawing.replica_band(low, *relative, edges, look.colour)
        if x == "log":
            main.set_xscale("log")
        if y == "log":
            main.set_yscale("log")
        drawing.ratio_frame(main, low, edges, window, (xlabel, ylabel), -0.175)
        if x == "log":
            drawing.plain_ticks(low.xaxis)
        return drawing.svg(figure)


def layer_maps(detector: Detector, showers: Sequence[tuple[str, Values]], layers: Sequence[int]) -> bytes:
    """Draws layers of showers as they lie around the axis, one shower a row, one log colour scale, as PNG.

    Args:
        detector: of the showers.
        showers: name and voxels, (cells,), of each.
        layers: places of the layers to show.
    """
    starts = np.cumsum([0, *(layer.cells for layer in detector.layers)])
    shown = np.concatenate([voxels[starts[k] : starts[k + 1]] for _, voxels in showers for k in layers])
    top = float(shown.max()) or 1.0
    least = max(float(shown[shown > 0].min()) if (shown > 0).any() else top / 10, top / 1e5)
    with drawing.settings():
        norm = require("matplotlib.colors", "report").LogNorm(least, max(top, least * 10))
        side, rows, columns = 1.25, len(showers), len(layers)
        figure = drawing.figure(1.0 + (side + 0.08) * columns + 0.8, 0.3 + (side + 0.08) * rows + 0.1)
        for i, (name, voxels) in enumerate(showers):
            bottom = 0.1 + (side + 0.08) * (rows - 1 - i)
            for j, k in enumerate(layers):
                layer = detector.layers[k]
                axes = drawing.axes(figure, 1.0 + (side + 0.08) * j, bottom, side, side, projection="polar")
                axes.set_axis_off()
                cells = voxels[starts[k] : starts[k + 1]].reshape(layer.angles, layer.radii)
                # rings of one angle are drawn as many: a mesh of one cell would be a line
                turns = max(layer.angles, 32) // layer.angles
                cells = np.repeat(cells, turns, axis=0)
                borders = np.linspace(-np.pi, np.pi, layer.angles * turns + 1)
                mesh = axes.pcolormesh(
                    borders,
                    layer.edges,
                    np.ma.masked_less_equal(cells.T, 0),
                    norm=norm,
                    cmap=drawing.ink_map(),
                )
                axes.set_facecolor("black")
                if i == 0:
                    axes.set_title(f"layer {layer.number}", fontsize=8.5, pad=2)
            words: dict[str, Any] = {"ha": "right", "va": "center", "fontsize": 8.5}
            across, up = figure.get_size_inches()
            figure.text(0.92 / across, (bottom + side / 2) / up, drawing.wrapped(name, 14), **words)
        place = drawing.axes(
            figure, 1.0 + (side + 0.08) * columns + 0.05, 0.15, 0.12, (side + 0.08) * rows - 0.1
        )
        figure.colorbar(mesh, cax=place, label=f"voxel [{detector.unit}]").minorticks_off()
        return drawing.png(figure)


def displays(detector: Detector, showers: Sequence[tuple[str, Values]], most: int = 1500) -> bytes:
    """Draws showers in space, one point a voxel, size and colour by its energy, side by side, as PNG.

    Args:
        detector: of the showers.
        showers: name and voxels, (cells,), of each.
        most: points of one shower, the largest voxels.
    """
    depth = detector.layer_depth or 1.0
    places = np.concatenate(
        [
            np.column_stack([np.full(layer.cells, (layer.number + 0.5) * depth), *layer.centres[:2]])
            for layer in detector.layers
        ]
    )
    reach = max(layer.edges[-1] for layer in detector.layers)
    top = max(float(voxels.max()) for _, voxels in showers) or 1.0
    with drawing.settings():
        require("mpl_toolkits.mplot3d", "report")
        norm = require("matplotlib.colors", "report").LogNorm(top / 1e5, top)
        width = 3.4
        names = [drawing.wrapped(name, 40) for name, _ in showers]
        lift = 0.12 + 0.16 * max(name.count("\n") + 1 for name in names)
        figure = drawing.figure(width * len(showers) + 1.0, 2.25 + lift)
        across, up = figure.get_size_inches()
        shown: Any = None
        for number, (name, (_, voxels)) in enumerate(zip(names, showers, strict=True)):
            # of the square of 3D axes the wide box fills the middle: the rest may lie outside of the figure
            axes: Any = drawing.axes(figure, width * number - 0.05, -0.3, 3.1, 2.9, projection="3d")
            order = np.argsort(voxels)[-most:]
            order = order[voxels[order] > 0]
            size = 1 + 25 * np.clip(np.log10(voxels[order] / top) / 5 + 1, 0, 1) ** 2
            z, eta, phi = places[order].T
            shown = axes.scatter(
                z, eta, phi, s=size, c=voxels[order], norm=norm, cmap="inferno_r", linewidth=0, alpha=0.75
            )
            axes.set(
                xlim=(0, float(places[:, 0].max())), ylim=(-reach, reach), zlim=(-reach, reach),
            )  # fmt: skip
            axes.set_xlabel("z [mm]" if detector.layer_depth else "layer", fontsize=8.5)
            axes.set_ylabel("eta [mm]", fontsize=8.5)
            axes.set_zlabel("phi [mm]", fontsize=8.5)
            axes.tick_params(labelsize=6.5, pad=-2)
            axes.xaxis.labelpad = axes.yaxis.labelpad = axes.zaxis.labelpad = -6
            axes.locator_params(nbins=4)
            axes.set_box_aspect((2, 1, 1), zoom=1.0)
            axes.view_init(18, -65)
            middle = (width * number + 1.5) / across
            figure.text(middle, 1 - 0.06 / up, name, fontsize=8.5, ha="center", va="top")
        place = drawing.axes(figure, width * len(showers) + 0.1, 0.4, 0.12, 1.7)
        ticker = require("matplotlib.ticker", "report")
        bar = figure.colorbar(shown, cax=place, format=ticker.FuncFormatter(drawing.plainly))
        bar.set_label(f"voxel [{detector.unit}]", fontsize=8.5)
        bar.minorticks_off()
        return drawing.png(figure)


def classifier_weights(histograms: Mapping[str, Sequence[float]], look: Style, label: str) -> bytes:
    """Draws the weights of a classifier on true and on a model's showers, both of unit sum, as SVG.

    Args:
        histograms: `edges`, and counts of `truth` and `generated` between them.
        look: of the model.
        label: of the axis.
    """
    edges = np.asarray(histograms["edges"], np.float64)
    with drawing.settings():
        figure = drawing.figure(3.7, 2.5)
        axes = drawing.axes(figure, 0.64, 0.5, 2.96, 1.85)
        truth, generated = (
            np.asarray(histograms[name], np.float64) / max(sum(histograms[name]), 1)
            for name in ("truth", "generated")
        )
        axes.stairs(truth, edges, fill=True, color=FAINT)
        axes.stairs(truth, edges, color=INK, label="GEANT")
        dashes = (0, look.dashes) if look.dashes else "-"
        axes.stairs(generated, edges, color=look.colour, linestyle=dashes, label=look.label)
        axes.axvline(1, color=GREY, linewidth=0.8)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(edges[0], edges[-1])
        axes.set_xlabel(label)
        axes.set_ylabel("share of showers")
        axes.legend()
        return drawing.svg(figure)
