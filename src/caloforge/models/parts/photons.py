"""How many photons a particle gives: a conditional density of one number, exact and drawn in one pass.

With N photons, the energy E of the particle and a uniform u, s = standardised sqrt((N + u) / E); a network of the
particle gives shift a, ln scale b and the parameters m of a rational-quadratic spline, so that

    z = spline((s - a) exp(-b); m)

is a standard normal where the density is right. Training raises ln p(s) = ln N(z; 0, 1) + ln |dz / ds|. Drawn from a
normal z the map is undone and the floor taken; sums beyond those of the training do not come out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from caloforge.detectors import Detector
from caloforge.events import Events, EventSource
from caloforge.metrics.channels import wasserstein
from caloforge.models.base import BatchRandom, Stage
from caloforge.models.parts.images import channel_sums
from caloforge.models.parts.inference import spread_rows
from caloforge.models.parts.stage import LossStage
from caloforge.nn.autoregressive import log_normal, spline
from caloforge.nn.residual_mlp import ResidualMLP
from caloforge.nn.rounding import normal_to_uniform
from caloforge.optim import AdamConfig
from caloforge.runtime.noise import standard_normals
from caloforge.transforms import Standardize

BOUND = 5.0
"""The spline maps [-5, 5] to itself: all but a millionth of normals."""


class PhotonsConfig(BaseModel):
    """Network and training of the photon sum; a `TrainingSection`.

    Attributes:
        width: of the residual layers.
        layers: residual layers.
        bins: of the spline.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = Field(128, ge=1)
    layers: int = Field(3, ge=1)
    bins: int = Field(12, ge=2)
    optimizer: AdamConfig = AdamConfig(
        learning_rate=2e-3, schedule="cosine", warmup=0.1, weight_decay=0.02, gradient_clip=5.0
    )
    epochs: int = Field(25, ge=1)
    batch_size: int = Field(256, ge=1)


class Photons(nn.Module):
    """Density of the photon sum given the particle.

    Args:
        detector: a detector that counts photons and has a feature `energy`.
        features: numbers that describe the particle.
        config: sizes and training.
    """

    def __init__(self, detector: Detector, features: int, config: PhotonsConfig) -> None:
        super().__init__()
        self.detector, self.config = detector, config
        self._energy = detector.features.index("energy")
        self.standardize = Standardize(1)
        self.network = ResidualMLP(features, 3 * config.bins + 1, config.width, config.layers)
        nn.init.zeros_(self.network.last.weight)
        nn.init.zeros_(self.network.last.bias)
        self.range: Tensor
        self.register_buffer("range", torch.tensor([0.0, 2.0**16]))

    def refit(self, train: EventSource) -> None:
        """Sets normalization and range from training events."""
        photons = torch.from_numpy(photon_sums(train))
        energies = self._energies(torch.from_numpy(train.primaries.conditions))
        self.standardize.refit(torch.sqrt((photons[:, None] + 0.5) / energies))
        self.range.copy_(torch.stack([photons.min(), photons.max()]))

    def noise(self, conditions: Tensor, features: Tensor, photons: Tensor) -> tuple[Tensor, Tensor]:
        """Returns z, (B,), and ln |dz / dN|, (B,).

        Args:
            conditions: physical units, (B, F).
            features: of the particle, (B, features).
            photons: sums, with their dequantizing noise, above 0, (B,).
        """
        root = torch.sqrt(photons[:, None] / self._energies(conditions))
        shift, scale, parameters = self._map(features)
        t = (self.standardize(root)[:, 0] - shift) * torch.exp(-scale)
        z, slope = spline(parameters, BOUND).call_and_ladj(t)
        # ds / dN = s / (2 N) of the root before it is standardised
        jacobian = torch.log(root[:, 0] / (2 * photons)) - torch.log(self.standardize.scale[0])
        return z, slope - scale + jacobian

    def forward(self, conditions: Tensor, features: Tensor, noise: Tensor) -> Tensor:
        """Draws photon sums before the floor, (B,), from conditions (B, F), features and one normal each, (B,)."""
        shift, scale, parameters = self._map(features)
        t = spline(parameters, BOUND).inv(noise) * torch.exp(scale) + shift
        root = self.standardize.inverse(t[:, None]).clamp(min=0)
        photons = (root.square() * self._energies(conditions))[:, 0]
        # "not within" is true of NaN too: what is impossible becomes the least the detector gives
        within = (photons >= self.range[0]) & (photons < self.range[1] + 1)
        return torch.where(
            within, photons, torch.where(photons > self.range[1], self.range[1], self.range[0])
        )

    def stage(self, describe: Callable[[Tensor], Tensor], validation_events: int, events: int) -> Stage:
        """Returns the stage of the training.

        Args:
            describe: conditions (B, F) to features (B, features).
            validation_events: events of each validation.
            events: number of training events.
        """

        def likelihood(batch: Events, u: Tensor) -> Tensor:
            conditions = torch.from_numpy(batch.conditions).to(self.range.device)
            counts = batch.responses.reshape(len(batch), -1).sum(1, dtype=np.float64)
            photons = torch.from_numpy(counts.astype(np.float32)).to(u.device) + u
            z, jacobian = self.noise(conditions, describe(conditions), photons)
            return log_normal(z[:, None]) + jacobian

        def loss(_: nn.Module, batch: Events, rng: BatchRandom) -> Tensor:
            return -likelihood(batch, rng.uniform())

        @torch.no_grad()
        def scores(source: EventSource) -> Mapping[str, float]:
            reference = spread_rows(source, validation_events)
            noise = torch.from_numpy(standard_normals(0, np.arange(len(reference)), 2)).to(self.range.device)
            conditions = torch.from_numpy(reference.conditions).to(self.range.device)
            drawn = torch.floor(self(conditions, describe(conditions), noise[:, 0])).double().cpu().numpy()
            nll = -likelihood(reference, normal_to_uniform(noise[:, 1])).mean()
            return {"nll": float(nll), "w1": wasserstein(photon_sums(reference), drawn)}

        return LossStage("photons", self.network, loss, scores, self.config, events)

    def _map(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns shift (B,), ln scale (B,) and the parameters of the spline, (B, 3 bins - 1)."""
        outputs = self.network(features)
        scale: Tensor = 5 * torch.tanh(outputs[:, 1] / 5)
        return outputs[:, 0], scale, outputs[:, 2:]

    def _energies(self, conditions: Tensor) -> Tensor:
        return conditions[:, self._energy : self._energy + 1]


def photon_sums(source: EventSource) -> NDArray[np.float64]:
    """Reads the photon sums of a source, (N,) float64."""
    return np.asarray(channel_sums(source, source.primaries.detector.default_channels).sum(1))
