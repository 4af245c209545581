"""Flow matching of calorimeter images (Wojnar 2025, "Even faster simulations with flow matching").

An image of counts n is seen as x_1 = ln(1 + n). A tiny U-Net learns the velocity of the straight path from
noise to image,

    x_t = (1 - t) x_0 + t x_1,    loss = E | v(x_t, t, c) - (x_1 - x_0) |^2,

with x_0 ~ N(0, 1), t ~ U(0, 1) and c the standardised particle features. A generator integrates v from its noise
with Euler's method, 11 steps by default, and turns x_1 back to counts: negative values in log space are set to
0, then exp(x) - 1.

Rounding. The expected counts are rounded by systematic sampling in a fixed shuffled order of the cells, channel
by channel (`nn.rounding`): unbiased in every cell, and each channel sum is kept to less than one photon. One
more normal of the noise gives the uniform that this needs. `rounding = "none"` leaves them as they are, as in
the paper's rows; `"nearest"` is biased and there for comparison.

Prediction. The paper's network gives the velocity itself, `prediction = "velocity"`. With `prediction = "data"`
it gives the image x_1^ that the path leads to, and the velocity follows,

    v(x_t, t) = (x_1^ - x_t) / (1 - t),    loss = E | x_1^ - x_1 |^2 / max(1 - t, 0.05)^2,

the same loss but for the bound. An image of some hundred lit fibres among two thousand is simple where noise on
two thousand fibres is not: the network need not carry the noise through, so it may cut the image into patches
with fewer channels than pixels, and an empty fibre ends at exactly the network's value for it.

Physics. `channels` adds a loss of the channel sums (`base.channel_loss`) of the image the path seems to lead to from
x_t, x_1^ = x_t + (1 - t) v, weighted by t^2: early on that is the mean of many images, whose sums need not be the
event's. It is not of the paper and off by default.

With `patch = 1` and `prediction = "velocity"` the network is the paper's, 77,372 parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from caloforge.detectors import Detector
from caloforge.events import Events, EventSource
from caloforge.models.base import BatchRandom, Generator, Stage
from caloforge.models.parts.bayesian import BayesianConfig, make_bayesian, variational
from caloforge.models.parts.images import cell_order, channel_loss, channel_matrix, image_shape
from caloforge.models.parts.inference import generation_scores
from caloforge.models.parts.particle_features import PromptRays
from caloforge.models.parts.stage import LossStage, solver_stage
from caloforge.nn.rounding import rounded
from caloforge.nn.unet import UNet, UNetConfig
from caloforge.ode.bespoke import BespokeConfig, BespokeSolver, repeated
from caloforge.ode.path import Velocity, on_path, velocity_loss
from caloforge.ode.solve import check_solver, solve
from caloforge.ode.solvers import SolverConfig
from caloforge.optim import AdamConfig
from caloforge.transforms import Log1p, Standardize


class FlowMatchingConfig(BaseModel):
    """Network, solver and training of the flow matching; a `TrainingSection`.

    Attributes:
        network: sizes of the U-Net.
        solver: method and steps of the sampling; may be changed after the training.
        bespoke: a solver that is trained for this network, for `solver.method = "bespoke"`.
        prediction: `velocity`, the paper's, or `data`.
        rounding: `systematic`, `nearest` or `none`; may be changed after the training.
        channels: weight of the loss of the channel sums; 0, the paper's, has none.
        optimizer: the paper's is Adam with rates tuned for each detector, without clipping or weight decay.
        average: decay of the moving average of the weights; 0, the paper's, keeps none.
        validation_events: events generated for each validation.
        bayesian: Gaussian weights and their replicas; none where not given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: UNetConfig = UNetConfig()
    solver: SolverConfig = SolverConfig()
    bespoke: BespokeConfig = BespokeConfig()
    prediction: Literal["velocity", "data"] = "velocity"
    rounding: Literal["systematic", "nearest", "none"] = "systematic"
    channels: float = Field(0.0, ge=0)
    optimizer: AdamConfig = AdamConfig()
    epochs: int = Field(50, ge=1)
    batch_size: int = Field(256, ge=1)
    average: float = Field(0.0, ge=0, lt=1)
    validation_events: int = Field(2048, ge=2)
    bayesian: BayesianConfig | None = None

    @model_validator(mode="after")
    def _solver(self) -> Self:
        check_solver(self.solver, self.bespoke)
        return self


class FlowMatching(Generator):
    """Generates images by integrating a learned velocity.

    Args:
        detector: a detector with two axes.
        config: sizes and training.
    """

    config_class: ClassVar[type[BaseModel]] = FlowMatchingConfig
    sampling: ClassVar[tuple[str, ...]] = ("solver", "rounding")

    def __init__(self, detector: Detector, config: FlowMatchingConfig) -> None:
        super().__init__()
        shape = image_shape(detector, "flow_matching")
        self.detector, self.config = detector, config
        self.noise_dim = detector.cells + 1
        self.rays = PromptRays(detector)
        self.standardize = Standardize(len(detector.conditions))
        self.transform = Log1p()
        self.network = UNet(shape, len(detector.conditions), config.network)
        make_bayesian(self.network, config.bayesian)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.solver = BespokeSolver(config.bespoke.steps) if config.bespoke.steps else None
        self.order: Tensor
        self.register_buffer("order", torch.from_numpy(cell_order(detector, next(iter(detector.channels)))))

    def forward(self, conditions: Tensor, noise: Tensor) -> Tensor:
        """Generates responses, (B, *shape), from conditions (B, F) and noise (B, cells + 1)."""
        x0 = noise[:, :-1].reshape(-1, *self.detector.shape)
        x1 = solve(self._velocity(conditions), x0, self.config.solver, self.solver)
        expected = self.transform.inverse(torch.relu(x1))
        return rounded(expected, noise[:, -1], self.order, self.config.rounding)

    def _velocity(self, conditions: Tensor) -> Velocity:
        condition = self.standardize(self.rays(conditions))

        def velocity(x: Tensor, t: Tensor) -> Tensor:
            output: Tensor = self.network(x, t, repeated(condition, x))
            if self.config.prediction == "velocity":
                return output
            # rk4 evaluates at t = 1, where the bound keeps the velocity finite
            return (output - x) / (1 - t).clamp(min=0.01)[:, None, None]

        return velocity

    def stages(self, train: EventSource) -> Sequence[Stage]:
        """Fits the standardisation and returns the stages: the velocity, and its solver where one is trained."""
        config = self.config
        self.standardize.refit(self.rays(torch.from_numpy(train.primaries.conditions)))
        readout = channel_matrix(self.detector).to(self.order.device)

        def loss(network: UNet, batch: Events, rng: BatchRandom) -> Tensor:
            device = self.order.device
            x1 = self.transform(torch.from_numpy(batch.responses.astype(np.float32)).to(device))
            condition = self.standardize(self.rays(torch.from_numpy(batch.conditions).to(device)))
            x0, t = rng.normal(*self.detector.shape), rng.uniform()
            x = on_path(x0, x1, t)
            output: Tensor = network(x, t, condition)
            if config.prediction == "velocity":
                value = velocity_loss(output, x0, x1)
                clean = x + (1 - t)[:, None, None] * output
            else:
                value = (output - x1).square().flatten(1).mean(1) / (1 - t).clamp(min=0.05).square()
                clean = output
            if config.channels:
                value = value + config.channels * t.square() * channel_loss(clean, x1, readout)
            return value

        def problem(batch: Events, rng: BatchRandom) -> tuple[Velocity, Tensor]:
            conditions = torch.from_numpy(batch.conditions).to(self.order.device)
            return self._velocity(conditions), rng.normal(*self.detector.shape)

        events, scores = len(train), generation_scores(self, config.validation_events)
        each = variational(loss, config.bayesian, events)
        stages: list[Stage] = [
            LossStage("velocity", self.network, each, scores, config, events, average=config.average)
        ]
        if self.solver is not None:
            stages.append(
                solver_stage("solver", self.solver, self.network, problem, scores, config.bespoke, events)
            )
        return stages
