"""Masked autoregressive flow (the MAF teacher of Majerz et al. 2025): exact likelihood, slow to sample.

    ln p(v | particle, N) = ln N(z; 0, 1) + ln |dz / dY| + ln |dY / dv|

with Y the prepared image of `models.parts.flow_images`, z = f(Y) a chain of rational-quadratic splines whose parameters
come from MADE blocks (`nn.autoregressive`, `nn.made`), and v the photons with their dequantizing noise, so that the
mean over that noise is a lower bound on ln P(n). Training raises it.

A generator draws the photon sum N (`models.parts.photons`), z from its noise, and undoes the chain cell by cell: as
many steps as there are cells, for each map. `models.inverse_autoregressive_flow` learns to do it in one.

Noise: z, one normal a cell; one for the photon sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from caloforge.detectors import Detector
from caloforge.events import EventSource
from caloforge.models.base import Generator, Stage
from caloforge.models.parts.flow_images import Cells, ExpectedPlaceConfig, FlowImages, Rounding, tempered
from caloforge.models.parts.flow_likelihood import (
    FlowTrainingConfig,
    flow_stage,
    log_likelihood,
    log_likelihoods,
)
from caloforge.models.parts.photons import PhotonsConfig
from caloforge.nn.autoregressive import AutoregressiveFlow, FlowConfig


class MAFConfig(BaseModel):
    """Sizes and training.

    Attributes:
        photons: density of the photon sum.
        place: where the light is expected.
        flow: the chain.
        rounding: `floor`, or `none` to keep the dequantizing noise; may be changed after the training.
        mirror: train on events mirrored in y too.
        cells: how cells are prepared: as `shares` of the photon sum, as published, or with a `gap` between dark and lit
            ones (`models.parts.flow_images`).
        tail: factor that shrinks noise beyond 2.5 standard deviations (`models.parts.flow_images`); may be changed
            after the training.
        training: of the chain.
        validation_events: events of each validation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    photons: PhotonsConfig = PhotonsConfig()
    place: ExpectedPlaceConfig = ExpectedPlaceConfig()
    flow: FlowConfig = FlowConfig()
    rounding: Rounding = "floor"
    mirror: bool = False
    cells: Cells = "shares"
    tail: float = Field(1.0, gt=0, le=1)
    training: FlowTrainingConfig = FlowTrainingConfig()
    validation_events: int = Field(1024, ge=2)


class MAF(Generator):
    """Draws a photon sum, then the cells one after the other.

    Args:
        detector: a detector that counts photons, with two axes, a face and a pitch.
        config: sizes and training.
    """

    config_class: ClassVar[type[BaseModel]] = MAFConfig
    sampling: ClassVar[tuple[str, ...]] = ("rounding", "tail")
    no_graph: ClassVar[str] = (
        "draws an event cell by cell, each after those before: that makes no single graph; an "
        "inverse_autoregressive_flow needs one pass"
    )

    def __init__(self, detector: Detector, config: MAFConfig) -> None:
        super().__init__()
        self.detector, self.config = detector, config
        self.noise_dim = detector.cells + 1
        self.images = FlowImages(
            detector, config.photons, config.place, config.mirror, config.validation_events, config.cells
        )
        self.flow = AutoregressiveFlow(self.images.shape, self.images.features, config.flow, "data")

    def forward(self, conditions: Tensor, noise: Tensor) -> Tensor:
        """Generates responses, (B, *shape), from conditions (B, F) and noise (B, cells + 1)."""
        photons = self.images.draw_photons(conditions, noise[:, -1], self.config.rounding)
        return self.with_photons(conditions, photons, noise)

    def with_photons(self, conditions: Tensor, photons: Tensor, noise: Tensor) -> Tensor:
        """Generates responses with given photon sums, (B,); the last of the noise is not used."""
        contexts = self.flow.contexts(*self.images.given(conditions, photons))
        chain = self.flow.to_data(tempered(noise[:, :-1], self.config.tail), contexts)
        return self.images.counts(chain.points[0], photons, self.config.rounding)

    def log_likelihood(self, conditions: Tensor, counts: Tensor, u: Tensor) -> Tensor:
        """Returns ln p(v | particle, N) for v = counts + u, in nats, (B,).

        Args:
            conditions: physical units, (B, F).
            counts: photons, (B, cells).
            u: dequantizing noise, uniforms, (B, cells).
        """
        return log_likelihood(self.images, self.flow, conditions, counts, u)

    def log_likelihoods(self, source: EventSource) -> NDArray[np.float64]:
        """Returns `log_likelihood` of events in nats, (N,), with the noise of events 0, 1, ... for u."""
        return log_likelihoods(self.images, self.flow, source)

    def stages(self, train: EventSource) -> Sequence[Stage]:
        """Fits the normalization and returns the stages: photon sum, expected place, chain."""
        self.images.refit(train)
        config = self.config
        stage = flow_stage("flow", self.images, self.flow, config.training, len(train))
        return [*self.images.stages(len(train)), stage]
