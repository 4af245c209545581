"""GAN and SDI-GAN of calorimeter images (Wojnar 2025; Dubinski et al. 2022, arXiv:2207.01561).

An image of counts n is seen as y = ln(1 + n). A vision transformer G makes an image of ten normals z and the particle
c, another one, D, tells real images from made ones by the sigmoid cross-entropy,

    loss of D = E [ -ln sigmoid(D(y, c)) ] + E [ -ln(1 - sigmoid(D(G(z, c), c))) ],
    loss of G = E [ -ln sigmoid(D(G(z, c), c)) ],

trained in turn, each with an optimizer of its own. Both are `nn.image_vit`; D has three linear layers after it.

A GAN tends to give the same image whatever z. The SDI-GAN (selective diversity increase) adds a term that pulls two
images of one particle apart, the stronger the more the simulation's own responses to this particle differ:

    w E [ d(c) |z_1 - z_2| / |phi_1 - phi_2| ],   d(c) = f_div(c) scaled to [0, 1] over all particles,

with f_div of `metrics.diversity`, phi the features that D's transformer gives, and |.| the mean of absolute values.
`diversity` is w: 0 is the GAN, 1 the published SDI-GAN. f_div needs repeats; a particle with fewer than `repeats`
responses in the training does not take part, d = 0.

Real and made images come with the same particles. The discriminator belongs to the training and not to the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from caloforge.detectors import Detector
from caloforge.events import Events, EventSource
from caloforge.metrics.diversity import f_div
from caloforge.models.base import BatchRandom, Generator, Stage
from caloforge.models.parts.images import cell_order, image_shape, kept_units, log_images
from caloforge.models.parts.inference import generation_scores
from caloforge.models.parts.stage import Averaged, Scores, shuffled_batches, updates, with_score
from caloforge.nn.image_vit import ImageDecoder, ImageEncoder, ImageViTConfig
from caloforge.nn.rounding import Rounding, rounded
from caloforge.ode.bespoke import frozen
from caloforge.optim import Adam, AdamConfig
from caloforge.transforms import Log1p, Standardize

CLOSEST = 1e-6
"""Distance of features below which two images count as this far apart."""

_ADAM = AdamConfig(learning_rate=1e-4, beta1=0.5, beta2=0.9)


class GANConfig(BaseModel):
    """Networks and training of the GAN; a `TrainingSection`.

    Attributes:
        network: sizes of both vision transformers.
        latent: normals an image is made of.
        instance_noise: standard deviation of the normals added to every pixel that the discriminator sees, real or made
            (Sonderby et al. 2017, arXiv:1610.04490); 0, as published, lets it know real images by their whole counts.
        diversity: weight of the SDI-GAN's term; 0 is the GAN.
        repeats: responses a particle needs to take part in that term.
        average: decay of the moving average of the generator's weights, which is what generates (Yazici et al. 2019,
            arXiv:1806.04498); 0, as published, keeps none.
        rounding: `systematic`, `nearest` or `none`; may be changed after the training.
        optimizer: rates and schedule of the generator.
        discriminator: rates and schedule of the discriminator.
        validation_events: events generated for each validation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: ImageViTConfig = ImageViTConfig(width=128, latent=128)
    latent: int = Field(10, ge=1)
    instance_noise: float = Field(0.0, ge=0)
    diversity: float = Field(0.0, ge=0)
    repeats: int = Field(10, ge=2)
    average: float = Field(0.0, ge=0, lt=1)
    rounding: Rounding = "systematic"
    optimizer: AdamConfig = _ADAM
    discriminator: AdamConfig = _ADAM
    epochs: int = Field(50, ge=1)
    batch_size: int = Field(256, ge=1)
    validation_events: int = Field(2048, ge=2)


class Discriminator(nn.Module):
    """Tells real images from made ones.

    Args:
        shape: height and width of the image.
        conditions: features of the particle, F.
        config: sizes of the vision transformer.
    """

    def __init__(self, shape: tuple[int, int], conditions: int, config: ImageViTConfig) -> None:
        super().__init__()
        self.encoder = ImageEncoder(shape, conditions, config)
        self.head = nn.Sequential(
            nn.Linear(self.encoder.size, 128), nn.GELU(), nn.Linear(128, 64), nn.GELU(), nn.Linear(64, 1)
        )

    def forward(self, image: Tensor, condition: Tensor, kept: Tensor | None) -> tuple[Tensor, Tensor]:
        """Returns logits, (B,), positive for real images, and features, (B, size).

        Args:
            image: ln(1 + n), (B, H, W).
            condition: standardised, (B, F).
            kept: mask of the dropout, (B, *mask).
        """
        features = self.encoder(image, condition, kept)
        return self.head(features)[:, 0], features


class AdversarialStage:
    """Trains a generator and a discriminator in turn.

    Args:
        generator: the model's; makes images of normals and standardised features.
        discriminator: its opponent.
        inputs: a batch to images ln(1 + n), (B, H, W), and standardised features, (B, F).
        diversity: a batch to d(c), (B,), for the SDI-GAN's term.
        scores: what chooses the best weights.
        config: sizes and training.
        events: number of training events, for the schedules.
    """

    def __init__(
        self,
        generator: ImageDecoder,
        discriminator: Discriminator,
        inputs: Callable[[Events], tuple[Tensor, Tensor]],
        diversity: Callable[[Events], Tensor] | None,
        scores: Scores,
        config: GANConfig,
        events: int,
    ) -> None:
        self.name, self.best_by = "adversarial", "score"
        self.epochs, self.batch_size = config.epochs, config.batch_size
        self._averaged = Averaged(generator, config.average)
        self._discriminator, self._config = discriminator, config
        self._inputs, self._diversity, self._scores = inputs, diversity, scores
        steps = updates(config, events)
        self._adams = {
            "optimizer": Adam(self._averaged.trained, config.optimizer, steps),
            "discriminator": Adam(discriminator, config.discriminator, steps),
        }

    def modules(self) -> Mapping[str, nn.Module]:
        """The generator, its average and the discriminator."""
        return {**self._averaged.modules(), "discriminator": self._discriminator}

    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """The generator's and the discriminator's."""
        return {name: adam.optimizer for name, adam in self._adams.items()}

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimizers and schedules."""
        return {
            "modules": {name: module.state_dict() for name, module in self.modules().items()},
            "optimizers": {name: adam.optimizer.state_dict() for name, adam in self._adams.items()},
            "schedules": [adam.schedule.state_dict() for adam in self._adams.values()],
            "updates": self._averaged.updates,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave."""
        for name, module in self.modules().items():
            module.load_state_dict(state["modules"][name])
        for (name, adam), schedule in zip(self._adams.items(), state["schedules"], strict=True):
            adam.optimizer.load_state_dict(state["optimizers"][name])
            adam.schedule.load_state_dict(schedule)
        self._averaged.updates = state["updates"]

    def batches(self, source: EventSource, rng: np.random.Generator) -> Iterator[Events]:
        """Shuffled batches of the events themselves."""
        return shuffled_batches(source, self.batch_size, rng)

    def step(
        self, batch: Events, rng: BatchRandom, backward: Callable[[Tensor], None]
    ) -> Mapping[str, float]:
        """One update of the discriminator, then one of the generator against it."""
        image, condition = self._inputs(batch)
        z, fake = self._made(condition, rng)
        values = {"discriminator": self._judge(image, fake.detach(), condition, rng, backward)}

        with frozen(self._discriminator):
            loss, logged = self._against(batch, condition, z, fake, rng)
        self._adams["optimizer"].step(loss, backward)
        self._averaged.follow()
        return {"loss": float(loss.detach()), **values, **logged}

    def _against(
        self, batch: Events, condition: Tensor, z: Tensor, made: Tensor, rng: BatchRandom
    ) -> tuple[Tensor, dict[str, float]]:
        """Returns the generator's loss and its terms."""
        opponent = self._discriminator
        logits, features = opponent(self._seen(made, rng), condition, self._kept(opponent.encoder, rng))
        loss = F.softplus(-logits).mean()
        values = {"generator": float(loss.detach())}
        if self._diversity is None:
            return loss, values
        other_z, other = self._made(condition, rng)
        _, other_features = opponent(self._seen(other, rng), condition, self._kept(opponent.encoder, rng))
        apart = (features - other_features).abs().mean(1).clamp(min=CLOSEST)
        diversity = (self._diversity(batch) * (z - other_z).abs().mean(1) / apart).mean()
        values["diversity"] = float(diversity.detach())
        return loss + self._config.diversity * diversity, values

    def _made(self, condition: Tensor, rng: BatchRandom) -> tuple[Tensor, Tensor]:
        """Draws normals, (B, latent), and makes images of them, (B, H, W)."""
        z = rng.normal(self._config.latent)
        generator = self._averaged.trained
        return z, generator(z, condition, self._kept(generator, rng))

    def _seen(self, image: Tensor, rng: BatchRandom) -> Tensor:
        """Returns images, (B, H, W), as the discriminator sees them."""
        noise = self._config.instance_noise
        return image + noise * rng.normal(*image.shape[1:]) if noise else image

    def _kept(self, network: ImageDecoder | ImageEncoder, rng: BatchRandom) -> Tensor | None:
        return kept_units(network, self._config.network.dropout, rng)

    def _judge(
        self,
        real: Tensor,
        made: Tensor,
        condition: Tensor,
        rng: BatchRandom,
        backward: Callable[[Tensor], None],
    ) -> float:
        opponent = self._discriminator
        true, _ = opponent(self._seen(real, rng), condition, self._kept(opponent.encoder, rng))
        false, _ = opponent(self._seen(made, rng), condition, self._kept(opponent.encoder, rng))
        loss = F.softplus(-true).mean() + F.softplus(false).mean()
        self._adams["discriminator"].step(loss, backward)
        return float(loss.detach())

    def validate(self, source: EventSource) -> Mapping[str, float]:
        """The scores, with the first again as `score`."""
        return with_score(self._scores(source))


def selective_diversity(
    source: EventSource, repeats: int
) -> Callable[[NDArray[np.integer]], NDArray[np.float32]]:
    """Returns the function of groups, (B,), that gives d(c) in [0, 1], (B,).

    Raises:
        ValueError: fewer than two particles have enough responses, or all differ equally.
    """
    diversity = f_div(source, repeats)
    if not len(diversity.value) or not diversity.value.max() > diversity.value.min():
        raise ValueError(
            f"the SDI-GAN needs particles with at least {repeats} responses that differ in their diversity, "
            f"got {len(diversity.value)} particles; model.repeats may be lower, or model.diversity 0"
        )
    low, high = diversity.value.min(), diversity.value.max()
    scaled = ((diversity.value - low) / (high - low)).astype(np.float32)

    def of(group: NDArray[np.integer]) -> NDArray[np.float32]:
        place = np.searchsorted(diversity.group, group).clip(max=len(scaled) - 1)
        return np.where(diversity.group[place] == group, scaled[place], np.float32(0))

    return of


class GAN(Generator):
    """Makes images of ten normals at once.

    Args:
        detector: a detector with two axes.
        config: sizes and training.
    """

    config_class: ClassVar[type[BaseModel]] = GANConfig
    sampling: ClassVar[tuple[str, ...]] = ("rounding",)

    def __init__(self, detector: Detector, config: GANConfig) -> None:
        super().__init__()
        self.detector, self.config = detector, config
        shape, features = image_shape(detector, "gan"), len(detector.conditions)
        self.noise_dim = config.latent + 1
        self.standardize, self.transform = Standardize(features), Log1p()
        self.order: Tensor
        self.register_buffer("order", torch.from_numpy(cell_order(detector, detector.default_channels)))
        self.generator = ImageDecoder(shape, config.latent, features, config.network)

    def forward(self, conditions: Tensor, noise: Tensor) -> Tensor:
        """Generates responses, (B, *shape), from conditions (B, F) and noise (B, latent + 1)."""
        image: Tensor = self.generator(noise[:, :-1], self.standardize(conditions))
        return rounded(self.transform.inverse(image), noise[:, -1], self.order, self.config.rounding)

    def stages(self, train: EventSource) -> Sequence[Stage]:
        """Fits the standardisation and the diversity, and returns the one stage."""
        config, device = self.config, self.order.device
        self.standardize.refit(torch.from_numpy(train.primaries.conditions))
        features = len(self.detector.conditions)
        discriminator = Discriminator(image_shape(self.detector, "gan"), features, config.network).to(device)
        scaled = selective_diversity(train, config.repeats) if config.diversity else None

        def diversity(batch: Events) -> Tensor:
            assert scaled is not None
            return torch.from_numpy(scaled(batch.group)).to(device)

        return [
            AdversarialStage(
                self.generator,
                discriminator,
                lambda batch: log_images(batch, self.standardize),
                diversity if scaled else None,
                generation_scores(self, config.validation_events),
                config,
                len(train),
            )
        ]
