"""Writes showers as HDF5 cuts them by itself, reads and classifies them; prints times and the peak memory.

    python benchmarks/showers_memory.py FOLDER [--detector ds3] [--rows 4000] [--what files|epochs|classifiers]

`files` converts them, `epochs` reads them in random order as a training does, from the file and from a temporary copy,
`classifiers` trains one epoch of the challenge's dense classifiers of rows against rows. As many voxels are lit as in
Geant4's showers of 1 GeV to 1 TeV, 23 % of data set 2 and 11 % of data set 3. Files are removed.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Iterable
from pathlib import Path

import h5py
import numpy as np

from caloforge.detectors import DETECTORS, Detector
from caloforge.evaluation.classifier import suite
from caloforge.evaluation.scoring import evaluate_events
from caloforge.events import EventSource, in_slices
from caloforge.io import convert, open_events
from caloforge.io.stored import stored
from caloforge.metrics.showers import Sizes
from caloforge.models.parts.stage import shuffled_batches

LIT = {"ds2": 0.23, "ds3": 0.11}
"""Share of lit voxels in Geant4's showers."""


def write(path: Path, detector: Detector, rows: int, seed: int, kind: type[np.floating]) -> None:
    """Writes showers of random voxels, chunked as h5py chooses for the published number of rows."""
    rng = np.random.default_rng(seed)
    published = {"ds2": 100_000, "ds3": 50_000}[detector.name]
    with h5py.File(path, "w") as file:
        shape = (published, detector.cells)
        showers = file.create_dataset(
            "showers", shape, kind, chunks=True, maxshape=shape, compression="gzip", compression_opts=1
        )
        showers.resize(rows, axis=0)
        step = showers.chunks[0]
        for start in range(0, rows, step):
            part = np.zeros((min(step, rows - start), detector.cells), kind)
            lit = rng.integers(0, part.size, round(part.size * LIT[detector.name]))
            part.reshape(-1)[lit] = rng.gamma(0.5, 20, len(lit)) + 0.016
            showers[start : start + len(part)] = part
        energies = 10 ** rng.uniform(3, 6, (rows, 1))
        file.create_dataset("incident_energies", data=np.maximum(energies, 1e3))


class Clock:
    """Prints what was done, the processor time and the peak memory so far."""

    def __init__(self) -> None:
        self._started = time.process_time()

    def done(self, what: str) -> None:
        """Prints a line and starts over."""
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{what}: {time.process_time() - self._started:.1f} s, peak {memory:.2f} GiB", flush=True)
        self._started = time.process_time()


def epoch(source: EventSource) -> float:
    """Reads one epoch in random order; returns the sum of the energies."""
    batches: Iterable[EventSource] = shuffled_batches(source, 64, np.random.default_rng(0))
    return sum(float(events.slices(slice(None)).responses.sum(dtype=np.float64)) for events in batches)


def main() -> None:
    """Reads the arguments, writes, reads, prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--detector", choices=LIT, default="ds3")
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--what", choices=("files", "epochs", "classifiers"), default="files")
    parser.add_argument("--float64", action="store_true", help="as some published files are")
    arguments = parser.parse_args()
    detector, rows = DETECTORS[arguments.detector], arguments.rows
    kind = np.float64 if arguments.float64 else np.float32
    paths = [arguments.folder / f"{name}.hdf5" for name in ("made", "other")]
    clock = Clock()
    try:
        write(paths[0], detector, rows, 0, kind)
        size = paths[0].stat().st_size / 2**20
        with h5py.File(paths[0]) as file:
            clock.done(f"{rows:,} showers written in chunks of {file['showers'].chunks}, {size:.0f} MiB")
        if arguments.what == "files":
            total = sum(
                float(events.responses.sum(dtype=np.float64)) for events in in_slices(open_events(paths[0]))
            )
            clock.done(f"read, {total:.4g} MeV")
            convert(paths[0], paths[1])
            clock.done("converted")
        elif arguments.what == "epochs":
            source = open_events(paths[0])
            clock.done(f"an epoch from the file, {epoch(source):.6g} MeV")
            copy = stored(source, arguments.folder, least=0)
            clock.done("copied once")
            clock.done(f"an epoch from the copy, {epoch(copy):.6g} MeV")
        else:
            write(paths[1], detector, rows, 1, kind)
            clock.done("as many others written")
            networks = suite("full").model_copy(
                update={"views": ("low", "low-normed", "high"), "epochs": 1, "seeds": 1}
            )
            # precision and recall of the usual 5,000 rows take minutes, and 1.6 GB of data set 3
            sizes = Sizes(fpd_draws=1, kpd_batches=1, prdc_rows=200, splits=1, slow_splits=1)
            evaluate_events(
                paths[1],
                [paths[0]],
                sizes=sizes,
                classifiers=networks,
                report=lambda what, done, total: clock.done(f"before {what}"),
                folder=arguments.folder,
            )
            clock.done("judged")
    finally:
        for path in paths:
            path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
