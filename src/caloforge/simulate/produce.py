"""Production: events cut into parts, each simulated by a process of its own that ends when its part is written.

A part is a file in the folder `OUT.parts`, which appears whole or not at all. Its particles and Geant4's seeds are
functions of the job's seed and the part's number, and its process begins from nothing, so that neither the number of
jobs nor a kill changes a byte of the output. When all parts are there, they are written to the output in order.

Geant4 ends its process when something is wrong, and so must never run in ours.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any, Literal, get_args
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from caloforge import __version__
from caloforge.detectors import Detector
from caloforge.detectors.base import MEV
from caloforge.events import Events
from caloforge.io import create, provenance
from caloforge.io.files import read_json, replacing, sha256, write_json
from caloforge.particles import mass_and_charge
from caloforge.runtime.bundle import CARD
from caloforge.simulate.fast import FastShowers
from caloforge.simulate.geometry import SAMPLING, Setup, is_binning, setup_named
from caloforge.simulate.physics import PARTICLES, DataFolders, check_physics, find_data, needed

Spectrum = Literal["log", "flat", "fixed"]

ZDC = {"energy", "vx", "vy", "vz", "px", "py", "pz", "mass", "charge"}
"""Conditions of particles that come from the interaction point to a detector far away."""

WORKER = "caloforge.simulate.worker"

PART = 50
"""Events of a part: at 1 TeV a quarter of an hour of a core, far more than the second and a half that it costs."""


@dataclass(frozen=True)
class Job:
    """What is simulated; the same for every part.

    Attributes:
        detector: name of the setup, see `geometry.setup_named`.
        particle: Geant4's name, a key of `physics.PARTICLES`.
        energy: least and greatest kinetic energy, in the setup's unit.
        spectrum: uniform in the logarithm, uniform, or the same energy for all.
        theta: least and greatest angle to the axis [rad].
        phi: least and greatest azimuth [rad].
        seed: 0 to 2^63 - 1.
        cut: range cut of Geant4 [mm].
        physics: a name of `physics.PHYSICS`.
        scoring: `steps` or `replicas` for setups that have both, their own where not given.
        part: events of a part.
        fast: a bundle's folder: it draws the showers of primaries that it was trained on, in place of Geant4.
        layers: what the layers of a binning file are made of, see `sheets`.
        fraction: what the energy in their active sheets is divided by.

    Raises:
        ValueError: a value out of its range.
    """

    detector: str
    particle: str
    energy: tuple[float, float]
    spectrum: Spectrum = "log"
    theta: tuple[float, float] = (0.0, 0.0)
    phi: tuple[float, float] = (0.0, 0.0)
    seed: int = 0
    cut: float = 0.7
    physics: str = "G4EmStandardPhysics"
    scoring: str | None = None
    part: int = PART
    fast: str | None = None
    layers: tuple[str, ...] = ()
    fraction: float | None = None

    def __post_init__(self) -> None:
        check_physics(self.physics, self.particle)
        if self.spectrum not in get_args(Spectrum):
            raise ValueError(f"a spectrum is one of {', '.join(get_args(Spectrum))}, got {self.spectrum!r}")
        for name, (low, high) in (("energy", self.energy), ("theta", self.theta), ("phi", self.phi)):
            if not (np.isfinite([low, high]).all() and low <= high):
                raise ValueError(f"{name} goes from the least to the greatest value, got {low:g} to {high:g}")
        if self.energy[0] <= 0:
            raise ValueError(f"energies must be above 0, got {self.energy[0]:g}")
        if self.spectrum == "fixed" and self.energy[0] != self.energy[1]:
            raise ValueError(f"a fixed energy is given twice, got {self.energy[0]:g} and {self.energy[1]:g}")
        if self.theta[0] < 0 or self.theta[1] >= np.pi / 2:
            raise ValueError(f"theta must lie between 0 and pi/2, got {self.theta[0]:g} to {self.theta[1]:g}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"a seed lies between 0 and 2^63 - 1, got {self.seed}")
        if not 0 < self.cut < np.inf:
            raise ValueError(f"the range cut must be above 0 mm, got {self.cut:g}")
        if self.part < 1:
            raise ValueError(f"a part must hold one event at least, got {self.part}")

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Job:
        """Returns a job from what JSON holds."""
        tuples = {name: tuple(values[name]) for name in ("energy", "theta", "phi", "layers")}
        return cls(**{**values, **tuples})

    def setup(self) -> Setup:
        """Builds the setup."""
        in_layers = self.detector in SAMPLING or is_binning(self.detector)
        # a bundle deposits at points
        scoring = self.scoring or ("steps" if self.fast and in_layers else None)
        return setup_named(self.detector, scoring, self.layers, self.fraction)

    def check(self, setup: Setup) -> None:
        """Checks that the particles can be told by the conditions of the detectors.

        Raises:
            ValueError: they cannot.
        """
        for detector in setup.detectors:
            names = detector.features
            unknown = [name for name in names if name not in ("energy", "incident_energy", "theta", "phi")]
            if unknown and not (detector.face and set(names) <= ZDC):
                raise ValueError(
                    f"{detector.name} has the condition {unknown[0]}; what can be simulated is energy, theta and phi"
                )
            for name, (low, high) in (("theta", self.theta), ("phi", self.phi)):
                # an azimuth of particles along the axis says nothing
                if (
                    name not in names
                    and (low, high) != (0.0, 0.0)
                    and not (name == "phi" and self.theta[1] == 0)
                ):
                    raise ValueError(
                        f"{detector.name} has no condition {name}: particles come along the axis"
                    )


@dataclass(frozen=True)
class Shots:
    """The particles of a part.

    Attributes:
        energy: kinetic energies [MeV], (N,) float32.
        theta: angles to the axis [rad], (N,) float32.
        phi: azimuths [rad], (N,) float32.
        seeds: of Geant4's generator.
        entry: where they enter, from the middle of the front in x and y [mm], (N, 2) float32.
        pdg: the particle.
    """

    energy: NDArray[np.float32]
    theta: NDArray[np.float32]
    phi: NDArray[np.float32]
    seeds: tuple[int, ...]
    entry: NDArray[np.float32]
    pdg: int

    def conditions(self, detector: Detector) -> NDArray[np.float32]:
        """Returns the conditions of a detector, (N, F)."""
        if detector.face:
            return self._from_afar(detector)
        columns = []
        for feature in detector.conditions:
            if feature.name in ("energy", "incident_energy"):
                columns.append(self.energy / np.float32(MEV[feature.unit]))
            else:
                columns.append(self.theta if feature.name == "theta" else self.phi)
        return np.column_stack(columns).astype(np.float32)

    def _from_afar(self, detector: Detector) -> NDArray[np.float32]:
        """Returns the conditions of particles that come straight from the interaction point."""
        mass, charge = mass_and_charge(self.pdg)
        energy = self.energy.astype(np.float64) / MEV["GeV"] + mass
        momentum = np.sqrt(energy**2 - mass**2)[:, None] * self._rays(detector)
        zero = np.zeros((len(energy), 1))
        tail = np.tile([mass, charge], (len(energy), 1))
        return np.hstack([energy[:, None], zero, zero, zero, momentum, tail]).astype(np.float32)

    def _rays(self, detector: Detector) -> NDArray[np.float64]:
        face = detector.face
        assert face is not None
        x, y = (self.entry.astype(np.float64) / 10).T  # mm to cm
        points = np.column_stack([face.x + x, face.y + y, np.full(len(x), face.z)])
        return np.asarray(points / np.linalg.norm(points, axis=1, keepdims=True))

    def directions_to(self, detector: Detector) -> NDArray[np.float64]:
        """Returns unit vectors, (N, 3), of particles that hit a detector."""
        return self._rays(detector) if detector.face else self.directions

    @property
    def directions(self) -> NDArray[np.float64]:
        """Unit vectors, (N, 3)."""
        theta, phi = self.theta.astype(np.float64), self.phi.astype(np.float64)
        sine = np.sin(theta)
        return np.column_stack([sine * np.cos(phi), sine * np.sin(phi), np.cos(theta)])


def shots_of(job: Job, setup: Setup, part: int, rows: int) -> Shots:
    """Draws the particles of a part; the first ones are the same whatever the number of rows.

    Args:
        job: what is simulated.
        setup: where to.
        part: number of the part.
        rows: number of particles.
    """
    energy_unit = setup.energy_unit
    for_particles, for_geant4 = np.random.SeedSequence([job.seed, part]).spawn(2)
    u = np.random.Generator(np.random.Philox(for_particles)).random((rows, 3))
    low, high = (value * MEV[energy_unit] for value in job.energy)
    energy = low * (high / low) ** u[:, 0] if job.spectrum == "log" else low + (high - low) * u[:, 0]
    theta = job.theta[0] + (job.theta[1] - job.theta[0]) * u[:, 1]
    phi = job.phi[0] + (job.phi[1] - job.phi[0]) * u[:, 2]
    # Geant4 takes seeds of 31 bits, and 0 ends the list
    seeds = tuple(int(word >> 1) | 1 for word in for_geant4.generate_state(4))
    entry = np.zeros((rows, 2))
    if any(setup.spot):
        (more,) = for_particles.spawn(1)
        entry = (2 * np.random.Generator(np.random.Philox(more)).random((rows, 2)) - 1) * setup.spot
    e, t, p, xy = (column.astype(np.float32) for column in (energy, theta, phi, entry))
    return Shots(e, t, p, seeds, xy, PARTICLES[job.particle])


@dataclass(frozen=True)
class Plan:
    """A job with all that decides about its bytes.

    Attributes:
        job: what is simulated.
        setup: its volumes and scorer.
        data: the data sets.
    """

    job: Job
    setup: Setup
    data: DataFolders

    @property
    def origin(self) -> dict[str, Any]:
        """What goes into the provenance and decides whether parts belong together."""
        sets = [data_set.folder for data_set in needed(self.job.physics)]
        job = {
            name: value
            for name, value in vars(self.job).items()
            if name not in ("fast", "layers", "fraction")
        }
        if self.job.layers:
            job |= {"layers": self.job.layers, "fraction": self.job.fraction}
            job["detector"] = Path(self.job.detector).name  # the geometry's hash tells binnings apart
        if self.job.fast:
            job["fast"] = {"name": Path(self.job.fast).name, "bundle": sha256(Path(self.job.fast) / CARD)}
        return {
            "simulation": "Geant4",
            "geant4_pybind": wheel_version(),
            "data_sets": {"origin": self.data.origin, "folders": sets},
            **job,
            "energy_unit": self.setup.energy_unit,
            "scoring": self.setup.scorer.kind,
            "geometry_sha256": self.setup.digest,
        }

    @property
    def digest(self) -> str:
        """A hash of the above, which every part carries."""
        return hashlib.sha256(json.dumps(self.origin, sort_keys=True).encode()).hexdigest()


def wheel_version() -> str:
    """Returns the version of the wheel, without importing it.

    Raises:
        ImportError: it is not there; the message says what to install.
    """
    try:
        return version_of("geant4-pybind")
    except PackageNotFoundError:
        raise ImportError("this needs the package geant4-pybind: pip install 'caloforge[geant4]'") from None


def make_plan(job: Job, g4data: Path | None = None) -> Plan:
    """Builds the setup, finds the data sets and checks the job.

    Args:
        job: what is simulated.
        g4data: the folder of the data sets; see `physics.find_data` where not given.

    Raises:
        ImportError: Geant4 is not installed.
        ValueError: something does not fit, or data sets are missing.
    """
    wheel_version()
    setup = job.setup()
    job.check(setup)
    if job.fast:
        FastShowers(Path(job.fast), setup, job.seed)
    return Plan(job, setup, find_data(job.physics, g4data))


def outputs(setup: Setup, out: Path) -> list[Path]:
    """Returns the file of each detector: `OUT` of one, and of several `OUT-name` each."""
    if len(setup.detectors) == 1:
        return [out]
    return [out.with_stem(f"{out.stem}-{detector.name}") for detector in setup.detectors]


def simulate(
    job: Job,
    out: str | Path,
    events: int,
    *,
    jobs: int = 1,
    g4data: Path | None = None,
    resume: bool = False,
    keep: bool = False,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> list[Path]:
    """Simulates events and returns the files written, one for each detector; row k of all is the same shower.

    Args:
        job: what is simulated.
        out: the file to write.
        events: how many.
        jobs: processes at once.
        g4data: the folder of Geant4's data sets.
        resume: go on with what is there, or start where nothing is; more events than before are fine.
        keep: leave the parts, for more events later on.
        progress: called with the events simulated so far, and all of them.

    Raises:
        ImportError: Geant4 is not installed.
        ValueError: something does not fit, data sets are missing, an output is there already, or parts of another
            job are. Also whatever made Geant4 give up.
    """
    if events < 1 or jobs < 1:
        raise ValueError(f"events and jobs must be 1 at least, got {events} and {jobs}")
    out = Path(out)
    plan = make_plan(job, g4data)
    files = outputs(plan.setup, out)
    folder = out.with_name(f"{out.name}.parts")
    if _is_done(files, plan, events, resume):
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
        progress(events, events)
        return files
    _begin(folder, plan, resume)
    parts = [(number, min(job.part, events - number * job.part)) for number in range(-(-events // job.part))]
    missing = [(number, rows) for number, rows in parts if not _holds(_part(folder, number), plan, rows)]
    done = events - sum(rows for _, rows in missing)
    progress(done, events)
    for rows in _run(plan, folder, missing, jobs):
        done += rows
        progress(done, events)
    for stale in folder.glob(".part-*"):
        stale.unlink(missing_ok=True)  # of processes that were killed
    versions = {_read(_part(folder, number), plan)["geant4"] for number, _ in parts}
    if len(versions) != 1:
        raise ValueError(f"{folder} holds parts of several versions of Geant4: {', '.join(sorted(versions))}")
    origin = _provenance(plan, events) | {"geant4": versions.pop()}
    for index, (file, detector) in enumerate(zip(files, plan.setup.detectors, strict=True)):
        with create(file, detector, origin) as writer:
            for batch in _events_of(folder, plan, parts, detector, index):
                writer.append(batch)
    if not keep:
        shutil.rmtree(folder)
    return files


def _provenance(plan: Plan, events: int) -> dict[str, Any]:
    return {**json.loads(json.dumps(plan.origin)), "events": events, "version": __version__}


def _is_done(files: Sequence[Path], plan: Plan, events: int, resume: bool) -> bool:
    there = [file for file in files if file.exists()]
    if there and not resume:
        raise ValueError(f"{there[0]} is there already: choose another name, or --resume")
    expected = _provenance(plan, events)
    complete = len(there) == len(files)
    for file in there:
        seen = provenance(file)
        _check_same(file, {name: seen.get(name) for name in plan.origin}, plan)
        complete = complete and seen.get("events") == expected["events"]
    return complete


def _check_same(path: Path, seen: Mapping[str, Any], plan: Plan) -> None:
    expected = json.loads(json.dumps(plan.origin))
    different = [name for name in expected if expected[name] != seen.get(name)]
    if different:
        name = different[0]
        raise ValueError(f"{path} is of another job: {name} was {seen.get(name)}, now {expected[name]}")


def _begin(folder: Path, plan: Plan, resume: bool) -> None:
    """Makes the folder of the parts, or checks that the one there is of this job."""
    file = folder / "plan.json"
    if folder.exists() and not resume:
        raise ValueError(f"{folder} is there: a job was begun. Go on with --resume, or remove the folder")
    if file.exists():
        _check_same(folder, read_json(file), plan)
        return
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise ValueError(f"cannot make the folder {folder}: {error}") from error
    write_json(file, plan.origin)


def _part(folder: Path, number: int) -> Path:
    return folder / f"part-{number:06d}.npz"


def write_part(path: Path, **arrays: Any) -> None:
    """Writes the arrays of a part; it appears whole, and is on the disk when it does."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def _read(path: Path, plan: Plan) -> dict[str, Any]:
    """Reads what a part says about itself; its arrays are read when they are asked for."""
    try:
        with path.open("rb") as file, np.load(file) as part:
            about = {name: str(part[name]) for name in ("digest", "geant4")}
            rows = int(part["rows"])
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise ValueError(f"{path} is not a part, or damaged ({error}): remove it and --resume") from error
    if about["digest"] != plan.digest:
        raise ValueError(f"{path} is of another job: remove it and --resume")
    return {**about, "rows": rows}


def _holds(path: Path, plan: Plan, rows: int) -> bool:
    return path.exists() and int(_read(path, plan)["rows"]) >= rows


def _events_of(
    folder: Path, plan: Plan, parts: Sequence[tuple[int, int]], detector: Detector, index: int
) -> Iterator[Events]:
    pdg = PARTICLES[plan.job.particle]
    for number, rows in parts:
        with np.load(_part(folder, number)) as part:
            responses = part[f"responses_{index}"][:rows]
        first = number * plan.job.part
        event = np.arange(first, first + rows, dtype=np.int32)
        shots = shots_of(plan.job, plan.setup, number, rows)
        yield Events(
            detector,
            conditions=shots.conditions(detector),
            pdg=np.full(rows, pdg, np.int32),
            group=event,
            fold=(event % 10).astype(np.int8),
            responses=responses.reshape(-1, *detector.shape),
        )


def _run(plan: Plan, folder: Path, parts: Sequence[tuple[int, int]], jobs: int) -> Iterator[int]:
    """Simulates parts, several at once, and gives the number of rows of each that is done."""
    running: dict[int, _Process] = {}
    waiting = list(reversed(parts))
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                number, rows = waiting.pop()
                running[number] = _Process(plan, _part(folder, number), number, rows)
            ended = [number for number, process in running.items() if process.ended()]
            for number in ended:
                yield running.pop(number).result()
            if not ended:
                time.sleep(0.02)
    finally:
        for process in running.values():
            process.kill()


class _Process:
    """A process that simulates one part."""

    def __init__(self, plan: Plan, path: Path, number: int, rows: int) -> None:
        self._number, self._rows = number, rows
        task = {
            "job": dataclasses.asdict(plan.job),
            "part": number,
            "rows": rows,
            "path": str(path.resolve()),
            "digest": plan.digest,
            "geometry_sha256": plan.setup.digest,
            "substitutes": plan.data.origin == "substitutes",
            "parent": os.getpid(),
        }
        environment = plan.data.environment(os.environ)
        # the modules that we can import, the user's own among them
        environment["PYTHONPATH"] = os.pathsep.join(str(Path(entry or ".").resolve()) for entry in sys.path)
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-P", "-m", WORKER, json.dumps(task)],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=environment,
        )

    def ended(self) -> bool:
        """Says whether the process has ended."""
        return self._process.poll() is not None

    def result(self) -> int:
        """Returns the number of rows.

        Raises:
            ValueError: the process failed; the message says why, in one line.
        """
        with self._log:
            self._log.seek(0)
            text = self._log.read()
        code = self._process.returncode
        if code:
            raise ValueError(reason_of(text, code, self._number))
        return self._rows

    def kill(self) -> None:
        """Ends the process."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()
        self._log.close()


ERROR = "caloforge: error: "
"""Begins the line with which a worker says what is wrong."""


def reason_of(text: str, code: int, part: int) -> str:
    """Says in one line why a worker failed.

    Args:
        text: what it wrote.
        code: its exit code, or minus the signal that ended it.
        part: number of its part.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    ours = [line.removeprefix(ERROR) for line in lines if line.startswith(ERROR)]
    if ours:
        return ours[-1]
    how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
    if code in (-6, 134):
        how = "aborted (exit code 134)"
    why = ""
    starts = [number for number, line in enumerate(lines) if line.startswith("*** G4Exception :")]
    if starts:
        exception = lines[starts[-1] :]
        stop = next((k for k, line in enumerate(exception) if k and line.startswith(("***", "---"))), 6)
        why = " ".join(line.removeprefix("*** ") for line in exception[:stop])
    elif lines:
        why = lines[-1]
    again = " What is done stays: go on with --resume." if code in (-9, -15) else ""
    return f"Geant4 {how} in part {part}: {why[:400] or 'it said nothing'}.{again}"
