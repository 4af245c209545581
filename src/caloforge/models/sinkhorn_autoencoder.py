"""End-to-end Sinkhorn autoencoder of calorimeter images (Deja et al. 2020; Patrini et al. 2018, arXiv:1810.01118).

An image of counts n is seen as y = ln(1 + n). An encoder maps it to a code h >= 0 of twenty numbers, a decoder maps the
code back to y^ (`nn.image_vit`, neither sees the particle). At the same time a noise generator maps ten normals and the
particle c to codes h^, and is to give the distribution that the encoder gives, particle by particle:

    loss = |y^ - y|^2 + w S({(h, c)}, {(h^, c)}),

the square summed over fibres, S the Sinkhorn divergence between the two batches of points, features beside codes so
that moving a code to another particle costs its distance in the standardised features (`nn.sinkhorn`). So nothing is
assumed of the distribution of codes, and one loss trains all three. A generator decodes what the noise generator gives.

The publications give neither weight nor blur here; w = 20 is that of the code of Wojnar (2025), the blur is ours, in
units of codes and standardised features. On several devices each compares its own part of the batch.
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
from caloforge.nn.sinkhorn import sinkhorn_divergence
from caloforge.optim import AdamConfig
from caloforge.transforms import Log1p, Standardize

SLOPE = 0.2
"""Slope of the noise generator's leaky rectifiers below 0."""


class SinkhornAutoencoderConfig(BaseModel):
    """Networks and training of the Sinkhorn autoencoder.

    Attributes:
        network: sizes of encoder and decoder.
        latent: normals an image is made of.
        code: numbers of a code.
        hidden: width of the noise generator.
        sinkhorn: weight of the divergence.
        blur: length below which points count as equal.
        scaling: what the blur is multiplied by from one iteration to the next.
        rounding: `systematic`, `nearest` or `none`; may be changed after the training.
        optimizer: rates and schedule.
        epochs: passes through the training events.
        batch_size: events a step, which is also how many points are compared.
        validation_events: events generated for each validation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: ImageViTConfig = ImageViTConfig()
    latent: int = Field(10, ge=1)
    code: int = Field(20, ge=1)
    hidden: int = Field(128, ge=1)
    sinkhorn: float = Field(20.0, ge=0)
    blur: float = Field(0.05, gt=0)
    scaling: float = Field(0.9, gt=0, lt=1)
    rounding: Rounding = "systematic"
    optimizer: AdamConfig = AdamConfig(learning_rate=3e-4, schedule="cosine")
    epochs: int = Field(50, ge=1)
    batch_size: int = Field(256, ge=2)
    validation_events: int = Field(2048, ge=2)


class NoiseGenerator(nn.Module):
    """Makes codes of normals and the particle.

    Args:
        conditions: features of the particle, F.
        config: sizes.
    """

    def __init__(self, conditions: int, config: SinkhornAutoencoderConfig) -> None:
        super().__init__()
        hidden = config.hidden
        self.noise, self.condition = nn.Linear(config.latent, 2 * hidden), nn.Linear(conditions, hidden)
        self.layers = nn.ModuleList(nn.Linear(inputs, 4 * hidden) for inputs in (3 * hidden, 4 * hidden))
        self.out = nn.Linear(4 * hidden, config.code)

    def forward(self, z: Tensor, condition: Tensor) -> Tensor:
        """Returns codes, (B, code), of normals (B, latent) and standardised features (B, F)."""
        x = F.leaky_relu(torch.cat([self.noise(z), self.condition(condition)], 1), SLOPE)
        for layer in self.layers:
            x = F.leaky_relu(layer(x), SLOPE)
        return F.relu(self.out(x))


class Autoencoder(nn.Module):
    """Encoder, noise generator and decoder.

    Args:
        shape: height and width of the image.
        conditions: features of the particle, F.
        config: sizes.
    """

    def __init__(self, shape: tuple[int, int], conditions: int, config: SinkhornAutoencoderConfig) -> None:
        super().__init__()
        self.encoder = ImageEncoder(shape, 0, config.network)
        self.code = nn.Linear(self.encoder.size, config.code)
        self.noise_generator = NoiseGenerator(conditions, config)
        self.decoder = ImageDecoder(shape, config.code, 0, config.network)

    def encode(self, image: Tensor, kept: Tensor | None = None) -> Tensor:
        """Returns codes, (B, code), of images ln(1 + n), (B, H, W)."""
        return F.relu(self.code(self.encoder(image, None, kept)))


class SinkhornAutoencoder(Generator):
    """Decodes what its noise generator gives.

    Args:
        detector: a detector with two axes.
        config: sizes and training.
    """

    config_class: ClassVar[type[BaseModel]] = SinkhornAutoencoderConfig
    sampling: ClassVar[tuple[str, ...]] = ("rounding",)
    training_only: tuple[str, ...] = ("autoencoder.encoder", "autoencoder.code")

    def __init__(self, detector: Detector, config: SinkhornAutoencoderConfig) -> None:
        super().__init__()
        self.detector, self.config = detector, config
        shape, features = image_shape(detector, "sinkhorn_autoencoder"), len(detector.conditions)
        self.noise_dim = config.latent + 1
        self.standardize, self.transform = Standardize(features), Log1p()
        self.order: Tensor
        self.register_buffer("order", torch.from_numpy(cell_order(detector, detector.default_channels)))
        self.autoencoder = Autoencoder(shape, features, config)

    def forward(self, conditions: Tensor, noise: Tensor) -> Tensor:
        """Generates responses, (B, *shape), from conditions (B, F) and noise (B, latent + 1)."""
        code = self.autoencoder.noise_generator(noise[:, :-1], self.standardize(conditions))
        image: Tensor = self.autoencoder.decoder(code, None)
        return rounded(self.transform.inverse(image), noise[:, -1], self.order, self.config.rounding)

    def stages(self, train: EventSource) -> Sequence[Stage]:
        """Fits the standardisation and returns the one stage."""
        config, dropout = self.config, self.config.network.dropout
        self.standardize.refit(torch.from_numpy(train.primaries.conditions))

        def loss(network: Autoencoder, batch: Events, rng: BatchRandom) -> Tensor:
            image, condition = log_images(batch, self.standardize)
            code = network.encode(image, kept_units(network.encoder, dropout, rng))
            drawn = network.noise_generator(rng.normal(config.latent), condition)
            decoded = network.decoder(code, None, kept_units(network.decoder, dropout, rng))
            of_codes, of_made = sinkhorn_divergence(
                torch.cat([code, condition], 1),
                torch.cat([drawn, condition], 1),
                config.blur,
                config.scaling,
            )
            error: Tensor = (decoded - image).square().flatten(1).sum(1)
            return error + config.sinkhorn * (of_codes + of_made)

        scores = generation_scores(self, config.validation_events)
        return [LossStage("autoencoder", self.autoencoder, loss, scores, config, len(train))]
