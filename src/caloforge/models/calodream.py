"""CaloDREAM: layer energies first, then the shower with exactly these (Favaro et al. 2024, arXiv:2405.09629).

    p(shower | E_inc) = p(energies | E_inc) p(shape | energies, E_inc)

Both factors are flow matching: x_t = (1 - t) x_0 + t x_1, a network learns the velocity x_1 - x_0.

Energies. With E_l the sums of the layers, u_0 = f E_tot / E_inc and u_i = E_(i-1) / sum_(j >= i-1) E_j
(`transforms.LayerEnergies`).

- `autoregressive`, the paper's: x_1 = standardised logit u, one number after the other, each by a solver of its own
  given what a transformer makes of those before it (`nn.transfusion`). 45 x 200 evaluations of a small network with
  the paper's 50 steps of Runge and Kutta's rule; the transformer keeps its keys and values, so it sees each number
  once.
- `joint`: all at once by one small network. x_1 are E_tot / E_inc, less its mean at this energy and over its spread
  there (`transforms.StandardizeAlong`), and ln(1 + E_l / unit) over their spreads. The layers may be empty, and are
  treated as the voxels below: a prior of each, Bayes' theorem. The drawn layers are then scaled to the drawn total.
  With `total = "law"` the total is no part of the path: a law of one normal gives it (`nn.sinh_law`), learned by its
  likelihood, and the network of the layers is told it. No solver can make it wider then.

Shapes, by a vision transformer (`nn.vit`) that is told E_inc and all u:

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
  unit) / s, and the network corrects odds, means and spreads. Loss: E |x_1^ - x_1|^2 plus `likelihood` times
  -ln p(x_1 | x_t), t up to 0.8 with density proportional to t. At `end`, not later, a normal says which density it is,
  or none, and another one where in it; what a density has below `cut` is mirrored at it. What the sum of a layer lacks
  is divided by the squares of the spreads. The flow has to tell only how voxels hang together, and not which of them
  are empty, so a few steps do.
- with a `latent` section the transformer works on the latents of an autoencoder (`nn.voxel_vae`), trained before, and
  its decoder gives the voxels.

The shower. Voxels that are negative, at most 1e-7 of their layer or below `cut` [MeV] are empty, the others are scaled
to their layer's energy: the sums of the layers are those drawn, exactly; where no voxel is left, the largest has all. A
layer below `cut` is empty.

Where the detector has the angles `theta` and `phi` as conditions, both networks are told the direction too, sin(theta)
cos(phi) and sin(theta) sin(phi): of layer energies drawn at once, and without turned showers in the training.

Noise: normals for the energies, then one for each voxel, or latent; where voxels are drawn two more of each.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal, Self, cast

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from caloforge.detectors import Detector
from caloforge.events import Events, EventSource, Selected, in_slices, with_responses
from caloforge.metrics.channels import energy_score, wasserstein
from caloforge.metrics.showers import observe_showers
from caloforge.models.base import BatchRandom, Generator, Stage
from caloforge.models.parts.bayesian import BayesianConfig, check_bayesian, make_bayesian, variational
from caloforge.models.parts.images import channel_sums
from caloforge.models.parts.inference import generate_in_memory
from caloforge.models.parts.stage import LossStage, average_stage, solver_stage
from caloforge.nn.sinh_law import SinhLaw
from caloforge.nn.transformer import TransformerConfig
from caloforge.nn.transfusion import Transfusion
from caloforge.nn.velocity_network import VelocityNetwork
from caloforge.nn.vit import ViT, ViTConfig
from caloforge.nn.voxel_posterior import NUMBERS, Posterior, start
from caloforge.nn.voxel_vae import VoxelVAE, VoxelVAEConfig
from caloforge.ode.average_velocity import Average, AverageVelocityConfig
from caloforge.ode.bespoke import BespokeConfig, BespokeSolver, conditioned, repeated
from caloforge.ode.path import Velocity, cfm_loss, on_path
from caloforge.ode.solve import check_solver, solve
from caloforge.ode.solvers import SolverConfig
from caloforge.optim import AdamConfig
from caloforge.runtime.noise import standard_normals
from caloforge.transforms import LayerEnergies, Logit, Standardize, StandardizeAlong

LOWEST, HIGHEST = 1e3, 1e6
"""Incident energies that the condition maps to 0 and 1 [MeV]."""

DENSITIES = ((0.7, 0.05), (2.4, 0.8), (4.2, 0.8))
"""Mean and spread of ln(1 + voxel / unit) that each density of a voxel starts from."""

OBLIQUE = 0.1
"""Sine of theta that networks see as 1."""

LAYER_DENSITIES = 3
"""Densities of the energy of a layer that is not empty."""

ALONG = 3
"""Numbers that tell a network of energies drawn at once the incident energy."""

RECOMPUTED = 8192
"""Numbers whose loss is computed again at once for the gradients, where that is asked for."""

LAW_WIDTH = 32
"""Width of the network of the law of the total."""

LATEST = 0.8
"""Latest time at which voxels may be drawn, and to which their network is trained."""

Solve = Callable[[Velocity, Tensor, Average | None], Tensor]
"""Integrates a velocity from a starting point, or goes by average velocities where there are some."""


class EnergyConfig(BaseModel):
    """Network, solver and training of the layer energies; a `TrainingSection`.

    Attributes:
        network: `autoregressive` or `joint`.
        recompute: of `autoregressive`, compute what the head makes of each number again for the gradients, in parts:
            longer, and in a fraction of the memory. The numbers are the same but for rounding.
        transformer: of the autoregressive network.
        width: of the hidden layers: of the head, or of the joint network.
        blocks: hidden layers of the head with a layer norm, or residual blocks of the joint network.
        total: of `joint`, how E_tot / E_inc is drawn: on the `path` of the layers, or before them by a `law`.
        solver: of the sampling; may be changed after the training.
        bespoke: a solver that is trained for this network, for `solver.method = "bespoke"`.
        bayesian: Gaussian weights and their replicas, of the method `mean_field`; none where not given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: Literal["autoregressive", "joint"] = "autoregressive"
    total: Literal["path", "law"] = "path"
    recompute: bool = False
    transformer: TransformerConfig = TransformerConfig()
    width: int = Field(256, ge=1)
    blocks: int = Field(6, ge=1)
    solver: SolverConfig = SolverConfig(method="rk4", steps=50)
    bespoke: BespokeConfig = BespokeConfig()
    average_velocity: AverageVelocityConfig = AverageVelocityConfig()
    optimizer: AdamConfig = AdamConfig(learning_rate=1e-3, eps=1e-6, schedule="cosine", warmup=0.0)
    epochs: int = Field(500, ge=1)
    batch_size: int = Field(4096, ge=1)
    bayesian: BayesianConfig | None = None

    @model_validator(mode="after")
    def _solver(self) -> Self:
        check_solver(self.solver, self.bespoke, self.average_velocity)
        check_bayesian(self.bayesian, self.solver.method)
        if self.average_velocity.steps and self.network != "joint":
            raise ValueError(
                f"average_velocity is of energies drawn at once, network = 'joint', got {self.network!r}"
            )
        if self.total == "law" and self.network != "joint":
            raise ValueError(
                f"total = 'law' is of energies drawn at once, network = 'joint', got {self.network!r}"
            )
        return self


class ShapeConfig(BaseModel):
    """Network, solver and training of the shapes; a `TrainingSection`.

    Attributes:
        network: sizes of the transformer.
        prediction: `velocity`, `voxels` or `drawn`.
        likelihood: weight of the likelihood of the voxels in the loss; of `voxels` and `drawn` only.
        end: time at which the voxels are read off the path, or drawn; of `voxels` and `drawn` only, of the
            latter at most 0.8; may be changed after the training.
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


class CaloDreamConfig(BaseModel):
    """The two factors and what they share.

    Attributes:
        energy: the first factor.
        shape: the second.
        latent: the autoencoder of the latent version; without it the voxels themselves are drawn.
        unit: energy at which the logarithms begin [MeV]; of `joint`, `voxels` and `drawn` only.
        cut: voxels below are empty [MeV]; may be changed after the training.
        average: decay of the moving average of the weights; 0, the paper's, keeps none.
        validation_events: events generated for each validation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    energy: EnergyConfig = EnergyConfig()
    shape: ShapeConfig = ShapeConfig()
    latent: LatentConfig | None = None
    unit: float = Field(0.4, gt=0)
    cut: float = Field(0.0, ge=0)
    average: float = Field(0.0, ge=0, lt=1)
    validation_events: int = Field(512, ge=2)

    @model_validator(mode="after")
    def _latent(self) -> Self:
        if self.latent is not None and self.shape.prediction != "velocity":
            raise ValueError(
                f"latents need shape.prediction = 'velocity', got {self.shape.prediction!r}: they are no voxels"
            )
        return self


@dataclass(frozen=True, eq=False)
class LayerSums:
    """Layer energies of some events, all that the first factor is trained on.

    Attributes:
        incident: E_inc [MeV], (B, 1), with theta and phi [rad] behind it where there are angles, (B, 3).
        energies: of the layers [MeV], (B, L) float64.
    """

    incident: Tensor
    energies: Tensor

    def __len__(self) -> int:
        return len(self.incident)

    def slices(self, rows: slice) -> LayerSums:
        """Returns some rows."""
        return LayerSums(self.incident[rows], self.energies[rows])

    def batches(self, source: EventSource, batch_size: int, rng: np.random.Generator) -> Iterator[Events]:
        """Yields one epoch in random order, without reading the showers again."""
        order = torch.from_numpy(rng.permutation(len(self)))
        for first in range(0, max(len(self) // batch_size, 1) * batch_size, batch_size):
            rows = order[first : first + batch_size]
            yield cast(Events, LayerSums(self.incident[rows], self.energies[rows]))


# The first factor


def energy_of(conditions: Tensor) -> Tensor:
    """Returns E_inc [MeV], (B, 1), of conditions (B, 1), or (B, 3) with theta and phi [rad] behind it."""
    return conditions if conditions.shape[1] == 1 else conditions[:, :1]


def directions_of(conditions: Tensor) -> list[Tensor]:
    """Returns sin(theta) cos(phi) and sin(theta) sin(phi) over `OBLIQUE`, (B, 1) each; nothing without angles."""
    if conditions.shape[1] == 1:
        return []
    _, theta, phi = conditions.split(1, 1)
    across = torch.sin(theta) / OBLIQUE
    return [across * torch.cos(phi), across * torch.sin(phi)]


def told_more(module: nn.Module, numbers: int) -> None:
    """Makes every network of a module take further conditions behind its own; at first they change nothing.

    Args:
        module: with networks whose first layer of the conditions is `condition[0]`.
        numbers: of further conditions.
    """
    for name, part in list(module.named_modules()):
        if numbers and name.rpartition(".")[2] == "condition" and isinstance(part, nn.Sequential):
            first = part[0]
            assert isinstance(first, nn.Linear)
            wider = nn.Linear(first.in_features + numbers, first.out_features)
            with torch.no_grad():
                wider.weight.zero_()
                wider.weight[:, : first.in_features] = first.weight
                wider.bias.copy_(first.bias)
            part[0] = wider


def scaled_energy(incident: Tensor) -> Tensor:
    """Returns the condition, 0 at 1 GeV and 1 at 1 TeV, of E_inc [MeV], (B, 1)."""
    scaled: Tensor = torch.log(incident / LOWEST) / math.log(HIGHEST / LOWEST)
    return scaled


class Energies(nn.Module, ABC):
    """Draws the layer energies.

    Attributes:
        noise_dim: standard normals an event.
        end: time at which the path ends.
    """

    noise_dim: int
    end: float = 1.0

    @abstractmethod
    def fit(self, incident: Tensor, energies: Tensor) -> None:
        """Fits the normalization to E_inc (N, 1) and layer energies (N, L) [MeV]."""

    @abstractmethod
    def loss(self, incident: Tensor, energies: Tensor, rng: BatchRandom) -> Tensor:
        """Returns the loss of each event, (B,)."""

    @abstractmethod
    def draw(
        self, incident: Tensor, noise: Tensor, solve: Solve, student: VelocityNetwork | None = None
    ) -> Tensor:
        """Draws layer energies [MeV], (B, L) float64; by average velocities where there is a student."""

    @abstractmethod
    def problem(self, incident: Tensor, energies: Tensor, rng: BatchRandom) -> tuple[Velocity, Tensor]:
        """Returns a velocity and starting points, for a bespoke solver."""


class AutoregressiveEnergies(Energies):
    """One after the other, as in the paper."""

    def __init__(self, layers: LayerEnergies, config: EnergyConfig) -> None:
        super().__init__()
        self.noise_dim = len(layers.layers)
        self._fractions, self._energies = layers.fractions, layers.energies_of
        self._recompute = config.recompute
        self.network = Transfusion(self.noise_dim, config.transformer, config.width, config.blocks)
        self.logit, self.standardize = Logit(), Standardize(self.noise_dim, 1e-6)

    def fit(self, incident: Tensor, energies: Tensor) -> None:
        """Fits the standardisation of logit u."""
        self.standardize.refit(self._logits(incident, energies))

    def _logits(self, incident: Tensor, energies: Tensor) -> Tensor:
        logits: Tensor = self.logit(self._fractions(energies, energy_of(incident)).clamp(0, 1))
        return logits.float()

    def _flat(self, incident: Tensor, energies: Tensor) -> tuple[Tensor, Tensor]:
        """Returns x_1, (B, L), and what the head knows, (B L, D)."""
        x1: Tensor = self.standardize(self._logits(incident, energies))
        return x1, self.network.known(scaled_energy(energy_of(incident)), x1).flatten(0, 1)

    def loss(self, incident: Tensor, energies: Tensor, rng: BatchRandom) -> Tensor:
        """The loss of all numbers, each at a time of its own, in one pass."""
        x1, known = self._flat(incident, energies)
        x0, t = rng.normal(self.noise_dim), rng.uniform(self.noise_dim)
        rows = x0.view(-1, 1), x1.view(-1, 1), t.flatten(), known
        if self._recompute:
            parts = zip(*(one.split(RECOMPUTED) for one in rows), strict=True)
            each = torch.cat([checkpoint(self._loss, *part, use_reentrant=False) for part in parts])
        else:
            each = self._loss(*rows)
        return each.view(x1.shape).mean(1)

    def _loss(self, x0: Tensor, x1: Tensor, t: Tensor, known: Tensor) -> Tensor:
        return cfm_loss(lambda x, time: self.network.head(x, time, known), x0, x1, t)

    def draw(
        self, incident: Tensor, noise: Tensor, solve: Solve, student: VelocityNetwork | None = None
    ) -> Tensor:
        """As many solutions as there are numbers, each of one number."""

        def one(x0: Tensor, known: Tensor) -> Tensor:
            return solve(lambda x, t: self.network.head(x, t, known), x0, None)

        x1 = self.network.draw(scaled_energy(energy_of(incident)), noise, one)
        u = self.logit.inverse(self.standardize.inverse(x1).double())
        return self._energies(u, energy_of(incident))

    def problem(self, incident: Tensor, energies: Tensor, rng: BatchRandom) -> tuple[Velocity, Tensor]:
        """All numbers of all events, given the true ones before them."""
        _, known = self._flat(incident, energies)
        return conditioned(self.network.head, known), rng.normal(self.noise_dim).view(-1, 1)


class JointEnergies(Energies):
    """All at once."""

    end = 0.95

    def __init__(self, layers: LayerEnergies, config: EnergyConfig, unit: float) -> None:
        super().__init__()
        numbers = len(layers.layers)
        self.noise_dim, self.unit, self.likelihood = numbers + 1, unit, 0.3
        prior = start(1.0, [0.0] * LAYER_DENSITIES, [1.0] * LAYER_DENSITIES)
        # of the total: on the path, or before it by a law, and then the network is told it
        self.law = SinhLaw(ALONG, LAW_WIDTH) if config.total == "law" else None
        self._first, told = (1, 0) if self.law is None else (0, 1)
        self._sizes = (numbers + self._first, ALONG + told, config.width, config.blocks)
        self.network = VelocityNetwork(*self._sizes, wanted=self._first + len(prior) * numbers)
        with torch.no_grad():
            # densities that start alike stay alike
            shifts = torch.linspace(-1, 1, LAYER_DENSITIES).repeat_interleave(numbers)
            bias = self.network.last.bias[self._first :]
            bias.copy_(prior.repeat_interleave(numbers))
            bias[shifts.numel() : 2 * shifts.numel()] = shifts
        self.total, self.layers = StandardizeAlong(1), StandardizeAlong(numbers, 3)

    def fit(self, incident: Tensor, energies: Tensor) -> None:
        """Fits means and spreads along the energy; of the layers where they are not empty."""
        along = torch.log(energy_of(incident))
        self.total.refit(self._share(incident, energies), along)
        self.layers.refit(torch.log1p(energies / self.unit), along, energies > 0)

    def _share(self, incident: Tensor, energies: Tensor) -> Tensor:
        return (energies.sum(1, keepdim=True) / energy_of(incident)).float()

    def _total(self, incident: Tensor, energies: Tensor) -> Tensor:
        """Returns the standardised E_tot / E_inc, (B, 1)."""
        total: Tensor = self.total(self._share(incident, energies), torch.log(energy_of(incident)))
        return total

    def _scales(self, incident: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the expected y / s of each layer and its spread s, both (B, L)."""
        energy = energy_of(incident)
        mean, spread = self.layers.at(torch.log(energy), energy)
        spread = spread.clamp(0.05, 2.0)
        return mean.clamp(0, 15) / spread, spread

    def student(self) -> VelocityNetwork:
        """Returns an untrained network of average velocities."""
        return VelocityNetwork(*self._sizes, wanted=self.network.last.out_features, until=True)

    @staticmethod
    def _features(incident: Tensor, total: Tensor | None = None) -> Tensor:
        energy = 2 * scaled_energy(energy_of(incident)) - 1
        waves = [torch.sin(4 * energy), torch.cos(4 * energy)]
        told = [] if total is None else [total]
        return torch.cat([energy, *waves, *told, *directions_of(incident)], 1)

    def _ends(
        self,
        network: VelocityNetwork,
        x: Tensor,
        t: Tensor,
        condition: Tensor,
        centre: Tensor,
        s: Tensor | None = None,
    ) -> tuple[Tensor, Posterior]:
        """Returns velocities before the layers', (B, 1) or none, and the layers' posterior; the average until s."""
        time, first = t[:, None], self._first
        near = torch.cat([x[:, :first], (x[:, first:] - time * centre).clamp(-8, 8)], 1)
        outputs = network(near, t, condition, s)
        numbers = outputs[:, first:].view(-1, NUMBERS * LAYER_DENSITIES, centre.shape[1])
        odds, means, spreads = numbers.chunk(NUMBERS, 1)
        shifted = torch.cat([odds, means + centre[:, None], spreads], 1)
        return outputs[:, :first], Posterior(shifted, x[:, first:], time)

    def loss(self, incident: Tensor, energies: Tensor, rng: BatchRandom) -> Tensor:
        """The loss of the velocity, the likelihood of the layers, and of the total where it has a law."""
        centre, spread = self._scales(incident)
        total = self._total(incident, energies)
        layers = torch.log1p(energies / self.unit).float() / spread
        x1, told = (torch.cat([total, layers], 1), None) if self.law is None else (layers, total)
        x0, t = rng.normal(x1.shape[1]), rng.uniform()
        x = on_path(x0, x1, t)
        condition = self.network.condition(self._features(incident, told))
        velocity, posterior = self._ends(self.network, x, t, condition, centre)
        left = (1 - t).clamp(min=0.05)[:, None]
        error = (posterior.mean() - layers) / left
        first = self._first
        both = torch.cat([velocity - (x1[:, :first] - x0[:, :first]), error], 1)
        each: Tensor = both.square().mean(1) + self.likelihood * posterior.surprise(layers).mean(1)
        return each if self.law is None else each + self.law.surprise(self._features(incident), total)

    def average(
        self, network: VelocityNetwork, incident: Tensor, total: Tensor | None
    ) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
        """Returns average velocities of a batch, the velocity where s is None; asked at any multiple of it."""
        condition = network.condition(self._features(incident, total))
        (centre, _), first = self._scales(incident), self._first

        def average(x: Tensor, t: Tensor, s: Tensor | None) -> Tensor:
            velocity, posterior = self._ends(network, x, t, repeated(condition, x), repeated(centre, x), s)
            left = (1 - t).clamp(min=0.01)[:, None]
            return torch.cat([velocity, (posterior.mean() - x[:, first:]) / left], 1)

        return average

    def _velocity(self, incident: Tensor, total: Tensor | None) -> Velocity:
        average = self.average(self.network, incident, total)
        return lambda x, t: average(x, t, None)

    def draw(
        self, incident: Tensor, noise: Tensor, solve: Solve, student: VelocityNetwork | None = None
    ) -> Tensor:
        """One solution; the layers are scaled to the total."""
        centre, spread = self._scales(incident)
        told = None if self.law is None else self.law(self._features(incident), noise[:, :1])
        average = None if student is None else self.average(student, incident, told)
        x = solve(self._velocity(incident, told), noise[:, 1 - self._first :], average)
        t = torch.full_like(x[:, 0], self.end)
        condition = self.network.condition(self._features(incident, told))
        velocity, posterior = self._ends(self.network, x, t, condition, centre)
        drawn = x[:, :1] + (1 - self.end) * velocity if told is None else told
        share = self.total.inverse(drawn, torch.log(energy_of(incident)))
        total = (share.double() * energy_of(incident)).clamp(min=0)
        layers = torch.expm1((posterior.likely() * spread).double().clamp(0, 20)) * self.unit
        return layers * (total / layers.sum(1, keepdim=True).clamp(min=1e-10))

    def problem(self, incident: Tensor, energies: Tensor, rng: BatchRandom) -> tuple[Velocity, Tensor]:
        """The velocity at the batch's energies, and totals where it is told them."""
        told = None if self.law is None else self._total(incident, energies)
        return self._velocity(incident, told), rng.normal(self.noise_dim - 1 + self._first)

    def leaps(
        self, student: VelocityNetwork, incident: Tensor, energies: Tensor, rng: BatchRandom
    ) -> tuple[Average, Velocity, Tensor]:
        """Returns average velocities, and what `problem` gives, for the training of a student."""
        told = None if self.law is None else self._total(incident, energies)
        return self.average(student, incident, told), *self.problem(incident, energies, rng)


# The second factor


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
        network: what is trained.
        drawn: normals a voxel that reading takes.
        fitted: showers to which the normalization is fitted at most.
    """

    shape: tuple[int, ...]
    network: ViT
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

    @abstractmethod
    def student(self) -> ViT:
        """Returns an untrained network of average velocities."""

    @abstractmethod
    def read(self, x: Tensor, context: Context, normals: Tensor) -> Tensor:
        """Returns voxels in proportion, (B, L, A, R), from the end of the path and `drawn` normals a voxel."""


def shares(voxels: Tensor, energies: Tensor) -> Tensor:
    """Divides voxels (B, L, A, R) by the energies of their layers (B, L)."""
    return voxels.double() / (energies + LayerEnergies.TINY)[:, :, None, None]


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

    def student(self) -> ViT:
        """The same transformer, told of intervals."""
        return self._kind(until=True)

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

    def student(self) -> ViT:
        """The same transformer, told of intervals."""
        return self._kind(until=True)

    def read(self, x: Tensor, context: Context, normals: Tensor) -> Tensor:
        """Reads the expected end of the path."""
        posterior = self._posterior(self.network, x, torch.full_like(x[:, 0, 0, 0], self.end), context)
        lit = self.unit * torch.expm1(posterior.likely().clamp(max=20).double())
        # where a whole layer is dark, the likeliest voxel is the largest
        return torch.where(lit > 0, completed(lit, context.energies), posterior.lit().double() - 1)


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


class DrawnShapes(Shapes):
    """Logarithms of the voxels in units of their spread, drawn from what Bayes' theorem leaves open early on the path.

    Attributes:
        profile: share of a layer's energy that a voxel of each ring holds on average, (L, R).
        quantum: energy a lit voxel has where few are [MeV].
        lit: mean and spread of ln(1 + voxel / unit) of lit voxels along ln of the expected energy.
    """

    DENSITIES = 3
    """Densities of a lit voxel."""

    STARTS = (-1.0, 0.0, 1.0)
    """Their means at first, in spreads from the mean of lit voxels."""

    FEW = 1000
    """One lit voxel in so many counts as one of which more is expected."""

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
        along = torch.log(expected[chosen]).unsqueeze(1)
        # too few are lit where least is expected to say anything
        along = along.clamp(min=float(torch.sort(along[:, 0]).values[len(along) // self.FEW]))
        self.lit.refit(torch.log1p(flat[chosen] / self.unit).unsqueeze(1), along)

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
        x1, x0 = torch.log1p(voxels / self.unit) / scales[0], rng.normal(*self.shape)
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

    def student(self) -> ViT:
        """The same transformer, told of intervals."""
        return self._kind(until=True)

    def read(self, x: Tensor, context: Context, normals: Tensor) -> Tensor:
        """Draws each voxel, with two normals each, (B, 2 L A R)."""
        choice, within = normals.view(-1, 2, *self.shape).unbind(1)
        scales = self._scales(context.energies)
        at_end = torch.full_like(x[:, 0, 0, 0], self.end)
        posterior = self._posterior(self.network, x, at_end, context, scales)
        y, least = posterior.draw(choice, within), math.log1p(self.cut / self.unit)
        # what a density has below the threshold is mirrored at it
        logs = ((y * scales[0] - least).abs() + least).clamp(max=20)
        lit = y != 0
        voxels = torch.where(lit, self.unit * torch.expm1(logs.double()), 0.0)
        spreads = torch.where(lit, (voxels + self.unit) * scales[0], 0.0)
        # where a whole layer is dark, the likeliest voxel is the largest
        return torch.where(
            lit, completed(voxels, context.energies, spreads, self.cut), posterior.lit().double() - 1
        )


def log_expm1(x: Tensor) -> Tensor:
    """Returns ln(e^x - 1) of positive numbers; by a series near 0, where runtimes that have no expm1 lose digits."""
    small = x.clamp(max=0.1)
    series = torch.log(small) + small / 2 + small.square() / 24
    return torch.where(x < 0.1, series, torch.log(torch.expm1(x.clamp(min=0.1))))


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

    def student(self) -> ViT:
        """The same transformer, told of intervals."""
        return self._kind(until=True)

    def read(self, x: Tensor, context: Context, normals: Tensor) -> Tensor:
        """Decodes."""
        voxels: Tensor = torch.sigmoid(self.vae.decode(x, context.features)).double()
        return voxels


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


# The chain


class CaloDream(Generator):
    """Draws layer energies, then a shower with exactly these.

    Args:
        detector: a detector of voxels with three axes.
        config: sizes and training.
    """

    config_class: ClassVar[type[BaseModel]] = CaloDreamConfig
    sampling: ClassVar[tuple[str, ...]] = ("energy.solver", "shape.solver", "shape.end", "cut")

    def __init__(self, detector: Detector, config: CaloDreamConfig) -> None:
        super().__init__()
        axes = detector.shape
        if not detector.layers or len(axes) != 3:
            raise ValueError(
                f"calodream needs a detector of voxels with three axes, {detector.name} has {len(axes)}"
                f"{'' if detector.layers else ' and no layers'}"
            )
        if detector.features not in (("incident_energy",), ("incident_energy", "theta", "phi")):
            raise ValueError(
                "calodream needs the condition incident_energy, and takes theta and phi behind it; "
                f"{detector.name} has {', '.join(detector.features)}"
            )
        more = 0 if len(detector.features) == 1 else 2
        if more and config.energy.network != "joint":
            raise ValueError(
                f"theta and phi are for energies drawn at once, energy.network = 'joint', got {config.energy.network!r}"
            )
        if more and config.shape.turn:
            raise ValueError(
                "showers with theta and phi cannot be turned in training: shape.turn must be false"
            )
        self.detector, self.config = detector, config
        self.split = LayerEnergies([layer.cells for layer in detector.layers])
        self.logit, self.standardize = Logit(), Standardize(axes[0], 1e-6)
        energy, shape = config.energy, config.shape
        self.energy: Energies = (
            JointEnergies(self.split, energy, config.unit)
            if energy.network == "joint"
            else AutoregressiveEnergies(self.split, energy)
        )
        told_more(self.energy, more)
        # attention reads the weights of queries, keys and values itself
        make_bayesian(self.energy, energy.bayesian, leave=("inputs",))
        self.energy_solver = (
            BespokeSolver(energy.bespoke.steps, self.energy.end) if energy.bespoke.steps else None
        )
        self.shape: Shapes
        if config.latent is not None:
            self.shape = LatentShapes(axes, shape, config.latent)
        elif shape.prediction == "voxels":
            self.shape = VoxelShapes(axes, shape, config.unit)
        elif shape.prediction == "drawn":
            self.shape = DrawnShapes(axes, shape, config.unit, config.cut)
        else:
            self.shape = VelocityShapes(axes, shape)
        told_more(self.shape, more)
        make_bayesian(self.shape.network, shape.bayesian)
        self._end = shape.end if isinstance(self.shape, VoxelShapes | DrawnShapes) else 1.0
        self.shape_solver = BespokeSolver(shape.bespoke.steps, self._end) if shape.bespoke.steps else None
        self.energy_average_velocity = (
            self.energy.student()
            if energy.average_velocity.steps and isinstance(self.energy, JointEnergies)
            else None
        )
        self.shape_average_velocity = self.shape.student() if shape.average_velocity.steps else None
        for student in (self.energy_average_velocity, self.shape_average_velocity):
            if student is not None:
                told_more(student, more)
        self.noise_dim = self.energy.noise_dim + (1 + self.shape.drawn) * int(np.prod(self.shape.shape))

    def forward(self, conditions: Tensor, noise: Tensor) -> Tensor:
        """Generates showers [MeV], (B, L, A, R), from E_inc [MeV] (B, 1) and noise, energies' first."""
        first = self.energy.noise_dim
        energies = self.draw_energies(conditions, noise[:, :first])
        return self.draw_shower(conditions, energies, noise[:, first:])

    def draw_energies(self, conditions: Tensor, noise: Tensor) -> Tensor:
        """Generates layer energies [MeV], (B, L) float64, from noise (B, energy.noise_dim)."""
        config, end = self.config.energy, self.energy.end

        def solved(velocity: Velocity, x0: Tensor, average: Average | None) -> Tensor:
            return solve(velocity, x0, config.solver, self.energy_solver, average, end, shares=end < 1)

        energies = self.energy.draw(conditions, noise, solved, self.energy_average_velocity)
        return torch.where(energies < self.config.cut, 0.0, energies)

    def draw_shower(self, conditions: Tensor, energies: Tensor, noise: Tensor) -> Tensor:
        """Generates showers [MeV], (B, L, A, R), with layer energies [MeV], (B, L), from noise for the shape."""
        context, solver = self.context(conditions, energies), self.config.shape.solver
        velocity = self.shape.velocity(self.shape.network, context)
        student = self.shape_average_velocity
        average = None if student is None else self.shape.average(student, context)
        cells = math.prod(self.shape.shape)
        x0, normals = noise[:, :cells].view(-1, *self.shape.shape), noise[:, cells:]
        x = solve(velocity, x0, solver, self.shape_solver, average, self._end, shares=self._end < 1)
        return with_energies(self.shape.read(x, context, normals), energies, self.config.cut).to(noise.dtype)

    def context(self, conditions: Tensor, energies: Tensor) -> Context:
        """Returns what shapes are told, from E_inc [MeV] (B, 1) and layer energies [MeV], (B, L)."""
        u = self._fractions(conditions, energies)
        features = [scaled_energy(energy_of(conditions)), self.standardize(u), *directions_of(conditions)]
        logs = torch.log1p(energies / self.config.unit).float() / 4
        return Context(torch.cat(features, 1), torch.stack([logs, (energies > 0).float()], 2), energies)

    def _fractions(self, conditions: Tensor, energies: Tensor) -> Tensor:
        u = self.split.fractions(energies, energy_of(conditions)).clamp(0, 1)
        return (u if self.config.latent is not None else self.logit(u)).float()

    # Training

    def stages(self, train: EventSource) -> Sequence[Stage]:
        """Fits the normalization and returns the stages: energies, latents, shapes, and what is fitted to them."""
        device = self.standardize.mean.device
        incident = torch.from_numpy(train.primaries.conditions).to(device)
        energies = torch.from_numpy(channel_sums(train, "layers")).to(device)
        self.standardize.refit(self._fractions(incident, energies))
        self.energy.fit(incident, energies)
        events, config = len(train), self.config
        rows = np.linspace(0, events - 1, int(min(self.shape.fitted, events))).astype(np.intp)
        some = Selected(train, rows) if len(rows) < events else train
        self.shape.fit(self._tensors(part)[1:] for part in in_slices(some))
        stages = [self._energy_stage(LayerSums(incident, energies))]
        if self.energy_solver is not None:
            stages.append(self._energy_solver_stage(self.energy_solver, events))
        if self.energy_average_velocity is not None:
            sums = LayerSums(incident, energies)
            stages.append(self._energy_average_stage(self.energy_average_velocity, sums))
        if isinstance(self.shape, LatentShapes) and config.latent is not None:
            stages.append(self._latent_stage(self.shape.vae, config.latent, events))
        stages.append(self._shape_stage(events))
        if self.shape_solver is not None:
            stages.append(self._shape_solver_stage(self.shape_solver, events))
        if self.shape_average_velocity is not None:
            stages.append(self._shape_average_stage(self.shape_average_velocity, events))
        return stages

    def _energy_stage(self, sums: LayerSums) -> Stage:
        def loss(energy: Energies, batch: Events | LayerSums, rng: BatchRandom) -> Tensor:
            if isinstance(batch, LayerSums):
                return energy.loss(batch.incident, batch.energies, rng)
            incident, _, energies = self._tensors(batch)
            return energy.loss(incident, energies, rng)

        return LossStage(
            "energy",
            self.energy,
            variational(loss, self.config.energy.bayesian, len(sums)),
            self.energy_scores,
            self.config.energy,
            len(sums),
            average=self.config.average,
            batches=sums.batches,
        )

    def _energy_solver_stage(self, solver: BespokeSolver, events: int) -> Stage:
        def problem(batch: Events, rng: BatchRandom) -> tuple[Velocity, Tensor]:
            incident, _, energies = self._tensors(batch)
            return self.energy.problem(incident, energies, rng)

        bespoke = self.config.energy.bespoke
        return solver_stage(
            "energy_solver", solver, self.energy, problem, self.energy_scores, bespoke, events
        )

    def _energy_average_stage(self, student: VelocityNetwork, sums: LayerSums) -> Stage:
        energy = cast(JointEnergies, self.energy)

        def problem(
            student: VelocityNetwork, batch: Events, rng: BatchRandom
        ) -> tuple[Average, Velocity, Tensor]:
            known = cast(LayerSums, batch)
            return energy.leaps(student, known.incident, known.energies, rng)

        return average_stage(
            "energy_average_velocity",
            student,
            energy.network,
            problem,
            self.energy_scores,
            self.config.energy.average_velocity,
            len(sums),
            end=energy.end,
            shares=energy.end < 1,
            batches=sums.batches,
        )

    def _latent_stage(self, vae: VoxelVAE, config: LatentConfig, events: int) -> Stage:
        def loss(vae: VoxelVAE, batch: Events, rng: BatchRandom) -> Tensor:
            incident, voxels, energies = self._tensors(batch)
            features = self.context(incident, energies).features
            target = shares(voxels, energies).float()
            return vae_loss(vae, target, features, rng.normal(*vae.shape), config.divergence)

        def scores(source: EventSource) -> Mapping[str, float]:
            events = self._validation(source)
            training = vae.training
            vae.eval()
            with torch.no_grad():
                rng = BatchRandom(0, slice(None), len(events), self.standardize.mean.device)
                each = loss(vae, events, rng)
            vae.train(training)
            return {"loss": float(each.mean())}

        return LossStage("latent", vae, loss, scores, config, events)

    def _shape_stage(self, events: int) -> Stage:
        config, average = self.config.shape, self.config.average

        def loss(network: ViT, batch: Events, rng: BatchRandom) -> Tensor:
            incident, voxels, energies = self._tensors(batch)
            if config.turn:
                voxels = turned(voxels, rng.uniform(2))
            return self.shape.loss(network, voxels, energies, self.context(incident, energies), rng)

        network, scores = self.shape.network, self.shape_scores
        each = variational(loss, config.bayesian, events)
        return LossStage("shape", network, each, scores, config, events, average=average)

    def _shape_solver_stage(self, solver: BespokeSolver, events: int) -> Stage:
        def problem(batch: Events, rng: BatchRandom) -> tuple[Velocity, Tensor]:
            incident, _, energies = self._tensors(batch)
            context = self.context(incident, energies)
            return self.shape.velocity(self.shape.network, context), rng.normal(*self.shape.shape)

        bespoke = self.config.shape.bespoke
        return solver_stage("shape_solver", solver, self.shape, problem, self.shape_scores, bespoke, events)

    def _shape_average_stage(self, student: ViT, events: int) -> Stage:
        def problem(student: ViT, batch: Events, rng: BatchRandom) -> tuple[Average, Velocity, Tensor]:
            incident, _, energies = self._tensors(batch)
            context = self.context(incident, energies)
            velocity = self.shape.velocity(self.shape.network, context)
            return self.shape.average(student, context), velocity, rng.normal(*self.shape.shape)

        return average_stage(
            "shape_average_velocity",
            student,
            self.shape.network,
            problem,
            self.shape_scores,
            self.config.shape.average_velocity,
            events,
            end=self._end,
            shares=self._end < 1,
        )

    def _tensors(self, events: Events) -> tuple[Tensor, Tensor, Tensor]:
        """Returns E_inc (B, 1), voxels (B, L, A, R) and layer energies (B, L) float64, all in MeV."""
        device = self.standardize.mean.device
        voxels = torch.from_numpy(events.responses.astype(np.float32)).to(device)
        return torch.from_numpy(events.conditions).to(device), voxels, voxels.double().sum((2, 3))

    def _validation(self, source: EventSource) -> Events:
        rows = np.linspace(0, len(source) - 1, min(self.config.validation_events, len(source)))
        return source.slices(rows.astype(np.intp))

    def energy_scores(self, source: EventSource) -> Mapping[str, float]:
        """Scores drawn layer energies: energy score of ln(1 + E_l / unit), Wasserstein-1 of E_tot / E_inc."""
        reference = self._validation(source)
        true = self.detector.readout(reference.responses, "layers")
        incident = torch.from_numpy(reference.conditions).to(self.standardize.mean.device)
        numbers = np.arange(len(reference))
        drawn = []
        with torch.no_grad():
            for seed in range(4):
                noise = torch.from_numpy(standard_normals(seed, numbers, self.energy.noise_dim))
                drawn.append(self.draw_energies(incident, noise.to(incident.device)).cpu().numpy())
        unit, energy = self.config.unit, reference.conditions[:, 0].astype(np.float64)
        generated = np.stack(drawn)
        return {
            "energy_score": energy_score(np.log1p(true / unit), np.log1p(generated / unit)),
            "w1_total": wasserstein(true.sum(1) / energy, generated[0].sum(1) / energy),
        }

    def shape_scores(self, source: EventSource) -> Mapping[str, float]:
        """Compares generated showers: mean over features of Wasserstein-1 over the feature's spread."""
        reference = self._validation(source)
        was = self.shape.training
        self.shape.eval()
        showers = generate_in_memory(self, reference.conditions, seed=0, batch_size=128)
        self.shape.train(was)
        true = observe_showers(reference)
        observed = observe_showers(with_responses(reference.primaries, showers), true.edges)
        spread = true.features.std(0)
        distances = [
            wasserstein(true.features[:, k], observed.features[:, k]) / spread[k]
            for k in np.flatnonzero(spread > 0)
        ]
        lit = [np.count_nonzero(responses) for responses in (reference.responses, showers)]
        return {"features": float(np.mean(distances)), "lit": lit[1] / lit[0]}


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
