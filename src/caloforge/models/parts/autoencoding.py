"""Training of an autoencoder of images as in Wojnar (2025): what its VAE and its VQ-GAN share.

The reconstruction is pulled by up to four terms. Each one's gradient with respect to the reconstruction is divided by
its L2 norm over the batch and multiplied by a weight, so that weights are strengths (`nn.autoencoder`):

    reconstruction   mean of (y - y^)^2, y = ln(1 + n) the image and y^ >= 0 its reconstruction (`l2`); or the
    likelihood
                     of the counts n, whose mean is exp(y^) - 1: Poisson, or negative binomial of a fixed dispersion
    perceptual       LPIPS, by the network that is named (`nn.perceptual`)
    adversarial      - mean of D(y^)
    channels         mean of (sqrt w - sqrt w^)^2, w the channel sums; not of the paper, and off by default

What the code itself costs (KL, commitment) is added as it is. The discriminator D, a copy of the perceptual network
with a linear head on each of its stages, is trained in turn by the hinge loss

    mean of max(0, 1 - D(y)) + mean of max(0, 1 + D(y^)).

It belongs to the stage and not to the model: what generates does not carry it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from caloforge import samples
from caloforge.events import Events, EventSource
from caloforge.io.files import sha256
from caloforge.io.run import read_weights
from caloforge.models.base import BatchRandom
from caloforge.models.parts.images import channel_loss
from caloforge.models.parts.stage import Scores, TrainingSection, shuffled_batches, updates, with_score
from caloforge.nn.autoencoder import LinearHeads, normalized_gradient
from caloforge.nn.perceptual import PerceptualDistance, from_tensors
from caloforge.optim import Adam, AdamConfig

SHIPPED = "zdc"
"""Name of the perceptual network that ships."""

FAINT = 1e-3
"""Photons that are added to a mean before its logarithm is taken."""

Reconstruct = Callable[[Events, BatchRandom], tuple[Tensor, Tensor, Tensor, Mapping[str, float]]]
"""A batch to the image ln(1 + n) (B, H, W), its reconstruction, a loss to be added, and what to log."""


class LossesConfig(BaseModel):
    """Terms of the loss and their weights; 0 leaves a term out.

    Attributes:
        likelihood: what the reconstruction is judged by: `l2`, the paper's, `poisson` or `negative_binomial`.
        dispersion: r of the negative binomial, whose variance is m + m^2 / r.
        reconstruction: weight of the reconstruction.
        perceptual: weight of the perceptual distance.
        adversarial: weight of the adversarial term.
        channels: weight of the channel sums.
        extractor: the perceptual network, also the discriminator's: `zdc`, which ships, or a safetensors file.
        discriminator: rates and schedule of the discriminator.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    likelihood: Literal["l2", "poisson", "negative_binomial"] = "l2"
    dispersion: float = Field(2.0, gt=0)
    reconstruction: float = Field(0.1, gt=0)
    perceptual: float = Field(1.0, ge=0)
    adversarial: float = Field(1.0, ge=0)
    channels: float = Field(0.0, ge=0)
    extractor: str = SHIPPED
    discriminator: AdamConfig = AdamConfig(learning_rate=1.4e-6, beta1=0.44, beta2=0.77, schedule="cosine")


class AutoencoderSection(TrainingSection, Protocol):
    """The part of a configuration that says how an autoencoder trains: also the terms of its loss."""

    @property
    def losses(self) -> LossesConfig:
        """Terms of the loss and their weights."""


def perceptual_network(name: str) -> tuple[PerceptualDistance, dict[str, Any]]:
    """Reads a perceptual network.

    Args:
        name: `zdc`, or the path of a safetensors file in the names of torchvision and LPIPS.

    Returns:
        the distance, and name, hash and architecture for the card.

    Raises:
        ValueError: no such file, or not such a network. There is no fallback.
    """
    path = Path(str(Path(samples.__file__).parent / "perceptual" / f"{SHIPPED}.safetensors"))
    path = path if name == SHIPPED else Path(name)
    try:
        tensors = {key: torch.from_numpy(array) for key, array in read_weights(path).items()}
        distance = from_tensors(tensors)
    except ValueError as error:
        raise ValueError(
            f"the perceptual network {name!r} must be {SHIPPED!r} or a safetensors file: {error}"
        ) from None
    extractor = distance.extractor
    used = {
        "name": name if name == SHIPPED else path.name,
        "sha256": sha256(path),
        "input_channels": extractor.inputs,
        "stages": list(extractor.channels),
    }
    return distance, used


def reconstruction_loss(image: Tensor, found: Tensor, config: LossesConfig) -> Tensor:
    """Returns the loss of a reconstruction, a number: the mean over cells.

    Args:
        image: ln(1 + n), (B, H, W).
        found: its reconstruction, >= 0.
        config: which likelihood.
    """
    if config.likelihood == "l2":
        return F.mse_loss(found, image)
    counts, mean = torch.expm1(image), torch.expm1(found.clamp(max=12)) + FAINT
    if config.likelihood == "poisson":
        return (mean - counts * mean.log()).mean()
    r = config.dispersion
    return ((counts + r) * torch.log1p(mean / r) - counts * torch.log(mean / r)).mean()


class AutoencoderStage:
    """Trains an autoencoder against its losses and a discriminator.

    Args:
        name: for logs.
        module: what is trained.
        reconstruct: passes a batch through it.
        scores: what chooses the best weights.
        config: terms of the loss; rates and schedule of the autoencoder, epochs, batch size.
        readout: matrix of the channels, (K, cells).
        events: number of training events, for the schedules.
        distance: the perceptual network; needed where the perceptual or the adversarial weight is not 0.
    """

    def __init__(
        self,
        name: str,
        module: nn.Module,
        reconstruct: Reconstruct,
        scores: Scores,
        config: AutoencoderSection,
        readout: Tensor,
        events: int,
        distance: PerceptualDistance | None,
    ) -> None:
        self.name, self.epochs, self.batch_size, self.best_by = (
            name,
            config.epochs,
            config.batch_size,
            "score",
        )
        self._reconstruct, self._scores, self._losses = reconstruct, scores, config.losses
        self._readout = readout
        self._distance = distance.to(readout.device) if distance is not None else None
        steps = updates(config, events)
        self._modules: dict[str, nn.Module] = {"module": module}
        self._adams = {"optimizer": Adam(module, config.optimizer, steps)}
        self._discriminator: LinearHeads | None = None
        if config.losses.adversarial and distance is not None:
            extractor = copy.deepcopy(distance.extractor).requires_grad_(True)
            self._discriminator = LinearHeads(extractor, distance.extractor.channels).to(readout.device)
            self._modules["discriminator"] = self._discriminator
            self._adams["discriminator"] = Adam(self._discriminator, config.losses.discriminator, steps)

    def modules(self) -> Mapping[str, nn.Module]:
        """The autoencoder, and the discriminator."""
        return self._modules

    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """The autoencoder's, and the discriminator's."""
        return {name: adam.optimizer for name, adam in self._adams.items()}

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimizers and schedules."""
        return {
            "modules": {name: module.state_dict() for name, module in self._modules.items()},
            "optimizers": {name: adam.optimizer.state_dict() for name, adam in self._adams.items()},
            "schedules": {name: adam.schedule.state_dict() for name, adam in self._adams.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave."""
        for name, module in self._modules.items():
            module.load_state_dict(state["modules"][name])
        for name, adam in self._adams.items():
            adam.optimizer.load_state_dict(state["optimizers"][name])
            adam.schedule.load_state_dict(state["schedules"][name])

    def batches(self, source: EventSource, rng: np.random.Generator) -> Iterator[Events]:
        """Shuffled batches of the events themselves."""
        return shuffled_batches(source, self.batch_size, rng)

    def step(
        self, batch: Events, rng: BatchRandom, backward: Callable[[Tensor], None]
    ) -> Mapping[str, float]:
        """One update of the autoencoder, then one of the discriminator."""
        image, decoded, added, logged = self._reconstruct(batch, rng)
        leaf = decoded.detach().requires_grad_(True)
        terms = self._terms(image, leaf)
        weights = {name: getattr(self._losses, name) for name in terms}
        pull = sum(normalized_gradient(term, leaf, weights[name]) for name, term in terms.items())
        # its gradient at the reconstruction is the pull
        self._adams["optimizer"].step((decoded * pull).sum() + added, backward)
        values = {name: float(term.detach()) for name, term in terms.items()}
        if self._discriminator is not None:
            values["discriminator"] = self._judge(self._discriminator, image, leaf.detach(), backward)
        loss = values["reconstruction"] + float(added.detach())
        return {"loss": loss, **values, **logged}

    def _terms(self, image: Tensor, found: Tensor) -> dict[str, Tensor]:
        losses = self._losses
        terms = {"reconstruction": reconstruction_loss(image, found, losses)}
        if losses.perceptual and self._distance is not None:
            terms["perceptual"] = self._distance(found, image).mean()
        if self._discriminator is not None:
            terms["adversarial"] = -self._discriminator(found).mean()
        if losses.channels:
            terms["channels"] = channel_loss(found, image, self._readout).mean()
        return terms

    def _judge(
        self, opponent: LinearHeads, real: Tensor, made: Tensor, backward: Callable[[Tensor], None]
    ) -> float:
        loss = F.relu(1 - opponent(real)).mean() + F.relu(1 + opponent(made)).mean()
        self._adams["discriminator"].step(loss, backward)
        return float(loss.detach())

    def validate(self, source: EventSource) -> Mapping[str, float]:
        """The scores, with the first again as `score`."""
        return with_score(self._scores(source))
