"""Figures of a study of trainings: what its trials reach, and by which parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from caloforge.report import drawing
from caloforge.report.drawing import COLOURS, GREY, plain_ticks


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
        plain_ticks(axes.xaxis)
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
        plain_ticks(axes.yaxis)
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        return drawing.svg(figure)
