"""Velocity of a few numbers, such as channel sums, given time and conditions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from caloforge.nn.until import Until, embedding_of


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

    def told(self) -> tuple[Tensor, Tensor]:
        """Returns matrix (3 width, width) and bias (3 width,) of what `modulated` takes, given the embedding."""
        scale, shift, gate = self.modulation.weight.chunk(3)
        scale_bias, shift_bias, gate_bias = self.modulation.bias.chunk(3)
        first, bias = self.first.weight, self.first.bias
        return (
            torch.cat([scale, first @ shift, gate]),
            torch.cat([scale_bias + 1, first @ shift_bias + bias, gate_bias]),
        )

    def modulated(self, h: Tensor, scale: Tensor, shift: Tensor, gate: Tensor) -> Tensor:
        """Does what `forward` does, in fewer operators: the shift has passed through `first`, 1 is in the scale."""
        inner = torch.addmm(shift, self.norm(h) * scale, self.first.weight.t())
        change: Tensor = gate * self.last(nn.functional.silu(inner))
        return h + change


def _joined(weights: Tensor, matrix: Tensor) -> Tensor:
    """Returns the matrix that acts on a sum of n vectors with these weights, (n,), given as one vector, (*, n K)."""
    return (weights[:, None] * matrix[:, None]).flatten(1)


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
        embedding = nn.functional.silu(condition + embedding_of(self._time, self.until, t, s))
        h = self.first(x)
        for block in self.blocks:
            h = block(h, embedding)
        velocity: Tensor = self.last(nn.functional.silu(self.norm(h)))
        return velocity

    def _time(self, t: Tensor) -> Tensor:
        """Returns the embedding of times (B,), (B, width)."""
        phase = t[:, None] * self.frequencies
        embedding: Tensor = self.time(torch.cat([phase.sin(), phase.cos()], 1))
        return embedding

    def follow(
        self, x0: Tensor, times: Tensor, weights: Sequence[Tensor], condition: Tensor, s: Tensor | None = None
    ) -> Tensor:
        """Follows a path in a given schedule, for an exported graph: few operators, no loop.

        With velocities v_i at (x_i, t_i), x_{i+1} = w_i0 x_0 + sum_{j <= i} w_i,j+1 v_j. What the blocks are told of
        time and condition is computed for all steps at once. The points between the ends are not: `first` takes x_0
        and the velocities so far, with the weights in its matrix.

        Args:
            x0: the start, (B, K).
            times: t_0 to t_{n-1}, (n,).
            weights: w_i, (i + 2,) each, n of them.
            condition: as for `forward`, (B, width).
            s: later times, (n,), for average velocities.

        Returns:
            x_n, (B, K).
        """
        told = [block.told() for block in self.blocks if isinstance(block, Block)]
        matrix, bias = (torch.cat(parts) for parts in zip(*told, strict=True))
        width, told_of_times = self.first.out_features, embedding_of(self._time, self.until, times, s)
        if len(weights) == 1:
            every = nn.functional.linear(nn.functional.silu(condition + told_of_times), matrix, bias)
        else:
            embedding = nn.functional.silu(condition[:, None] + told_of_times).flatten(0, 1)
            every = nn.functional.linear(embedding, matrix, bias).view(-1, len(weights) * len(bias))
        pieces = iter(every.split(width, 1))
        seen, entering = x0, self.first.weight
        for step, weight in enumerate(weights, 1):
            h = nn.functional.linear(seen, entering, self.first.bias)
            for block in self.blocks:
                assert isinstance(block, Block)
                h = block.modulated(h, next(pieces), next(pieces), next(pieces))
            h = nn.functional.silu(self.norm(h))
            if step < len(weights):
                seen = torch.cat([seen, self.last(h)], 1)
                entering = _joined(weight, self.first.weight)
        before, way = weights[-1][:-1], weights[-1][-1]
        so_far = nn.functional.linear(seen, _joined(before, torch.eye(x0.shape[1])), way * self.last.bias)
        end: Tensor = torch.addmm(so_far, h, (way * self.last.weight).t())
        return end
