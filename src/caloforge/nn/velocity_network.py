"""Velocity of a few numbers, such as channel sums, given time and conditions."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from caloforge.nn.until import Until


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
        wanted: numbers that come out, where they are no velocity; K where not given.
        until: it also gives average velocities, until a later time (`ode.average_velocity`).
    """

    def __init__(
        self,
        outputs: int,
        features: int,
        width: int,
        blocks: int,
        *,
        wanted: int | None = None,
        until: bool = False,
    ) -> None:
        super().__init__()
        self.condition = nn.Sequential(nn.Linear(features, width), nn.SiLU(), nn.Linear(width, width))
        self.time = nn.Sequential(nn.Linear(16, width), nn.SiLU(), nn.Linear(width, width))
        self.first = nn.Linear(outputs, width)
        self.blocks = nn.ModuleList([Block(width) for _ in range(blocks)])
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.last = nn.Linear(width, wanted or outputs)
        nn.init.zeros_(self.last.weight)
        self.frequencies: Tensor
        self.register_buffer("frequencies", math.pi * 2.0 ** torch.arange(-1, 7), persistent=False)
        self.until = Until(width) if until else None

    def forward(self, x: Tensor, t: Tensor, condition: Tensor, s: Tensor | None = None) -> Tensor:
        """Returns the velocity, (B, K), or its average between two times.

        Args:
            x: (B, K).
            t: times in [0, 1], (B,).
            condition: what `condition` makes of the standardised conditions, (B, width).
            s: later times, (B,); None for the velocity at t.
        """
        embedding = nn.functional.silu(condition + self._told(t, s))
        h = self.first(x)
        for block in self.blocks:
            h = block(h, embedding)
        velocity: Tensor = self.last(nn.functional.silu(self.norm(h)))
        return velocity

    def _told(self, t: Tensor, s: Tensor | None) -> Tensor:
        """Returns the embedding of times, or of intervals from t to s, (B, width)."""
        if s is None or self.until is None:
            return self._time(t)
        embedding: Tensor = self.until(t, s, self._time(self.until.nodes))
        return embedding

    def _time(self, t: Tensor) -> Tensor:
        """Returns the embedding of times (B,), (B, width)."""
        phase = t[:, None] * self.frequencies
        embedding: Tensor = self.time(torch.cat([phase.sin(), phase.cos()], 1))
        return embedding
