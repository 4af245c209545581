"""The first factor of a factorised model: flow matching of the channel sums.

As in `models.channel_flow_matching`: with a uniform u, x_1 = standardised sqrt((sums + u) / E), a residual network
gives the velocity of the straight path from noise, the floor takes u off again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Self

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from caloforge.detectors import Detector
from caloforge.events import Events, EventSource
from caloforge.metrics.channels import energy_score, mean_wasserstein
from caloforge.models.base import BatchRandom, Stage
from caloforge.models.parts.images import channel_sums
from caloforge.models.parts.inference import spread_rows
from caloforge.models.parts.particle_features import BendingFeatures, ImpactFeatures
from caloforge.models.parts.stage import LossStage, solver_stage
from caloforge.nn.velocity_network import VelocityNetwork
from caloforge.ode.bespoke import BespokeConfig, BespokeSolver, check_solver, conditioned, solve
from caloforge.ode.path import Velocity, cfm_loss
from caloforge.ode.solvers import SolverConfig
from caloforge.optim import AdamConfig
from caloforge.runtime.noise import standard_normals
from caloforge.transforms import Standardize


class SumsConfig(BaseModel):
    """Network, solver and training of the channel sums; a `TrainingSection`.

    Attributes:
        width: of every hidden layer.
        blocks: residual blocks.
        solver: of the sampling; may be changed after the training.
        bespoke: a solver that is trained for this network, for `solver.method = "bespoke"`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = Field(128, ge=1)
    blocks: int = Field(4, ge=1)
    solver: SolverConfig = SolverConfig(steps=16)
    bespoke: BespokeConfig = BespokeConfig()
    optimizer: AdamConfig = AdamConfig(learning_rate=2e-3, schedule="cosine", warmup=0.05)
    epochs: int = Field(40, ge=1)
    batch_size: int = Field(256, ge=1)

    @model_validator(mode="after")
    def _solver(self) -> Self:
        check_solver(self.solver, self.bespoke)
        return self


class Sums(nn.Module):
    """Draws channel sums, and gives the features of a particle that later factors use too.

    Args:
        detector: a detector with a face and a pitch, and the ZDC's features.
        channels: channel map of the sums.
        config: sizes, solver and training.
        average: decay of the moving average of the weights; 0 keeps none.
        validation_events: events of each validation.
    """

    def __init__(
        self, detector: Detector, channels: str, config: SumsConfig, average: float, validation_events: int
    ) -> None:
        super().__init__()
        self.detector, self.channels, self.config = detector, channels, config
        self.average, self.validation_events = average, validation_events
        self.outputs = len(detector.channel_map(channels).labels)
        self.derive, self.bend = ImpactFeatures(detector), BendingFeatures(detector)
        self.features = self.derive.size + self.bend.size
        self.standardize = Standardize(self.features)
        self.standardize_sums = Standardize(self.outputs)
        self.network = VelocityNetwork(self.outputs, self.features, config.width, config.blocks)
        self.solver = BespokeSolver(config.bespoke.steps) if config.bespoke.steps else None
        self._energy = detector.features.index("energy")

    def describe(self, conditions: Tensor) -> Tensor:
        """Returns standardised features of particles, (B, features)."""
        derived = torch.cat([self.derive(conditions), self.bend(conditions)], 1)
        # the tails of the inputs are long
        features: Tensor = self.standardize(derived).clamp(-10, 10)
        return features

    def forward(self, conditions: Tensor, features: Tensor, noise: Tensor) -> Tensor:
        """Draws sums, whole numbers, (B, K), from conditions (B, F), their `describe` and noise (B, K)."""
        x1 = solve(self.velocity(features), noise, self.config.solver, self.solver)
        return self.read(x1, conditions)

    def read(self, x1: Tensor, conditions: Tensor) -> Tensor:
        """Returns the sums at the end of a path, (B, K)."""
        scaled = self.standardize_sums.inverse(x1).clamp(min=0)
        return torch.floor(scaled.square() * self._energies(conditions))

    def velocity(self, features: Tensor) -> Velocity:
        """Returns the velocity for particles by their `describe`."""
        return conditioned(self.network, self.network.condition(features))

    def stages(
        self, train: EventSource, augment: Callable[[Events, BatchRandom], Events] | None = None
    ) -> list[Stage]:
        """Fits the normalization and returns the stages: the velocity, and its solver where one is trained.

        Args:
            train: training events.
            augment: changes each batch of the velocity's training.
        """
        conditions = torch.from_numpy(train.primaries.conditions)
        counts = torch.from_numpy(channel_sums(train, self.channels))
        self.standardize.refit(torch.cat([self.derive(conditions), self.bend(conditions)], 1))
        self.standardize_sums.refit(torch.sqrt((counts + 0.5) / self._energies(conditions)))
        stages: list[Stage] = [self._velocity_stage(len(train), augment)]
        if self.solver is not None:
            bespoke = self.config.bespoke
            stages.append(
                solver_stage(
                    "sums_solver", self.solver, self.network, self._problem, self.scores, bespoke, len(train)
                )
            )
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
            drawn = [self(conditions, features, torch.from_numpy(one).to(conditions.device)) for one in noise]
        sums = torch.stack(drawn).double().cpu().numpy()
        return {"energy_score": energy_score(true, sums), "w1": mean_wasserstein(true, sums[0])}

    def _velocity_stage(self, events: int, augment: Callable[[Events, BatchRandom], Events] | None) -> Stage:
        def loss(network: VelocityNetwork, batch: Events, rng: BatchRandom) -> Tensor:
            batch = augment(batch, rng) if augment else batch
            conditions = self._conditions(batch)
            counts = torch.from_numpy(self.detector.readout(batch.responses, self.channels)).float()
            scaled = torch.sqrt(
                (counts.to(conditions.device) + rng.uniform(self.outputs)) / self._energies(conditions)
            )
            embedding = network.condition(self.describe(conditions))
            x0, t = rng.normal(self.outputs), rng.uniform()
            return cfm_loss(lambda x, time: network(x, time, embedding), x0, self.standardize_sums(scaled), t)

        return LossStage("sums", self.network, loss, self.scores, self.config, events, average=self.average)

    def _problem(self, batch: Events, rng: BatchRandom) -> tuple[Velocity, Tensor]:
        return self.velocity(self.describe(self._conditions(batch))), rng.normal(self.outputs)

    def _conditions(self, events: Events) -> Tensor:
        return torch.from_numpy(events.conditions).to(self.standardize.mean.device)

    def _energies(self, conditions: Tensor) -> Tensor:
        return conditions[:, self._energy : self._energy + 1]
