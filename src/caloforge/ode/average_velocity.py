r"""Average velocities: one or two evaluations in place of a solver's many.

MeanFlow (Geng et al. 2025, arXiv:2505.13447), shown for showers at one evaluation in arXiv:2606.04165.

The average velocity of a flow $dx/dt = v(x, t)$ from $t$ to a later time $s$ leads there in one step:

$$u(x_t, t, s) = \frac{1}{s - t} \int_t^s v(x_\tau, \tau) d\tau, \quad x_s = x_t + (s - t) u(x_t, t, s), \quad
u(x, t, t) = v(x, t).$$

A student learns $u$ from a trained network of $v$, its teacher, whose path $x_0, x_1, \ldots$ is followed from noise by
the midpoint rule in small steps, or by another rule in the steps that it samples best with. Two ways:

- `path`: where each of the student's own steps starts on that path, it shall lead where the teacher is at its end:
  distillation. The mean squared distance is summed over the steps, whose number is thereby fixed.
- `identity`: the derivative of $(s - t) u$ along the path with respect to $t$ gives the MeanFlow identity,

  $$u(x, t, s) = v(x, t) + (s - t) (v \cdot \nabla_x u + \partial_t u),$$

  whose right side, by one Jacobian-vector product and without gradient, the left side is fitted to at all points of
  the path and any later $s$. The number of steps may be chosen afterwards. (The paper counts time from data to noise,
  so its sign differs; and it has $x_1 - x_0$ for $v$, whose mean is the teacher's $v$.)
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import pairwise
from typing import Literal, cast

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from caloforge.ode.path import Velocity
from caloforge.ode.solvers import STEPS, Method, step_times
from caloforge.optim import AdamConfig

Average = Callable[[Tensor, Tensor, Tensor], Tensor]
"""u(x (B, *), t (B,), s (B,)) -> (B, *)."""


class AverageVelocityConfig(BaseModel):
    """Average velocities and their training; a `TrainingSection`.

    Attributes:
        steps: evaluations of a sampling; 0 trains no average velocities.
        target: `path` or `identity`.
        teacher: steps of the teacher's path for each step of the student.
        rule: of these steps. A coarse path may be nearer to the data than the exact one: Euler's narrows a distribution
            that a network has learned too wide.
        same: share of the points at which t = s, so that the student stays the velocity there; of `identity` only.
        optimizer: rates and schedule.
        epochs: passes through the training events.
        batch_size: events a step.
        average: decay of the moving average of the weights.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(0, ge=0)
    target: Literal["path", "identity"] = "path"
    teacher: int = Field(6, ge=1)
    rule: Method = "midpoint"
    same: float = Field(0.25, ge=0, lt=1)
    optimizer: AdamConfig = AdamConfig(
        learning_rate=1e-3, beta2=0.99, schedule="cosine", warmup=0.05, gradient_clip=1.0
    )
    epochs: int = Field(10, ge=1)
    batch_size: int = Field(256, ge=1)
    average: float = Field(0.99, ge=0, lt=1)


def leap(average: Average, x0: Tensor, times: list[float]) -> Tensor:
    """Goes from x0, (B, *), at the first of the times to the last, one evaluation for each interval."""
    x = x0
    for t, s in pairwise(times):
        x = x + (s - t) * average(x, _filled(x, t), _filled(x, s))
    return x


@torch.no_grad()
def teacher_path(
    velocity: Velocity, x0: Tensor, times: list[float], rule: Method = "midpoint"
) -> list[Tensor]:
    """Follows a velocity from x0, (B, *), and returns where it is at each time, one step of the rule between them."""
    points = [x0]
    for t, s in pairwise(times):
        points.append(STEPS[rule](velocity, points[-1], t, s - t))
    return points


def path_loss(average: Average, points: list[Tensor], times: list[float]) -> Tensor:
    """Returns how far each of the student's steps ends from the path, squared, of each event.

    Args:
        average: the student.
        points: of the path at the ends of the student's steps, (B, *) each.
        times: of the points.

    Returns:
        the sum over the steps of the mean over the event's numbers, (B,).
    """
    ends = zip(times, points, strict=True)
    errors = [leap(average, start, [t, s]) - stop for (t, start), (s, stop) in pairwise(ends)]
    return torch.stack([error.square().flatten(1).mean(1) for error in errors]).sum(0)


def identity_loss(average: Average, velocity: Velocity, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """Returns the squared error of the MeanFlow identity at each point, (B,), the mean over its numbers.

    Args:
        average: the student.
        velocity: the teacher.
        x: points of the path at t, (B, *).
        t: times, (B,).
        s: later times, (B,).
    """
    with torch.no_grad():
        v = velocity(x, t)
    along = (v, torch.ones_like(t), torch.zeros_like(s))
    # attention's other kernels have no derivative along a direction; PyTorch warns of its own use of torch.jit
    with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        u, change = cast(tuple[Tensor, Tensor], torch.func.jvp(average, (x, t, s), along))
    left = (s - t).view(-1, *[1] * (x.ndim - 1))
    error = u - (v + left * change).detach()
    return error.square().flatten(1).mean(1)


def average_loss(
    average: Average,
    velocity: Velocity,
    x0: Tensor,
    u: Tensor,
    config: AverageVelocityConfig,
    end: float = 1.0,
    *,
    shares: bool = False,
) -> Tensor:
    """Returns the loss of each event, (B,), by the target asked for.

    Args:
        average: the student, at any multiple of the batch, its events repeated in order.
        velocity: the teacher, likewise.
        x0: starting points, (B, *).
        u: three uniforms an event, (B, 3), which choose the later times of `identity`.
        config: target and steps.
        end: the last time.
        shares: as in `step_times`.
    """
    fine = step_times(end, config.steps * config.teacher, shares=shares)
    points = teacher_path(velocity, x0, fine, config.rule)
    if config.target == "path":
        return path_loss(average, points[:: config.teacher], fine[:: config.teacher])
    several = len(fine) - 1
    t = x0.new_tensor(fine[:-1]).repeat_interleave(len(x0))
    turn, last, share = u.repeat(several, 1).unbind(1)
    # each event has times of its own at each point of its path
    shift = torch.arange(several, device=x0.device, dtype=x0.dtype).repeat_interleave(len(x0)) / several
    share, turn = (share + shift) % 1, (turn + shift) % 1
    s = torch.where(last < 0.5, torch.full_like(t, end), t + share * (end - t))
    s = torch.where(turn < config.same, t, s)
    each = identity_loss(average, velocity, torch.cat(points[:-1]), t, s)
    return each.view(several, -1).mean(0)


def _filled(x: Tensor, t: float) -> Tensor:
    """Returns a time for each event; in an exported graph once for all, so that what follows from it is a constant."""
    rows = 1 if torch.compiler.is_exporting() else x.shape[0]
    return torch.full((rows,), t, dtype=x.dtype, device=x.device)
