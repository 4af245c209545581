"""Latent flow matching in factors: channel sums, a code for the rest of the image, and photons given both.

    p(image | particle) = p(sums | particle) * integral over z of p(z | sums, particle) p(image | sums, z, particle)

What holds the published latent flow matching back is its latent space: a decoder that gives one image for a latent
draws no photon noise, and what it blurs is lost in the sums. Here nothing that is read out passes through the code.

Sums. A small flow draws the channel sums first (`models.parts.sums`).

Code. A variational autoencoder (`nn.patch_autoencoder`) describes what is left, place, width and sub-showers, by a few
numbers z. Its decoder is told particle, sums and z and gives a distribution of the count in each fibre, so it has noise
of its own. The loss is the bound on the likelihood, with weight beta = `kl` on the divergence, per cell:

    - E ln p(n | z, sums, particle) + beta KL(q(z | n, sums, particle) | N(0, 1)).

Flow. A residual network learns the velocity of the straight path from noise to z, a sample of the encoder,
standardised; it costs as little as that of the sums, so the decoder is evaluated once and is most of the time of an
event.

Counts. The drawn counts are moved to the sums, channel by channel (`with_sums`), and rounded by systematic sampling
(`nn.rounding`): the sums of the image equal the sums drawn first, exactly. A channel in which nothing was drawn gets
its photons where they were expected.

A smaller decoder, where wanted. Most of the time of an event is the decoder's. A student with fewer `blocks` learns the
distributions of the trained one, p, at the codes that the flow draws for the particles and sums of the training:

    E sum over cells of KL(p(n | z, sums, particle) | q(n | z, sums, particle)).

It needs no image, and the decoder it learns from is not needed for generation.

Energies. A detector that measures energies has quanta for counts (`models.parts.sums`). The decoder learns them rounded
up to 3 and as they are above; a drawn 1, 2 or 3 stands for the energies that are rounded to it, evenly. What is below
half a quantum, 1 / 6000 of a mean response, comes out as 0.

Noise: one normal a cell for the photons; one for each number of the code; K for the sums; one for the rounding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from caloforge.detectors import Detector
from caloforge.events import Events, EventSource
from caloforge.metrics.images import image_distances
from caloforge.models.base import BatchRandom, Generator, Stage
from caloforge.models.parts.bayesian import make_bayesian, variational
from caloforge.models.parts.images import augmented, cell_order, channel_sums, check_mirror, check_moved
from caloforge.models.parts.inference import generate_in_memory, spread_rows
from caloforge.models.parts.stage import LossStage, Scores, average_stage, scores_without, solver_stage
from caloforge.models.parts.sums import (
    Sums,
    SumsConfig,
    Transported,
    VelocityConfig,
    check_factors,
    interval_conditioned,
)
from caloforge.nn import patch_graph
from caloforge.nn.fewer_blocks import start_from
from caloforge.nn.patch_autoencoder import (
    COUNTS,
    PatchAutoencoderConfig,
    PatchDecoder,
    PatchEncoder,
    divergence,
    draw,
    log_likelihood,
    with_sums,
)
from caloforge.nn.rounding import (
    in_order,
    normal_to_uniform,
    rounded_in_order,
    systematic_rounding,
    without_jumps,
)
from caloforge.nn.velocity_network import VelocityNetwork
from caloforge.ode.average_velocity import Average
from caloforge.ode.bespoke import BespokeSolver, conditioned
from caloforge.ode.path import Velocity, cfm_loss
from caloforge.ode.solve import solve
from caloforge.ode.solvers import SolverConfig
from caloforge.optim import AdamConfig
from caloforge.transforms import Standardize


class DecoderDistillationConfig(BaseModel):
    """How a smaller decoder learns the distributions of the trained one; a `TrainingSection`.

    Attributes:
        blocks: of the student, which starts from the teacher's blocks, evenly taken; 0 for no student.
        average: decay of the moving average of the weights.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    blocks: int = Field(0, ge=0)
    optimizer: AdamConfig = AdamConfig(
        learning_rate=2e-3, beta2=0.99, schedule="cosine", warmup=0.05, gradient_clip=1.0
    )
    epochs: int = Field(3, ge=1)
    batch_size: int = Field(64, ge=1)
    average: float = Field(0.99, ge=0, lt=1)


class CodeConfig(BaseModel):
    """Autoencoder and its training; a `TrainingSection`.

    Attributes:
        network: sizes.
        kl: weight of the divergence. 1 is the bound on the likelihood with a standard normal prior; the prior here is
            learned afterwards, so a smaller weight costs nothing, and at 1 the code was left unused.
        distillation: of a smaller decoder.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: PatchAutoencoderConfig = PatchAutoencoderConfig()
    kl: float = Field(0.1, ge=0)
    distillation: DecoderDistillationConfig = DecoderDistillationConfig()
    optimizer: AdamConfig = AdamConfig(
        learning_rate=6e-3, beta2=0.99, schedule="cosine", warmup=0.05, gradient_clip=1.0
    )
    epochs: int = Field(8, ge=1)
    batch_size: int = Field(64, ge=1)


class FlowConfig(VelocityConfig):
    """Network, solver and training of the flow of codes: as those of the sums."""

    solver: SolverConfig = SolverConfig(steps=7)
    epochs: int = Field(20, ge=1)


class FactorizedLatentFlowMatchingConfig(BaseModel):
    """The factors and what they share.

    Attributes:
        channels: channel map of the sums; the detector's default where it has no `paper` and a recipe names none.
        sums: the channel sums.
        code: the autoencoder.
        flow: the flow of codes; both solvers may be changed after the training.
        photons: `drawn` from the decoder's distribution, or `expected`, its mean, which lacks the noise of the photons;
            may be changed after the training.
        rounding: `systematic`, or `none`, the default for energies; may be changed after the training.
        transport: tells what magnets before the face do to charged particles, with "sums" the sums alone; needs a
            detector that knows it.
        grooves: tells the sums how deep a neutral particle flies along the groove of a fibre; needs a detector that
            knows them.
        species: tells the sums which species a neutral particle is, one number for each; needs the condition mass.
        least: photons of the faintest response in the data: where fewer are drawn they are reflected
            (`models.parts.sums.reflected`); may be changed after the training.
        mirror: train on events mirrored in y too; helps only where module and beam line look the same mirrored. With
            `transport` charged particles are aimed at where magnets bring them to the mirror image of their place.
        move: train on photons moved by whole cells within the window of the detector's face, too.
        average: decay of the moving average of the weights; 0 keeps none.
        validation_events: events of each validation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: str = "paper"
    sums: SumsConfig = SumsConfig()
    code: CodeConfig = CodeConfig()
    flow: FlowConfig = FlowConfig()
    photons: Literal["drawn", "expected"] = "drawn"
    rounding: Literal["systematic", "none"] = "systematic"
    transport: Transported = False
    grooves: bool = False
    species: bool = False
    least: int = Field(0, ge=0)
    mirror: bool = False
    move: bool = False
    average: float = Field(0.999, ge=0, lt=1)
    validation_events: int = Field(1024, ge=2)


class Autoencoder(nn.Module):
    """Encoder and decoder."""

    def __init__(self, shape: tuple[int, int], features: int, config: PatchAutoencoderConfig) -> None:
        super().__init__()
        self.encoder, self.decoder = (kind(shape, features, config) for kind in (PatchEncoder, PatchDecoder))


class FactorizedLatentFlowMatching(Generator):
    """Draws channel sums, then a code, then photons with exactly these sums.

    Args:
        detector: a detector with two axes, of photons or energies.
        config: sizes and training.

    Raises:
        ValueError: another number of axes, cells in no channel or several, or nothing to mirror or to move.
    """

    config_class: ClassVar[type[BaseModel]] = FactorizedLatentFlowMatchingConfig
    training_only = ("autoencoder.encoder",)
    sampling: ClassVar[tuple[str, ...]] = ("sums.solver", "least", "flow.solver", "photons", "rounding")

    def __init__(self, detector: Detector, config: FactorizedLatentFlowMatchingConfig) -> None:
        super().__init__()
        check_factors(detector, config.channels)
        if config.mirror:
            check_mirror(detector)
        if config.move:
            check_moved(detector)
        self.detector, self.config = detector, config
        self.sums = Sums(
            detector,
            config.channels,
            config.sums,
            config.average,
            config.validation_events,
            transport=config.transport,
            grooves=config.grooves,
            species=config.species,
            least=config.least,
        )
        outputs, code = self.sums.outputs, config.code.network.code
        self.noise_dim = detector.cells + code + outputs + 1
        self.standardize_logs, self.standardize_code = Standardize(outputs), Standardize(code)
        height, width = detector.shape
        known = self.sums.told + outputs
        self.autoencoder = Autoencoder((height, width), known, config.code.network)
        self.decoder: PatchDecoder | None = None
        if config.code.distillation.blocks:
            smaller = config.code.network.model_copy(update={"blocks": config.code.distillation.blocks})
            self.decoder = PatchDecoder((height, width), known, smaller)
            self.training_only = ("autoencoder",)
        self.flow = VelocityNetwork(code, known, config.flow.width, config.flow.blocks)
        make_bayesian(self.flow, config.flow.bayesian)
        self.flow_solver = BespokeSolver(config.flow.bespoke.steps) if config.flow.bespoke.steps else None
        self.flow_average_velocity = (
            VelocityNetwork(code, known, config.flow.width, config.flow.blocks_of_student, until=True)
            if config.flow.average_velocity.steps
            else None
        )
        self.channel: Tensor
        self.order: Tensor
        self.register_buffer(
            "channel", torch.from_numpy(detector.channel_map(config.channels).matrix.argmax(0))
        )
        self.register_buffer("order", torch.from_numpy(cell_order(detector, config.channels)))

    def forward(self, conditions: Tensor, noise: Tensor) -> Tensor:
        """Generates responses, (B, *shape), from conditions (B, F) and noise (B, cells + code + K + 1)."""
        cells, code = self.detector.cells, self.config.code.network.code
        features = self.sums.describe(conditions)
        sums = self.sums(conditions, features, noise[:, cells + code : -1])
        known = self._known(features, sums)
        z = self.draw_code(known, noise[:, cells : cells + code])
        rounding = noise[:, -1:] if torch.compiler.is_exporting() else noise[:, -1]
        return self.draw_image(conditions, known, sums, z, noise[:, :cells], rounding)

    def draw_code(self, known: Tensor, noise: Tensor) -> Tensor:
        """Generates codes, (B, code), from what is known of an event and noise (B, code)."""
        average = self.flow_average_velocity and interval_conditioned(self.flow_average_velocity, known)
        z = solve(self._velocity(known), noise, self.config.flow.solver, self.flow_solver, average)
        return self.standardize_code.inverse(z)

    def draw_image(
        self, conditions: Tensor, known: Tensor, sums: Tensor, z: Tensor, noise: Tensor, rounding: Tensor
    ) -> Tensor:
        """Generates an image with given sums and code.

        Args:
            conditions: physical units, (B, F).
            known: standardised features of particle and sums, (B, C).
            sums: channel sums, photons or quanta, (B, K).
            z: code, (B, code).
            noise: for the photons, (B, cells).
            rounding: one normal an event, (B,).

        Returns:
            responses, (B, *shape).
        """
        if torch.compiler.is_exporting() and self.detector.counts:
            return self._draw_exported(conditions, known, sums, z, noise, rounding)
        numbers = self._decoder()(z, self.sums.cell(conditions), known)
        u = normal_to_uniform(noise).view(-1, *self.detector.shape)
        drawn, mean = draw(numbers, u, spread=not self.detector.counts)
        if self.config.photons == "expected":
            drawn = mean
        drawn, mean = (values.double().flatten(1) for values in (drawn, mean))

        def with_these(photons: Tensor) -> Tensor:
            expected = with_sums(photons, mean, sums, self.channel)
            return self.sums.respond(expected, sums, conditions, self.channel)

        counts = with_these(drawn)
        if self.config.rounding == "systematic":
            without_jumps(lambda: with_these(mean).to(noise.dtype).view_as(u))
            counts = systematic_rounding(counts, normal_to_uniform(rounding), self.order)
        return counts.to(noise.dtype).view_as(u)

    def _draw_exported(
        self, conditions: Tensor, known: Tensor, sums: Tensor, z: Tensor, noise: Tensor, rounding: Tensor
    ) -> Tensor:
        """Does what `draw_image` does for photons, in the fewer operators of `nn.patch_graph`."""
        decoder = self._decoder()
        odds, density = patch_graph.decoded(decoder, z, self.sums.cell(conditions), known)
        parts = patch_graph.drawn(odds, density, patch_graph.into_tiles(noise, decoder.shape, decoder.patch))
        shape, patch = decoder.shape, decoder.patch
        channels = patch_graph.of_channels(self.channel, shape, patch, self.sums.outputs)

        def counts(parts: tuple[Tensor, Tensor, Tensor], rule: Literal["systematic", "none"]) -> Tensor:
            expected = patch_graph.with_sums(*parts, sums, channels)
            expected = in_order(expected, patch_graph.places(shape, patch)[self.order])
            rounded = rounded_in_order(expected, rounding, self.order, rule)
            return rounded.to(noise.dtype).view(-1, *self.detector.shape)

        def means() -> tuple[Tensor, Tensor, Tensor]:
            mean = patch_graph.UNIT * parts[-1]
            many = mean > COUNTS - 1
            return torch.where(many, 0.0, mean), torch.where(many, mean, 0.0), mean

        without_jumps(lambda: counts(means(), "none"))
        return counts(means() if self.config.photons == "expected" else parts, self.config.rounding)

    def _decoder(self) -> PatchDecoder:
        """Returns what draws the photons: the student, where a smaller one is taught."""
        decoder = self.autoencoder.decoder if self.decoder is None else self.decoder
        assert isinstance(decoder, PatchDecoder)
        return decoder

    def stages(self, train: EventSource) -> Sequence[Stage]:
        """Fits the normalization and returns the stages: sums, code, flow, and what is fitted to the flows."""
        stages = self.sums.stages(train, self._augmented)
        counts = torch.from_numpy(channel_sums(train, self.config.channels))
        counts = self.sums.counted(counts, torch.from_numpy(train.primaries.conditions))
        self.standardize_logs.refit(torch.log1p(counts))
        stages += [self._code_stage(len(train)), self._flow_stage(len(train))]
        if self.flow_solver is not None:
            config = self.config.flow.bespoke
            solver, scores = self.flow_solver, self._teacher_scores
            stages.append(
                solver_stage("flow_solver", solver, self.flow, self._problem, scores, config, len(train))
            )
        if self.flow_average_velocity is not None:
            student, average = self.flow_average_velocity, self.config.flow.average_velocity
            name, scores = "flow_average_velocity", self._teacher_scores
            stages.append(
                average_stage(name, student, self.flow, self._interval_problem, scores, average, len(train))
            )
        if self.decoder is not None:
            stages.append(self._distillation_stage(self.decoder, len(train)))
        return stages

    def _distillation_stage(self, student: PatchDecoder, events: int) -> Stage:
        config, teacher = self.config.code.distillation, self.autoencoder.decoder
        assert isinstance(teacher, PatchDecoder)

        def prepare(_: EventSource) -> None:
            start_from(student, teacher)

        def loss(network: PatchDecoder, batch: Events, rng: BatchRandom) -> Tensor:
            conditions, _, known = self._tensors(self._augmented(batch, rng))
            straight = self.sums.cell(conditions)
            with torch.no_grad():
                z = self.draw_code(known, rng.normal(self.config.code.network.code))
                numbers = teacher(z, straight, known)
            return divergence(numbers, network(z, straight, known)).flatten(1).mean(1)

        return LossStage(
            "distillation",
            student,
            loss,
            self._image_scores,
            config,
            events,
            average=config.average,
            prepare=prepare,
        )

    def _code_stage(self, events: int) -> Stage:
        config, average = self.config.code, self.config.average

        def loss(network: Autoencoder, batch: Events, rng: BatchRandom) -> Tensor:
            conditions, responses, known = self._tensors(self._augmented(batch, rng))
            mean, log_variance = self._encode(network, conditions, responses, known)
            z = mean + torch.exp(log_variance / 2) * rng.normal(mean.shape[1])
            numbers = network.decoder(z, self.sums.cell(conditions), known)
            likelihood = log_likelihood(numbers, self._classes(responses)).flatten(1).mean(1)
            kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
            each: Tensor = config.kl * kl / self.detector.cells - likelihood
            return each

        return LossStage("code", self.autoencoder, loss, self._bound, config, events, average=average)

    @torch.no_grad()
    def _bound(self, source: EventSource) -> Mapping[str, float]:
        """The bound in nats an event at the encoder's mean, divergence, and numbers of the code that are in use."""
        reference = spread_rows(source, self.config.validation_events)
        conditions, responses, known = self._tensors(reference)
        mean, log_variance = self._encode(self.autoencoder, conditions, responses, known)
        numbers = self.autoencoder.decoder(mean, self.sums.cell(conditions), known)
        likelihood = log_likelihood(numbers, self._classes(responses)).flatten(1).sum(1).mean()
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean(0)
        return {
            "bound": float(self.config.code.kl * kl.sum() - likelihood),
            "kl": float(kl.sum()),
            "used": int((kl > 0.01).sum()),
        }

    def _flow_stage(self, events: int) -> Stage:
        @torch.no_grad()
        def standardise(source: EventSource) -> None:
            some = self._tensors(spread_rows(source, 4096))
            mean, log_variance = self._encode(self.autoencoder, *some)
            spread = (mean.var(0) + log_variance.exp().mean(0)).sqrt()
            self.standardize_code.mean.copy_(mean.mean(0))
            self.standardize_code.scale.copy_(spread)

        def loss(network: VelocityNetwork, batch: Events, rng: BatchRandom) -> Tensor:
            conditions, responses, known = self._tensors(self._augmented(batch, rng))
            with torch.no_grad():
                mean, log_variance = self._encode(self.autoencoder, conditions, responses, known)
            z = mean + torch.exp(log_variance / 2) * rng.normal(mean.shape[1])
            x0, t = rng.normal(mean.shape[1]), rng.uniform()
            embedding = network.condition(known)
            return cfm_loss(lambda x, time: network(x, time, embedding), x0, self.standardize_code(z), t)

        return LossStage(
            "flow",
            self.flow,
            variational(loss, self.config.flow.bayesian, events),
            scores_without(self, "flow_average_velocity", self._teacher_scores),
            self.config.flow,
            events,
            average=self.config.average,
            prepare=standardise,
        )

    def _image_scores(self, source: EventSource) -> Mapping[str, float]:
        """Compares images of validation events."""
        reference = spread_rows(source, self.config.validation_events)
        return image_distances(reference.responses, generate_in_memory(self, reference.conditions, 0))

    @property
    def _teacher_scores(self) -> Scores:
        """The same before the smaller decoder is trained."""
        return scores_without(self, "decoder", self._image_scores)

    def _problem(self, batch: Events, rng: BatchRandom) -> tuple[Velocity, Tensor]:
        _, _, known = self._tensors(batch)
        return self._velocity(known), rng.normal(self.config.code.network.code)

    def _interval_problem(
        self, student: VelocityNetwork, batch: Events, rng: BatchRandom
    ) -> tuple[Average, Velocity, Tensor]:
        _, _, known = self._tensors(batch)
        x0 = rng.normal(self.config.code.network.code)
        return interval_conditioned(student, known), self._velocity(known), x0

    def _velocity(self, known: Tensor) -> Velocity:
        return conditioned(self.flow, self.flow.condition(known))

    def _encode(
        self, network: Autoencoder, conditions: Tensor, responses: Tensor, known: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Returns mean and log variance of the codes of events, (B, code) each."""
        axes = [torch.arange(size, device=known.device, dtype=known.dtype) for size in responses.shape[1:]]
        middle = torch.stack([responses.sum(2) @ axes[0], responses.sum(1) @ axes[1]], 1)
        middle = middle / responses.sum((1, 2)).clamp(min=1)[:, None]
        places = torch.stack([self.sums.cell(conditions), middle], 1)
        code: tuple[Tensor, Tensor] = network.encoder(torch.log1p(responses), places, known)
        return code

    def _classes(self, responses: Tensor) -> Tensor:
        """Returns counts as the decoder's distribution knows them: quanta rounded up to 3, real above, (B, *shape)."""
        if self.detector.counts:
            return responses
        return torch.where(responses < COUNTS - 0.5, responses.round(), responses.clamp(min=COUNTS))

    def _augmented(self, batch: Events, rng: BatchRandom) -> Events:
        """Mirrors half of the events and moves half of the photons, where that is wanted."""
        config = self.config
        return augmented(batch, rng, mirror=config.mirror, move=config.move, transport=bool(config.transport))

    def _known(self, features: Tensor, sums: Tensor) -> Tensor:
        """Returns standardised features of particle and sums, (B, C)."""
        return torch.cat([self.sums.later(features), self.standardize_logs(torch.log1p(sums))], 1)

    def _tensors(self, events: Events) -> tuple[Tensor, Tensor, Tensor]:
        """Returns conditions (B, F), photons or quanta (B, *shape) and what is known of the events, (B, C)."""
        counts = self.detector.readout(events.responses, self.config.channels)
        arrays = (events.conditions, events.responses.astype(np.float32), counts.astype(np.float32))
        conditions, responses, sums = (torch.from_numpy(array).to(self.order.device) for array in arrays)
        responses, sums = (self.sums.counted(values, conditions) for values in (responses, sums))
        return conditions, responses, self._known(self.sums.describe(conditions), sums)
