"""Inverse autoregressive flow (the IAF student of Majerz et al. 2025): one pass, distilled from a masked one.

Teacher and student are chains of the same kind (`nn.autoregressive`), each fast in one direction only, and only these
are used. With y_0 = Y the prepared image, y_K = z its noise and m_k the outputs of the MADE blocks:

- data loop: an image goes to noise by the teacher, y_k and m_k, and back by the student, y'_k and m'_k;
- latent loop: noise goes to an image by the student, y'_k and m'_k, and back by the teacher, y_k and m_k.

The loss of an event adds, for both loops, mean squares over cells (and over parameters), weighted by `points` and
`outputs`,

    MSE = points sum_k mean (y_k - y'_k)^2 + outputs sum_k mean (m_k - m'_k)^2.

Physics. L_channel = sum_i (w_i - what_i)^2 for the K sums w_i of the detector's channel map, of x / sum x and of
xhat / sum xhat, where xhat are the student's shares in the data loop (`FlowImages.shares`, a sigmoid of its output),
not multiplied by the photon sum, the dequantizing noise not removed. f_div_inv_w(c), the inverse diversity of a
particle c (`metrics.diversity`), multiplies the loss of each of its events; particles with fewer than 10 responses in
training weigh 1, the mean of the others. So

    loss = f_div_inv_w(c) (MSE + `channel_weight` L_channel),

and the publication's four set-ups bs, bs+div, bs+ch, bs+ch+div are the two flags `diversity` and `channel`.

The student starts with the teacher's weights. It has the teacher's photon sum and expected place.

Noise: z, one normal a cell; one for the photon sum.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from caloforge.detectors import Detector
from caloforge.events import Events, EventSource
from caloforge.io.files import sha256
from caloforge.io.run import Run, read_weights
from caloforge.metrics.diversity import EPSILON, f_div, f_div_inv_w
from caloforge.models.base import BatchRandom, Generator, Stage
from caloforge.models.parts.flow_images import Cells, ExpectedPlaceConfig, FlowImages, Rounding, tempered
from caloforge.models.parts.flow_likelihood import FlowTrainingConfig, flow_stage
from caloforge.models.parts.inference import generation_scores
from caloforge.models.parts.photons import PhotonsConfig
from caloforge.models.parts.stage import LossStage, shuffled_batches
from caloforge.nn.autoregressive import AutoregressiveFlow, Chain, FlowConfig
from caloforge.ode.bespoke import frozen
from caloforge.optim import AdamConfig
from caloforge.samples import weights


class DistillationConfig(BaseModel):
    """Loss and training of the student.

    Attributes:
        points: weight of the squares of the points y_k.
        outputs: weight of the squares of the outputs m_k.
        channel: add the channel loss.
        channel_weight: its weight.
        diversity: weight each event by the inverse diversity of its particle.
        epsilon: least weight of a particle, as a part of the mean weight.
        optimizer: rates and schedule.
        epochs: rounds.
        events: training events of each round, drawn anew; 0 takes all of them.
        batch_size: events a step.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    points: float = Field(1.0, ge=0)
    outputs: float = Field(1.0, ge=0)
    channel: bool = False
    channel_weight: float = Field(100.0, gt=0)
    diversity: bool = False
    epsilon: float = Field(EPSILON, gt=0)
    optimizer: AdamConfig = AdamConfig(
        learning_rate=1e-3, beta2=0.99, schedule="cosine", warmup=0.05, gradient_clip=1.0
    )
    epochs: int = Field(8, ge=1)
    events: int = Field(0, ge=0)
    batch_size: int = Field(32, ge=1)


class IAFConfig(BaseModel):
    """Sizes and training of teacher and student.

    Attributes:
        teacher: run folder of an `autoregressive_flow` of the same sizes, or the name of weights that ship; where none
            is given the teacher is trained first.
        photons: density of the photon sum.
        place: where the light is expected.
        flow: sizes of both chains.
        training: of the teacher, where it is trained here.
        distillation: of the student.
        rounding: `floor`, or `none` to keep the dequantizing noise; may be changed after the training.
        mirror: train on events mirrored in y too.
        cells: how cells are prepared: as `shares` of the photon sum, as published, or with a `gap` between dark and lit
            ones (`models.parts.flow_images`).
        tail: factor that shrinks noise beyond 2.5 standard deviations (`models.parts.flow_images`); may be changed
            after the training.
        validation_events: events of each validation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    teacher: str = ""
    photons: PhotonsConfig = PhotonsConfig()
    place: ExpectedPlaceConfig = ExpectedPlaceConfig()
    flow: FlowConfig = FlowConfig()
    training: FlowTrainingConfig = FlowTrainingConfig()
    distillation: DistillationConfig = DistillationConfig()
    rounding: Rounding = "floor"
    mirror: bool = False
    cells: Cells = "shares"
    tail: float = Field(1.0, gt=0, le=1)
    validation_events: int = Field(1024, ge=2)


class IAF(Generator):
    """Draws a photon sum and all cells in one pass.

    Args:
        detector: a detector that counts photons, with two axes, a face and a pitch.
        config: sizes and training.
    """

    config_class: ClassVar[type[BaseModel]] = IAFConfig
    sampling: ClassVar[tuple[str, ...]] = ("rounding", "tail")
    training_only: tuple[str, ...] = ("teacher",)

    def __init__(self, detector: Detector, config: IAFConfig) -> None:
        super().__init__()
        self.detector, self.config = detector, config
        self.noise_dim = detector.cells + 1
        self.images = FlowImages(
            detector, config.photons, config.place, config.mirror, config.validation_events, config.cells
        )
        sizes = self.images.shape, self.images.features, config.flow
        self.flow = AutoregressiveFlow(*sizes, "noise")
        self.teacher = AutoregressiveFlow(*sizes, "data")
        self.readout: Tensor
        matrix = detector.channel_map(detector.default_channels).matrix.T.copy()
        self.register_buffer("readout", torch.from_numpy(matrix), persistent=False)

    def forward(self, conditions: Tensor, noise: Tensor) -> Tensor:
        """Generates responses, (B, *shape), from conditions (B, F) and noise (B, cells + 1)."""
        photons = self.images.draw_photons(conditions, noise[:, -1], self.config.rounding)
        return self.with_photons(conditions, photons, noise)

    def with_photons(self, conditions: Tensor, photons: Tensor, noise: Tensor) -> Tensor:
        """Generates responses with given photon sums, (B,); the last of the noise is not used."""
        contexts = self.flow.contexts(*self.images.given(conditions, photons))
        chain = self.flow.to_data(tempered(noise[:, :-1], self.config.tail), contexts)
        return self.images.counts(chain.points[0], photons, self.config.rounding)

    def stages(self, train: EventSource) -> Sequence[Stage]:
        """Returns the stages: photon sum, place and teacher, where it is trained here; the student.

        Raises:
            ValueError: the teacher's run is missing, or of other sizes.
        """
        if self.config.teacher:
            self._load_teacher(self.config.teacher)
            self.flow.load_state_dict(self.teacher.state_dict())
            return [self._student_stage(train)]
        self.images.refit(train)
        config = self.config
        teacher = flow_stage("teacher", self.images, self.teacher, config.training, len(train))
        return [*self.images.stages(len(train)), teacher, self._student_stage(train)]

    def _load_teacher(self, name: str) -> None:
        path = Path(name)
        if not path.is_dir():
            path = weights().get(name, path)
        run = Run(path)
        tensors = {name: torch.from_numpy(array) for name, array in read_weights(run.weights).items()}
        theirs = run.recipe().model.get("cells", "shares")
        if theirs != self.config.cells:
            raise ValueError(
                f"the teacher {path} must prepare cells as its student does, model.cells = {self.config.cells!r}, "
                f"got {theirs!r}"
            )
        names = {f"images.{name}" for name in self.images.state_dict()} | {
            f"flow.{name}" for name in self.teacher.state_dict()
        }
        if names != set(tensors):
            raise ValueError(
                f"the teacher {path} must be a run of autoregressive_flow with the sizes of the model section; "
                f"{len(names - set(tensors))} weights are missing, {len(set(tensors) - names)} are others'"
            )
        try:
            for part, module in (("images", self.images), ("flow", self.teacher)):
                module.load_state_dict(
                    {k.removeprefix(f"{part}."): v for k, v in tensors.items() if k.startswith(f"{part}.")}
                )
        except RuntimeError as error:
            raise ValueError(f"the teacher {path} has other sizes than the model section: {error}") from None
        self.made_with = {"teacher": {"name": run.recipe().name, "sha256": sha256(run.weights)}}

    def _student_stage(self, train: EventSource) -> Stage:
        config = self.config.distillation
        diversity = DiversityWeights(train, config.epsilon) if config.diversity else None
        events = min(config.events or len(train), len(train))

        def prepare(source: EventSource) -> None:
            if not self.config.teacher:
                self.flow.load_state_dict(self.teacher.state_dict())

        def batches(source: EventSource, batch_size: int, rng: np.random.Generator) -> Iterator[Events]:
            return islice(shuffled_batches(source, batch_size, rng), max(events // batch_size, 1))

        def loss(_: AutoregressiveFlow, batch: Events, rng: BatchRandom) -> Tensor:
            conditions, counts = self.images.batch(batch, rng)
            u, z = rng.uniform(self.detector.cells), rng.normal(self.detector.cells)
            each = self.distance(conditions, counts, u, z)
            return each if diversity is None else each * diversity(batch).to(each)

        return LossStage(
            "student",
            self.flow,
            loss,
            generation_scores(self, self.config.validation_events),
            config,
            events,
            prepare=prepare,
            batches=batches,
        )

    def distance(self, conditions: Tensor, counts: Tensor, u: Tensor, z: Tensor) -> Tensor:
        """Returns the loss of each event before its weight, (B,).

        Args:
            conditions: physical units, (B, F).
            counts: photons, (B, cells).
            u: dequantizing noise, uniforms, (B, cells).
            z: of the latent loop, (B, cells).
        """
        config = self.config.distillation
        photons = counts.sum(1)
        with torch.no_grad():
            particle = self.images.given(conditions, photons)
            image, _ = self.images.prepare(counts, u)
            teachers = self.teacher.contexts(*particle)
            taught = self.teacher.to_noise(image, teachers)
        contexts = self.flow.contexts(*particle)
        taught_points = self.flow.to_data(taught.points[-1], contexts)
        total = self._mismatch(taught, taught_points)
        if config.channel:
            total = total + config.channel_weight * self.channel_loss(image, taught_points.points[0], photons)
        drawn = self.flow.to_data(z, contexts)
        with frozen(self.teacher):
            total = total + self._mismatch(self.teacher.to_noise(drawn.points[0], teachers), drawn)
        return total

    def channel_loss(self, image: Tensor, found: Tensor, photons: Tensor) -> Tensor:
        """Returns L_channel of each event, (B,), of prepared images, (B, cells), and photon sums, (B,)."""
        true_shares, got = (self.images.shares(shares, photons) for shares in (image, found))
        sums = [shares / shares.sum(1, keepdim=True) @ self.readout for shares in (true_shares, got)]
        return (sums[0] - sums[1]).square().sum(1)

    def _mismatch(self, one: Chain, other: Chain) -> Tensor:
        config = self.config.distillation
        total = torch.zeros_like(one.log_det)
        for weight, pairs in (
            (config.points, zip(one.points, other.points, strict=True)),
            (config.outputs, zip(one.outputs, other.outputs, strict=True)),
        ):
            for a, b in pairs:
                if a is not b:  # where a loop starts both have the same point
                    total = total + weight * (a - b).square().flatten(1).mean(1)
        return total


class DiversityWeights:
    """Gives each event the weight of its particle.

    Args:
        train: training events.
        epsilon: least weight, as a part of the mean weight.
    """

    def __init__(self, train: EventSource, epsilon: float) -> None:
        weights = f_div_inv_w(f_div(train), epsilon)
        self._group, self._weight = weights.group, weights.value

    def __call__(self, batch: Events) -> Tensor:
        """Returns the weights of a batch, (B,); 1 for a particle without one."""
        place = np.searchsorted(self._group, batch.group).clip(max=len(self._group) - 1)
        known = self._group[place] == batch.group
        return torch.from_numpy(np.where(known, self._weight[place], 1.0).astype(np.float32))
