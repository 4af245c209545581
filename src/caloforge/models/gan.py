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

What a GAN of counts lacks to settle is not in the publications and off by default. Real images have whole counts and
made ones have none, which gives them away; noise on every pixel hides that and also an offset of a tenth in 1,936 dark
cells, which is 200 photons. With `whole` D sees what is generated: images rounded as `nn.rounding` does, the gradient
passing as if they were not, and with `grain` each fibre has a normal of its own, so that counts may scatter like real
ones, which ten normals of an image cannot make them do. With `light` a second critic C sees the channel sums w that
images have, and the logit is D(y, c) + C(ln(1 + w), c). With `particle` both networks are told derived features of the
particle.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from caloforge.detectors import Detector
from caloforge.events import Events, EventSource, in_slices
from caloforge.metrics.diversity import f_div
from caloforge.models.base import BatchRandom, Generator, Stage
from caloforge.models.parts.images import cell_order, channel_matrix, image_shape, kept_units
from caloforge.models.parts.inference import generation_scores
from caloforge.models.parts.particle_features import ParticleFeatures, PromptRays
from caloforge.models.parts.stage import Averaged, Scores, shuffled_batches, updates, with_score
from caloforge.nn.image_vit import ImageDecoder, ImageEncoder, ImageViTConfig
from caloforge.nn.rounding import Rounding, rounded, systematic_rounding
from caloforge.ode.bespoke import frozen
from caloforge.optim import Adam, AdamConfig
from caloforge.transforms import Log1p, Standardize

CLOSEST = 1e-6
"""Distance of features below which two images count as this far apart."""

MARGIN = 1.5
"""How many times the brightest fibre of the training one may be that is generated with `whole`."""

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
        whole: the discriminator sees whole counts of made images too.
        grain: normals of single fibres beside those of the image.
        light: the discriminator is shown the channel sums beside the image.
        particle: both networks are told `ParticleFeatures`, where the detector has one with `transport`.
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
    whole: bool = False
    grain: bool = False
    light: bool = False
    particle: bool = False
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
        channels: channel sums beside the image, K; 0 for none.
        config: sizes of the vision transformer.
    """

    def __init__(
        self, shape: tuple[int, int], conditions: int, channels: int, config: ImageViTConfig
    ) -> None:
        super().__init__()
        self.encoder = ImageEncoder(shape, conditions, config)
        self.head = _to_a_number(self.encoder.size)
        self.light = _to_a_number(conditions + channels) if channels else None

    def forward(
        self, image: Tensor, sums: Tensor, condition: Tensor, kept: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Returns logits, (B,), positive for real images, and features, (B, size).

        Args:
            image: ln(1 + n), (B, H, W).
            sums: ln(1 + w) of its channels, (B, K).
            condition: standardised, (B, F).
            kept: mask of the dropout, (B, *mask).
        """
        features = self.encoder(image, condition, kept)
        logits = self.head(features)
        if self.light is not None:
            logits = logits + self.light(torch.cat([condition, sums], 1))
        return logits[:, 0], features


def _to_a_number(inputs: int) -> nn.Sequential:
    """Returns three linear layers, (B, inputs) to (B, 1)."""
    return nn.Sequential(nn.Linear(inputs, 128), nn.GELU(), nn.Linear(128, 64), nn.GELU(), nn.Linear(64, 1))


class AdversarialStage:
    """Trains a generator and a discriminator in turn.

    Args:
        generator: the model's; makes images of normals and standardised features.
        discriminator: its opponent.
        inputs: a batch to images ln(1 + n), (B, H, W), and standardised features, (B, F).
        diversity: a batch to d(c), (B,), for the SDI-GAN's term.
        readout: matrix of the channels, (K, cells).
        order: of the cells, in which counts are rounded, (cells,).
        brightest: what no fibre exceeds, ln(1 + n), where made images are rounded too; None where they are not.
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
        readout: Tensor,
        order: Tensor,
        brightest: Tensor | None,
        scores: Scores,
        config: GANConfig,
        events: int,
    ) -> None:
        self.name, self.best_by = "adversarial", "score"
        self.epochs, self.batch_size = config.epochs, config.batch_size
        self._averaged = Averaged(generator, config.average)
        self._discriminator, self._config = discriminator, config
        self._inputs, self._diversity, self._scores = inputs, diversity, scores
        self._readout, self._order, self._brightest = readout, order, brightest
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
        values = self._judge(image, fake.detach(), condition, rng, backward)

        with frozen(self._discriminator):
            loss, logged = self._against(batch, condition, z, fake, rng)
        self._adams["optimizer"].step(loss, backward)
        self._averaged.follow()
        return {"loss": float(loss.detach()), **values, **logged}

    def _against(
        self, batch: Events, condition: Tensor, z: Tensor, made: Tensor, rng: BatchRandom
    ) -> tuple[Tensor, dict[str, float]]:
        """Returns the generator's loss and its terms."""
        logits, features = self._judged(made, condition, rng)
        loss = F.softplus(-logits).mean()
        values = {"generator": float(loss.detach())}
        if self._diversity is None:
            return loss, values
        other_z, other = self._made(condition, rng)
        _, other_features = self._judged(other, condition, rng)
        apart = (features - other_features).abs().mean(1).clamp(min=CLOSEST)
        diversity = (self._diversity(batch) * (z - other_z).abs().mean(1) / apart).mean()
        values["diversity"] = float(diversity.detach())
        return loss + self._config.diversity * diversity, values

    def _made(self, condition: Tensor, rng: BatchRandom) -> tuple[Tensor, Tensor]:
        """Draws normals, (B, latent), and makes images of them, (B, H, W)."""
        z = rng.normal(self._config.latent)
        generator = self._averaged.trained
        kept = kept_units(generator, self._config.network.dropout, rng)
        image = generator(z, condition, kept, rng.normal(*generator.shape) if self._config.grain else None)
        if self._brightest is None:
            return z, image
        with torch.no_grad():
            counts = torch.expm1(torch.minimum(image, self._brightest)).flatten(1)
            counts = systematic_rounding(counts, rng.uniform(), self._order)
            shift = torch.log1p(counts).view_as(image) - image
        return z, image + shift

    def _judged(self, image: Tensor, condition: Tensor, rng: BatchRandom) -> tuple[Tensor, Tensor]:
        """Returns logits and features of images, (B, H, W), as the discriminator sees them."""
        opponent, config = self._discriminator, self._config
        sums = torch.log1p(torch.expm1(image.clamp(max=12)).flatten(1) @ self._readout.T)
        if config.instance_noise:
            image = image + config.instance_noise * rng.normal(*image.shape[1:])
        kept = kept_units(opponent.encoder, config.network.dropout, rng)
        logits, features = opponent(image, sums, condition, kept)
        return logits, features

    def _judge(
        self,
        real: Tensor,
        made: Tensor,
        condition: Tensor,
        rng: BatchRandom,
        backward: Callable[[Tensor], None],
    ) -> dict[str, float]:
        """One update of the discriminator; returns its loss and the share of images that it takes for what they are."""
        true, _ = self._judged(real, condition, rng)
        false, _ = self._judged(made, condition, rng)
        loss = F.softplus(-true).mean() + F.softplus(false).mean()
        self._adams["discriminator"].step(loss, backward)
        told = ((true > 0).float().mean() + (false < 0).float().mean()) / 2
        return {"discriminator": float(loss.detach()), "told": float(told)}

    @torch.no_grad()
    def pair(self, batch: Events, rng: BatchRandom) -> tuple[Tensor, Tensor]:
        """Returns images made for the particles of a batch and those of the batch, ln(1 + n), (B, H, W) each."""
        image, condition = self._inputs(batch)
        return self._made(condition, rng)[1], image

    @torch.no_grad()
    def logits(self, batch: Events, rng: BatchRandom) -> tuple[Tensor, Tensor]:
        """Returns the logits of images made for the particles of a batch and of those of the batch, (B,) each."""
        _, condition = self._inputs(batch)
        made, image = self.pair(batch, rng)
        return self._judged(made, condition, rng)[0], self._judged(image, condition, rng)[0]

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
        shape = image_shape(detector, "gan")
        self.noise_dim = config.latent + 1 + config.grain * detector.cells
        self.rays = PromptRays(detector)
        derived = ParticleFeatures(detector, detector.transport is not None) if config.particle else None
        self.derive = derived or nn.Identity()
        self.features = derived.size if derived else len(detector.conditions)
        self.standardize, self.transform = Standardize(self.features), Log1p()
        self.order: Tensor
        self.register_buffer("order", torch.from_numpy(cell_order(detector, detector.default_channels)))
        if config.whole:
            self.brightest: Tensor
            self.register_buffer("brightest", torch.zeros(()))
        self.generator = ImageDecoder(shape, config.latent, self.features, config.network, grain=config.grain)

    def forward(self, conditions: Tensor, noise: Tensor) -> Tensor:
        """Generates responses, (B, *shape), from conditions (B, F) and noise (B, noise_dim)."""
        z, grain = noise[:, : self.config.latent], None
        if self.config.grain:
            grain = noise[:, self.config.latent : -1].reshape(-1, *self.detector.shape)
        image: Tensor = self.generator(z, self.describe(conditions), None, grain)
        if self.config.whole:
            image = torch.minimum(image, self.brightest)
        return rounded(self.transform.inverse(image), noise[:, -1], self.order, self.config.rounding)

    def describe(self, conditions: Tensor) -> Tensor:
        """Returns standardised features of particles, (B, features), of conditions (B, F)."""
        standardised: Tensor = self.standardize(self.derive(self.rays(conditions)))
        # the tails of derived features are long
        return standardised.clamp(-10, 10) if self.config.particle else standardised

    def stages(self, train: EventSource) -> Sequence[Stage]:
        """Fits the standardisation and the diversity, and returns the one stage."""
        config, device = self.config, self.order.device
        self.standardize.refit(self.derive(self.rays(torch.from_numpy(train.primaries.conditions))))
        if config.whole:
            brightest = max(float(events.responses.max()) for events in in_slices(train))
            self.brightest.fill_(math.log1p(MARGIN * brightest))
        readout = channel_matrix(self.detector).to(device)
        discriminator = Discriminator(
            image_shape(self.detector, "gan"),
            self.features,
            len(readout) if config.light else 0,
            config.network,
        ).to(device)
        scaled = selective_diversity(train, config.repeats) if config.diversity else None

        def diversity(batch: Events) -> Tensor:
            assert scaled is not None
            return torch.from_numpy(scaled(batch.group)).to(device)

        def inputs(batch: Events) -> tuple[Tensor, Tensor]:
            image = torch.log1p(torch.from_numpy(batch.responses.astype(np.float32)).to(device))
            return image, self.describe(torch.from_numpy(batch.conditions).to(device))

        return [
            AdversarialStage(
                self.generator,
                discriminator,
                inputs,
                diversity if scaled else None,
                readout,
                self.order,
                self.brightest if config.whole else None,
                generation_scores(self, config.validation_events),
                config,
                len(train),
            )
        ]
