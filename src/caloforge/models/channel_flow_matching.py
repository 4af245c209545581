"""Flow matching of channel sums (the direct generator of Wojnar 2025): no image, only what is read out.

The sums n (K,) of a particle are integers; with a uniform u in [0, 1) they are seen as

    x_1 = standardised f(n + u),    f(y) = sqrt(y / E) ("root") or ln(1 + y) ("log"),

E the energy of the particle. A residual network learns the velocity of the straight path from noise to x_1,

    x_t = (1 - t) x_0 + t x_1,    loss = E | v(x_t, t, c) - (x_1 - x_0) |^2,    x_0 ~ N(0, 1), t ~ U(0, 1).

A generator integrates v from its noise and returns max(floor(f^-1(x)), 0). The noise u makes the integers
continuous and the floor takes it off again, so rounding is exact where the flow is: it shifts no mean.
`rounding = "none"` returns max(f^-1(x) - 1/2, 0), the mean over u.

The root and not the publication's logarithm is the default: relative to its spread it resolves the large
sums, which carry the photons, several times finer, and light is nearly proportional to the energy.

With `mirror`, training sees each event mirrored, y -> -y, half of the time: image, vertex and momentum. This
holds where module and beam line are the same above and below. Magnets are not the same for a charged particle's mirror
image; with `transport` it is aimed at where they bring it to the mirror image of its place
(`models.parts.images.mirrored`).

With `move`, half of the photons that nothing is in the way of are moved across the face by whole cells
(`models.parts.images.moved`): their light is the same wherever they enter. With `thin` half of the photons get a part
of their energy and of their light (`models.parts.images.thinned`).

With `derived` the network sees, besides the standardised features, what they mean at the detector
(`models.parts.particle_features.ImpactFeatures`), with `transport` also what the magnets before it do to charged
particles (`ParticleFeatures` with `TransportFeatures`).
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
from caloforge.metrics.channels import energy_score, mean_wasserstein
from caloforge.models.base import BatchRandom, Readout, Stage
from caloforge.models.parts.bayesian import BayesianConfig, make_sums_bayesian, sums_stages
from caloforge.models.parts.images import augmented, channel_sums, check_moved, check_thinned, half_thinned
from caloforge.models.parts.inference import generate_in_memory
from caloforge.models.parts.particle_features import ImpactFeatures, ParticleFeatures
from caloforge.models.parts.sums import reflected
from caloforge.nn.velocity_network import VelocityNetwork
from caloforge.ode.path import cfm_loss
from caloforge.ode.solvers import RuleConfig, integrate
from caloforge.optim import AdamConfig
from caloforge.transforms import Standardize

LIMIT = 10.0
"""Standard deviations at which the network's inputs are cut off: their tails are long."""


class ChannelFlowMatchingConfig(BaseModel):
    """Network, solver and training of the flow matching of channel sums; a `TrainingSection`.

    Attributes:
        channels: name of the channel map.
        derived: adds the derived features; needs a detector with a face, a pitch and the ZDC's features.
        transport: adds these and what magnets do; needs a detector that says where they bring charged particles. With
            `mirror` charged particles are aimed at where magnets bring them to the mirror image of their place.
        grooves: adds these and how deep a neutral particle flies along the groove of a fibre; needs a detector that
            knows them.
        species: adds these and which species a neutral particle is, one number for each; needs the condition mass.
        scale: the function f of the module's docstring; `root` needs the feature energy.
        mirror: trains on mirrored events too; needs an axis y and the features vy, py.
        move: trains on photons moved by whole cells too; needs a face with a window (`detectors.Face`).
        thin: trains half of the photons with a part of their energy and light (`models.parts.images.thinned`).
        width: of every hidden layer.
        blocks: residual blocks.
        solver: method and steps of the sampling; may be changed after the training.
        rounding: `floor` or `none`; may be changed after the training.
        least: photons of the faintest response in the data: fainter ones that are drawn are reflected
            (`models.parts.sums.reflected`), where sums are rounded; may be changed after the training.
        average: decay of the moving average of the weights; 0 keeps none.
        validation_events: events generated for each validation.
        bayesian: Gaussian weights and their replicas; none where not given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: str = "paper"
    derived: bool = True
    transport: bool = False
    grooves: bool = False
    species: bool = False
    scale: Literal["root", "log"] = "root"
    mirror: bool = False
    move: bool = False
    thin: bool = False
    width: int = Field(128, ge=1)
    blocks: int = Field(4, ge=1)
    solver: RuleConfig = RuleConfig(steps=16)
    rounding: Literal["floor", "none"] = "floor"
    least: int = Field(0, ge=0)
    optimizer: AdamConfig = AdamConfig(learning_rate=2e-3, schedule="cosine", warmup=0.05)
    epochs: int = Field(40, ge=1)
    batch_size: int = Field(256, ge=1)
    average: float = Field(0.999, ge=0, lt=1)
    validation_events: int = Field(4096, ge=2)
    bayesian: BayesianConfig | None = None


class ChannelFlowMatching(Readout):
    """Generates channel sums by integrating a learned velocity.

    Args:
        detector: the detector to imitate.
        config: sizes and training.
    """

    config_class: ClassVar[type[BaseModel]] = ChannelFlowMatchingConfig
    sampling: ClassVar[tuple[str, ...]] = ("solver", "rounding", "least")

    def __init__(self, detector: Detector, config: ChannelFlowMatchingConfig) -> None:
        super().__init__()
        self.detector, self.config, self.channels = detector, config, config.channels
        outputs = len(detector.channel_map(config.channels).labels)
        self.noise_dim = outputs
        for asked, needs in ((config.scale == "root", {"energy"}), (config.mirror, {"vy", "py"})):
            if asked and not needs <= set(detector.features):
                raise ValueError(
                    "model.scale = 'root' needs the condition energy and model.mirror needs vy and py; "
                    f"{detector.name} has {', '.join(detector.features)}"
                )
        if config.mirror and "y" not in detector.axes:
            raise ValueError(f"model.mirror needs an axis y; {detector.name} has {', '.join(detector.axes)}")
        if config.move:
            check_moved(detector)
        if config.thin:
            check_thinned(detector)
        features = len(detector.conditions)
        self.derive: ParticleFeatures | ImpactFeatures | nn.Identity
        if config.transport or config.grooves or config.species:
            self.derive = ParticleFeatures(detector, config.transport, config.grooves, config.species)
        else:
            self.derive = ImpactFeatures(detector) if config.derived else nn.Identity()
        features = features if isinstance(self.derive, nn.Identity) else self.derive.size
        self.standardize = Standardize(features)
        self.standardize_sums = Standardize(outputs)
        self.network = VelocityNetwork(outputs, features, config.width, config.blocks)
        make_sums_bayesian(self.network, config.bayesian)

    def forward(self, conditions: Tensor, noise: Tensor) -> Tensor:
        """Generates channel sums, (B, K), from conditions (B, F) and noise (B, K)."""
        condition = self.network.condition(self._features(conditions))
        x = integrate(lambda x, t: self.network(x, t, condition), noise, self.config.solver)
        sums = self._unscaled(self.standardize_sums.inverse(x), conditions)
        if self.config.rounding == "none":
            return (sums - 0.5).clamp(min=0)
        return reflected(torch.floor(sums).clamp(min=0), self.config.least)

    def stages(self, train: EventSource) -> Sequence[Stage]:
        """Fits the standardisations and returns the one stage."""
        config = self.config
        device = self.standardize.mean.device
        conditions = torch.from_numpy(train.primaries.conditions).to(device)
        self.standardize.refit(self.derive(conditions))
        sums = torch.from_numpy(channel_sums(train, self.channels)).to(device)
        self.standardize_sums.refit(self._scaled(sums + 0.5, conditions))

        def loss(network: VelocityNetwork, batch: Events, rng: BatchRandom) -> Tensor:
            batch = augmented(batch, rng, mirror=config.mirror, move=config.move, transport=config.transport)
            if config.thin:
                batch = half_thinned(batch, rng, config.least)
            counts = (
                torch.from_numpy(self.detector.readout(batch.responses, self.channels)).float().to(device)
            )
            features = torch.from_numpy(batch.conditions).to(device)
            x1 = self.standardize_sums(self._scaled(counts + rng.uniform(counts.shape[1]), features))
            condition = network.condition(self._features(features))
            x0, t = rng.normal(x1.shape[1]), rng.uniform()
            return cfm_loss(lambda x, time: network(x, time, condition), x0, x1, t)

        bayesian, average = config.bayesian, config.average
        return sums_stages("velocity", self.network, loss, self.scores, config, bayesian, len(train), average)

    def scores(self, source: EventSource) -> Mapping[str, float]:
        """Generates each of some events four times and compares.

        The energy score comes first and chooses the best weights: it sees the distribution of each single
        particle, and W1 on so few events does not tell good weights from better ones.
        """
        rows = np.linspace(0, len(source) - 1, min(self.config.validation_events, len(source))).astype(
            np.intp
        )
        reference = source.slices(rows)
        true = self.detector.readout(reference.responses, self.channels)
        generated = np.stack([generate_in_memory(self, reference.conditions, seed=seed) for seed in range(4)])
        return {
            "energy_score": energy_score(true, generated.astype(np.float64)),
            "w1": mean_wasserstein(true, generated[0].astype(np.float64)),
        }

    def _features(self, conditions: Tensor) -> Tensor:
        features: Tensor = self.standardize(self.derive(conditions))
        return features.clamp(-LIMIT, LIMIT)

    def _scaled(self, sums: Tensor, conditions: Tensor) -> Tensor:
        return (
            torch.sqrt(sums / self._energy(conditions)) if self.config.scale == "root" else torch.log1p(sums)
        )

    def _unscaled(self, scaled: Tensor, conditions: Tensor) -> Tensor:
        if self.config.scale == "root":
            return scaled.clamp(min=0).square() * self._energy(conditions)
        return torch.expm1(scaled)

    def _energy(self, conditions: Tensor) -> Tensor:
        column = self.detector.features.index("energy")
        return conditions[:, column : column + 1]
