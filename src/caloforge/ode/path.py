"""The linear path of flow matching and its loss (Lipman et al. 2023; Wojnar 2025).

x_t = (1 - t) x_0 + t x_1,   loss = E | v(x_t, t) - (x_1 - x_0) |^2,   x_0 ~ N(0, 1), t ~ U(0, 1)
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]
"""v(x (B, *), t (B,)) -> (B, *)."""


def on_path(x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
    """Returns the point of the path at time t, (B, *), for times (B,)."""
    time = t.view(-1, *[1] * (x0.ndim - 1))
    return torch.lerp(x0, x1, time)


def cfm_loss(velocity: Velocity, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
    """Returns the conditional flow-matching loss of each event, (B,), the mean over its numbers.

    Args:
        velocity: the network.
        x0: noise, (B, *).
        x1: data, (B, *).
        t: times in [0, 1], (B,).
    """
    return velocity_loss(velocity(on_path(x0, x1, t), t), x0, x1)


def velocity_loss(velocity: Tensor, x0: Tensor, x1: Tensor) -> Tensor:
    """Returns the same loss of a velocity, (B, *), that is known already, (B,)."""
    return (velocity - (x1 - x0)).square().flatten(1).mean(1)
