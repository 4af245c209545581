"""Production: any number of primaries through a bundle, in parts that many workers make and none makes twice.

The rows of the primaries are cut into parts of `part` rows. A part is a file beside the output, in the folder
`OUT.parts`, which appears whole or not at all; which worker or job makes it, and when, changes nothing in it, since
event k is a function of seed and k and every batch is filled up. When all parts are there they are written to the
output one after the other and removed. So whatever is killed, at whatever moment, the parts that are there stay, and
the output is the same to the byte (a ROOT file but for its time stamps).

A shard is a run of neighbouring parts with an output of its own; `io.merging.merge` makes of all shards the file
that one job would have written.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from caloforge import __version__
from caloforge.events import ParticleSource, Primaries, in_slices, rows_at_once
from caloforge.io import create, provenance, sha256
from caloforge.io.files import read_json, write_json
from caloforge.io.merging import slices, write_all
from caloforge.io.source import Columns, channel_columns
from caloforge.runtime.bundle import BATCH, Surrogate, origin_of_bundle

Readout = Literal["responses", "channels", "both"]

PART = 4096
"""Rows of a part: a multiple of what writers collect, so that shards merge to the same bytes."""

Workers = Callable[[], AbstractContextManager[Executor]]


@dataclass(frozen=True)
class Job:
    """What is generated; the same for every part.

    Attributes:
        bundle: its folder.
        seed: 0 to 2^64 - 1.
        first_event: number of the first primary's event.
        readout: responses, the sums of the bundle's channels, or both.
        part: rows of a part, a multiple of 1024.
    """

    bundle: Path
    seed: int = 0
    first_event: int = 0
    readout: Readout = "responses"
    part: int = PART

    def __post_init__(self) -> None:
        if self.readout not in get_args(Readout):
            raise ValueError(f"readout must be one of {', '.join(get_args(Readout))}, got {self.readout!r}")
        if self.part < 1 or self.part % 1024:
            raise ValueError(f"a part must be a multiple of 1024 rows, got {self.part}")


@dataclass(frozen=True)
class Shard:
    """One of several equal shares of a job.

    Attributes:
        number: from 0.
        of: number of shards.
    """

    number: int = 0
    of: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.number < self.of:
            raise ValueError(f"a shard i/n has 0 <= i < n, got {self.number}/{self.of}")

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Reads "i/n".

        Raises:
            ValueError: it is something else.
        """
        number, _, of = text.partition("/")
        if not (number.isdecimal() and of.isdecimal()):
            raise ValueError(f"a shard is given as i/n, 0/4 for the first of four, got {text!r}")
        return cls(int(number), int(of))

    def output(self, out: Path) -> Path:
        """Returns the name of this shard's output; that of the job where there is one shard."""
        width = len(str(self.of - 1))
        return out if self.of == 1 else out.with_stem(f"{out.stem}-{self.number:0{width}d}-of-{self.of}")

    def parts(self, all_parts: int) -> range:
        """Returns the parts of this shard."""
        return range(all_parts * self.number // self.of, all_parts * (self.number + 1) // self.of)


@lru_cache(1)
def _surrogate(bundle: Path) -> Surrogate:
    return Surrogate.load(bundle)


def make_part(job: Job, start: int, primaries: Primaries, path: Path) -> int:
    """Generates some rows and writes them to a file of their own.

    Args:
        job: what is generated.
        start: number of the first row within the job.
        primaries: these rows.
        path: the file.

    Returns:
        number of rows.
    """
    surrogate = _surrogate(job.bundle)
    inside = surrogate.domain.inside(primaries)
    origin = {"outside_domain": int(np.count_nonzero(~inside))}
    with create(path, primaries.detector, origin) as writer:
        for rows, found, columns in _generated(surrogate, job, start, primaries):
            writer.append(found, {**columns, "in_domain": inside[rows]})
    return len(primaries)


def _generated(
    surrogate: Surrogate, job: Job, start: int, primaries: Primaries
) -> Iterator[tuple[slice, Primaries, Columns]]:
    """Gives slices of a part: which rows, events or particles alone, and the columns of sums."""
    names = channel_columns(surrogate.detector, surrogate.card["channels"])
    first = job.first_event + start
    if surrogate.card["kind"] == "readout":
        step = rows_at_once(surrogate.detector)
        for row in range(0, len(primaries), step):
            rows = slice(row, min(row + step, len(primaries)))
            chosen = primaries.select(rows)
            sums = surrogate.channel_sums(
                chosen, seed=job.seed, first_event=first + row, exact=True, on_outside="flag"
            )
            yield rows, chosen, dict(zip(names, sums.T, strict=True))
        return
    source = surrogate.source(primaries, seed=job.seed, first_event=first, exact=True)
    row = 0
    for events in in_slices(source):
        rows = slice(row, row + len(events))
        row = rows.stop
        columns: Columns = {}
        if job.readout != "responses":
            sums = surrogate.detector.readout(events.responses, surrogate.card["channels"])
            columns = dict(zip(names, sums.T, strict=True))
        yield rows, primaries.select(rows) if job.readout == "channels" else events, columns


def produce(
    job: Job,
    particles: ParticleSource,
    primaries: Path,
    out: Path,
    *,
    shard: Shard = Shard(),
    workers: Workers | None = None,
    resume: bool = False,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Path:
    """Generates a job, or a shard of it, and returns the file written.

    Args:
        job: what is generated.
        particles: the primaries, in memory or of a file (`io.open_particles`).
        primaries: their file, whose hash tells a resumed job that they are the same.
        out: the file to write; a shard writes one beside it, with its number in the name.
        shard: the share.
        workers: gives an executor for the parts; they are made one after the other in this process where not given.
        resume: go on with what is there, or start where nothing is.
        progress: called with the rows made so far, and all of them.

    Raises:
        ValueError: a job or a shard that does not fit, an output that is there already, parts of another job.
        BrokenExecutor: workers die again and again without finishing a part.
    """
    surrogate = _surrogate(job.bundle)
    _check(surrogate, job, particles)
    rows = len(particles)
    parts = shard.parts(-(-rows // job.part))
    if not parts:
        raise ValueError(
            f"shard {shard.number}/{shard.of} is empty: {rows:,} rows in parts of {job.part} give "
            f"{-(-rows // job.part)} parts"
        )
    target = shard.output(out)
    first, last = parts.start * job.part, min(parts.stop * job.part, rows)
    origin = {
        **origin_of_bundle(surrogate.card, job.bundle),
        "seed": job.seed,
        "first_event": job.first_event + first,
        "readout": job.readout,
        "batch_size": BATCH,
        "exact": True,
        "primaries": {"name": primaries.name, "sha256": sha256(primaries), "rows": rows},
        "version": __version__,
    }
    folder = target.with_name(f"{target.name}.parts")
    if target.exists():
        if not resume:
            raise ValueError(f"{target} is there already: choose another name, or --resume")
        held = {name: value for name, value in provenance(target).items() if name != "outside_domain"}
        if held != origin:
            raise ValueError(f"{target} was generated by another job: choose another name")
        shutil.rmtree(folder, ignore_errors=True)
        progress(last - first, last - first)
        return target
    _begin(folder, {**origin, "part": job.part, "last": last}, resume)

    def file(number: int) -> Path:
        return folder / f"part-{number:06d}.h5"

    missing = [number for number in parts if not file(number).exists()]

    def tasks() -> Iterator[tuple[Job, int, Primaries, Path]]:
        for number in [number for number in missing if not file(number).exists()]:
            start = number * job.part
            yield job, start, particles.select(slice(start, min(start + job.part, rows))), file(number)

    done = last - first - sum(min((n + 1) * job.part, rows) - n * job.part for n in missing)
    progress(done, last - first)
    for made in _run(tasks, workers):
        done += made
        progress(done, last - first)
    for stale in target.parent.glob(f".{target.stem}.partial-*{target.suffix}"):
        stale.unlink(missing_ok=True)  # of a job that was killed while it wrote
    outside = sum(provenance(file(number))["outside_domain"] for number in parts)
    write_all(
        (found for number in parts for found in slices(file(number))),
        target,
        {**origin, "outside_domain": outside},
    )
    shutil.rmtree(folder)
    return target


def _check(surrogate: Surrogate, job: Job, particles: ParticleSource) -> None:
    theirs = particles.detector
    if theirs.name != surrogate.detector.name:
        raise ValueError(f"the bundle is for {surrogate.detector.name}, got particles of {theirs.name}")
    if surrogate.card["kind"] == "readout" and job.readout != "channels":
        raise ValueError(f"{surrogate.card['name']} predicts channel sums only: the readout is channels")


def _begin(folder: Path, plan: Mapping[str, Any], resume: bool) -> None:
    """Makes the folder of the parts, or checks that the one there is of this job."""
    file = folder / "plan.json"
    if not folder.exists():
        try:
            folder.mkdir()
        except OSError as error:
            raise ValueError(f"cannot make the folder {folder}: {error}") from error
    elif not resume:
        raise ValueError(f"{folder} is there: a job was begun. Go on with --resume, or remove the folder")
    elif file.exists():
        found = read_json(file)
        different = [name for name in plan if plan[name] != found.get(name)]
        if different:
            raise ValueError(
                f"{folder} was begun by another job: {different[0]} was {found.get(different[0])}, "
                f"now {plan[different[0]]}"
            )
        return
    write_json(file, plan)


def _run(
    tasks: Callable[[], Iterator[tuple[Job, int, Primaries, Path]]], workers: Workers | None
) -> Iterator[int]:
    """Makes parts and gives the number of rows of each; workers that die are replaced."""
    if workers is None:
        for task in tasks():
            yield make_part(*task)
        return
    while True:
        finished = 0
        try:
            with workers() as executor:
                for made in _bounded(executor, tasks()):
                    finished += 1
                    yield made
            return
        except BrokenExecutor:
            if not finished:
                raise


def _bounded(executor: Executor, tasks: Iterator[tuple[Job, int, Primaries, Path]]) -> Iterator[int]:
    """Submits tasks a few at a time, since each holds its particles."""
    slots = 2 * getattr(executor, "_max_workers", 8)
    running: set[Future[int]] = set()
    for task in tasks:
        running.add(executor.submit(make_part, *task))
        if len(running) >= slots:
            ended, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in ended)
    while running:
        ended, running = wait(running, return_when=FIRST_COMPLETED)
        yield from (future.result() for future in ended)


def processes(jobs: int) -> Workers:
    """Returns workers that are processes of this machine."""

    @contextmanager
    def pool() -> Iterator[Executor]:
        with ProcessPoolExecutor(
            jobs, mp_context=get_context("spawn"), initializer=_follow, initargs=(os.getpid(),)
        ) as executor:
            yield executor

    return pool


def _follow(parent: int) -> None:
    """Ends this process when its parent has: a pool does not notice that the job was killed."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
