"""Hyperbolic functions by operators that every runtime has: old ones lack sinh, and arcsinh of float64."""

from __future__ import annotations

import torch
from torch import Tensor


def sinh(x: Tensor) -> Tensor:
    """Returns the hyperbolic sine."""
    return 0.5 * (torch.exp(x) - torch.exp(-x))


def arcsinh(x: Tensor) -> Tensor:
    """Returns the inverse of `sinh`, exact on both sides of 0."""
    return torch.sign(x) * torch.log(x.abs() + torch.sqrt(x * x + 1))
