"""Several files of events as one, in constant memory: the parts of a production."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from caloforge.events import Primaries
from caloforge.io.files import sha256
from caloforge.io.formats import create, format_of, further_columns, in_parts, open_data, provenance
from caloforge.io.source import Columns, reading

OWN = ("first_event", "outside_domain")
"""What the shards of one job differ in."""


def merge(
    paths: Sequence[str | Path], out: str | Path, progress: Callable[[int], object] = lambda rows: None
) -> int:
    """Writes the rows of several files one after the other.

    Files that one job generated in shards are put in the order of their events and get the provenance of the whole
    job, so that the result is that of the job in one go; a gap or an overlap is an error. Other files keep the order
    in which they are given, and the provenance names them all.

    Args:
        paths: files of one detector, all of events or all of particles, with the same further columns.
        out: the file to write; its format goes by the suffix.
        progress: called with the number of rows written so far.

    Returns:
        number of rows.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no file, files that do not fit together, shards with a gap, or an output that is an input.
    """
    files = [Path(path) for path in paths]
    if not files:
        raise ValueError("nothing to merge: give one file at least")
    for path in files:
        if path.resolve() == Path(out).resolve():
            raise ValueError(
                f"{out} is one of the files to merge, which it would replace: choose another name"
            )
    rows = {path: len(open_data(path)) for path in files}
    origins = {path: provenance(path) for path in files}
    shards = [origin for origin in origins.values() if _is_shard(origin)]
    if len(shards) == len(files) and len(files) > 1 and all(_job(a) == _job(b) for a, b in pairwise(shards)):
        files.sort(key=lambda path: origins[path]["first_event"])
        _check_gaps(files, origins, rows)
        outside = sum(origins[path].get("outside_domain", 0) for path in files)
        origin = {**origins[files[0]], "outside_domain": outside}
    elif len(files) == 1:
        origin = origins[files[0]]
    else:
        origin = {
            "merged_from": [
                {"name": path.name, "sha256": sha256(path), "provenance": origins[path]} for path in files
            ]
        }
    return write_all((slice_ for path in files for slice_ in slices(path)), Path(out), origin, progress)


def slices(path: Path) -> Iterator[tuple[Primaries, Columns]]:
    """Reads a file of events or of particles, with its further columns, slice by slice."""
    source, kind = open_data(path), format_of(path)
    if kind.further is None:
        raise ValueError(f"{path}: {kind.title} files cannot be merged; convert them first")
    further = further_columns(path, (source if isinstance(source, Primaries) else source.primaries).detector)
    for rows, part in in_parts(source):
        with reading(path):
            columns = further.read(rows.start, rows.stop)
        yield part, columns


def write_all(
    parts: Iterator[tuple[Primaries, Columns]],
    out: Path,
    origin: Mapping[str, Any],
    progress: Callable[[int], object] = lambda rows: None,
) -> int:
    """Writes slices to a file and returns the number of rows."""
    first, columns = next(parts)
    done = 0
    with create(out, first.detector, origin) as writer:
        while True:
            writer.append(first, columns)
            done += len(first)
            progress(done)
            following = next(parts, None)
            if following is None:
                return done
            first, columns = following


def _is_shard(origin: Mapping[str, Any]) -> bool:
    """Tells whether a provenance is that of a production; a foreign file may say anything."""
    numbers = (origin.get("first_event"), origin.get("outside_domain", 0))
    return "bundle" in origin and all(type(number) is int for number in numbers)


def _job(origin: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in origin.items() if name not in OWN}


def _check_gaps(
    files: Sequence[Path], origins: Mapping[Path, Mapping[str, Any]], rows: Mapping[Path, int]
) -> None:
    for before, after in pairwise(files):
        expected, got = origins[before]["first_event"] + rows[before], origins[after]["first_event"]
        if expected != got:
            what = "is missing" if got > expected else "is there twice"
            raise ValueError(
                f"{after} starts with event {got}, and {before} ends before event {expected}: "
                f"a part between them {what}"
            )
