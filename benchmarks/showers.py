"""Times the challenge's judgement of many showers, without classifiers: processor time of each step, peak memory.

    python benchmarks/showers.py SHOWERS [--rows 100000] [--seed 0]

The rows of the file are repeated as often as it takes; the generated set is the same with layer energies smeared by
1 %. Since rows repeat, only the times mean something here, not the scores. Reading and decompression count.
"""

from __future__ import annotations

import argparse
import resource
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from caloforge.events import Events, EventSource, Primaries, with_responses
from caloforge.io import open_events
from caloforge.metrics.calochallenge import Smeared, observe_showers, score_showers


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


def main() -> None:
    """Reads the arguments, computes, prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("showers", type=Path)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
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
