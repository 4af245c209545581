"""Bespoke non-stationary solvers (Shaul et al. 2024; CaloDREAM, arXiv:2405.09629): a solver that is trained.

With n steps from x_0 at t_0 = 0 to the end, one evaluation of the velocity each and all of them kept,

    x_{i+1} = a_i x_0 + sum_{j <= i} b_ij v(x_j, t_j),    t_i = (1 / n) sum_{k <= i} |theta_k|,

n(n + 5)/2 - 1 numbers in all. They start as Euler's (a = 1, b = 1/n, theta = 1) and are fitted to a precise
solution from the same x_0, the network being frozen. What is fitted:

- `global`: the mean squared error of the last state. The whole solver is differentiated through.
- `local`: the sum over steps of the root mean squared error between the precise solution at t_{i+1} and the step
  made from velocities on the precise solution. All evaluations lie on one path and make one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from caloforge.ode import loop
from caloforge.ode.path import Velocity
from caloforge.ode.solvers import midpoint
from caloforge.optim import AdamConfig


class BespokeConfig(BaseModel):
    """A bespoke solver and its training.

    Attributes:
        steps: evaluations of the velocity; 0 trains none.
        loss: `local` or `global`.
        reference: steps of the midpoint rule of the precise solution.
        optimizer: rates and schedule.
        epochs: passes through the training events.
        batch_size: events a step.
        events: training events of a pass, spread evenly over all; 0 takes all of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(0, ge=0)
    loss: Literal["local", "global"] = "local"
    reference: int = Field(50, ge=1)
    optimizer: AdamConfig = AdamConfig(learning_rate=2e-3, schedule="cosine", warmup=0.05)
    epochs: int = Field(4, ge=1)
    batch_size: int = Field(100, ge=1)
    events: int = Field(0, ge=0)


class BespokeSolver(nn.Module):
    """A solver of dx/dt = v(x, t) with numbers of its own.

    Args:
        steps: evaluations of the velocity, n.
        end: the last time.
    """

    def __init__(self, steps: int, end: float = 1.0) -> None:
        super().__init__()
        self.steps, self.end = steps, end
        self.a = nn.Parameter(torch.ones(steps))
        self.b = nn.Parameter(torch.full((steps * (steps + 1) // 2,), 1 / steps))
        self.theta = nn.Parameter(torch.ones(steps - 1))

    def times(self) -> Tensor:
        """Returns t_0 = 0 to t_n = end, (n + 1,)."""
        inner = torch.cumsum(self.theta.abs(), 0) / self.steps
        ends = inner.new_tensor([0.0, 1.0])
        return self.end * torch.cat([ends[:1], inner, ends[1:]])

    def step(self, i: int, x0: Tensor, velocities: list[Tensor]) -> Tensor:
        """Returns x_{i+1}, (B, *), from x_0 and v_0 to v_i, each (B, *)."""
        first = i * (i + 1) // 2
        x = self.a[i] * x0
        for weight, velocity in zip(self.b[first : first + i + 1], velocities, strict=True):
            x = x + self.end * weight * velocity
        return x

    def forward(self, velocity: Velocity, x0: Tensor) -> Tensor:
        """Integrates from x0 at t = 0 to the end, (B, *)."""
        if torch.compiler.is_exporting():
            return self._looped(velocity, x0)
        x, velocities = x0, list[Tensor]()
        for i, t in enumerate(self.times()[:-1]):
            velocities.append(velocity(x, t.expand(x.shape[0])))
            x = self.step(i, x0, velocities)
        return x

    def _looped(self, velocity: Velocity, x0: Tensor) -> Tensor:
        """Integrates in a loop of the exported graph: each velocity is added at once to all x that it is part of."""
        n, wide = self.steps, (1, -1, *[1] * (x0.ndim - 1))
        order = torch.arange(n)
        place = order * (order + 1) // 2 + order[:, None]  # of b_ki in `b`, where k >= i
        place = torch.where(order >= order[:, None], place, len(self.b))
        weights = torch.cat([self.b, self.b.new_zeros(1)])[place]
        values = [self.times()[:-1, None], torch.eye(n, n + 1), torch.zeros(n, 1), self.end * weights]

        def step(x: Tensor, now: Tensor) -> Tensor:
            here, weight = now[1 : n + 2].view(wide), now[n + 2 :].view(wide)
            speed = velocity((here * x).sum(1), now[0].expand(x.shape[0]))
            return x + weight * speed[:, None]

        start = torch.cat([x0[:, None], self.a.view(wide) * x0[:, None]], 1)
        return loop.repeated(step, start, torch.cat(values, 1))[:, -1]

    def weights(self) -> list[Tensor]:
        """Returns of each step what x_0 and the velocities so far are multiplied by, (i + 2,)."""
        firsts = [i * (i + 1) // 2 for i in range(self.steps)]
        return [
            torch.cat([self.a[i : i + 1], self.end * self.b[first : first + i + 1]])
            for i, first in enumerate(firsts)
        ]

    def loss(self, velocity: Velocity, x0: Tensor, config: BespokeConfig) -> Tensor:
        """Returns the loss of a batch, a number.

        Args:
            velocity: v(x, t), for any multiple of the batch: events repeat in order.
            x0: starting points, (B, *).
            config: which loss and how precise a reference.
        """
        path, speeds = reference(velocity, x0, self.end, config.reference)
        if config.loss == "global":
            squared: Tensor = (self(velocity, x0) - path[-1]).square()
            return squared.mean()
        times = self.times()
        # on the reference, and moving along it with t, so that the gradient sees how it changes there
        steps = [_between(path, speeds, self.end, t.detach()) for t in times]
        points, along = (torch.stack(values) for values in zip(*steps, strict=True))
        moved = times.sub(times.detach()).view(-1, *[1] * x0.ndim)
        points = points + along * moved
        each = times[:-1].repeat_interleave(len(x0))
        velocities = velocity(points[:-1].flatten(0, 1), each).view(self.steps, *x0.shape)
        errors = [
            (self.step(i, x0, list(velocities[: i + 1])) - points[i + 1]).square().mean().sqrt()
            for i in range(self.steps)
        ]
        return torch.stack(errors).sum()


@torch.no_grad()
def reference(velocity: Velocity, x0: Tensor, end: float, steps: int) -> tuple[Tensor, Tensor]:
    """Returns a precise solution by the midpoint rule and its velocities, both (steps + 1, B, *)."""
    h = end / steps
    path, speeds = [x0], list[Tensor]()
    for i in range(steps):
        speeds.append(velocity(path[-1], x0.new_full((len(x0),), i * h)))
        path.append(midpoint(velocity, path[-1], i * h, h))
    speeds.append(velocity(path[-1], x0.new_full((len(x0),), end)))
    return torch.stack(path), torch.stack(speeds)


def _between(path: Tensor, speeds: Tensor, end: float, t: Tensor) -> tuple[Tensor, Tensor]:
    """Returns a precise solution and its velocity at a time, (B, *), by Hermite's cubic between its steps."""
    h = end / (len(path) - 1)
    i = min(int(t / h), len(path) - 2)
    u = float(t) / h - i
    first, last, v0, v1 = path[i], path[i + 1], speeds[i], speeds[i + 1]
    point = (1 + 2 * u) * (1 - u) ** 2 * first + u**2 * (3 - 2 * u) * last
    return point + u * (1 - u) * h * ((1 - u) * v0 - u * v1), torch.lerp(v0, v1, u)


def repeated(values: Tensor, x: Tensor) -> Tensor:
    """Returns values of a batch, (B, *), repeated in order for x, (n B, *)."""
    # no repetition where there is none, for the exported graph's sake
    return values if values.shape[0] == x.shape[0] else values.repeat(len(x) // len(values), 1)


@dataclass(frozen=True, eq=False)
class Conditioned:
    """The velocity that a network gives for a batch of conditions, (B, *), also of x repeated, (n B, *)."""

    network: Callable[..., Tensor]
    condition: Tensor

    def __call__(self, x: Tensor, t: Tensor, *s: Tensor) -> Tensor:
        """Returns the velocity at x and times t, or its average until later times."""
        return self.network(x, t, repeated(self.condition, x), *s)


def conditioned(network: Callable[..., Tensor], condition: Tensor) -> Conditioned:
    """Returns the velocity that a network gives for a batch of conditions."""
    return Conditioned(network, condition)


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Takes no gradients of a network's weights."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
