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
from caloforge.models.base import BatchRandom, Generator, Stage
from caloforge.models.parts.images import cell_order, image_shape, kept_units, log_images
from caloforge.models.parts.inference import generation_scores
from caloforge.models.parts.stage import LossStage
from caloforge.nn.image_vit import ImageDecoder, ImageEncoder, ImageViTConfig
from caloforge.nn.rounding import Rounding, rounded
from caloforge.optim import AdamConfig
from caloforge.transforms import Log1p, Standardize


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


class ViTVAE(Generator):
    """Decodes ten normals.

    Args:
        detector: a detector with two axes.
        config: sizes and training.
    """

    config_class: ClassVar[type[BaseModel]] = ViTVAEConfig
    sampling: ClassVar[tuple[str, ...]] = ("rounding",)
    training_only: tuple[str, ...] = (
        "vae.encoder",
        "vae.shared",
        "vae.mean",
        "vae.log_variance",
    )

    def __init__(self, detector: Detector, config: ViTVAEConfig) -> None:
        super().__init__()
        self.detector, self.config = detector, config
        shape, features = image_shape(detector, "vit_vae"), len(detector.conditions)
        self.noise_dim = config.latent + 1
        self.standardize, self.transform = Standardize(features), Log1p()
        self.order: Tensor
        self.register_buffer("order", torch.from_numpy(cell_order(detector, detector.default_channels)))
        self.vae = VAE(shape, features, config)

    def forward(self, conditions: Tensor, noise: Tensor) -> Tensor:
        """Generates responses, (B, *shape), from conditions (B, F) and noise (B, latent + 1)."""
        image: Tensor = self.vae.decoder(noise[:, :-1], self.standardize(conditions))
        return rounded(self.transform.inverse(image), noise[:, -1], self.order, self.config.rounding)

    def stages(self, train: EventSource) -> Sequence[Stage]:
        """Fits the standardisation and returns the one stage."""
        config, dropout = self.config, self.config.network.dropout
        self.standardize.refit(torch.from_numpy(train.primaries.conditions))

        def loss(vae: VAE, batch: Events, rng: BatchRandom) -> Tensor:
            image, condition = log_images(batch, self.standardize)
            mean, log_variance = vae.encode(image, condition, kept_units(vae.encoder, dropout, rng))
            z = mean + torch.exp(log_variance / 2) * rng.normal(config.latent)
            decoded = vae.decoder(z, condition, kept_units(vae.decoder, dropout, rng))
            kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
            each: Tensor = (decoded - image).square().flatten(1).sum(1) + config.kl * kl
            return each

        scores = generation_scores(self, config.validation_events)
        return [LossStage("vae", self.vae, loss, scores, config, len(train))]
