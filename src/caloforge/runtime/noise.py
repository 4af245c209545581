"""Noise of an event: standard normals that depend on (seed, event) and on nothing else.

Philox4x32-10 (Salmon et al., SC'11) turns a counter and a key into four random words without any state, so the
noise of event k is the same in any batch, shard, order or resumed job. The key is the seed, the counter is
(block, stream, event low, event high). Two words make two normals by Box and Muller's formula in float64,

    u = (w + 1/2) / 2^32,  r = sqrt(-2 ln u_1),  (r cos 2 pi u_2, r sin 2 pi u_2),

rounded to float32. The formula is ours and fixed: a library's `standard_normal` may change between versions.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = np.array([0x9E3779B9, 0xBB67AE85], np.uint64)
_LOW = np.uint64(0xFFFFFFFF)
_HIGH = np.uint64(32)
ROUNDS = 10

BLOCKS = 4096
"""Blocks at once: what belongs to them stays in a core's second cache."""


@lru_cache(maxsize=8)
def _constants(key: tuple[int, int], n: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Returns multipliers, (2, 2 n), of even and odd rounds, and keys of all rounds, (`ROUNDS`, 2 n), for `_rounds`."""
    multipliers = np.repeat(np.array([_MULTIPLIERS, _MULTIPLIERS[::-1]], np.uint64), n, 1)
    keys = (np.array(key, np.uint64) + np.arange(ROUNDS, dtype=np.uint64)[:, None] * _WEYL) & _LOW
    keys[1::2] = keys[1::2, ::-1]
    return multipliers, np.repeat(keys, n, 1)


def _rounds(left: NDArray[np.uint64], right: NDArray[np.uint64], key: tuple[int, int]) -> None:
    """Applies the rounds of Philox to n blocks in place.

    A round swaps both halves of the words. Here they stay where they are, and what belongs to them is swapped.

    Args:
        left: words 0 of all blocks, then words 2, (2 n,).
        right: words 1, then words 3, (2 n,).
        key: two 32-bit words.
    """
    n = len(left) // 2
    multipliers, keys = _constants(key, n)
    product = np.empty_like(left)
    first, second, one, three = left[:n], left[n:], right[:n], right[n:]
    for number in range(ROUNDS):
        np.multiply(left, multipliers[number % 2], product)
        np.bitwise_xor(right, keys[number], right)
        np.right_shift(product, _HIGH, left)
        np.bitwise_xor(first, three, first)
        np.bitwise_xor(second, one, second)
        np.bitwise_and(product, _LOW, right)


def philox(counter: ArrayLike, key: tuple[int, int]) -> NDArray[np.uint32]:
    """Applies Philox4x32-10.

    Args:
        counter: four 32-bit words a block, (..., 4).
        key: two 32-bit words.

    Returns:
        four random words a block, (..., 4).
    """
    words = np.asarray(counter, np.uint64)
    flat = words.reshape(-1, 2, 2)
    left, right = (flat[..., half].T.flatten() for half in (0, 1))
    _rounds(left, right, key)
    return _joined(left, right).reshape(words.shape)


def _joined(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """Returns the words of each block side by side, (n, 4)."""
    words = np.empty((len(left) // 2, 2, 2), np.uint32)
    words[..., 0], words[..., 1] = left.reshape(2, -1).T, right.reshape(2, -1).T
    return words.reshape(-1, 4)


def _words(
    seed: int, numbers: NDArray[np.uint64], blocks: int, stream: int
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Returns the random words of events in the order of `_rounds`: 0 and 2, then 1 and 3 of all blocks."""
    words = np.empty((2, 2, len(numbers), blocks), np.uint64)
    words[0, 0], words[1, 0] = np.arange(blocks, dtype=np.uint64), stream
    words[0, 1], words[1, 1] = (numbers & _LOW)[:, None], (numbers >> _HIGH)[:, None]
    left, right = words.reshape(2, -1)
    _rounds(left, right, (seed & 0xFFFFFFFF, seed >> 32))
    return left, right


def uniform_words(seed: int, events: ArrayLike, blocks: int, stream: int = 0) -> NDArray[np.uint32]:
    """Draws `4 * blocks` random words for each event.

    Args:
        seed: 0 to 2^64 - 1.
        events: event numbers, 0 to 2^64 - 1, (B,).
        blocks: Philox blocks an event.
        stream: another stream, other words: 0 for the generator's noise.

    Returns:
        words, (B, 4 * blocks).

    Raises:
        ValueError: a seed that is no 64-bit number.
    """
    _check_seed(seed)
    numbers = np.asarray(events, np.uint64)
    words = np.empty((len(numbers), blocks, 4), np.uint32)
    for rows in _together(len(numbers), blocks):
        words[rows] = _joined(*_words(seed, numbers[rows], blocks, stream)).reshape(-1, blocks, 4)
    return words.reshape(len(numbers), 4 * blocks)


def _together(events: int, blocks: int) -> Iterator[slice]:
    """Yields the events that are drawn at once."""
    step = max(BLOCKS // max(blocks, 1), 1)
    for start in range(0, events, step):
        yield slice(start, start + step)


def _check_seed(seed: int) -> None:
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed must be a number from 0 to 2^64 - 1, got {seed}")


def check_numbers(seed: int, first_event: int, events: int) -> None:
    """Raises ValueError unless the seed and all event numbers are such."""
    _check_seed(seed)
    if first_event < 0 or first_event + events >= 2**63:
        raise ValueError(
            f"event numbers lie from 0 to 2^63 - 1: those of {events:,} rows from first event {first_event} do not"
        )


def standard_normals(seed: int, events: ArrayLike, size: int, stream: int = 0) -> NDArray[np.float32]:
    """Draws the noise of each event.

    Args:
        seed: 0 to 2^64 - 1.
        events: event numbers, (B,).
        size: normals an event.
        stream: another stream, other normals.

    Returns:
        standard normals, (B, size).
    """
    _check_seed(seed)
    numbers, blocks = np.asarray(events, np.uint64), max(-(-size // 4), 1)
    normals = np.empty((len(numbers), blocks, 2), np.complex64)
    for rows in _together(len(numbers), blocks):
        drawn = _normals(*_words(seed, numbers[rows], blocks, stream)).reshape(2, -1, blocks)
        normals[rows, :, 0], normals[rows, :, 1] = drawn
    return normals.view(np.float32).reshape(len(numbers), 4 * blocks)[:, :size]


def normals_in_batches(
    seed: int, events: ArrayLike, size: int, batch_size: int, stream: int = 0
) -> Iterator[NDArray[np.float32]]:
    """Draws the noise of batches one after the other, of several small ones at once: that takes less time.

    Args:
        seed: 0 to 2^64 - 1.
        events: event numbers, (N,).
        size: normals an event.
        batch_size: events of a batch, B.
        stream: as for `standard_normals`.

    Yields:
        what `standard_normals` gives for the events of each batch, (B, size); the last may be smaller.
    """
    numbers = np.asarray(events, np.uint64)
    batches = max(BLOCKS // (max(-(-size // 4), 1) * batch_size), 1)
    for start in range(0, len(numbers), batches * batch_size):
        normals = standard_normals(seed, numbers[start : start + batches * batch_size], size, stream)
        for row in range(0, len(normals), batch_size):
            yield normals[row : row + batch_size]


TURN = 10
"""Logarithm to base 2 of the parts of a turn whose cosines and sines are kept."""

_ANGLES = np.arange(2**TURN + 1) * (2.0 * np.pi / 2**TURN)
_CIRCLE = np.cos(_ANGLES) + 1j * np.sin(_ANGLES)
_NEAR = 64
"""Least digits of float64 about a number half way between two of float32, within which what is fast may round wrong."""


def _normals(words: NDArray[np.uint64], of_angles: NDArray[np.uint64]) -> NDArray[np.complex128]:
    """Returns pairs of normals, to be rounded to float32, (N,), from the first and the second word of each, (N,).

    With the nearest of `_ANGLES`, a, cos(a + d) + i sin(a + d) = (cos a + i sin a) (cos d + i sin d), the latter by
    its series: right but for some last digits of float64. Where these could matter the formula itself is taken.
    """
    radius = words.view(np.int64) + 0.5
    radius *= 2.0**-32
    np.log(radius, radius)
    radius *= -2.0
    np.sqrt(radius, radius)
    angle = of_angles.view(np.int64) + 0.5
    angle *= 2.0 * np.pi * 2.0**-32
    of_angles += np.uint64(2 ** (31 - TURN))
    of_angles >>= np.uint64(32 - TURN)
    nearest = of_angles.view(np.int64)
    d = angle - _ANGLES.take(nearest)
    square = d * d
    series = square * (1 / 24)
    series -= 0.5
    series *= square
    series += 1.0
    pairs = np.empty(len(d), np.complex128)
    np.multiply(series, radius, pairs.real)
    np.multiply(square, 1 / 120, series)
    series -= 1 / 6
    series *= square
    series += 1.0
    series *= d
    np.multiply(series, radius, pairs.imag)
    pairs *= _CIRCLE.take(nearest)
    digits = pairs.view(np.uint64) + np.uint64(2**64 - 2**28 + _NEAR // 2)
    digits &= np.uint64(2**29 - 1)
    if digits.min(initial=_NEAR) < _NEAR:
        pairs.real, pairs.imag = radius * np.cos(angle), radius * np.sin(angle)
    return pairs
