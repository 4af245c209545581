"""Noise of an event: standard normals that depend on (seed, event) and on nothing else.

Philox4x32-10 (Salmon et al., SC'11) turns a counter and a key into four random words without any state, so the
noise of event k is the same in any batch, shard, order or resumed job. The key is the seed, the counter is
(block, stream, event low, event high). Two words make two normals by Box and Muller's formula in float64,

    u = (w + 1/2) / 2^32,  r = sqrt(-2 ln u_1),  (r cos 2 pi u_2, r sin 2 pi u_2),

rounded to float32. The formula is ours and fixed: a library's `standard_normal` may change between versions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

_MULTIPLIERS = np.array([0xD2511F53, 0xCD9E8D57], np.uint64)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_HIGH = np.uint64(32)
ROUNDS = 10


def philox(counter: ArrayLike, key: tuple[int, int]) -> NDArray[np.uint32]:
    """Applies Philox4x32-10.

    Args:
        counter: four 32-bit words a block, (..., 4).
        key: two 32-bit words.

    Returns:
        four random words a block, (..., 4).
    """
    words = np.asarray(counter, np.uint64)
    c0, c1, c2, c3 = (words[..., i] for i in range(4))
    k0, k1 = key
    for _ in range(ROUNDS):
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (p1 >> _HIGH) ^ c1 ^ np.uint64(k0),
            p1 & _LOW,
            (p0 >> _HIGH) ^ c3 ^ np.uint64(k1),
            p0 & _LOW,
        )
        k0, k1 = (k0 + _WEYL[0]) & 0xFFFFFFFF, (k1 + _WEYL[1]) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)


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
    counter = np.empty((len(numbers), blocks, 4), np.uint64)
    counter[..., 0] = np.arange(blocks, dtype=np.uint64)
    counter[..., 1] = stream
    counter[..., 2] = (numbers & _LOW)[:, None]
    counter[..., 3] = (numbers >> _HIGH)[:, None]
    return philox(counter, (seed & 0xFFFFFFFF, seed >> 32)).reshape(len(numbers), 4 * blocks)


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
    words = uniform_words(seed, events, -(-size // 4), stream)
    u = (words.astype(np.float64) + 0.5) * 2.0**-32
    radius, angle = np.sqrt(-2.0 * np.log(u[:, 0::2])), 2.0 * np.pi * u[:, 1::2]
    normals = np.empty(u.shape, np.float32)
    normals[:, 0::2] = radius * np.cos(angle)
    normals[:, 1::2] = radius * np.sin(angle)
    return normals[:, :size]
