"""Invertible transforms between physical units and what a network sees.

A transform is fitted once by an explicit call, is saved with the model and changes nothing in place. What
cannot be undone (a threshold, dequantizing noise) is no transform. Features derived from the conditions are here
too, since several models use them.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from caloforge.detectors import Detector
from caloforge.events import RAY

EDGE = 0.1
"""Length, in cm, below which the position is resolved linearly near the centre of the face."""

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


class Logit(Transform):
    """y = ln(z / (1 - z)) with z = x (1 - 2 edge) + edge, for x in [0, 1]; 0 and 1 stay finite.

    Args:
        edge: distance that is kept from 0 and 1.
    """

    def __init__(self, edge: float = 1e-6) -> None:
        super().__init__()
        self.edge = edge

    def forward(self, x: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Maps x in [0, 1], (B, *), to the whole line."""
        # z / (1 - z) without the factor 1 - 2 edge, which exporters take for 1
        shift = self.edge / (1 - 2 * self.edge)
        return torch.log((x + shift) / (1 - x + shift))

    def inverse(self, y: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Maps back, (B, *); beyond the image of [0, 1] the result lies outside by at most `edge`."""
        # not a sigmoid: that of ONNX Runtime is exact to 1e-7, and small x need as many digits as others
        x = 1 / (1 + torch.exp(-y.clamp(min=-80)))
        return (x - self.edge) / (1 - 2 * self.edge)


class Standardize(Transform):
    """y = (x - mean) / scale, with one mean and one standard deviation a feature.

    The scale is the standard deviation plus `epsilon`; without an epsilon it is 1 where a feature is constant. With
    one, a feature that is constant in the training stays within about epsilon of that value in the inverse.

    Args:
        size: number of features, F.
        epsilon: added to the standard deviation.
    """

    def __init__(self, size: int, epsilon: float = 0.0) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))

    @classmethod
    def fit(cls, values: Tensor, epsilon: float = 0.0) -> Self:
        """Returns the transform that gives `values`, (N, F), mean 0 and variance 1; constant features stay."""
        transform = cls(values.shape[1], epsilon)
        transform.refit(values)
        return transform

    def refit(self, values: Tensor) -> None:
        """Sets mean and scale from `values`, (N, F)."""
        self.refit_slices([values])

    def refit_slices(self, slices: Iterable[Tensor]) -> None:
        """Sets mean and scale from values that come in parts, (n, F) each, in constant memory."""
        count, mean, squares = 0, torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        for values in slices:
            exact = values.double()
            rows, centre = len(exact), exact.mean(0)
            shift = centre - mean.to(exact.device)
            # sums of squares about the joint mean (Chan, Golub and LeVeque 1983)
            squares = squares.to(exact.device) + ((exact - centre) ** 2).sum(0)
            squares = squares + shift**2 * (count * rows / (count + rows))
            mean = mean.to(exact.device) + shift * (rows / (count + rows))
            count += rows
        scale = (squares / count).sqrt()
        self.mean.copy_(mean)
        self.scale.copy_(scale + self.epsilon if self.epsilon else torch.where(scale > 0, scale, 1.0))

    def forward(self, x: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Maps values, (B, F), to mean 0 and variance 1."""
        return (x - self.mean) / self.scale

    def inverse(self, y: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Maps back, (B, F)."""
        return y * self.scale + self.mean


class StandardizeAlong(Transform):
    """y = (x - mean(c)) / scale(c), with a mean and a spread that are smooth functions of one condition c.

    ln scale and mean are polynomials of c, for each feature, by least squares; so a quantity that grows and sharpens
    with the energy has mean 0 and variance about 1 at every energy. Beyond the range of the fit c counts as its end.

    Args:
        size: number of features, F.
        degree: of the polynomials.
    """

    FEWEST = 1e-4
    """Spread that is taken for a feature without any."""

    def __init__(self, size: int, degree: int = 4) -> None:
        super().__init__()
        self.degree = degree
        self.mean: Tensor
        self.log_scale: Tensor
        self.register_buffer("mean", torch.zeros(degree + 1, size))
        self.register_buffer("log_scale", torch.zeros(degree + 1, size))
        self.range: Tensor
        self.register_buffer("range", torch.tensor([-1.0, 1.0]))

    def refit(self, values: Tensor, conditions: Tensor, chosen: Tensor | None = None) -> None:
        """Fits the polynomials to values (N, F) at conditions (N, 1), to the `chosen` ones of them, (N, F)."""
        self.range.copy_(torch.stack([conditions.min(), conditions.max()]))
        powers = self._powers(conditions.double())
        for k, column in enumerate(values.double().unbind(1)):
            rows = torch.ones_like(column, dtype=torch.bool) if chosen is None else chosen[:, k]
            mean = _least_squares(powers[rows], column[rows])
            off = (column[rows] - powers[rows] @ mean).abs()
            logs = _least_squares(powers[rows], torch.log(off + self.FEWEST))
            # the mean of ln |off| is not ln of the root mean square: the constant term makes the variance 1
            ratio = (
                (off / torch.exp(powers[rows] @ logs)).square().mean().sqrt()
                if len(off)
                else logs.new_ones(())
            )
            logs[0] += torch.log(ratio + self.FEWEST)
            self.mean[:, k], self.log_scale[:, k] = mean, logs

    def forward(self, x: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Maps values, (B, F), at conditions (B, 1)."""
        mean, scale = self.at(conditions, x)
        return (x - mean) / scale

    def inverse(self, y: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Maps back, (B, F)."""
        mean, scale = self.at(conditions, y)
        return y * scale + mean

    def at(self, conditions: Tensor | None, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and scale, both (B, F), of the dtype of `x`, at conditions (B, 1)."""
        if conditions is None:
            raise ValueError("StandardizeAlong needs the condition it was fitted along, (B, 1), got none")
        powers = self._powers(conditions.to(x.dtype))
        return powers @ self.mean.to(x.dtype), torch.exp(powers @ self.log_scale.to(x.dtype))

    def _powers(self, conditions: Tensor) -> Tensor:
        """Returns Chebyshev polynomials of the condition, its range being brought to [-1, 1], (B, degree + 1)."""
        low, high = self.range.to(conditions.dtype).unbind()
        c = ((2 * conditions - low - high) / (high - low)).clamp(-1, 1)
        powers = [torch.ones_like(c), c]
        for _ in range(self.degree - 1):
            powers.append(2 * c * powers[-1] - powers[-2])
        return torch.cat(powers[: self.degree + 1], 1)


def _least_squares(powers: Tensor, values: Tensor) -> Tensor:
    """Returns coefficients, (D,), that bring powers (n, D) to values (n,); a slight pull to 0 where rows are few."""
    size = powers.shape[1]
    normal = powers.T @ powers + 0.1 * torch.eye(size, dtype=powers.dtype, device=powers.device)
    solution: Tensor = torch.linalg.solve(normal, powers.T @ values)
    return solution


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


class LayerEnergies(Transform):
    """Splits showers into energies and shapes: how much each layer holds, and how it is spread within.

    With E_l the sum of layer l, l = 0..L-1, and E_inc the incident energy,

        u_0 = factor sum_l E_l / E_inc,
        u_i = E_(i-1) / max(sum_(j >= i-1) E_j, TINY),   i = 1..L-1,

    and every voxel is divided by E_l + TINY. All of these lie in [0, 1] where factor E_tot <= E_inc. The way back
    sets negative voxels and those up to `CUT` to 0 and u_1, u_2, ... to within [0, 1], which a network's output needs
    and the image of `forward` but for voxels below 1e-7 of their layer does not, and gives each layer
    exactly its energy:

        E_tot = E_inc u_0 / factor,   E_l = (E_tot - sum_(k < l) E_k) u_(l+1),   E_(L-1) the rest.

    The energies are computed in float64: differences in float32 lose 5e-4 of a layer's energy.

    Args:
        layers: voxels of each layer, in storage order.
        factor: f, brings u_0 below 1.
    """

    TINY = 1e-10
    CUT = 1e-7

    def __init__(self, layers: Sequence[int], factor: float = 0.35) -> None:
        super().__init__()
        self.layers, self.factor = tuple(layers), factor
        self.layer: Tensor
        index = torch.arange(len(self.layers)).repeat_interleave(torch.tensor(self.layers))
        self.register_buffer("layer", index, persistent=False)

    def energies(self, voxels: Tensor) -> Tensor:
        """Sums the voxels of each layer, (B, cells) to (B, L) float64."""
        return torch.stack([part.sum(1) for part in torch.split(voxels.double(), list(self.layers), 1)], 1)

    def forward(self, x: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Maps voxels to energies and shapes.

        Args:
            x: voxels [MeV], (B, cells).
            conditions: E_inc [MeV], (B, 1).

        Returns:
            u_0..u_(L-1), then the shapes, (B, L + cells), of the dtype of `x`.
        """
        energies = self.energies(x)
        u = self.fractions(energies, conditions)
        shapes = x.double() / (energies + self.TINY)[:, self.layer]
        return torch.cat([u, shapes], 1).to(x.dtype)

    def inverse(self, y: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Maps energies and shapes, (B, L + cells), back to voxels [MeV], (B, cells); E_inc as in `forward`."""
        number = len(self.layers)
        energies = self.energies_of(y[:, :number], conditions)
        shapes = y[:, number:].double()
        shapes = torch.where(shapes <= self.CUT, 0.0, shapes)
        sums = self.energies(shapes) + self.TINY
        return (shapes * (energies / sums)[:, self.layer]).to(y.dtype)

    def fractions(self, energies: Tensor, conditions: Tensor | None) -> Tensor:
        """Returns u, (B, L) float64, of the energy of each layer [MeV], (B, L) float64, and E_inc [MeV], (B, 1)."""
        rest = energies.flip(1).cumsum(1).flip(1)
        first = self.factor * rest[:, :1] / _incident(conditions)
        # not rest + TINY: exporters take that for an addition of nothing
        return torch.cat([first, energies[:, :-1] / rest[:, :-1].clamp(min=self.TINY)], 1)

    def energies_of(self, u: Tensor, conditions: Tensor | None) -> Tensor:
        """Returns the energy of each layer [MeV], (B, L) float64, of u, (B, L), and E_inc [MeV], (B, 1)."""
        exact = u.double()
        rest = _incident(conditions)[:, 0] * exact[:, 0].clamp(min=0) / self.factor
        energies = []
        for fraction in exact[:, 1:].clamp(0, 1).unbind(1):
            energies.append(rest * fraction)
            rest = rest - energies[-1]
        return torch.stack([*energies, rest], 1)


def _incident(conditions: Tensor | None) -> Tensor:
    if conditions is None:
        raise ValueError("LayerEnergies needs the incident energies as conditions, (B, 1), got none")
    return conditions.double()


class ImpactFeatures(nn.Module):
    """Appends to the conditions what they mean at the detector.

    - (x, y), where the straight line of the particle meets the plane of the detector's face, from the centre of
      the face, as it is and as arcsinh(x / EDGE), which is fine near the centre, where the quadrants meet;
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
        return _impact(conditions[:, self._columns], self._face.z)

    def cell(self, conditions: Tensor) -> Tensor:
        """Returns the same in cells from the first, (B, 2), of the dtype of the conditions."""
        cells = [
            position / self._pitch + middle
            for position, middle in zip(self._from_centre(conditions), self._middle, strict=True)
        ]
        return torch.stack(cells, 1).to(conditions.dtype)

    def _from_centre(self, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """Returns x and y of the impact in cm from the centre of the face, each (B,) float64."""
        x, y = self.impact(conditions).unbind(1)
        return x - self._face.x, y - self._face.y

    def forward(self, conditions: Tensor) -> Tensor:
        """Maps conditions in physical units, (B, F), to (B, size)."""
        energy, *_, vz, _, _, _, charge = (conditions[:, column].double() for column in self._columns)
        x, y = self._from_centre(conditions)
        neutral = (charge == 0).double()
        a, b = math.pi * x / self._pitch, math.pi * y / self._pitch
        sin_a, cos_a, sin_b, cos_b = torch.sin(a), torch.cos(a), torch.sin(b), torch.cos(b)
        cos_2a, cos_2b = torch.cos(2 * a), torch.cos(2 * b)
        within = [
            sin_a * sin_b,
            sin_a * cos_b,
            cos_a * sin_b,
            cos_a * cos_b,
            torch.sin(2 * a),
            cos_2a,
            torch.sin(2 * b),
            cos_2b,
            cos_2a * cos_2b,
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


class PromptRays(nn.Module):
    """Writes conditions as if every prompt particle came from the origin, its ray through the same point of the face.

    For networks that read vertex and momentum as they are, as the published ones do, and were trained on primaries from
    one point: where in the beam spot a prompt particle was born then changes nothing. A particle from farther away than
    `PROMPT` stays as it is, and so does everything before a detector without a face.

    Args:
        detector: whose conditions they are.
    """

    PROMPT = (0.1, 0.1, 30.0)
    """Vertices of prompt particles, |x|, |y| and |z| in cm."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self._face = detector.face if set(RAY) <= set(detector.features) else None
        self._columns = [detector.features.index(name) for name in RAY] if self._face else []

    def forward(self, conditions: Tensor) -> Tensor:
        """Maps conditions in physical units, (B, F), to the same, (B, F)."""
        if self._face is None:
            return conditions
        vx, vy, vz, px, py, pz = (conditions[:, column].double() for column in self._columns)
        ahead, side = pz.abs().clamp(min=1e-6), torch.sign(pz)
        length = (self._face.z - side * vz) / self._face.z
        slope_x, slope_y = vx / self._face.z + px / ahead * length, vy / self._face.z + py / ahead * length
        forward = torch.sqrt(px * px + py * py + pz * pz) / torch.sqrt(
            1 + slope_x * slope_x + slope_y * slope_y
        )
        zero = torch.zeros_like(vx)
        turned = (zero, zero, zero, slope_x * forward, slope_y * forward, side * forward)
        limits = torch.as_tensor(self.PROMPT, dtype=vx.dtype, device=vx.device)
        inside = [v.abs() < limit for v, limit in zip((vx, vy, vz), limits.unbind(), strict=True)]
        moved = vx.abs() + vy.abs() + vz.abs() > 0
        prompt = inside[0] & inside[1] & inside[2] & moved
        columns = list(conditions.unbind(1))
        for column, value in zip(self._columns, turned, strict=True):
            columns[column] = torch.where(prompt, value.to(conditions.dtype), columns[column])
        return torch.stack(columns, 1)


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
        x, y = (_impact(needed, self._face.z) / 10).unbind(1)
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
