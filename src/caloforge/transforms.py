"""Invertible transforms between physical units and what a network sees.

A transform is fitted once by an explicit call, is saved with the model and changes nothing in place. What
cannot be undone (a threshold, dequantizing noise) is no transform.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Self

import torch
from torch import Tensor, nn


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


class GappedCounts(Transform):
    """Counts with dequantizing noise as numbers with a gap between dark and lit cells: `cells = "gap"` of the module.

    Attributes:
        middle: where the band of dark cells has its middle.
        spread: scale of its logistic distribution.
        edge: share of the logistic distribution that is cut off at each end.
        slope: of the logarithm of lit cells.
    """

    middle, spread, edge, slope = -2.0, 0.3, 0.01, 0.6

    @property
    def threshold(self) -> float:
        """The middle of the gap."""
        return (self.middle + self.spread * math.log((1 - self.edge) / self.edge)) / 2

    def forward(self, x: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Maps counts with their noise in [0, 1), (B, *)."""
        w = self._share(x)
        dark = self.middle + self.spread * torch.log(w / (1 - w))
        return torch.where(x < 1, dark, self.slope * torch.log(x.clamp(min=1)))

    def inverse(self, y: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Maps back, (B, *); what lies in the gap is the end of the band or 1."""
        w = torch.sigmoid((y - self.middle) / self.spread)
        u = ((w - self.edge) / (1 - 2 * self.edge)).clamp(0.0, 1 - 2**-24)
        return torch.where(y < self.threshold, u, torch.exp(y / self.slope).clamp(min=1))

    def log_slope(self, x: Tensor) -> Tensor:
        """Returns ln |dy / dx|, (B, *), of counts with their noise."""
        w = self._share(x)
        dark = math.log(self.spread * (1 - 2 * self.edge)) - torch.log(w * (1 - w))
        return torch.where(x < 1, dark, math.log(self.slope) - torch.log(x.clamp(min=1)))

    def _share(self, x: Tensor) -> Tensor:
        return self.edge + (1 - 2 * self.edge) * x.clamp(max=1)


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

    ln scale and mean are polynomials of c, for each feature, the likeliest under a normal; so a quantity that grows and
    sharpens with the energy has mean 0 and variance about 1 at every energy. Beyond the range of the fit c counts as
    its end.

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
            self.mean[:, k], self.log_scale[:, k] = _likeliest(powers[rows], column[rows], self.FEWEST)

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


class Stretch(Transform):
    """Stretches the axis of non-negative values x where they crowd, and shrinks it where they are rare.

    dy / dx = p(x) / q(x), p the density of the values it is fitted to and q the same smoothed by a normal of spread
    `width`. So sharp edges and lines of a spectrum are as smooth in y as all else, and a few normal densities can give
    them. y is linear between knots that are evenly spaced in y, and equals x below 0 and above `top`.

    Args:
        top: largest value that is moved.
        width: of what counts as sharp.
        knots: number of pieces.
    """

    MOST = 5.0
    """Bound of dy / dx and of its inverse."""

    PRIOR = 10.0
    """Counts that every bin has besides, so that few values stretch nothing."""

    def __init__(self, top: float = 6.0, width: float = 0.4, knots: int = 300) -> None:
        super().__init__()
        self.top, self.width = top, width
        self.places: Tensor
        self.register_buffer("places", torch.linspace(0, top, knots + 1))

    def refit(self, values: Tensor) -> None:
        """Fits the knots to values, (N,)."""
        pieces = len(self.places) - 1
        edges = torch.linspace(0, self.top, pieces + 1, dtype=torch.float64, device=values.device)
        inside = values[(values > 0) & (values < self.top)].double()
        counts = (
            torch.bincount((inside * (pieces / self.top)).long(), minlength=pieces)[:pieces].double()
            + self.PRIOR
        )
        middle = (edges[1:] + edges[:-1]) / 2
        kernel = torch.exp(-0.5 * ((middle[:, None] - middle) / self.width).square())
        ratio = (counts / (kernel @ counts / kernel.sum(1))).clamp(1 / self.MOST, self.MOST)
        y = torch.cat([edges[:1], ratio.cumsum(0)]) * (self.top / ratio.sum())
        # the way back, at even places in y
        piece = (torch.searchsorted(y, edges, right=True) - 1).clamp(0, pieces - 1)
        part = (edges - y[piece]) / (y[piece + 1] - y[piece])
        self.places.copy_(edges[piece] + part * (edges[piece + 1] - edges[piece]))

    def forward(self, x: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Maps values, (B, *)."""
        pieces = len(self.places) - 1
        places = self.places.to(x.dtype)
        piece = (torch.searchsorted(places, x.detach().contiguous(), right=True) - 1).clamp(0, pieces - 1)
        low, high = places[piece], places[piece + 1]
        y = (piece + (x - low) / (high - low)) * (self.top / pieces)
        return torch.where((x > 0) & (x < self.top), y, x)

    def inverse(self, y: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Maps back, (B, *)."""
        inside = y.clamp(0.0, self.top)
        return self._between(self.places, inside) + (y - inside)

    def slope(self, y: Tensor) -> Tensor:
        """Returns dx / dy, (B, *), smoothed from piece to piece so that rounding does not matter."""
        pieces = (self.places[1:] - self.places[:-1]) * ((len(self.places) - 1) / self.top)
        one = torch.ones_like(pieces[:1])
        return self._between(torch.cat([one, (pieces[1:] + pieces[:-1]) / 2, one]), y.clamp(0.0, self.top))

    def _between(self, values: Tensor, y: Tensor) -> Tensor:
        """Interpolates values at the knots, (K + 1,), at y within 0 and `top`, (B, *)."""
        pieces = len(values) - 1
        place = y * (pieces / self.top)
        piece = torch.floor(place).clamp(max=pieces - 1).long()
        low = values.to(y.dtype)[piece]
        return low + (place - piece) * (values.to(y.dtype)[piece + 1] - low)


def _likeliest(powers: Tensor, values: Tensor, fewest: float) -> tuple[Tensor, Tensor]:
    """Returns coefficients of a normal's mean and ln spread, (D,) each, by the likelihood of values (n,).

    Scoring by Fisher's information in turns with a mean by weighted least squares, from one spread for all. A fit of
    ln |off| would follow the smallest differences, and be anything where rows are few.

    Args:
        powers: of the condition, (n, D).
        values: (n,) float64.
        fewest: added to every spread.
    """
    mean = _least_squares(powers, values)
    logs = torch.zeros_like(mean)
    if not len(values):
        logs[0] = math.log(fewest)
        return mean, logs
    logs[0] = torch.log((values - powers @ mean).square().mean().sqrt() + fewest)
    surprise = _surprise(powers, values, mean, logs)
    for _ in range(50):
        scale = torch.exp(powers @ logs)
        wider = (((values - powers @ mean) / scale).square() - 1).clamp(max=20) / 2
        step = _least_squares(powers, wider)
        better = surprise
        for part in (1.0, 0.5, 0.25, 0.1):  # a whole step may overshoot where rows are few
            tried = logs + part * step
            weights = torch.exp(-(powers @ tried)).clamp(max=1 / fewest)[:, None]
            centre = _least_squares(powers * weights, values * weights[:, 0])
            better = _surprise(powers, values, centre, tried)
            if better < surprise:
                mean, logs = centre, tried
                break
        if not better < surprise - 1e-7:
            break
        surprise = better
    return mean, logs


def _surprise(powers: Tensor, values: Tensor, mean: Tensor, logs: Tensor) -> Tensor:
    """Returns the mean of -ln p, but for a constant."""
    ln = powers @ logs
    return (ln + 0.5 * ((values - powers @ mean) * torch.exp(-ln)).square()).mean()


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
