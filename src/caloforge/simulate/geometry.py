"""What is simulated: volumes of a material, a scorer that turns energy deposits into responses, and a name for both.

A `Setup` is plain data and imports no Geant4, so that it can be checked, hashed and compared before a process starts:

- `volumes`: boxes and tubes, placed in vacuum; those with a `cell` are counted.
- `scorer`: how deposits become the cells of a response.

Four kinds of scorer; the response is `deposit * scale`, and 0 below `threshold`:

- `volumes`: cell k is the sum over the volumes with `cell` k. Counted by Geant4 in C++, and free.
- `light`: cell k is the number of Cherenkov photons seen from the fibres with `cell` k, see `Light`.
- `steps`: each counted volume is a sheet of layer `cell`; a step's deposit goes into the ring and angle of its
  middle. Nothing divides the sheet, so the mesh does not change the physics and several meshes share the same showers.
- `replicas`: the same mesh, cut into the sheet as Geant4 replicas and counted in C++: half the time. Every border ends
  a step, and in thin silicon the energy depends on the steps; with Geant4's standard physics the mesh of DS2 changes
  it by less than 0.5 %, with option 1 by 3 % (docs/geant4.md).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from types import FunctionType
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from caloforge._lookup import nearest, outside
from caloforge.detectors import CRYSTALS, DS2, DS3, ZN, ZP, Detector

Vector = tuple[float, float, float]
Kind = Literal["volumes", "light", "steps", "replicas"]

TUNGSTEN_DEPTH, SILICON_DEPTH = 1.4, 0.3
"""Depths of the sheets of DS2 and DS3 [mm]; two of each are a layer."""

SAMPLING_FRACTION = 0.033
"""What the energy in silicon is divided by in DS2 and DS3."""


@dataclass(frozen=True)
class Box:
    """A box along the axes.

    Attributes:
        size: full lengths in x, y and z [mm].
    """

    size: Vector

    @property
    def half(self) -> Vector:
        """Half lengths in x, y and z [mm]."""
        x, y, z = self.size
        return x / 2, y / 2, z / 2


@dataclass(frozen=True)
class Tube:
    """A hollow or full cylinder along z.

    Attributes:
        inner: inner radius [mm].
        outer: outer radius [mm].
        length: full length [mm].
    """

    inner: float
    outer: float
    length: float

    @property
    def half(self) -> Vector:
        """Half lengths of the box around it, in x, y and z [mm]."""
        return self.outer, self.outer, self.length / 2


@dataclass(frozen=True)
class Mixture:
    """A material that Geant4's data base does not have.

    Attributes:
        name: of its own.
        density: in g/cm3.
        elements: symbols and their parts of the mass.
    """

    name: str
    density: float
    elements: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Light:
    """Cherenkov light of fibres along z, as much of it as is trapped towards +z and seen.

    A particle of charge z and speed beta under an angle to the fibre radiates per length

        dN/dx = yield z^2 sin^2(theta_c) f,    cos(theta_c) = 1 / (n beta),

    f the part of its cone within the angle arcsin(aperture / n) of the fibre (rays through the axis). The number seen
    of an event is drawn from a Poisson distribution with the sum over its steps as mean.

    Attributes:
        index: refractive index n.
        aperture: numerical aperture.
        per_mm: photons seen of a millimetre if all of sin^2 = 1 were trapped: with the quantum efficiency, the window
            of wavelengths, the losses.
    """

    index: float = 1.46
    aperture: float = 0.22
    per_mm: float = 10.0

    def expected(
        self, beta: NDArray[np.float64], length: NDArray[np.float64], cosine: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Returns mean numbers of photons of steps of particles of unit charge, (K,).

        Args:
            beta: speeds, (K,).
            length: of the steps [mm], (K,).
            cosine: of their angles to +z, (K,).
        """
        cone = np.clip(
            1 / (self.index * np.maximum(beta, 1e-9)), None, 1.0
        )  # cos(theta_c), 1 below the threshold
        sine = np.sqrt(1 - cone * cone)
        limit = np.sqrt(1 - (self.aperture / self.index) ** 2)
        across = np.maximum(sine * np.sqrt(np.clip(1 - cosine * cosine, 0, None)), 1e-12)
        turn = np.arccos(np.clip((limit - cosine * cone) / across, -1, 1)) / np.pi
        return np.asarray(self.per_mm * length * sine * sine * turn)


@dataclass(frozen=True)
class Volume:
    """A piece of matter.

    Attributes:
        shape: a box or a tube.
        material: a name of Geant4's data base (NIST), "G4_W", "G4_PbWO4", or a mixture.
        centre: its middle in x, y and z [mm].
        cell: the cell, or for a mesh the layer, to which its deposits belong; None where they are not counted.
        inside: it lies in the last volume before it that is not itself inside of one.
    """

    shape: Box | Tube
    material: str | Mixture
    centre: Vector
    cell: int | None = None
    inside: bool = False


@dataclass(frozen=True)
class Scorer:
    """Turns deposits into the cells of a response, as the head of this module says.

    Attributes:
        kind: `volumes`, `light`, `steps` or `replicas`.
        scale: response of a deposit of 1 MeV; of light 1.
        threshold: responses below are 0.
        light: the fibres' light.
    """

    kind: Kind = "volumes"
    scale: float = 1.0
    threshold: float = 0.0
    light: Light = Light()

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"a scorer is one of {', '.join(get_args(Kind))}, got {self.kind!r}")

    def responses(self, deposits: NDArray[np.float64]) -> NDArray[np.float32]:
        """Returns the responses to deposits in MeV, in the same shape."""
        scaled = deposits * self.scale
        return np.where(scaled < self.threshold, 0.0, scaled).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Setup:
    """Everything that is simulated but the particles.

    Attributes:
        detectors: what the output holds; several see the same showers, each in a file of its own.
        volumes: all matter there is, in vacuum.
        scorer: turns deposits into responses.
        particle: shot where none is named, in Geant4's words.
        energy_unit: of the energies asked for, MeV or GeV.
        origin: where particles start [mm]; the middle of the front, the lowest z, where not given.
        theta: polar angles asked for where none are named, least and greatest [rad].
        phi: the same for azimuths [rad].
        spot: particles enter within so far from `origin` in x and y [mm], evenly; of detectors with a face.

    Raises:
        ValueError: volumes and detectors do not fit together, or two boxes overlap.
    """

    detectors: tuple[Detector, ...]
    volumes: tuple[Volume, ...]
    scorer: Scorer = field(default_factory=Scorer)
    particle: str = "e-"
    energy_unit: Literal["MeV", "GeV"] = "GeV"
    origin: Vector | None = None
    theta: tuple[float, float] = (0.0, 0.0)
    phi: tuple[float, float] = (0.0, 0.0)
    spot: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        if not self.detectors:
            raise ValueError("a setup needs one detector at least")
        cells = {volume.cell for volume in self.volumes if volume.cell is not None}
        if not cells:
            raise ValueError(f"{self.name}: no volume has a cell, so nothing would be counted")
        for detector in self.detectors:
            mesh = self.scorer.kind in ("steps", "replicas")
            if mesh and not detector.layers:
                raise ValueError(f"{detector.name} has no layers: a scorer of {self.scorer.kind} needs them")
            count = len(detector.layers) if mesh else detector.cells
            if not cells <= set(range(count)):
                what = "layers" if mesh else "cells"
                raise ValueError(
                    f"{detector.name} has {what} 0 to {count - 1}, the volumes count for {min(cells)} to {max(cells)}"
                )
            if detector.energy is None:
                raise ValueError(f"{detector.name} must have a condition energy or incident_energy")
        if self.scorer.kind == "replicas":
            if len(self.detectors) > 1:
                raise ValueError(
                    f"replicas hold the mesh of one detector, got {self.name}: use steps for several"
                )
            _check_even(self.detectors[0])
        _check_overlaps(self.volumes)

    @property
    def name(self) -> str:
        """Names of the detectors."""
        return "+".join(detector.name for detector in self.detectors)

    @property
    def front(self) -> Vector:
        """Where particles start [mm]."""
        if self.origin is not None:
            return self.origin
        return 0.0, 0.0, min(volume.centre[2] - volume.shape.half[2] for volume in self.volumes)

    @property
    def digest(self) -> str:
        """A hash of volumes, scorer and meshes, which tells setups apart."""
        meshes = [(detector.name, detector.shape, detector.layers) for detector in self.detectors]
        text = repr((self.volumes, self.scorer, self.front, self.spot, meshes))
        return hashlib.sha256(text.encode()).hexdigest()


def _check_even(detector: Detector) -> None:
    first = detector.layers[0]
    widths = np.diff(first.edges)
    alike = all((layer.edges, layer.angles) == (first.edges, first.angles) for layer in detector.layers)
    if not alike or first.edges[0] != 0 or not np.allclose(widths, widths[0], rtol=1e-6):
        raise ValueError(
            f"replicas need layers alike with rings of one width, {detector.name} has others: use steps"
        )


def _check_overlaps(volumes: tuple[Volume, ...]) -> None:
    """Compares all boxes; Geant4 would warn at best, and lose energy."""
    boxes = [volume for volume in volumes if isinstance(volume.shape, Box) and not volume.inside]
    if not boxes:
        return
    half = np.array([volume.shape.half for volume in boxes])
    centre = np.array([volume.centre for volume in boxes])
    for k in range(len(boxes) - 1):
        room = half[k] + half[k + 1 :] - np.abs(centre[k] - centre[k + 1 :])
        overlapping = np.flatnonzero((room > 1e-6).all(1))
        if len(overlapping):
            other = boxes[k + 1 + int(overlapping[0])]
            raise ValueError(
                f"two volumes overlap: {boxes[k].material} at {boxes[k].centre} and {other.material} at {other.centre}"
            )


def sampling_calorimeter(*detectors: Detector, scoring: Kind | None = None) -> Setup:
    """Builds the stack of DS2 and DS3: in each layer two sheets of 1.4 mm tungsten and 0.3 mm silicon.

    Particles enter at the origin along z. The silicon's energy is divided by 0.033, and voxels of less than the
    detector's threshold are empty.

    Args:
        detectors: `DS2`, `DS3` or both, or others with as many layers.
        scoring: `steps` or `replicas`; where not given replicas of one detector, steps of several.
    """
    kind: Kind = scoring or ("replicas" if len(detectors) == 1 else "steps")
    edge = 2 * 400.0  # a hundred radiation lengths of tungsten to either side
    volumes = []
    for sheet in range(2 * len(detectors[0].layers)):
        front = sheet * (TUNGSTEN_DEPTH + SILICON_DEPTH)
        for material, start, depth, cell in (
            ("G4_W", front, TUNGSTEN_DEPTH, None),
            ("G4_Si", front + TUNGSTEN_DEPTH, SILICON_DEPTH, sheet // 2),
        ):
            box = Box((edge, edge, depth))
            volumes.append(Volume(box, material, (0.0, 0.0, round(start + depth / 2, 6)), cell))
    scorer = Scorer(kind, 1 / SAMPLING_FRACTION, max(detector.threshold for detector in detectors))
    return Setup(detectors, tuple(volumes), scorer, particle="e+", origin=(0.0, 0.0, 0.0))


def crystal_box(depth: float = 200.0) -> Setup:
    """Builds `CRYSTALS`: 20 x 20 blocks of lead tungstate, 2 x 2 cm each, hit in the middle of the front.

    Energies and responses are in MeV. Photons come within 0.3 rad of the axis; cells under 0.5 MeV are empty.

    Args:
        depth: of the crystals [mm].
    """
    rows, columns = CRYSTALS.shape
    pitch = 10 * (CRYSTALS.pitch or 0)  # cm to mm
    volumes = tuple(
        Volume(
            Box((pitch, pitch, depth)),
            "G4_PbWO4",
            ((i - (rows - 1) / 2) * pitch, (j - (columns - 1) / 2) * pitch, depth / 2),
            i * columns + j,
        )
        for i in range(rows)
        for j in range(columns)
    )
    return Setup(
        (CRYSTALS,),
        volumes,
        Scorer("volumes", threshold=0.5),
        particle="gamma",
        energy_unit="MeV",
        origin=(0.0, 0.0, 0.0),
        theta=(0.0, 0.3),
        phi=(-np.pi, np.pi),
    )


TUNGSTEN_ALLOY = Mixture("tungsten alloy", 17.6, (("W", 0.93), ("Ni", 0.05), ("Fe", 0.02)))
BRASS = Mixture("brass", 8.48, (("Cu", 0.59), ("Zn", 0.39), ("Pb", 0.02)))


def zero_degree(detector: Detector, absorber: Mixture, depth: float, fibre: float, per_mm: float) -> Setup:
    """Builds a module of ALICE's zero degree calorimeters: a block with a quartz fibre in each cell, along z.

    Primaries come straight from the interaction point, on the side of pz > 0, and meet the face evenly.

    Args:
        detector: `ZN` or `ZP`.
        absorber: of the block.
        depth: of the block [mm].
        fibre: diameter of the fibres [mm].
        per_mm: photons, see `Light`.
    """
    rows, columns = detector.shape
    pitch = 10 * (detector.pitch or 0)  # cm to mm
    width, height = rows * pitch, columns * pitch
    block = Volume(Box((width, height, depth)), absorber, (0.0, 0.0, depth / 2))
    rod = Tube(0.0, fibre / 2, depth)
    fibres = tuple(
        Volume(
            rod,
            "G4_SILICON_DIOXIDE",
            ((i - (rows - 1) / 2) * pitch, (j - (columns - 1) / 2) * pitch, depth / 2),
            i * columns + j,
            inside=True,
        )
        for i in range(rows)
        for j in range(columns)
    )
    return Setup(
        (detector,),
        (block, *fibres),
        Scorer("light", light=Light(per_mm=per_mm)),
        particle="gamma",
        origin=(0.0, 0.0, 0.0),
        spot=(width / 2, height / 2),
    )


SAMPLING: dict[str, tuple[Detector, ...]] = {"ds2": (DS2,), "ds3": (DS3,), "ds2+ds3": (DS2, DS3)}

SETUPS: dict[str, Callable[[], Setup]] = {
    **{name: partial(sampling_calorimeter, *detectors) for name, detectors in SAMPLING.items()},
    "crystals": crystal_box,
    "zn": partial(zero_degree, ZN, TUNGSTEN_ALLOY, 1000.0, 0.365, 9.4),
    "zp": partial(zero_degree, ZP, BRASS, 1500.0, 0.55, 11.5),
}


def setup_named(name: str, scoring: str | None = None) -> Setup:
    """Builds the setup of that name.

    Args:
        name: a key of `SETUPS`, or `package.module:FUNCTION` for a function of one's own that returns a `Setup`.
        scoring: `steps` or `replicas`, for DS2 and DS3.

    Raises:
        ValueError: no such setup, a function that returns something else, or a scoring that does not fit.
    """
    if scoring is not None:
        if name not in SAMPLING or scoring not in ("steps", "replicas"):
            raise ValueError(
                f"the scoring is steps or replicas, of {', '.join(SAMPLING)}; got {scoring!r} of {name}"
            )
        return sampling_calorimeter(*SAMPLING[name], scoring="steps" if scoring == "steps" else "replicas")
    if name in SETUPS:
        return SETUPS[name]()
    if ":" not in name:
        raise ValueError(
            f"no detector {name!r} to simulate; there are {', '.join(SETUPS)}, or package.module:FUNCTION"
            f"{nearest(name, SETUPS)}"
        )
    setup = outside(name, FunctionType, trust=True)()  # the user names it, no file does
    if not isinstance(setup, Setup):
        raise ValueError(f"{name} must return a Setup, got {type(setup).__name__}")
    return setup


def layer_of(setup: Setup) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Returns middles in z of the counted sheets [mm], ascending, and the layer of each."""
    sheets = sorted((volume.centre[2], volume.cell) for volume in setup.volumes if volume.cell is not None)
    depths = [depth for depth, _ in sheets]
    if any(low == high for low, high in pairwise(depths)):
        raise ValueError("a mesh needs one sheet at each depth, got two side by side")
    return np.array(depths), np.array([layer for _, layer in sheets], np.intp)


def mesh_cells(
    detector: Detector, layer: NDArray[np.intp], x: NDArray[np.float64], y: NDArray[np.float64]
) -> NDArray[np.intp]:
    """Returns the cell of each position in a detector of layers, or -1 outside of its rings.

    Args:
        detector: the detector.
        layer: index of the layer, (N,).
        x: position across the axis [mm], (N,).
        y: the same, (N,).
    """
    radius = np.hypot(x, y)
    alpha = np.arctan2(y, x)
    first = np.cumsum([0, *(one.cells for one in detector.layers)])
    cells = np.full(len(layer), -1, np.intp)
    for number in np.unique(layer):
        one = detector.layers[number]
        rows = np.flatnonzero(layer == number)
        ring = np.searchsorted(one.edges, radius[rows], side="right") - 1
        angle = np.floor((alpha[rows] + np.pi) / (2 * np.pi) * one.angles).astype(np.intp) % one.angles
        inside = (ring >= 0) & (ring < one.radii)
        cells[rows] = np.where(inside, first[number] + angle * one.radii + ring, -1)
    return cells
