"""Bytes an event of images as files hold them, against a sparse layout: lit cells and their contents alone.

    python benchmarks/layouts.py FILE... [--rows 4000]

`dense` is what `caloforge` writes to HDF5 (shuffled and compressed by gzip) and to Parquet; `sparse` holds for each
event the numbers of its lit cells and their contents as whole numbers of 16 bits, `compressed` by the same gzip.
"""

import argparse
import tempfile
from pathlib import Path

import h5py
import numpy as np

from caloforge.events import Events
from caloforge.io import create, open_events


def written(events: Events, suffix: str) -> float:
    """Returns bytes an event of a file of a format."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"events{suffix}"
        with create(path, events.detector) as writer:
            writer.append(events)
        return path.stat().st_size / len(events)


def sparse(events: Events, compression: str | None) -> float:
    """Returns bytes an event of a sparse file, with everything else as in the dense one."""
    cells = events.responses.reshape(len(events), -1)
    row, column = np.nonzero(cells)
    columns = {
        "cell": column.astype(np.uint16),
        "content": cells[row, column].astype(np.uint16),
        "lit": np.bincount(row, minlength=len(events)).astype(np.uint16),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.h5"
        with h5py.File(path, "w") as file:
            for name, values in columns.items():
                file.create_dataset(
                    name, data=values, compression=compression, shuffle=compression is not None
                )
            file.create_dataset("conditions", data=events.conditions, compression="gzip")
            file.create_dataset("group", data=events.group, compression="gzip")
        return path.stat().st_size / len(events)


def main() -> None:
    """Prints one row a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--rows", type=int, default=4000)
    arguments = parser.parse_args()
    print("| file | events | lit cells | dense, HDF5 | dense, Parquet | sparse | sparse, compressed |")
    print("|---|---|---|---|---|---|---|")
    for file in arguments.files:
        source = open_events(file, None)
        events = source.slices(slice(0, arguments.rows))
        lit = np.count_nonzero(events.responses) / len(events)
        sizes = (
            written(events, ".h5"),
            written(events, ".parquet"),
            sparse(events, None),
            sparse(events, "gzip"),
        )
        print(
            f"| {file.stem} | {len(events):,} | {lit:.0f} | {' | '.join(f'{size:.0f}' for size in sizes)} |"
        )


if __name__ == "__main__":
    main()
