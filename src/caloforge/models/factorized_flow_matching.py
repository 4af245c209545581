"""Flow matching in two factors: first the channel sums, then the image given the sums.

    p(image | particle) = p(sums | particle) p(image | sums, particle)

CaloDREAM (arXiv:2405.09629) factorises showers into layer energies and normalised shapes; here the factors are
the K channel sums of a fibre calorimeter and the image. What is read out of the detector, the sums, comes from a
network of K numbers that is accurate after minutes of training; the image network only places the photons. An
error of a hundredth on each of two thousand empty fibres, which would add tens of photons to an image, cancels.

Sums. Flow matching of their own, `models.parts.sums`.

Image. x_1 = ln(1 + n). The network is told the sums and two places: where the particle's straight line meets the
detector (with `transport` its way through magnets), and where the middle of the light is expected, which a regression
learns first from particle and sums, since magnets bend charged particles and decays leave the line. It predicts for
each cell, given the noisy image, the mean x_1^ of x_1, so that the velocity is (x_1^ - x_t) / (1 - t), and the mean of
n, whose share in the channel is p. The loss is that of the velocity with the likelihood of the counts, multinomial in
each channel, for a photon on average:

    E | x_1^ - x_1 |^2 / max(1 - t, 0.05)^2  -  `likelihood` E (1 / sum_k n_k) sum_k n_k ln p_k,

t with density 2 t. The path is followed in steps that leave equal shares of the way, 1 - t_i = (1 - `end`)^(i / n).

Layout, where wanted (`models.parts.layout`). Middle and radius of the light, place and share of the brightest cell and
the number of lit ones are drawn before the image by a flow of their own, and told to the network: what a few steps of
an image would blur is then known before the first.

Fewer steps, where wanted. A distillation follows the path of the trained network in many small steps, x_i its points
where the few large ones end, and teaches the network to get from each to the next at once, and to see the same counts
at the end:

    E sum_i | y_i - x_i |^2 / (1 - `end`)^2  -  `likelihood` E (1 / sum_k n_k) sum_k n^_k ln p_k,

y_i where one step leads from x_{i-1}, n^ the expected counts of the teacher, the first term for a cell on average.
A student, where wanted, is a network of fewer blocks that is taught by the same loss to go in fewer steps still; it is
then all that generation needs of the image.

Counts. At t = `end` p gives the expected counts: sum of the channel times p. x_1^ is a mean of logarithms, and
undoing the logarithm of a mean would take light from cells that are faint or uncertain: a third of it where one
photon is as likely as none. p has no such bias. The expected counts are rounded by systematic sampling channel by
channel (`nn.rounding`): the sums of the image equal the sums drawn first, exactly.

Energies. A detector that measures energies has quanta for counts, real numbers (`models.parts.sums`). They are not
rounded but drawn, from what the network says of each cell at t = `end`, a mixture of none, 1, 2, 3 (each spread evenly
by half to either side) and a normal density of ln(1 + n) (`nn.patch_network.posterior_draw`), and scaled to the sums.
Their mean would lose what is faint: cells far from the shower would all stay below the detector's threshold.

Noise: the image's starting point, one normal a cell; K normals for the sums; one for the rounding; for energies two
more a cell for the drawing; 8 for the layout.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from caloforge.detectors import Detector
from caloforge.events import Events, EventSource
from caloforge.metrics.images import image_distances
from caloforge.models.base import BatchRandom, Generator, Stage
from caloforge.models.parts.images import augmented, cell_order, channel_sums, check_mirror, check_moved
from caloforge.models.parts.inference import generate_in_memory, spread_rows
from caloforge.models.parts.layout import NUMBERS, PLACES, SHARES, Layout, LayoutConfig
from caloforge.models.parts.stage import LossStage, Scores, scores_without
from caloforge.models.parts.sums import Sums, SumsConfig, Transported, check_factors
from caloforge.nn import patch_graph
from caloforge.nn.fewer_blocks import start_from
from caloforge.nn.patch_network import PatchNetwork, PatchNetworkConfig
from caloforge.nn.place_network import PlaceNetwork
from caloforge.nn.rounding import (
    in_order,
    normal_to_uniform,
    rounded_in_order,
    systematic_rounding,
    without_jumps,
)
from caloforge.ode.path import on_path
from caloforge.ode.solvers import RuleConfig, integrate, step_times
from caloforge.optim import AdamConfig
from caloforge.transforms import Standardize


class PlaceConfig(BaseModel):
    """Network and training of the expected middle of the light."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = Field(96, ge=1)
    optimizer: AdamConfig = AdamConfig(learning_rate=3e-3, schedule="cosine", warmup=0.05, weight_decay=0.01)
    epochs: int = Field(20, ge=1)
    batch_size: int = Field(128, ge=1)


class DistillationConfig(BaseModel):
    """How the steps of the image are made fewer, by learning where more of them lead; a `TrainingSection`.

    Attributes:
        steps: of the student, and then of the sampling; 0 for no distillation.
        teacher: steps of the teacher's path for each of the student's.
        average: decay of the moving average of the weights.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(0, ge=0)
    teacher: int = Field(3, ge=2)
    optimizer: AdamConfig = AdamConfig(
        learning_rate=3e-4, beta2=0.99, schedule="cosine", warmup=0.1, gradient_clip=1.0
    )
    epochs: int = Field(1, ge=1)
    batch_size: int = Field(64, ge=1)
    average: float = Field(0.99, ge=0, lt=1)


class ImageStudentConfig(BaseModel):
    """A smaller network that learns where the steps of the trained one lead; a `TrainingSection`.

    Attributes:
        blocks: of the student, which starts from the teacher's blocks, evenly taken; 0 for no student.
        steps: of the student; those of `image.solver` are its teacher's, a multiple of them.
        average: decay of the moving average of the weights.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    blocks: int = Field(0, ge=0)
    steps: int = Field(1, ge=1)
    optimizer: AdamConfig = AdamConfig(
        learning_rate=1e-3, beta2=0.99, schedule="cosine", warmup=0.05, gradient_clip=1.0
    )
    epochs: int = Field(1, ge=1)
    batch_size: int = Field(64, ge=1)
    average: float = Field(0.99, ge=0, lt=1)


class ImageConfig(BaseModel):
    """Network, solver and training of the image; a `TrainingSection`.

    Attributes:
        network: sizes.
        likelihood: weight of the likelihood of the counts in the loss.
        end: time at which the counts are read off the path; may be changed after the training.
        solver: from 0 to `end`; where there is a student, that of its teacher.
        distillation: for fewer steps.
        student: for fewer steps of a smaller network.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: PatchNetworkConfig = PatchNetworkConfig()
    likelihood: float = Field(0.3, gt=0)
    end: float = Field(0.8, gt=0, lt=1)
    solver: RuleConfig = RuleConfig(steps=3)
    optimizer: AdamConfig = AdamConfig(
        learning_rate=3e-3, beta2=0.99, schedule="cosine", warmup=0.05, gradient_clip=1.0
    )
    epochs: int = Field(20, ge=1)
    batch_size: int = Field(64, ge=1)
    distillation: DistillationConfig = DistillationConfig()
    student: ImageStudentConfig = ImageStudentConfig()

    @model_validator(mode="after")
    def _steps(self) -> Self:
        if self.student.blocks and (self.solver.method != "euler" or self.solver.steps % self.student.steps):
            raise ValueError(
                f"a student of {self.student.steps} steps needs a teacher with a multiple of them by euler, got "
                f"{self.solver.steps} by {self.solver.method}"
            )
        return self


class FactorizedFlowMatchingConfig(BaseModel):
    """The two factors and what they share.

    Attributes:
        channels: channel map of the sums; the detector's default where it has no `paper` and a recipe names none.
        sums: the first factor.
        place: where the light is expected.
        layout: numbers that are drawn between sums and image; none where not given. Needs a detector of photons.
        image: the second factor; all solvers may be changed after the training.
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
        validation_events: events generated for each validation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: str = "paper"
    sums: SumsConfig = SumsConfig()
    place: PlaceConfig = PlaceConfig()
    layout: LayoutConfig | None = None
    image: ImageConfig = ImageConfig()
    rounding: Literal["systematic", "none"] = "systematic"
    transport: Transported = False
    grooves: bool = False
    species: bool = False
    least: int = Field(0, ge=0)
    mirror: bool = False
    move: bool = False
    average: float = Field(0.999, ge=0, lt=1)
    validation_events: int = Field(1024, ge=2)


class FactorizedFlowMatching(Generator):
    """Draws channel sums, then an image with exactly these sums.

    Args:
        detector: a detector with two axes, of photons or energies.
        config: sizes and training.

    Raises:
        ValueError: another number of axes, cells in no channel or several, nothing to mirror or to move, or a layout of
            energies.
    """

    config_class: ClassVar[type[BaseModel]] = FactorizedFlowMatchingConfig
    sampling: ClassVar[tuple[str, ...]] = (
        "sums.solver",
        "least",
        "layout.solver",
        "image.solver",
        "image.end",
        "rounding",
    )

    def __init__(self, detector: Detector, config: FactorizedFlowMatchingConfig) -> None:
        super().__init__()
        check_factors(detector, config.channels)
        if config.mirror:
            check_mirror(detector)
        if config.move:
            check_moved(detector)
        if config.layout and not detector.counts:
            raise ValueError(
                f"model.layout counts photons; {detector.name} measures energies in {detector.unit}"
            )
        self.detector, self.config = detector, config
        channel_map = detector.channel_map(config.channels)
        self.outputs = len(channel_map.labels)
        further = (0 if detector.counts else 2 * detector.cells) + (NUMBERS if config.layout else 0)
        self.noise_dim = detector.cells + self.outputs + 1 + further
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
        features = self.sums.told
        self.standardize_logs = Standardize(self.outputs)
        height, width = detector.shape
        self.place = PlaceNetwork((height, width), features + self.outputs, config.place.width)
        self.layout = (
            Layout((height, width), features + self.outputs, config.layout) if config.layout else None
        )
        told, places = (features + self.outputs, 2)
        if config.layout:
            told, places = told + NUMBERS, PLACES
        self.image = PatchNetwork((height, width), told, places, config.image.network)
        self.student: PatchNetwork | None = None
        if config.image.student.blocks:
            smaller = config.image.network.model_copy(update={"blocks": config.image.student.blocks})
            self.student = PatchNetwork((height, width), told, places, smaller)
            self.training_only = ("image",)
        self.channel: Tensor
        self.order: Tensor
        self.register_buffer("channel", torch.from_numpy(channel_map.matrix.argmax(0)))
        self.register_buffer("order", torch.from_numpy(cell_order(detector, config.channels)))

    def forward(self, conditions: Tensor, noise: Tensor) -> Tensor:
        """Generates responses, (B, *shape), from conditions (B, F) and noise (B, D)."""
        cells = self.detector.cells
        features = self.sums.describe(conditions)
        image, of_sums, rounding = (
            noise[:, :cells],
            noise[:, cells : cells + self.outputs],
            cells + self.outputs,
        )
        sums = self.sums(conditions, features, of_sums)
        drawing = noise[:, rounding + 1 :] if noise.shape[1] > rounding + 1 else None
        of_rounding = (
            noise[:, rounding : rounding + 1] if torch.compiler.is_exporting() else noise[:, rounding]
        )
        return self.draw_image(conditions, features, sums, image, of_rounding, drawing)

    def draw_image(
        self,
        conditions: Tensor,
        features: Tensor,
        sums: Tensor,
        noise: Tensor,
        rounding: Tensor,
        drawing: Tensor | None = None,
    ) -> Tensor:
        """Generates an image with given sums.

        Args:
            conditions: physical units, (B, F).
            features: of the particles as `Sums.describe` gives them, (B, features).
            sums: channel sums, photons or quanta, (B, K).
            noise: the starting point, (B, cells).
            rounding: one normal an event, (B,).
            drawing: of energies two normals a cell, (B, 2 cells), from which quanta are drawn; None takes the expected
                counts. With a layout the eight normals it is drawn from, (B, 8).

        Returns:
            responses, (B, *shape).
        """
        features, places = self._told(conditions, self._with_sums(features, sums), drawing)
        exported = torch.compiler.is_exporting() and self.config.image.solver.method == "euler"
        if exported and self.detector.counts:
            return self._draw_exported(features, places, sums, noise, rounding)
        network, solver = self._network()
        around = network.around(places)

        def velocity(x: Tensor, t: Tensor) -> Tensor:
            predicted, _ = network(x, t, features, around)
            direction: Tensor = (predicted - x) / (1 - t)[:, None, None]
            return direction

        end = self.config.image.end
        x = integrate(velocity, noise.view(-1, *self.detector.shape), solver, end, shares=True)
        at_end = torch.full_like(x[:, 0, 0], end)
        if drawing is None or self.layout is not None:
            _, light = network(x, at_end, features, around)
        else:
            normals = drawing.view(-1, 2, *self.detector.shape).transpose(0, 1)
            light = network.draw(x, at_end, features, around, normals)
        shares, within = self._shares(light.double())
        expected = shares * (sums.double() / within)[:, self.channel]
        expected = self.sums.respond(expected, sums, conditions, self.channel)
        counts = expected
        if self.config.rounding == "systematic":
            without_jumps(lambda: expected.to(noise.dtype).view_as(x))
            counts = systematic_rounding(expected, normal_to_uniform(rounding), self.order)
        return counts.to(noise.dtype).view_as(x)

    def _draw_exported(
        self, features: Tensor, places: Tensor, sums: Tensor, noise: Tensor, rounding: Tensor
    ) -> Tensor:
        """Does what `draw_image` does for photons, in the fewer operators of `nn.patch_graph`."""
        network, solver = self._network()
        times = step_times(self.config.image.end, solver.steps, shares=True)
        light = patch_graph.follow(network, noise, features, places.flatten(1), times)
        shape, patch = self.image.shape, self.image.patch
        channels = patch_graph.of_channels(self.channel, shape, patch, self.outputs)
        light = light.double()
        expected = light * ((sums.double() / (light @ channels)) @ channels.T)
        expected = in_order(expected, patch_graph.places(shape, patch)[self.order])

        def counts(rule: Literal["systematic", "none"]) -> Tensor:
            image = rounded_in_order(expected, rounding, self.order, rule)
            return image.to(noise.dtype).view(-1, *self.detector.shape)

        without_jumps(lambda: counts("none"))
        return counts(self.config.rounding)

    @property
    def idle(self) -> Mapping[str, str]:
        """The solver of the image where a student draws it."""
        if self.student is None:
            return {}
        return {"image.solver": "the images are drawn by a student with steps of its own"}

    def _network(self) -> tuple[PatchNetwork, RuleConfig]:
        """Returns what draws the image and its steps: the student, where there is one."""
        image = self.config.image
        if self.student is None:
            return self.image, image.solver
        return self.student, RuleConfig(steps=image.student.steps)

    def _shares(self, light: Tensor) -> tuple[Tensor, Tensor]:
        """Returns cells in proportion to their expected light, (B, cells), and their channel sums, (B, K)."""
        shares = light.flatten(1).clamp(-25, 15).exp()
        return shares, shares.new_zeros(light.shape[0], self.outputs).index_add(1, self.channel, shares)

    def _places(self, conditions: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Returns where the straight line meets the detector and where light is expected, in cells, (B, 2) each."""
        straight = self.sums.cell(conditions)
        return straight, self.place(straight, features)

    def _told(self, conditions: Tensor, features: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor]:
        """Returns what the image network is told, (B, C), and the places, (B, P, 2): with a layout a drawn one."""
        straight, expected = self._places(conditions, features)
        if self.layout is None:
            return features, torch.cat([straight, expected], 1).unflatten(1, (2, 2))
        assert noise is not None, "a layout is drawn from noise"
        numbers, places = self.layout(straight, expected, features, noise)
        return torch.cat([features, numbers], 1), places

    def _told_of(self, batch: tuple[Tensor, Tensor, Tensor], rng: BatchRandom) -> tuple[Tensor, Tensor]:
        """Returns the same of training events: with a layout that of their images."""
        conditions, responses, counts = batch
        features = self._with_sums(self.sums.describe(conditions), counts)
        straight, expected = self._places(conditions, features)
        if self.layout is None:
            return features, torch.stack([straight, expected], 1)
        numbers, places = self.layout.measure(responses, straight, expected, rng.uniform(SHARES))
        return torch.cat([features, numbers], 1), places

    def _known(self, events: Events) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns the two places, features and counts of events, for the layout's training."""
        conditions, responses, counts = self._tensors(events)
        with torch.no_grad():
            features = self._with_sums(self.sums.describe(conditions), counts)
            straight, expected = self._places(conditions, features)
        return straight, expected, features, responses

    def stages(self, train: EventSource) -> Sequence[Stage]:
        """Fits the normalization and returns the stages: sums, their solver, place, image."""
        events = len(train)
        stages = self.sums.stages(train, self._augmented)
        sums = torch.from_numpy(channel_sums(train, self.config.channels))
        sums = self.sums.counted(sums, torch.from_numpy(train.primaries.conditions))
        self.standardize_logs.refit(torch.log1p(sums))
        stages.append(self._place_stage(events))
        if self.layout is not None:
            rows, average = self.config.validation_events, self.config.average
            stages.extend(self.layout.stages(self._known, self._augmented, rows, events, average))
        stages.append(self._image_stage(events))
        if self.config.image.distillation.steps:
            stages.append(self._distillation_stage(events))
        if self.student is not None:
            stages.append(self._student_stage(self.student, events))
        return stages

    def _place_stage(self, events: int) -> Stage:
        def distance(network: torch.nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
            conditions, responses, counts = batch
            predicted = network(
                self.sums.cell(conditions), self._with_sums(self.sums.describe(conditions), counts)
            )
            photons = responses.sum((1, 2)).clamp(min=1)
            axes = [
                torch.arange(size, device=predicted.device, dtype=predicted.dtype)
                for size in responses.shape[1:]
            ]
            middle = [responses.sum(2) @ axes[0], responses.sum(1) @ axes[1]]
            true = torch.stack(middle, 1) / photons[:, None]
            return torch.nn.functional.huber_loss(predicted, true, reduction="none").sum(1)

        def loss(network: PlaceNetwork, batch: Events, rng: BatchRandom) -> Tensor:
            return distance(network, self._batch(batch, rng))

        def scores(source: EventSource) -> Mapping[str, float]:
            with torch.no_grad():
                distances = distance(self.place, self._tensors(self._validation(source)))
            return {"distance": float(distances.mean())}

        config, average = self.config.place, self.config.average
        return LossStage("place", self.place, loss, scores, config, events, average=average)

    def _image_stage(self, events: int) -> Stage:
        config, average = self.config.image, self.config.average

        def loss(network: PatchNetwork, batch: Events, rng: BatchRandom) -> Tensor:
            tensors = self._batch(batch, rng)
            _, responses, counts = tensors
            with torch.no_grad():
                features, places = self._told_of(tensors, rng)
                around = network.around(places)
            x1, x0, t = torch.log1p(responses), rng.normal(*self.detector.shape), rng.uniform().sqrt()
            image, light = network(on_path(x0, x1, t), t, features, around)
            error = (image - x1).square().flatten(1).mean(1) / (1 - t).clamp(min=0.05).square()
            shares, within = self._shares(light)
            likelihood = (responses.flatten(1) * shares.log()).sum(1) - (counts * within.log()).sum(1)
            each: Tensor = error - config.likelihood * likelihood / counts.sum(1).clamp(min=1)
            return each

        return LossStage("image", self.image, loss, self._teacher_scores, config, events, average=average)

    def _image_scores(self, source: EventSource) -> Mapping[str, float]:
        """Compares images of validation events."""
        reference = self._validation(source)
        return image_distances(reference.responses, generate_in_memory(self, reference.conditions, 0))

    @property
    def _teacher_scores(self) -> Scores:
        """The same before the student is trained."""
        return scores_without(self, "student", self._image_scores)

    def _distillation_stage(self, events: int) -> Stage:
        config, teacher = self.config.image.distillation, copy.deepcopy(self.image)

        def prepare(_: EventSource) -> None:
            teacher.load_state_dict(self.image.state_dict())

        return LossStage(
            "distillation",
            self.image,
            self._fewer_steps(teacher, config.steps, config.teacher),
            self._teacher_scores,
            config,
            events,
            average=config.average,
            prepare=prepare,
            beside={"teacher": teacher},
        )

    def _student_stage(self, student: PatchNetwork, events: int) -> Stage:
        config, steps = self.config.image.student, self.config.image.solver.steps

        def prepare(_: EventSource) -> None:
            start_from(student, self.image)

        loss = self._fewer_steps(self.image, config.steps, steps // config.steps)
        return LossStage(
            "student",
            student,
            loss,
            self._image_scores,
            config,
            events,
            average=config.average,
            prepare=prepare,
        )

    def _fewer_steps(
        self, teacher: PatchNetwork, steps: int, each_as: int
    ) -> Callable[[PatchNetwork, Events, BatchRandom], Tensor]:
        """Returns the loss of a network that learns to go in so many steps, each as several of its teacher's."""
        end, likelihood = self.config.image.end, self.config.image.likelihood
        fine = step_times(end, steps * each_as, shares=True)

        def loss(student: PatchNetwork, batch: Events, rng: BatchRandom) -> Tensor:
            tensors = self._batch(batch, rng)
            counts = tensors[2]
            with torch.no_grad():
                features, places = self._told_of(tensors, rng)

            def at(network: PatchNetwork, x: Tensor, t: float) -> tuple[Tensor, Tensor]:
                ends: tuple[Tensor, Tensor] = network(x, torch.full_like(x[:, 0, 0], t), features, around)
                return ends

            def step(network: PatchNetwork, x: Tensor, t: float, following: float) -> Tensor:
                return x + (following - t) / (1 - t) * (at(network, x, t)[0] - x)

            x = rng.normal(*self.detector.shape)
            points = [x]
            with torch.no_grad():
                around = teacher.around(places)
                for t, following in pairwise(fine):
                    x = step(teacher, x, t, following)
                    points.append(x)
                shares, within = self._shares(at(teacher, x, end)[1])
                expected = shares * (counts / within)[:, self.channel]
            each = torch.zeros_like(counts[:, 0])
            for (t, start), (following, stop) in pairwise(
                zip(fine[::each_as], points[::each_as], strict=True)
            ):
                error = step(student, start, t, following) - stop
                each = each + error.square().flatten(1).mean(1) / (1 - end) ** 2
            shares, within = self._shares(at(student, x, end)[1])
            light = (expected * shares.log()).sum(1) - (counts * within.log()).sum(1)
            result: Tensor = each - likelihood * light / counts.sum(1).clamp(min=1)
            return result

        return loss

    def _batch(self, batch: Events, rng: BatchRandom) -> tuple[Tensor, Tensor, Tensor]:
        """Returns conditions (B, F), responses (B, *shape) and channel sums (B, K) to train on."""
        return self._tensors(self._augmented(batch, rng))

    def _augmented(self, batch: Events, rng: BatchRandom) -> Events:
        """Mirrors half of the events and moves half of the photons, where that is wanted."""
        config = self.config
        return augmented(batch, rng, mirror=config.mirror, move=config.move, transport=bool(config.transport))

    def _tensors(self, events: Events) -> tuple[Tensor, Tensor, Tensor]:
        """Returns conditions (B, F), responses (B, *shape) and channel sums (B, K), both in photons or quanta."""
        counts = self.detector.readout(events.responses, self.config.channels)
        device = self.order.device
        arrays = (events.conditions, events.responses.astype(np.float32), counts.astype(np.float32))
        conditions, responses, sums = (torch.from_numpy(array).to(device) for array in arrays)
        return conditions, self.sums.counted(responses, conditions), self.sums.counted(sums, conditions)

    def _validation(self, source: EventSource) -> Events:
        return spread_rows(source, self.config.validation_events)

    def _with_sums(self, features: Tensor, sums: Tensor) -> Tensor:
        return torch.cat([self.sums.later(features), self.standardize_logs(torch.log1p(sums))], 1)
