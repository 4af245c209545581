"""Times the challenge's judgement of many showers, without classifiers: processor time of each step, peak memory.

    python benchmarks/showers.py SHOWERS [--rows 100000] [--seed 0]
    python benchmarks/showers.py --pieces [--rows 100000]

The rows of the file are repeated as often as it takes; the generated set is the same with layer energies smeared by
1 %. Since rows repeat, only the times mean something here, not the scores. Reading and decompression count.

With --pieces nothing is read: the distances that take long are timed on made features, one of 20 draws and one of 10
batches, and what the whole takes is computed from them.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from caloforge.events import Events, EventSource, Primaries, with_responses
from caloforge.io import open_events
from caloforge.metrics.showers import (
    Sizes,
    Smeared,
    compare,
    fpd,
    kpd,
    observe_showers,
    prdc,
    score_showers,
)
from caloforge.samples import sample


@dataclass
class Repeated:
    """A source whose rows come again and again."""

    source: EventSource
    rows: int

    @property
    def primaries(self) -> Primaries:
        """The particles, repeated."""
        return self.source.primaries.select(np.arange(self.rows) % len(self.source))

    def __len__(self) -> int:
        return self.rows

    def slices(self, rows: np.ndarray | slice) -> Events:
        """Reads some rows."""
        index = np.arange(self.rows)[rows] % len(self.source)
        # neighbours in one go, over the seam in two
        parts = np.split(index, np.flatnonzero(np.diff(index) < 0) + 1)
        events = [self.source.slices(slice(part[0], part[-1] + 1)) for part in parts]
        return with_responses(
            self.source.primaries.select(index), np.concatenate([one.responses for one in events])
        )


def pieces(rows: int) -> None:
    """Times one draw at each size of FPD, one batch of KPD and the neighbours, on made features."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, rows, 362))
    whole, one = Sizes(), Sizes(fpd_draws=1, kpd_batches=1)
    x, y = rng.standard_normal((2, whole.prdc_rows, 6480), np.float32)
    parts: dict[str, tuple[Callable[[], object], int]] = {
        "FPD": (lambda: fpd(a, b, one), whole.fpd_draws),
        "KPD": (lambda: kpd(a, b, one), whole.kpd_batches),
        "precision, recall, density, coverage": (lambda: prdc(x, y), 1),
    }
    total = 0.0
    for name, (function, times) in parts.items():
        started = time.process_time()
        function()
        spent = time.process_time() - started
        total += spent * times
        print(f"{name}: {spent:.1f} s, times {times} = {spent * times:.0f} s", flush=True)
    few = observe_showers(open_events(sample("ds2")))
    half, other = (few.select((np.arange(rows // 2) + shift) % len(few)) for shift in (0, 7))
    started = time.process_time()
    compare(half, other, slow=False)
    separations = time.process_time() - started
    times = 3 * whole.splits
    print(f"separation powers of halves: {separations:.1f} s, times {times} = {times * separations:.0f} s")
    print(f"score, floor and control {3 * total + times * separations:.0f} s")


def main() -> None:
    """Reads the arguments, computes, prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("showers", type=Path, nargs="?")
    parser.add_argument("--pieces", action="store_true")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.pieces:
        pieces(arguments.rows)
        return
    if arguments.showers is None:
        parser.error("a file of showers is needed")
    source = Repeated(open_events(arguments.showers), arguments.rows)
    started = last = time.process_time()

    def done(what: str) -> None:
        nonlocal last
        now = time.process_time()
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{what}: {now - last:.0f} s, {memory:.2f} GiB", flush=True)
        last = now

    reference = observe_showers(source)
    done("reference")
    generated = observe_showers(Smeared(source, 0.01, seed=9), reference.edges)
    done("generated")
    control = observe_showers(Smeared(source), reference.edges)
    done("control")
    score_showers(reference, [generated], control, arguments.seed, report=lambda what: done(f"before {what}"))
    done("scores and floors")
    print(f"together: {time.process_time() - started:.0f} s of processor time, {arguments.rows:,} showers")


if __name__ == "__main__":
    main()
