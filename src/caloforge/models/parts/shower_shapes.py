"""The shape of a shower of known layer energies, the second factor of CaloDREAM (Favaro et al. 2024, arXiv:2405.09629).

By flow matching, x_t = (1 - t) x_0 + t x_1, a vision transformer (`nn.vit`) that is told E_inc and all u:

- `velocity`, the paper's: x_1 = standardised logit of the voxels over their layer's energy.
- `voxels`: x_1 = ln(1 + voxel / unit). The transformer gives a prior of each voxel, odds of being empty and K normal
  densities, and Bayes' theorem the mean x_1^ given the noisy voxel (`nn.voxel_posterior`); the velocity is
  (x_1^ - x_t) / (1 - t). Loss: E |x_1^ - x_1|^2 / max(1 - t, 0.05)^2 plus `likelihood` times -ln p(x_1 | x_t) a voxel,
  t with density 2 t. The path is followed to `end`, in steps of equal shares of the way left. What is read off there
  is 0 where that is likelier than not, else the mean of the densities; the large voxels are changed to fit the
  layer's energy.
- `drawn`: as `voxels`, in units of what is expected, and each voxel is drawn where the path is still wide. A voxel of
  ring r in layer l is expected to hold mu = f_lr E_l, f the mean profile; of lit voxels ln(1 + voxel / unit) has a mean
  m(mu) and a spread s(mu), and as many are lit as a Poisson law has, 1 - exp(-mu / quantum). x_1 = ln(1 + voxel /
  unit) / s, and the network corrects odds, means and spreads. With `lines` the logarithm is stretched first where
  voxels crowd (`transforms.Stretch`): a single particle that ionises least gives nearly the same energy to every voxel
  it crosses, and this line has an edge too sharp for a few normal densities. Loss: E |x_1^ - x_1|^2 plus
  `likelihood` times -ln p(x_1 | x_t), t up to 0.8 with density proportional to t. At `end`, not later, a normal says
  which density it is, or none, and another one where in it; what a density has below `cut` is mirrored at it. What the
  sum of a layer lacks is divided by the squares of the spreads. The flow has to tell only how voxels hang together, and
  not which of them are empty, so a few steps do.
- with a `latent` section the transformer works on the latents of an autoencoder (`nn.voxel_vae`), trained before, and
  its decoder gives the voxels.

Voxels that are negative, at most 1e-7 of their layer or below `cut` [MeV] are empty, the others are scaled to their
layer's energy: the sums of the layers are those drawn, exactly; where no voxel is left, the largest has all.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, Self

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from caloforge.models.base import BatchRandom
from caloforge.models.parts.bayesian import BayesianConfig, check_bayesian
from caloforge.nn.vit import ViT, ViTConfig
from caloforge.nn.voxel_posterior import NUMBERS, Posterior, start
from caloforge.nn.voxel_vae import VoxelVAE, VoxelVAEConfig
from caloforge.ode.average_velocity import AverageVelocityConfig
from caloforge.ode.bespoke import BespokeConfig, repeated
from caloforge.ode.path import Velocity, cfm_loss, on_path
from caloforge.ode.solve import check_solver
from caloforge.ode.solvers import SolverConfig
from caloforge.optim import AdamConfig
from caloforge.transforms import LayerEnergies, Logit, Standardize, StandardizeAlong, Stretch

DENSITIES = ((0.7, 0.05), (2.4, 0.8), (4.2, 0.8))
"""Mean and spread of ln(1 + voxel / unit) that each density of a voxel starts from."""

LATEST = 0.8
"""Latest time at which voxels may be drawn, and to which their network is trained."""


class ShapeConfig(BaseModel):
    """Network, solver and training of the shapes; a `TrainingSection`.

    Attributes:
        network: sizes of the transformer.
        prediction: `velocity`, `voxels` or `drawn`.
        likelihood: weight of the likelihood of the voxels in the loss; of `voxels` and `drawn` only.
        end: time at which the voxels are read off the path, or drawn; of `voxels` and `drawn` only, of the
            latter at most 0.8; may be changed after the training.
        lines: of `drawn`, stretch the logarithms of voxels where single particles give them nearly the same energy.
        turn: turn and mirror the showers of the training at random, where the calorimeter looks the same.
        solver: of the sampling; may be changed after the training.
        bespoke: a solver that is trained for this network, for `solver.method = "bespoke"`.
        bayesian: Gaussian weights and their replicas, of the method `mean_field`; none where not given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: ViTConfig = ViTConfig()
    prediction: Literal["velocity", "voxels", "drawn"] = "velocity"
    likelihood: float = Field(0.3, ge=0)
    end: float = Field(0.95, gt=0, lt=1)
    lines: bool = False
    turn: bool = False
    solver: SolverConfig = SolverConfig(method="rk4", steps=20)
    bespoke: BespokeConfig = BespokeConfig()
    average_velocity: AverageVelocityConfig = AverageVelocityConfig()
    optimizer: AdamConfig = AdamConfig(
        learning_rate=1e-3, weight_decay=1e-5, schedule="cosine", warmup=0.0, gradient_clip=100.0
    )
    epochs: int = Field(800, ge=1)
    batch_size: int = Field(64, ge=1)
    bayesian: BayesianConfig | None = None

    @model_validator(mode="after")
    def _solver(self) -> Self:
        check_solver(self.solver, self.bespoke, self.average_velocity)
        check_bayesian(self.bayesian, self.solver.method)
        if self.prediction == "drawn" and self.end > LATEST:
            raise ValueError(f"end must be at most {LATEST} where voxels are drawn, got {self.end:g}")
        return self


class LatentConfig(BaseModel):
    """The autoencoder and its training; a `TrainingSection`.

    Attributes:
        network: its sizes.
        divergence: weight of the Kullback-Leibler divergence of the posterior from N(0, 1) a latent, beta.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: VoxelVAEConfig = VoxelVAEConfig()
    divergence: float = Field(1e-5, ge=0)
    optimizer: AdamConfig = AdamConfig(learning_rate=1e-3, schedule="cosine", warmup=0.3)
    epochs: int = Field(200, ge=1)
    batch_size: int = Field(128, ge=1)


@dataclass(frozen=True, eq=False)
class Context:
    """What the shapes of a batch are told.

    Attributes:
        features: E_inc and all u, standardised, (B, 1 + L), and the direction where there are angles, (B, 3 + L).
        layers: ln(1 + E_l / unit) / 4 and whether a layer is not empty, (B, L, 2).
        energies: of the layers [MeV], (B, L) float64.
    """

    features: Tensor
    layers: Tensor
    energies: Tensor


class Shapes(nn.Module, ABC):
    """Draws voxels in proportion to what they hold of their layer.

    Attributes:
        shape: of the noise, (*shape).
        network: what is trained, made by `_kind`.
        drawn: normals a voxel that reading takes.
        fitted: showers to which the normalization is fitted at most.
    """

    shape: tuple[int, ...]
    network: ViT
    _kind: Callable[..., ViT]
    drawn: int = 0
    fitted: float = math.inf

    @abstractmethod
    def fit(self, parts: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Fits the normalization to voxels [MeV], (n, L, A, R), and energies of their layers, (n, L)."""

    @abstractmethod
    def loss(
        self, network: ViT, voxels: Tensor, energies: Tensor, context: Context, rng: BatchRandom
    ) -> Tensor:
        """Returns the loss of each event, (B,)."""

    @abstractmethod
    def average(self, network: ViT, context: Context) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
        """Returns average velocities of a batch, the velocity where s is None; asked at any multiple of it."""

    def velocity(self, network: ViT, context: Context) -> Velocity:
        """Returns the velocity of a batch; it may be asked at any multiple of it."""
        average = self.average(network, context)
        return lambda x, t: average(x, t, None)

    def student(self) -> ViT:
        """Returns an untrained network of average velocities: the same transformer, told of intervals."""
        return self._kind(until=True)

    @abstractmethod
    def read(self, x: Tensor, context: Context, normals: Tensor) -> Tensor:
        """Returns voxels in proportion, (B, L, A, R), from the end of the path and `drawn` normals a voxel."""


class VelocityShapes(Shapes):
    """Standardised logits of the shares, as in the paper."""

    def __init__(self, axes: Sequence[int], config: ShapeConfig) -> None:
        super().__init__()
        self.shape = tuple(axes)
        self._kind = partial(ViT, (1, *axes), axes[0] + 1, config.network)
        self.network = self._kind()
        self.logit, self.standardize = Logit(), Standardize(int(np.prod(axes)), 1e-6)

    def fit(self, parts: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Fits the standardisation in constant memory."""
        self.standardize.refit_slices(self.logit(shares(*part)).flatten(1) for part in parts)

    def loss(
        self, network: ViT, voxels: Tensor, energies: Tensor, context: Context, rng: BatchRandom
    ) -> Tensor:
        """The loss of the velocity."""
        logits = self.logit(shares(voxels, energies)).flatten(1).float()
        x1 = self.standardize(logits).view(-1, *self.shape)
        return cfm_loss(self.velocity(network, context), rng.normal(*self.shape), x1, rng.uniform())

    def average(self, network: ViT, context: Context) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
        """What the transformer gives."""

        def average(x: Tensor, t: Tensor, s: Tensor | None) -> Tensor:
            speeds: Tensor = network(x[:, None], t, repeated(context.features, x), None, s)
            return speeds[:, 0]

        return average

    def read(self, x: Tensor, context: Context, normals: Tensor) -> Tensor:
        """Undoes the standardisation and the logit."""
        logits = self.standardize.inverse(x.flatten(1)).double()
        return self.logit.inverse(logits).view(-1, *self.shape)


class VoxelShapes(Shapes):
    """Logarithms of the voxels, by a prior of each and Bayes' theorem."""

    def __init__(self, axes: Sequence[int], config: ShapeConfig, unit: float) -> None:
        super().__init__()
        self.shape, self.unit = tuple(axes), unit
        self.likelihood, self.end = config.likelihood, config.end
        prior = start(-3.0, *zip(*DENSITIES, strict=True))
        self._kind = partial(ViT, (1, *axes), axes[0] + 1, config.network, outputs=len(prior), local=2)
        self.network = self._kind()
        assert len(prior) == NUMBERS * len(DENSITIES)
        with torch.no_grad():
            self.network.last.bias.view(len(prior), -1).copy_(prior[:, None])

    def fit(self, parts: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Fits nothing."""

    def _posterior(
        self, network: ViT, x: Tensor, t: Tensor, context: Context, s: Tensor | None = None
    ) -> Posterior:
        local = repeated(context.layers.flatten(1), x).view(-1, *context.layers.shape[1:])
        numbers = network(x[:, None], t, repeated(context.features, x), local, s)
        return Posterior(numbers, x, t[:, None, None, None])

    def loss(
        self, network: ViT, voxels: Tensor, energies: Tensor, context: Context, rng: BatchRandom
    ) -> Tensor:
        """The loss of the velocity and the likelihood of the voxels."""
        x1, x0, t = torch.log1p(voxels / self.unit), rng.normal(*self.shape), rng.uniform().sqrt()
        posterior = self._posterior(network, on_path(x0, x1, t), t, context)
        error = (posterior.mean() - x1).square().flatten(1).mean(1) / (1 - t).clamp(min=0.05).square()
        each: Tensor = error + self.likelihood * posterior.surprise(x1).flatten(1).mean(1)
        return each

    def average(self, network: ViT, context: Context) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
        """From the noisy voxels to their expected end."""

        def average(x: Tensor, t: Tensor, s: Tensor | None) -> Tensor:
            left = (1 - t).clamp(min=0.01)[:, None, None, None]
            direction: Tensor = (self._posterior(network, x, t, context, s).mean() - x) / left
            return direction

        return average

    def read(self, x: Tensor, context: Context, normals: Tensor) -> Tensor:
        """Reads the expected end of the path."""
        posterior = self._posterior(self.network, x, torch.full_like(x[:, 0, 0, 0], self.end), context)
        lit = self.unit * torch.expm1(posterior.likely().clamp(max=20).double())
        # where a whole layer is dark, the likeliest voxel is the largest
        return torch.where(lit > 0, completed(lit, context.energies), posterior.lit().double() - 1)


class DrawnShapes(Shapes):
    """Logarithms of the voxels in units of their spread, drawn from what Bayes' theorem leaves open early on the path.

    Attributes:
        profile: share of a layer's energy that a voxel of each ring holds on average, (L, R).
        quantum: energy a lit voxel has where few are [MeV].
        stretch: what is done to ln(1 + voxel / unit), if anything.
        lit: its mean and spread, of lit voxels, along ln of the expected energy.
    """

    DENSITIES = 3
    """Densities of a lit voxel."""

    STARTS = (-1.0, 0.0, 1.0)
    """Their means at first, in spreads from the mean of lit voxels."""

    FEW = 1000
    """One lit voxel in so many counts as one of which more is expected."""

    SINGLE = 10.0
    """Where less is expected, in units, a lit voxel tells of single particles."""

    def __init__(self, axes: Sequence[int], config: ShapeConfig, unit: float, cut: float) -> None:
        super().__init__()
        self.shape, self.unit, self.cut = tuple(axes), unit, cut
        self.likelihood, self.end = config.likelihood, config.end
        self.drawn, self.fitted = 2, 400
        numbers = start(0.0, self.STARTS, [1.0] * self.DENSITIES)
        self._kind = partial(ViT, (1, *axes), axes[0] + 1, config.network, outputs=len(numbers), local=2)
        self.network = self._kind()
        with torch.no_grad():
            self.network.last.bias.view(len(numbers), -1).copy_(numbers[:, None])
        self.profile: Tensor
        self.quantum: Tensor
        self.register_buffer("profile", torch.full((axes[0], axes[2]), 1 / (axes[1] * axes[2])))
        self.register_buffer("quantum", torch.ones(1))
        self.stretch = Stretch() if config.lines else None
        self.lit = StandardizeAlong(1, 5)

    def fit(self, parts: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Fits what is expected of a voxel: the profile, the energy of a single hit, mean and spread."""
        voxels, energies = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        rings = voxels.double().sum((0, 2)) / self.shape[1]
        self.profile.copy_((rings + 1e-6) / (rings + 1e-6).sum(1, keepdim=True) / self.shape[1])
        expected = self._expected(energies).expand_as(voxels).flatten()
        flat = voxels.flatten()
        count, low, high = int((flat > 0).sum()), 1e-3, 1e3
        for _ in range(60):  # the number of lit voxels is the expected one
            middle = math.sqrt(low * high)
            more = float(-torch.expm1(-expected / (self.unit * middle)).sum()) > count
            low, high = (middle, high) if more else (low, middle)
        self.quantum.fill_(self.unit * low)
        chosen = flat > 0
        if self.stretch is not None:
            few = chosen & (expected < self.SINGLE * self.unit)
            self.stretch.refit(torch.log1p(flat[few] / self.unit))
        along = torch.log(expected[chosen]).unsqueeze(1)
        # too few are lit where least is expected to say anything
        along = along.clamp(min=float(torch.sort(along[:, 0]).values[len(along) // self.FEW]))
        self.lit.refit(self._logs(flat[chosen]).unsqueeze(1), along)

    def _logs(self, voxels: Tensor) -> Tensor:
        """Returns ln(1 + voxel / unit), stretched where that is asked for."""
        logs = torch.log1p(voxels / self.unit)
        return logs if self.stretch is None else self.stretch(logs)

    def _expected(self, energies: Tensor) -> Tensor:
        """Returns the expected energy of each voxel [MeV], (B, L, 1, R)."""
        return ((energies[:, :, None] * self.profile).clamp(min=1e-6))[:, :, None].float()

    def _scales(self, energies: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns spread, mean in spreads, and log odds of lit voxels, each (B, L, 1, R)."""
        expected = self._expected(energies)
        along = torch.log(expected).view(-1, 1)
        mean, spread = (values.view_as(expected) for values in self.lit.at(along, along))
        spread = spread.clamp(0.02, 5.0)
        hits = (expected / self.quantum).clamp(1e-7, 15.0)
        return spread, mean.clamp(min=0) / spread, log_expm1(hits)

    def _posterior(
        self,
        network: ViT,
        x: Tensor,
        t: Tensor,
        context: Context,
        scales: tuple[Tensor, Tensor, Tensor],
        s: Tensor | None = None,
    ) -> Posterior:
        time = t[:, None, None, None]
        _, centre, odds = (repeated(scale.flatten(1), x).view(-1, *scale.shape[1:]) for scale in scales)
        near = (x - time * torch.sigmoid(odds) * centre).clamp(-8, 8)
        local = repeated(context.layers.flatten(1), x).view(-1, *context.layers.shape[1:])
        numbers = network(near[:, None], t, repeated(context.features, x), local, s)
        logs, means, spreads = numbers.chunk(NUMBERS, 1)
        shifted = [logs + (odds - math.log(self.DENSITIES))[:, None], means + centre[:, None], spreads]
        return Posterior(torch.cat(shifted, 1), x, time)

    def loss(
        self, network: ViT, voxels: Tensor, energies: Tensor, context: Context, rng: BatchRandom
    ) -> Tensor:
        """The loss of the velocity and the likelihood of the voxels."""
        scales = self._scales(energies)
        x1, x0 = self._logs(voxels) / scales[0], rng.normal(*self.shape)
        t = LATEST * rng.uniform().sqrt()
        posterior = self._posterior(network, on_path(x0, x1, t), t, context, scales)
        error = (posterior.mean() - x1).square().flatten(1).mean(1)
        each: Tensor = error + self.likelihood * posterior.surprise(x1).flatten(1).mean(1)
        return each

    def average(self, network: ViT, context: Context) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
        """From the noisy voxels to their expected end."""
        scales = self._scales(context.energies)

        def average(x: Tensor, t: Tensor, s: Tensor | None) -> Tensor:
            direction: Tensor = self._posterior(network, x, t, context, scales, s).mean() - x
            return direction / (1 - t)[:, None, None, None]

        return average

    def read(self, x: Tensor, context: Context, normals: Tensor) -> Tensor:
        """Draws each voxel, with two normals each, (B, 2 L A R)."""
        choice, within = normals.view(-1, 2, *self.shape).unbind(1)
        scales = self._scales(context.energies)
        at_end = torch.full_like(x[:, 0, 0, 0], self.end)
        posterior = self._posterior(self.network, x, at_end, context, scales)
        y, least = posterior.draw(choice, within), math.log1p(self.cut / self.unit)
        logs, slope = y * scales[0], scales[0]
        if self.stretch is not None:
            logs, slope = self.stretch.inverse(logs), slope * self.stretch.slope(logs)
        # what a density has below the threshold is mirrored at it
        logs = ((logs - least).abs() + least).clamp(max=20)
        lit = y != 0
        voxels = torch.where(lit, self.unit * torch.expm1(logs.double()), 0.0)
        spreads = torch.where(lit, (voxels + self.unit) * slope, 0.0)
        # where a whole layer is dark, the likeliest voxel is the largest
        return torch.where(
            lit, completed(voxels, context.energies, spreads, self.cut), posterior.lit().double() - 1
        )


class LatentShapes(Shapes):
    """Latents of an autoencoder."""

    def __init__(self, axes: Sequence[int], config: ShapeConfig, latent: LatentConfig) -> None:
        super().__init__()
        self.vae = VoxelVAE(axes, axes[0] + 1, latent.network)
        self.shape = self.vae.shape
        self._kind = partial(ViT, self.shape, axes[0] + 1, config.network)
        self.network = self._kind()

    def fit(self, parts: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Fits nothing."""

    def loss(
        self, network: ViT, voxels: Tensor, energies: Tensor, context: Context, rng: BatchRandom
    ) -> Tensor:
        """The loss of the velocity of samples of the posterior."""
        with torch.no_grad():
            self.vae.eval()
            mean, logvar = self.vae.encode(shares(voxels, energies).float(), context.features)
            x1 = mean + torch.exp(0.5 * logvar) * rng.normal(*self.shape)
        return cfm_loss(self.velocity(network, context), rng.normal(*self.shape), x1, rng.uniform())

    def average(self, network: ViT, context: Context) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
        """What the transformer gives."""
        return lambda x, t, s: network(x, t, repeated(context.features, x), None, s)

    def read(self, x: Tensor, context: Context, normals: Tensor) -> Tensor:
        """Decodes."""
        voxels: Tensor = torch.sigmoid(self.vae.decode(x, context.features)).double()
        return voxels


def shares(voxels: Tensor, energies: Tensor) -> Tensor:
    """Divides voxels (B, L, A, R) by the energies of their layers (B, L)."""
    return voxels.double() / (energies + LayerEnergies.TINY)[:, :, None, None]


def completed(voxels: Tensor, energies: Tensor, spreads: Tensor | None = None, cut: float = 0.0) -> Tensor:
    """Brings voxels near to the energies of their layers by changing the uncertain ones most.

    What is missing is divided in proportion to the square of the spread, as normal errors would have it, and no voxel
    loses more than seven tenths. A common factor would move the faint voxels as well, and smear the sharp lines that
    single particles leave.

    Args:
        voxels: [MeV], (B, L, A, R) float64.
        energies: of the layers [MeV], (B, L) float64.
        spreads: of the voxels, likewise; the voxels themselves where not given.
        cut: no lit voxel becomes smaller [MeV].
    """
    squares = (voxels if spreads is None else spreads).square()
    missing = (energies - voxels.sum((2, 3))) / squares.sum((2, 3)).clamp(min=1e-9)
    least = 0.3 * voxels
    if cut > 0:
        least = torch.where(voxels > 0, least.clamp(min=cut), least)
    return torch.maximum(voxels + missing[:, :, None, None] * squares, least)


def log_expm1(x: Tensor) -> Tensor:
    """Returns ln(e^x - 1) of positive numbers; by a series near 0, where runtimes that have no expm1 lose digits."""
    small = x.clamp(max=0.1)
    series = torch.log(small) + small / 2 + small.square() / 24
    return torch.where(x < 0.1, series, torch.log(torch.expm1(x.clamp(min=0.1))))


def vae_loss(vae: VoxelVAE, wanted: Tensor, features: Tensor, noise: Tensor, divergence: float) -> Tensor:
    """Returns the loss of each event, (B,): binary cross entropy a voxel and divergence a latent.

    Args:
        vae: the autoencoder.
        wanted: voxels over their layer's energy, (B, L, A, R).
        features: conditions, (B, F).
        noise: standard normals, (B, *latents).
        divergence: weight of the divergence.
    """
    mean, logvar = vae.encode(wanted, features)
    logits = vae.decode(mean + torch.exp(0.5 * logvar) * noise, features)
    entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").flatten(1).mean(1)
    off = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).flatten(1).mean(1)
    return entropy + divergence * off


def with_energies(voxels: Tensor, energies: Tensor, cut: float) -> Tensor:
    """Scales voxels to the energies of their layers.

    Args:
        voxels: in proportion, whatever the scale, (B, L, A, R) float64.
        energies: of the layers [MeV], (B, L) float64.
        cut: voxels below are empty [MeV].

    Returns:
        voxels [MeV], (B, L, A, R) float64.
    """
    flat = voxels.flatten(2)
    lit = torch.where(flat <= LayerEnergies.CUT, 0.0, flat)
    expected = lit * (energies / lit.sum(2).clamp(min=LayerEnergies.TINY))[:, :, None]
    # the largest stays, whatever it is: a layer with energy has a voxel
    largest = flat == flat.amax(2, keepdim=True)
    lit = torch.where(expected >= cut, lit, 0.0)
    lit = torch.where(largest, lit.clamp(min=LayerEnergies.CUT), lit)
    return (lit * (energies / lit.sum(2))[:, :, None]).view_as(voxels)


def turned(voxels: Tensor, u: Tensor) -> Tensor:
    """Turns each shower by a number of angles, and mirrors half of them.

    Args:
        voxels: (B, L, A, R).
        u: two uniforms an event, (B, 2).
    """
    angles = voxels.shape[2]
    places = torch.arange(angles, device=voxels.device)
    signs = torch.where(u[:, 1:] < 0.5, 1, -1)
    index = (torch.floor(u[:, :1] * angles).long() + signs * places) % angles
    return voxels.gather(2, index[:, None, :, None].expand_as(voxels))
