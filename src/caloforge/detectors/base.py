"""A detector is a value: axes, unit, conditions and named channel maps, frozen and never subclassed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

MEV = {"MeV": 1.0, "GeV": 1000.0}
"""Units of energy, in MeV."""

ENERGIES = ("energy", "incident_energy")
"""Names of the feature that is a particle's energy."""

_BLOCK_CELLS = 2**24


@dataclass(frozen=True)
class Feature:
    """Names one number of the condition vector, with its unit."""

    name: str
    unit: str
    description: str


@dataclass(frozen=True, eq=False)
class ChannelMap:
    """Names a linear readout of the cells into K channels.

    Attributes:
        labels: one name a channel, length K.
        matrix: (K, cells) of zeros and ones; cells in C order of the detector's axes.
        source: where the definition comes from.
    """

    labels: tuple[str, ...]
    matrix: NDArray[np.float32] = field(repr=False)
    source: str

    def __post_init__(self) -> None:
        if self.matrix.ndim != 2 or len(self.labels) != len(self.matrix):
            raise ValueError(
                f"a channel map needs a (K, cells) matrix with one label a row, "
                f"got {len(self.labels)} labels and shape {self.matrix.shape}"
            )
        self.matrix.flags.writeable = False


@dataclass(frozen=True)
class Layer:
    """Describes one layer of a detector of voxels: rings around the axis, each cut into equal angles.

    Attributes:
        number: of the layer in depth, from 0; layers that record nothing are left out.
        edges: radii of the rings in mm, ascending, one more than rings.
        angles: number of equal parts of each ring, the first from -pi.
    """

    number: int
    edges: tuple[float, ...]
    angles: int

    @property
    def radii(self) -> int:
        """Number of rings."""
        return len(self.edges) - 1

    @property
    def cells(self) -> int:
        """Number of voxels, in storage order: angle by angle, within each from the axis outwards."""
        return self.radii * self.angles

    @property
    def centres(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Returns eta = r cos(alpha), phi = r sin(alpha) and r in mm at the middle of each voxel, (cells,)."""
        edges = np.asarray(self.edges)
        borders = np.linspace(-np.pi, np.pi, self.angles + 1)
        r = np.tile((edges[1:] + edges[:-1]) / 2, self.angles)
        alpha = np.repeat((borders[1:] + borders[:-1]) / 2, self.radii)
        return r * np.cos(alpha), r * np.sin(alpha), r


@dataclass(frozen=True)
class Face:
    """Says where a detector's front face is, seen from the interaction point, on either side.

    Attributes:
        z: distance |z| of the plane, in cm.
        x: centre of the face, in cm from the beam axis.
        y: likewise.
        window: where a photon gives the same light wherever it enters, since nothing is in its way and the detector
            holds all of its shower: lowest and highest x, then y, in cm from the centre; None where not known.
        turns: whether neutral particles that meet the face give the same light from all its eight sides, those of a
            square.
        strip: where charged particles that came through the magnets give light that depends on x alone: bounds like
            those of `window`.
    """

    z: float
    x: float = 0.0
    y: float = 0.0
    window: tuple[tuple[float, float], tuple[float, float]] | None = None
    turns: bool = False
    strip: tuple[tuple[float, float], tuple[float, float]] | None = None


@dataclass(frozen=True)
class Grooves:
    """Says where the absorber of a module is hollow: in a square groove along z in the middle of every cell.

    A fibre lies in each groove and does not fill it, so a particle that flies along one meets no absorber, or only
    behind.

    Attributes:
        side: of the square, in cm.
        length: of the module, in cm.
    """

    side: float
    length: float


@dataclass(frozen=True)
class Transport:
    """Says where the magnets of a beam line bring charged particles, as a linear map fitted to centres of light.

    A positive particle that starts near the beam passes quadrupoles and dipoles, whose strength goes with the
    curvature q / p. It meets the plane of the face at

        X = sum_i u^i (a_i + b_i x + c_i y),    u = 2500 GeV q / p - 0.8,    i = 0 .. 4,

    and likewise Y, with (x, y) where its straight line does, all in cm: the transfer matrix of first order, its
    elements polynomials of the curvature. 2500 GeV q / p stays within `RANGE`. What starts farther out than `NEAR`, or
    is negative, passes beside the magnets or is lost: it is taken to be straight in x, and in y kicked by `kick` q / p,
    as by a dipole near the interaction point.

    Attributes:
        maps: a, b and c of X and of Y for the sides pz > 0 and pz < 0; (2 sides, 2 axes, 3, 5).
        kick: for the same sides, in GeV cm.
    """

    NEAR: ClassVar[float] = 9.0
    """Distance of the straight line from the axis in cm within which a particle passes the magnets."""

    STIFF: ClassVar[float] = 2500.0
    """Momentum in GeV in whose units the curvature is given."""

    MIDDLE: ClassVar[float] = 0.8
    """Curvature in these units around which the polynomials are."""

    RANGE: ClassVar[tuple[float, float]] = (0.4, 1.5)
    """Curvatures of the fit."""

    maps: tuple[tuple[tuple[tuple[float, ...], ...], ...], ...]
    kick: tuple[float, float]

    @classmethod
    def terms(
        cls, curvature: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Returns u^i, u^i x and u^i y, (N, 15), from q / p in 1 / GeV and straight impacts in cm, each (N,).

        In the order of `maps`, flat.
        """
        u = np.clip(cls.STIFF * curvature, *cls.RANGE) - cls.MIDDLE
        powers = u[:, None] ** np.arange(5)
        return np.concatenate([powers, powers * x[:, None], powers * y[:, None]], 1)

    def mirrored(
        self, straight: NDArray[np.float64], curvature: NDArray[np.float64], forward: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        """Tells where to aim a particle so that magnets bring it to the mirror image, (X, -Y), of its place.

        Args:
            straight: where its straight line meets the plane of the face, in cm from the axis, (N, 2).
            curvature: q / p in 1 / GeV, (N,).
            forward: whether pz > 0, (N,).

        Returns:
            where the straight line of the mirror image does, in cm, (N, 2); NaN where it would be of the other kind,
            through the magnets or beside them.
        """
        kick = np.where(forward, *self.kick) * curvature
        wanted = np.stack([straight[:, 0], -straight[:, 1] - 2 * kick], 1)
        through = self.passes(straight, curvature)
        place = self.place(straight[through], curvature[through], forward[through])
        wanted[through] = self.aim(place * (1, -1), curvature[through], forward[through])
        other = self.passes(wanted, curvature) != through
        return np.where(other[:, None], np.nan, wanted)

    def passes(self, straight: NDArray[np.float64], curvature: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tells which particles come through the magnets, (N,); arguments as of `mirrored`."""
        return np.asarray((curvature > 0) & ((straight**2).sum(1) < self.NEAR**2))

    def place(
        self, straight: NDArray[np.float64], curvature: NDArray[np.float64], forward: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        """Tells where the magnets bring particles that pass them, in cm from the axis, (N, 2)."""
        constant, slopes = self._map(curvature, forward)
        return np.asarray(constant + np.einsum("nab,nb->na", slopes, straight))

    def aim(
        self, place: NDArray[np.float64], curvature: NDArray[np.float64], forward: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        """Tells where to aim particles that the magnets shall bring to places, the inverse of `place`, (N, 2)."""
        constant, slopes = self._map(curvature, forward)
        return np.asarray(np.einsum("nab,nb->na", np.linalg.pinv(slopes), place - constant))

    def _map(
        self, curvature: NDArray[np.float64], forward: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Returns the map of each particle: the place of x = y = 0, (N, 2), and the slopes, (N, 2, 2)."""
        u = np.clip(self.STIFF * curvature, *self.RANGE) - self.MIDDLE
        maps = np.array(self.maps)[np.where(forward, 0, 1)]
        terms = np.einsum("nabi,ni->nab", maps, u[:, None] ** np.arange(5))
        return terms[..., 0], terms[..., 1:]


@dataclass(frozen=True, eq=False)
class Detector:
    """Describes a detector to every other part of the package.

    Attributes:
        name: short lower-case name, the key in `DETECTORS`.
        axes: length of each axis of a response, in storage order.
        unit: unit of a cell's content.
        conditions: the condition vector, in order.
        channels: named readouts.
        title: name for figures and tables.
        pitch: cell size along each axis, in cm, for showing lengths.
        face: where the front face is; None where primaries enter the detector directly.
        transport: where magnets before the face bring charged particles; None where there are none, or not known.
        grooves: along which a particle meets no absorber; None where there are none, or not known.
    """

    name: str
    axes: Mapping[str, int]
    unit: str
    conditions: tuple[Feature, ...]
    channels: Mapping[str, ChannelMap]
    title: str
    pitch: float | None = None
    face: Face | None = None
    layers: tuple[Layer, ...] = ()
    layer_depth: float | None = None
    pdg: int | None = None
    threshold: float = 0.0
    transport: Transport | None = None
    grooves: Grooves | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "axes", MappingProxyType(dict(self.axes)))
        object.__setattr__(self, "channels", MappingProxyType(dict(self.channels)))
        if self.layers and sum(layer.cells for layer in self.layers) != self.cells:
            raise ValueError(
                f"{self.name} has {self.cells} cells, but its layers "
                f"{sum(layer.cells for layer in self.layers)}"
            )
        for name, channel_map in self.channels.items():
            if channel_map.matrix.shape[1] != self.cells:
                raise ValueError(
                    f"channel map {name!r} of {self.name} must have {self.cells} cells, "
                    f"got {channel_map.matrix.shape[1]}"
                )

    def __reduce__(self) -> tuple[type[Detector], tuple[object, ...]]:
        # mapping proxies cannot be pickled, and worker processes need detectors
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        values |= {"axes": dict(self.axes), "channels": dict(self.channels)}
        return Detector, tuple(values.values())

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one response."""
        return tuple(self.axes.values())

    @property
    def cells(self) -> int:
        """Number of cells of one response."""
        return int(np.prod(self.shape))

    def __repr__(self) -> str:
        cells = " x ".join(map(str, self.shape))
        return f"<{self.name}: {self.title}, {cells} cells in {self.unit}, given {', '.join(self.features)}>"

    @property
    def counts(self) -> bool:
        """Whether responses are whole numbers, photons, and not energies."""
        return self.unit == "photons"

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the condition vector, in order."""
        return tuple(feature.name for feature in self.conditions)

    @property
    def energy(self) -> Feature | None:
        """The feature that is the particle's energy; None where there is none of that name."""
        return next((feature for feature in self.conditions if feature.name in ENERGIES), None)

    @property
    def default_channels(self) -> str:
        """Name of the channel map that is meant where none is named: `paper`, or else the first."""
        return "paper" if "paper" in self.channels else next(iter(self.channels))

    def channel_map(self, channels: str | None = None) -> ChannelMap:
        """Returns the named channel map, the default one where none is named.

        Raises:
            ValueError: no map of that name; the message lists those there are.
        """
        channels = channels or self.default_channels
        if channels not in self.channels:
            raise ValueError(
                f"{self.name} has no channel map {channels!r}; it has {', '.join(self.channels)}"
            )
        return self.channels[channels]

    def readout(self, responses: NDArray[np.generic], channels: str | None = None) -> NDArray[np.float64]:
        """Sums the cells of each channel.

        Args:
            responses: cell contents, (N, *shape).
            channels: name of the channel map; the default one where not given.

        Returns:
            channel sums in the detector's unit, (N, K).
        """
        if responses.shape[1:] != self.shape:
            raise ValueError(
                f"{self.name} responses must have shape (N, {', '.join(map(str, self.shape))}), "
                f"got {responses.shape}"
            )
        flat = responses.reshape(len(responses), self.cells)
        matrix = self.channel_map(channels).matrix.T.astype(np.float64)
        step = max(_BLOCK_CELLS // self.cells, 1)  # in parts, for the sake of memory
        parts = [
            flat[start : start + step].astype(np.float64) @ matrix for start in range(0, len(flat), step)
        ]
        return np.concatenate(parts) if parts else np.empty((0, matrix.shape[1]))
