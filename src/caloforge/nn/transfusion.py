"""Numbers drawn one after the other, each by flow matching given those before it (CaloDREAM, arXiv:2405.09629).

Token i of the decoder holds u_{i-1} (0 for the first), a one-hot of its place and zeros; the one token of the encoder
holds the condition. What the decoder makes of them, c_i = c(condition, u_0..u_{i-1}), tells a dense network, the head
that all numbers share, which distribution u_i has: the head gives the velocity of u_i(t) on the straight path from
noise.

1,695,297 parameters with the sizes of the paper's tables (transformer 1024, head 256), 2,384,705 with those of the
showers that were submitted to the challenge (512 and 512).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from caloforge.nn.transformer import Transformer, TransformerConfig
from caloforge.ode.loop import repeated

FREQUENCIES = 32
"""Random frequencies of time."""

SPREAD = 30.0
"""Their standard deviation."""


class Head(nn.Module):
    """The dense network: velocity of a number at a time, given what is known.

    Args:
        known: width of the vector c.
        width: of the hidden layers.
        layers: hidden layers with a layer norm.
    """

    def __init__(self, known: int, width: int, layers: int) -> None:
        super().__init__()
        self.time = nn.Linear(2 * FREQUENCIES, 2 * FREQUENCIES)
        self.first = nn.Linear(1 + 2 * FREQUENCIES + known, width)
        self.middle = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width)) for _ in range(layers)
        )
        self.last = nn.Linear(width, 1)
        self.frequencies: Tensor
        self.register_buffer("frequencies", SPREAD * torch.randn(FREQUENCIES))

    def forward(self, x: Tensor, t: Tensor, known: Tensor) -> Tensor:
        """Returns the velocity, (B, 1), at numbers x (B, 1), times (B,) and c (B, known)."""
        phase = 2 * math.pi * t[:, None] * self.frequencies
        time = self.time(torch.cat([phase.sin(), phase.cos()], 1))
        h = F.silu(self.first(torch.cat([x, time, known], 1)))
        for layer in self.middle:
            h = F.silu(layer(h))
        velocity: Tensor = self.last(h)
        return velocity


class Transfusion(nn.Module):
    """Transformer and head.

    Args:
        numbers: how many are drawn, L.
        config: sizes of the transformer; a token must hold a number and its place.
        width: of the head.
        layers: hidden layers of the head.

    Raises:
        ValueError: tokens that are too narrow.
    """

    def __init__(self, numbers: int, config: TransformerConfig, width: int, layers: int) -> None:
        super().__init__()
        if config.width < numbers + 2:
            raise ValueError(
                f"tokens must hold a number and {numbers + 1} places, so a width of at least {numbers + 2}, "
                f"got {config.width}"
            )
        self.numbers, self.width = numbers, config.width
        self.transformer = Transformer(config)
        self.head = Head(config.width, width, layers)
        self.places: Tensor
        places = F.pad(torch.eye(numbers + 1), (1, config.width - numbers - 2))
        self.register_buffer("places", places, persistent=False)

    def token(self, values: Tensor, first: int) -> Tensor:
        """Makes tokens of values (B, T) whose places are first, first + 1, ...: (B, T, D)."""
        empty = F.pad(values[:, :, None], (0, self.width - 1))
        return empty + self.places[first : first + values.shape[1]]

    def known(self, condition: Tensor, u: Tensor) -> Tensor:
        """Returns c_0 to c_(L-1), (B, L, D), from conditions (B, 1) and all numbers, (B, L), in one pass."""
        before = F.pad(u[:, :-1], (1, 0))
        memory = self.transformer.encode(self.token(condition, 0))
        return self.transformer.decode(memory, self.token(before, 1))

    def draw(self, condition: Tensor, noise: Tensor, solve: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Draws the numbers one after the other, (B, L).

        Args:
            condition: (B, 1).
            noise: where each starts, (B, L).
            solve: returns u_i, (B, 1), from where it starts, (B, 1), and c_i, (B, D).
        """
        memory = self.transformer.encode(self.token(condition, 0))
        if torch.compiler.is_exporting():
            return self._looped(memory, noise, solve)
        cache = self.transformer.start(memory)
        drawn = [torch.zeros_like(condition)]
        for i in range(self.numbers):
            known, cache = self.transformer.step(cache, self.token(drawn[-1], 1 + i))
            drawn.append(solve(noise[:, i : i + 1], known[:, 0]))
        return torch.cat(drawn[1:], 1)

    def _looped(self, memory: Tensor, noise: Tensor, solve: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Draws them in a loop of the exported graph.

        What goes from one number to the next, all in one row: the numbers so far, and keys and values of each layer
        with places for all tokens. A step is told by a one-hot which place is its own, and which ones have been filled.
        """
        length, transformer = self.numbers, self.transformer
        seen = transformer.start(memory).memory
        shape = (len(seen), 2, transformer.heads, length, self.width // transformer.heads)
        own = torch.eye(length, dtype=noise.dtype)
        values = torch.cat([own, own.cumsum(1).T], 1)

        def step(state: Tensor, row: Tensor) -> Tensor:
            now, filled = row[:length], row[length:]
            u, cache = state[:, :length], state[:, length:].view(-1, *shape)
            before = (F.pad(u[:, :-1], (1, 0)) * now).sum(1, keepdim=True)
            token = F.pad(before, (0, self.width - 1)) + F.pad(now, (2, self.width - length - 2))
            known, cache = transformer.step_in_place(seen, cache, token[:, None], now, filled)
            drawn = solve((noise * now).sum(1, keepdim=True), known[:, 0])
            return torch.cat([u + drawn * now, cache.flatten(1)], 1)

        empty = F.pad(torch.zeros_like(noise), (0, math.prod(shape)))
        return repeated(step, empty, values)[:, :length]
