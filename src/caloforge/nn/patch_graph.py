"""The networks of patches as an exported graph holds them: the same numbers in fewer operators.

At batch 1 an operator costs more than what it computes. So here

- an image stays cut into tiles from the noise to the counts, (B, h, w, patch^2), and is never turned about;
- what follows from time and conditions, (B, E), is computed for all times at once, by one matrix that holds the
  modulations of all blocks. The shift passes through `up`, and since relu(a + c) = max(a, -c) + c so does what comes
  of it through `down`: a block is

      tokens + g (down max(up (norm(across(tokens)) s), -c) + d),    s, c, d, g of time and conditions;

- times are numbers, and what is constant is multiplied into the matrices, so the posterior (`nn.patch_network`) is
  taken in units of its noise. With y = x / (1 - t), r = 1 / (1 + V), V = (t / (1 - t))^2 s^2 and
  d = y - t m / (1 - t), the logarithm of the density's weight over that of no photon is

      1/2 (ln r - r d^2 + y^2),    mu = (y - r d) (1 - t) / t,    v = (1 - r) ((1 - t) / t)^2,

  and those of the counts are linear in y, a part of the last matrix. Sums over counts are one product.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor, nn

from caloforge.nn.patch_autoencoder import NUMBERS, SCALES, PatchDecoder
from caloforge.nn.patch_network import COUNTS, FAINT, ModulatedBlock, PatchNetwork
from caloforge.nn.rounding import in_order


def slots(shape: tuple[int, int], patch: int) -> NDArray[np.intp]:
    """Returns the cell of each place in the tiles, (h, w, patch^2), -1 outside of the image."""
    height, width = shape
    rows, columns = -(-height // patch), -(-width // patch)
    cells = np.full((rows * patch, columns * patch), -1)
    cells[:height, :width] = np.arange(height * width).reshape(shape)
    return cells.reshape(rows, patch, columns, patch).transpose(0, 2, 1, 3).reshape(rows, columns, patch**2)


def places(shape: tuple[int, int], patch: int) -> Tensor:
    """Returns the place in the tiles of each cell, (cells,)."""
    cells = slots(shape, patch).ravel()
    inside = np.flatnonzero(cells >= 0)
    return torch.from_numpy(inside[np.argsort(cells[inside])])


def into_tiles(image: Tensor, shape: tuple[int, int], patch: int) -> Tensor:
    """Cuts flat images, (B, cells), into tiles, (B, h, w, patch^2), with zeros outside of the image."""
    cells = slots(shape, patch)
    tiles = in_order(image, torch.from_numpy(cells.clip(0).ravel())).view(-1, *cells.shape)
    inside = cells >= 0
    return tiles if inside.all() else tiles * torch.from_numpy(inside).to(image.dtype)


def _each(matrix: Sequence[Sequence[float]] | Tensor, size: int) -> Tensor:
    """Returns the matrix, (m size, n size), that acts on each of `size` numbers alike as the given one, (m, n)."""
    return torch.kron(torch.as_tensor(matrix), torch.eye(size))


class _Surroundings:
    """Where tokens and pixels lie from places: distances of tokens in x and y, and what follows from them.

    Args:
        centres: middles of the tokens, in pixels from the first, (2, h, w).
        near: the places, x and y of each, (B, 2 P).
    """

    def __init__(self, centres: Tensor, near: Tensor) -> None:
        self.centres, self.near, self.places = centres, near, near.shape[1] // 2
        middles = centres.permute(1, 2, 0).repeat(1, 1, self.places)
        self.away = middles - near[:, None, None]

    def maps(self) -> Tensor:
        """Returns the numbers of `nn.patch_network.around`, (B, h, w, 7 P), in the order of `order`."""
        radius = self._radius(self.away, 1)
        scales = _each([[-1 / 3], [-1 / 8], [-1 / 20]], self.places)
        near = [torch.tanh(self.away / 3), (self.away / 8).clamp(-3, 3), torch.exp(F.linear(radius, scales))]
        return torch.cat(near, -1)

    def order(self) -> Tensor:
        """Returns which of the numbers of `nn.patch_network.around` each number of `maps` is, (7 P,)."""
        numbers = torch.arange(7 * self.places).view(self.places, 7)
        return torch.cat([numbers[:, :2].flatten(), numbers[:, 2:4].flatten(), numbers[:, 4:].T.flatten()])

    def light(self, patch: int, scales: Sequence[float]) -> Tensor:
        """Returns exp(-distance / scale) of each pixel, (B, h, w, scales P, patch^2).

        The distance in x is the same in a row and that in y in a column, so both are squared before they meet.
        """
        size = patch**2
        steps = torch.arange(patch) - (patch - 1) / 2
        offsets = torch.stack(torch.meshgrid(steps, steps, indexing="ij")).flatten(1).repeat(1, self.places)
        axes = torch.eye(2 * self.places).repeat_interleave(size, 0).view(self.places, 2, size, -1)
        middles = self.centres[0, :, 0], self.centres[1, 0, :]
        matrices = [
            -axes[:, axis].flatten(0, 1).repeat(len(middle), 1) for axis, middle in enumerate(middles)
        ]
        shifts = [
            (middle[:, None] + offset).flatten() for middle, offset in zip(middles, offsets, strict=True)
        ]
        away = F.linear(self.near, torch.cat(matrices), torch.cat(shifts))
        x, y = away.split([len(shift) for shift in shifts], 1)
        rows, columns = (len(middle) for middle in middles)
        squares = (x * x + 1e-6).view(-1, rows, 1, 1, offsets.shape[1])
        radius = torch.sqrt(squares + (y * y).view(-1, 1, columns, 1, offsets.shape[1]))
        light: Tensor = torch.exp(radius * torch.tensor([[-1 / scale] for scale in scales]))
        return light.view(-1, rows, columns, len(scales) * self.places, size)

    def _radius(self, away: Tensor, size: int) -> Tensor:
        """Returns distances, (B, h, w, P size), of those in x and y, (B, h, w, P 2 size)."""
        sums = torch.kron(torch.eye(self.places), _each([[1.0, 1.0]], size))
        return torch.sqrt(F.linear(away * away, sums) + 1e-6)


class _Told:
    """What blocks and last layers are told of time and conditions, as one matrix of the embedding.

    Args:
        blocks: of the network.
    """

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        self.blocks = [block for block in blocks if isinstance(block, ModulatedBlock)]
        self._matrices: list[Tensor] = []
        self._biases: list[Tensor] = []
        for block in self.blocks:
            (shift, scale, gate), (of_shift, of_scale, of_gate) = (
                values.chunk(3) for values in (block.modulation.weight, block.modulation.bias)
            )
            up, down = block.up.weight, block.down.weight
            inner, of_inner = up @ shift, up @ of_shift + block.up.bias
            self._matrices += [scale, -inner, down @ inner, gate]
            self._biases += [of_scale + 1, -of_inner, down @ of_inner + block.down.bias, of_gate + 1]

    def add(self, matrix: Tensor, bias: Tensor) -> None:
        """Adds further rows."""
        self._matrices.append(matrix)
        self._biases.append(bias)

    def pieces(self, embedding: Tensor, steps: int = 1) -> Iterator[Tensor]:
        """Returns all of it in order, time by time, (B, 1, 1, *) each, of the embedding (B n, E) of n times."""
        matrix, bias = torch.cat(self._matrices), torch.cat(self._biases)
        every = F.linear(embedding, matrix, bias).view(-1, 1, 1, steps * len(bias))
        return iter(every.split([len(part) for part in self._biases] * steps, 3))

    def through(self, tokens: Tensor, pieces: Iterator[Tensor]) -> Tensor:
        """Passes tokens (B, h, w, width) through the blocks."""
        for block in self.blocks:
            scale, inner, outer, gate = (next(pieces) for _ in range(4))
            seen = norm(block.across(tokens.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)) * scale
            change = F.linear(torch.maximum(F.linear(seen, block.up.weight), inner), block.down.weight)
            tokens = tokens + gate * (change + outer)
        return tokens


def norm(tokens: Tensor) -> Tensor:
    """Normalises tokens (B, h, w, width)."""
    return F.layer_norm(tokens, (tokens.shape[-1],), eps=1e-6)


def follow(
    network: PatchNetwork, noise: Tensor, conditions: Tensor, near: Tensor, times: Sequence[float]
) -> Tensor:
    """Follows the path from the noise and returns the light at its end, in the places of the tiles.

    Args:
        network: predicts images.
        noise: starting points, (B, cells).
        conditions: standardised, (B, C).
        near: the places whose surroundings the network sees, x and y of each, (B, 2 P).
        times: t_0 = 0 to the end.

    Returns:
        the expected counts with their correction, in proportion, (B, h w patch^2).
    """
    size = network.patch**2
    told = _Told(list(network.blocks))
    shift, scale = network.modulation.weight.chunk(2)
    of_shift, of_scale = network.modulation.bias.chunk(2)
    told.add(scale, of_scale + 1)
    shares = [(then - t) / (1 - t) for t, then in pairwise(times)]
    ends = [_End(network, t, share) for t, share in zip(times, [*shares, None], strict=True)]
    for end in ends:
        told.add(end.weight @ shift, end.weight @ of_shift + end.bias)
    first, of_conditions = network.embedding[0], conditions.shape[1]
    assert isinstance(first, nn.Linear)
    phases = torch.tensor(times)[:, None] * network.frequencies
    of_times = torch.cat([phases.cos(), phases.sin()], 1) @ first.weight[:, of_conditions:].T + first.bias
    embedding = F.linear(conditions, first.weight[:, :of_conditions])[:, None] + of_times
    pieces = told.pieces(network.embedding[1:](embedding.flatten(0, 1)), len(times))
    entering = network.first.weight
    around = _Surroundings(network.centres, near)
    order, seen = around.order(), entering[:, size:]
    static = F.linear(around.maps(), seen[:, order]) + (network.place + network.first.bias)
    light = None
    if network.scales:
        light = _Surroundings(network.centres, near[:, -2:]).light(network.patch, network.scales)
        static = static + F.linear(light.flatten(-2), seen[:, len(order) :])
    x = into_tiles(noise, network.shape, network.patch)
    inside = slots(network.shape, network.patch) >= 0
    for number, end in enumerate(ends):
        tokens = told.through(static + F.linear(x, entering[:, :size]), pieces)
        seen = norm(tokens) * next(pieces)
        bias = [next(pieces) for _ in ends][number]
        if end.share is None:
            return end.light(x, seen, bias, light).flatten(1)
        image = end.image(x, seen, bias, light)
        if not inside.all():
            image = image * torch.from_numpy(inside).to(x.dtype)
        x = (1 - end.share) * x + image
    raise ValueError("a path needs its end")


class _End:
    """The last layer at one time, and what follows from its numbers.

    Args:
        network: predicts images.
        t: the time.
        share: of the way to the image that is gone in a step; None at the end of the path.
    """

    def __init__(self, network: PatchNetwork, t: float, share: float | None) -> None:
        self.t, self.share, self.size = t, share, network.patch**2
        self.sigma = max(1 - t, 0.02)
        self.kinds = COUNTS + (3 if share is None else 2 if t else 1)
        self.logs = torch.log1p(torch.arange(COUNTS, dtype=torch.float64)).float()
        # of the odds, the mean, -ln V and the correction
        factors, shifts = torch.ones(self.kinds), torch.zeros(self.kinds)
        if t:
            ratio = t / self.sigma
            shifts[:COUNTS] = -0.5 * (ratio * self.logs) ** 2
            factors[COUNTS], shifts[COUNTS] = ratio, 1.8 * ratio
            factors[COUNTS + 1], shifts[COUNTS + 1] = -2.0, -math.log(0.5 * ratio**2)
        elif share is not None:
            factors[COUNTS], shifts[COUNTS] = share, 1.8 * share
        rows, each = self.kinds * self.size, factors.repeat_interleave(self.size)
        self.weight = network.last.weight[:rows] * each[:, None]
        self.bias = network.last.bias[:rows] * each + shifts.repeat_interleave(self.size)
        if network.profile is not None:
            many = factors.repeat_interleave(len(network.scales))
            self.weight = torch.cat([self.weight, network.profile.weight[: len(many)] * many[:, None]])
            self.bias = torch.cat([self.bias, network.profile.bias[: len(many)] * many])

    def _numbers(self, x: Tensor, tokens: Tensor, bias: Tensor, light: Tensor | None) -> list[Tensor]:
        """Returns log odds of the counts, (B, h, w, 4 s), mean and more as above, and last y, in the units above."""
        rows = self.kinds * self.size
        y, seen, matrix = x, tokens, self.weight[:rows]
        if self.t:
            y = x / self.sigma
            slopes = torch.zeros(rows, self.size)
            slopes[: COUNTS * self.size] = _each(self.t / self.sigma * self.logs[:, None], self.size)
            seen, matrix = torch.cat([tokens, y], -1), torch.cat([matrix, slopes], 1)
        numbers = F.linear(seen, matrix) + bias[..., :rows]
        if light is not None:
            weights = F.linear(tokens, self.weight[rows:]) + bias[..., rows:]
            numbers = numbers + (weights.unflatten(-1, (self.kinds, -1)) @ light).flatten(-2)
        return [*numbers.split([COUNTS * self.size, *[self.size] * (self.kinds - COUNTS)], -1), y]

    def _posterior(self, odds: Tensor, of_counts: Tensor) -> list[Tensor]:
        """Returns sums over the counts' weights, (B, h, w, s) each: of the weights, and with numbers of the counts."""
        weights = torch.exp(odds.clamp(max=80.0))
        matrix = _each(torch.stack([torch.ones(COUNTS), of_counts]), self.size)
        return list(F.linear(weights, matrix).split(self.size, -1))

    def _relative(self, odds: Tensor, density: Tensor) -> Tensor:
        """Returns log odds over a density that is not 1."""
        parts: Tensor = odds.unflatten(-1, (COUNTS, self.size)) - density.clamp(min=-60.0)[..., None, :]
        return parts.flatten(-2)

    def image(self, x: Tensor, tokens: Tensor, bias: Tensor, light: Tensor | None) -> Tensor:
        """Returns the expected image times the share, (B, h, w, s)."""
        assert self.share is not None
        odds, mean, *others, y = self._numbers(x, tokens, bias, light)
        if self.t:
            density, moved, _ = self._density(y, mean, others[0])
            odds, mean = self._relative(odds, density), self.share * self.sigma / self.t * moved
        every, image = self._posterior(odds, self.share * self.logs)
        return (image + mean) / (every + 1.0)

    def light(self, x: Tensor, tokens: Tensor, bias: Tensor, seen: Tensor | None) -> Tensor:
        """Returns the expected counts times their correction, (B, h, w, s)."""
        odds, mean, spread, correction, y = self._numbers(x, tokens, bias, seen)
        density, moved, r = self._density(y, mean, spread)
        every, light = self._posterior(self._relative(odds, density), torch.arange(COUNTS, dtype=x.dtype))
        ratio = self.sigma / self.t
        more = torch.expm1((ratio * moved + (0.5 * ratio**2 - 0.5 * ratio**2 * r)).clamp(0, 12))
        light = ((light + more) / (every + 1.0) + FAINT) * torch.exp(correction.clamp(max=60))
        return light.clamp(math.exp(-25), math.exp(15))

    def _density(self, y: Tensor, mean: Tensor, spread: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the density's log weight, y - r d and r, (B, h, w, s) each, for t > 0."""
        of_time = math.log(0.5 * (self.t / self.sigma) ** 2)
        r = torch.sigmoid(spread.clamp(-6 - of_time, 8 - of_time))
        d = y - mean
        drawn = r * d
        return 0.5 * (torch.log(r) - drawn * d + y * y), y - drawn, r


def decoded(decoder: PatchDecoder, code: Tensor, straight: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
    """Returns what `nn.patch_autoencoder.PatchDecoder` does, in tiles.

    Args:
        decoder: of counts.
        code: (B, code).
        straight: where the straight line meets the image, in cells, (B, 2).
        features: (B, F).

    Returns:
        log odds of 0 to 3 photons, (B, h, w, 4, s); and mean of the density, the logarithm of its deviation over that
        of Tukey's lambda distribution times `SPREAD`, (B, h, w, s) each, as (B, h, w, 2 s).
    """
    rows, columns = decoder.tokens.rows, decoder.tokens.columns
    size = decoder.patch**2
    known = torch.cat([features, code], 1)
    near = torch.cat([straight, decoder.place(straight, known)], 1)
    around = _Surroundings(decoder.tokens.centres, near)
    first = decoder.tokens.first
    spread = F.linear(decoder.spread(code).view(-1, rows, columns, 4), first.weight[:, :4])
    entering = F.linear(around.maps(), first.weight[:, 4:][:, around.order()])
    tokens = entering + spread + (decoder.tokens.place + first.bias)
    told = _Told(list(decoder.tokens.blocks))
    tokens = norm(told.through(tokens, told.pieces(decoder.tokens.embedding(known))))
    profiles = 2 * len(SCALES)
    shift = torch.zeros(NUMBERS, 1)
    shift[COUNTS], shift[COUNTS + 1] = 2.0, math.log(0.5 / LAMBDA * SPREAD)
    matrix = torch.cat([decoder.last.weight, decoder.profile.weight])
    bias = torch.cat([(decoder.last.bias.view(NUMBERS, -1) + shift).flatten(), decoder.profile.bias])
    numbers, weights = F.linear(tokens, matrix, bias).split([NUMBERS * size, NUMBERS * profiles], -1)
    light = around.light(decoder.patch, SCALES)
    numbers = numbers.unflatten(-1, (NUMBERS, size)) + weights.unflatten(-1, (NUMBERS, profiles)) @ light
    odds, density = numbers.split([COUNTS, 2], -2)
    return odds, density.flatten(-2)


LAMBDA = 0.1975
"""Of Tukey's lambda distribution: its standard deviation at power `POWER`."""

POWER = 0.135

SPREAD = 0.5**0.5 * LAMBDA
"""What `decoded` multiplies deviations over that of Tukey's lambda distribution with: half of a square is a square."""

UNIT = 0.5 * SPREAD ** (-1 / POWER)
"""Unit of the weights in `drawn`: powers of twice as much are over `SPREAD`."""


def drawn(odds: Tensor, density: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Draws counts as `nn.patch_autoencoder.draw` does, in tiles.

    With weights W over that of more than 3, their sum w and e = erf(n / sqrt(2)) the uniform u = (1 + e) / 2 is never
    needed: 2 u w = w + e w, and 2 (1 - u) w = w - e w.

    Args:
        odds: as `decoded` gives them.
        density: likewise.
        noise: a standard normal n a pixel, (B, h, w, s).

    Returns:
        counts up to 3, and 0 where there are more; counts where there are more, and 0 elsewhere; means over `UNIT`;
        (B, h, w, s) each.
    """
    size = noise.shape[-1]
    mean, deviation = density.split(size, -1)
    mean = mean.clamp(max=9.0)
    least = math.log(0.5 / LAMBDA * SPREAD)
    deviation = torch.exp(deviation.clamp(least - 2.5, least + 1.0))
    # weights over that of more; none is greater than float32 has room for
    weights = torch.exp(odds.clamp(max=60.0))
    steps = torch.ones(COUNTS, COUNTS).tril()
    sums = torch.cat([2 * UNIT * steps, UNIT * steps[-1:], torch.arange(COUNTS, dtype=noise.dtype)[None]])
    *reached, total, expected = F.linear(weights.flatten(-2), _each(sums, size)).split(size, -1)
    total = total + UNIT
    moved = torch.erf(noise * math.sqrt(0.5)) * total
    at, left = total + moved, (total - moved).clamp(2e-4 * UNIT, 2 * UNIT * (1 - 1e-4))
    *beyond, many = (at > edge for edge in reached)
    counts = sum((above.to(noise.dtype) for above in beyond[1:]), beyond[0].to(noise.dtype))
    quantile = _power(2 * UNIT - left) - _power(left)
    large = torch.expm1(mean + deviation * quantile).clamp(min=COUNTS - 0.5)
    of_large = torch.expm1(mean + deviation * deviation).clamp(min=float(COUNTS))
    means = (expected + of_large) / total + 1e-9 / UNIT
    return torch.where(many, 0.0, counts), torch.where(many, large, 0.0), means


def _power(x: Tensor) -> Tensor:
    """Returns x^0.135; ONNX Runtime takes longer for a power."""
    return torch.exp(POWER * torch.log(x))


def with_sums(counts: Tensor, large: Tensor, mean: Tensor, sums: Tensor, channels: Tensor) -> Tensor:
    """Moves counts to channel sums as `nn.patch_autoencoder.with_sums` does: each step is a factor of a channel.

    A surplus and missing photons exclude each other, and either step leads to the sums by itself.

    Args:
        counts: up to 3, and 0 where there are more, in the places of the tiles, (B, h, w, s).
        large: counts above 3, and 0 elsewhere, likewise.
        mean: in proportion to their means, not 0, likewise.
        sums: of the channels, (B, K).
        channels: 1 where a place is of a channel, (h w s, K), float64.

    Returns:
        counts in the places of the tiles, (B, h w s), float64.
    """
    target = sums[:, None].double()
    parts = torch.cat([counts, large, mean], 1).view(counts.shape[0], 3, -1).double()
    of_small, of_large, expected = (parts @ channels).split(1, 1)
    factor = ((target - of_small) / of_large.clamp(min=1e-9)).clamp(0.5, 2.0)
    total = of_small + of_large * factor
    fewer = (target / total.clamp(min=1e-9)).clamp(max=1.0)
    more = (target - total).clamp(min=0.0) / expected
    factors = torch.cat([fewer, factor * fewer, more], 1)
    moved: Tensor = (parts * (factors @ channels.T)).sum(1)
    return moved


def of_channels(channel: Tensor, shape: tuple[int, int], patch: int, number: int) -> Tensor:
    """Returns which places of the tiles are of which channel, (h w s, K) of float64, from that of each cell."""
    cells = torch.from_numpy(slots(shape, patch).ravel())
    return F.one_hot(channel[cells.clamp(min=0)], number).double() * (cells >= 0).double()[:, None]
