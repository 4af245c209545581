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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import PurePath
from types import FunctionType
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from caloforge._lookup import nearest, outside
from caloforge.detectors import CRYSTALS, DS2, DS2_ANGLES, DS3, DS3_ANGLES, ZN, ZP, Detector, detector_named
from caloforge.simulate.physics import PARTICLES
from caloforge.simulate.sheets import EXAMPLE, Sheet, sheets_by_layer, sheets_of

Vector = tuple[float, float, float]
Kind = Literal["volumes", "light", "steps", "replicas"]

DS2_LAYER = "W:1.4mm,Si:0.3mm,W:1.4mm,Si:0.3mm"
"""Sheets of a layer of DS2 and DS3."""

SAMPLING_FRACTION = 0.033
"""What the energy in silicon is divided by in DS2 and DS3."""

LEAST_DEPOSIT = 0.5e-3
"""Voxels of layers in which less is deposited are empty [MeV]."""


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
            if not _even(self.detectors[0]):
                raise ValueError(
                    f"replicas need layers alike with rings of one width, {self.name} has others: use steps"
                )
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
        # a binning file may have moved
        meshes = [
            (PurePath(detector.name).name, detector.shape, detector.layers) for detector in self.detectors
        ]
        text = repr((self.volumes, self.scorer, self.front, self.spot, meshes))
        return hashlib.sha256(text.encode()).hexdigest()


def _even(detector: Detector) -> bool:
    """Says whether layers are alike and their rings of one width, from the axis on."""
    first = detector.layers[0]
    widths = np.diff(first.edges)
    alike = all((layer.edges, layer.angles) == (first.edges, first.angles) for layer in detector.layers)
    return bool(alike and first.edges[0] == 0 and np.allclose(widths, widths[0], rtol=1e-6))


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


STACK_THETA = (0.0, 0.2)
"""Angles to the axis shot at stacks whose detectors have angles [rad]: most of a shower stays within 42 mm."""


def sampling_calorimeter(*detectors: Detector, scoring: Kind | None = None) -> Setup:
    """Builds the stack of DS2 and DS3: in each layer two sheets of 1.4 mm tungsten and 0.3 mm silicon.

    Particles enter at the origin, along z where the detectors have no angles. The silicon's energy is divided by 0.033,
    and voxels of less than 0.5 keV in silicon are empty.

    Args:
        detectors: `DS2`, `DS3` or both, or others with as many layers.
        scoring: `steps` or `replicas`; where not given replicas of one detector, steps of several.
    """
    sheets = [sheets_of(DS2_LAYER)] * len(detectors[0].layers)
    kind: Kind = scoring or ("replicas" if len(detectors) == 1 else "steps")
    return stack(*detectors, sheets=sheets, fraction=SAMPLING_FRACTION, scoring=kind, particle="e+")


def stack(
    *detectors: Detector, sheets: Sequence[Sequence[Sheet]], fraction: float, scoring: Kind, particle: str
) -> Setup:
    """Builds layers of sheets, from the origin along z, which is where particles enter.

    Args:
        detectors: with layers, all as many.
        sheets: of each layer, in depth.
        fraction: what the energy in active sheets is divided by.
        scoring: `steps` or `replicas`.
        particle: shot where none is named.
    """
    outermost = max(layer.edges[-1] for detector in detectors for layer in detector.layers)
    edge = 2 * max(400.0, 1.5 * outermost)  # of tungsten a hundred radiation lengths to either side
    volumes = []
    front = 0.0
    for layer, of_layer in enumerate(sheets):
        for sheet in of_layer:
            centre = (0.0, 0.0, round(front + sheet.depth / 2, 6))
            box = Box((edge, edge, sheet.depth))
            volumes.append(Volume(box, sheet.material, centre, layer if sheet.active else None))
            front += sheet.depth
    scorer = Scorer(scoring, 1 / fraction, LEAST_DEPOSIT / fraction)
    setup = Setup(detectors, tuple(volumes), scorer, particle=particle, origin=(0.0, 0.0, 0.0))
    if all({"theta", "phi"} <= set(detector.features) for detector in detectors):
        return replace(setup, theta=STACK_THETA, phi=(-np.pi, np.pi))
    return setup


def stack_from_xml(
    name: str, layers: Sequence[str], fraction: float | None = None, scoring: str | None = None
) -> Setup:
    """Builds a binning file's detector as layers of sheets.

    Args:
        name: `binning.xml` or `binning.xml:particle`.
        layers: the sheets of its layers, see `sheets`; layers that record nothing are not built.
        fraction: what the energy in active sheets is divided by; 1 where not given.
        scoring: `steps` or `replicas`; where not given replicas if all layers are alike with rings of one width.

    Raises:
        ValueError: no such file or not a binning, layers that do not fit, a fraction out of its range.
    """
    detector = detector_named(name)
    if not layers:
        raise ValueError(
            f"{name} has rings and angles, not materials: give what its layers are made of, --layers {EXAMPLE}"
        )
    fraction = 1.0 if fraction is None else fraction
    if not 0 < fraction <= 1:
        raise ValueError(f"a sampling fraction lies above 0 and not above 1, got {fraction:g}")
    sheets = sheets_by_layer(layers, [layer.number for layer in detector.layers])
    kind: Kind = "steps" if scoring == "steps" or not (scoring or _even(detector)) else "replicas"
    particle = next((word for word, pdg in PARTICLES.items() if pdg == detector.pdg), "e-")
    return stack(detector, sheets=sheets, fraction=fraction, scoring=kind, particle=particle)


def is_binning(name: str) -> bool:
    """Says whether the name is that of a binning file, `binning.xml` or `binning.xml:particle`."""
    _, xml, rest = name.partition(".xml")
    return bool(xml) and (not rest or rest.startswith(":"))


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


SAMPLING: dict[str, tuple[Detector, ...]] = {
    "ds2": (DS2,),
    "ds3": (DS3,),
    "ds2+ds3": (DS2, DS3),
    "ds2-angles": (DS2_ANGLES,),
    "ds3-angles": (DS3_ANGLES,),
    "ds2-angles+ds3-angles": (DS2_ANGLES, DS3_ANGLES),
}

SETUPS: dict[str, Callable[[], Setup]] = {
    **{name: partial(sampling_calorimeter, *detectors) for name, detectors in SAMPLING.items()},
    "crystals": crystal_box,
    "zn": partial(zero_degree, ZN, TUNGSTEN_ALLOY, 1000.0, 0.365, 9.4),
    "zp": partial(zero_degree, ZP, BRASS, 1500.0, 0.55, 11.5),
}


def setup_named(
    name: str, scoring: str | None = None, layers: Sequence[str] = (), fraction: float | None = None
) -> Setup:
    """Builds the setup of that name.

    Args:
        name: a key of `SETUPS`, a binning file `binning.xml` or `binning.xml:particle`, or `package.module:FUNCTION`
            for a function of one's own that returns a `Setup`.
        scoring: `steps` or `replicas`, for DS2, DS3 and binning files.
        layers: of a binning file: what its layers are made of, see `sheets`.
        fraction: of a binning file: what the energy in active sheets is divided by.

    Raises:
        ValueError: no such setup, a function that returns something else, or options that do not fit.
    """
    binning = is_binning(name)
    if scoring is not None and (not (name in SAMPLING or binning) or scoring not in ("steps", "replicas")):
        raise ValueError(
            f"the scoring is steps or replicas, of {', '.join(SAMPLING)} or a binning file; got {scoring!r} of {name}"
        )
    if binning:
        return stack_from_xml(name, layers, fraction, scoring)
    if layers or fraction is not None:
        raise ValueError(f"layers and sampling fraction are those of a binning file .xml, got {name}")
    if scoring is not None:
        return sampling_calorimeter(*SAMPLING[name], scoring="steps" if scoring == "steps" else "replicas")
    if name in SETUPS:
        return SETUPS[name]()
    if ":" not in name:
        raise ValueError(
            f"no detector {name!r} to simulate; there are {', '.join(SETUPS)}, a binning file .xml, or "
            f"package.module:FUNCTION"
            f"{nearest(name, SETUPS)}"
        )
    setup = outside(name, FunctionType, trust=True)()  # the user names it, no file does
    if not isinstance(setup, Setup):
        raise ValueError(f"{name} must return a Setup, got {type(setup).__name__}")
    return setup


def layer_of(setup: Setup) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Returns middles in z of the counted sheets [mm], ascending, and the layer of each."""
    sheets = _counted_sheets(setup)
    return np.array([sheet.centre[2] for sheet in sheets]), np.array(
        [sheet.cell for sheet in sheets], np.intp
    )


def borders_between(setup: Setup) -> NDArray[np.float64]:
    """Returns where in z one counted sheet ends and the next begins [mm], midway in what lies between, ascending."""
    sheets = _counted_sheets(setup)
    middle, half = np.array([(sheet.centre[2], sheet.shape.half[2]) for sheet in sheets]).T
    return np.asarray(((middle + half)[:-1] + (middle - half)[1:]) / 2)


def _counted_sheets(setup: Setup) -> list[Volume]:
    sheets = sorted(
        (volume for volume in setup.volumes if volume.cell is not None), key=lambda sheet: sheet.centre[2]
    )
    if any(low.centre[2] == high.centre[2] for low, high in pairwise(sheets)):
        raise ValueError("a mesh needs one sheet at each depth, got two side by side")
    return sheets


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
    first = np.cumsum([0, *(layer_here.cells for layer_here in detector.layers)])
    cells = np.full(len(layer), -1, np.intp)
    for number in np.unique(layer):
        layer_here = detector.layers[number]
        rows = np.flatnonzero(layer == number)
        ring = np.searchsorted(layer_here.edges, radius[rows], side="right") - 1
        angle = (
            np.floor((alpha[rows] + np.pi) / (2 * np.pi) * layer_here.angles).astype(np.intp)
            % layer_here.angles
        )
        inside = (ring >= 0) & (ring < layer_here.radii)
        cells[rows] = np.where(inside, first[number] + angle * layer_here.radii + ring, -1)
    return cells
