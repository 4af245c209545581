"""An autoencoder of images whose code is a vector, on patches, told where the particle hits.

Encoder and decoder are made of the blocks of `nn.patch_network`: tokens of patch x patch pixels, depthwise
convolutions over the tokens, modulated by what is known of the event. The encoder sees the image and where its tokens
lie from the particle's straight line and from the middle of the light. To what it makes of them some plain numbers
that sum the image up are added, which give the code a meaning from the start (without them it was left unused). The
decoder sees where they lie from the straight line and from a place of its own, a regression of code and event
(`nn.place_network`) that is trained with the rest: so a shower moves as a whole when a number of the code changes,
and need not be drawn anew at each place. The core of a shower is finer than a token: what a token says of its pixels
is a number each, and a sum of exponentials of their distance from both places, with weights of its own.

What the decoder gives of a pixel is a distribution of its count n, by six numbers: the log odds of n = 0, 1, 2, 3
against more, and for more a normal density of ln(1 + n) with mean m and standard deviation s,

    ln P(n) = ln softmax(o_0, .., o_3, 0)_n                                                   n <= 3,
    ln P(n) = ln softmax(o_0, .., o_3, 0)_4 + ln N(ln(1 + n); m, s^2) - ln(1 + n)             n > 3.

Light in fibres is no Poisson process: a particle that runs along a fibre leaves many photons in it. So the spread is
free. A count is drawn by inversion, with one uniform u a pixel: u below P(0) gives 0, and so on, and what is left above
P(n <= 3) gives the quantile of the density. The normal quantile is that of Tukey's lambda distribution,
(v^0.135 - (1 - v)^0.135) / 0.1975, which is within 0.02 of it for |z| < 3 and, unlike it, exists in ONNX.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from caloforge.nn.patch_network import ModulatedBlock, PatchNetworkConfig, around
from caloforge.nn.place_network import PlaceNetwork

COUNTS = 4
"""Counts with odds of their own: 0 to 3 photons."""

NUMBERS = COUNTS + 2
"""Numbers a pixel."""

SUMMARY = 8
"""Numbers that sum an image up."""

SCALES = (0.7, 2.0, 6.0)
"""Lengths in pixels over which the light around a place falls off: the core of a shower is one fibre wide."""

MAPS = 7
"""Numbers that tell a token where it lies from one place."""


class PatchAutoencoderConfig(BaseModel):
    """Sizes of encoder and decoder.

    Attributes:
        patch: edge of a tile.
        width: numbers a token.
        blocks: blocks of the encoder and of the decoder.
        kernel: edge of the depthwise convolutions, odd.
        expansion: inner width of a block over `width`.
        embedding: width of the vector of code and event.
        code: numbers of the code.
        place: width of the regression of the place.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    patch: int = Field(4, ge=1)
    width: int = Field(48, ge=1)
    blocks: int = Field(3, ge=1)
    kernel: int = Field(5, ge=1)
    expansion: int = Field(2, ge=1)
    embedding: int = Field(96, ge=1)
    code: int = Field(32, ge=1)
    place: int = Field(64, ge=1)


class _Tokens(nn.Module):
    """Tokens of patches, passed through modulated blocks.

    Args:
        shape: height and width of the image.
        inputs: numbers a token.
        known: numbers that modulate the blocks.
        config: sizes.
    """

    def __init__(
        self, shape: tuple[int, int], inputs: int, known: int, config: PatchAutoencoderConfig
    ) -> None:
        super().__init__()
        self.rows, self.columns = (-(-size // config.patch) for size in shape)
        self.first = nn.Linear(inputs, config.width)
        self.place = nn.Parameter(0.02 * torch.randn(self.rows, self.columns, config.width))
        self.embedding = nn.Sequential(
            nn.Linear(known, config.embedding),
            nn.SiLU(),
            nn.Linear(config.embedding, config.embedding),
            nn.SiLU(),
        )
        sizes = PatchNetworkConfig(
            width=config.width,
            blocks=config.blocks,
            kernel=config.kernel,
            expansion=config.expansion,
            embedding=config.embedding,
        )
        self.blocks = nn.ModuleList(ModulatedBlock(sizes) for _ in range(config.blocks))
        centres = [
            torch.arange(n) * float(config.patch) + (config.patch - 1) / 2 for n in (self.rows, self.columns)
        ]
        self.centres: Tensor
        self.register_buffer(
            "centres", torch.stack(torch.meshgrid(*centres, indexing="ij")), persistent=False
        )

    def forward(self, inputs: Tensor, known: Tensor) -> Tensor:
        """Maps tokens (B, h, w, inputs) and what is known (B, K) to normalised tokens (B, h, w, width)."""
        tokens, embedding = self.first(inputs) + self.place, self.embedding(known)
        for block in self.blocks:
            tokens = block(tokens, embedding)
        return F.layer_norm(tokens, (tokens.shape[-1],), eps=1e-6)


class PatchEncoder(nn.Module):
    """Mean and log variance of the code of an image.

    Args:
        shape: height and width of the image.
        features: numbers that describe the event, F.
        config: sizes.
    """

    def __init__(self, shape: tuple[int, int], features: int, config: PatchAutoencoderConfig) -> None:
        super().__init__()
        self.shape, self.patch = shape, config.patch
        self.tokens = _Tokens(shape, config.patch**2 + 2 * MAPS, features, config)
        self.squeeze = nn.Linear(config.width, 8)
        self.last = nn.Linear(8 * self.tokens.rows * self.tokens.columns, 2 * config.code)
        self.summary = nn.Linear(SUMMARY, config.code, bias=False)
        # a start with meaning and little noise: a code that is all noise at first is left unused for good
        nn.init.normal_(self.summary.weight, std=SUMMARY**-0.5)
        nn.init.constant_(self.last.bias[config.code :], -4.0)

    def forward(self, image: Tensor, places: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and log variance, (B, code) each.

        Args:
            image: ln(1 + n), (B, H, W).
            places: straight line and middle of the light, in cells, (B, 2, 2).
            features: (B, F).
        """
        (height, width), p = self.shape, self.patch
        rows, columns = self.tokens.rows, self.tokens.columns
        tiles = F.pad(image, (0, columns * p - width, 0, rows * p - height)).view(-1, rows, p, columns, p)
        tiles = tiles.transpose(2, 3).reshape(-1, rows, columns, p * p)
        tokens = self.tokens(torch.cat([tiles, around(self.tokens.centres, places)], -1), features)
        mean, log_variance = self.last(F.relu(self.squeeze(tokens)).flatten(1)).chunk(2, 1)
        return mean + self.summary(summary(image, places)), log_variance.clamp(-12.0, 4.0)


def summary(image: Tensor, places: Tensor) -> Tensor:
    """Returns what is seen of an image at once, all numbers about 1, (B, 8).

    The way from the straight line to the middle of the light, second moments about the middle, lit cells, the
    brightest, and by how many cells the light is shared, (sum n)^2 / sum n^2.

    Args:
        image: ln(1 + n), (B, H, W).
        places: straight line and middle of the light, in cells, (B, 2, 2).
    """
    photons = torch.expm1(image)
    height, width = image.shape[1:]
    rows = torch.arange(height, dtype=image.dtype, device=image.device) - places[:, 1, :1]
    columns = torch.arange(width, dtype=image.dtype, device=image.device) - places[:, 1, 1:]
    total = photons.sum((1, 2)).clamp(min=1)
    down, across = photons.sum(2), photons.sum(1)
    xx, yy = ((weights * at.square()).sum(1) / total for weights, at in ((down, rows), (across, columns)))
    xy = torch.einsum("bi,bij,bj->b", rows, photons, columns) / total
    shared = total.square() / photons.square().sum((1, 2)).clamp(min=1)
    way = torch.tanh((places[:, 1] - places[:, 0]) / 5)
    numbers = [
        torch.log1p(xx) - 2.5,
        torch.log1p(yy) - 2.5,
        xy / (1 + xx * yy).sqrt(),
        torch.log1p((photons > 0).sum((1, 2)).to(image.dtype)) - 4,
        image.amax((1, 2)) - 2.5,
        torch.log1p(shared) - 3,
    ]
    return torch.cat([way, torch.stack(numbers, 1)], 1)


class PatchDecoder(nn.Module):
    """Distribution of the counts of an image, given its code.

    Args:
        shape: height and width of the image.
        features: numbers that describe the event, F.
        config: sizes.
    """

    def __init__(self, shape: tuple[int, int], features: int, config: PatchAutoencoderConfig) -> None:
        super().__init__()
        self.shape, self.patch = shape, config.patch
        known = features + config.code
        self.place = PlaceNetwork(shape, known, config.place)
        self.tokens = _Tokens(shape, 4 + 2 * MAPS, known, config)
        self.spread = nn.Linear(config.code, 4 * self.tokens.rows * self.tokens.columns)
        self.last = nn.Linear(config.width, NUMBERS * config.patch**2)
        self.profile = nn.Linear(config.width, NUMBERS * 2 * len(SCALES))
        for layer in (self.last, self.profile):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        size = (self.tokens.rows * config.patch, self.tokens.columns * config.patch)
        pixels = torch.meshgrid(*(torch.arange(float(n)) for n in size), indexing="ij")
        self.pixels: Tensor
        self.register_buffer("pixels", torch.stack(pixels), persistent=False)
        # a start without knowledge: nearly all pixels are dark
        self.last.bias.data.view(NUMBERS, -1)[0] = 4.0

    def forward(self, code: Tensor, straight: Tensor, features: Tensor) -> Tensor:
        """Returns the numbers of each pixel's distribution, (6, B, H, W).

        Args:
            code: (B, code).
            straight: where the straight line meets the image, in cells, (B, 2).
            features: (B, F).
        """
        (height, width), p = self.shape, self.patch
        rows, columns = self.tokens.rows, self.tokens.columns
        known = torch.cat([features, code], 1)
        places = torch.stack([straight, self.place(straight, known)], 1)
        spread = self.spread(code).view(-1, rows, columns, 4)
        tokens = self.tokens(torch.cat([spread, around(self.tokens.centres, places)], -1), known)
        numbers = self.last(tokens).view(-1, rows, columns, NUMBERS, p * p)
        x, y = (self.pixels - places[..., None, None]).unbind(2)
        radius = torch.sqrt(x * x + y * y + 1e-6)
        profiles = torch.cat([torch.exp(-radius / scale) for scale in SCALES], 1)  # (B, M, H, W)
        tiles = profiles.view(-1, profiles.shape[1], rows, p, columns, p).permute(0, 2, 4, 1, 3, 5)
        tiles = tiles.reshape(-1, rows, columns, profiles.shape[1], p * p)
        weights = self.profile(tokens).view(-1, rows, columns, NUMBERS, profiles.shape[1])
        numbers = (numbers + weights @ tiles).view(-1, rows, columns, NUMBERS, p, p)
        numbers = numbers.permute(3, 0, 1, 4, 2, 5).reshape(NUMBERS, -1, rows * p, columns * p)
        inside: Tensor = numbers[:, :, :height, :width]
        return inside


def _density(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Returns mean and standard deviation of ln(1 + n) where n > 3."""
    mean, spread = numbers[COUNTS:]
    return (2.0 + mean).clamp(max=9.0), 0.5 * torch.exp(spread.clamp(-2.5, 1.0))


def log_likelihood(numbers: Tensor, counts: Tensor) -> Tensor:
    """Returns ln P of counts, both (B, H, W), given the numbers (6, B, H, W)."""
    mean, deviation = _density(numbers)
    logits = torch.cat([numbers[:COUNTS], torch.zeros_like(numbers[:1])])
    classes = counts.long().clamp(0, COUNTS)
    chosen = torch.log_softmax(logits, 0).gather(0, classes[None])[0]
    y = torch.log1p(counts)
    density = -0.5 * ((y - mean) / deviation).square() - deviation.log() - 0.5 * math.log(2 * math.pi) - y
    return chosen + torch.where(counts > COUNTS - 1, density, 0.0)


def divergence(numbers: Tensor, others: Tensor) -> Tensor:
    """Returns the Kullback-Leibler divergence of other distributions from given ones in nats, (B, H, W).

    Args:
        numbers: of the given distributions, (6, B, H, W).
        others: of the others, likewise.
    """
    logits, of_others = (
        torch.cat([each[:COUNTS], torch.zeros_like(each[:1])]).log_softmax(0) for each in (numbers, others)
    )
    (mean, deviation), (other_mean, other) = _density(numbers), _density(others)
    ratio = deviation / other
    density = 0.5 * (ratio.square() + ((mean - other_mean) / other).square() - 1) - ratio.log()
    shares = logits.exp()
    result: Tensor = (shares * (logits - of_others)).sum(0) + shares[-1] * density
    return result


def draw(numbers: Tensor, u: Tensor, *, spread: bool = False) -> tuple[Tensor, Tensor]:
    """Draws counts by inversion.

    Args:
        numbers: of the distributions, (6, B, H, W).
        u: a uniform in [0, 1) a pixel, (B, H, W).
        spread: whether a drawn 1, 2 or 3 is spread evenly from half below to half above it.

    Returns:
        counts, (B, H, W), whole up to 3 where they are not spread and real above; and their means.
    """
    mean, deviation = _density(numbers)
    odds = numbers[:COUNTS]
    # a softmax over the first axis, which ONNX Runtime would transpose for
    greatest = odds.amax(0).clamp(min=0.0)
    weights, more = torch.exp(odds - greatest), torch.exp(-greatest)
    total = weights.sum(0) + more
    counts, cumulative, expected = torch.zeros_like(u), torch.zeros_like(u), torch.zeros_like(u)
    at = torch.zeros_like(u)
    for k in range(COUNTS):
        probability = weights[k] / total
        cumulative = cumulative + probability
        expected = expected + k * probability
        counts = counts + (u > cumulative).to(u.dtype)
        if spread and k:
            # how far u is within its class
            share = (u - cumulative + probability) / probability.clamp(min=1e-9)
            at = torch.where((share > 0) & (share <= 1), share - 0.5, 0.0) + at
    left = (more / total).clamp(min=1e-9)
    v = (1 - (1 - u) / left).clamp(1e-4, 1 - 1e-4)
    quantile = (v.pow(0.135) - (1 - v).pow(0.135)) / 0.1975
    large = torch.expm1(mean + deviation * quantile).clamp(min=COUNTS - 0.5)
    expected = expected + more / total * torch.expm1(mean + deviation.square() / 2).clamp(min=float(COUNTS))
    small = counts + at if spread else counts
    return torch.where(counts > COUNTS - 1, large, small), expected


def with_sums(drawn: Tensor, mean: Tensor, sums: Tensor, channel: Tensor) -> Tensor:
    """Moves drawn counts to given channel sums, (B, cells) float64.

    Counts above 3, whose noise is most of a sum's, take up to a factor of 2; of what is then left a surplus is taken
    from all counts in proportion, and missing photons are put where they are expected. Scaling all counts alike would
    put out one fibre in twenty, since a count of one is as often rounded down as up and a dark fibre stays dark.

    Args:
        drawn: counts, (B, cells), float64.
        mean: their means, as drawn.
        sums: of the channels, (B, K).
        channel: channel of each cell, (cells,).
    """
    target = sums.double()

    def total(light: Tensor) -> Tensor:
        return light.new_zeros(light.shape[0], target.shape[1]).index_add(1, channel, light)

    expected = mean + 1e-9
    large = torch.where(drawn > COUNTS - 1, drawn, 0.0)
    small = drawn - large
    factor = ((target - total(small)) / total(large).clamp(min=1e-9)).clamp(0.5, 2.0)
    light = small + large * factor[:, channel]
    light = light * (target / total(light).clamp(min=1e-9)).clamp(max=1.0)[:, channel]
    missing = (target - total(light)).clamp(min=0.0)
    light = light + expected * (missing / total(expected))[:, channel]
    return light * (target / total(light).clamp(min=1e-12))[:, channel]
