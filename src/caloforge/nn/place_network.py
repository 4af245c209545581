"""A regression of where the middle of the light is expected."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PlaceNetwork(nn.Module):
    """Predicts a place in an image from a first guess and features.

    The place is a share of the guess, drawn towards the middle of the image, plus a shift:
    middle + sigmoid(w) (guess - middle) + size d / 2 for each axis, w and d from three linear layers.

    Args:
        shape: height and width of the image.
        features: numbers that describe the event.
        width: of the hidden layers.
    """

    def __init__(self, shape: tuple[int, int], features: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(features, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 4)
        )
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        self.size: Tensor
        self.register_buffer("size", torch.tensor(shape, dtype=torch.float32), persistent=False)

    def forward(self, guess: Tensor, features: Tensor) -> Tensor:
        """Predicts places in cells from the first, (B, 2), from guesses (B, 2) and features (B, F)."""
        middle = (self.size - 1) / 2
        inside = torch.minimum(torch.maximum(guess, -0.25 * self.size), 1.25 * self.size)
        if torch.compiler.is_exporting():
            return self._exported(features, middle, inside - middle)
        weight, shift = self.layers(features).chunk(2, 1)
        place: Tensor = middle + torch.sigmoid(weight) * (inside - middle) + shift * self.size / 2
        return place

    def _exported(self, features: Tensor, middle: Tensor, way: Tensor) -> Tensor:
        """Does the same with middle and size in the last layer, given the way from the middle to the guess, (B, 2)."""
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        factors = torch.cat([torch.ones(2), self.size / 2])
        bias = last.bias * factors + torch.cat([torch.zeros(2), middle])
        told = nn.functional.linear(self.layers[:-1](features), last.weight * factors[:, None], bias)
        weight, shift = told.chunk(2, 1)
        place: Tensor = shift + torch.sigmoid(weight) * way
        return place
