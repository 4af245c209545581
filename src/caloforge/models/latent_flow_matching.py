"""Flow matching in the latent space of a VAE (Wojnar 2025), the fastest generator of its publication.

Autoencoder. An encoder maps the image y = ln(1 + n) to mean and log variance of a latent image z of 4 numbers for each
4 x 4 fibres, a decoder maps z back; z = mean + exp(log variance / 2) noise in training. The losses are those of
`models.parts.autoencoding`, with the mean over the latent numbers of the divergence from standard normals,

    KL = 1/2 mean of (mean^2 + exp(log variance) - 1 - log variance).

Flow matching. x_1 is a latent image, standardised channel by channel; a small U-Net learns the velocity of the straight
path from noise to it, as in `models.flow_matching`. x_1 is the encoder's mean (`latents = "mean"`, the paper's) or a
sample of the encoder (`"sample"`), which is what the decoder was trained on.

A generator integrates the velocity from its noise by Euler's method, 7 steps by default, decodes and undoes the
logarithm; the counts are rounded by systematic sampling in a fixed order of the cells (`nn.rounding`). With the default
sizes this is the paper's model, 59,348 parameters for the VAE, 127,824 for the U-Net, of which generation uses 158,712.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from caloforge.detectors import Detector
from caloforge.events import Events, EventSource, Rows, in_slices
from caloforge.models.base import BatchRandom, Generator, Stage
from caloforge.models.parts.autoencoding import AutoencoderStage, LossesConfig, perceptual_network
from caloforge.models.parts.images import cell_order, channel_loss, channel_matrix, image_shape
from caloforge.models.parts.inference import channel_scores, generation_scores, spread_rows
from caloforge.models.parts.particle_features import PromptRays
from caloforge.models.parts.stage import LossStage, solver_stage
from caloforge.nn.autoencoder import AutoencoderConfig, Decoder, Encoder, latent_shape
from caloforge.nn.rounding import Rounding, rounded
from caloforge.nn.unet import UNet, UNetConfig
from caloforge.ode.bespoke import BespokeConfig, BespokeSolver, conditioned, frozen
from caloforge.ode.path import Velocity, on_path, velocity_loss
from caloforge.ode.solve import check_solver, solve
from caloforge.ode.solvers import SolverConfig
from caloforge.optim import AdamConfig
from caloforge.transforms import Log1p, Standardize


class VAEConfig(BaseModel):
    """Sizes, losses and training of the VAE; a `TrainingSection`.

    Attributes:
        network: sizes.
        losses: terms of the loss and their weights.
        kl: weight of the divergence, which is not normalised.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: AutoencoderConfig = AutoencoderConfig()
    losses: LossesConfig = LossesConfig()
    kl: float = Field(1.0, ge=0)
    optimizer: AdamConfig = AdamConfig(learning_rate=2.3e-3, beta1=0.58, beta2=0.75, schedule="cosine")
    epochs: int = Field(50, ge=1)
    batch_size: int = Field(256, ge=1)


class LatentFlowMatchingConfig(BaseModel):
    """The VAE, and network, solver and training of the flow matching in its latent space; a `TrainingSection`.

    Attributes:
        vae: the autoencoder.
        network: sizes of the U-Net.
        latents: what the flow learns, `mean` or `sample`.
        solver: method and steps of the sampling; may be changed after the training.
        bespoke: a solver that is trained for this network, for `solver.method = "bespoke"`.
        rounding: `systematic`, `nearest` or `none`; may be changed after the training.
        channels: weight of a loss of the channel sums, as `models.flow_matching` has it, through the decoder; 0, the
            paper's, has none.
        optimizer: rates and schedule of the flow matching.
        average: decay of the moving average of the U-Net's weights; 0, the paper's, keeps none.
        validation_events: events of each validation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    vae: VAEConfig = VAEConfig()
    network: UNetConfig = UNetConfig(base=8, multipliers=(1, 2, 4), blocks=1)
    latents: Literal["mean", "sample"] = "mean"
    solver: SolverConfig = SolverConfig(steps=7)
    bespoke: BespokeConfig = BespokeConfig()
    rounding: Rounding = "systematic"
    channels: float = Field(0.0, ge=0)
    optimizer: AdamConfig = AdamConfig(learning_rate=1.3e-3, beta1=0.90, beta2=0.60, schedule="cosine")
    epochs: int = Field(50, ge=1)
    batch_size: int = Field(256, ge=1)
    average: float = Field(0.0, ge=0, lt=1)
    validation_events: int = Field(2048, ge=2)

    @model_validator(mode="after")
    def _solver(self) -> Self:
        check_solver(self.solver, self.bespoke)
        return self


class VAE(nn.Module):
    """Encoder and decoder.

    Args:
        shape: height and width of the image.
        config: sizes.
    """

    def __init__(self, shape: tuple[int, int], config: AutoencoderConfig) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(config, outputs=2), Decoder(shape, config)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def encode(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and log variance of the latent image, (B, C, h, w), of ln(1 + n), (B, H, W)."""
        mean, log_variance = self.encoder(image)
        return mean, log_variance.clamp(-20, 10)


@dataclass(frozen=True, eq=False)
class Encoded:
    """Conditions of events, (N, F), and mean and log variance of their latent images, (N, C, h, w)."""

    conditions: NDArray[np.float32]
    mean: Tensor
    log_variance: Tensor

    def __len__(self) -> int:
        return len(self.conditions)

    def slices(self, rows: Rows) -> Encoded:
        """Returns some rows."""
        return Encoded(self.conditions[rows], self.mean[rows], self.log_variance[rows])


class LatentFlowMatching(Generator):
    """Generates latent images by integrating a learned velocity, and decodes them.

    Args:
        detector: a detector with two axes.
        config: sizes and training.
    """

    config_class: ClassVar[type[BaseModel]] = LatentFlowMatchingConfig
    training_only: tuple[str, ...] = ("vae.encoder",)
    sampling: ClassVar[tuple[str, ...]] = ("solver", "rounding")

    def __init__(self, detector: Detector, config: LatentFlowMatchingConfig) -> None:
        super().__init__()
        shape = image_shape(detector, "latent_flow_matching")
        self.detector, self.config = detector, config
        self.latent = latent_shape(shape, config.vae.network)
        channels, *size = self.latent
        self.noise_dim = int(np.prod(self.latent)) + 1
        self.rays = PromptRays(detector)
        self.standardize = Standardize(len(detector.conditions))
        self.standardize_latents = Standardize(channels)
        self.transform = Log1p()
        self.vae = VAE(shape, config.vae.network)
        self.network = UNet((size[0], size[1]), len(detector.conditions), config.network, channels)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.solver = BespokeSolver(config.bespoke.steps) if config.bespoke.steps else None
        self.order: Tensor
        self.register_buffer("order", torch.from_numpy(cell_order(detector, detector.default_channels)))

    def forward(self, conditions: Tensor, noise: Tensor) -> Tensor:
        """Generates responses, (B, *shape), from conditions (B, F) and noise (B, C h w + 1)."""
        x0 = noise[:, :-1].reshape(-1, *self.latent)
        x1 = solve(self._velocity(conditions), x0, self.config.solver, self.solver)
        return self._counts(self._decode(x1), noise[:, -1])

    def _decode(self, x1: Tensor) -> Tensor:
        """Returns the image ln(1 + n) >= 0, (B, H, W), of standardised latents."""
        z = self.standardize_latents.inverse(x1.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        image: Tensor = self.vae.decoder(z)
        return image

    def _counts(self, image: Tensor, noise: Tensor) -> Tensor:
        return rounded(self.transform.inverse(image), noise, self.order, self.config.rounding)

    def _velocity(self, conditions: Tensor) -> Velocity:
        return conditioned(self.network, self.standardize(self.rays(conditions)))

    def _latents(self, mean: Tensor, log_variance: Tensor, rng: BatchRandom) -> Tensor:
        """Draws a sample of the encoder's distribution, (B, C, h, w)."""
        return mean + torch.exp(log_variance / 2) * rng.normal(*self.latent)

    def _image(self, events: Events) -> Tensor:
        responses = torch.from_numpy(events.responses.astype(np.float32)).to(self.order.device)
        image: Tensor = self.transform(responses)
        return image

    def stages(self, train: EventSource) -> Sequence[Stage]:
        """Fits the standardisation and returns the stages: VAE, velocity, and its solver where one is trained."""
        self.standardize.refit(self.rays(torch.from_numpy(train.primaries.conditions)))
        stages: list[Stage] = [self._vae_stage(len(train)), self._velocity_stage(len(train))]
        if self.solver is not None:
            stages.append(self._solver_stage(self.solver, len(train)))
        return stages

    def _vae_stage(self, events: int) -> Stage:
        config = self.config.vae
        distance = None
        if config.losses.perceptual or config.losses.adversarial:
            distance, used = perceptual_network(config.losses.extractor)
            self.made_with = {"perceptual_network": used}

        def reconstruct(
            batch: Events, rng: BatchRandom
        ) -> tuple[Tensor, Tensor, Tensor, Mapping[str, float]]:
            image = self._image(batch)
            mean, log_variance = self.vae.encode(image)
            decoded = self.vae.decoder(self._latents(mean, log_variance, rng))
            kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
            return image, decoded, config.kl * kl, {"kl": float(kl.detach())}

        return AutoencoderStage(
            "vae",
            self.vae,
            reconstruct,
            self._reconstruction_scores,
            config,
            channel_matrix(self.detector).to(self.order.device),
            events,
            distance,
        )

    @torch.no_grad()
    def _reconstruction_scores(self, source: EventSource) -> Mapping[str, float]:
        """Compares reconstructions of the latent means: Wasserstein-1 of the channels, mean photon sums."""
        reference = spread_rows(source, self.config.validation_events)
        return channel_scores(reference, self.reconstruct(reference))

    @torch.no_grad()
    def reconstruct(self, events: Events) -> NDArray[np.float32]:
        """Passes responses through the autoencoder, as the means of their latent images, (N, *shape)."""
        parts = []
        for start in range(0, len(events), 256):
            image = self._image(events.slices(slice(start, start + 256)))
            u = torch.zeros(len(image), device=image.device)
            parts.append(self._counts(self.vae.decoder(self.vae.encode(image)[0]), u).cpu().numpy())
        return np.concatenate(parts)

    @torch.no_grad()
    def _encoded(self, source: EventSource) -> Encoded:
        """Encodes a whole source: 8 bytes for each of the C h w numbers of an event, 4 kB with the default sizes."""
        conditions, latents = [], []
        for events in in_slices(source, 256):
            conditions.append(events.conditions)
            latents.append(torch.stack(self.vae.encode(self._image(events))).cpu())
        mean, log_variance = torch.cat(latents, 1)
        return Encoded(np.concatenate(conditions), mean, log_variance)

    def _standardise(self, latents: Encoded) -> None:
        """Fits the standardisation of what the flow learns."""
        z = latents.mean
        if self.config.latents == "sample":
            z = z + torch.exp(latents.log_variance / 2) * _signs(z)
        self.standardize_latents.refit_slices(
            part.permute(0, 2, 3, 1).reshape(-1, self.latent[0]) for part in torch.split(z, 4096)
        )

    def _velocity_stage(self, events: int) -> Stage:
        config = self.config
        readout = channel_matrix(self.detector).to(self.order.device)
        encoded_once: list[Encoded] = []

        def encoded(source: EventSource) -> Encoded:
            if not encoded_once:  # the encoder stays as it is
                encoded_once.append(self._encoded(source))
            return encoded_once[0]

        def prepare(source: EventSource) -> None:
            self._standardise(encoded(source))

        def batches(source: EventSource, size: int, rng: np.random.Generator) -> Iterator[Encoded]:
            order = rng.permutation(len(source))
            for start in range(0, max(len(order) // size, 1) * size, size):
                yield encoded(source).slices(order[start : start + size])

        def loss(network: UNet, batch: Encoded | Events, rng: BatchRandom) -> Tensor:
            if isinstance(batch, Events):
                batch = self._encoded(batch)
            device = self.order.device
            mean, log_variance = batch.mean.to(device), batch.log_variance.to(device)
            z = mean if config.latents == "mean" else self._latents(mean, log_variance, rng)
            x1 = self.standardize_latents(z.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            condition = self.standardize(self.rays(torch.from_numpy(batch.conditions).to(device)))
            x0, t = rng.normal(*self.latent), rng.uniform()
            x = on_path(x0, x1, t)
            velocity: Tensor = network(x, t, condition)
            value = velocity_loss(velocity, x0, x1)
            if config.channels:
                with frozen(self.vae):
                    decoded = self._decode(x + (1 - t)[:, None, None, None] * velocity)
                    true = self._decode(x1)
                value = value + config.channels * t.square() * channel_loss(decoded, true, readout)
            return value

        return LossStage(
            "velocity",
            self.network,
            loss,
            generation_scores(self, config.validation_events),
            config,
            events,
            average=config.average,
            prepare=prepare,
            batches=batches,
        )

    def _solver_stage(self, solver: BespokeSolver, events: int) -> Stage:
        def problem(batch: Events, rng: BatchRandom) -> tuple[Velocity, Tensor]:
            conditions = torch.from_numpy(batch.conditions).to(self.order.device)
            return self._velocity(conditions), rng.normal(*self.latent)

        scores = generation_scores(self, self.config.validation_events)
        return solver_stage("solver", solver, self.network, problem, scores, self.config.bespoke, events)


def _signs(mean: Tensor) -> Tensor:
    """Returns 1 and -1 in turn, (B, C, h, w): the variance of noise without drawing any."""
    return 1 - 2 * (torch.arange(mean.numel(), device=mean.device) % 2).view_as(mean).to(mean.dtype)
