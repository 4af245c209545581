"""Generation of any number of events in constant memory, the same for any order, shard or resumed job."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Generic, Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from caloforge.detectors import Detector
from caloforge.events import Events, ParticleSource, Primaries, Rows, as_counts, with_responses
from caloforge.io import EventWriter
from caloforge.io.source import Columns, channel_columns
from caloforge.runtime.noise import check_numbers, normals_in_batches

Forward = Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]
"""conditions (B, F), noise (B, D) -> responses (B, *)."""

Responds = Callable[[NDArray[np.float32], NDArray[np.integer]], NDArray[np.bool_]]
"""conditions (N, F), event numbers (N,) -> whether there is a response, (N,)."""

Particles = TypeVar("Particles", bound=ParticleSource)


def generate_rows(
    forward: Forward,
    noise_dim: int,
    conditions: NDArray[np.float32],
    seed: int,
    *,
    events: NDArray[np.integer] | None = None,
    batch_size: int = 256,
    responds: Responds | None = None,
) -> NDArray[np.float32]:
    """Generates one response for each row.

    Every batch has the same size (the last is filled up and cut), so that an event does not depend on how many
    others are asked for.

    Args:
        forward: the generator.
        noise_dim: standard normals an event.
        conditions: physical units, (N, F).
        seed: 0 to 2^64 - 1.
        events: event numbers, which address the noise, (N,); 0, 1, ... where not given.
        batch_size: events at once.
        responds: tells which events have a response; the others are zero, and are not generated.

    Returns:
        what `forward` gives, (N, *).
    """
    rows = len(conditions)
    numbers = np.arange(rows) if events is None else events
    if responds is not None and rows:
        lit = responds(conditions, numbers)
        chosen = np.flatnonzero(lit) if lit.any() else np.array([0])  # one at least, for its shape
        some = generate_rows(
            forward, noise_dim, conditions[chosen], seed, events=numbers[chosen], batch_size=batch_size
        )
        every = np.zeros((rows, *some.shape[1:]), some.dtype)
        every[lit] = some[: np.count_nonzero(lit)]
        return every
    index = np.minimum(np.arange(-(-rows // batch_size) * batch_size), rows - 1)
    drawn = normals_in_batches(seed, numbers[index], noise_dim, batch_size)
    parts = []
    for start, noise in zip(range(0, rows, batch_size), drawn, strict=True):
        batch = conditions[index[start : start + batch_size]]
        parts.append(forward(np.ascontiguousarray(batch), noise)[: rows - start])
    return np.concatenate(parts) if parts else forward(conditions, np.empty((0, noise_dim), np.float32))


@dataclass(frozen=True, eq=False)
class Generated(Generic[Particles]):
    """Events that are generated when they are read; of particles in memory an `EventSource`.

    Raises:
        ValueError: a seed or event numbers that are none.

    Attributes:
        forward: the generator.
        noise_dim: standard normals an event.
        primaries: what to generate.
        seed: 0 to 2^64 - 1.
        first_event: number of the first row's event.
        batch_size: events at once.
        responds: tells which events have a response; None where all have.
        whole: the model rounds, so that anything but a whole count is an error.
        channels: name of the channel map of the sums; the detector's first where not given.
        sums_only: the generator gives channel sums, (B, K), and no responses.
    """

    forward: Forward
    noise_dim: int
    primaries: Particles
    seed: int = 0
    first_event: int = 0
    batch_size: int = 256
    responds: Responds | None = None
    whole: bool = False
    channels: str = ""
    sums_only: bool = False

    def __post_init__(self) -> None:
        check_numbers(self.seed, self.first_event, len(self))

    def __len__(self) -> int:
        return len(self.primaries)

    @property
    def detector(self) -> Detector:
        """The detector of the particles."""
        return self.primaries.detector

    @property
    def channel_map(self) -> str:
        """Name of the channel map of the sums."""
        return self.channels or self.detector.default_channels

    def slices(self, rows: Rows) -> Events:
        """Generates some rows.

        Raises:
            ValueError: the generator gives what is no response, the message names the event; or channel sums only.
        """
        if self.sums_only:
            raise ValueError(
                "wanted responses of a model that predicts channel sums only: its readout is channels"
            )
        chosen, numbers, responses = self._rows(rows)
        checked = as_counts(responses, numbers, self.whole)
        return with_responses(chosen, checked if chosen.detector.counts else checked.astype(np.float32))

    def sums(self, rows: Rows) -> tuple[Primaries, NDArray[np.float64]]:
        """Generates some rows and returns their particles and channel sums in the detector's unit, (N, K).

        Raises:
            ValueError: the generator gives what is no response or no sum; the message names the event.
        """
        if not self.sums_only:
            events = self.slices(rows)
            return events.primaries, self.detector.readout(events.responses, self.channel_map)
        chosen, numbers, sums = self._rows(rows)
        bad = ~np.isfinite(sums).all(1)
        if bad.any():
            raise ValueError(f"channel sums must be finite, the model's for event {numbers[bad][0]} are not")
        return chosen, sums.astype(np.float64)

    def _rows(self, rows: Rows) -> tuple[Primaries, NDArray[np.intp], NDArray[np.float32]]:
        """Generates some rows: their particles, event numbers and what the generator gives."""
        index = np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else np.asarray(rows)
        chosen, numbers = self.primaries.select(rows), self.first_event + index
        generated = generate_rows(
            self.forward,
            self.noise_dim,
            chosen.conditions,
            self.seed,
            events=numbers,
            batch_size=self.batch_size,
            responds=self.responds,
        )
        return chosen, numbers, generated


Readout = Literal["responses", "channels", "both"]
"""What is written of each event: its response, its channel sums, or both."""


def read_out(source: Generated[Particles], rows: slice, readout: Readout) -> tuple[Primaries, Columns]:
    """Generates some rows for a file.

    Args:
        source: what to generate.
        rows: which.
        readout: what is written of each event.

    Returns:
        events, or particles alone, and the columns of channel sums (`io.source.channel_columns`), (N,) each.

    Raises:
        ValueError: as `Generated`.
    """
    if readout == "responses":
        return source.slices(rows), {}
    entering: Primaries
    if readout == "channels":
        entering, sums = source.sums(rows)
    else:
        entering = events = source.slices(rows)
        sums = source.detector.readout(events.responses, source.channel_map)
    return entering, dict(zip(channel_columns(source.detector, source.channel_map), sums.T, strict=True))


def check_readout(readout: str, source: Generated[Particles]) -> None:
    """Raises ValueError unless a model can give a readout."""
    if readout not in get_args(Readout):
        raise ValueError(f"the readout must be one of {', '.join(get_args(Readout))}, got {readout!r}")
    if source.sums_only and readout != "channels":
        raise ValueError(f"the model predicts channel sums only: the readout is channels, got {readout}")


def generate(
    source: Generated[Particles],
    writer: EventWriter,
    report: Callable[[int], None] = lambda done: None,
    further: Mapping[str, NDArray[np.generic]] = MappingProxyType({}),
    carried: Callable[[int, int], Mapping[str, NDArray[np.generic]]] = lambda start, stop: {},
    readout: Readout = "responses",
) -> None:
    """Writes generated events to a file, a few batches at a time.

    Args:
        source: what to generate.
        writer: where to.
        report: called with the number of events written so far.
        further: columns of the file besides, (N,), by name.
        carried: reads columns of the particles' file that go with the rows from a first to before a last.
        readout: what is written of each event.

    Raises:
        ValueError: as `Generated`.
    """
    size = source.batch_size * max(1, 256 // source.batch_size)
    for start in range(0, len(source), size):
        rows = slice(start, start + size)
        events, sums = read_out(source, rows, readout)
        columns = {**carried(start, start + len(events)), **sums}
        writer.append(events, columns | {name: values[rows] for name, values in further.items()})
        report(start + len(events))
