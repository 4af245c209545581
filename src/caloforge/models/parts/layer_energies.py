"""The energies of a shower's layers, the first factor of CaloDREAM (Favaro et al. 2024, arXiv:2405.09629).

With E_l the sums of the layers, u_0 = f E_tot / E_inc and u_i = E_(i-1) / sum_(j >= i-1) E_j
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

Both are flow matching: x_t = (1 - t) x_0 + t x_1, a network learns the velocity x_1 - x_0.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Self, cast

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from caloforge.events import Events, EventSource
from caloforge.models.base import BatchRandom
from caloforge.models.parts.bayesian import BayesianConfig, check_bayesian
from caloforge.nn.sinh_law import SinhLaw
from caloforge.nn.transformer import TransformerConfig
from caloforge.nn.transfusion import Transfusion
from caloforge.nn.velocity_network import VelocityNetwork
from caloforge.nn.voxel_posterior import NUMBERS, Posterior, start
from caloforge.ode.average_velocity import Average, AverageVelocityConfig
from caloforge.ode.bespoke import BespokeConfig, conditioned, repeated
from caloforge.ode.path import Velocity, cfm_loss, on_path
from caloforge.ode.solve import check_solver
from caloforge.ode.solvers import SolverConfig
from caloforge.optim import AdamConfig
from caloforge.transforms import LayerEnergies, Logit, Standardize, StandardizeAlong

LOWEST, HIGHEST = 1e3, 1e6
"""Incident energies that the condition maps to 0 and 1 [MeV]."""

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
