"""Generation of any number of events in constant memory, the same for any order, shard or resumed job."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from caloforge.events import Events, ParticleSource, Rows, as_counts, with_responses
from caloforge.io import EventWriter
from caloforge.runtime.noise import check_numbers, standard_normals

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
    parts = []
    for start in range(0, rows, batch_size):
        index = np.minimum(np.arange(start, start + batch_size), rows - 1)
        noise = standard_normals(seed, numbers[index], noise_dim)
        parts.append(forward(np.ascontiguousarray(conditions[index]), noise)[: rows - start])
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
    """

    forward: Forward
    noise_dim: int
    primaries: Particles
    seed: int = 0
    first_event: int = 0
    batch_size: int = 256
    responds: Responds | None = None
    whole: bool = False

    def __post_init__(self) -> None:
        check_numbers(self.seed, self.first_event, len(self))

    def __len__(self) -> int:
        return len(self.primaries)

    def slices(self, rows: Rows) -> Events:
        """Generates some rows.

        Raises:
            ValueError: the generator gives what is no response; the message names the event.
        """
        index = np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else rows
        chosen = self.primaries.select(rows)
        responses = generate_rows(
            self.forward,
            self.noise_dim,
            chosen.conditions,
            self.seed,
            events=self.first_event + index,
            batch_size=self.batch_size,
            responds=self.responds,
        )
        checked = as_counts(responses, self.first_event + index, self.whole)
        return with_responses(chosen, checked if chosen.detector.counts else checked.astype(np.float32))


def generate(
    source: Generated[Particles],
    writer: EventWriter,
    report: Callable[[int], None] = lambda done: None,
    further: Mapping[str, NDArray[np.generic]] = MappingProxyType({}),
    carried: Callable[[int, int], Mapping[str, NDArray[np.generic]]] = lambda start, stop: {},
) -> None:
    """Writes generated events to a file, a few batches at a time.

    Args:
        source: what to generate.
        writer: where to.
        report: called with the number of events written so far.
        further: columns of the file besides, (N,), by name.
        carried: reads columns of the particles' file that go with the rows from a first to before a last.
    """
    size = source.batch_size * max(1, 256 // source.batch_size)
    for start in range(0, len(source), size):
        rows = slice(start, start + size)
        events = source.slices(rows)
        columns = dict(carried(start, start + len(events)))
        writer.append(events, columns | {name: values[rows] for name, values in further.items()})
        report(start + len(events))
