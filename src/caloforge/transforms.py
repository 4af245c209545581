"""Invertible transforms between physical units and what a network sees.

A transform is fitted once by an explicit call, is saved with the model and changes nothing in place. What
cannot be undone (a threshold, dequantizing noise) is no transform.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

import torch
from torch import Tensor, nn


class Transform(nn.Module, ABC):
    """Maps physical values to network values and back, given the conditions where it needs them."""

    @abstractmethod
    def forward(self, x: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Maps physical values, (B, *), to network values."""

    @abstractmethod
    def inverse(self, y: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Undoes `forward` on its image."""


class Log1p(Transform):
    """y = ln(1 + x)."""

    def forward(self, x: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Maps x > -1, (B, *), to its logarithm."""
        return torch.log1p(x)

    def inverse(self, y: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Maps back, (B, *)."""
        return torch.expm1(y)


class Standardize(Transform):
    """y = (x - mean) / scale, with one mean and one standard deviation a feature.

    Args:
        size: number of features, F.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))

    @classmethod
    def fit(cls, values: Tensor) -> Self:
        """Returns the transform that gives `values`, (N, F), mean 0 and variance 1; constant features stay."""
        transform = cls(values.shape[1])
        transform.refit(values)
        return transform

    def refit(self, values: Tensor) -> None:
        """Sets mean and scale from `values`, (N, F)."""
        exact = values.double()
        scale = exact.std(0, correction=0)
        self.mean.copy_(exact.mean(0))
        self.scale.copy_(torch.where(scale > 0, scale, 1.0))

    def forward(self, x: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Maps values, (B, F), to mean 0 and variance 1."""
        return (x - self.mean) / self.scale

    def inverse(self, y: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Maps back, (B, F)."""
        return y * self.scale + self.mean


class Compose(Transform):
    """Applies transforms one after the other."""

    def __init__(self, *transforms: Transform) -> None:
        super().__init__()
        self.transforms = nn.ModuleList(transforms)

    def forward(self, x: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Applies the transforms in order."""
        for transform in self.transforms:
            x = transform(x, conditions)
        return x

    def inverse(self, y: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Undoes the transforms in reverse order."""
        for transform in reversed(self.transforms):
            assert isinstance(transform, Transform)
            y = transform.inverse(y, conditions)
        return y
