"""A vision transformer of voxels, modulated by time and conditions (CaloDREAM, arXiv:2405.09629, after DiT).

A response of (layer, angle, radius) is cut into patches, each one token. With c = MLP(t) + MLP(conditions), a block is

    x <- x + gate_1 attention((1 + scale_1) LN(x) + shift_1),
    x <- x + gate_2 mlp((1 + scale_2) LN(x) + shift_2),

shifts, scales and gates being Linear(SiLU(c)), zero at the start. Every axis of the grid of tokens has a third of the
learnable frequencies w, sin and cos of 2 pi w index / n are added to the token.

26,042,688 parameters for data set 2 and 5,868,870 for data set 3 with the paper's sizes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from caloforge.nn.until import Until, embedding_of

PERIOD = 1e4
"""Longest period of the sinusoids of time."""

AT_ONCE = 2**22
"""Numbers of a hidden layer that are computed at once where nothing is trained: what a processor's cache holds."""


class ViTConfig(BaseModel):
    """Sizes of the vision transformer; the defaults are the paper's for data set 2.

    Attributes:
        patch: layers, angles and radii of a patch; must divide the axes.
        width: numbers a token, a multiple of 6 and of `heads`.
        heads: attention heads.
        blocks: blocks.
        inner: width of the hidden layer of each block.
        time: numbers of the sinusoid of time.
        recompute: keep what enters each block and compute the rest again for the gradients: a third more time in a
            training, and a sixth of the memory. The numbers are the same.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    patch: tuple[int, int, int] = (3, 16, 1)
    width: int = Field(480, ge=6, multiple_of=6)
    heads: int = Field(6, ge=1)
    blocks: int = Field(6, ge=1)
    inner: int = Field(1920, ge=1)
    time: int = Field(256, ge=2, multiple_of=2)
    recompute: bool = False


def _xavier(layer: nn.Linear) -> nn.Linear:
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _zero(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return F.layer_norm(x, (x.shape[-1],), eps=1e-6) * (1 + scale) + shift


class Block(nn.Module):
    """Attention among the tokens, then a hidden layer for each, both modulated by a vector."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        width, self.heads = config.width, config.heads
        self.modulation = _zero(nn.Linear(width, 6 * width))
        self.qkv, self.out = _xavier(nn.Linear(width, 3 * width)), _xavier(nn.Linear(width, width))
        self.up, self.down = _xavier(nn.Linear(width, config.inner)), _xavier(nn.Linear(config.inner, width))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Maps tokens (B, T, D), given a vector (B, D), to the same shape."""
        modulation = self.modulation(embedding)[:, None].chunk(6, -1)
        x = x + modulation[2] * self._attend(_modulated(x, *modulation[:2]))
        hidden = F.gelu(self.up(_modulated(x, *modulation[3:5])), approximate="tanh")
        result: Tensor = x + modulation[5] * self.down(hidden)
        return result

    def _attend(self, x: Tensor) -> Tensor:
        b, tokens, width = x.shape
        q, k, v = self.qkv(x).view(b, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.out(attended.transpose(1, 2).reshape(b, tokens, width))
        return out


class ViT(nn.Module):
    """Maps a noisy response to numbers for each of its voxels.

    Args:
        shape: channels, layers, angles and radii.
        conditions: numbers of the condition vector, F.
        config: sizes.
        outputs: numbers a voxel; the channels where not given.
        local: numbers that come with each layer, besides.
        until: it also gives average velocities, until a later time (`ode.average_velocity`).

    Raises:
        ValueError: patches that do not divide the axes, or heads that do not divide the width.
    """

    def __init__(
        self,
        shape: Sequence[int],
        conditions: int,
        config: ViTConfig,
        *,
        outputs: int | None = None,
        local: int = 0,
        until: bool = False,
    ) -> None:
        super().__init__()
        channels, *axes = shape
        if any(size % edge for size, edge in zip(axes, config.patch, strict=True)):
            raise ValueError(
                f"patches of {_listed(config.patch)} do not divide a response of {_listed(axes)} "
                "(layer, angle, radius)"
            )
        if config.width % config.heads:
            raise ValueError(f"{config.heads} heads do not divide a width of {config.width}")
        width = config.width
        self.channels, self.outputs, self.patch = channels, outputs or channels, config.patch
        self.grid = tuple(size // edge for size, edge in zip(axes, config.patch, strict=True))
        self._recompute = config.recompute
        self.at_once = max(AT_ONCE // (self.tokens * config.inner), 1)
        voxels = math.prod(config.patch)
        self.embed = _xavier(nn.Linear(channels * voxels + local * config.patch[0], width))
        self.time = nn.Sequential(nn.Linear(config.time, width), nn.SiLU(), nn.Linear(width, width))
        for number in (0, 2):
            nn.init.normal_(self.time[number].weight, std=0.02)  # type: ignore[arg-type]
            nn.init.zeros_(self.time[number].bias)  # type: ignore[arg-type]
        self.condition = nn.Sequential(
            _xavier(nn.Linear(conditions, width)), nn.SiLU(), _xavier(nn.Linear(width, width))
        )
        self.frequencies = nn.Parameter(torch.randn(3, width // 6))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.modulation = _zero(nn.Linear(width, 2 * width))
        self.last = _zero(nn.Linear(width, self.outputs * voxels))
        self.periods: Tensor
        half = config.time // 2
        self.register_buffer(
            "periods", torch.exp(-math.log(PERIOD) / half * torch.arange(half)), persistent=False
        )
        self.until = Until(width) if until else None
        places = torch.cartesian_prod(*(torch.arange(n) / n for n in self.grid))
        self.places: Tensor
        self.register_buffer("places", places, persistent=False)

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return math.prod(self.grid)

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        conditions: Tensor,
        local: Tensor | None = None,
        s: Tensor | None = None,
    ) -> Tensor:
        """Returns numbers for each voxel, (B, outputs, L, A, R).

        Args:
            x: the noisy response, (B, channels, L, A, R).
            t: times in [0, 1], (B,).
            conditions: standardised, (B, F).
            local: numbers of each layer, (B, L, n), where the network has some.
            s: later times, (B,), for the average between two times; None for what is so at t.
        """
        several = x.device.type == "cpu" and x.shape[0] > self.at_once
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or not several:
            return self._forward(x, t, conditions, local, s)
        parts = [slice(first, first + self.at_once) for first in range(0, len(x), self.at_once)]
        return torch.cat(
            [
                self._forward(
                    x[part],
                    t[part],
                    conditions[part],
                    None if local is None else local[part],
                    None if s is None else s[part],
                )
                for part in parts
            ]
        )

    def _forward(
        self, x: Tensor, t: Tensor, conditions: Tensor, local: Tensor | None, s: Tensor | None
    ) -> Tensor:
        tokens = self._patches(x)
        if local is not None:
            tokens = torch.cat([tokens, self._of_layers(local)], -1)
        tokens = self.embed(tokens) + self._positions()
        embedding = F.silu(embedding_of(self._time, self.until, t, s) + self.condition(conditions))
        for block in self.blocks:
            if self._recompute and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, embedding, use_reentrant=False)
            else:
                tokens = block(tokens, embedding)
        shift, scale = self.modulation(embedding)[:, None].chunk(2, -1)
        return self._voxels(self.last(_modulated(tokens, shift, scale)))

    def _time(self, t: Tensor) -> Tensor:
        """Returns the embedding of times (B,), (B, width)."""
        phase = t[:, None] * self.periods
        embedding: Tensor = self.time(torch.cat([phase.cos(), phase.sin()], 1))
        return embedding

    def _positions(self) -> Tensor:
        phase = 2 * math.pi * self.places[:, :, None] * self.frequencies
        return torch.cat([phase.sin(), phase.cos()], 2).flatten(1)

    def _patches(self, x: Tensor) -> Tensor:
        """Cuts (B, C, L, A, R) into patches, (B, T, C * voxels)."""
        (a, b, c), (p, q, r) = self.grid, self.patch
        cut = x.reshape(-1, self.channels, a, p, b, q, c, r).permute(0, 2, 4, 6, 1, 3, 5, 7)
        return cut.reshape(-1, self.tokens, self.channels * p * q * r)

    def _voxels(self, tokens: Tensor) -> Tensor:
        """Joins patches, (B, T, outputs * voxels), to (B, outputs, L, A, R)."""
        (a, b, c), (p, q, r) = self.grid, self.patch
        joined = tokens.reshape(-1, a, b, c, self.outputs, p, q, r).permute(0, 4, 1, 5, 2, 6, 3, 7)
        return joined.reshape(-1, self.outputs, a * p, b * q, c * r)

    def _of_layers(self, local: Tensor) -> Tensor:
        """Gives each token the numbers of its layers, (B, L, n) to (B, T, n * layers of a patch)."""
        a, b, c = self.grid
        each = local.reshape(-1, a, 1, self.patch[0] * local.shape[2])
        return each.expand(-1, a, b * c, each.shape[3]).reshape(-1, self.tokens, each.shape[3])


def _listed(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes))
