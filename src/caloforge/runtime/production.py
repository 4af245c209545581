"""Production: any number of primaries through a bundle, in parts that many workers make and none makes twice.

The rows of the primaries are cut into parts of `part` rows. A part is a file beside the output, in the folder
`OUT.parts`, which appears whole or not at all; which worker or job makes it, and when, changes nothing in it, since
event k is a function of seed and k and every batch is filled up. They are written to the output one after the other,
each as soon as it and all before it are there, while workers make the next; when the output is whole they are removed.
So whatever is killed, at whatever moment, the parts that are there stay, and the output is the same to the byte (a ROOT
file but for its time stamps).

Beside each part lies its seal, which holds the hash of the job, the number of the part and the hash of its bytes. A
resumed job makes again what has no seal that fits. While a job runs it holds a lock beside its output.

A shard is a run of neighbouring parts with an output of its own; `io.merging.merge` makes of all shards the file
that one job would have written.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from caloforge import __version__
from caloforge.events import ParticleSource, Primaries, rows_at_once
from caloforge.io import carried, create, provenance, sha256
from caloforge.io.files import read_json, write_json, write_text
from caloforge.io.formats import FORMATS, format_of
from caloforge.io.merging import slices, write_all
from caloforge.io.source import Columns
from caloforge.runtime.bundle import BATCH, Surrogate, origin_of_bundle
from caloforge.runtime.generate import Readout, read_out
from caloforge.runtime.locking import alone
from caloforge.runtime.noise import check_numbers

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
        trust: run code outside the package that the bundle names.
    """

    bundle: Path
    seed: int = 0
    first_event: int = 0
    readout: Readout = "responses"
    part: int = PART
    trust: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"the seed must be a number from 0 to 2^64 - 1, got {self.seed}")
        if not 0 <= self.first_event < 2**63:
            raise ValueError(f"the first event must be a number from 0 to 2^63 - 1, got {self.first_event}")
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


Task = tuple[Job, int, Primaries, NDArray[np.bool_], Path, str]
"""A part: job, number of its first row, its primaries, which are inside the domain, its file, hash of the plan."""


@lru_cache(1)
def _load(bundle: Path, trust: bool) -> Surrogate:
    return Surrogate.load(bundle, trust=trust)


def _surrogate(job: Job) -> Surrogate:
    return _load(job.bundle, job.trust)


def make_part(
    job: Job, start: int, primaries: Primaries, inside: NDArray[np.bool_], path: Path, plan: str = ""
) -> int:
    """Generates some rows and writes them to a file of their own, and its seal.

    Args:
        job: what is generated.
        start: number of the first row within the job.
        primaries: these rows.
        inside: which are like those of the training, (N,).
        path: the file.
        plan: hash of the whole plan, which the seal holds.

    Returns:
        number of rows.

    Raises:
        ValueError: the bundle gives what is no response.
        OSError: the file cannot be written.
    """
    _seal(path).unlink(missing_ok=True)
    surrogate = _surrogate(job)
    origin = {"outside_domain": int(np.count_nonzero(~inside))}
    with create(path, primaries.detector, origin) as writer:
        for rows, events, columns in _generated(surrogate, job, start, primaries):
            writer.append(events, {**columns, "in_domain": inside[rows]})
    write_text(_seal(path), json.dumps(_content(path, start, len(primaries), plan)))
    return len(primaries)


def _seal(path: Path) -> Path:
    return path.with_suffix(".json")


def _content(path: Path, start: int, rows: int, plan: str) -> dict[str, Any]:
    """Returns what the seal of a part says."""
    return {"plan": plan, "start": start, "rows": rows, "sha256": sha256(path)}


def _fault(path: Path, start: int, rows: int, plan: str) -> str:
    """Returns what is wrong with a part that is there; empty where it is this job's and whole."""
    try:
        seal = json.loads(_seal(path).read_text(encoding="utf-8"))
        content = _content(path, start, rows, plan)
    except FileNotFoundError:
        return "has no seal"
    except (OSError, ValueError, RecursionError):
        return "cannot be read, or its seal cannot"
    if not isinstance(seal, dict) or seal.get("plan") != plan:
        return "is of another job"
    if (seal.get("start"), seal.get("rows")) != (start, rows):
        return "is another part of the job under this name"
    return "" if seal == content else "is not what was written: its hash differs"


def _clear(folder: Path) -> None:
    """Removes the files of a job from its folder, and the folder unless something else is in it."""
    for pattern in ("part-*.h5", "part-*.json", ".part-*", ".plan*"):
        for file in folder.glob(pattern):
            file.unlink(missing_ok=True)
    with suppress(OSError):
        (folder / "plan.json").unlink(missing_ok=True)
        folder.rmdir()


def _generated(
    surrogate: Surrogate, job: Job, start: int, primaries: Primaries
) -> Iterator[tuple[slice, Primaries, Columns]]:
    """Gives slices of a part: which rows, events or particles alone, and the columns of sums."""
    source = surrogate.source(primaries, seed=job.seed, first_event=job.first_event + start, exact=True)
    step = rows_at_once(surrogate.detector)
    for row in range(0, len(primaries), step):
        rows = slice(row, min(row + step, len(primaries)))
        yield rows, *read_out(source, rows, job.readout)


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
    say: Callable[[str], object] = lambda text: None,
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
        say: called with a line for each part that is there and cannot be trusted; it is made again.

    Raises:
        ValueError: a job or a shard that does not fit, an output that is there already, parts of another job,
            another job at work on this output, a format that is not written.
        OSError: workers die again and again without finishing a part, a scheduler is gone, the disk is full.
    """
    surrogate = _surrogate(job)
    _check(surrogate, job, particles)
    rows = len(particles)
    parts = shard.parts(-(-rows // job.part))
    if not parts:
        raise ValueError(
            f"shard {shard.number}/{shard.of} is empty: {rows:,} rows in parts of {job.part} give "
            f"{-(-rows // job.part)} parts"
        )
    target = shard.output(out)
    _check_output(target)
    with alone(target, say):
        return _produce(job, particles, primaries, target, parts, workers, resume, progress, say)


def _produce(
    job: Job,
    particles: ParticleSource,
    primaries: Path,
    target: Path,
    parts: range,
    workers: Workers | None,
    resume: bool,
    progress: Callable[[int, int], object],
    say: Callable[[str], object],
) -> Path:
    """Generates the parts of a shard and joins them; the output is locked."""
    surrogate, rows = _surrogate(job), len(particles)
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
        origin_there = {name: value for name, value in provenance(target).items() if name != "outside_domain"}
        if origin_there != origin:
            raise ValueError(f"{target} was generated by another job: choose another name")
        # a kill may have come after the plan was removed, and before its folder
        if folder.is_dir() and ((folder / "plan.json").exists() or not any(folder.iterdir())):
            _clear(folder)
        progress(last - first, last - first)
        return target
    plan = {**origin, "part": job.part, "last": last}
    _begin(folder, plan, resume)
    digest = hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()

    def file(number: int) -> Path:
        return folder / f"part-{number:06d}.h5"

    def is_made(number: int) -> bool:
        if not file(number).exists():
            return False
        start = number * job.part
        fault = _fault(file(number), start, min(start + job.part, rows) - start, digest)
        if fault:
            say(f"{file(number)} {fault}; it is made again")
            file(number).unlink()
        return not fault

    missing = [number for number in parts if not is_made(number)]

    def tasks() -> Iterator[Task]:
        for number in [number for number in missing if not file(number).exists() or not is_made(number)]:
            start = number * job.part
            chosen = particles.select(slice(start, min(start + job.part, rows)))
            yield job, start, chosen, surrogate.domain.inside(chosen), file(number), digest

    done = last - first - sum(min((n + 1) * job.part, rows) - n * job.part for n in missing)
    progress(done, last - first)
    waiting = {file(number) for number in missing}
    made = _run(tasks, workers if len(missing) > 1 else None)

    def pieces() -> Iterator[tuple[Primaries, Columns]]:
        nonlocal done
        for number in parts:
            while file(number) in waiting:
                path, rows_made = next(made)
                waiting.discard(path)
                done += rows_made
                progress(done, last - first)
            yield from slices(file(number))

    outside = sum(
        int(
            np.count_nonzero(
                ~surrogate.domain.inside(particles.select(slice(row, min(row + job.part, last))))
            )
        )
        for row in range(first, last, job.part)
    )
    try:
        with closing(made):
            write_all(
                _with_carried(pieces(), primaries, first), target, {**origin, "outside_domain": outside}
            )
    except Exception:
        if not any(folder.glob("part-*.h5")):
            _clear(folder)  # nothing is lost, and a job that was refused leaves nothing
        raise
    _clear(folder)
    return target


def _with_carried(
    parts: Iterator[tuple[Primaries, Columns]], primaries: Path, row: int
) -> Iterator[tuple[Primaries, Columns]]:
    """Adds the columns of the primaries' file that go with its rows, such as the number of the collision."""
    further = carried(primaries)
    for events, columns in parts:
        yield events, {**further.read(row, row + len(events)), **columns}
        row += len(events)


def check_production(job: Job, particles: ParticleSource, out: Path, shards: int = 1) -> None:
    """Checks everything of a job that can be checked before it starts; nothing is written.

    Raises:
        ValueError: a bundle, particles, an output or a number of shards that do not fit.
    """
    _check(_surrogate(job), job, particles)
    _check_output(out)
    parts = -(-len(particles) // job.part)
    if shards > parts:
        raise ValueError(
            f"{shards} shards want as many parts, and {len(particles):,} rows in parts of {job.part} give {parts}"
        )


def _check_output(path: Path) -> None:
    kind = format_of(path)
    if kind.output is None or kind.further is None:
        known = ", ".join(suffix for suffix, other in FORMATS.items() if other.output and other.further)
        raise ValueError(f"a production is written to one of {known}, got {path}")
    if not path.parent.is_dir():
        raise ValueError(f"cannot write {path}: there is no folder {path.parent}")
    if path.is_dir():
        raise ValueError(f"cannot write {path}: it is a folder")
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"cannot write {path}: the folder {path.parent} is not writable")


def _check(surrogate: Surrogate, job: Job, particles: ParticleSource) -> None:
    check_numbers(job.seed, job.first_event, len(particles))
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
        begun = read_json(file)
        different = [name for name in plan if plan[name] != begun.get(name)]
        if different:
            raise ValueError(
                f"{folder} was begun by another job: {different[0]} was {begun.get(different[0])}, "
                f"now {plan[different[0]]}"
            )
        return
    elif any(not path.name.startswith(".plan") for path in folder.iterdir()):
        raise ValueError(
            f"{folder} is not the folder of a job, and not empty: move it, or choose another name"
        )
    write_json(file, plan)


def _run(
    tasks: Callable[[], Iterator[Task]], workers: Workers | None
) -> Generator[tuple[Path, int], None, None]:
    """Makes parts and gives file and number of rows of each; workers that die are replaced."""
    if workers is None:
        for task in tasks():
            yield task[-2], make_part(*task)
        return
    while True:
        finished = 0
        try:
            with workers() as executor:
                for part in _bounded(executor, tasks()):
                    finished += 1
                    yield part
            return
        except BrokenExecutor as error:
            if not finished:
                raise OSError("workers die before one finishes a part; --resume goes on") from error


def _bounded(executor: Executor, tasks: Iterator[Task]) -> Iterator[tuple[Path, int]]:
    """Submits tasks a few at a time, since each holds its particles."""
    slots = 2 * getattr(executor, "_max_workers", 8)
    running: dict[Future[int], Path] = {}

    def ended() -> Iterator[tuple[Path, int]]:
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            yield running.pop(future), future.result()

    for task in tasks:
        running[executor.submit(make_part, *task)] = task[-2]
        if len(running) >= slots:
            yield from ended()
    while running:
        yield from ended()


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
