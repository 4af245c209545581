"""Denoising diffusion of calorimeter images, sampled by DDIM (Wojnar 2025; arXiv:2006.11239, arXiv:2010.02502).

An image of counts n is seen as y = ln(1 + n). Noise e ~ N(0, 1) takes it away in K = 1000 steps,

    x_k = sqrt(a_k) y + sqrt(1 - a_k) e,   a_k = (1 - b_0) ... (1 - b_k),   b rising evenly from 1e-4 to 0.02,

and a network learns that noise, with k uniform and c the standardised particle features,

    loss = E | e(x_k, k, c) - e |^2.

Sampling. DDIM starts from noise and uses `steps` of the K, evenly spread, the last first. With a the present and a'
the next of the a_k (1 after the last step) a step is

    y^ = (x - sqrt(1 - a) e^) / sqrt(a), kept within `limit`,    e^ = (x - sqrt(a) y^) / sqrt(1 - a),
    x <- sqrt(a') y^ + sqrt(1 - a' - s^2) e^ + s z,    s = eta sqrt((1 - a') / (1 - a)) sqrt(1 - a / a'),

with z fresh noise. `eta = 0` needs none: the image is a function of the particle and of where it starts, as many
normals as there are cells. `eta = 0.7` is the published choice and needs as many at each step. Negative values are then
set to 0, counts are exp(y) - 1, rounded as in `nn.rounding`.

Networks. `architecture = "cross_attention"` is the published one (`nn.cross_attention_unet`); `"unet"` is that of the
flow matching (`nn.unet`), so that the two methods can be compared with equal networks.

Prediction. `prediction = "noise"` is the paper's. With `"data"` the network gives y^, which lets it work on patches
with fewer channels than a patch has fibres; the loss is then E min(a_k / (1 - a_k), 5) | y^ - y |^2
(arXiv:2303.09556).

What the publication leaves open, the schedule of b and the limit of 7, is that of its code.
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
from caloforge.models.parts.images import cell_order, image_shape
from caloforge.models.parts.inference import generation_scores
from caloforge.models.parts.stage import LossStage
from caloforge.nn.cross_attention_unet import CrossAttentionUNet, CrossAttentionUNetConfig
from caloforge.nn.rounding import Rounding, rounded
from caloforge.nn.unet import UNet, UNetConfig
from caloforge.ode.loop import repeated
from caloforge.optim import AdamConfig
from caloforge.transforms import Log1p, Standardize

FIRST, LAST = 1e-4, 0.02
"""Variance of the noise of the first and of the last step."""

LARGEST_WEIGHT = 5.0
"""Bound of the ratio of signal to noise that weighs the loss of a predicted image."""


class DiffusionConfig(BaseModel):
    """Network, sampling and training of the diffusion model; a `TrainingSection`.

    Attributes:
        architecture: `cross_attention`, the published network, or `unet`, the flow matching's.
        cross_attention: sizes of the published network.
        network: sizes of the flow matching's.
        prediction: `noise`, the paper's, or `data`.
        training_steps: K, steps of the noise.
        steps: steps of the sampling, at most `training_steps`; may be changed after the training.
        eta: share of fresh noise, 0 to 1; may be changed after the training.
        limit: largest size of ln(1 + n) that a step may assume; may be changed after the training.
        rounding: `systematic`, `nearest` or `none`; may be changed after the training.
        average: decay of the moving average of the weights; 0, the paper's, keeps none.
        validation_events: events generated for each validation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: Literal["cross_attention", "unet"] = "cross_attention"
    cross_attention: CrossAttentionUNetConfig = CrossAttentionUNetConfig()
    network: UNetConfig = UNetConfig()
    prediction: Literal["noise", "data"] = "noise"
    training_steps: int = Field(1000, ge=2)
    steps: int = Field(50, ge=1)
    eta: float = Field(0.0, ge=0, le=1)
    limit: float = Field(7.0, gt=0)
    rounding: Rounding = "systematic"
    optimizer: AdamConfig = AdamConfig(
        learning_rate=2.8e-5,
        beta1=0.87,
        beta2=0.82,
        eps=2.5e-10,
        weight_decay=5.5e-4,
        schedule="cosine",
        warmup=0.1,
        gradient_clip=1.0,
    )
    epochs: int = Field(50, ge=1)
    batch_size: int = Field(256, ge=1)
    average: float = Field(0.0, ge=0, lt=1)
    validation_events: int = Field(1024, ge=2)

    @model_validator(mode="after")
    def _steps(self) -> Self:
        if self.steps > self.training_steps:
            raise ValueError(f"steps must be at most training_steps, {self.training_steps}, got {self.steps}")
        return self


def signal(steps: int) -> Tensor:
    """Returns a_k, what is left of the signal after each step of the noise, (steps,) float64."""
    return torch.cumprod(1 - torch.linspace(FIRST, LAST, steps, dtype=torch.float64), 0)


def schedule(left: Tensor, steps: int, eta: float) -> Tensor:
    """Returns what each step of the sampling needs, (steps, 6) float64.

    Args:
        left: a_k, (K,).
        steps: of the sampling.
        eta: share of fresh noise.

    Returns:
        k / K; sqrt(a) and sqrt(1 - a); what y^, e^ and z are multiplied by.
    """
    total = len(left)
    places = [round(total * (steps - i) / steps) - 1 for i in range(steps)]
    a = left[places]
    after = torch.cat([a[1:], torch.ones(1, dtype=a.dtype)])
    fresh = eta * ((1 - after) / (1 - a)).sqrt() * (1 - a / after).sqrt()
    remaining = (1 - after - fresh**2).clamp(min=0).sqrt()
    return torch.stack(
        [torch.tensor(places) / total, a.sqrt(), (1 - a).sqrt(), after.sqrt(), remaining, fresh], 1
    )


class Diffusion(Generator):
    """Generates images by taking noise away in steps.

    Args:
        detector: a detector with two axes.
        config: sizes and training.
    """

    config_class: ClassVar[type[BaseModel]] = DiffusionConfig
    sampling: ClassVar[tuple[str, ...]] = ("steps", "eta", "limit", "rounding")

    def __init__(self, detector: Detector, config: DiffusionConfig) -> None:
        super().__init__()
        shape = image_shape(detector, "diffusion")
        self.detector, self.config = detector, config
        self.noise_dim = detector.cells * (config.steps if config.eta else 1) + 1
        self.standardize, self.transform = Standardize(len(detector.conditions)), Log1p()
        features = len(detector.conditions)
        if config.architecture == "unet":
            self.network: UNet | CrossAttentionUNet = UNet(shape, features, config.network)
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        else:
            self.network = CrossAttentionUNet(features, config.cross_attention)
        left = signal(config.training_steps)
        self.left: Tensor
        self.schedule: Tensor
        self.order: Tensor
        self.register_buffer("left", left.float(), persistent=False)
        self.register_buffer("schedule", schedule(left, config.steps, config.eta).float(), persistent=False)
        self.register_buffer("order", torch.from_numpy(cell_order(detector, detector.default_channels)))

    def forward(self, conditions: Tensor, noise: Tensor) -> Tensor:
        """Generates responses, (B, *shape), from conditions (B, F) and noise (B, D).

        D is one more than the cells, or than `steps` times the cells where `eta` is not 0.
        """
        condition, draws = self.standardize(conditions), self.noise_dim // self.detector.cells
        normals = noise[:, :-1].reshape(-1, draws, *self.detector.shape)
        if torch.compiler.is_exporting():
            y = self._looped(normals, condition)
        else:
            y = normals[:, 0]
            for number, now in enumerate(self.schedule, start=1):
                y = self._step(y, now, condition)
                y = y + now[5] * normals[:, number] if number < draws else y
        return rounded(self.transform.inverse(torch.relu(y)), noise[:, -1], self.order, self.config.rounding)

    def _step(self, x: Tensor, now: Tensor, condition: Tensor) -> Tensor:
        """Takes a step but for its fresh noise; `now` is a row of the schedule, numbers or (B, 1, 1) each."""
        t, a, noisy, to_image, to_noise = (now[i] for i in range(5))
        output = self.network(x, t.flatten() if t.ndim else t.expand(x.shape[0]), condition)
        image = output if self.config.prediction == "data" else (x - noisy * output) / a
        image = image.clamp(-self.config.limit, self.config.limit)
        moved: Tensor = to_image * image + to_noise * (x - a * image) / noisy
        return moved

    def _looped(self, normals: Tensor, condition: Tensor) -> Tensor:
        """Takes all steps in a loop of the exported graph, which then holds one step and not all of them."""
        if normals.shape[1] == 1:
            return repeated(lambda x, now: self._step(x, now, condition), normals[:, 0], self.schedule)

        def step(x: Tensor, row: Tensor) -> Tensor:
            now = row[:, :6].T[:, :, None, None]
            return self._step(x, now, condition) + now[5] * row[:, 6:].view_as(x)

        fresh = torch.cat([normals[:, 1:], torch.zeros_like(normals[:, :1])], 1).flatten(2).transpose(0, 1)
        rows = torch.cat([self.schedule[:, None].expand(-1, fresh.shape[1], -1), fresh], 2)
        return repeated(step, normals[:, 0], rows)

    def stages(self, train: EventSource) -> Sequence[Stage]:
        """Fits the standardisation and returns the one stage."""
        config = self.config
        self.standardize.refit(torch.from_numpy(train.primaries.conditions))

        def loss(network: UNet | CrossAttentionUNet, batch: Events, rng: BatchRandom) -> Tensor:
            device = self.order.device
            y = self.transform(torch.from_numpy(batch.responses.astype(np.float32)).to(device))
            condition = self.standardize(torch.from_numpy(batch.conditions).to(device))
            noise, k = rng.normal(*self.detector.shape), (rng.uniform() * config.training_steps).long()
            a = self.left[k][:, None, None]
            output: Tensor = network(
                a.sqrt() * y + (1 - a).sqrt() * noise, k / config.training_steps, condition
            )
            if config.prediction == "noise":
                return (output - noise).square().flatten(1).mean(1)
            weighted: Tensor = (a / (1 - a)).clamp(max=LARGEST_WEIGHT) * (output - y).square()
            return weighted.flatten(1).mean(1)

        scores = generation_scores(self, config.validation_events)
        return [LossStage("noise", self.network, loss, scores, config, len(train), average=config.average)]
