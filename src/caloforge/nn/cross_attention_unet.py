"""A U-Net of group norms whose attention also looks at the particle, as in latent diffusion (arXiv:2112.10752).

It is the network of the diffusion model of Wojnar (2025), "Even faster simulations with flow matching": 16, 32, 64 and
128 channels, two residual blocks a level (three on the way up), attention at 64 channels and in the middle. A block of
attention is a transformer layer of the pixels: attention among themselves, attention to the particle, and a gated
feed-forward layer.

The particle is one vector, so the softmax of an attention to it is 1 whatever the queries and keys, and what is added
is the same for every pixel:

    x <- x + W_out W_value e,   e the embedding of the particle.

Queries, keys and the norm before them never get a gradient. They are left out here: 52,096 of the published 4,255,585
parameters, which leaves 4,203,489 for the same function.
"""

from __future__ import annotations

import math
from typing import Self

import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from caloforge.nn.unet import attention

TIMES = 1000
"""What times in [0, 1] are multiplied by before their sinusoids are taken."""


class CrossAttentionUNetConfig(BaseModel):
    """Sizes of the U-Net.

    Attributes:
        channels: of each level; multiples of `groups`, and of `heads` where there is attention.
        blocks: residual blocks a level on the way down; one more on the way up.
        attention: levels with attention, from 0, the finest; the middle always has it.
        heads: attention heads.
        context: numbers of the particle's embedding.
        groups: of the group norms.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: tuple[int, ...] = Field((16, 32, 64, 128), min_length=1)
    blocks: int = Field(2, ge=1)
    attention: tuple[int, ...] = (2,)
    heads: int = Field(4, ge=1)
    context: int = Field(32, ge=1)
    groups: int = Field(8, ge=1)

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        last = len(self.channels) - 1
        for level, width in enumerate(self.channels):
            if width < 1 or width % self.groups:
                raise ValueError(f"channels must be multiples of the {self.groups} groups, got {width}")
            if (level in self.attention or level == last) and width % self.heads:
                raise ValueError(f"channels with attention must be multiples of heads, got {width}")
        return self


class Residual(nn.Module):
    """Two convolutions with the time vector added between them."""

    def __init__(self, inputs: int, outputs: int, time: int, groups: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(groups, inputs), nn.GroupNorm(groups, outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.time = nn.Linear(time, outputs)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Maps (B, C_in, H, W) and the time vector (B, E) to (B, C_out, H, W)."""
        h = self.conv1(F.silu(self.norm1(x))) + self.time(F.silu(time))[:, :, None, None]
        y: Tensor = self.skip(x) + self.conv2(F.silu(self.norm2(h)))
        return y


class TransformerLayer(nn.Module):
    """Attention of the pixels to each other and to the particle, and a gated feed-forward layer."""

    def __init__(self, channels: int, config: CrossAttentionUNetConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.norm = nn.GroupNorm(config.groups, channels, eps=1e-6)
        self.inputs, self.outputs = nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 1)
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.qkv, self.out = nn.Linear(channels, 3 * channels, bias=False), nn.Linear(channels, channels)
        self.value = nn.Linear(config.context, channels, bias=False)
        self.value_out = nn.Linear(channels, channels)
        self.up, self.down = nn.Linear(channels, 8 * channels), nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Adds to (B, C, H, W) what each pixel attends to, given the particle's embedding (B, E)."""
        b, c, h, w = x.shape
        tokens = self.inputs(self.norm(x)).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(self.norm1(tokens)).view(b, h * w, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        tokens = tokens + self.out(attention(q, k, v).transpose(1, 2).reshape(b, h * w, c))
        tokens = tokens + self.value_out(self.value(context))[:, None]
        hidden, gate = self.up(self.norm2(tokens)).chunk(2, -1)
        tokens = tokens + self.down(hidden * F.gelu(gate))
        change: Tensor = self.outputs(tokens.transpose(1, 2).reshape(b, c, h, w))
        return x + change


class Upsample(nn.Module):
    """Doubles the size by nearest neighbours, crops to the size of the skip and convolves."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Maps (B, C, H, W) to (B, C, *size)."""
        doubled = F.interpolate(x, scale_factor=2.0, mode="nearest")
        y: Tensor = self.conv(doubled[:, :, : size[0], : size[1]])
        return y


class Block(nn.Module):
    """A residual block, with attention after it at some levels."""

    def __init__(self, inputs: int, outputs: int, attends: bool, config: CrossAttentionUNetConfig) -> None:
        super().__init__()
        self.residual = Residual(inputs, outputs, 4 * config.channels[0], config.groups)
        self.attention = TransformerLayer(outputs, config) if attends else None

    def forward(self, x: Tensor, time: Tensor, context: Tensor) -> Tensor:
        """Maps (B, C_in, H, W) to (B, C_out, H, W), given time (B, T) and particle (B, E)."""
        y: Tensor = self.residual(x, time)
        return y if self.attention is None else self.attention(y, context)


class CrossAttentionUNet(nn.Module):
    """Maps an image at a time, for a particle, to an image.

    Args:
        conditions: features of the condition vector, F.
        config: sizes.
    """

    def __init__(self, conditions: int, config: CrossAttentionUNetConfig) -> None:
        super().__init__()
        widths, blocks = config.channels, config.blocks
        self.sinusoids = widths[0]
        self.context = nn.Linear(conditions, config.context)
        self.time = nn.Sequential(
            nn.Linear(widths[0], 4 * widths[0]), nn.SiLU(), nn.Linear(4 * widths[0], 4 * widths[0])
        )
        self.stem = nn.Conv2d(1, widths[0], 3, padding=1)
        width, skips = widths[0], [widths[0]]
        self.down, self.downsample = nn.ModuleList(), nn.ModuleList()
        for level, channels in enumerate(widths):
            row = nn.ModuleList()
            for _ in range(blocks):
                row.append(Block(width, channels, level in config.attention, config))
                width = channels
                skips.append(width)
            self.down.append(row)
            if level < len(widths) - 1:
                self.downsample.append(nn.Conv2d(width, width, 3, stride=2, padding=1))
                skips.append(width)
        self.middle = nn.ModuleList(Block(width, width, attends, config) for attends in (True, False))
        self.up, self.upsample = nn.ModuleList(), nn.ModuleList()
        for level in reversed(range(len(widths))):
            row = nn.ModuleList()
            for _ in range(blocks + 1):
                row.append(Block(width + skips.pop(), widths[level], level in config.attention, config))
                width = widths[level]
            self.up.append(row)
            if level > 0:
                self.upsample.append(Upsample(width))
        self.norm, self.out = nn.GroupNorm(config.groups, width), nn.Conv2d(width, 1, 3, padding=1)

    def _embed_time(self, t: Tensor) -> Tensor:
        half = self.sinusoids // 2
        frequencies = torch.exp(torch.arange(half, device=t.device) * (-math.log(1e4) / half)).to(t.dtype)
        angles = TIMES * t[:, None] * frequencies
        embedded: Tensor = self.time(torch.cat([torch.cos(angles), torch.sin(angles)], 1))
        return embedded

    def forward(self, x: Tensor, t: Tensor, conditions: Tensor) -> Tensor:
        """Returns an image, shaped as x.

        Args:
            x: the image, (B, H, W).
            t: times in [0, 1], (B,).
            conditions: standardised, (B, F).
        """
        time, context = self._embed_time(t), self.context(conditions)
        h = self.stem(x[:, None])
        skips = [h]
        for level, row in enumerate(self.down):
            for block in row:  # type: ignore[attr-defined]
                h = block(h, time, context)
                skips.append(h)
            if level < len(self.downsample):
                h = self.downsample[level](h)
                skips.append(h)
        for block in self.middle:
            h = block(h, time, context)
        for level, row in enumerate(self.up):
            for block in row:  # type: ignore[attr-defined]
                h = block(torch.cat([h, skips.pop()], 1), time, context)
            if level < len(self.upsample):
                h = self.upsample[level](h, skips[-1].shape[2:])
        image: Tensor = self.out(F.silu(self.norm(h)))
        return image[:, 0]
