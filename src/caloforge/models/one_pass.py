"""What models share that make an image of normals at once: GAN, VAE of vision transformers, Sinkhorn autoencoder.

An image of counts n is y = ln(1 + n); the last number of the noise rounds the counts.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from caloforge.detectors import Detector
from caloforge.events import Events
from caloforge.models.base import BatchRandom, Generator, cell_order, generation_scores, image_shape
from caloforge.nn.image_vit import ImageDecoder, ImageEncoder, dropout_mask
from caloforge.nn.rounding import Rounding, rounded
from caloforge.transforms import Log1p, Standardize


class OnePass(Generator):
    """Makes an image of normals at once.

    Args:
        detector: a detector with two axes.
        kind: the model's name, for errors.
        latent: normals an image is made of.
        rounding: how counts become whole numbers.
        validation_events: events generated for each validation.

    Raises:
        ValueError: a detector of other axes.
    """

    sampling: ClassVar[tuple[str, ...]] = ("rounding",)

    def __init__(
        self, detector: Detector, kind: str, latent: int, rounding: Rounding, validation_events: int
    ) -> None:
        super().__init__()
        self.detector, self.shape = detector, image_shape(detector, kind)
        self.noise_dim = latent + 1
        self.rounding, self.scores = rounding, generation_scores(self, validation_events)
        self.standardize, self.transform = Standardize(len(detector.conditions)), Log1p()
        self.order: Tensor
        self.register_buffer("order", torch.from_numpy(cell_order(detector, detector.default_channels)))

    @abstractmethod
    def image(self, z: Tensor, condition: Tensor) -> Tensor:
        """Returns images ln(1 + n), (B, H, W), of normals (B, latent) and standardised features (B, F)."""

    def forward(self, conditions: Tensor, noise: Tensor) -> Tensor:
        """Generates responses, (B, *shape), from conditions (B, F) and noise (B, latent + 1)."""
        image = self.image(noise[:, :-1], self.standardize(conditions))
        return rounded(self.transform.inverse(image), noise[:, -1], self.order, self.rounding)

    def inputs(self, batch: Events) -> tuple[Tensor, Tensor]:
        """Returns images ln(1 + n), (B, H, W), and standardised features, (B, F)."""
        device = self.order.device
        image = self.transform(torch.from_numpy(batch.responses.astype(np.float32)).to(device))
        return image, self.standardize(torch.from_numpy(batch.conditions).to(device))


def kept(network: ImageEncoder | ImageDecoder, dropout: float, rng: BatchRandom) -> Tensor | None:
    """Draws which units of a network are kept in a step, (B, *mask); None without dropout."""
    return dropout_mask(rng.uniform(*network.mask), dropout) if dropout else None
