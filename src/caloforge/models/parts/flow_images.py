"""What the autoregressive flows share: from photons to the numbers a flow sees and back, photon sums, the place.

Preprocessing of the publication (Majerz et al. 2025), for the N photons of an image, n_k of them in cell k:

    v_k = n_k + u_k, u_k uniform   (dequantization)
    x_k = v_k / (N + 1)            in (0, 1), since no cell has more than N
    y_k = ln(x_k / (1 - x_k))      with x_k kept 1e-6 from both ends (`transforms.Logit`)
    Y_k = (y_k + ln(N + 1) - mean) / scale

The last line is ours: a dark cell then looks the same whatever N is; one mean and one scale for all cells. Given N all
of it can be undone, and n_k = floor(v_k). The sum of the floors of generated v_k need not be N; lit cells are scaled
until it is (`nn.rounding.floor_to_sum`).

A dark cell is then v in [0, 1), next to a cell of one photon: the density of Y falls from that of a thousand dark cells
to that of a hundred lit ones at one point, which no smooth spline can do, and each dark cell leaks a little light. With
`cells = "gap"`, which is ours, dark cells have a band of their own, with smooth ends, and a gap above it:

    y_k = -2 + 0.3 ln(w / (1 - w)), w = 0.01 + 0.98 u_k    where n_k = 0, so that y_k < -0.62
    y_k = 0.6 ln(n_k + u_k)                                where n_k > 0, so that y_k >= 0
    Y_k = (y_k - mean) / scale

What a flow leaves in the gap is dark below the middle of it and one photon above.

Cells far from the shower are lit once in a thousand events, by noise that hardly ever occurs in the training of a
spline's last bin; a little too much there, times a thousand cells, widens an image. With `tail` below 1 a generator
shrinks what of its noise is beyond 2.5 standard deviations, z = 2.5 + tail (z - 2.5).

The flow knows the particle (derived features as in the factorised models) and ln N, and where light is expected: a
regression of the middle of the light, learned first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from caloforge.detectors import Detector
from caloforge.events import Events, EventSource
from caloforge.models.base import BatchRandom, Stage
from caloforge.models.parts.images import augmented
from caloforge.models.parts.inference import spread_rows
from caloforge.models.parts.particle_features import BendingFeatures, ImpactFeatures
from caloforge.models.parts.photons import Photons, PhotonsConfig, photon_sums
from caloforge.models.parts.stage import LossStage
from caloforge.nn.place_network import PlaceNetwork
from caloforge.nn.rounding import floor_to_sum
from caloforge.optim import AdamConfig
from caloforge.transforms import GappedCounts, Logit, Standardize

Rounding = Literal["floor", "none"]

KNEE = 2.5
"""Standard deviations from which `tail` shrinks the noise."""

Cells = Literal["shares", "gap"]
"""How cells are prepared: as published, or with a gap between dark and lit ones."""


def tempered(noise: Tensor, tail: float) -> Tensor:
    """Shrinks the tails of normals: beyond `KNEE` standard deviations by the factor `tail`; 1 changes nothing."""
    if tail == 1:
        return noise
    inside = noise.clamp(-KNEE, KNEE)
    return inside + tail * (noise - inside)


class ExpectedPlaceConfig(BaseModel):
    """Network and training of the expected middle of the light."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = Field(96, ge=1)
    optimizer: AdamConfig = AdamConfig(learning_rate=3e-3, schedule="cosine", warmup=0.05, weight_decay=0.01)
    epochs: int = Field(8, ge=1)
    batch_size: int = Field(128, ge=1)


class FlowImages(nn.Module):
    """Prepares events for a flow, and makes counts of what it generates.

    Args:
        detector: a detector that counts photons, with two axes, a face and a pitch.
        photons: of the photon sum.
        place: of the expected place.
        mirror: train on events mirrored in y too.
        validation_events: events of each validation.
        cells: how cells are prepared.

    Raises:
        ValueError: the detector has another number of axes, or counts no photons.
    """

    def __init__(
        self,
        detector: Detector,
        photons: PhotonsConfig,
        place: ExpectedPlaceConfig,
        mirror: bool,
        validation_events: int,
        cells: Cells = "shares",
    ) -> None:
        super().__init__()
        if len(detector.shape) != 2 or not detector.counts:
            raise ValueError(
                f"flows of images need a detector with two axes that counts photons, {detector.name} has "
                f"{len(detector.shape)} axes and counts {detector.unit}"
            )
        self.detector, self.mirror, self.validation_events = detector, mirror, validation_events
        self._place_config = place
        height, width = detector.shape
        self.shape = (height, width)
        self.derive, self.bend = ImpactFeatures(detector), BendingFeatures(detector)
        particle = self.derive.size + self.bend.size
        self.features = particle + 1
        self.standardize = Standardize(particle)
        self.standardize_sum = Standardize(1)
        self.logit = Logit()
        self.gap = GappedCounts() if cells == "gap" else None
        self.standardize_cells = Standardize(1)
        self.photons = Photons(detector, particle, photons)
        self.place = PlaceNetwork(self.shape, self.features, place.width)

    def describe(self, conditions: Tensor) -> Tensor:
        """Returns standardised features of particles, (B, features - 1)."""
        derived = torch.cat([self.derive(conditions), self.bend(conditions)], 1)
        # the tails of the inputs are long
        features: Tensor = self.standardize(derived).clamp(-10, 10)
        return features

    def given(self, conditions: Tensor, photons: Tensor) -> tuple[Tensor, Tensor]:
        """Returns what a flow is told: features (B, features) and the expected place in cells, (B, 2).

        Args:
            conditions: physical units, (B, F).
            photons: photon sums, (B,).
        """
        total = self.standardize_sum(torch.log1p(photons)[:, None])
        features = torch.cat([self.describe(conditions), total], 1)
        return features, self.place(self.derive.cell(conditions), features)

    def prepare(self, counts: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Maps counts and dequantizing noise to what a flow sees.

        Args:
            counts: photons, (B, D).
            u: uniforms, (B, D).

        Returns:
            Y, (B, D), and ln |dY / dv|, (B,).
        """
        if self.gap is not None:
            image = self.standardize_cells(self.gap(counts + u))
            return image, (self.gap.log_slope(counts + u) - torch.log(self.standardize_cells.scale)).sum(1)
        one_more = counts.sum(1, keepdim=True) + 1
        x = (counts + u) / one_more
        y = self.logit(x) + torch.log(one_more)
        image = self.standardize_cells(y)
        shift = self.logit.edge / (1 - 2 * self.logit.edge)
        slope = 1 / (x + shift) + 1 / (1 - x + shift)
        log_det = torch.log(slope / (one_more * self.standardize_cells.scale)).sum(1)
        return image, log_det

    def shares(self, image: Tensor, photons: Tensor) -> Tensor:
        """Maps what a flow gives, (B, D), back to x, (B, D), not negative; photons (B,)."""
        if self.gap is not None:
            v: Tensor = self.gap.inverse(self.standardize_cells.inverse(image))
            return v / (photons[:, None] + 1)
        y = self.standardize_cells.inverse(image) - torch.log1p(photons)[:, None]
        x: Tensor = self.logit.inverse(y)
        return x.clamp(min=0)

    def counts(self, image: Tensor, photons: Tensor, rounding: Rounding) -> Tensor:
        """Maps what a flow gives, (B, D), to photons, (B, *shape); with `none` their dequantizing noise stays."""
        values = self.shares(image, photons) * (photons[:, None] + 1)
        if rounding == "floor":
            values = floor_to_sum(values, photons)
        return values.view(-1, *self.shape)

    def draw_photons(self, conditions: Tensor, noise: Tensor, rounding: Rounding) -> Tensor:
        """Draws photon sums, (B,), from noise (B,); whole ones but for the rounding `none`."""
        photons: Tensor = self.photons(conditions, self.describe(conditions), noise)
        return torch.floor(photons) if rounding == "floor" else photons

    def refit(self, train: EventSource) -> None:
        """Fits the normalization to training events."""
        conditions = torch.from_numpy(train.primaries.conditions)
        self.standardize.refit(torch.cat([self.derive(conditions), self.bend(conditions)], 1))
        self.photons.refit(train)
        self.standardize_sum.refit(torch.log1p(torch.from_numpy(photon_sums(train)))[:, None])
        _, counts = self.tensors(spread_rows(train, 2048))
        uniform = np.random.default_rng(0).random(tuple(counts.shape), np.float32)
        self.standardize_cells.refit(torch.zeros(1, 1))  # mean 0 and scale 1
        image, _ = self.prepare(counts, torch.from_numpy(uniform).to(counts.device))
        self.standardize_cells.refit(image.reshape(-1, 1))

    def stages(self, events: int) -> list[Stage]:
        """Returns the stages of the photon sum and of the expected place."""
        return [
            self.photons.stage(self.describe, self.validation_events, events),
            self._place_stage(events),
        ]

    def _place_stage(self, events: int) -> Stage:
        def distance(conditions: Tensor, counts: Tensor) -> Tensor:
            _, predicted = self.given(conditions, counts.sum(1))
            image = counts.view(-1, *self.shape)
            total = image.sum((1, 2)).clamp(min=1)
            rows, columns = (torch.arange(size, device=predicted.device).float() for size in self.shape)
            middle = torch.stack([image.sum(2) @ rows, image.sum(1) @ columns], 1) / total[:, None]
            return nn.functional.huber_loss(predicted, middle, reduction="none").sum(1)

        def loss(_: nn.Module, batch: Events, rng: BatchRandom) -> Tensor:
            return distance(*self.batch(batch, rng))

        @torch.no_grad()
        def scores(source: EventSource) -> Mapping[str, float]:
            reference = spread_rows(source, self.validation_events)
            return {"distance": float(distance(*self.tensors(reference)).mean())}

        return LossStage("place", self.place, loss, scores, self._place_config, events)

    def batch(self, batch: Events, rng: BatchRandom) -> tuple[Tensor, Tensor]:
        """Returns conditions (B, F) and counts (B, D), half of the events mirrored where that is asked for."""
        if self.mirror:
            batch = augmented(batch, rng, mirror=True, move=False, transport=False)
        return self.tensors(batch)

    def tensors(self, events: Events) -> tuple[Tensor, Tensor]:
        """Returns conditions (B, F) and counts (B, D)."""
        device = self.standardize.mean.device
        counts = torch.from_numpy(events.responses.astype(np.float32)).flatten(1)
        return torch.from_numpy(events.conditions).to(device), counts.to(device)
