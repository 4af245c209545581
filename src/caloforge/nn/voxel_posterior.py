"""What a noisy voxel says about the clean one, by Bayes' theorem.

A voxel y is empty, y = 0, or one of K normal densities has it. A network gives, from what surrounds the voxel, a prior:
the odds of the densities against an empty voxel, their means m_k and spreads s_k. The noisy voxel
x = t y + (1 - t) noise has the likelihood N(x; 0, (1 - t)^2) where it is empty and N(x; t m_k, t^2 s_k^2 + (1 - t)^2)
under the densities, and the posterior is exact. So a network need not carry the noise of thousands of empty voxels
through its tokens, and at the end of the path an empty voxel is empty for certain: no threshold is to be learnt.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

NUMBERS = 3
"""Numbers of a density: log odds, mean, spread."""

LEAST = 0.02
"""Smallest noise: near the end of the path the posterior is that of 1 - t = LEAST."""

NARROWEST, WIDEST = 0.01, 5.0
"""Bounds of the spreads."""


def start(odds: float, means: Sequence[float], spreads: Sequence[float]) -> Tensor:
    """Returns the numbers of a prior without knowledge, (3 K,): log odds of each density, means and spreads."""
    logs = [math.log(spread) for spread in spreads]
    return torch.tensor([odds] * len(logs) + [*means] + logs)


class Posterior:
    """The posterior of voxels.

    Args:
        numbers: of the prior, (B, 3 K, *): log odds against empty, means, logarithms of the spreads.
        x: noisy voxels, (B, *).
        t: times, broadcast to them.
    """

    def __init__(self, numbers: Tensor, x: Tensor, t: Tensor) -> None:
        odds, means, logs = numbers.chunk(NUMBERS, 1)
        x, t = x[:, None], t[:, None]
        variance = torch.exp(2 * logs.clamp(math.log(NARROWEST), math.log(WIDEST)))
        noise = (1 - t).clamp(min=LEAST).square()
        total = t * t * variance + noise
        # relative to the likelihood of an empty voxel
        self._logs = (
            odds
            - 0.5 * ((x - t * means).square() / total + torch.log(total / noise))
            + 0.5 * x.square() / noise
        )
        self._means = (means * noise + t * variance * x) / total
        self._variances = variance * noise / total
        greatest = self._logs.amax(1, keepdim=True).clamp(min=0)
        weights = torch.exp(self._logs - greatest)
        self._norm = weights.sum(1) + torch.exp(-greatest[:, 0])
        self._greatest, self._weights = greatest[:, 0], weights

    def mean(self) -> Tensor:
        """Returns E[y | x], (B, *)."""
        mean: Tensor = (self._weights * self._means).sum(1) / self._norm
        return mean

    def lit(self) -> Tensor:
        """Returns the probability that the voxel is not empty, (B, *)."""
        probability: Tensor = self._weights.sum(1) / self._norm
        return probability

    def likely(self) -> Tensor:
        """Returns 0 where an empty voxel is likelier than not, else the mean of y where it is not empty, (B, *)."""
        lit = self._weights.sum(1)
        mean = (self._weights * self._means).sum(1) / lit.clamp(min=1e-30)
        return torch.where(2 * lit > self._norm, mean, torch.zeros_like(mean))

    def draw(self, choice: Tensor, within: Tensor) -> Tensor:
        """Draws y from the posterior, 0 where the voxel is empty, (B, *), with two normals, (B, *).

        Args:
            choice: says which density it is, or none.
            within: says where in it.
        """
        u = 0.5 * (1 + torch.erf(choice * math.sqrt(0.5))) * self._norm
        values = self._means + self._variances.sqrt() * within[:, None]
        drawn, above = torch.zeros_like(u), torch.zeros_like(u)
        for weight, value in zip(self._weights.unbind(1), values.unbind(1), strict=True):
            drawn = torch.where((u >= above) & (u < above + weight), value, drawn)
            above = above + weight
        return drawn

    def surprise(self, y: Tensor) -> Tensor:
        """Returns -ln p(y | x), (B, *): of an empty voxel, y = 0, its probability, else the density."""
        z = self._logs - 0.5 * (
            (y[:, None] - self._means).square() / self._variances + torch.log(2 * math.pi * self._variances)
        )
        lit = torch.logsumexp(z, 1)
        return torch.log(self._norm) + self._greatest - torch.where(y > 0, lit, torch.zeros_like(lit))
