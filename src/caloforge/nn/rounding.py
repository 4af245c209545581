"""Rounding of expected counts to integers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor

Rounding = Literal["systematic", "nearest", "none"]


def systematic_rounding(expected: Tensor, u: Tensor, order: Tensor) -> Tensor:
    """Rounds expected counts to integers that are unbiased in every cell and keep sums.

    Systematic sampling: with C_k the cumulative sum of the expected counts in the given order,

        n_k = floor(C_k + u) - floor(C_{k-1} + u),   u ~ U[0, 1),

    so that the mean of n_k over u is the expected count, n_k is its floor or ceiling, and the sum of any run of
    neighbours in `order` is off by less than one. A shuffled order avoids regular patterns.

    Args:
        expected: counts, not negative, (B, cells).
        u: one uniform an event, (B,).
        order: permutation of the cells, (cells,).

    Returns:
        integer counts, (B, cells), of the dtype of `expected`.
    """
    # float64: at 3,000 photons float32 would leave 1e-4 of a count
    ordered = expected.double().index_select(1, order)
    cumulative = torch.floor(torch.cumsum(ordered, 1) + u.double()[:, None])
    # u < 1, so the floor of u alone is 0
    counts = torch.diff(cumulative, dim=1, prepend=torch.zeros_like(cumulative[:, :1]))
    return counts.to(expected.dtype).index_select(1, torch.argsort(order))


def rounded_in_order(expected: Tensor, noise: Tensor, order: Tensor, rule: Rounding) -> Tensor:
    """Rounds expected counts that lie in the order of `systematic_rounding`, in few operators, for an exported graph.

    Args:
        expected: counts in that order, not negative, float64, (B, cells).
        noise: one standard normal an event, (B,) or (B, 1).
        order: permutation of the cells, (cells,).
        rule: `systematic` or `none`.

    Returns:
        counts in the order of the image, (B, cells), float32.
    """
    back = torch.argsort(order)
    if rule == "none":
        return in_order(expected.float(), back)
    u = normal_to_uniform(noise).double()
    u = u if u.ndim == 2 else u[:, None]
    reached = torch.floor(torch.cumsum(torch.cat([u, expected], 1), 1)).float()
    return in_order(reached[:, 1:] - reached[:, :-1], back)


def in_order(values: Tensor, index: Tensor) -> Tensor:
    """Takes numbers of each row, (B, n), in the order of an index, (m,), for an exported graph.

    As `index_select` along the second axis; for that ONNX Runtime copies blocks of one, which takes four times as long.
    """
    return values.gather(1, index[None].expand(values.shape[0], -1))


def normal_to_uniform(noise: Tensor) -> Tensor:
    """Turns standard normals into uniforms in [0, 1), good to 1e-7.

    By the error function and in the noise's own precision, which ONNX has as well.
    """
    u = 0.5 * (1 + torch.erf(noise * math.sqrt(0.5)))
    return u.clamp(min=0.0, max=1 - torch.finfo(noise.dtype).eps / 2)


_SEEN: list[list[Tensor]] = []


@contextmanager
def before_rounding() -> Iterator[list[Tensor]]:
    """Gives a list to which `without_jumps` adds the counts that it is given, within the block."""
    _SEEN.append([])
    try:
        yield _SEEN[-1]
    finally:
        _SEEN.pop()


def without_jumps(counts: Callable[[], Tensor]) -> None:
    """Tells a `before_rounding` what a model would give if nothing were rounded or drawn as a whole number.

    Args:
        counts: computes them, (B, *shape); called only where somebody listens.
    """
    if _SEEN:
        smooth = counts()
        for seen in _SEEN:
            seen.append(smooth)


def rounded(expected: Tensor, noise: Tensor, order: Tensor, rule: Rounding) -> Tensor:
    """Rounds expected counts by a rule.

    Args:
        expected: counts, not negative, (B, *shape).
        noise: one standard normal an event, (B,), which `systematic` needs.
        order: permutation of the cells, (cells,).
        rule: `systematic`; `nearest`, which is biased; or `none`, which leaves the counts as they are.

    Returns:
        counts, (B, *shape), of the dtype of `expected`.
    """
    if rule == "none":
        return expected
    without_jumps(lambda: expected)
    if rule == "nearest":
        return torch.round(expected)
    return systematic_rounding(expected.flatten(1), normal_to_uniform(noise), order).view_as(expected)


def floor_to_sum(values: Tensor, total: Tensor, halvings: int = 27) -> Tensor:
    """Takes floors of values after scaling the counts of lit ones, so that they add up to a given number.

    With k = floor(v) and u = v - k, n = floor(s k + u) where v >= 1, and 0 elsewhere, with the largest s of each row
    for which sum n does not exceed the total. As s grows a floor jumps one after the other, so that the total is met
    but for ties. Where u is uniform the mean of n is s k; were u scaled too it would be s k + (s - 1) / 2, and too many
    cells of one photon would get a second. The brightest cell counts as lit in any case.

    Args:
        values: not negative, (B, cells).
        total: whole numbers, (B,).
        halvings: of the interval of ln s, -8 to 12 at first.

    Returns:
        counts, (B, cells), of the dtype of `values`.
    """
    floors = torch.floor(values)
    within = torch.where(floors > 0, values - floors, 0.0)
    none = values < 1
    brightest = none & (values >= values.amax(1, keepdim=True))
    counts = torch.where(brightest, 1.0, floors)
    target = total[:, None]
    low, step = torch.full_like(target, -8.0), 20.0
    for _ in range(halvings):
        step /= 2
        fits = torch.floor(counts * torch.exp(low + step) + within).sum(1, keepdim=True) <= target
        low = low + step * fits.to(low.dtype)
    return torch.floor(counts * torch.exp(low) + within)
