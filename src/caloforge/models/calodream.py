"""CaloDREAM: layer energies first, then the shower with exactly these (Favaro et al. 2024, arXiv:2405.09629).

    p(shower | E_inc) = p(energies | E_inc) p(shape | energies, E_inc)

Both factors are flow matching: x_t = (1 - t) x_0 + t x_1, a network learns the velocity x_1 - x_0.

- The energies of the layers: `parts.layer_energies`, one after the other as published, or all at once.
- The shape, by a vision transformer that is told E_inc and all fractions u of the energies: `parts.shower_shapes`.

The shower has the layer energies that were drawn, exactly (`parts.shower_shapes.with_energies`). A layer below `cut` is
empty.

Where the detector has the angles `theta` and `phi` as conditions, both networks are told the direction too, sin(theta)
cos(phi) and sin(theta) sin(phi): of layer energies drawn at once, and without turned showers in the training.

Noise: normals for the energies, then one for each voxel, or latent; where voxels are drawn two more of each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Self, cast

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from caloforge.detectors import Detector
from caloforge.events import Events, EventSource, Selected, in_slices, with_responses
from caloforge.metrics.channels import energy_score, wasserstein
from caloforge.metrics.showers import observe_showers
from caloforge.models.base import BatchRandom, Generator, Stage
from caloforge.models.parts.bayesian import make_bayesian, variational
from caloforge.models.parts.images import channel_sums
from caloforge.models.parts.inference import generate_in_memory
from caloforge.models.parts.layer_energies import (
    AutoregressiveEnergies,
    Energies,
    EnergyConfig,
    JointEnergies,
    LayerSums,
    directions_of,
    energy_of,
    scaled_energy,
)
from caloforge.models.parts.shower_shapes import (
    Context,
    DrawnShapes,
    LatentConfig,
    LatentShapes,
    ShapeConfig,
    Shapes,
    VelocityShapes,
    VoxelShapes,
    shares,
    turned,
    vae_loss,
    with_energies,
)
from caloforge.models.parts.stage import LossStage, average_stage, scores_without, solver_stage
from caloforge.nn.velocity_network import VelocityNetwork
from caloforge.nn.vit import ViT
from caloforge.nn.voxel_vae import VoxelVAE
from caloforge.ode.average_velocity import Average
from caloforge.ode.bespoke import BespokeSolver
from caloforge.ode.path import Velocity
from caloforge.ode.solve import solve
from caloforge.runtime.noise import standard_normals
from caloforge.transforms import LayerEnergies, Logit, Standardize


class CaloDreamConfig(BaseModel):
    """The two factors and what they share.

    Attributes:
        energy: the first factor.
        shape: the second.
        latent: the autoencoder of the latent version; without it the voxels themselves are drawn.
        unit: energy at which the logarithms begin [MeV]; of `joint`, `voxels` and `drawn` only.
        cut: voxels below are empty [MeV]; may be changed after the training.
        average: decay of the moving average of the weights; 0, the paper's, keeps none.
        validation_events: events generated for each validation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    energy: EnergyConfig = EnergyConfig()
    shape: ShapeConfig = ShapeConfig()
    latent: LatentConfig | None = None
    unit: float = Field(0.4, gt=0)
    cut: float = Field(0.0, ge=0)
    average: float = Field(0.0, ge=0, lt=1)
    validation_events: int = Field(512, ge=2)

    @model_validator(mode="after")
    def _latent(self) -> Self:
        if self.latent is not None and self.shape.prediction != "velocity":
            raise ValueError(
                f"latents need shape.prediction = 'velocity', got {self.shape.prediction!r}: they are no voxels"
            )
        return self


class CaloDream(Generator):
    """Draws layer energies, then a shower with exactly these.

    Args:
        detector: a detector of voxels with three axes.
        config: sizes and training.
    """

    config_class: ClassVar[type[BaseModel]] = CaloDreamConfig
    sampling: ClassVar[tuple[str, ...]] = ("energy.solver", "shape.solver", "shape.end", "cut")

    def __init__(self, detector: Detector, config: CaloDreamConfig) -> None:
        super().__init__()
        axes = detector.shape
        if not detector.layers or len(axes) != 3:
            raise ValueError(
                f"calodream needs a detector of voxels with three axes, {detector.name} has {len(axes)}"
                f"{'' if detector.layers else ' and no layers'}"
            )
        if detector.features not in (("incident_energy",), ("incident_energy", "theta", "phi")):
            raise ValueError(
                "calodream needs the condition incident_energy, and takes theta and phi behind it; "
                f"{detector.name} has {', '.join(detector.features)}"
            )
        more = 0 if len(detector.features) == 1 else 2
        if more and config.energy.network != "joint":
            raise ValueError(
                f"theta and phi are for energies drawn at once, energy.network = 'joint', got {config.energy.network!r}"
            )
        if more and config.shape.turn:
            raise ValueError(
                "showers with theta and phi cannot be turned in training: shape.turn must be false"
            )
        self.detector, self.config = detector, config
        self.split = LayerEnergies([layer.cells for layer in detector.layers])
        self.logit, self.standardize = Logit(), Standardize(axes[0], 1e-6)
        energy, shape = config.energy, config.shape
        self.energy: Energies = (
            JointEnergies(self.split, energy, config.unit)
            if energy.network == "joint"
            else AutoregressiveEnergies(self.split, energy)
        )
        told_more(self.energy, more)
        # attention reads the weights of queries, keys and values itself
        make_bayesian(self.energy, energy.bayesian, leave=("inputs",))
        self.energy_solver = (
            BespokeSolver(energy.bespoke.steps, self.energy.end) if energy.bespoke.steps else None
        )
        self.shape: Shapes
        if config.latent is not None:
            self.shape = LatentShapes(axes, shape, config.latent)
        elif shape.prediction == "voxels":
            self.shape = VoxelShapes(axes, shape, config.unit)
        elif shape.prediction == "drawn":
            self.shape = DrawnShapes(axes, shape, config.unit, config.cut)
        else:
            self.shape = VelocityShapes(axes, shape)
        told_more(self.shape, more)
        make_bayesian(self.shape.network, shape.bayesian)
        self._end = shape.end if isinstance(self.shape, VoxelShapes | DrawnShapes) else 1.0
        self.shape_solver = BespokeSolver(shape.bespoke.steps, self._end) if shape.bespoke.steps else None
        self.energy_average_velocity = (
            self.energy.student()
            if energy.average_velocity.steps and isinstance(self.energy, JointEnergies)
            else None
        )
        self.shape_average_velocity = self.shape.student() if shape.average_velocity.steps else None
        for student in (self.energy_average_velocity, self.shape_average_velocity):
            if student is not None:
                told_more(student, more)
        self.noise_dim = self.energy.noise_dim + (1 + self.shape.drawn) * int(np.prod(self.shape.shape))

    def forward(self, conditions: Tensor, noise: Tensor) -> Tensor:
        """Generates showers [MeV], (B, L, A, R), from E_inc [MeV] (B, 1) and noise, energies' first."""
        first = self.energy.noise_dim
        energies = self.draw_energies(conditions, noise[:, :first])
        return self.draw_shower(conditions, energies, noise[:, first:])

    def draw_energies(self, conditions: Tensor, noise: Tensor) -> Tensor:
        """Generates layer energies [MeV], (B, L) float64, from noise (B, energy.noise_dim)."""
        config, end = self.config.energy, self.energy.end

        def solved(velocity: Velocity, x0: Tensor, average: Average | None) -> Tensor:
            return solve(velocity, x0, config.solver, self.energy_solver, average, end, shares=end < 1)

        energies = self.energy.draw(conditions, noise, solved, self.energy_average_velocity)
        return torch.where(energies < self.config.cut, 0.0, energies)

    def draw_shower(self, conditions: Tensor, energies: Tensor, noise: Tensor) -> Tensor:
        """Generates showers [MeV], (B, L, A, R), with layer energies [MeV], (B, L), from noise for the shape."""
        context, solver = self.context(conditions, energies), self.config.shape.solver
        velocity = self.shape.velocity(self.shape.network, context)
        student = self.shape_average_velocity
        average = None if student is None else self.shape.average(student, context)
        cells = math.prod(self.shape.shape)
        x0, normals = noise[:, :cells].view(-1, *self.shape.shape), noise[:, cells:]
        x = solve(velocity, x0, solver, self.shape_solver, average, self._end, shares=self._end < 1)
        return with_energies(self.shape.read(x, context, normals), energies, self.config.cut).to(noise.dtype)

    def context(self, conditions: Tensor, energies: Tensor) -> Context:
        """Returns what shapes are told, from E_inc [MeV] (B, 1) and layer energies [MeV], (B, L)."""
        u = self._fractions(conditions, energies)
        features = [scaled_energy(energy_of(conditions)), self.standardize(u), *directions_of(conditions)]
        logs = torch.log1p(energies / self.config.unit).float() / 4
        return Context(torch.cat(features, 1), torch.stack([logs, (energies > 0).float()], 2), energies)

    def _fractions(self, conditions: Tensor, energies: Tensor) -> Tensor:
        u = self.split.fractions(energies, energy_of(conditions)).clamp(0, 1)
        return (u if self.config.latent is not None else self.logit(u)).float()

    # Training

    def stages(self, train: EventSource) -> Sequence[Stage]:
        """Fits the normalization and returns the stages: energies, latents, shapes, and what is fitted to them."""
        device = self.standardize.mean.device
        incident = torch.from_numpy(train.primaries.conditions).to(device)
        energies = torch.from_numpy(channel_sums(train, "layers")).to(device)
        self.standardize.refit(self._fractions(incident, energies))
        self.energy.fit(incident, energies)
        events, config = len(train), self.config
        rows = np.linspace(0, events - 1, int(min(self.shape.fitted, events))).astype(np.intp)
        some = Selected(train, rows) if len(rows) < events else train
        self.shape.fit(self._tensors(part)[1:] for part in in_slices(some))
        stages = [self._energy_stage(LayerSums(incident, energies))]
        if self.energy_solver is not None:
            stages.append(self._energy_solver_stage(self.energy_solver, events))
        if self.energy_average_velocity is not None:
            sums = LayerSums(incident, energies)
            stages.append(self._energy_average_stage(self.energy_average_velocity, sums))
        if isinstance(self.shape, LatentShapes) and config.latent is not None:
            stages.append(self._latent_stage(self.shape.vae, config.latent, events))
        stages.append(self._shape_stage(events))
        if self.shape_solver is not None:
            stages.append(self._shape_solver_stage(self.shape_solver, events))
        if self.shape_average_velocity is not None:
            stages.append(self._shape_average_stage(self.shape_average_velocity, events))
        return stages

    def _energy_stage(self, sums: LayerSums) -> Stage:
        def loss(energy: Energies, batch: Events | LayerSums, rng: BatchRandom) -> Tensor:
            if isinstance(batch, LayerSums):
                return energy.loss(batch.incident, batch.energies, rng)
            incident, _, energies = self._tensors(batch)
            return energy.loss(incident, energies, rng)

        return LossStage(
            "energy",
            self.energy,
            variational(loss, self.config.energy.bayesian, len(sums)),
            scores_without(self, "energy_average_velocity", self.energy_scores),
            self.config.energy,
            len(sums),
            average=self.config.average,
            batches=sums.batches,
        )

    def _energy_solver_stage(self, solver: BespokeSolver, events: int) -> Stage:
        def problem(batch: Events, rng: BatchRandom) -> tuple[Velocity, Tensor]:
            incident, _, energies = self._tensors(batch)
            return self.energy.problem(incident, energies, rng)

        bespoke = self.config.energy.bespoke
        return solver_stage(
            "energy_solver", solver, self.energy, problem, self.energy_scores, bespoke, events
        )

    def _energy_average_stage(self, student: VelocityNetwork, sums: LayerSums) -> Stage:
        energy = cast(JointEnergies, self.energy)

        def problem(
            student: VelocityNetwork, batch: Events, rng: BatchRandom
        ) -> tuple[Average, Velocity, Tensor]:
            known = cast(LayerSums, batch)
            return energy.leaps(student, known.incident, known.energies, rng)

        return average_stage(
            "energy_average_velocity",
            student,
            energy.network,
            problem,
            self.energy_scores,
            self.config.energy.average_velocity,
            len(sums),
            end=energy.end,
            shares=energy.end < 1,
            batches=sums.batches,
        )

    def _latent_stage(self, vae: VoxelVAE, config: LatentConfig, events: int) -> Stage:
        def loss(vae: VoxelVAE, batch: Events, rng: BatchRandom) -> Tensor:
            incident, voxels, energies = self._tensors(batch)
            features = self.context(incident, energies).features
            target = shares(voxels, energies).float()
            return vae_loss(vae, target, features, rng.normal(*vae.shape), config.divergence)

        def scores(source: EventSource) -> Mapping[str, float]:
            events = self._validation(source)
            training = vae.training
            vae.eval()
            with torch.no_grad():
                rng = BatchRandom(0, slice(None), len(events), self.standardize.mean.device)
                each = loss(vae, events, rng)
            vae.train(training)
            return {"loss": float(each.mean())}

        return LossStage("latent", vae, loss, scores, config, events)

    def _shape_stage(self, events: int) -> Stage:
        config, average = self.config.shape, self.config.average

        def loss(network: ViT, batch: Events, rng: BatchRandom) -> Tensor:
            incident, voxels, energies = self._tensors(batch)
            if config.turn:
                voxels = turned(voxels, rng.uniform(2))
            return self.shape.loss(network, voxels, energies, self.context(incident, energies), rng)

        each = variational(loss, config.bayesian, events)
        scores = scores_without(self, "shape_average_velocity", self.shape_scores)
        return LossStage("shape", self.shape.network, each, scores, config, events, average=average)

    def _shape_solver_stage(self, solver: BespokeSolver, events: int) -> Stage:
        def problem(batch: Events, rng: BatchRandom) -> tuple[Velocity, Tensor]:
            incident, _, energies = self._tensors(batch)
            context = self.context(incident, energies)
            return self.shape.velocity(self.shape.network, context), rng.normal(*self.shape.shape)

        bespoke = self.config.shape.bespoke
        return solver_stage("shape_solver", solver, self.shape, problem, self.shape_scores, bespoke, events)

    def _shape_average_stage(self, student: ViT, events: int) -> Stage:
        def problem(student: ViT, batch: Events, rng: BatchRandom) -> tuple[Average, Velocity, Tensor]:
            incident, _, energies = self._tensors(batch)
            context = self.context(incident, energies)
            velocity = self.shape.velocity(self.shape.network, context)
            return self.shape.average(student, context), velocity, rng.normal(*self.shape.shape)

        return average_stage(
            "shape_average_velocity",
            student,
            self.shape.network,
            problem,
            self.shape_scores,
            self.config.shape.average_velocity,
            events,
            end=self._end,
            shares=self._end < 1,
        )

    def _tensors(self, events: Events) -> tuple[Tensor, Tensor, Tensor]:
        """Returns E_inc (B, 1), voxels (B, L, A, R) and layer energies (B, L) float64, all in MeV."""
        device = self.standardize.mean.device
        voxels = torch.from_numpy(events.responses.astype(np.float32)).to(device)
        return torch.from_numpy(events.conditions).to(device), voxels, voxels.double().sum((2, 3))

    def _validation(self, source: EventSource) -> Events:
        rows = np.linspace(0, len(source) - 1, min(self.config.validation_events, len(source)))
        return source.slices(rows.astype(np.intp))

    def energy_scores(self, source: EventSource) -> Mapping[str, float]:
        """Scores drawn layer energies: energy score of ln(1 + E_l / unit), Wasserstein-1 of E_tot / E_inc."""
        reference = self._validation(source)
        true = self.detector.readout(reference.responses, "layers")
        incident = torch.from_numpy(reference.conditions).to(self.standardize.mean.device)
        numbers = np.arange(len(reference))
        drawn = []
        with torch.no_grad():
            for seed in range(4):
                noise = torch.from_numpy(standard_normals(seed, numbers, self.energy.noise_dim))
                drawn.append(self.draw_energies(incident, noise.to(incident.device)).cpu().numpy())
        unit, energy = self.config.unit, reference.conditions[:, 0].astype(np.float64)
        generated = np.stack(drawn)
        return {
            "energy_score": energy_score(np.log1p(true / unit), np.log1p(generated / unit)),
            "w1_total": wasserstein(true.sum(1) / energy, generated[0].sum(1) / energy),
        }

    def shape_scores(self, source: EventSource) -> Mapping[str, float]:
        """Compares generated showers: mean over features of Wasserstein-1 over the feature's spread."""
        reference = self._validation(source)
        was = self.shape.training
        self.shape.eval()
        showers = generate_in_memory(self, reference.conditions, seed=0, batch_size=128)
        self.shape.train(was)
        true = observe_showers(reference)
        observed = observe_showers(with_responses(reference.primaries, showers), true.edges)
        spread = true.features.std(0)
        distances = [
            wasserstein(true.features[:, k], observed.features[:, k]) / spread[k]
            for k in np.flatnonzero(spread > 0)
        ]
        lit = [np.count_nonzero(responses) for responses in (reference.responses, showers)]
        return {"features": float(np.mean(distances)), "lit": lit[1] / lit[0]}


def told_more(module: nn.Module, numbers: int) -> None:
    """Makes every network of a module take further conditions behind its own; at first they change nothing.

    Args:
        module: with networks whose first layer of the conditions is `condition[0]`.
        numbers: of further conditions.
    """
    for name, part in list(module.named_modules()):
        if numbers and name.rpartition(".")[2] == "condition" and isinstance(part, nn.Sequential):
            first = part[0]
            assert isinstance(first, nn.Linear)
            wider = nn.Linear(first.in_features + numbers, first.out_features)
            with torch.no_grad():
                wider.weight.zero_()
                wider.weight[:, : first.in_features] = first.weight
                wider.bias.copy_(first.bias)
            part[0] = wider
