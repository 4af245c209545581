"""Optimal transport between two samples, by Sinkhorn's iteration of the logarithms (arXiv:1810.08278).

The cost of moving x to y is C = |x - y|^2 / 2. With an entropic blur of length b, e = b^2, all points of a sample
weighing the same, the optimal transport of N points x to M points y has two potentials,

    f_i = -e ln [ mean_j exp((g_j - C_ij) / e) ],   g_j = -e ln [ mean_i exp((f_i - C_ij) / e) ],
    OT(x, y) = mean f + mean g.

They are found by averaging these two lines in turn while the blur shrinks from the extent of the points to b. The
blur's own bias is taken out in the divergence

    S(x, y) = OT(x, y) - OT(x, x) / 2 - OT(y, y) / 2,

which is 0 for equal samples, and not negative. As b goes to 0 it becomes half the squared Wasserstein-2 distance.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def _cost(x: Tensor, y: Tensor) -> Tensor:
    # by differences: where x and y agree the gradient is 0 and not a rounding error
    return 0.5 * (x[:, None] - y[None]).square().sum(2)


def _potential(cost: Tensor, other: Tensor, epsilon: float) -> Tensor:
    """Returns the potential of the rows, (N,), for a cost (N, M) and the potential of the columns, (M,)."""
    return -epsilon * (torch.logsumexp((other - cost) / epsilon, 1) - math.log(cost.shape[1]))


def _shrinking(cost: Tensor, blur: float, scaling: float) -> list[float]:
    """Returns the values of epsilon, from the largest cost to blur^2."""
    last, now = blur**2, max(float(cost.max()), blur**2)
    blurs = []
    while now > last:
        blurs.append(now)
        now *= scaling**2
    return [*blurs, last]


@torch.no_grad()
def potentials(cost: Tensor, epsilons: list[float]) -> tuple[Tensor, Tensor]:
    """Returns the potentials of rows, (N,), and columns, (M,).

    Args:
        cost: (N, M).
        epsilons: values of epsilon in turn, one iteration each.
    """
    first = epsilons[0]
    f = _potential(cost, cost.new_zeros(cost.shape[1]), first)
    g = _potential(cost.T, cost.new_zeros(cost.shape[0]), first)
    for epsilon in epsilons:
        f, g = (
            0.5 * (f + _potential(cost, g, epsilon)),
            0.5 * (g + _potential(cost.T, f, epsilon)),
        )
    return f, g


def sinkhorn_divergence(x: Tensor, y: Tensor, blur: float, scaling: float = 0.9) -> tuple[Tensor, Tensor]:
    """Returns what each point adds to the divergence of two samples, S = mean over x + mean over y.

    The gradient is that of S: at the optimum it passes through the cost alone.

    Args:
        x: N points, (N, D).
        y: M points, (M, D).
        blur: b, in the unit of the points.
        scaling: what the blur is multiplied by from one iteration to the next, below 1; the nearer to 1 the more
            exact.

    Returns:
        parts of x, (N,), and of y, (M,).
    """
    with torch.no_grad():
        cost = _cost(x, y)
        epsilons = _shrinking(cost, blur, scaling)
        f, g = potentials(cost, epsilons)
        own_f, _ = potentials(_cost(x, x), epsilons)
        own_g, _ = potentials(_cost(y, y), epsilons)
    epsilon = epsilons[-1]
    of_x = _potential(_cost(x, y.detach()), g, epsilon) - _potential(_cost(x, x.detach()), own_f, epsilon)
    of_y = _potential(_cost(y, x.detach()), f, epsilon) - _potential(_cost(y, y.detach()), own_g, epsilon)
    return of_x, of_y
