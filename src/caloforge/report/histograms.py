"""Histograms and means behind the figures, and their statistical errors.

A bin of n entries has variance n; where one event gives many entries (cells), the variance is the sum over events of
the squared number of entries, since cells of one event are not independent. With r and g the bins of reference and
model,

    ratio = g / r,    its error = sqrt(var g) / r,    band of the reference = 1 +- sqrt(var r) / r.

Of events with weights w, over their mean, a bin holds sum w and has variance sum w^2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from caloforge._lookup import require
from caloforge.events import EventSource, in_slices
from caloforge.metrics.weights import Weights, effective_size, weights_of

Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Bins:
    """Holds a filled histogram: edges (B + 1,), entries (B,) and their variances (B,).

    Where there are replicas of a model, `replicas` has the standard deviation of the entries over them, (B,).
    """

    edges: Values
    counts: Values
    variances: Values
    replicas: Values | None = None


@dataclass(frozen=True, eq=False)
class Mean:
    """Holds the mean response, (*shape), and its standard error, in the detector's unit."""

    mean: Values
    error: Values


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
    borders, entries = [float(edges[-1])], 0.0
    for edge, count in zip(edges[-2::-1], counts[::-1], strict=True):
        entries += count
        if entries >= least:
            borders.append(float(edge))
            entries = 0.0
    if borders[-1] != edges[0]:
        borders[max(len(borders) - 1, 1) :] = [float(edges[0])]
    return np.asarray(borders[::-1])


def fill(values: Values, edges: Values, weight: Weights | None = None) -> Bins:
    """Fills a histogram of independent entries; values outside the edges and NaN are left out.

    Args:
        values: the entries, (N,).
        edges: of the bins.
        weight: of the entries, (N,); 1 where not given.
    """
    hist = require("hist", "report")
    finite = np.isfinite(values)
    if weight is not None:
        weighted = hist.Hist(hist.axis.Variable(edges), storage=hist.storage.Weight())
        weighted.fill(values[finite], weight=weight[finite])
        return Bins(
            edges, *(np.asarray(sums, np.float64) for sums in (weighted.values(), weighted.variances()))
        )
    histogram = hist.Hist(hist.axis.Variable(edges), storage=hist.storage.Double())
    histogram.fill(values[finite])
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
    return scaled(bins, width / np.diff(bins.edges))


def scaled(bins: Bins, factor: float | Values) -> Bins:
    """Returns entries times a factor."""
    replicas = None if bins.replicas is None else bins.replicas * factor
    return Bins(bins.edges, bins.counts * factor, bins.variances * factor**2, replicas)


def with_replicas(bins: Bins, others: Sequence[Bins]) -> Bins:
    """Returns a model's histogram with the standard deviation of those of its replicas, if there are several."""
    if len(others) < 2:
        return bins
    return replace(bins, replicas=np.std([one.counts for one in others], axis=0, ddof=1))


def largest_cell(source: EventSource) -> float:
    """Returns the largest cell content of a source."""
    return max((float(events.responses.max()) for events in in_slices(source) if len(events)), default=0.0)


def cell_spectrum(source: EventSource, edges: Values) -> Bins:
    """Counts cells by content, over all events; variances are those of sums over independent events."""
    counts, variances = np.zeros(len(edges) - 1), np.zeros(len(edges) - 1)
    whole, start = weights_of(source.primaries), 0
    for events in in_slices(source, 1024):
        cells = events.responses.reshape(len(events), -1)
        row, column = np.nonzero(cells)
        place = np.searchsorted(edges, cells[row, column], side="right") - 1
        inside = (place >= 0) & (place < len(counts))
        flat = row[inside] * len(counts) + place[inside]
        table = np.bincount(flat, minlength=len(events) * len(counts)).reshape(len(events), len(counts))
        weight = None if whole is None else whole[start : start + len(events)]
        start += len(events)
        counts += table.sum(axis=0) if weight is None else weight @ table
        squares = table.astype(np.float64) ** 2
        variances += squares.sum(axis=0) if weight is None else weight**2 @ squares
    return Bins(edges, counts, variances)


def mean_response(source: EventSource) -> Mean:
    """Returns the mean response of a source and its standard error, read in slices."""
    rows, weight, start = len(source), weights_of(source.primaries), 0
    total, squares = np.zeros(source.primaries.detector.shape), np.zeros(source.primaries.detector.shape)
    for events in in_slices(source, 1024):
        responses = events.responses.astype(np.float64)
        if weight is None:
            total += events.responses.sum(axis=0, dtype=np.float64)
            squares += np.einsum("n...,n...->...", *[responses] * 2)
        else:
            here = weight[start : start + len(events)]
            total += np.einsum("n,n...->...", here, responses)
            squares += np.einsum("n,n...,n...->...", here, responses, responses)
        start += len(events)
    # weights are over their mean, so that they add to the number of rows
    mean = total / rows
    variance = np.maximum(squares / rows - mean**2, 0)
    return Mean(mean, np.sqrt(variance / (rows if weight is None else effective_size(weight))))


def relative_difference(model: Mean, reference: Mean, limit: float = 0.25) -> Values:
    """Returns (model - reference) / reference by cell; NaN where the reference is not known to `limit`."""
    with np.errstate(divide="ignore", invalid="ignore"):
        difference = (model.mean - reference.mean) / reference.mean
        known = (reference.mean > 0) & (reference.error <= limit * reference.mean)
    return np.asarray(np.where(known, difference, np.nan))


@dataclass(frozen=True, eq=False)
class Points:
    """Holds a mean, (K,), and its statistical error, (K,); of a model with replicas also their spread, (K,)."""

    mean: Values
    error: Values
    replicas: Values | None = None


def points_with_replicas(points: Points, others: Sequence[Points]) -> Points:
    """Returns a model's means with the standard deviation of those of its replicas, if there are several."""
    if len(others) < 2:
        return points
    return replace(points, replicas=np.std([one.mean for one in others], axis=0, ddof=1))


def mean_of(values: Values, weight: Weights | None = None) -> Points:
    """Averages rows, (N, K), by weights, (N,), where given."""
    if weight is None:
        return Points(values.mean(0), values.std(0) / np.sqrt(max(len(values), 1)))
    mean = weight @ values / weight.sum()
    variance = weight @ (values - mean) ** 2 / weight.sum()
    return Points(mean, np.sqrt(variance / effective_size(weight)))
