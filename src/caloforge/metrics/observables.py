"""What metrics see of events: a few numbers an event, never whole images.

With n_k the photons in cell k of one response, at (i_k, j_k) in cells along the detector's two axes:

- channels: the sums of the channel map, w (K,).
- centre: the photon-weighted centre of mass, c = sum_k n_k (i_k, j_k) / sum_k n_k, in cells; (0, 0) is the
  middle of the first cell.
- radius: of the circle around the centre that holds 90 % of the photons. Cells are points, so it is the
  smallest distance r such that the cells with |(i_k, j_k) - c| <= r hold at least 90 % of sum_k n_k, in
  cells.
- lit: the number of cells with at least one photon.
- spectra: cells by content (`metrics.spectrum`).

An empty response has no centre and no radius: they are NaN, the metrics of centre and radius leave such rows
out, and the metric `empty` counts them. A detector whose responses are not images of two axes, and a
readout, which gives channel sums only, have neither centre, radius, lit cells nor spectra: these are None.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from caloforge.events import EventSource, Primaries, Rows, in_slices
from caloforge.metrics.spectrum import EDGES
from caloforge.metrics.spectrum import spectra as spectra_of
from caloforge.metrics.weights import Weights, weights_of

HELD = 0.9
"""Share of the photons inside the circle."""

_BLOCK = 256
"""Images whose cells are sorted at once: keeps the work in the processor's cache."""


@dataclass(frozen=True, eq=False)
class Observables:
    """Numbers of a set of events, row by row.

    Attributes:
        primaries: the particles, N of them.
        channels: channel sums in the detector's unit, (N, K).
        centre: photon-weighted centre in cells, (N, 2), NaN where a response is empty; or None.
        radius: radius of the circle around the centre that holds 90 % of the photons, in cells, (N,), NaN
            where a response is empty; or None.
        lit: cells with at least one photon, (N,); or None.
        spectra: cells by content, (N, B); or None.

    Raises:
        ValueError: wrong shapes, channel sums that are not finite, or only some of centre, radius and lit.
    """

    primaries: Primaries
    channels: NDArray[np.float64]
    centre: NDArray[np.float64] | None = None
    radius: NDArray[np.float64] | None = None
    lit: NDArray[np.float64] | None = None
    spectra: NDArray[np.uint16] | None = None

    def __post_init__(self) -> None:
        rows = len(self.primaries)
        channels = np.asarray(self.channels, np.float64)
        if channels.ndim != 2 or len(channels) != rows:
            raise ValueError(
                f"channels must have shape ({rows}, K), one row a particle, got {channels.shape}"
            )
        bad = ~np.isfinite(channels).all(axis=1)
        if bad.any():
            raise ValueError(
                f"channel sums must be finite, got {channels[bad][0]} in row {int(np.argmax(bad))}"
            )
        object.__setattr__(self, "channels", channels)
        images = {"centre": (rows, 2), "radius": (rows,), "lit": (rows,)}
        missing = [name for name in images if getattr(self, name) is None]
        if 0 < len(missing) < len(images):
            raise ValueError(f"centre, radius and lit come together, got no {' and no '.join(missing)}")
        for name, shape in (*images.items(), ("spectra", (rows, len(EDGES)))):
            value = getattr(self, name)
            if value is not None and np.shape(value) != shape:
                raise ValueError(f"{name} must have shape {shape}, got {np.shape(value)}")

    def __len__(self) -> int:
        return len(self.channels)

    @property
    def weights(self) -> Weights | None:
        """Weights of the rows over their mean, (N,); None where all count alike."""
        return weights_of(self.primaries)

    @property
    def counting(self) -> Observables:
        """These without the rows of weight 0."""
        weight = self.weights
        return self if weight is None or weight.all() else self.select(np.flatnonzero(weight))

    @property
    def photons(self) -> NDArray[np.float64]:
        """Sum over the channels, (N,): all of a response, since a channel map partitions the cells."""
        return np.asarray(self.channels.sum(axis=1))

    def select(self, rows: Rows) -> Observables:
        """Returns some of the rows."""
        return Observables(
            self.primaries.select(rows),
            self.channels[rows],
            None if self.centre is None else self.centre[rows],
            None if self.radius is None else self.radius[rows],
            None if self.lit is None else self.lit[rows],
            None if self.spectra is None else self.spectra[rows],
        )


@dataclass(frozen=True)
class Result:
    """What a metric returns.

    Attributes:
        value: the number, or NaN.
        particles: unique particles it used, for metrics that leave some out; else None.
        reason: why the value is NaN; empty for a number.
        error: of the value, where its estimator states one; else None.
    """

    value: float
    particles: int | None = None
    reason: str = ""
    error: float | None = None


def observe(source: EventSource, channels: str | None = None) -> Observables:
    """Reads a source slice by slice, in constant memory, and keeps the observables of each event.

    Args:
        source: events, in memory or a file.
        channels: name of the detector's channel map; the default one where not given.

    Raises:
        ValueError: no map of that name.
    """
    primaries = source.primaries
    detector = primaries.detector
    labels = detector.channel_map(channels).labels
    images = len(detector.shape) == 2
    rows = len(source)
    sums = np.empty((rows, len(labels)))
    centre, radius, lit = np.empty((rows, 2)), np.empty(rows), np.empty(rows)
    spectra = np.empty((rows, len(EDGES)), np.uint16)
    start = 0
    for events in in_slices(source):
        here = slice(start, start + len(events))
        sums[here] = detector.readout(events.responses, channels)
        if images:
            centre[here], radius[here] = centre_and_radius(events.responses)
            lit[here] = np.count_nonzero(np.greater_equal(events.responses, 1), axis=(1, 2))
            spectra[here] = spectra_of(events.responses)
        start += len(events)
    if not images:
        return Observables(primaries, sums)
    return Observables(primaries, sums, centre, radius, lit, spectra)


def centre_and_radius(responses: NDArray[np.generic]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Finds centre and radius of each image, as the module's docstring defines them.

    Args:
        responses: photons a cell, (N, I, J).

    Returns:
        centre in cells, (N, 2), and radius in cells, (N,); NaN for an image without photons.
    """
    centre, radius = np.full((len(responses), 2), np.nan), np.full(len(responses), np.nan)
    filled = np.flatnonzero(responses.any(axis=(1, 2)))
    for start in range(0, len(filled), _BLOCK):
        rows = filled[start : start + _BLOCK]
        centre[rows], radius[rows] = _centre_and_radius(responses[rows].astype(np.float64))
    return centre, radius


def _centre_and_radius(images: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    n, i, j = len(images), np.arange(images.shape[1]), np.arange(images.shape[2])
    total = images.sum(axis=(1, 2))
    centre = np.stack([images.sum(axis=2) @ i, images.sum(axis=1) @ j], axis=1) / total[:, None]
    squared = ((i - centre[:, :1]) ** 2)[:, :, None] + ((j - centre[:, 1:]) ** 2)[:, None, :]
    squared = squared.reshape(n, -1)
    order = np.argsort(squared, axis=1)
    within = np.cumsum(np.take_along_axis(images.reshape(n, -1), order, axis=1), axis=1)
    # A hair below 90 %, so that rounding of the sum never asks for one cell more.
    edge = np.argmax(within >= HELD * (1 - 1e-12) * total[:, None], axis=1)
    row = np.arange(n)
    return centre, np.sqrt(squared[row, order[row, edge]])
