"""Zero response: the probability that a primary leaves a response at all, and in which module.

Most primaries leave none: they miss, or what they turn into does. Generators are trained on events that have a
response; before they are asked, this classifier decides whether there is one.

Probabilities. One primary may reach both modules of its side, so the outcomes are four: nothing, ZN alone, ZP
alone, both. A network gives their probabilities q by a softmax, and

    P(ZN) = q_ZN + q_both,   P(ZP) = q_ZP + q_both,   P(any) = q_ZN + q_ZP + q_both,

which are consistent whatever the network says: max(P(ZN), P(ZP)) <= P(any) <= P(ZN) + P(ZP).

Training. A primary that was shot n times with n_k outcomes of kind k has the loss

    -sum_k n_k ln q_k / (1 + (n - 1) r),

the likelihood of its trials, binomial for each of the three, over the design effect of shots that are alike: what a
network cannot know of a primary is the same in all its shots (correlation r), so fifteen shots of one tell less than
one shot of fifteen. The weight looks at n alone, so nothing moves the probabilities from the observed fractions.

Features. The derived features of `models.parts.particle_features.ImpactFeatures`; how far within the edges of both
modules the straight line passes, as arcsinh(distance / EDGE), fine near the edges; what the magnets make of the
particle: the side it flies to, since the beam lines of the two sides differ, and its curvature, arcsinh(STIFF q / p);
and its kind, as one number for each interval of the mass, since a Lambda is near a neutron in mass and far in what
becomes of it. With `grooves` also how deep a neutral particle flies along the groove of a fibre: most of those that
stay in one leave no light.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from caloforge.detectors import Detector
from caloforge.events import Events, EventSource
from caloforge.models.base import BatchRandom, Classifier, Stage
from caloforge.models.parts.inference import probabilities_in_memory
from caloforge.models.parts.particle_features import GrooveFeatures, ImpactFeatures
from caloforge.models.parts.stage import LossStage
from caloforge.nn.residual_mlp import ResidualMLP
from caloforge.optim import AdamConfig
from caloforge.transforms import Standardize
from caloforge.trials import OUTCOMES, Trials

LIMIT = 10.0
"""Standard deviations at which the network's inputs are cut off: their tails are long."""

EDGE = 0.2
"""Distance in cm from an edge below which it is resolved linearly."""

BESIDE = ((18.9, 36.0), (-6.5, 6.5))
"""Where straight lines meet the ZP, beside the beam, at the face of the ZN: x and y in cm.

From neutral training primaries; towards large x the beam line shades it.
"""

KINDS = (0.05, 0.12, 0.3, 0.8, 1.02, 1.15, 1.25, 1.4)
"""Masses in GeV between electrons, muons, pions, kaons, nucleons, Lambda, Sigma, Xi and Omega."""

STIFF = 3000.0
"""Momentum in GeV above which the curvature is resolved linearly."""


class ZeroResponseConfig(BaseModel):
    """Network and training.

    Attributes:
        width: of every hidden layer.
        layers: residual layers.
        dropout: share of a residual layer's outputs that is dropped in training.
        correlation: r of the module's docstring; 0 counts every shot fully.
        grooves: adds `models.parts.particle_features.GrooveFeatures`; needs a detector that has them.
        optimizer: rates and schedule.
        epochs: passes through the training primaries.
        batch_size: primaries a step.
        average: decay of the moving average of the weights; 0 keeps none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = Field(128, ge=1)
    layers: int = Field(4, ge=1)
    dropout: float = Field(0.2, ge=0, lt=1)
    correlation: float = Field(0.2, ge=0, le=1)
    grooves: bool = False
    optimizer: AdamConfig = AdamConfig(
        learning_rate=2e-3, weight_decay=0.01, schedule="cosine", warmup=0.05, gradient_clip=1.0
    )
    epochs: int = Field(24, ge=1)
    batch_size: int = Field(512, ge=1)
    average: float = Field(0.999, ge=0, lt=1)


class ZeroResponse(Classifier):
    """Gives the probabilities of a response in ZN, in ZP, in any.

    Args:
        detector: whose features, face and pitch the primaries are described by.
        config: size and training.
    """

    config_class: ClassVar[type[BaseModel]] = ZeroResponseConfig
    outcomes: ClassVar[tuple[str, ...]] = OUTCOMES

    def __init__(self, detector: Detector, config: ZeroResponseConfig) -> None:
        super().__init__()
        self.detector, self.config = detector, config
        self.derive = ImpactFeatures(detector)
        if "mass" not in detector.features:
            raise ValueError(
                f"zero_response needs the condition mass; {detector.name} has {', '.join(detector.features)}"
            )
        pitch, face = detector.pitch, detector.face
        assert pitch is not None  # or the derived features had refused it
        assert face is not None
        centred = [
            (centre - size * pitch / 2, centre + size * pitch / 2)
            for centre, size in zip((face.x, face.y), detector.shape, strict=True)
        ]
        self.edges: Tensor
        self.register_buffer("edges", torch.tensor([centred, BESIDE]), persistent=False)
        self.kinds: Tensor
        self.register_buffer("kinds", torch.tensor(KINDS), persistent=False)
        self.grooves = GrooveFeatures(detector) if config.grooves else None
        size = self.derive.size + 9 + len(KINDS) + 1 + (self.grooves.size if self.grooves else 0)
        self.standardize = Standardize(size)
        self.network = ResidualMLP(size, len(OUTCOMES) + 1, config.width, config.layers)

    def forward(self, conditions: Tensor) -> Tensor:
        """Returns P(ZN), P(ZP) and P(any), (B, 3), from conditions (B, F)."""
        nothing, first, second, both = self._logarithms(self.network, conditions).exp().unbind(1)
        del nothing
        return torch.stack([first + both, second + both, first + second + both], 1).clamp(max=1)

    def stages(self, train: EventSource) -> Sequence[Stage]:
        """Fits the standardisation and returns the one stage."""
        trials, config = cast(Trials, train), self.config
        self.standardize.refit(self._derived(torch.from_numpy(train.primaries.conditions)))
        shots = trials.slices(slice(None)).trials
        mean = float((shots / (1 + (shots - 1) * config.correlation)).mean())

        def loss(network: ResidualMLP, batch: Events, rng: BatchRandom) -> Tensor:
            observed = cast(Trials, batch)
            device = self.standardize.mean.device
            counts = torch.from_numpy(observed.outcomes()).float().to(device)
            masks = None
            if config.dropout:
                masks = (rng.uniform(config.layers, config.width) >= config.dropout) / (1 - config.dropout)
            conditions = torch.from_numpy(observed.conditions).to(device)
            logarithms = self._logarithms(network, conditions, masks)
            weights = (1 + (counts.sum(1) - 1) * config.correlation) * mean
            return -(counts * logarithms).sum(1) / weights

        return [
            LossStage(
                "probabilities", self.network, loss, self._scores, config, len(train), average=config.average
            )
        ]

    def _logarithms(self, network: nn.Module, conditions: Tensor, kept: Tensor | None = None) -> Tensor:
        """Returns ln q of nothing, ZN alone, ZP alone, both, (B, 4)."""
        features = self.standardize(self._derived(conditions)).clamp(-LIMIT, LIMIT)
        return torch.log_softmax(network(features, kept), 1)

    def _derived(self, conditions: Tensor) -> Tensor:
        columns = [self.detector.features.index(name) for name in ("px", "py", "pz", "charge", "mass")]
        px, py, pz, charge, mass = (conditions[:, column] for column in columns)
        momentum = torch.sqrt(px * px + py * py + pz * pz).clamp(min=1e-3)
        side, curvature = torch.sign(pz), torch.arcsinh(STIFF * charge / momentum)
        impact = self.derive.impact(conditions).to(conditions.dtype)[:, None]
        # the nearer edge of either axis, and of both: (B, modules, 3)
        inside = torch.minimum(impact - self.edges[..., 0], self.edges[..., 1] - impact)
        inside = torch.cat([inside, inside.amin(2, keepdim=True)], 2)
        margins = torch.arcsinh(inside / EDGE).flatten(1)
        magnets = torch.stack([side, curvature, side * curvature], 1)
        above = (mass[:, None] > self.kinds).to(conditions.dtype)
        ones = torch.ones_like(above[:, :1])
        kind = torch.cat([ones, above], 1) - torch.cat([above, 0 * ones], 1)
        derived = [self.derive(conditions), margins, magnets, kind]
        if self.grooves is not None:
            derived.append(self.grooves(conditions))
        return torch.cat(derived, 1)

    def _scores(self, source: EventSource) -> Mapping[str, float]:
        trials = cast(Trials, source).slices(slice(None))
        return {"log_loss": log_loss(trials, probabilities_in_memory(self, trials.conditions))}


def log_loss(trials: Trials, probabilities: NDArray[np.float32]) -> float:
    """Returns the mean of -ln q of what happened, over all trials.

    Args:
        trials: primaries and their outcomes.
        probabilities: of ZN, ZP and any, (N, 3).
    """
    counts = trials.outcomes()
    first, second, either = probabilities.astype(np.float64).T
    q = np.stack([1 - either, either - second, either - first, first + second - either], 1)
    return float(-(counts * np.log(np.maximum(q, 1e-7))).sum() / counts.sum())
