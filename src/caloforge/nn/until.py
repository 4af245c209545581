"""What tells a network of an interval of time, beside the time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Until(nn.Module):
    """Tells a network of an interval of time, where it gives average velocities (`ode.average_velocity`).

    The derivative of an average velocity with respect to time is part of what it is trained with. The frequencies by
    which networks are told the time of a velocity are so high that this derivative would be noise. So the embedding of
    the time is taken at four times only, with a cubic between them. The interval adds nothing before it is trained,
    and nothing where it is empty.

    Args:
        width: of the network's embedding of time.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, width), nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.last.weight)
        self.nodes: Tensor
        self.register_buffer("nodes", torch.linspace(0, 1, 4), persistent=False)

    def forward(self, t: Tensor, s: Tensor, times: Tensor) -> Tensor:
        """Returns the embedding of intervals from t (B,) to s (B,), (B, width), given that of the nodes, (4, width)."""
        a, b, c, d = (3 * t - node for node in range(4))
        weights = [b * c * d / -6, a * c * d / 2, a * b * d / -2, a * b * c / 6]
        step = (s - t)[:, None]
        told = self.first(torch.cat([step, t[:, None], s[:, None]], 1))
        embedding: Tensor = torch.stack(weights, 1) @ times + self.last(step * torch.tanh(told))
        return embedding


def embedding_of(
    times: Callable[[Tensor], Tensor], until: Until | None, t: Tensor, s: Tensor | None = None
) -> Tensor:
    """Returns the embedding of times t (B,), or of intervals from t to s (B,), (B, width).

    Args:
        times: the network's embedding of times, (N,) to (N, width).
        until: what tells it of intervals; None of a network that gives velocities alone.
        t: times.
        s: later times; None for the velocity at t.
    """
    if s is None or until is None:
        return times(t)
    embedding: Tensor = until(t, s, times(until.nodes))
    return embedding
