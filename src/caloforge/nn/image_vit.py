"""Vision transformers between images and vectors: encoder, decoder and critic of the older ZDC models (Wojnar 2025).

An image is filled up to whole patches of 8 x 8 fibres (44 x 44 to 48 x 48, 36 patches; 56 x 30 to 56 x 32, 28), half of
it on either side. Each patch is a token of `width` numbers, with a learned position; the particle is one more token in
front. A layer is, with LN a layer norm,

    x <- x + attention(LN(x)),   x <- x + D(W_2 gelu(W_1 LN(x))),

with a hidden width of 4 times the width and D the dropout. Its masks come from outside, since no network draws random
numbers of its own. At the end the particle's token is dropped. The decoder ends with a transposed convolution that
gives each token its patch, max(x + 0.5, 0), and crops to the image.

The gradient of the maximum is that of `nn.autoencoder`: it also passes where a dark pixel should be brighter.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from caloforge.nn.autoencoder import rectified
from caloforge.nn.unet import attention


class ImageViTConfig(BaseModel):
    """Sizes of a vision transformer.

    Attributes:
        width: numbers a token; a multiple of `heads`.
        heads: attention heads.
        layers: transformer layers.
        dropout: share of the feed-forward layers' outputs that is dropped in training.
        patch: edge of a patch, in fibres.
        latent: numbers a token of what comes out of the encoder and goes into the decoder.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = Field(96, ge=1)
    heads: int = Field(4, ge=1)
    layers: int = Field(4, ge=1)
    dropout: float = Field(0.1, ge=0, lt=1)
    patch: int = Field(8, ge=1)
    latent: int = Field(64, ge=1)


class Layer(nn.Module):
    """Attention among the tokens and a feed-forward layer."""

    def __init__(self, config: ImageViTConfig) -> None:
        super().__init__()
        width, self.heads = config.width, config.heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, kept: Tensor | None) -> Tensor:
        """Maps tokens, (B, T, width); `kept` multiplies what the feed-forward layer adds."""
        b, tokens, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        x = x + self.out(attention(q, k, v).transpose(1, 2).reshape(b, tokens, width))
        change: Tensor = self.down(F.gelu(self.up(self.norm2(x))))
        return x + (change if kept is None else change * kept)


class Tokens(nn.Module):
    """Transformer layers among tokens with positions, after the particle's token where there is one.

    Args:
        tokens: their number, T.
        inputs: numbers of each.
        conditions: features of the particle, F; 0 for a transformer that does not see it.
        config: sizes.
    """

    def __init__(self, tokens: int, inputs: int, conditions: int, config: ImageViTConfig) -> None:
        super().__init__()
        if config.width % config.heads:
            raise ValueError(f"{config.heads} heads do not divide a width of {config.width}")
        self.embed = nn.Linear(inputs, config.width)
        self.positions = nn.Parameter(torch.randn(tokens, config.width) / math.sqrt(config.width))
        self.condition = nn.Linear(conditions, config.width) if conditions else None
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.mask = (config.layers, tokens + bool(conditions), config.width)

    def forward(self, x: Tensor, condition: Tensor | None, kept: Tensor | None) -> Tensor:
        """Maps tokens (B, T, inputs) to (B, T, width), given standardised features (B, F)."""
        x = self.embed(x) + self.positions
        if self.condition is not None:
            assert condition is not None
            x = torch.cat([self.condition(condition)[:, None], x], 1)
        for number, layer in enumerate(self.layers):
            x = layer(x, None if kept is None else kept[:, number])
        return x if self.condition is None else x[:, 1:]


def _grid(shape: tuple[int, int], patch: int) -> tuple[int, int]:
    return -(-shape[0] // patch), -(-shape[1] // patch)


class ImageEncoder(nn.Module):
    """Maps an image to a vector.

    Args:
        shape: height and width of the image.
        conditions: features of the particle, F; 0 for an encoder that does not see it.
        config: sizes.

    Attributes:
        size: numbers of the vector: `latent` for each patch.
        mask: shape of the dropout's mask of an event.
    """

    def __init__(self, shape: tuple[int, int], conditions: int, config: ImageViTConfig) -> None:
        super().__init__()
        self.shape, self.patch, self.grid = shape, config.patch, _grid(shape, config.patch)
        tokens = math.prod(self.grid)
        self.tokens = Tokens(tokens, config.patch**2, conditions, config)
        self.norm, self.out = nn.LayerNorm(config.width), nn.Linear(config.width, config.latent)
        self.size, self.mask = tokens * config.latent, self.tokens.mask

    def forward(self, image: Tensor, condition: Tensor | None, kept: Tensor | None = None) -> Tensor:
        """Returns vectors, (B, size).

        Args:
            image: ln(1 + n), (B, H, W).
            condition: standardised, (B, F), where the encoder sees the particle.
            kept: mask of the dropout, (B, *mask); None keeps all.
        """
        (rows, columns), p = self.grid, self.patch
        high, wide = rows * p - self.shape[0], columns * p - self.shape[1]
        image = F.pad(image, (wide // 2, wide - wide // 2, high // 2, high - high // 2))
        patches = image.reshape(-1, rows, p, columns, p).transpose(2, 3).reshape(-1, rows * columns, p * p)
        tokens = self.out(self.norm(self.tokens(patches, condition, kept)))
        vectors: Tensor = tokens.flatten(1)
        return vectors


class ImageDecoder(nn.Module):
    """Maps a vector to an image.

    Args:
        shape: height and width of the image.
        inputs: numbers of the vector.
        conditions: features of the particle, F; 0 for a decoder that does not see it.
        config: sizes.
        grain: each fibre has a normal of its own, whose scale comes out of the network as the image does.

    Attributes:
        mask: shape of the dropout's mask of an event.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        inputs: int,
        conditions: int,
        config: ImageViTConfig,
        *,
        grain: bool = False,
    ) -> None:
        super().__init__()
        self.shape, self.grid, self.latent = shape, _grid(shape, config.patch), config.latent
        tokens = math.prod(self.grid)
        self.inputs = nn.Linear(inputs, tokens * config.latent)
        self.tokens = Tokens(tokens, config.latent, conditions, config)
        self.out = nn.ConvTranspose2d(config.width, 1 + grain, config.patch, stride=config.patch)
        self.mask = self.tokens.mask

    def forward(
        self, z: Tensor, condition: Tensor | None, kept: Tensor | None = None, grain: Tensor | None = None
    ) -> Tensor:
        """Returns images ln(1 + n) >= 0, (B, H, W).

        Args:
            z: vectors, (B, inputs).
            condition: standardised, (B, F), where the decoder sees the particle.
            kept: mask of the dropout, (B, *mask); None keeps all.
            grain: normals of the fibres, (B, H, W), where the decoder has them.
        """
        (rows, columns), (height, width) = self.grid, self.shape
        tokens = self.tokens(self.inputs(z).reshape(-1, rows * columns, self.latent), condition, kept)
        image = self.out(tokens.transpose(1, 2).reshape(-1, tokens.shape[2], rows, columns))
        top, left = (image.shape[2] - height) // 2, (image.shape[3] - width) // 2
        image = image[:, :, top : top + height, left : left + width]
        mean = image[:, 0] + 0.5
        return rectified(mean if grain is None else mean + image[:, 1] * grain)


def dropout_mask(uniforms: Tensor, dropout: float) -> Tensor:
    """Turns uniforms in [0, 1) into what numbers are multiplied by: 0, or 1 / (1 - dropout)."""
    return (uniforms >= dropout).to(uniforms.dtype) / (1 - dropout)
