"""Expansion of noise: the ten normals that ALICE O2 gives become as many as a model needs.

A counter-based hash, written twice: here in NumPy, and in `export.o2` as nodes of the graph. Everything is 64-bit
unsigned arithmetic, which wraps. With the finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014; constants
of Stafford's variant 13),

    mix(z) = z3 ^ (z3 >> 31),   z3 = (z2 ^ (z2 >> 27)) B,   z2 = (z ^ (z >> 30)) A,

1. each normal is quantised, w_i = floor(2^40 x_i) + 2^46, in float64: neighbouring float32 numbers stay apart down
   to |x| = 2^-17;
2. they make a key, k = mix(sum_i mix(w_i ^ K_i)), with constants K_i = mix((i + 1) G) and G = 2^64 over the golden
   ratio, and an odd increment g = mix(k ^ K_10) | 1, so that two events share no stretch of words;
3. word c is mix(k + c g). Word 0 gives the uniform of the zero response, u = (high half + 1/2) / 2^32;
4. each further word gives two normals by Box and Muller's formula from its halves, in float32: first all the
   cosines, then all the sines.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SIZE = 10
"""Normals that O2 gives."""

GRAIN, OFFSET, LARGEST = 2.0**40, 2.0**46, 32.0
"""Scale and shift of the quantisation, and where the normals are cut off before it."""

GOLDEN = 0x9E3779B97F4A7C15
FIRST, SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
SHIFTS = (30, 27, 31)

HALF, LOW = np.uint64(32), np.uint64(0xFFFFFFFF)


def mix(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scrambles 64-bit words."""
    first, second, third = (np.uint64(shift) for shift in SHIFTS)
    words = (words ^ (words >> first)) * np.uint64(FIRST)
    words = (words ^ (words >> second)) * np.uint64(SECOND)
    return words ^ (words >> third)


def constants() -> NDArray[np.uint64]:
    """Returns K_0 .. K_10."""
    return mix(np.arange(1, SIZE + 2, dtype=np.uint64) * np.uint64(GOLDEN))


def words(noise: NDArray[np.float32], count: int) -> NDArray[np.uint64]:
    """Hashes ten normals to `count` words, (B, count)."""
    cut = np.clip(noise, -LARGEST, LARGEST).astype(np.float64)
    quantised = (np.floor(cut * GRAIN) + OFFSET).astype(np.uint64)
    table = constants()
    key = mix(mix(quantised ^ table[:SIZE]).sum(1, keepdims=True, dtype=np.uint64))
    increment = mix(key ^ table[SIZE:]) | np.uint64(1)
    return mix(key + np.arange(count, dtype=np.uint64) * increment)


def expand(noise: NDArray[np.float32], size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Turns ten normals into a uniform and `size` normals.

    Args:
        noise: ten standard normals an event, (B, 10).
        size: normals wanted.

    Returns:
        uniforms of the zero response in (0, 1], (B,), and standard normals, (B, size); float32 both.
    """
    drawn = words(noise, 1 + -(-size // 2))
    high, low = (drawn >> HALF).astype(np.float32), (drawn & LOW).astype(np.float32)
    scale = np.float32(2.0**-32)
    first, second = (high + np.float32(0.5)) * scale, low[:, 1:] * scale
    radius = np.sqrt(np.float32(-2) * np.log(first[:, 1:]))
    angle = np.float32(2 * np.pi) * second
    normals = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], 1)
    return first[:, 0], np.ascontiguousarray(normals[:, :size])
