"""A detector is a value: axes, unit, conditions and named channel maps, frozen and never subclassed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray


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
        face: distance |z| from the interaction point to the front face, in cm; None where primaries
            enter the detector directly.
    """

    name: str
    axes: Mapping[str, int]
    unit: str
    conditions: tuple[Feature, ...]
    channels: Mapping[str, ChannelMap]
    title: str
    pitch: float | None = None
    face: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "axes", MappingProxyType(dict(self.axes)))
        object.__setattr__(self, "channels", MappingProxyType(dict(self.channels)))
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

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the condition vector, in order."""
        return tuple(feature.name for feature in self.conditions)

    def channel_map(self, channels: str = "paper") -> ChannelMap:
        """Returns the named channel map.

        Raises:
            ValueError: no map of that name; the message lists those there are.
        """
        if channels not in self.channels:
            raise ValueError(
                f"{self.name} has no channel map {channels!r}; it has {', '.join(self.channels)}"
            )
        return self.channels[channels]

    def readout(self, responses: NDArray[np.generic], channels: str = "paper") -> NDArray[np.float64]:
        """Sums the cells of each channel.

        Args:
            responses: cell contents, (N, *shape).
            channels: name of the channel map.

        Returns:
            channel sums in the detector's unit, (N, K).
        """
        if responses.shape[1:] != self.shape:
            raise ValueError(
                f"{self.name} responses must have shape (N, {', '.join(map(str, self.shape))}), "
                f"got {responses.shape}"
            )
        flat = responses.reshape(len(responses), self.cells).astype(np.float64)
        return np.asarray(flat @ self.channel_map(channels).matrix.T.astype(np.float64))
