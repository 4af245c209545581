"""Invertible transforms between physical units and what a network sees.

A transform is fitted once by an explicit call, is saved with the model and changes nothing in place. What
cannot be undone (a threshold, dequantizing noise) is no transform. Features derived from the conditions are here
too, since several models use them.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Self

import torch
from torch import Tensor, nn

from caloforge.detectors import Detector

EDGE = 0.1
"""Length, in cm, below which the position is resolved linearly near the axis."""

VERTEX = 0.01
"""Length, in cm, below which vz is resolved linearly."""

_NEEDED = ("energy", "vx", "vy", "vz", "px", "py", "pz", "charge")


class Transform(nn.Module, ABC):
    """Maps physical values to network values and back, given the conditions where it needs them."""

    @abstractmethod
    def forward(self, x: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Maps physical values, (B, *), to network values."""

    @abstractmethod
    def inverse(self, y: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Undoes `forward` on its image."""


class Log1p(Transform):
    """y = ln(1 + x)."""

    def forward(self, x: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Maps x > -1, (B, *), to its logarithm."""
        return torch.log1p(x)

    def inverse(self, y: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Maps back, (B, *)."""
        return torch.expm1(y)


class Standardize(Transform):
    """y = (x - mean) / scale, with one mean and one standard deviation a feature.

    Args:
        size: number of features, F.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))

    @classmethod
    def fit(cls, values: Tensor) -> Self:
        """Returns the transform that gives `values`, (N, F), mean 0 and variance 1; constant features stay."""
        transform = cls(values.shape[1])
        transform.refit(values)
        return transform

    def refit(self, values: Tensor) -> None:
        """Sets mean and scale from `values`, (N, F)."""
        exact = values.double()
        scale = exact.std(0, correction=0)
        self.mean.copy_(exact.mean(0))
        self.scale.copy_(torch.where(scale > 0, scale, 1.0))

    def forward(self, x: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Maps values, (B, F), to mean 0 and variance 1."""
        return (x - self.mean) / self.scale

    def inverse(self, y: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Maps back, (B, F)."""
        return y * self.scale + self.mean


class Compose(Transform):
    """Applies transforms one after the other."""

    def __init__(self, *transforms: Transform) -> None:
        super().__init__()
        self.transforms = nn.ModuleList(transforms)

    def forward(self, x: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Applies the transforms in order."""
        for transform in self.transforms:
            x = transform(x, conditions)
        return x

    def inverse(self, y: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Undoes the transforms in reverse order."""
        for transform in reversed(self.transforms):
            assert isinstance(transform, Transform)
            y = transform.inverse(y, conditions)
        return y


class ImpactFeatures(nn.Module):
    """Appends to the conditions what they mean at the detector.

    - (x, y), where the straight line of the particle meets the plane of the detector's face, as it is and as
      arcsinh(x / EDGE), which is fine near the axis, where the quadrants meet;
    - ln E, and arcsinh(vz / VERTEX), since decays make vz heavy-tailed;
    - for neutral particles the place within the grid of fibres: with a = pi x / pitch and b = pi y / pitch, the
      products of sin a, cos a with sin b, cos b, and their harmonics. Fibres alternate between two readouts like
      the fields of a chessboard, so sin a sin b says in which of them a narrow photon shower starts, and the
      harmonics how near to a fibre.


    Args:
        detector: a detector with a face, a pitch and the features energy, vertex, momentum and charge.

    Raises:
        ValueError: the detector lacks one of them.
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        if detector.face is None or detector.pitch is None or not set(_NEEDED) <= set(detector.features):
            raise ValueError(
                f"derived features need a face, a pitch and the conditions {', '.join(_NEEDED)}; "
                f"{detector.name} has face {detector.face}, pitch {detector.pitch} and "
                f"{', '.join(detector.features)}"
            )
        self._face, self._pitch = detector.face, detector.pitch
        self._middle = tuple((size - 1) / 2 for size in detector.shape)
        self._columns = [detector.features.index(name) for name in _NEEDED]
        self.size = len(detector.features) + 17

    def impact(self, conditions: Tensor) -> Tensor:
        """Returns where the straight line meets the face, in cm from the axis, (B, 2) float64."""
        return _impact(conditions[:, self._columns], self._face)

    def cell(self, conditions: Tensor) -> Tensor:
        """Returns the same in cells from the first, (B, 2), of the dtype of the conditions."""
        cells = [
            place / self._pitch + middle
            for place, middle in zip(self.impact(conditions).unbind(1), self._middle, strict=True)
        ]
        return torch.stack(cells, 1).to(conditions.dtype)

    def forward(self, conditions: Tensor) -> Tensor:
        """Maps conditions in physical units, (B, F), to (B, size)."""
        energy, *_, vz, _, _, _, charge = (conditions[:, column].double() for column in self._columns)
        x, y = self.impact(conditions).unbind(1)
        neutral = (charge == 0).double()
        a, b = math.pi * x / self._pitch, math.pi * y / self._pitch
        within = [
            torch.sin(a) * torch.sin(b),
            torch.sin(a) * torch.cos(b),
            torch.cos(a) * torch.sin(b),
            torch.cos(a) * torch.cos(b),
            torch.sin(2 * a),
            torch.cos(2 * a),
            torch.sin(2 * b),
            torch.cos(2 * b),
            torch.cos(2 * a) * torch.cos(2 * b),
            torch.cos(4 * a),
            torch.cos(4 * b),
        ]
        derived = [
            x,
            y,
            _arcsinh(x / EDGE),
            _arcsinh(y / EDGE),
            torch.log(energy),
            _arcsinh(vz / VERTEX),
            *(neutral * wave for wave in within),
        ]
        return torch.cat([conditions, torch.stack(derived, 1).to(conditions.dtype)], 1)


class BendingFeatures(nn.Module):
    """What magnets between vertex and detector act on, for charged particles: all are 0 for neutral ones.

    With k = q / E in units of e / TeV, s the side (the sign of pz) and (x, y) where the straight line meets the
    plane of the detector's face, in decimetres: k, k x, k y, k^2, s k, s k x, s k y.

    Args:
        detector: as for `ImpactFeatures`.
    """

    size = 7

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        if detector.face is None or not set(_NEEDED) <= set(detector.features):
            raise ValueError(
                f"features of bending need a face and the conditions {', '.join(_NEEDED)}; {detector.name} has "
                f"face {detector.face} and {', '.join(detector.features)}"
            )
        self._face = detector.face
        self._columns = [detector.features.index(name) for name in _NEEDED]

    def forward(self, conditions: Tensor) -> Tensor:
        """Maps conditions in physical units, (B, F), to (B, 7)."""
        needed = conditions[:, self._columns].double()
        energy, *_, pz, charge = needed.unbind(1)
        x, y = (_impact(needed, self._face) / 10).unbind(1)
        k = charge * 1000 / energy.clamp(min=1)
        side = torch.sign(pz) * k
        return torch.stack([k, k * x, k * y, k * k, side, side * x, side * y], 1).to(conditions.dtype)


def _impact(needed: Tensor, face: float) -> Tensor:
    """Returns where straight lines meet the plane |z| = face, (B, 2) float64, from the features `_NEEDED`."""
    # float64: the place within a fibre is a small part of the path from the vertex
    _, vx, vy, vz, px, py, pz, _ = needed.double().unbind(1)
    ahead = pz.abs().clamp(min=1e-6)
    length = face - torch.sign(pz) * vz
    return torch.stack([vx + px / ahead * length, vy + py / ahead * length], 1)


def _arcsinh(x: Tensor) -> Tensor:
    # written out, since ONNX Runtime has no float64 kernel for it
    return torch.sign(x) * torch.log(x.abs() + torch.sqrt(x * x + 1))
