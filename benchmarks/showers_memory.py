"""Writes, reads and converts made showers of DS3 in slices, and prints times and the peak memory.

    python benchmarks/showers_memory.py FOLDER [--rows 4000]

Two voxels in a hundred are lit. Memory does not depend on the number of rows: run it with two of them. The files in
FOLDER, about 10 MB a thousand showers each, are removed.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import numpy as np

from caloforge.detectors import DS3
from caloforge.events import Events, in_slices, rows_at_once
from caloforge.io import convert, create, open_events


def made(rows: int, rng: np.random.Generator) -> Events:
    """Makes showers with energies in random voxels."""
    showers = np.zeros((rows, DS3.cells), np.float32)
    lit = rng.integers(0, showers.size, showers.size // 50)
    showers.reshape(-1)[lit] = rng.gamma(0.5, 20, len(lit)) + 0.016
    energy = 10 ** rng.uniform(3, 6, (rows, 1))
    return Events(
        DS3, energy.astype(np.float32), np.full(rows, 11), responses=showers.reshape(rows, *DS3.shape)
    )


def main() -> None:
    """Reads the arguments, writes, reads, prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=4000)
    arguments = parser.parse_args()
    paths = [arguments.folder / "made.h5", arguments.folder / "copied.h5"]
    started = time.process_time()

    def done(what: str) -> None:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{what}: {time.process_time() - started:.0f} s, peak {memory:.2f} GiB", flush=True)

    rng = np.random.default_rng(0)
    try:
        with create(paths[0], DS3) as writer:
            for start in range(0, arguments.rows, rows_at_once(DS3)):
                writer.append(made(min(rows_at_once(DS3), arguments.rows - start), rng))
        done(f"{arguments.rows:,} showers written, {paths[0].stat().st_size / 2**20:.0f} MiB")
        total = sum(
            float(events.responses.sum(dtype=np.float64)) for events in in_slices(open_events(paths[0]))
        )
        done(f"read, {total:.4g} MeV")
        convert(paths[0], paths[1])
        done("converted")
    finally:
        for path in paths:
            path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
