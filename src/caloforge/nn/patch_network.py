"""A convolutional network on patches of an image, told where the particle hits.

The image is cut into patch x patch tiles, each one token of `width` numbers. Blocks are those of ConvNeXt (Liu et
al. 2022): a depthwise convolution over the tokens, a layer norm shifted, scaled and gated by time and conditions
as in DiT (Peebles and Xie 2023), and two linear layers with ReLU between them, since on a CPU a smooth activation
takes as long as the products. Besides its pixels a token sees where it lies from given places, such as the point at
which the particle's straight line meets the image: a network told of them by numbers alone would have to learn to
draw a shower at every place.

What comes out is, for each pixel of the noisy image, what it says about the clean one by Bayes' theorem. The image
holds y = ln(1 + n) of a count n, and the noisy pixel is x = t y + (1 - t) noise. A token gives a prior of each of its
pixels: the odds of n = 0, 1, 2, 3 and of a normal density of y (mean m, standard deviation s) for more. The likelihood
of a count is N(x; t y, (1 - t)^2), that of the density N(x; t m, t^2 s^2 + (1 - t)^2), and the posterior is exact:

    E[y | x] = sum_k p_k ln(1 + k) + p_m mu,    E[n | x] = sum_k p_k k + p_m (exp(mu + v / 2) - 1),

with mu and v the mean and variance of y given x under the density. So the threshold between a dark fibre and one
photon, which moves and sharpens with t, need not be learnt, and a photon that shows through the noise need not pass
through a token, which has few numbers for the pixels of a tile.

The core of a shower is finer than a token. With `scales` the last of the places is that of the brightest pixel: tokens
see exp(-distance / scale) of each of their pixels from it, and add a sum of these to the numbers of the prior, with
weights of their own.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

COUNTS = 4
"""Counts with odds of their own: 0 to 3 photons."""

FAINT = 1e-4
"""Photons of a pixel that is dark for certain, before the correction."""

OUTPUTS = COUNTS + 3
"""Numbers a pixel: log odds of the counts against the density, its mean and spread, a correction of the counts."""


class PatchNetworkConfig(BaseModel):
    """Sizes of the network.

    Attributes:
        patch: edge of a tile.
        width: numbers a token.
        blocks: blocks.
        kernel: edge of the depthwise convolutions, odd.
        expansion: inner width of a block over `width`.
        embedding: width of the vector of time and conditions.
        scales: lengths in pixels over which light falls off around the last place; none where it is not shown finer
            than tokens.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    patch: int = Field(4, ge=1)
    width: int = Field(64, ge=1)
    blocks: int = Field(5, ge=1)
    kernel: int = Field(5, ge=1)
    expansion: int = Field(2, ge=1)
    embedding: int = Field(96, ge=1)
    scales: tuple[Annotated[float, Field(gt=0)], ...] = ()


class ModulatedBlock(nn.Module):
    """A ConvNeXt block modulated by a vector."""

    def __init__(self, config: PatchNetworkConfig) -> None:
        super().__init__()
        width, inner = config.width, config.width * config.expansion
        self.across = nn.Conv2d(width, width, config.kernel, padding=config.kernel // 2, groups=width)
        self.modulation = nn.Linear(config.embedding, 3 * width)
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        nn.init.normal_(self.down.weight, std=0.02 / math.sqrt(config.blocks))
        nn.init.zeros_(self.down.bias)

    def forward(self, tokens: Tensor, embedding: Tensor) -> Tensor:
        """Maps tokens (B, h, w, width), given a vector (B, embedding), to the same shape."""
        shift, scale, gate = self.modulation(embedding)[:, None, None].chunk(3, -1)
        inner = self.across(tokens.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        inner = _norm(inner) * (1 + scale) + shift
        change: Tensor = self.down(F.relu(self.up(inner)))
        update: Tensor = (1 + gate) * change
        return tokens + update


def around(centres: Tensor, places: Tensor) -> Tensor:
    """Returns where tokens lie from places.

    Args:
        centres: middles of the tokens, in pixels from the first, (2, h, w).
        places: in pixels from the first, (B, P, 2).

    Returns:
        maps, (B, h, w, 7 P).
    """
    x, y = (centres - places[..., None, None]).unbind(2)
    radius = torch.sqrt(x * x + y * y + 1e-6)
    near = [torch.tanh(x / 3), torch.tanh(y / 3), (x / 8).clamp(-3, 3), (y / 8).clamp(-3, 3)]
    maps = torch.stack([*near, *(torch.exp(-radius / scale) for scale in (3, 8, 20))], 2)
    return maps.flatten(1, 2).permute(0, 2, 3, 1)


class PatchNetwork(nn.Module):
    """Predicts an image and its counts from a noisy image.

    Args:
        shape: height and width of the image.
        conditions: numbers of the condition vector, C.
        places: number of places whose surroundings it sees, P.
        config: sizes.
    """

    maps = 7

    def __init__(
        self, shape: tuple[int, int], conditions: int, places: int, config: PatchNetworkConfig
    ) -> None:
        super().__init__()
        self.shape, self.patch, self.scales = shape, config.patch, config.scales
        rows, columns = (-(-size // config.patch) for size in shape)
        self.seen = places * self.maps + len(config.scales) * config.patch**2
        self.first = nn.Linear(config.patch**2 + self.seen, config.width)
        self.place = nn.Parameter(0.02 * torch.randn(rows, columns, config.width))
        self.embedding = nn.Sequential(
            nn.Linear(conditions + 32, config.embedding),
            nn.SiLU(),
            nn.Linear(config.embedding, config.embedding),
            nn.SiLU(),
        )
        self.blocks = nn.ModuleList(ModulatedBlock(config) for _ in range(config.blocks))
        self.modulation = nn.Linear(config.embedding, 2 * config.width)
        self.last = nn.Linear(config.width, OUTPUTS * config.patch**2)
        self.profile = nn.Linear(config.width, OUTPUTS * len(config.scales)) if config.scales else None
        for layer in (self.modulation, self.last, self.profile):
            if layer is not None:
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)
        centres = [torch.arange(n) * float(config.patch) + (config.patch - 1) / 2 for n in (rows, columns)]
        # a start without knowledge: nearly all pixels are dark
        self.last.bias.data.view(OUTPUTS, -1)[0] = 4.0
        self.centres: Tensor
        self.frequencies: Tensor
        self.register_buffer(
            "centres", torch.stack(torch.meshgrid(*centres, indexing="ij")), persistent=False
        )
        self.register_buffer("frequencies", math.pi * torch.linspace(0.5, 8, 16), persistent=False)

    def around(self, places: Tensor) -> Tensor:
        """Returns where each token lies from places (B, P, 2), in pixels from the first: maps (B, h, w, 7 P).

        With S scales what each pixel sees of the last place comes after them, (B, h, w, 7 P + S patch^2).
        """
        maps = around(self.centres, places)
        if not self.scales:
            return maps
        steps = torch.arange(self.patch, dtype=maps.dtype, device=maps.device) - (self.patch - 1) / 2
        offsets = torch.stack(torch.meshgrid(steps, steps, indexing="ij")).flatten(1)
        pixels = self.centres[..., None] + offsets[:, None, None]  # (2, h, w, patch^2)
        away = (pixels - places[:, -1, :, None, None, None]).square().sum(1)
        radius = torch.sqrt(away + 1e-6)
        return torch.cat([maps, *(torch.exp(-radius / scale) for scale in self.scales)], -1)

    def forward(self, x: Tensor, t: Tensor, conditions: Tensor, around: Tensor) -> tuple[Tensor, Tensor]:
        """Returns E[ln(1 + n)], (B, H, W), and the logarithm of the expected counts, (B, H, W), corrected.

        Args:
            x: the noisy image, (B, H, W).
            t: times in [0, 1), (B,).
            conditions: standardised, (B, C).
            around: what `around` gives for the places.
        """
        return posterior(x, t[:, None, None], self._numbers(x, t, conditions, around))

    def draw(self, x: Tensor, t: Tensor, conditions: Tensor, around: Tensor, noise: Tensor) -> Tensor:
        """Draws counts given the noisy image, real numbers, and returns their logarithm, (B, H, W), corrected.

        Args:
            x: as for `forward`, and so on.
            t: likewise.
            conditions: likewise.
            around: likewise.
            noise: two normals a pixel, (2, B, H, W).
        """
        return posterior_draw(x, t[:, None, None], self._numbers(x, t, conditions, around), noise)

    def _numbers(self, x: Tensor, t: Tensor, conditions: Tensor, around: Tensor) -> Tensor:
        """Returns the numbers of the prior, (7, B, H, W)."""
        b, (height, width), p = x.shape[0], self.shape, self.patch
        rows, columns = self.centres.shape[1:]
        tiles = F.pad(x, (0, columns * p - width, 0, rows * p - height)).view(b, rows, p, columns, p)
        tiles = tiles.transpose(2, 3).reshape(b, rows, columns, p * p)
        phase = t[:, None] * self.frequencies
        embedding = self.embedding(torch.cat([conditions, phase.cos(), phase.sin()], 1))
        tokens = self.first(torch.cat([tiles, around], -1)) + self.place
        for block in self.blocks:
            tokens = block(tokens, embedding)
        shift, scale = self.modulation(embedding)[:, None, None].chunk(2, -1)
        tokens = _norm(tokens) * (1 + scale) + shift
        tiles = self.last(tokens).view(b, rows, columns, OUTPUTS, p, p)
        if self.profile is not None:
            size = len(self.scales)
            weights = self.profile(tokens).view(b, rows, columns, OUTPUTS, size)
            light = around[..., -size * p * p :].view(b, rows, columns, size, p * p)
            tiles = tiles + (weights @ light).view_as(tiles)
        numbers = tiles.permute(3, 0, 1, 4, 2, 5).reshape(OUTPUTS, b, rows * p, columns * p)
        inside: Tensor = numbers[:, :, :height, :width]
        return inside


def posterior(x: Tensor, t: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Applies Bayes' theorem to each pixel.

    Args:
        x: the noisy image, (B, H, W).
        t: times in [0, 1), broadcast to it.
        numbers: of the prior, (7, B, H, W): log odds of 0 to 3 photons, mean and log spread of the density (from
            1.8 and 0.7), and a correction.

    Returns:
        E[ln(1 + n)] and ln E[n] plus the correction, both (B, H, W).
    """
    weights, more_weight, mu, variance = _classes(x, t, numbers)
    values = _values(x)
    more = torch.expm1((mu + 0.5 * variance).clamp(0, 12))
    every = weights.sum(0) + more_weight
    image = ((weights * values).sum(0) + more_weight * mu) / every
    counts = ((weights * torch.expm1(values)).sum(0) + more_weight * more) / every
    return image, torch.log(counts + FAINT) + numbers[-1]


def posterior_draw(x: Tensor, t: Tensor, numbers: Tensor, noise: Tensor) -> Tensor:
    """Draws real counts from what Bayes' theorem says of each pixel, two normals a pixel.

    The first chooses between 0, 1, 2, 3 and the density. The second says where within it: 1, 2 and 3 are spread evenly
    from half below to half above. One normal for both would do by inversion, which takes more digits than float32 has.

    Args:
        x: as for `posterior`, and so on.
        t: likewise.
        numbers: likewise.
        noise: (2, B, H, W).

    Returns:
        the logarithm of the counts plus the correction, (B, H, W); a millionth of the expected counts stands for 0.
    """
    weights, more_weight, mu, variance = _classes(x, t, numbers)
    every = weights.sum(0) + more_weight
    u, share = 0.5 * (1 + torch.erf(noise * math.sqrt(0.5)))
    below, mean = weights[0] / every, torch.zeros_like(u)
    drawn = torch.zeros_like(u)
    for k in range(1, COUNTS):
        drawn = torch.where(u > below, k - 0.5 + share, drawn)
        mean, below = mean + k * weights[k] / every, below + weights[k] / every
    more = torch.expm1((mu + variance.sqrt() * noise[1]).clamp(0, 12))
    drawn = torch.where(u > below, more, drawn)
    mean = mean + more_weight / every * torch.expm1((mu + 0.5 * variance).clamp(0, 12))
    return torch.log(drawn + 1e-6 * (mean + FAINT)) + numbers[-1]


def _values(x: Tensor) -> Tensor:
    """Returns ln(1 + n) of the counts with odds of their own, (4, 1, 1, 1)."""
    return torch.log1p(torch.arange(COUNTS, dtype=x.dtype, device=x.device)).view(-1, 1, 1, 1)


def _classes(x: Tensor, t: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns the posterior's weights of counts, (4, B, H, W), and density, and the density's mean and variance."""
    odds, (mean, spread, _) = numbers[:COUNTS], numbers[COUNTS:]
    mean, variance = 1.8 + mean, 0.5 * torch.exp(2 * spread.clamp(-4, 3))
    noise = (1 - t).clamp(min=0.02).square()
    total = t * t * variance + noise
    of_counts = odds - 0.5 * (x - t * _values(x)).square() / noise
    of_density = -0.5 * ((x - t * mean).square() / total + torch.log(total / noise))
    # a softmax over the first axis, which ONNX Runtime would transpose for
    greatest = torch.maximum(of_counts.amax(0), of_density)
    weights, more_weight = torch.exp(of_counts - greatest), torch.exp(of_density - greatest)
    return weights, more_weight, (mean * noise + t * variance * x) / total, variance * noise / total


def _norm(tokens: Tensor) -> Tensor:
    return F.layer_norm(tokens, (tokens.shape[-1],), eps=1e-6)
