"""A variational autoencoder of calorimeter images by vision transformers (Wojnar, Majerz, Dzwinel 2025).

An image of counts n is seen as y = ln(1 + n). An encoder maps it, with the particle c, to mean m and log variance v of
ten latent numbers, a decoder maps z = m + exp(v / 2) noise and the particle back to y^ (`nn.image_vit`; the particle is
a token in front of the image's). The loss is summed over fibres and latent numbers,

    loss = |y^ - y|^2 + 0.7 KL,   KL = 1/2 sum of (m^2 + exp(v) - 1 - v).

A generator decodes ten normals. The squared error makes y^ the mean of all images that a z may stand for, smooth, and
the counts exp(y^) - 1 too few: the light that a fibre has now and then is lost in the mean of logarithms.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from caloforge.detectors import Detector
from caloforge.events import Events, EventSource
from caloforge.models.base import (
    BatchRandom,
    Stage,
)
from caloforge.models.one_pass import OnePass, kept
from caloforge.models.parts.stage import LossStage
from caloforge.nn.image_vit import ImageDecoder, ImageEncoder, ImageViTConfig
from caloforge.nn.rounding import Rounding
from caloforge.optim import AdamConfig


class ViTVAEConfig(BaseModel):
    """Networks and training of the VAE; a `TrainingSection`.

    Attributes:
        network: sizes of encoder and decoder.
        latent: numbers of the latent vector.
        kl: weight of the divergence from standard normals.
        rounding: `systematic`, `nearest` or `none`; may be changed after the training.
        validation_events: events generated for each validation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: ImageViTConfig = ImageViTConfig()
    latent: int = Field(10, ge=1)
    kl: float = Field(0.7, ge=0)
    rounding: Rounding = "systematic"
    optimizer: AdamConfig = AdamConfig(learning_rate=3e-4, schedule="cosine")
    epochs: int = Field(50, ge=1)
    batch_size: int = Field(256, ge=1)
    validation_events: int = Field(2048, ge=2)


class VAE(nn.Module):
    """Encoder and decoder.

    Args:
        shape: height and width of the image.
        conditions: features of the particle, F.
        config: sizes.
    """

    def __init__(self, shape: tuple[int, int], conditions: int, config: ViTVAEConfig) -> None:
        super().__init__()
        self.encoder = ImageEncoder(shape, conditions, config.network)
        self.shared = nn.Linear(self.encoder.size, 2 * config.latent)
        self.mean = nn.Linear(2 * config.latent, config.latent)
        self.log_variance = nn.Linear(2 * config.latent, config.latent)
        self.decoder = ImageDecoder(shape, config.latent, conditions, config.network)

    def encode(self, image: Tensor, condition: Tensor, kept: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns mean and log variance, (B, latent), of ln(1 + n), (B, H, W), and features, (B, F)."""
        hidden = F.relu(self.shared(self.encoder(image, condition, kept)))
        return self.mean(hidden), self.log_variance(hidden).clamp(-20, 10)


class ViTVAE(OnePass):
    """Decodes ten normals.

    Args:
        detector: a detector with two axes.
        config: sizes and training.
    """

    config_class: ClassVar[type[BaseModel]] = ViTVAEConfig
    training_only: ClassVar[tuple[str, ...]] = (
        "vae.encoder",
        "vae.shared",
        "vae.mean",
        "vae.log_variance",
    )

    def __init__(self, detector: Detector, config: ViTVAEConfig) -> None:
        super().__init__(detector, "vit_vae", config.latent, config.rounding, config.validation_events)
        self.config = config
        self.vae = VAE(self.shape, len(detector.conditions), config)

    def image(self, z: Tensor, condition: Tensor) -> Tensor:
        """Decodes normals, (B, latent), to (B, H, W), for standardised features (B, F)."""
        image: Tensor = self.vae.decoder(z, condition)
        return image

    def stages(self, train: EventSource) -> Sequence[Stage]:
        """Fits the standardisation and returns the one stage."""
        config, dropout = self.config, self.config.network.dropout
        self.standardize.refit(torch.from_numpy(train.primaries.conditions))

        def loss(vae: VAE, batch: Events, rng: BatchRandom) -> Tensor:
            image, condition = self.inputs(batch)
            mean, log_variance = vae.encode(image, condition, kept(vae.encoder, dropout, rng))
            z = mean + torch.exp(log_variance / 2) * rng.normal(config.latent)
            found = vae.decoder(z, condition, kept(vae.decoder, dropout, rng))
            kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
            each: Tensor = (found - image).square().flatten(1).sum(1) + config.kl * kl
            return each

        return [LossStage("vae", self.vae, loss, self.scores, config, len(train))]
