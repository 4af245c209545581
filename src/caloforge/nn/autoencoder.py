"""The small autoencoder of images of Wojnar (2025): the encoder and decoder of its VAE and its VQ-GAN.

Blocks are those of the U-Net (`nn.unet`) without a time vector; two levels halve the image, so that 44 x 44 fibres
become 11 x 11 and 56 x 30 become 14 x 8. With 4 base channels, multipliers (2, 3, 4), two blocks a level and two
heads the VAE with 4 latent channels has the paper's 59,348 parameters (28,460 and 30,888), the VQ-GAN with 8 has
59,924.

The published code attends along rows only; here, as in the text, every place attends to every place.

An image ends with a ReLU, and nearly all of it is dark. A decoder that has once made all of it dark would get no
gradient any more, which happened within the first epoch; so in training the gradient of a dark pixel passes where the
loss asks for more light. The function is the same.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from caloforge.nn.unet import Conv, PixelNorm, attention


class AutoencoderConfig(BaseModel):
    """Sizes of the autoencoder.

    Attributes:
        base: channels of the stem.
        multipliers: channels of each level over `base`; each level but the last halves the image.
        blocks: residual blocks a level.
        heads: attention heads.
        channels: numbers a place of the latent image.
        initial: weights at the start: `even` keeps the variance from layer to layer; `published` has the standard
            deviation 1 / (out k^2), with which hardly anything is learned in the first hundreds of steps.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: int = Field(4, ge=1)
    multipliers: tuple[int, ...] = Field((2, 3, 4), min_length=1)
    blocks: int = Field(2, ge=1)
    heads: int = Field(2, ge=1)
    channels: int = Field(4, ge=1)
    initial: Literal["even", "published"] = "even"


def _start(module: nn.Module, config: AutoencoderConfig) -> None:
    """Gives the convolutions their first weights, but for the last of each residual block."""
    for name, layer in module.named_modules():
        if config.initial == "even" and isinstance(layer, Conv) and not name.endswith("conv2"):
            nn.init.normal_(layer.weight, std=layer.weight[0].numel() ** -0.5)


class Residual(nn.Module):
    """Two convolutions and a skip."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = PixelNorm(inputs), PixelNorm(outputs)
        self.conv1, self.conv2 = Conv(inputs, outputs, 3), Conv(outputs, outputs, 3, std=1e-4 / outputs)
        self.skip = Conv(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C_in, H, W) to (B, C_out, H, W)."""
        h = self.conv1(F.silu(self.norm1(x)))
        y: Tensor = self.skip(x) + self.conv2(F.silu(self.norm2(h)))
        return y


class SelfAttention(nn.Module):
    """Attention of the places to each other."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = PixelNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.out = nn.Linear(channels, channels, bias=False)
        nn.init.normal_(self.out.weight, std=0.2 / math.sqrt(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Adds to (B, C, H, W) what each place attends to."""
        b, c, h, w = x.shape
        tokens = self.norm(x).permute(0, 2, 3, 1).reshape(b, h * w, c)
        q, k, v = self.qkv(tokens).view(b, h * w, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        update = self.out(attention(q, k, v).transpose(1, 2).reshape(b, h * w, c))
        change: Tensor = update.view(b, h, w, c).permute(0, 3, 1, 2)
        return x + change


class Upsample(nn.Module):
    """Doubles the size by nearest neighbours and convolves."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Conv(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C, 2 H, 2 W)."""
        y: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return y


def latent_shape(shape: tuple[int, int], config: AutoencoderConfig) -> tuple[int, int, int]:
    """Returns channels, height and width of the latent image."""
    factor = 2 ** (len(config.multipliers) - 1)
    return config.channels, -(-shape[0] // factor), -(-shape[1] // factor)


class Encoder(nn.Module):
    """Maps an image to one or several latent images.

    Args:
        config: sizes.
        outputs: latent images, each by a 1 x 1 convolution of its own.
    """

    def __init__(self, config: AutoencoderConfig, outputs: int) -> None:
        super().__init__()
        widths = [config.base * multiplier for multiplier in config.multipliers]
        layers: list[nn.Module] = [Conv(1, config.base, 3)]
        channels = config.base
        for level, width in enumerate(widths):
            for _ in range(config.blocks):
                layers.append(Residual(channels, width))
                channels = width
            if level < len(widths) - 1:
                layers.append(Conv(channels, channels, 3, stride=2))
        layers += [Residual(channels, channels), SelfAttention(channels, config.heads)]
        layers += [Residual(channels, channels), PixelNorm(channels), nn.SiLU()]
        self.layers = nn.Sequential(*layers)
        self.outputs = nn.ModuleList(Conv(channels, config.channels, 1) for _ in range(outputs))
        _start(self, config)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Maps ln(1 + n), (B, H, W), to latent images, (B, C, h, w) each."""
        h = self.layers(image[:, None].contiguous(memory_format=torch.channels_last))
        return tuple(output(h) for output in self.outputs)


class _Rectified(torch.autograd.Function):
    """max(x, 0) whose gradient also passes where x < 0 and the loss asks for more."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        context.save_for_backward(x)
        return torch.relu(x)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        (x,) = context.saved_tensors
        passed: Tensor = gradient * ((x > 0) | (gradient < 0))
        return passed


def rectified(image: Tensor) -> Tensor:
    """Returns max(x, 0) of any shape; in training its gradient also passes where a dark pixel should be brighter."""
    if torch.is_grad_enabled() and image.requires_grad:
        result: Tensor = _Rectified.apply(image)  # type: ignore[no-untyped-call]
        return result
    return torch.relu(image)


class Decoder(nn.Module):
    """Maps a latent image to an image.

    Args:
        shape: height and width of the image.
        config: sizes.
    """

    def __init__(self, shape: tuple[int, int], config: AutoencoderConfig) -> None:
        super().__init__()
        self.shape = shape
        widths = [config.base * multiplier for multiplier in reversed(config.multipliers)]
        channels = widths[0]
        layers: list[nn.Module] = [Conv(config.channels, channels, 3), Residual(channels, channels)]
        layers += [SelfAttention(channels, config.heads), Residual(channels, channels)]
        for level, width in enumerate(widths):
            for _ in range(config.blocks):
                layers.append(Residual(channels, width))
                channels = width
            if level > 0:
                layers.append(Upsample(channels))
        self.layers = nn.Sequential(*layers, PixelNorm(channels), nn.SiLU(), Conv(channels, 1, 1))
        _start(self, config)

    def forward(self, latent: Tensor) -> Tensor:
        """Maps (B, C, h, w) to ln(1 + n) >= 0, (B, H, W)."""
        image = self.layers(latent.contiguous(memory_format=torch.channels_last))[:, 0]
        (height, width), (rows, columns) = self.shape, image.shape[1:]
        top, left = (rows - height) // 2, (columns - width) // 2
        return rectified(image[:, top : top + height, left : left + width])


class LinearHeads(nn.Module):
    """A discriminator: a linear head, zero at first, on each of an extractor's features, and the mean of all outputs.

    Args:
        extractor: gives a list of features, (B, C, h, w) each, from images; it is trained as well.
        channels: C of each.
    """

    def __init__(self, extractor: nn.Module, channels: list[int]) -> None:
        super().__init__()
        self.extractor = extractor
        self.heads = nn.ModuleList(nn.Conv2d(c, 1, 1) for c in channels)
        for head in self.heads:
            nn.init.zeros_(head.weight)  # type: ignore[arg-type]
            nn.init.zeros_(head.bias)  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> Tensor:
        """Judges images, (B, H, W): a number each, (B,), positive for real ones."""
        features = self.extractor(image)
        outputs = [head(feature).flatten(1) for head, feature in zip(self.heads, features, strict=True)]
        return torch.cat(outputs, 1).mean(1)


def normalized_gradient(term: Tensor, image: Tensor, weight: float) -> Tensor:
    """Returns the gradient of a term with respect to an image, with the L2 norm `weight` over the whole batch.

    The published losses are balanced so: each term pulls at the reconstruction with a strength of its own, whatever
    its scale.
    """
    (gradient,) = torch.autograd.grad(term, image, retain_graph=True)
    pull: Tensor = weight * gradient / (gradient.norm() + 1e-8)
    return pull
