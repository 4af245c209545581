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

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor, nn

from caloforge.nn.patch_autoencoder import NUMBERS, SCALES, PatchDecoder
from caloforge.nn.patch_network import COUNTS, FAINT, OUTPUTS, ModulatedBlock, PatchNetwork
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
        self.places = near.shape[1] // 2
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
        """Returns exp(-distance / scale) of each pixel, (B, h, w, scales P, patch^2)."""
        size = patch**2
        steps = torch.arange(patch) - (patch - 1) / 2
        offsets = torch.stack(torch.meshgrid(steps, steps, indexing="ij")).flatten(1)
        spread = torch.kron(torch.eye(2 * self.places), torch.ones(size, 1))
        radius = self._radius(F.linear(self.away, spread) + offsets.flatten().repeat(self.places), size)
        falls = _each([[-1 / scale] for scale in scales], self.places * size)
        light: Tensor = torch.exp(F.linear(radius, falls)).unflatten(-1, (len(scales) * self.places, size))
        return light

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

    def pieces(self, embedding: Tensor) -> Iterator[Tensor]:
        """Returns all of it in order, time by time, (B, 1, 1, *) each, of the embedding (B, n, E), or (B, E)."""
        matrix, bias = torch.cat(self._matrices), torch.cat(self._biases)
        steps = embedding.shape[1] if embedding.ndim == 3 else 1
        flat = embedding.flatten(0, 1) if embedding.ndim == 3 else embedding
        every = F.linear(flat, matrix, bias).view(-1, 1, 1, steps * len(bias))
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
    last: Tensor = network.last.weight
    bias: Tensor = network.last.bias
    if network.profile is not None:
        last, bias = torch.cat([last, network.profile.weight]), torch.cat([bias, network.profile.bias])
    told.add(last @ shift, last @ of_shift + bias)
    first, of_conditions = network.embedding[0], conditions.shape[1]
    assert isinstance(first, nn.Linear)
    phases = torch.tensor(times)[:, None] * network.frequencies
    of_times = torch.cat([phases.cos(), phases.sin()], 1) @ first.weight[:, of_conditions:].T + first.bias
    embedding = F.linear(conditions, first.weight[:, :of_conditions])[:, None] + of_times
    pieces = told.pieces(network.embedding[1:](embedding))
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
    for index, t in enumerate(times):
        tokens = told.through(static + F.linear(x, entering[:, :size]), pieces)
        seen = norm(tokens) * next(pieces)
        if index == len(times) - 1:
            return _light(x, t, seen, last, next(pieces), light).flatten(1)
        share = (times[index + 1] - t) / (1 - t)
        image = _image(x, t, seen, last, next(pieces), light, share)
        if not inside.all():
            image = image * torch.from_numpy(inside).to(x.dtype)
        x = (1 - share) * x + image
    raise ValueError("a path needs its end")


def _numbers(
    x: Tensor, t: float, tokens: Tensor, last: Tensor, bias: Tensor, light: Tensor | None, correction: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Returns log odds of the counts, (B, h, w, 4 s), mean, ln V, the correction, and y, in the units above."""
    size = x.shape[-1]
    sigma = max(1 - t, 0.02)
    kinds = COUNTS + (3 if correction else 2 if t else 1)
    factors, shifts = torch.ones(COUNTS + 3), torch.zeros(COUNTS + 3)
    logs = torch.log1p(torch.arange(COUNTS, dtype=torch.float64)).float()
    # of the odds, the mean, ln V and the correction
    if t:
        shifts[:COUNTS] = -0.5 * (t / sigma * logs) ** 2
        factors[COUNTS], shifts[COUNTS] = t / sigma, 1.8 * t / sigma
        shifts[COUNTS + 1] = math.log(0.5 * (t / sigma) ** 2)
        factors[COUNTS + 1] = 2.0
    else:
        shifts[COUNTS] = 1.8
    factors, shifts = (values[:kinds].repeat_interleave(size) for values in (factors, shifts))
    matrix = last[: kinds * size] * factors[:, None]
    around = 0.0 if light is None else _profiles(tokens, last, bias, light, kinds) * factors
    bias = bias[..., : kinds * size] * factors + shifts
    y = x / sigma if t else x
    if t:
        slopes = torch.zeros(kinds * size, size)
        slopes[: COUNTS * size] = _each(t / sigma * logs[:, None], size)
        tokens, matrix = torch.cat([tokens, y], -1), torch.cat([matrix, slopes], 1)
    numbers = F.linear(tokens, matrix) + bias + around
    odds, *others = numbers.split([COUNTS * size, *[size] * (kinds - COUNTS)], -1)
    others += [others[0]] * 2
    return odds, others[0], others[1], others[2], y


def _profiles(tokens: Tensor, last: Tensor, bias: Tensor, light: Tensor, kinds: int) -> Tensor:
    """Returns what the light around a place adds to each number, (B, h, w, kinds s); the last rows are its weights."""
    scales, size = light.shape[-2:]
    first = OUTPUTS * size
    wanted = slice(first, first + kinds * scales)
    weights = F.linear(tokens, last[wanted]) + bias[..., wanted]
    around: Tensor = weights.unflatten(-1, (kinds, scales)) @ light
    return around.flatten(-2)


def _posterior(odds: Tensor, density: Tensor | None, sums: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Returns the density's weight, and sums over the counts' weights.

    Args:
        odds: log odds of the counts, (B, h, w, 4 s).
        density: that of the density, (B, h, w, s); 0 where not given.
        sums: what to multiply the weights with, (S, 4).

    Returns:
        the weight, and one sum a row, (B, h, w, s) each.
    """
    size = odds.shape[-1] // COUNTS
    parts = odds.unflatten(-1, (COUNTS, size))
    if density is None:
        greatest = torch.relu(parts.amax(-2, keepdim=True))
        weights, of_density = torch.exp(parts - greatest), torch.exp(-greatest)
    else:
        parts = torch.cat([parts, density[..., None, :]], -2)
        every = torch.exp(parts - parts.amax(-2, keepdim=True))
        weights, of_density = every.split([COUNTS, 1], -2)
    matrix = _each(sums, size)
    return of_density.flatten(-2), list(F.linear(weights.flatten(-2), matrix).split(size, -1))


def _image(
    x: Tensor, t: float, tokens: Tensor, last: Tensor, bias: Tensor, light: Tensor | None, share: float
) -> Tensor:
    """Returns the expected image times a share, (B, h, w, s)."""
    odds, mean, spread, _, y = _numbers(x, t, tokens, last, bias, light, False)
    logs = share * torch.log1p(torch.arange(COUNTS, dtype=torch.float64)).float()
    sums = torch.stack([torch.ones(COUNTS), logs])
    if not t:
        weight, (every, image) = _posterior(odds, None, sums)
        return (image + share * mean * weight) / (every + weight)
    density, moved, _ = _density(y, mean, spread, t)
    weight, (every, image) = _posterior(odds, density, sums)
    scale = share * max(1 - t, 0.02) / t
    return (image + scale * moved * weight) / (every + weight)


def _light(x: Tensor, t: float, tokens: Tensor, last: Tensor, bias: Tensor, seen: Tensor | None) -> Tensor:
    """Returns the expected counts times their correction, (B, h, w, s)."""
    odds, mean, spread, correction, y = _numbers(x, t, tokens, last, bias, seen, True)
    density, moved, r = _density(y, mean, spread, t)
    counts = torch.arange(COUNTS, dtype=x.dtype)
    weight, (every, light) = _posterior(odds, density, torch.stack([torch.ones(COUNTS), counts]))
    ratio = max(1 - t, 0.02) / t
    more = torch.expm1((ratio * moved + (0.5 * ratio**2 - 0.5 * ratio**2 * r)).clamp(0, 12))
    light = ((light + more * weight) / (every + weight) + FAINT) * torch.exp(correction.clamp(max=60))
    return light.clamp(math.exp(-25), math.exp(15))


def _density(y: Tensor, mean: Tensor, spread: Tensor, t: float) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the density's log weight, y - r d and r, (B, h, w, s) each, for t > 0."""
    of_time = math.log(0.5 * (t / max(1 - t, 0.02)) ** 2)
    r = 1 / (1 + torch.exp(spread.clamp(of_time - 8, of_time + 6)))
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
        log odds of 0 to 3 photons, (B, h, w, 4, s); and mean of the density, its deviation over that of Tukey's
        lambda distribution, (B, h, w, s) each, as (B, h, w, 2 s).
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
    shift[COUNTS], shift[COUNTS + 1] = 2.0, math.log(0.5 / LAMBDA)
    matrix = torch.cat([decoder.last.weight, decoder.profile.weight])
    bias = torch.cat([(decoder.last.bias.view(NUMBERS, -1) + shift).flatten(), decoder.profile.bias])
    numbers, weights = F.linear(tokens, matrix, bias).split([NUMBERS * size, NUMBERS * profiles], -1)
    light = around.light(decoder.patch, SCALES)
    numbers = numbers.unflatten(-1, (NUMBERS, size)) + weights.unflatten(-1, (NUMBERS, profiles)) @ light
    odds, density = numbers.split([COUNTS, 2], -2)
    return odds, density.flatten(-2)


LAMBDA = 0.1975
"""Of Tukey's lambda distribution, of power 0.135: its standard deviation."""


def drawn(odds: Tensor, density: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Draws counts as `nn.patch_autoencoder.draw` does, in tiles.

    Args:
        odds: as `decoded` gives them.
        density: likewise.
        u: a uniform in [0, 1) a pixel, (B, h, w, s).

    Returns:
        counts up to 3, and 0 where there are more; counts where there are more, and 0 elsewhere; means; (B, h, w, s)
        each.
    """
    size = u.shape[-1]
    mean, deviation = density.split(size, -1)
    mean = mean.clamp(max=9.0)
    deviation = torch.exp(deviation.clamp(math.log(0.5 / LAMBDA) - 2.5, math.log(0.5 / LAMBDA) + 1.0))
    # weights over that of more; none is greater than float32 has room for
    weights = torch.exp(odds.clamp(max=80.0))
    steps = torch.ones(COUNTS, COUNTS).tril()
    sums = torch.cat([steps, steps[-1:], torch.arange(COUNTS, dtype=u.dtype)[None]])
    *reached, total, expected = F.linear(weights.flatten(-2), _each(sums, size)).split(size, -1)
    total = total + 1.0
    at = u * total
    *beyond, many = ((at > edge).to(u.dtype) for edge in reached)
    counts = sum(beyond[1:], beyond[0]) - (COUNTS - 1) * many
    left = ((1 - u) * total).clamp(1e-4, 1 - 1e-4)
    quantile = _power(1 - left) - _power(left)
    large = torch.expm1(mean + deviation * quantile).clamp(min=COUNTS - 0.5)
    of_large = torch.expm1(mean + (0.5 * LAMBDA**2) * deviation * deviation).clamp(min=float(COUNTS))
    return counts, many * large, (expected + of_large) / total


def _power(x: Tensor) -> Tensor:
    """Returns x^0.135; ONNX Runtime takes longer for a power."""
    return torch.exp(0.135 * torch.log(x))


def with_sums(counts: Tensor, large: Tensor, mean: Tensor, sums: Tensor, channels: Tensor) -> Tensor:
    """Moves counts to channel sums as `nn.patch_autoencoder.with_sums` does: each step is a factor of a channel.

    Args:
        counts: up to 3, and 0 where there are more, in the places of the tiles, (B, h, w, s).
        large: counts above 3, and 0 elsewhere, likewise.
        mean: their means, likewise.
        sums: of the channels, (B, K).
        channels: 1 where a place is of a channel, (h w s, K), float64.

    Returns:
        counts in the places of the tiles, (B, h w s), float64.
    """
    target = sums.double()[:, None]
    parts = torch.cat([counts, large, mean + 1e-9], 1).view(counts.shape[0], 3, -1).double()
    of_small, of_large, expected = (parts @ channels).split(1, 1)
    factor = ((target - of_small) / of_large.clamp(min=1e-9)).clamp(0.5, 2.0)
    total = of_small + of_large * factor
    fewer = (target / total.clamp(min=1e-9)).clamp(max=1.0)
    total = total * fewer
    more = (target - total).clamp(min=0.0) / expected
    last = target / (total + more * expected).clamp(min=1e-12)
    factors = torch.cat([fewer, factor * fewer, more], 1) * last
    moved: Tensor = (parts * (factors @ channels.T)).sum(1)
    return moved


def of_channels(channel: Tensor, shape: tuple[int, int], patch: int, number: int) -> Tensor:
    """Returns which places of the tiles are of which channel, (h w s, K) of float64, from that of each cell."""
    cells = torch.from_numpy(slots(shape, patch).ravel())
    return F.one_hot(channel[cells.clamp(min=0)], number).double() * (cells >= 0).double()[:, None]
