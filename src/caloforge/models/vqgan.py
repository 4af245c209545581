"""VQ-GAN with a GPT prior (Wojnar 2025): the image as 121 tokens, drawn one after the other.

Image tokens. The autoencoder of `nn.autoencoder` with 8 numbers for each 4 x 4 fibres; each place is rounded to the
nearest of 512 codes by direction (`nn.quantizer`), which follow the vectors by a moving average; dead codes are
revived. The losses are those of `models.parts.autoencoding` with 0.25 times the commitment, the mean squared difference
of normalised vector and code, in place of KL.

Condition tokens. A VQ-VAE turns the nine standardised features into 2 tokens of 512 codes: linear layers
9 - 64 - 128 - 128 - 128 and back, GELU between; look-up in a shared projection of 4 numbers; squared error of the
features, 0.25 times commitment, 1.0 times the distance of codes to vectors.

Prior. A GPT (`nn.gpt`) learns the image tokens after the condition tokens by cross entropy over 122 targets. A
generator turns one normal of its noise a token into a uniform and inverts the cumulative distribution of the next
token, at `temperature` and among the `top_k` most likely; one more normal is for the rounding of the counts
(`nn.rounding`). So an event is a function of its noise here too, but a jumpy one: where a uniform lies within
rounding of a step of a cumulative distribution, another batch size may draw another token, and the rest of the event
then differs.

Parameters with the default sizes, as published: 59,924 and a codebook, 116,873, 934,912.

Beyond the publication. Two tokens of 512 codes hardly say where a particle goes and how bright it is. With the section
`particle` the prior is told at each place, beside the tokens (`nn.gpt.ToldPlaces`), the particle's derived features,
the photon sum N and where the next token's cells are, seen from the expected place (`models.parts.flow_images`).
The true sum is told in training; a generator draws it from the density of `models.parts.photons`, with one normal more
(the last but one), and scales the decoded image so that its counts add up to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from caloforge.detectors import Detector
from caloforge.events import Events, EventSource, Rows, in_slices
from caloforge.models.base import BatchRandom, Generator, Stage
from caloforge.models.parts.autoencoding import AutoencoderStage, LossesConfig, perceptual_network
from caloforge.models.parts.flow_images import ExpectedPlaceConfig, FlowImages
from caloforge.models.parts.images import cell_order, channel_matrix, image_shape
from caloforge.models.parts.inference import channel_scores, generation_scores, spread_rows
from caloforge.models.parts.particle_features import PromptRays
from caloforge.models.parts.photons import PhotonsConfig
from caloforge.models.parts.stage import LossStage
from caloforge.nn.autoencoder import AutoencoderConfig, Decoder, Encoder, latent_shape
from caloforge.nn.gpt import GPT, GPTConfig, Past, ToldPlaces, invert
from caloforge.nn.quantizer import Codebook, ProjectedCodebook, straight_through, usage
from caloforge.nn.rounding import Rounding, normal_to_uniform, rounded
from caloforge.optim import AdamConfig
from caloforge.transforms import Log1p, Standardize


class ImageCodesConfig(BaseModel):
    """Sizes, losses and training of the image tokens; a `TrainingSection`.

    Attributes:
        network: sizes of the autoencoder.
        codes: number of codes.
        decay: of the moving averages of the codes.
        dead: vectors a batch below which a code is dead.
        commitment: weight of the commitment.
        losses: terms of the loss and their weights.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: AutoencoderConfig = AutoencoderConfig(channels=8)
    codes: int = Field(512, ge=2)
    decay: float = Field(0.99, gt=0, lt=1)
    dead: float = Field(2.0, ge=0)
    commitment: float = Field(0.25, ge=0)
    losses: LossesConfig = LossesConfig(
        discriminator=AdamConfig(learning_rate=1.3e-6, beta1=0.60, beta2=0.55, schedule="cosine")
    )
    optimizer: AdamConfig = AdamConfig(learning_rate=2.2e-4, beta1=0.67, beta2=0.90, schedule="cosine")
    epochs: int = Field(50, ge=1)
    batch_size: int = Field(256, ge=1)


class ConditionCodesConfig(BaseModel):
    """Sizes and training of the condition tokens; a `TrainingSection`.

    Attributes:
        tokens: tokens a particle.
        codes: number of codes.
        size: numbers a code.
        projection: numbers of the projection in which codes are looked up.
        commitment: weight of the commitment.
        codebook: weight of the distance of codes to vectors.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tokens: int = Field(2, ge=2)
    codes: int = Field(512, ge=2)
    size: int = Field(64, ge=1)
    projection: int = Field(4, ge=1)
    commitment: float = Field(0.25, ge=0)
    codebook: float = Field(1.0, ge=0)
    optimizer: AdamConfig = AdamConfig(
        learning_rate=1.7e-3, beta1=0.71, beta2=0.88, weight_decay=0.03, schedule="cosine"
    )
    epochs: int = Field(50, ge=1)
    batch_size: int = Field(256, ge=1)


class PriorConfig(BaseModel):
    """Sizes and training of the prior; a `TrainingSection`.

    Attributes:
        network: sizes of the GPT.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: GPTConfig = GPTConfig()
    optimizer: AdamConfig = AdamConfig(
        learning_rate=5.2e-3,
        beta1=0.87,
        beta2=0.998,
        eps=1e-5,
        weight_decay=0.14,
        schedule="cosine",
        warmup=0.33,
    )
    epochs: int = Field(50, ge=1)
    batch_size: int = Field(256, ge=1)


class ParticleConfig(BaseModel):
    """What the prior is told beside the tokens of the particle; not of the publication.

    Attributes:
        photons: density of the photon sum.
        place: where the light is expected.
        hidden: of the layers between what is told and the places.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    photons: PhotonsConfig = PhotonsConfig()
    place: ExpectedPlaceConfig = ExpectedPlaceConfig()
    hidden: int = Field(128, ge=1)


class VQGANConfig(BaseModel):
    """The networks, and how tokens are drawn.

    Attributes:
        image: the image tokens.
        condition: the condition tokens.
        prior: the GPT.
        particle: tell the prior the particle's features, the photon sum and the expected place, beside its tokens;
            needs a detector that counts photons, with a face and a pitch.
        temperature: what logits are divided by; may be changed after the training.
        top_k: only so many most likely tokens are drawn; may be changed after the training.
        rounding: `systematic`, `nearest` or `none`; may be changed after the training.
        validation_events: events of each validation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: ImageCodesConfig = ImageCodesConfig()
    condition: ConditionCodesConfig = ConditionCodesConfig()
    prior: PriorConfig = PriorConfig()
    particle: ParticleConfig | None = None
    temperature: float = Field(1.2, gt=0)
    top_k: int = Field(128, ge=1)
    rounding: Rounding = "systematic"
    validation_events: int = Field(1024, ge=2)


class ImageCodes(nn.Module):
    """Encoder, codebook and decoder of images.

    Args:
        shape: height and width of the image.
        config: sizes.
    """

    def __init__(self, shape: tuple[int, int], config: ImageCodesConfig) -> None:
        super().__init__()
        self.latent = latent_shape(shape, config.network)
        self.encoder, self.decoder = Encoder(config.network, outputs=1), Decoder(shape, config.network)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.codebook = Codebook(config.codes, config.network.channels, config.decay, config.dead)

    def encode(self, image: Tensor) -> Tensor:
        """Returns vectors, (B, L, channels), of images ln(1 + n), (B, H, W)."""
        (z,) = self.encoder(image)
        vectors: Tensor = z.permute(0, 2, 3, 1).flatten(1, 2)
        return vectors

    def decode(self, codes: Tensor) -> Tensor:
        """Returns images ln(1 + n) >= 0, (B, H, W), of codes (B, L, channels)."""
        channels, height, width = self.latent
        image: Tensor = self.decoder(codes.permute(0, 2, 1).reshape(-1, channels, height, width))
        return image


class ConditionCodes(nn.Module):
    """VQ-VAE of a particle's features.

    Args:
        features: their number, F.
        config: sizes.
    """

    def __init__(self, features: int, config: ConditionCodesConfig) -> None:
        super().__init__()
        self.tokens, self.size = config.tokens, config.size
        code = config.tokens * config.size
        self.encoder = _layers(features, 64, 128, 128, code)
        self.decoder = _layers(code, 128, 128, 64, features)
        self.codebook = ProjectedCodebook(config.codes, config.size, config.projection)

    def encode(self, features: Tensor) -> Tensor:
        """Returns vectors, (B, tokens, size), of standardised features, (B, F)."""
        vectors: Tensor = self.encoder(features).view(-1, self.tokens, self.size)
        return vectors

    def forward(self, features: Tensor) -> Tensor:
        """Returns tokens, (B, tokens), of standardised features, (B, F)."""
        tokens: Tensor = self.codebook(self.encode(features))
        return tokens

    def loss(self, features: Tensor, config: ConditionCodesConfig) -> Tensor:
        """Returns the loss of each particle, (B,)."""
        z = self.encode(features)
        tokens = self.codebook(z)
        code = self.codebook.lookup(tokens)
        decoded = self.decoder(straight_through(z, code).flatten(1))
        commitment, codebook = (z - code.detach()).square(), (z.detach() - code).square()
        projection = self.codebook.agreement(z, tokens).mean(1)
        each: Tensor = (decoded - features).square().mean(1)
        each = each + (config.commitment * commitment + config.codebook * codebook).flatten(1).mean(1)
        return each + config.codebook * projection


def _layers(*sizes: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.GELU()]
    return nn.Sequential(*layers[:-1])


@dataclass(frozen=True, eq=False)
class Tokenized:
    """Conditions of events, (N, F), tokens of their images, (N, L), and their photon sums, (N,)."""

    conditions: NDArray[np.float32]
    tokens: Tensor
    photons: Tensor

    def __len__(self) -> int:
        return len(self.conditions)

    def slices(self, rows: Rows) -> Tokenized:
        """Returns some rows."""
        return Tokenized(self.conditions[rows], self.tokens[rows], self.photons[rows])


class VQGAN(Generator):
    """Draws tokens one after the other and decodes them.

    Args:
        detector: a detector with two axes.
        config: sizes and training.
    """

    config_class: ClassVar[type[BaseModel]] = VQGANConfig
    training_only: tuple[str, ...] = ("image.encoder", "condition.decoder")
    sampling: ClassVar[tuple[str, ...]] = ("temperature", "top_k", "rounding")

    def __init__(self, detector: Detector, config: VQGANConfig) -> None:
        super().__init__()
        shape = image_shape(detector, "vqgan")
        self.detector, self.config = detector, config
        features = len(detector.conditions)
        self.rays = PromptRays(detector)
        self.standardize, self.transform = Standardize(features), Log1p()
        self.image = ImageCodes(shape, config.image)
        self.condition = ConditionCodes(features, config.condition)
        _, rows, columns = self.image.latent
        self.length = rows * columns
        self.noise_dim = self.length + 1 + self.tells
        self.prior = GPT(
            config.condition.codes,
            config.image.codes,
            config.condition.tokens,
            self.length,
            config.prior.network,
        )
        if config.particle is not None:
            known = config.particle
            self.known = FlowImages(detector, known.photons, known.place, False, config.validation_events)
            self.told = ToldPlaces(
                self.known.features,
                (rows, columns),
                shape,
                config.condition.tokens,
                config.prior.network.width,
                known.hidden,
            )
        self.order: Tensor
        self.register_buffer("order", torch.from_numpy(cell_order(detector, detector.default_channels)))

    @property
    def tells(self) -> bool:
        """Whether the prior is told more than tokens, and the photon sum is drawn first."""
        return self.config.particle is not None

    def forward(self, conditions: Tensor, noise: Tensor) -> Tensor:
        """Generates responses, (B, *shape), from conditions (B, F) and noise (B, D)."""
        given = self.given(conditions, noise[:, -2])
        return self.respond(self._drawn(given, noise), noise[:, -1], *given[2:])

    def tokens(self, conditions: Tensor, noise: Tensor) -> Tensor:
        """Draws image tokens, (B, L), from conditions (B, F) and noise (B, D)."""
        return self._drawn(self.given(conditions, noise[:, -2]), noise)

    def _drawn(self, given: tuple[Tensor, ...], noise: Tensor) -> Tensor:
        u = normal_to_uniform(noise[:, : self.length])
        return self.prior.draw(given[0], u, self.config.temperature, self.config.top_k, *given[1:2])

    def given(self, conditions: Tensor, noise: Tensor | None = None) -> tuple[Tensor, ...]:
        """Returns condition tokens, (B, G); and what each place is told, (B, G + L - 1, width), and photon sums, (B,).

        The last two only where the prior is told something.

        Args:
            conditions: physical units, (B, F).
            noise: of the photon sum, (B,).
        """
        tokens: Tensor = self.condition(self.standardize(self.rays(conditions)))
        if not self.tells:
            return (tokens,)
        assert noise is not None
        photons = self.known.draw_photons(conditions, noise, "floor")
        return tokens, self.told(*self.known.given(conditions, photons)), photons

    def next_token(
        self,
        tokens: Tensor,
        place: Tensor,
        noise: Tensor,
        past: Sequence[Past],
        seen: Tensor | None,
        told: Tensor | None = None,
    ) -> tuple[Tensor, list[Past]]:
        """Draws the image token after one place, (B,), from one normal an event, (B,); the rest as `GPT.step`."""
        logits, entries = self.prior.step(tokens, place, past, seen, told)
        u = normal_to_uniform(noise)
        return invert(logits, u, self.config.temperature, self.config.top_k), entries

    def nothing_seen(self, events: int) -> list[Past]:
        """Returns room for keys and values of all places, zeros, for so many events."""
        return self.prior.nothing(events)

    def respond(self, tokens: Tensor, noise: Tensor, photons: Tensor | None = None) -> Tensor:
        """Decodes and rounds image tokens to responses, (B, *shape).

        Args:
            tokens: of the image, (B, L).
            noise: of the rounding, (B,).
            photons: sums to which the image is scaled, (B,); None leaves it as it is decoded.
        """
        image = self.image.decode(self.image.codebook.lookup(tokens))
        return self._counts(image, noise, photons)

    def _counts(self, image: Tensor, noise: Tensor, photons: Tensor | None = None) -> Tensor:
        counts = self.transform.inverse(image)
        if photons is not None:
            # an image that is all dark stays so
            counts = counts * (photons / counts.sum((1, 2)).clamp(min=1e-6))[:, None, None]
        return rounded(counts, noise, self.order, self.config.rounding)

    def stages(self, train: EventSource) -> Sequence[Stage]:
        """Fits the normalization and returns the stages: image tokens, condition tokens, prior.

        Before the last come photon sum and expected place, where the prior is told of them.
        """
        self.standardize.refit(self.rays(torch.from_numpy(train.primaries.conditions)))
        events = len(train)
        known: Sequence[Stage] = []
        if self.tells:
            self.known.refit(train)
            known = self.known.stages(events)
        return [
            self._image_stage(events), self._condition_stage(events), *known, self._prior_stage(events)
        ]  # fmt: skip

    def _image_stage(self, events: int) -> Stage:
        config = self.config.image
        distance = None
        if config.losses.perceptual or config.losses.adversarial:
            distance, used = perceptual_network(config.losses.extractor)
            self.made_with = {"perceptual_network": used}

        def reconstruct(
            batch: Events, rng: BatchRandom
        ) -> tuple[Tensor, Tensor, Tensor, Mapping[str, float]]:
            image = self._image(batch)
            z = F.normalize(self.image.encode(image), dim=-1)
            indices = self.image.codebook(z)
            code = self.image.codebook.lookup(indices)
            decoded = self.image.decode(straight_through(z, code))
            commitment = (z - code).square().mean()
            chosen = rng.uniform(config.codes)[0]
            self.image.codebook.follow(z.detach().flatten(0, 1), indices.flatten(), chosen)
            return image, decoded, config.commitment * commitment, {"commitment": float(commitment.detach())}

        readout = channel_matrix(self.detector)
        return AutoencoderStage(
            "image_tokens",
            self.image,
            reconstruct,
            self._reconstruction_scores,
            config,
            readout.to(self.order.device),
            events,
            distance,
        )

    @torch.no_grad()
    def _reconstruction_scores(self, source: EventSource) -> Mapping[str, float]:
        """Compares reconstructions: Wasserstein-1 of the channels, photon sums, share of codes in use, perplexity."""
        reference = spread_rows(source, self.config.validation_events)
        decoded, tokens = self.reconstruct(reference)
        used, perplexity = usage(tokens, self.config.image.codes)
        return {**channel_scores(reference, decoded), "codes_used": used, "perplexity": perplexity}

    @torch.no_grad()
    def reconstruct(self, events: Events) -> tuple[NDArray[np.float32], Tensor]:
        """Passes responses through the autoencoder; returns them, (N, *shape), and their tokens, (N, L)."""
        parts, tokens = [], []
        for start in range(0, len(events), 256):
            image = self._image(events.slices(slice(start, start + 256)))
            tokens.append(self.image.codebook(self.image.encode(image)))
            decoded = self.image.decode(self.image.codebook.lookup(tokens[-1]))
            parts.append(self._counts(decoded, torch.zeros(len(image), device=image.device)).cpu().numpy())
        return np.concatenate(parts), torch.cat(tokens)

    def _condition_stage(self, events: int) -> Stage:
        config = self.config.condition

        def loss(condition: ConditionCodes, batch: Events, rng: BatchRandom) -> Tensor:
            return condition.loss(self._features(batch), config)

        @torch.no_grad()
        def scores(source: EventSource) -> Mapping[str, float]:
            features = self._features(spread_rows(source, 4096))
            tokens = self.condition(features)
            used, perplexity = usage(tokens, config.codes)
            decoded = self.condition.decoder(self.condition.codebook.lookup(tokens).flatten(1))
            error = float((decoded - features).square().mean())
            return {"error": error, "codes_used": used, "perplexity": perplexity}

        return LossStage("condition_tokens", self.condition, loss, scores, config, events)

    def _prior_stage(self, events: int) -> Stage:
        config = self.config.prior
        dropout, width = config.network.dropout, config.network.width

        compare = generation_scores(self, self.config.validation_events)
        trained = nn.ModuleList([self.prior, self.told]) if self.tells else self.prior
        once: list[Tokenized] = []

        def loss(_: nn.Module, batch: Tokenized | Events, rng: BatchRandom) -> Tensor:
            mask = None
            if dropout:
                shape = (self.prior.masks, len(self.prior.positions), width)
                mask = (rng.uniform(*shape) >= dropout).float() / (1 - dropout)
            return self._cross_entropy(batch, mask)

        def batches(source: EventSource, size: int, rng: np.random.Generator) -> Iterator[Tokenized]:
            if not once:  # the tokens stay as they are, vertices may be displaced anew
                parts = [self._tokenized(events) for events in in_slices(source, 256)]
                once.append(_joined(parts))
            conditions = source.primaries.conditions
            order = rng.permutation(len(source))
            for start in range(0, max(len(order) // size, 1) * size, size):
                rows = order[start : start + size]
                yield Tokenized(conditions[rows], once[0].tokens[rows], once[0].photons[rows])

        def scores(source: EventSource) -> Mapping[str, float]:
            with torch.no_grad():
                entropy = self._cross_entropy(spread_rows(source, 256), None).mean()
            return {"cross_entropy": float(entropy), **compare(source)}

        return LossStage("prior", trained, loss, scores, config, events, batches=batches)

    def _cross_entropy(self, batch: Tokenized | Events, kept: Tensor | None) -> Tensor:
        """Returns the mean cross entropy of an event's targets, (B,)."""
        if isinstance(batch, Events):
            batch = self._tokenized(batch)
        conditions = torch.from_numpy(batch.conditions).to(self.order.device)
        with torch.no_grad():
            prefix = self.condition(self.standardize(self.rays(conditions)))
            about = self.known.given(conditions, batch.photons) if self.tells else None
        told = None if about is None else self.told(*about)
        tokens = batch.tokens.long()
        first, second = self.prior(prefix, tokens, kept, told)
        pairs = ((first, prefix[:, 1:]), (second, tokens))
        each = [
            F.cross_entropy(logits.transpose(1, 2), targets, reduction="none") for logits, targets in pairs
        ]
        return torch.cat(each, 1).mean(1)

    @torch.no_grad()
    def _tokenized(self, events: Events) -> Tokenized:
        """Returns conditions, image tokens and photon sums of events."""
        tokens = self.image.codebook(self.image.encode(self._image(events)))
        photons = events.responses.reshape(len(events), -1).sum(1, dtype=np.float64).astype(np.float32)
        return Tokenized(
            events.conditions, tokens.to(torch.int32), torch.from_numpy(photons).to(tokens.device)
        )

    def _image(self, events: Events) -> Tensor:
        responses = torch.from_numpy(events.responses.astype(np.float32)).to(self.order.device)
        image: Tensor = self.transform(responses)
        return image

    def _features(self, events: Events) -> Tensor:
        conditions = torch.from_numpy(events.conditions).to(self.order.device)
        features: Tensor = self.standardize(self.rays(conditions))
        return features


def _joined(parts: Sequence[Tokenized]) -> Tokenized:
    """Joins events end to end."""
    return Tokenized(
        np.concatenate([part.conditions for part in parts]),
        torch.cat([part.tokens for part in parts]),
        torch.cat([part.photons for part in parts]),
    )
