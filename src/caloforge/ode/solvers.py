"""Fixed-step solvers of dx/dt = v(x, t) from t = 0 to 1.

`euler` is the papers' choice for the ZDC (11 steps); `midpoint` costs two evaluations a step and is of order 2;
`rk4` is the 3/8 rule, which the CaloDREAM papers mean by RK4, four evaluations a step and of order 4;
`rk4_classic` is the other one.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from types import MappingProxyType
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from caloforge.ode.loop import repeated
from caloforge.ode.path import Velocity

Method = Literal["euler", "midpoint", "rk4", "rk4_classic"]


class SolverConfig(BaseModel):
    """A solver and its number of steps.

    Attributes:
        method: one of `STEPS`, or what the model has trained: `bespoke` (`ode.bespoke`) or `average_velocity`.
        steps: from 0 to the end; those of the training where it is trained.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Method | Literal["bespoke", "average_velocity"] = "euler"
    steps: int = Field(11, ge=1)


class RuleConfig(SolverConfig):
    """A solver that is a rule, for models that train none."""

    method: Method = "euler"


def _times(x: Tensor, t: float | Tensor) -> Tensor:
    if isinstance(t, Tensor):
        return t.expand(x.shape[0])
    return torch.full((x.shape[0],), t, dtype=x.dtype, device=x.device)


def euler(velocity: Velocity, x: Tensor, t: float | Tensor, h: float | Tensor) -> Tensor:
    """Makes one step of order 1."""
    return x + h * velocity(x, _times(x, t))


def midpoint(velocity: Velocity, x: Tensor, t: float | Tensor, h: float | Tensor) -> Tensor:
    """Makes one step of order 2."""
    half = x + h / 2 * velocity(x, _times(x, t))
    return x + h * velocity(half, _times(x, t + h / 2))


def rk4(velocity: Velocity, x: Tensor, t: float | Tensor, h: float | Tensor) -> Tensor:
    """Makes one step of order 4, by Kutta's 3/8 rule."""
    k1 = velocity(x, _times(x, t))
    k2 = velocity(x + h / 3 * k1, _times(x, t + h / 3))
    k3 = velocity(x + h * (k2 - k1 / 3), _times(x, t + 2 * h / 3))
    k4 = velocity(x + h * (k1 - k2 + k3), _times(x, t + h))
    return x + h / 8 * (k1 + 3 * k2 + 3 * k3 + k4)


def rk4_classic(velocity: Velocity, x: Tensor, t: float | Tensor, h: float | Tensor) -> Tensor:
    """Makes one step of order 4, by the classical rule."""
    k1 = velocity(x, _times(x, t))
    k2 = velocity(x + h / 2 * k1, _times(x, t + h / 2))
    k3 = velocity(x + h / 2 * k2, _times(x, t + h / 2))
    k4 = velocity(x + h * k3, _times(x, t + h))
    return x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


Step = Callable[[Velocity, Tensor, float | Tensor, float | Tensor], Tensor]
STEPS: MappingProxyType[Method, Step] = MappingProxyType(
    {"euler": euler, "midpoint": midpoint, "rk4": rk4, "rk4_classic": rk4_classic}
)


def step_times(end: float, steps: int, *, shares: bool = False) -> list[float]:
    """Returns the times from 0 to the end between which steps lie, (steps + 1,).

    Args:
        end: the last time.
        steps: how many.
        shares: each takes the same share of the way that is left to t = 1, 1 - t_i = (1 - end)^(i / n); equal
            steps otherwise.
    """
    done = [i / steps for i in range(steps + 1)]
    return [1 - (1 - end) ** share for share in done] if shares else [end * share for share in done]


def integrate(
    velocity: Velocity, x: Tensor, solver: SolverConfig, end: float = 1.0, *, shares: bool = False
) -> Tensor:
    """Integrates from t = 0 to the end by a rule.

    Args:
        velocity: v(x, t).
        x: the start, (B, *).
        solver: method and number of steps.
        end: the last time.
        shares: each step takes the same share of the way that is left to t = 1; steps are equal otherwise.

    Returns:
        x at the end, (B, *).

    Raises:
        ValueError: the method is `bespoke` or `average_velocity`, which are no rules but trained modules.
    """
    if solver.method == "bespoke" or solver.method == "average_velocity":
        name = {"bespoke": "bespoke solver", "average_velocity": "average velocity"}[solver.method]
        raise ValueError(f"there is no {name} here; solver.method may be {', '.join(STEPS)}")
    step = STEPS[solver.method]
    times = step_times(end, solver.steps, shares=shares)
    steps = [last - first for first, last in pairwise(times)]
    if torch.compiler.is_exporting():
        return _looped(step, velocity, x, times[:-1], steps)
    for t, h in zip(times[:-1], steps, strict=True):
        x = step(velocity, x, t, h)
    return x


def _looped(step: Step, velocity: Velocity, x: Tensor, times: list[float], steps: list[float]) -> Tensor:
    """Integrates in a loop of the exported graph, which then holds one step and not all of them."""
    each = torch.tensor([times, steps], dtype=x.dtype).T
    return repeated(lambda x, now: step(velocity, x, now[0], now[1]), x, each)
