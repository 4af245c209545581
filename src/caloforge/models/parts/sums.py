"""The first factor of a factorised model: flow matching of the channel sums.

As in `models.channel_flow_matching`: with a uniform u, x_1 = standardised sqrt((sums + u) / E), a residual network
gives the velocity of the straight path from noise, the floor takes u off again.

Energies. A factorised model works on counts. Where the detector measures an energy, a count is a real number of quanta

    q = c E,    c = mean of the response / mean of E / 3000 in the training data,

so that a mean response has three thousand of them whatever its unit and the particle's energy E (a detector without a
feature energy has one quantum for all). Nothing is rounded. A sum s of quanta is seen as x_1 = standardised
sqrt(s + u), u uniform for s = 0 and 1 otherwise; x_1^2 - 1 is read back, and what is below 0 is a channel without
energy. Cells below the detector's threshold, or a thousandth of a quantum, are set to 0 at the end, and the others of
their channel get their energy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, Self

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from caloforge.detectors import Detector
from caloforge.events import Events, EventSource
from caloforge.metrics.channels import energy_score, mean_wasserstein
from caloforge.models.base import BatchRandom, Stage
from caloforge.models.parts.bayesian import BayesianConfig, check_bayesian, make_sums_bayesian, sums_stages
from caloforge.models.parts.images import channel_sums, check_thinned, half_thinned
from caloforge.models.parts.inference import spread_rows
from caloforge.models.parts.particle_features import (
    GrooveFeatures,
    ParticleFeatures,
    SpeciesFeatures,
    TransportFeatures,
)
from caloforge.models.parts.stage import average_stage, scores_without, solver_stage
from caloforge.nn.velocity_network import VelocityNetwork
from caloforge.ode.average_velocity import Average, AverageVelocityConfig
from caloforge.ode.bespoke import BespokeConfig, BespokeSolver, conditioned
from caloforge.ode.path import Velocity, cfm_loss
from caloforge.ode.solve import check_solver, solve
from caloforge.ode.solvers import SolverConfig
from caloforge.optim import AdamConfig
from caloforge.runtime.noise import standard_normals
from caloforge.transforms import Standardize

QUANTA = 3000.0
"""Quanta of a mean response, where a detector measures energies."""


Transported = bool | Literal["sums"]
"""Whether a model is told what magnets do to charged particles: all of its factors, or the sums alone."""


DARK = 1e-3
"""Quanta below which a cell is dark."""


class StudentConfig(AverageVelocityConfig):
    """How a network of a few numbers learns average velocities.

    Attributes:
        blocks: of the student, which starts from the velocity's blocks, evenly taken; 0 for as many.
    """

    blocks: int = Field(0, ge=0)


class VelocityConfig(BaseModel):
    """Network, solver and training of the velocity of a few numbers; a `TrainingSection`.

    Attributes:
        width: of every hidden layer.
        blocks: residual blocks.
        solver: of the sampling; may be changed after the training.
        bespoke: a solver that is trained for this network, for `solver.method = "bespoke"`.
        average_velocity: a network that is trained to do with one or two evaluations, for `solver.method =
            "average_velocity"`.
        bayesian: Gaussian weights and their replicas; none where not given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = Field(128, ge=1)
    blocks: int = Field(4, ge=1)
    solver: SolverConfig = SolverConfig(steps=16)
    bespoke: BespokeConfig = BespokeConfig()
    average_velocity: StudentConfig = StudentConfig()
    optimizer: AdamConfig = AdamConfig(learning_rate=2e-3, schedule="cosine", warmup=0.05)
    epochs: int = Field(40, ge=1)
    batch_size: int = Field(256, ge=1)
    bayesian: BayesianConfig | None = None

    @property
    def blocks_of_student(self) -> int:
        """Residual blocks of the network that gives average velocities."""
        return self.average_velocity.blocks or self.blocks

    @model_validator(mode="after")
    def _solver(self) -> Self:
        check_solver(self.solver, self.bespoke, self.average_velocity)
        check_bayesian(self.bayesian, self.solver.method)
        return self


class SumsConfig(VelocityConfig):
    """Network, solver and training of the channel sums; a `TrainingSection`.

    Attributes:
        thin: trains half of the photons with a part of their energy and light (`models.parts.images.thinned`).
    """

    thin: bool = False


class Sums(nn.Module):
    """Draws channel sums, and gives the features of a particle that later factors use too.

    Attributes:
        features: numbers that `describe` gives, which the sums follow from.
        told: how many of them later factors are told.

    Args:
        detector: a detector with two axes.
        channels: channel map of the sums, in which every cell has one channel.
        config: sizes, solver and training.
        average: decay of the moving average of the weights; 0 keeps none.
        validation_events: events of each validation.
        transport: adds what magnets before the face do (`models.parts.particle_features.TransportFeatures`); with
            "sums" for the sums alone, and `later` has none of it.
        grooves: adds `models.parts.particle_features.GrooveFeatures`, for the sums alone.
        species: adds `models.parts.particle_features.SpeciesFeatures`, for the sums alone.
        least: photons of the faintest response in the data, for `reflected`; 0 where there is no threshold.

    Raises:
        ValueError: the detector has another number of axes, cells in no channel or in several, no transport or grooves
            though they are wanted, or energies in place of photons though `least` is given.
    """

    def __init__(
        self,
        detector: Detector,
        channels: str,
        config: SumsConfig,
        average: float,
        validation_events: int,
        *,
        transport: Transported = False,
        grooves: bool = False,
        species: bool = False,
        least: int = 0,
    ) -> None:
        super().__init__()
        self.detector, self.channels, self.config = detector, channels, config
        self.average, self.validation_events = average, validation_events
        check_factors(detector, channels)
        self.outputs = len(detector.channel_map(channels).labels)
        if least and not detector.counts:
            raise ValueError(
                f"least is a number of photons; {detector.name} measures energies in {detector.unit}"
            )
        self.least = least
        if config.thin:
            check_thinned(detector)
        self.derive = ParticleFeatures(detector, bool(transport), grooves, species)
        self.features = self.derive.size
        self._alone = transport == "sums"
        alone = (self._alone, TransportFeatures), (grooves, GrooveFeatures), (species, SpeciesFeatures)
        self.told = self.features - sum(part.size for given, part in alone if given)
        self.standardize = Standardize(self.features)
        self.standardize_sums = Standardize(self.outputs)
        self.network = VelocityNetwork(self.outputs, self.features, config.width, config.blocks)
        make_sums_bayesian(self.network, config.bayesian)
        self.solver = BespokeSolver(config.bespoke.steps) if config.bespoke.steps else None
        self.average_velocity = (
            VelocityNetwork(self.outputs, self.features, config.width, config.blocks_of_student, until=True)
            if config.average_velocity.steps
            else None
        )
        self._energy = None if detector.energy is None else detector.features.index(detector.energy.name)
        if not detector.counts:
            self.quantum: Tensor
            self.register_buffer("quantum", torch.ones(1))

    def describe(self, conditions: Tensor) -> Tensor:
        """Returns standardised features of particles, (B, features)."""
        # the tails of the inputs are long
        features: Tensor = self.standardize(self.derive(conditions)).clamp(-10, 10)
        return features

    def later(self, features: Tensor) -> Tensor:
        """Returns what later factors are told of the features that `describe` gives, (B, told)."""
        return features[:, : self.told] if self.told < self.features else features

    def cell(self, conditions: Tensor) -> Tensor:
        """Returns a first guess of where the light is, as later factors are told it, in cells, (B, 2)."""
        return self.derive.straight(conditions) if self._alone else self.derive.cell(conditions)

    def forward(self, conditions: Tensor, features: Tensor, noise: Tensor) -> Tensor:
        """Draws sums, whole photons or quanta, (B, K), from conditions (B, F), their `describe` and noise (B, K)."""
        average = self.average_velocity and interval_conditioned(self.average_velocity, features)
        x1 = solve(self.velocity(features), noise, self.config.solver, self.solver, average)
        return self.read(x1, conditions)

    def read(self, x1: Tensor, conditions: Tensor) -> Tensor:
        """Returns the sums at the end of a path, photons or quanta, (B, K)."""
        scaled = self.standardize_sums.inverse(x1).clamp(min=0)
        if not self.detector.counts:
            return (scaled.square() - 1).clamp(min=0)
        return reflected(torch.floor(scaled.square() * self._energies(conditions)), self.least)

    def counted(self, values: Tensor, conditions: Tensor) -> Tensor:
        """Returns responses or sums, (B, *), as counts: photons as they are, energies in quanta."""
        return values if self.detector.counts else values / self._quanta(values, conditions)

    def respond(self, counts: Tensor, sums: Tensor, conditions: Tensor, channel: Tensor) -> Tensor:
        """Turns counts into responses in the detector's unit, those below its threshold 0.

        Args:
            counts: photons or quanta, (B, cells).
            sums: of the channels, likewise, (B, K).
            conditions: physical units, (B, F).
            channel: channel of each cell, (cells,).

        Returns:
            responses, (B, cells); their sums are `sums` but in channels of which all is below the threshold.
        """
        if self.detector.counts:
            return counts
        responses = counts * self._quanta(counts, conditions)
        dark = (counts < DARK) | (responses < self.detector.threshold)
        responses = torch.where(dark, 0.0, responses)
        totals = responses.new_zeros(sums.shape).index_add(1, channel, responses)
        target = sums.to(responses.dtype) * self._quanta(responses, conditions)
        return responses * (target / totals.clamp(min=1e-12))[:, channel]

    def _quanta(self, values: Tensor, conditions: Tensor) -> Tensor:
        """Returns one quantum in the detector's unit for each event, of as many axes as values, (B, 1, ..)."""
        quanta = self.quantum * self._energies(conditions).clamp(min=1e-6)
        return quanta.to(values.dtype).view(-1, *(1 for _ in values.shape[1:]))

    def velocity(self, features: Tensor) -> Velocity:
        """Returns the velocity for particles by their `describe`."""
        return conditioned(self.network, self.network.condition(features))

    def stages(
        self, train: EventSource, augment: Callable[[Events, BatchRandom], Events] | None = None
    ) -> list[Stage]:
        """Fits the normalization and returns the stages: velocity, its solver, average velocities, where trained.

        Args:
            train: training events.
            augment: changes each batch of the trainings of velocity and average velocities.
        """

        def changed(batch: Events, rng: BatchRandom) -> Events:
            batch = augment(batch, rng) if augment else batch
            return half_thinned(batch, rng, self.least) if self.config.thin else batch

        def interval(
            student: VelocityNetwork, batch: Events, rng: BatchRandom
        ) -> tuple[Average, Velocity, Tensor]:
            features = self.describe(self._conditions(changed(batch, rng)))
            return interval_conditioned(student, features), self.velocity(features), rng.normal(self.outputs)

        conditions = torch.from_numpy(train.primaries.conditions)
        counts = torch.from_numpy(channel_sums(train, self.channels))
        self.standardize.refit(self.derive(conditions))
        if self.detector.counts:
            scaled = torch.sqrt((counts + 0.5) / self._energies(conditions))
        else:
            mean = counts.sum(1).mean() / self._energies(conditions).double().mean()
            self.quantum.copy_((mean / QUANTA).clamp(min=1e-30))
            scaled = self._root(self.counted(counts, conditions), torch.full_like(counts, 0.5))
        self.standardize_sums.refit(scaled)
        stages = self._velocity_stages(len(train), changed)
        if self.solver is not None:
            bespoke = self.config.bespoke
            stages.append(
                solver_stage(
                    "sums_solver", self.solver, self.network, self._problem, self.scores, bespoke, len(train)
                )
            )
        if self.average_velocity is not None:
            config, student = self.config.average_velocity, self.average_velocity
            name, scores = "sums_average_velocity", self.scores
            stages.append(average_stage(name, student, self.network, interval, scores, config, len(train)))
        return stages

    def scores(self, source: EventSource) -> Mapping[str, float]:
        """Draws sums for some events: energy score of each particle's distribution, Wasserstein-1 of the channels."""
        reference = spread_rows(source, self.validation_events)
        true = self.detector.readout(reference.responses, self.channels)
        conditions = self._conditions(reference)
        numbers = np.arange(len(reference))
        noise = [standard_normals(seed, numbers, self.outputs) for seed in range(4)]
        with torch.no_grad():
            features = self.describe(conditions)
            drawn = [
                self(conditions, features, torch.from_numpy(draw).to(conditions.device)) for draw in noise
            ]
            if not self.detector.counts:
                drawn = [values * self._quanta(values, conditions) for values in drawn]
        sums = torch.stack(drawn).double().cpu().numpy()
        return {"energy_score": energy_score(true, sums), "w1": mean_wasserstein(true, sums[0])}

    def _velocity_stages(self, events: int, changed: Callable[[Events, BatchRandom], Events]) -> list[Stage]:
        def loss(network: VelocityNetwork, batch: Events, rng: BatchRandom) -> Tensor:
            batch = changed(batch, rng)
            conditions = self._conditions(batch)
            counts = torch.from_numpy(self.detector.readout(batch.responses, self.channels)).float()
            counts, u = counts.to(conditions.device), rng.uniform(self.outputs)
            if self.detector.counts:
                scaled = torch.sqrt((counts + u) / self._energies(conditions))
            else:
                scaled = self._root(self.counted(counts, conditions), u)
            embedding = network.condition(self.describe(conditions))
            x0, t = rng.normal(self.outputs), rng.uniform()
            return cfm_loss(lambda x, time: network(x, time, embedding), x0, self.standardize_sums(scaled), t)

        config = self.config
        scores, average = scores_without(self, "average_velocity", self.scores), self.average
        return sums_stages("sums", self.network, loss, scores, config, config.bayesian, events, average)

    def _problem(self, batch: Events, rng: BatchRandom) -> tuple[Velocity, Tensor]:
        return self.velocity(self.describe(self._conditions(batch))), rng.normal(self.outputs)

    def _conditions(self, events: Events) -> Tensor:
        return torch.from_numpy(events.conditions).to(self.standardize.mean.device)

    @staticmethod
    def _root(sums: Tensor, u: Tensor) -> Tensor:
        """Returns sqrt(s + 1) of sums in quanta, and sqrt(u) where there is no energy."""
        return torch.sqrt(sums + torch.where(sums > 0, 1.0, u))

    def _energies(self, conditions: Tensor) -> Tensor:
        if self._energy is None:
            return torch.ones_like(conditions[:, :1])
        return conditions[:, self._energy : self._energy + 1]


def interval_conditioned(network: VelocityNetwork, features: Tensor) -> Average:
    """Returns the average velocities that a network gives for a batch of features, (B, F), also of x repeated."""
    return conditioned(network, network.condition(features))


def reflected(sums: Tensor, least: int) -> Tensor:
    """Reflects events with fewer photons than any of the data at that threshold: 9 become 10, 8 become 11, ...

    A network blurs the edge of a distribution: what is missing above the edge lies below it. Reflection brings it back
    where it is missing, as at the boundary of a kernel density (Schuster, Commun. Stat. A 14 (1985) 1123). The channels
    keep their shares, to a photon; an event without any photon gets equal ones.

    Args:
        sums: whole photons, (B, K).
        least: photons of the faintest response; 0 changes nothing.

    Returns:
        whole photons, (B, K), at least `least` in all.
    """
    if not least:
        return sums
    if torch.compiler.is_exporting():
        return _reflected(sums, least)
    total = sums.sum(1, keepdim=True)
    shares = torch.where(total > 0, sums, torch.ones_like(sums))
    along = shares.cumsum(1) / shares.sum(1, keepdim=True)
    rising = torch.floor((2 * least - 1 - total) * along + 0.5)
    bright = torch.cat([rising[:, :1], rising[:, 1:] - rising[:, :-1]], 1)
    return torch.where(total < least, bright, sums)


def _reflected(sums: Tensor, least: int) -> Tensor:
    """Does the same in fewer operators of an exported graph: running sums and differences are products."""
    size = sums.shape[1]
    running = torch.ones(size, size).tril()
    # next to a photon the last term is nothing; without any it makes the shares equal
    reached = nn.functional.linear(sums, running, 1e-30 * torch.arange(1.0, size + 1))
    total = reached[:, -1:]
    rising = torch.floor((2 * least - 1 - total) * (reached / total) + 0.5)
    bright = nn.functional.linear(rising, torch.eye(size) - torch.ones(size - 1).diag(-1))
    return torch.where(total < least, bright, sums)


def check_factors(detector: Detector, channels: str) -> None:
    """Refuses a detector whose responses have no two axes, and channels that share cells or leave some out."""
    if len(detector.shape) != 2:
        raise ValueError(
            f"factorised models need a detector with two axes, {detector.name} has {len(detector.shape)}"
        )
    several = np.count_nonzero(detector.channel_map(channels).matrix.sum(0) != 1)
    if several:
        raise ValueError(
            f"factorised models need every cell in exactly one channel, {several} of the {detector.cells} cells of "
            f"{detector.name} are in none or several of {channels!r}"
        )
