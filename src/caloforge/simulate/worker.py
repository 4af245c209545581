"""The process that simulates one part: the only place where Geant4 is imported.

It is started by `produce` with the data sets in its environment, and ends by itself when the production is gone.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge._lookup import require
from caloforge.simulate.fast import FastShowers
from caloforge.simulate.geometry import Box, Mixture, Setup, Volume, borders_between, layer_of, mesh_cells
from caloforge.simulate.physics import DATA_SETS, EM_LISTS, PARTICLES
from caloforge.simulate.produce import ERROR, Job, Shots, shots_of, write_part

COLLECTION = ("cells", "deposit")

BACK = 5.0
"""Distance in z from the front at which primaries of a fast simulation start, so that they enter [mm]."""

FLUSH = 2**16
"""Steps that are kept as Python numbers before they become arrays."""


def _logical_volumes(g4: Any, setup: Setup, alive: list[Any]) -> tuple[Any, Any]:
    """Places all volumes and returns the world and the logical volumes that are counted."""
    nist = g4.G4NistManager.Instance()
    reach = np.abs([volume.centre for volume in setup.volumes]) + [
        volume.shape.half for volume in setup.volumes
    ]
    half = np.maximum(reach.max(0), np.abs(setup.front)) * 1.05 + 10.0
    solid = g4.G4Box("world", *map(float, half))
    logical = g4.G4LogicalVolume(solid, nist.FindOrBuildMaterial("G4_Galactic"), "world")
    world = g4.G4PVPlacement(None, g4.G4ThreeVector(), logical, "world", None, False, 0)
    alive += [solid, logical, world]
    logicals: dict[Any, Any] = {}
    counted: list[Any] = []
    mother, origin = logical, np.zeros(3)
    for volume in setup.volumes:
        key = (volume.shape, volume.material, volume.cell is not None)
        if key not in logicals:
            logicals[key] = _logical_volume(g4, nist, volume, f"volume{len(logicals)}", alive)
            if volume.cell is not None:
                counted.append(
                    _replicas(g4, setup, volume, logicals[key], alive)
                    if setup.scorer.kind == "replicas"
                    else logicals[key]
                )
        within, start = (mother, origin) if volume.inside else (logical, np.zeros(3))
        place = g4.G4ThreeVector(*map(float, volume.centre - start))
        alive.append(g4.G4PVPlacement(None, place, logicals[key], "placed", within, False, volume.cell or 0))
        if not volume.inside:
            mother, origin = logicals[key], np.array(volume.centre)
    return world, counted


def _logical_volume(g4: Any, nist: Any, volume: Volume, name: str, alive: list[Any]) -> Any:
    material = _material(g4, nist, volume.material, alive)
    if isinstance(volume.shape, Box):
        solid = g4.G4Box(name, *volume.shape.half)
    else:
        tube = volume.shape
        solid = g4.G4Tubs(name, tube.inner, tube.outer, tube.length / 2, 0.0, 2 * np.pi)
    logical = g4.G4LogicalVolume(solid, material, name)
    alive += [solid, logical]
    return logical


def _material(g4: Any, nist: Any, material: str | Mixture, alive: list[Any]) -> Any:
    if isinstance(material, Mixture):
        mixed = g4.G4Material(material.name, material.density * g4.g / g4.cm3, len(material.elements))
        for symbol, part in material.elements:
            mixed.AddElement(nist.FindOrBuildElement(symbol), part)
        alive.append(mixed)
        return mixed
    known = nist.FindOrBuildMaterial(material)
    if known is None:
        raise ValueError(f"Geant4's data base has no material {material!r}")
    return known


def _replicas(g4: Any, setup: Setup, volume: Volume, sheet: Any, alive: list[Any]) -> Any:
    """Cuts angles and rings into a sheet and returns the logical volume of the innermost cut."""
    layer = setup.detectors[0].layers[0]
    radius, half = layer.edges[-1], volume.shape.half[2]
    width, angle = radius / layer.radii, 2 * np.pi / layer.angles
    material = sheet.GetMaterial()
    disk, segment, ring = (
        g4.G4Tubs("disk", 0.0, radius, half, -np.pi, 2 * np.pi),
        g4.G4Tubs("segment", 0.0, radius, half, -angle / 2, angle),
        g4.G4Tubs("ring", 0.0, width, half, -angle / 2, angle),
    )
    disks, segments, rings = (g4.G4LogicalVolume(solid, material, "mesh") for solid in (disk, segment, ring))
    alive += [disk, segment, ring, disks, segments, rings]
    alive.append(g4.G4PVPlacement(None, g4.G4ThreeVector(), disks, "disk", sheet, False, 0))
    alive.append(g4.G4PVReplica("segment", segments, disks, g4.kPhi, layer.angles, angle, -np.pi))
    alive.append(g4.G4PVReplica("ring", rings, segments, g4.kRho, layer.radii, width, 0.0))
    return rings


def _check_elements(g4: Any, material: Any) -> None:
    tables = Path(os.environ[DATA_SETS[0].variable]) / "brem_SB"
    for element in material.GetElementVector():
        if not (tables / f"br{round(element.GetZ())}").exists():
            raise ValueError(
                f"{material.GetName()} contains {element.GetName()}, for which the substitute data sets have no tables"
            )


class Counter:
    """Collects what the events deposit, for all detectors of a setup.

    Attributes:
        deposits: of each detector, one array (cells,) an event [MeV].
        seconds: CPU time of each event.
    """

    def __init__(self, setup: Setup, seeds: Sequence[int] = (0,)) -> None:
        self.setup = setup
        self._random = np.random.Generator(np.random.Philox(np.random.SeedSequence(seeds)))
        self.deposits: list[list[NDArray[np.float64]]] = [[] for _ in setup.detectors]
        self.seconds: list[float] = []
        self.steps: list[tuple[float, float, float, float]] = []
        self._open = [np.zeros(detector.cells) for detector in setup.detectors]
        self._started = time.process_time()
        if setup.scorer.kind == "steps":
            _, self._layers = layer_of(setup)
            self._borders = borders_between(setup)

    def add(self, points: NDArray[np.float64], energy: NDArray[np.float64]) -> None:
        """Adds deposits [MeV] at points [mm], (K,) and (K, 3), that no step of Geant4 has made."""
        layer = self._layers[np.searchsorted(self._borders, points[:, 2])]
        for detector, cells in zip(self.setup.detectors, self._open, strict=True):
            index = mesh_cells(detector, layer, points[:, 0], points[:, 1])
            inside = index >= 0
            cells += np.bincount(index[inside], energy[inside], minlength=len(cells))

    def flush(self) -> None:
        """Adds the steps to the cells."""
        if not self.steps:
            return
        if self.setup.scorer.kind == "light":
            cell, beta, length, cosine = np.array(self.steps).T
            self.steps.clear()
            photons = self.setup.scorer.light.expected(beta, length, cosine)
            self._open[0] += np.bincount(cell.astype(np.intp), photons, minlength=len(self._open[0]))
            return
        energy, *ends = np.array(self.steps).T
        self.steps.clear()
        self.add(np.stack(ends, 1) / 2, energy)  # between both ends of a step

    def end_event(self, hits: Any) -> None:
        """Closes an event; `hits` is Geant4's map of cells, where it counts them."""
        if hits is None:
            self.flush()
            if self.setup.scorer.kind == "light":
                self._open[0] = self._random.poisson(self._open[0]).astype(np.float64)
        else:
            for cell, deposit in hits:
                self._open[0][cell] += deposit
        for deposits, cells in zip(self.deposits, self._open, strict=True):
            deposits.append(cells)
        self._open = [np.zeros(len(cells)) for cells in self._open]
        now = time.process_time()
        self.seconds.append(now - self._started)
        self._started = now


def run(
    job: Job, setup: Setup, shots: Shots, first: int, parent: int, substitutes: bool
) -> tuple[Counter, str]:
    """Simulates the shots in this process and returns what they deposit, and the version of Geant4.

    Args:
        job: what is simulated.
        setup: its volumes and scorer.
        shots: the particles.
        first: number of the first event, which addresses the noise of a bundle.
        parent: process id of the production; this process ends when it has gone.
        substitutes: whether elements may be missing in the tables.
    """
    g4: Any = require("geant4_pybind", "geant4")
    counter = Counter(setup, shots.seeds)
    alive: list[Any] = []  # Geant4 holds plain pointers: what Python lets go of is lost
    counted: list[Any] = []
    fast = FastShowers(Path(job.fast), setup, job.seed) if job.fast else None
    state = EventState(first - 1)
    actions = [
        partial(_gun, g4, job, setup, shots, state, parent),
        partial(_ending, g4, setup, counter),
        *([partial(_stepping, g4, job, setup, fast, counter, state)] if fast else []),
    ]

    # two threads hang, so the manager is the serial one
    manager = g4.G4RunManagerFactory.CreateRunManager(g4.G4RunManagerType.Serial)
    physics = _electromagnetic(g4, job.physics) if job.physics in EM_LISTS else getattr(g4, job.physics)()
    construction = _construction(g4, setup, counter, alive, counted)
    for initialization in (construction, physics, _initialization(g4, actions, alive)):
        manager.SetUserInitialization(initialization)
        alive.append(initialization)
    commands = g4.G4UImanager.GetUIpointer()
    manager.Initialize()
    if substitutes:
        for volume in counted:
            _check_elements(g4, volume.GetMaterial())
    # a list's own default has no effect from Python
    commands.ApplyCommand(f"/run/setCut {job.cut} mm")
    g4.HepRandom.setTheSeeds([*shots.seeds, 0])
    manager.BeamOn(len(shots.energy))
    return counter, version_name(g4.G4VERSION_NUMBER)


@dataclass
class EventState:
    """Where the run is.

    Attributes:
        event: number of the event.
        asked: whether a bundle was asked for the shower of its primary.
    """

    event: int
    asked: bool = True


def _construction(g4: Any, setup: Setup, counter: Counter, alive: list[Any], counted: list[Any]) -> Any:
    """Returns what builds the volumes, appends those that are scored to `counted`, and scores them."""
    by_steps = setup.scorer.kind in ("steps", "light")

    class Construction(g4.G4VUserDetectorConstruction):  # type: ignore[misc]
        def Construct(self) -> Any:  # noqa: N802
            world, volumes = _logical_volumes(g4, setup, alive)
            counted.extend(volumes)
            return world

        def ConstructSDandField(self) -> None:  # noqa: N802
            sensitive = (
                _sensitive(g4, setup, counter) if by_steps else g4.G4MultiFunctionalDetector(COLLECTION[0])
            )
            g4.G4SDManager.GetSDMpointer().AddNewDetector(sensitive)
            alive.append(sensitive)
            if not by_steps:
                scorer = _primitive(g4, setup)
                sensitive.RegisterPrimitive(scorer)
                alive.append(scorer)
            for volume in counted:
                self.SetSensitiveDetector(volume, sensitive)

    return Construction()


def _sensitive(g4: Any, setup: Setup, counter: Counter) -> Any:
    """Returns what counts step by step: deposits, or the steps of charged particles in fibres."""
    slowest = 1 / setup.scorer.light.index

    class Deposits(g4.G4VSensitiveDetector):  # type: ignore[misc]
        def ProcessHits(self, step: Any, history: Any) -> bool:  # noqa: N802
            energy = step.GetTotalEnergyDeposit()
            if energy:
                ends = step.GetPreStepPoint().GetPosition() + step.GetPostStepPoint().GetPosition()
                counter.steps.append((energy, ends.x, ends.y, ends.z))
                if len(counter.steps) >= FLUSH:
                    counter.flush()
            return True

    class Fibres(g4.G4VSensitiveDetector):  # type: ignore[misc]
        def ProcessHits(self, step: Any, history: Any) -> bool:  # noqa: N802
            length, before = step.GetStepLength(), step.GetPreStepPoint()
            if not (before.GetCharge() and length and before.GetBeta() > slowest):
                return True
            cosine = (step.GetPostStepPoint().GetPosition() - before.GetPosition()).z / length
            cell = before.GetTouchable().GetReplicaNumber(0)
            counter.steps.append((cell, before.GetBeta(), length, max(-1.0, min(1.0, cosine))))
            if len(counter.steps) >= FLUSH:
                counter.flush()
            return True

    return (Fibres if setup.scorer.kind == "light" else Deposits)(COLLECTION[0])


def _electromagnetic(g4: Any, name: str) -> Any:
    """Returns a physics list of electromagnetic processes alone."""

    class Electromagnetic(g4.G4VModularPhysicsList):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.RegisterPhysics(getattr(g4, name)())

    return Electromagnetic()


def _gun(g4: Any, job: Job, setup: Setup, shots: Shots, state: EventState, parent: int) -> Any:
    """Returns what starts the primary of each event; it ends this process when its parent has gone."""
    directions = shots.directions_to(setup.detectors[0])
    back = BACK if job.fast else 0.0

    class Gun(g4.G4VUserPrimaryGeneratorAction):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.gun = g4.G4ParticleGun(1)
            self.gun.SetParticleByName(job.particle)
            self.shot = 0

        def GeneratePrimaries(self, event: Any) -> None:  # noqa: N802
            if os.getppid() != parent:
                os._exit(1)
            self.gun.SetParticleEnergy(float(shots.energy[self.shot]))
            direction = directions[self.shot]
            entry = np.append(shots.entry[self.shot], 0.0) + setup.front
            start = entry - back * direction / direction[2]
            self.gun.SetParticlePosition(g4.G4ThreeVector(*map(float, start)))
            self.gun.SetParticleMomentumDirection(g4.G4ThreeVector(*map(float, direction)))
            state.event, state.asked = state.event + 1, False
            self.gun.GeneratePrimaryVertex(event)
            self.shot += 1

    return Gun()


def _ending(g4: Any, setup: Setup, counter: Counter) -> Any:
    """Returns what closes the counts of each event."""

    class Ending(g4.G4UserEventAction):  # type: ignore[misc]
        def EndOfEventAction(self, event: Any) -> None:  # noqa: N802
            if setup.scorer.kind in ("steps", "light"):
                counter.end_event(None)
                return
            number = g4.G4SDManager.GetSDMpointer().GetCollectionID("/".join(COLLECTION))
            counter.end_event(event.GetHCofThisEvent().GetHC(number))

    return Ending()


def _stepping(g4: Any, job: Job, setup: Setup, fast: FastShowers, counter: Counter, state: EventState) -> Any:
    """Returns what asks for the shower of a primary once, where it enters; what is refused goes on in full."""

    class Stepping(g4.G4UserSteppingAction):  # type: ignore[misc]
        def UserSteppingAction(self, step: Any) -> None:  # noqa: N802
            if state.asked:
                return
            track, point = step.GetTrack(), step.GetPostStepPoint()
            entry = point.GetPosition()
            if entry.z < setup.front[2] - 1e-6:
                return
            state.asked = True
            direction = point.GetMomentumDirection()
            drawn = fast.deposits(
                point.GetKineticEnergy(),
                PARTICLES[job.particle],
                (entry.x, entry.y, entry.z),
                (direction.x, direction.y, direction.z),
                state.event,
            )
            if drawn is not None:
                counter.add(*drawn)
                track.SetTrackStatus(g4.G4TrackStatus.fKillTrackAndSecondaries)

    return Stepping()


def _initialization(g4: Any, actions: Sequence[Callable[[], Any]], alive: list[Any]) -> Any:
    """Returns what makes the actions when Geant4 knows its particles, and hands them to the run manager."""

    class Actions(g4.G4VUserActionInitialization):  # type: ignore[misc]
        def Build(self) -> None:  # noqa: N802
            for action in (make() for make in actions):
                self.SetUserAction(action)
                alive.append(action)

    return Actions()


def _primitive(g4: Any, setup: Setup) -> Any:
    if setup.scorer.kind == "volumes":
        return g4.G4PSEnergyDeposit(COLLECTION[1], 0)
    layers = setup.detectors[0].layers
    # the sheet, its segment and its ring lie 3, 1 and 0 levels up
    return g4.G4PSEnergyDeposit3D(COLLECTION[1], len(layers), layers[0].angles, layers[0].radii, 3, 1, 0)


def version_name(number: int) -> str:
    """Writes Geant4's version number: 1141 is 11.4.1."""
    return f"{number // 100}.{number // 10 % 10}.{number % 10}"


def main(text: str) -> None:
    """Simulates the part that the text describes, in JSON, and writes it."""
    task = json.loads(text)
    job = Job.parse(task["job"])
    setup = job.setup()
    if setup.digest != task["geometry_sha256"]:
        raise ValueError(f"{job.detector} returns other volumes each time")
    shots = shots_of(job, setup, task["part"], task["rows"])
    counter, version = run(job, setup, shots, task["part"] * job.part, task["parent"], task["substitutes"])
    if len(counter.seconds) != task["rows"]:
        raise ValueError(f"Geant4 simulated {len(counter.seconds)} of {task['rows']} events")
    responses = {
        f"responses_{index}": setup.scorer.responses(np.array(deposits))
        for index, deposits in enumerate(counter.deposits)
    }
    write_part(
        Path(task["path"]),
        digest=np.array(task["digest"]),
        geant4=np.array(version),
        rows=np.array(task["rows"]),
        energy=shots.energy,
        seconds=np.array(counter.seconds),
        **responses,
    )


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except (ValueError, OSError, ImportError) as error:
        sys.stdout.flush()
        sys.stderr.write(f"{ERROR}{error}\n")
        sys.stderr.flush()
        os._exit(2)
    sys.stdout.flush()
    os._exit(0)  # Geant4's own end crashes when Python holds its objects
