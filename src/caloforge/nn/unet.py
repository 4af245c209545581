"""The tiny conditional U-Net of Wojnar (2025), "Even faster simulations with flow matching".

Convolutions have no bias, layer norms act over the channels of each pixel. Time enters the residual blocks
only, the particle enters by attention only: its projection joins the pixels as one more key and value, and no
query of its own is needed, since its output would be dropped. With 4 base channels, multipliers (2, 3, 4), two
blocks a level and patch 1 the network has the paper's 77,372 parameters.

A `patch` above 1 puts a space-to-depth stem in front: the image is cut into patch x patch tiles, each a pixel
with patch^2 channels.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

NARROW = 9
"""Channels below which an exported graph norms an image as it lies."""

HEAD = 16
"""Numbers a head of attention is filled up to."""


class UNetConfig(BaseModel):
    """Sizes of the U-Net.

    Attributes:
        base: channels of the stem.
        multipliers: channels of each level over `base`.
        blocks: blocks a level.
        attention: levels that see the particle by attention, from 0, the finest; the middle always does.
        heads: attention heads.
        patch: edge of a space-to-depth tile; 1 is the paper's.
        time: dimension of the sinusoid of time.
        embedding: width of the time and condition vectors.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: int = Field(4, ge=1)
    multipliers: tuple[int, ...] = (2, 3, 4)
    blocks: int = Field(2, ge=1)
    attention: tuple[int, ...] = (1,)
    heads: int = Field(2, ge=1)
    patch: int = Field(1, ge=1)
    time: int = Field(8, ge=2, multiple_of=2)
    embedding: int = Field(16, ge=1)


class Conv(nn.Conv2d):
    """A convolution without bias that keeps the size (halves it at stride 2)."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, std: float | None = None
    ) -> None:
        super().__init__(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
        nn.init.normal_(self.weight, std=1 / (outputs * kernel**2) if std is None else std)


class PixelNorm(nn.LayerNorm):
    """A layer norm over the channels of each pixel of (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Normalizes (B, C, H, W).

        In an exported graph without turning the image where channels are few: ONNX Runtime's kernel works row by row.
        """
        if torch.compiler.is_exporting() and x.shape[1] < NARROW:
            centred = x - x.mean(1, keepdim=True)
            scaled = centred * torch.rsqrt(centred.square().mean(1, keepdim=True) + self.eps)
            return scaled * self.weight[:, None, None] + self.bias[:, None, None]
        normalized: Tensor = super().forward(x.permute(0, 2, 3, 1))
        return normalized.permute(0, 3, 1, 2)


class Residual(nn.Module):
    """Two convolutions with the time vector added between them."""

    def __init__(self, inputs: int, outputs: int, embedding: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = PixelNorm(inputs), PixelNorm(outputs)
        self.conv1 = Conv(inputs, outputs, 3)
        self.conv2 = Conv(outputs, outputs, 3, std=1e-4 / outputs)
        self.time = nn.Linear(embedding, outputs, bias=False)
        nn.init.normal_(self.time.weight, std=0.01 / outputs)
        self.skip = Conv(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Maps (B, C_in, H, W) and the time vector (B, E) to (B, C_out, H, W)."""
        h = self.conv1(F.silu(self.norm1(x))) + F.silu(self.time(time))[:, :, None, None]
        y: Tensor = self.skip(x) + self.conv2(F.silu(self.norm2(h)))
        return y


class ConditionAttention(nn.Module):
    """Attention of the pixels to each other and to the particle."""

    def __init__(self, channels: int, width: int, heads: int, embedding: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = PixelNorm(channels)
        self.condition = nn.Linear(embedding, channels, bias=False)
        self.qkv = nn.Linear(channels, 3 * width, bias=False)
        self.out = nn.Linear(width, channels, bias=False)
        nn.init.normal_(self.out.weight, std=0.2 / math.sqrt(width))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Adds to (B, C, H, W) what each pixel attends to, given the condition vector (B, E)."""
        b, c, h, w = x.shape
        tokens = self.norm(x).permute(0, 2, 3, 1).reshape(b, h * w, c)
        tokens = torch.cat([tokens, self.condition(condition)[:, None]], 1)
        q, k, v = self.qkv(tokens).view(b, h * w + 1, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        attended = attention(q[:, :, :-1], k, v)
        update = self.out(attended.transpose(1, 2).reshape(b, h * w, -1))
        change: Tensor = update.view(b, h, w, c).permute(0, 3, 1, 2)
        return x + change


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attends with heads of a few numbers, (B, heads, tokens, size).

    Filled up with zeros to 16 numbers, which changes nothing: PyTorch's kernel for CPUs is tuned for wide heads
    and takes 1.6 times as long for 6 numbers as for 16, forward and backward.
    """
    size = q.shape[-1]
    if size >= HEAD or torch.compiler.is_exporting():
        return F.scaled_dot_product_attention(q, k, v)
    q, k, v = (F.pad(tensor, (0, HEAD - size)) for tensor in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, scale=1 / math.sqrt(size))[..., :size]


class Upsample(nn.Module):
    """Doubles the size by nearest neighbours, convolves and crops to the size of the skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Conv(channels, channels, 3)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Maps (B, C, H, W) to (B, C, *size)."""
        y: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return y[:, :, : size[0], : size[1]]


class UNet(nn.Module):
    """Velocity of an image at a time, for a particle.

    Args:
        shape: height and width of the image.
        conditions: features of the condition vector, F.
        config: sizes.
        channels: numbers a pixel, C.
    """

    def __init__(
        self, shape: tuple[int, int], conditions: int, config: UNetConfig, channels: int = 1
    ) -> None:
        super().__init__()
        self.shape, self.patch = shape, config.patch
        numbers = channels * config.patch**2
        self.time_dim = config.time
        e, heads = config.embedding, config.heads
        self.condition = nn.Sequential(
            nn.Linear(conditions, e, bias=False), nn.SiLU(), nn.Linear(e, e, bias=False)
        )
        self.time = nn.Sequential(
            nn.Linear(config.time, e, bias=False), nn.SiLU(), nn.Linear(e, e, bias=False)
        )
        widths = [config.base * multiplier for multiplier in config.multipliers]
        levels = range(len(widths))

        self.stem = Conv(numbers, config.base, 3)
        width, skips = config.base, []
        self.down, self.downsample = nn.ModuleList(), nn.ModuleList()
        for level in levels:
            blocks = nn.ModuleList()
            for _ in range(config.blocks):
                if level in config.attention:
                    blocks.append(ConditionAttention(width, widths[level], heads, e))
                    skips.append(width)
                blocks.append(Residual(width, widths[level], e))
                width = widths[level]
                skips.append(width)
            self.down.append(blocks)
            if level < levels[-1]:
                self.downsample.append(Conv(width, width, 3, stride=2))

        self.middle = nn.ModuleList([Residual(width, width, e)])
        for _ in range(config.blocks):
            self.middle.append(ConditionAttention(width, width, heads, e))
            self.middle.append(Residual(width, width, e))

        self.up, self.upsample = nn.ModuleList(), nn.ModuleList()
        for level in reversed(levels):
            blocks = nn.ModuleList()
            for _ in range(config.blocks):
                if level in config.attention:
                    width += skips.pop()
                    blocks.append(ConditionAttention(width, widths[level], heads, e))
                blocks.append(Residual(width + skips.pop(), widths[level], e))
                width = widths[level]
            self.up.append(blocks)
            if level > 0:
                self.upsample.append(Upsample(width))
        self.norm = PixelNorm(width)
        self.out = Conv(width, numbers, 1)

    def _embed_time(self, t: Tensor) -> Tensor:
        half = self.time_dim // 2
        frequencies = torch.exp(torch.arange(half, device=t.device) * (-math.log(1e4) / half)).to(t.dtype)
        angles = t[:, None] * frequencies
        embedded: Tensor = self.time(torch.cat([torch.cos(angles), torch.sin(angles)], 1))
        return embedded

    def forward(self, x: Tensor, t: Tensor, conditions: Tensor) -> Tensor:
        """Returns the velocity, shaped as x.

        Args:
            x: the image, (B, H, W), or (B, C, H, W) with several numbers a pixel.
            t: times, (B,).
            conditions: standardised, (B, F).
        """
        height, width = self.shape
        p = self.patch
        pad = (0, -width % p, 0, -height % p)
        flat = x.ndim == 3
        x = x[:, None] if flat else x
        x = F.pixel_unshuffle(F.pad(x, pad), p) if p > 1 else x
        time, condition = self._embed_time(t), self.condition(conditions)

        def apply(block: nn.Module, h: Tensor) -> Tensor:
            y: Tensor = block(h, time if isinstance(block, Residual) else condition)
            return y

        h = self.stem(x.contiguous(memory_format=torch.channels_last))
        skips, sizes = [], []
        for level, blocks in enumerate(self.down):
            for block in blocks:  # type: ignore[attr-defined]
                h = apply(block, h)
                skips.append(h)
            if level < len(self.downsample):
                sizes.append((h.shape[2], h.shape[3]))
                h = self.downsample[level](h)
        for block in self.middle:
            h = apply(block, h)
        for level, blocks in enumerate(self.up):
            for block in blocks:  # type: ignore[attr-defined]
                h = apply(block, torch.cat([h, skips.pop()], 1))
            if level < len(self.upsample):
                h = self.upsample[level](h, sizes.pop())
        velocity: Tensor = self.out(F.silu(self.norm(h)))
        velocity = F.pixel_shuffle(velocity, p) if p > 1 else velocity
        velocity = velocity[:, :, :height, :width]
        return velocity[:, 0] if flat else velocity
