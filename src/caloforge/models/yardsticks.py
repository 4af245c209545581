"""Yardsticks: generators that simulate nothing, needed to read the scores of those that do.

Wasserstein distances compare marginal distributions only, so stored training responses score near the floor:

- `resample` returns a random training response, whatever the particle.
- `nearest` returns a response of the training particle nearest in the standardised features.

A surrogate that does not beat `resample` in the conditional metrics has learned nothing about the particle,
one that does not beat `nearest` no more than a look-up. The PDG id is not asked for: mass and charge tell it.

Both keep every training response in their weights, 4 kB a response of 44 x 44 fibres, 26 kB a shower of 6,480
voxels. Of a detector whose one condition is the energy, `nearest` is the shower of the nearest energy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from caloforge.detectors import Detector
from caloforge.events import EventSource, as_counts, load
from caloforge.models.base import Generator, Stage
from caloforge.nn.stored import Stored
from caloforge.transforms import Standardize

_PAIRS = 2**22
"""Distances held at once by the search for the nearest particle."""


class ResampleConfig(BaseModel):
    """There is nothing to choose."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Resample(Generator):
    """Returns a random training response: number floor(u N) of N, with u = Phi(noise)."""

    config_class: ClassVar[type[BaseModel]] = ResampleConfig

    def __init__(self, detector: Detector, config: ResampleConfig) -> None:
        super().__init__()
        self.detector, self.config = detector, config
        self.noise_dim = 1
        self.stored = Stored(responses=_no_responses(detector))

    def forward(self, conditions: Tensor, noise: Tensor) -> Tensor:
        """Returns training responses, (B, *shape), for noise (B, 1); the conditions are not looked at."""
        responses = self.stored["responses"]
        return responses[_choice(noise[:, 0], len(responses))].float()

    def stages(self, train: EventSource) -> Sequence[Stage]:
        """Stores the training responses; there is nothing to train."""
        self.stored.put(responses=_as_stored(self.detector, load(train).responses))
        return []


class NearestConfig(BaseModel):
    """There is nothing to choose."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Nearest(Generator):
    """Returns a response of the nearest training particle; where it has several, the noise picks which.

    Nearest by the Euclidean distance of the features, each standardised over the training rows.
    """

    config_class: ClassVar[type[BaseModel]] = NearestConfig

    def __init__(self, detector: Detector, config: NearestConfig) -> None:
        super().__init__()
        self.detector, self.config = detector, config
        self.noise_dim = 1
        self.standardize = Standardize(len(detector.conditions))
        self.stored = Stored(
            responses=_no_responses(detector),
            particles=torch.empty(0, len(detector.conditions)),
            first=torch.empty(0, dtype=torch.int64),
            count=torch.empty(0, dtype=torch.int64),
        )

    def forward(self, conditions: Tensor, noise: Tensor) -> Tensor:
        """Returns training responses, (B, *shape), for conditions (B, F) and noise (B, 1)."""
        stored = self.stored
        particle = self._nearest(self.standardize(conditions))
        row = stored["first"][particle] + _choice(noise[:, 0], stored["count"][particle])
        return stored["responses"][row].float()

    def stages(self, train: EventSource) -> Sequence[Stage]:
        """Fits the standardisation and stores the training responses; there is nothing to train."""
        events = load(train)
        conditions = torch.from_numpy(events.conditions)
        self.standardize.refit(conditions)
        _, first, count = np.unique(np.sort(events.group), return_index=True, return_counts=True)
        order = np.argsort(events.group, kind="stable")
        self.stored.put(
            responses=_as_stored(self.detector, events.responses[order]),
            particles=self.standardize(conditions[order[first]].to(self.stored["particles"].device)),
            first=torch.from_numpy(first.astype(np.int64)),
            count=torch.from_numpy(count.astype(np.int64)),
        )
        return []

    def _nearest(self, features: Tensor) -> Tensor:
        particles = self.stored["particles"]
        rows = max(_PAIRS // len(particles), 1)
        # By differences and not by a matrix product, whose rounding would depend on the batch.
        mode = "donot_use_mm_for_euclid_dist"
        return torch.cat(
            [
                torch.cdist(chunk, particles, compute_mode=mode).argmin(1)
                for chunk in torch.split(features, rows)
            ]
        )


def _choice(noise: Tensor, count: Tensor | int) -> Tensor:
    """Turns standard normals, (B,), into numbers from 0 to count - 1, each as likely as the others."""
    index = (torch.special.ndtr(noise.double()) * count).long()
    return torch.minimum(index, torch.as_tensor(count - 1, device=index.device))


def _no_responses(detector: Detector) -> Tensor:
    dtype = torch.uint16 if detector.counts else torch.float32
    return torch.empty(0, *detector.shape, dtype=dtype)


def _as_stored(detector: Detector, responses: NDArray[np.generic]) -> Tensor:
    if detector.counts:
        if responses.max() > 65_535:
            raise ValueError(f"a cell must hold at most 65535 photons to be stored, got {responses.max()}")
        return torch.from_numpy(as_counts(responses, whole=True))
    return torch.from_numpy(responses.astype(np.float32))
