"""A perceptual distance of images (LPIPS, Zhang et al. 2018) by a convolutional network from a file.

With f_s the features of stage s, normalised over the channels of each place, and weights w_s >= 0,

    d(x, y) = sum over stages of the mean over places of sum_c w_sc (f_sc(x) - f_sc(y))^2.

The file is safetensors in the names of torchvision and of LPIPS: `features.N.weight`, `features.N.bias` of each 3 x 3
convolution and `linK.model.1.weight`, (1, C, 1, 1), of each stage. N counts layers, a convolution, its ReLU and a
pooling that halves the image being one each, so that the names alone tell the architecture: a convolution follows the
last at N + 2, or at N + 3 with a pooling between. A stage's features are those before the pooling, after the ReLU: for
VGG16 relu1_2, 2_2, 3_3, 4_3 and 5_3.

Images are ln(1 + n), seen as 2 x / 6.4 - 1. A network of three input channels gets the image three times, shifted and
divided as LPIPS does for its distance; one of a single channel gets it as it is. What ships, `zdc`, is of the second
kind: it was trained on GEANT's images to tell what they show (tools/perceptual.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn

GREATEST = 6.4
"""ln(1 + n) that is seen as 1."""

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Of LPIPS, for images in [-1, 1] of three channels."""


class Extractor(nn.Module):
    """Convolutions in stages with poolings between.

    Args:
        inputs: channels of the image, 1 or 3.
        stages: channels of each convolution, stage by stage.
    """

    def __init__(self, inputs: int, stages: list[list[int]]) -> None:
        super().__init__()
        self.inputs, self.channels = inputs, [stage[-1] for stage in stages]
        layers: list[nn.Module] = []
        for number, stage in enumerate(stages):
            if number:
                layers.append(nn.MaxPool2d(2))
            for channels in stage:
                layers += [nn.Conv2d(inputs, channels, 3, padding=1), nn.ReLU()]
                inputs = channels
        self.features = nn.Sequential(*layers)

    def forward(self, image: Tensor, shifted: bool = False) -> list[Tensor]:
        """Returns the features of each stage, (B, C, h, w), of images ln(1 + n), (B, H, W).

        Args:
            image: the images.
            shifted: shift and divide three channels as LPIPS does.
        """
        x = (2 / GREATEST * image - 1)[:, None].expand(-1, self.inputs, -1, -1)
        if shifted and self.inputs == 3:
            x = (x - x.new_tensor(SHIFT).view(1, 3, 1, 1)) / x.new_tensor(SCALE).view(1, 3, 1, 1)
        stages = []
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                stages.append(x)
            x = layer(x)
        return [*stages, x]


class PerceptualDistance(nn.Module):
    """The distance, with an extractor and the weights of its stages; nothing of it is trained.

    Args:
        extractor: gives the features.
        weights: of the channels of each stage, (C,) each, not negative.
    """

    def __init__(self, extractor: Extractor, weights: list[Tensor]) -> None:
        super().__init__()
        self.extractor = extractor
        for number, weight in enumerate(weights):
            self.register_buffer(f"weight{number}", weight)
        self.requires_grad_(False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns the distance of each pair of images ln(1 + n), (B, H, W): (B,)."""
        total = x.new_zeros(len(x))
        pairs = zip(self.extractor(x, True), self.extractor(y, True), strict=True)
        for number, (first, second) in enumerate(pairs):
            weight = self.get_buffer(f"weight{number}").view(1, -1, 1, 1)
            difference = (_unit(first) - _unit(second)).square()
            total = total + (weight * difference).sum(1).mean((1, 2))
        return total


def _unit(features: Tensor) -> Tensor:
    # the root is bounded, since its derivative at 0 is not: a dark image has places without any feature
    return features * torch.rsqrt(features.square().sum(1, keepdim=True) + 1e-10)


def from_tensors(tensors: Mapping[str, Tensor]) -> PerceptualDistance:
    """Builds the distance from the tensors of a file.

    Raises:
        ValueError: they are not those of such a network; the message says what is wrong.
    """
    numbers = sorted(int(name.split(".")[1]) for name in tensors if name.startswith("features."))
    numbers = sorted(set(numbers))
    stages: list[list[int]] = [[]]
    for number, following in pairwise([*numbers, numbers[-1] + 2 if numbers else 0]):
        if following - number not in (2, 3):
            raise ValueError(
                f"features.{following} cannot follow features.{number}: wanted convolutions with a ReLU, and a "
                "pooling or none, between them"
            )
        stages[-1].append(_of(tensors, f"features.{number}.weight", 4).shape[0])
        if following - number == 3:
            stages.append([])
    if not numbers or numbers[0] != 0:
        raise ValueError("wanted features.0.weight, features.0.bias and so on, and linK.model.1.weight")
    inputs = _of(tensors, "features.0.weight", 4).shape[1]
    if inputs not in (1, 3):
        raise ValueError(f"features.0.weight must take 1 or 3 channels, got {inputs}")
    extractor = Extractor(inputs, stages)
    weights = [_of(tensors, f"lin{k}.model.1.weight", 4).flatten().float() for k in range(len(stages))]
    for k, (weight, channels) in enumerate(zip(weights, extractor.channels, strict=True)):
        if len(weight) != channels or (weight < 0).any():
            raise ValueError(
                f"lin{k}.model.1.weight must hold {channels} numbers that are not negative, got {len(weight)}"
            )
    state = {name: tensor.float() for name, tensor in tensors.items() if name.startswith("features.")}
    try:
        extractor.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"the convolutions do not fit together: {error}") from None
    return PerceptualDistance(extractor, weights)


def _of(tensors: Mapping[str, Tensor], name: str, axes: int) -> Tensor:
    tensor = tensors.get(name)
    if tensor is None or tensor.ndim != axes:
        raise ValueError(f"wanted {name} with {axes} axes, got {'none' if tensor is None else tensor.ndim}")
    return tensor
