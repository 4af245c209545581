"""The law of one number, given conditions, that one normal draws exactly: sinh-arcsinh (Jones and Pewsey 2009).

With n standard normal and four numbers that a small network gives,

    y = centre + scale sinh((arcsinh(n) + skew) / tail),

so skew leans it to one side, and tails are longer than a normal's for tail < 1. Its inverse is as simple, and so the
density: n = sinh(tail arcsinh((y - centre) / scale) - skew), p(y) = N(n) |dn/dy|.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from caloforge.nn.hyperbolic import arcsinh, sinh


class SinhLaw(nn.Module):
    """A law of one number, about a standard normal at first.

    Args:
        conditions: numbers of the condition vector, F.
        width: of the hidden layer.
    """

    def __init__(self, conditions: int, width: int) -> None:
        super().__init__()
        self.condition = nn.Sequential(nn.Linear(conditions, width), nn.SiLU(), nn.Linear(width, 4))
        last = self.condition[2]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def _numbers(self, conditions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns centre, scale, skew and tail, each (B, 1)."""
        centre, scale, skew, tail = self.condition(conditions).chunk(4, 1)
        return centre, torch.exp(scale.clamp(-3, 3)), 2 * torch.tanh(skew / 2), torch.exp(torch.tanh(tail))

    def forward(self, conditions: Tensor, normals: Tensor) -> Tensor:
        """Draws a number, (B, 1), from conditions (B, F) and normals (B, 1)."""
        centre, scale, skew, tail = self._numbers(conditions)
        drawn: Tensor = centre + scale * sinh((arcsinh(normals) + skew) / tail)
        return drawn

    def surprise(self, conditions: Tensor, y: Tensor) -> Tensor:
        """Returns -ln p(y), (B,), of numbers (B, 1) given conditions (B, F)."""
        centre, scale, skew, tail = self._numbers(conditions)
        z = (y - centre) / scale
        inner = tail * arcsinh(z) - skew
        slope = tail * (0.5 * (torch.exp(inner) + torch.exp(-inner))) / (scale * torch.sqrt(1 + z.square()))
        surprise: Tensor = 0.5 * (sinh(inner).square() + math.log(2 * math.pi)) - torch.log(slope)
        return surprise[:, 0]
