"""How the light of an image lies, in a few numbers that are drawn before the image.

    p(image | sums, particle) = p(layout | sums, particle) p(image | layout, sums, particle)

Where a hadron leaves the core of its shower, which is one fibre wide and holds a tenth of all light, nothing that is
known of the particle says to a fibre's breadth. An image network that has to draw it in a few steps draws a mean of
places, and the brightest cell comes out too faint. So these numbers come first, from a flow of their own:

    arsinh(c - g), two axes      c the middle of the light, g where it is expected (a regression)
    ln(r + 0.3)                  r the radius
    arsinh(2 (b - s)), two axes  b the middle of the light of the brightest cell and the eight around it, s where the
                                 particle's straight line (or its way through magnets) meets the detector; g where
                                 that is several cells from g
    logit((n_1 - u) / N)         n_1 photons of the brightest cell of N, u uniform
    logit((n_2 - u') / N)        n_2 photons of the second
    logit((m - u'') / N)         m the number of lit cells

all in cells and standardised. As a shape of a shower told to the network that fills it this is in the spirit of the
layer energies of CaloDREAM (arXiv:2405.09629).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Self

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from caloforge.events import Events, EventSource
from caloforge.metrics.channels import energy_score
from caloforge.models.base import BatchRandom, Stage
from caloforge.models.parts.inference import spread_rows
from caloforge.models.parts.stage import LossStage, average_stage, scores_without
from caloforge.models.parts.sums import StudentConfig, interval_conditioned
from caloforge.nn.hyperbolic import sinh
from caloforge.nn.velocity_network import VelocityNetwork
from caloforge.ode.average_velocity import Average
from caloforge.ode.bespoke import BespokeConfig, conditioned
from caloforge.ode.path import Velocity, cfm_loss
from caloforge.ode.solve import check_solver, solve
from caloforge.ode.solvers import SolverConfig
from caloforge.optim import AdamConfig
from caloforge.runtime.noise import standard_normals
from caloforge.transforms import Standardize

NUMBERS = 8
"""Numbers of a layout."""

SHARES = 3
"""Shares among them, each of which takes a uniform to be measured."""

HINTS = 6
"""Numbers that a layout's flow is told beside the event's features."""

PLACES = 3
"""Places that an image network is told: the straight line, the middle of the light, the brightest cell."""

LIMIT = 6.0
"""Standardised numbers are kept within this many standard deviations."""

_EDGE = 0.002
"""Distance of a share from 0 and 1."""

Known = Callable[[Events], tuple[Tensor, Tensor, Tensor, Tensor]]
"""Events -> the straight line's place and the expected one, (B, 2) each, features (B, F), counts (B, H, W)."""


class LayoutConfig(BaseModel):
    """Network, solver and training of the layout; a `TrainingSection`.

    Attributes:
        width: of every hidden layer.
        blocks: residual blocks.
        solver: of the sampling; may be changed after the training.
        average_velocity: a network that is trained to do with one or two evaluations, for `solver.method =
            "average_velocity"`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = Field(128, ge=1)
    blocks: int = Field(3, ge=1)
    solver: SolverConfig = SolverConfig(steps=6)
    average_velocity: StudentConfig = StudentConfig()
    optimizer: AdamConfig = AdamConfig(learning_rate=2e-3, schedule="cosine", warmup=0.05, weight_decay=0.02)
    epochs: int = Field(40, ge=1)
    batch_size: int = Field(256, ge=1)

    @model_validator(mode="after")
    def _solver(self) -> Self:
        check_solver(self.solver, BespokeConfig(), self.average_velocity)
        return self


class Layout(nn.Module):
    """Draws layouts.

    Args:
        shape: height and width of the image.
        features: numbers that describe the event, its sums among them, F.
        config: sizes, solver and training.
    """

    def __init__(self, shape: tuple[int, int], features: int, config: LayoutConfig) -> None:
        super().__init__()
        self.shape, self.config = shape, config
        self.standardize = Standardize(NUMBERS)
        self.network = VelocityNetwork(NUMBERS, features + HINTS, config.width, config.blocks)
        blocks = config.average_velocity.blocks or config.blocks
        self.average_velocity = (
            VelocityNetwork(NUMBERS, features + HINTS, config.width, blocks, until=True)
            if config.average_velocity.steps
            else None
        )

    def forward(
        self, straight: Tensor, expected: Tensor, features: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Draws layouts.

        Args:
            straight: where the particle's line meets the detector, in cells, (B, 2).
            expected: where the middle of the light is expected, in cells, (B, 2).
            features: (B, F).
            noise: normals, (B, 8).

        Returns:
            the numbers, standardised, (B, 8), and the places that an image network is told, (B, 3, 2).
        """
        known = _with_hints(straight, expected, features)
        average = self.average_velocity and interval_conditioned(self.average_velocity, known)
        velocity = conditioned(self.network, self.network.condition(known))
        x = solve(velocity, noise, self.config.solver, None, average)
        numbers = x.clamp(-LIMIT, LIMIT)
        return numbers, self.places(numbers, straight, expected)

    def places(self, numbers: Tensor, straight: Tensor, expected: Tensor) -> Tensor:
        """Returns straight line, middle of the light and brightest cell, in cells, (B, 3, 2), of numbers (B, 8)."""
        plain = self.standardize.inverse(numbers)
        highest = straight.new_tensor(self.shape) - 1
        centre = _within(expected + sinh(plain[:, :2]), highest)
        core = _core_guess(straight, expected) + 0.5 * sinh(plain[:, 3:5])
        return torch.stack([straight, centre, _within(core, highest)], 1)

    def measure(self, counts: Tensor, straight: Tensor, expected: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Measures the layouts of images.

        Args:
            counts: photons, (B, H, W).
            straight: as for `forward`.
            expected: likewise.
            u: uniforms, (B, 3).

        Returns:
            what `forward` returns.
        """
        numbers = self.standardize(_measured(counts, straight, expected, u)).clamp(-LIMIT, LIMIT)
        return numbers, self.places(numbers, straight, expected)

    def stages(
        self,
        known: Known,
        augment: Callable[[Events, BatchRandom], Events],
        validation_events: int,
        events: int,
        average: float,
    ) -> list[Stage]:
        """Returns the stages that train it, after those of what it is told: the velocity, and its average if wanted.

        Args:
            known: what is known of events, and their counts.
            augment: changes each batch of the training.
            validation_events: events of each validation.
            events: number of training events.
            average: decay of the moving average of the velocity's weights.
        """

        @torch.no_grad()
        def prepare(train: EventSource) -> None:
            straight, expected, _, counts = known(spread_rows(train, 8192))
            half = torch.full((len(counts), SHARES), 0.5, device=counts.device)
            self.standardize.refit(_measured(counts, straight, expected, half))

        def loss(network: VelocityNetwork, batch: Events, rng: BatchRandom) -> Tensor:
            straight, expected, features, counts = known(augment(batch, rng))
            x1, _ = self.measure(counts, straight, expected, rng.uniform(SHARES))
            condition = network.condition(_with_hints(straight, expected, features))
            return cfm_loss(conditioned(network, condition), rng.normal(NUMBERS), x1, rng.uniform())

        def problem(
            student: VelocityNetwork, batch: Events, rng: BatchRandom
        ) -> tuple[Average, Velocity, Tensor]:
            told = _with_hints(*known(augment(batch, rng))[:3])
            velocity = conditioned(self.network, self.network.condition(told))
            return interval_conditioned(student, told), velocity, rng.normal(NUMBERS)

        @torch.no_grad()
        def scores(source: EventSource) -> Mapping[str, float]:
            straight, expected, features, counts = known(spread_rows(source, validation_events))
            true, _ = self.measure(counts, straight, expected, straight.new_full((len(counts), SHARES), 0.5))
            rows = np.arange(len(counts))
            noise = [torch.from_numpy(standard_normals(seed, rows, NUMBERS)) for seed in range(4)]
            drawn = [self(straight, expected, features, draw.to(counts.device))[0] for draw in noise]
            arrays = (true.double().cpu().numpy(), torch.stack(drawn).double().cpu().numpy())
            return {"energy_score": energy_score(*arrays)}

        velocity = LossStage(
            "layout",
            self.network,
            loss,
            scores_without(self, "average_velocity", scores),
            self.config,
            events,
            average=average,
            prepare=prepare,
        )
        stages: list[Stage] = [velocity]
        if self.average_velocity is not None:
            config, student = self.config.average_velocity, self.average_velocity
            name = "layout_average_velocity"
            stages.append(average_stage(name, student, self.network, problem, scores, config, events))
        return stages


def _with_hints(straight: Tensor, expected: Tensor, features: Tensor) -> Tensor:
    """Returns all that the flow is told, (B, F + 6)."""
    return torch.cat([features, _hints(straight, expected)], 1)


def _measured(counts: Tensor, straight: Tensor, expected: Tensor, u: Tensor) -> Tensor:
    """Returns the numbers of the module's docstring before they are standardised, (B, 8)."""
    total = counts.sum((1, 2)).clamp(min=1)
    axes = [torch.arange(size, dtype=counts.dtype, device=counts.device) for size in counts.shape[1:]]
    rows, columns = counts.sum(2), counts.sum(1)
    centre = torch.stack([rows @ axes[0], columns @ axes[1]], 1) / total[:, None]
    spread = (rows @ axes[0].square() + columns @ axes[1].square()) / total - centre.square().sum(1)
    # of cells that are equally bright the one that has more light around it
    near = nn.functional.avg_pool2d(counts[:, None], 3, 1, 1)[:, 0]
    brightest = (counts + 1e-3 * near).flatten(1).argmax(1)
    cell = torch.stack([brightest // counts.shape[2], brightest % counts.shape[2]], 1)
    core = cell + _middle_around(counts, cell)
    first, second = counts.flatten(1).topk(2, 1).values.unbind(1)
    whole = (first, second, (counts > 0).flatten(1).sum(1))
    shares = [_logit((value - part) / total) for value, part in zip(whole, u.unbind(1), strict=True)]
    return torch.cat(
        [
            torch.asinh(centre - expected),
            torch.log(spread.clamp(min=0).sqrt() + 0.3)[:, None],
            torch.asinh(2 * (core - _core_guess(straight, expected))),
            torch.stack(shares, 1),
        ],
        1,
    )


def _middle_around(counts: Tensor, cell: Tensor) -> Tensor:
    """Returns how far the middle of the light of a cell, (B, 2), and the eight around it lies from it, (B, 2)."""
    rows = torch.arange(len(counts), device=counts.device)
    padded = nn.functional.pad(counts, (1, 1, 1, 1))
    steps = torch.arange(3, device=counts.device)
    near = padded[
        rows[:, None, None], cell[:, :1, None] + steps[:, None], cell[:, 1:, None] + steps[None]
    ]  # (B, 3, 3)
    moments = [near[:, 2].sum(1) - near[:, 0].sum(1), near[:, :, 2].sum(1) - near[:, :, 0].sum(1)]
    return torch.stack(moments, 1) / near.sum((1, 2)).clamp(min=1)[:, None]


def _core_guess(straight: Tensor, expected: Tensor) -> Tensor:
    """Returns where the brightest cell is looked for: at the straight line where light is expected there, (B, 2)."""
    way = straight - expected
    return expected + way / (1 + (way.square().sum(1, keepdim=True) / 36).square())


def _hints(straight: Tensor, expected: Tensor) -> Tensor:
    """Returns where the straight line lies from the expected place, and within a cell, (B, 6)."""
    phase = 2 * math.pi * (straight - torch.floor(straight))  # sines of large numbers cost digits
    return torch.cat([torch.asinh(straight - expected), torch.sin(phase), torch.cos(phase)], 1)


def _within(places: Tensor, highest: Tensor) -> Tensor:
    return torch.minimum(places.clamp(min=0), highest)


def _logit(share: Tensor) -> Tensor:
    return torch.log((share.clamp(0, 1) + _EDGE) / (1 - share.clamp(0, 1) + _EDGE))
