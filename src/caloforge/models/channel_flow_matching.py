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
holds for modules and a beam line that are the same above and below, not for a vertical crossing angle.

Besides the standardised features the network sees, with `derived`, what they mean at the detector:

- (x, y), where the straight line of the particle meets the plane of the detector's face, as it is and as
  arcsinh(x / EDGE), which is fine near the axis, where the quadrants meet;
- ln E, and arcsinh(vz / VERTEX), since decays make vz heavy-tailed;
- for neutral particles the place within the grid of fibres: with a = pi x / pitch and b = pi y / pitch, the
  products of sin a, cos a with sin b, cos b, and their harmonics. Fibres alternate between two readouts like
  the fields of a chessboard, so sin a sin b says in which of them a narrow photon shower starts, and the
  harmonics how near to a fibre.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from caloforge.detectors import Detector
from caloforge.events import Events, EventSource, in_slices
from caloforge.metrics.channels import mean_wasserstein
from caloforge.models.base import BatchRandom, LossStage, Readout, Stage, generate_in_memory
from caloforge.ode.path import cfm_loss
from caloforge.ode.solvers import SolverConfig, integrate
from caloforge.optim import AdamConfig
from caloforge.transforms import Standardize

EDGE = 0.1
"""Length, in cm, below which the position is resolved linearly near the axis."""

VERTEX = 0.01
"""Length, in cm, below which vz is resolved linearly."""

LIMIT = 10.0
"""Standard deviations at which the network's inputs are cut off: their tails are long."""

_NEEDED = ("energy", "vx", "vy", "vz", "px", "py", "pz", "charge")


class ChannelFlowMatchingConfig(BaseModel):
    """Network, solver and training of the flow matching of channel sums.

    Attributes:
        channels: name of the channel map.
        derived: adds the derived features; needs a detector with a face, a pitch and the ZDC's features.
        scale: the function f of the module's docstring; `root` needs the feature energy.
        mirror: trains on mirrored events too; needs an axis y and the features vy, py.
        width: of every hidden layer.
        blocks: residual blocks.
        solver: method and steps of the sampling; may be changed after the training.
        rounding: `floor` or `none`; may be changed after the training.
        optimizer: rates and schedule.
        epochs: passes through the training events.
        batch_size: events a step.
        average: decay of the moving average of the weights; 0 keeps none.
        validation_events: events generated for each validation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: str = "paper"
    derived: bool = True
    scale: Literal["root", "log"] = "root"
    mirror: bool = True
    width: int = Field(128, ge=1)
    blocks: int = Field(4, ge=1)
    solver: SolverConfig = SolverConfig(steps=16)
    rounding: Literal["floor", "none"] = "floor"
    optimizer: AdamConfig = AdamConfig(learning_rate=2e-3, schedule="cosine", warmup=0.05)
    epochs: int = Field(40, ge=1)
    batch_size: int = Field(256, ge=1)
    average: float = Field(0.999, ge=0, lt=1)
    validation_events: int = Field(4096, ge=2)


class DerivedFeatures(nn.Module):
    """Appends the derived features of the module's docstring to the conditions.

    Args:
        detector: a detector with a face, a pitch and the features energy, vertex, momentum and charge.

    Raises:
        ValueError: the detector lacks one of them.
    """

    size = 17

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        if detector.face is None or detector.pitch is None or not set(_NEEDED) <= set(detector.features):
            raise ValueError(
                f"derived features need a face, a pitch and the conditions {', '.join(_NEEDED)}; "
                f"{detector.name} has face {detector.face}, pitch {detector.pitch} and "
                f"{', '.join(detector.features)}: set model.derived = false"
            )
        self._face, self._pitch = detector.face, detector.pitch
        self._columns = [detector.features.index(name) for name in _NEEDED]

    def forward(self, conditions: Tensor) -> Tensor:
        """Maps conditions in physical units, (B, F), to (B, F + size)."""
        # float64: the place within a fibre is a small part of the path from the vertex
        exact = conditions.double()
        energy, vx, vy, vz, px, py, pz, charge = (exact[:, column] for column in self._columns)
        ahead = pz.abs().clamp(min=1e-6)
        length = self._face - torch.sign(pz) * vz
        x, y = vx + px / ahead * length, vy + py / ahead * length
        neutral = (charge == 0).double()
        a, b = math.pi * x / self._pitch, math.pi * y / self._pitch
        within = [
            torch.sin(a) * torch.sin(b),
            torch.sin(a) * torch.cos(b),
            torch.cos(a) * torch.sin(b),
            torch.cos(a) * torch.cos(b),
            torch.sin(2 * a),
            torch.cos(2 * a),
            torch.sin(2 * b),
            torch.cos(2 * b),
            torch.cos(2 * a) * torch.cos(2 * b),
            torch.cos(4 * a),
            torch.cos(4 * b),
        ]
        derived = [
            x,
            y,
            torch.asinh(x / EDGE),
            torch.asinh(y / EDGE),
            torch.log(energy),
            torch.asinh(vz / VERTEX),
            *(neutral * wave for wave in within),
        ]
        return torch.cat([conditions, torch.stack(derived, 1).to(conditions.dtype)], 1)


class Block(nn.Module):
    """A residual block whose normalisation is shifted, scaled and gated by time and conditions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.first, self.last = nn.Linear(width, width), nn.Linear(width, width)
        self.modulation = nn.Linear(width, 3 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        """Maps h and the embedding, both (B, width), to (B, width)."""
        scale, shift, gate = self.modulation(embedding).chunk(3, dim=1)
        inner = nn.functional.silu(self.first(self.norm(h) * (1 + scale) + shift))
        change: Tensor = gate * self.last(inner)
        return h + change


class VelocityNetwork(nn.Module):
    """Velocity of K numbers, given time and conditions.

    Args:
        outputs: K.
        features: F, the numbers of the standardised conditions.
        width: of every hidden layer.
        blocks: residual blocks.
    """

    def __init__(self, outputs: int, features: int, width: int, blocks: int) -> None:
        super().__init__()
        self.condition = nn.Sequential(nn.Linear(features, width), nn.SiLU(), nn.Linear(width, width))
        self.time = nn.Sequential(nn.Linear(16, width), nn.SiLU(), nn.Linear(width, width))
        self.first = nn.Linear(outputs, width)
        self.blocks = nn.ModuleList([Block(width) for _ in range(blocks)])
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.last = nn.Linear(width, outputs)
        nn.init.zeros_(self.last.weight)
        self.frequencies: Tensor
        self.register_buffer("frequencies", math.pi * 2.0 ** torch.arange(-1, 7), persistent=False)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """Returns the velocity, (B, K).

        Args:
            x: (B, K).
            t: times in [0, 1], (B,).
            condition: what `condition` makes of the standardised conditions, (B, width).
        """
        phase = t[:, None] * self.frequencies
        embedding = nn.functional.silu(condition + self.time(torch.cat([phase.sin(), phase.cos()], 1)))
        h = self.first(x)
        for block in self.blocks:
            h = block(h, embedding)
        velocity: Tensor = self.last(nn.functional.silu(self.norm(h)))
        return velocity


class ChannelFlowMatching(Readout):
    """Generates channel sums by integrating a learned velocity.

    Args:
        detector: the detector to imitate.
        config: sizes and training.
    """

    config_class: ClassVar[type[BaseModel]] = ChannelFlowMatchingConfig

    def __init__(self, detector: Detector, config: ChannelFlowMatchingConfig) -> None:
        super().__init__()
        self.detector, self.config, self.channels = detector, config, config.channels
        outputs = len(detector.channel_map(config.channels).labels)
        self.noise_dim = outputs
        for wanted, needs in ((config.scale == "root", {"energy"}), (config.mirror, {"vy", "py"})):
            if wanted and not needs <= set(detector.features):
                raise ValueError(
                    "model.scale = 'root' needs the condition energy and model.mirror needs vy and py; "
                    f"{detector.name} has {', '.join(detector.features)}"
                )
        if config.mirror and "y" not in detector.axes:
            raise ValueError(f"model.mirror needs an axis y; {detector.name} has {', '.join(detector.axes)}")
        features = len(detector.conditions)
        self.derive = DerivedFeatures(detector) if config.derived else nn.Identity()
        features += DerivedFeatures.size if config.derived else 0
        self.standardize = Standardize(features)
        self.standardize_sums = Standardize(outputs)
        self.network = VelocityNetwork(outputs, features, config.width, config.blocks)

    def forward(self, conditions: Tensor, noise: Tensor) -> Tensor:
        """Generates channel sums, (B, K), from conditions (B, F) and noise (B, K)."""
        condition = self.network.condition(self._features(conditions))
        x = integrate(lambda x, t: self.network(x, t, condition), noise, self.config.solver)
        sums = self._unscaled(self.standardize_sums.inverse(x), conditions)
        if self.config.rounding == "none":
            return (sums - 0.5).clamp(min=0)
        return torch.floor(sums).clamp(min=0)

    def stages(self, train: EventSource) -> Sequence[Stage]:
        """Fits the standardisations and returns the one stage."""
        config = self.config
        device = self.standardize.mean.device
        conditions = torch.from_numpy(train.primaries.conditions).to(device)
        self.standardize.refit(self.derive(conditions))
        sums = torch.from_numpy(channel_sums(train, self.channels)).to(device)
        self.standardize_sums.refit(self._scaled(sums + 0.5, conditions))
        trained = copy.deepcopy(self.network) if config.average else self.network

        def loss(batch: Events, rng: BatchRandom) -> Tensor:
            conditions, responses = batch.conditions, batch.responses
            if config.mirror:
                chosen = (rng.uniform() < 0.5).cpu().numpy()
                conditions, responses = mirrored(self.detector, conditions, responses, chosen)
            counts = torch.from_numpy(self.detector.readout(responses, self.channels)).float().to(device)
            features = torch.from_numpy(conditions).to(device)
            x1 = self.standardize_sums(self._scaled(counts + rng.uniform(counts.shape[1]), features))
            condition = trained.condition(self._features(features))
            x0, t = rng.normal(x1.shape[1]), rng.uniform()
            return cfm_loss(lambda x, time: trained(x, time, condition), x0, x1, t)

        return [
            LossStage(
                "velocity",
                trained,
                loss,
                self.scores,
                config.optimizer,
                epochs=config.epochs,
                batch_size=config.batch_size,
                events=len(train),
                average=self.network if config.average else None,
                decay=config.average,
            )
        ]

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


def mirrored(
    detector: Detector,
    conditions: NDArray[np.float32],
    responses: NDArray[np.generic],
    rows: NDArray[np.bool_],
) -> tuple[NDArray[np.float32], NDArray[np.generic]]:
    """Mirrors some events, y -> -y.

    Args:
        detector: a detector with an axis y and the features vy, py.
        conditions: (N, F).
        responses: (N, *shape).
        rows: the events to mirror, (N,).

    Returns:
        conditions and responses, as new arrays.
    """
    columns = np.array([detector.features.index(name) for name in ("vy", "py")])
    conditions, responses = conditions.copy(), responses.copy()
    conditions[np.ix_(rows, columns)] *= -1
    responses[rows] = np.flip(responses[rows], 1 + list(detector.axes).index("y"))
    return conditions, responses


def channel_sums(source: EventSource, channels: str) -> NDArray[np.float64]:
    """Reads the channel sums of a source slice by slice, (N, K)."""
    detector = source.primaries.detector
    return np.concatenate([detector.readout(events.responses, channels) for events in in_slices(source)])


def energy_score(reference: NDArray[np.float64], generated: NDArray[np.float64]) -> float:
    """Computes the energy score of generated distributions, one for each row; lower is better.

    (1/N) sum_k [ (1/S) sum_s |x_ks - w_k| - 1/(2 S (S - 1)) sum_(s, s') |x_ks - x_ks'| ], with |.| the
    Euclidean norm over channels. It is proper (Gneiting and Raftery 2007): no other distribution has a lower
    mean than the true one, so it needs no repeated particles.

    Args:
        reference: one simulated response a particle, w, (N, K).
        generated: S > 1 responses for each of the same particles, x, (S, N, K).
    """
    draws = len(generated)
    error = np.linalg.norm(generated - reference, axis=2).mean()
    pairs = [
        np.linalg.norm(generated[i] - generated[j], axis=1).mean() for i in range(draws) for j in range(i)
    ]
    return float(error - np.mean(pairs) / 2)
