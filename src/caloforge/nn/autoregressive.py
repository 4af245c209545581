"""Autoregressive flows of images: a masked one (MAF) and its inverse (IAF), of rational-quadratic splines.

Both are chains of K monotonic maps of each cell (arXiv:1906.04032, from zuko) between data x = y_0 and noise z = y_K,

    y_(k+1),i = s(y_k,i; m_k,i),

with the parameters m_k of a MADE. What it sees makes the difference:

- MAF (arXiv:1705.07057): m_k,i from y_k,<i. From x to z in one pass, hence the likelihood; from z to x cell by cell.
- IAF (arXiv:1606.04934): m_k,i from y_(k+1),<i. From z to x in one pass, from x to z cell by cell.

Every other map takes the cells in the opposite order. Equal parameters mean equal maps in both, so a student (IAF) can
be compared with its teacher (MAF) map by map: the points y_k and the parameters m_k.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from zuko.transforms import MonotonicRQSTransform

from caloforge.nn.made import MADE, Context, MADEConfig, made, place_functions


class FlowConfig(BaseModel):
    """Sizes of a flow.

    Attributes:
        transforms: maps in a chain, K.
        bins: of each spline.
        bound: the splines map [-bound, bound] to itself and leave what is beyond.
        network: the MADE of each map.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    transforms: int = Field(2, ge=1)
    bins: int = Field(8, ge=2)
    bound: float = Field(6.0, gt=0)
    network: MADEConfig = MADEConfig()

    @model_validator(mode="after")
    def _bins(self) -> Self:
        if self.network.kind == "local" and self.network.layers != 1:
            raise ValueError("layers is for the dense kind; the local one has two")
        return self


@dataclass(frozen=True, eq=False)
class Chain:
    """What a pass through all maps gives.

    Attributes:
        points: y_0 (data) ... y_K (noise), (B, D) each.
        outputs: parameters m_0 ... m_(K-1), (B, D, P) each.
        log_det: ln |dz / dx|, (B,); zero where it was not computed.
    """

    points: Sequence[Tensor]
    outputs: Sequence[Tensor]
    log_det: Tensor


def spline(parameters: Tensor, bound: float) -> MonotonicRQSTransform:
    """Returns the monotonic map of parameters (*, 3 bins - 1); the identity for zeros."""
    bins = (parameters.shape[-1] + 1) // 3
    widths, heights, slopes = torch.split(parameters, [bins, bins, bins - 1], -1)
    return MonotonicRQSTransform(widths, heights, slopes, bound=bound)


def log_normal(z: Tensor) -> Tensor:
    """Returns the logarithm of the density of standard normals, (B,), at z (B, D)."""
    return -0.5 * (z.square() + math.log(2 * math.pi)).sum(1)


class AutoregressiveFlow(nn.Module):
    """A chain of maps of an image, as `masked` (MAF) or `inverse` (IAF) autoregressive flow.

    Args:
        shape: height and width of the image.
        features: numbers that describe the event, F.
        config: sizes.
        sees: which point of a map its network sees, the one on the side of the `data` (MAF) or of the `noise` (IAF).
    """

    def __init__(
        self,
        shape: tuple[int, int],
        features: int,
        config: FlowConfig,
        sees: Literal["data", "noise"],
    ) -> None:
        super().__init__()
        self.shape, self.config, self.sees = shape, config, sees
        outputs = 3 * config.bins - 1
        self.networks = nn.ModuleList(
            [made(shape, features, outputs, config.network) for _ in range(config.transforms)]
        )

    def contexts(self, features: Tensor, place: Tensor) -> list[Context]:
        """Returns what each network is told of the events.

        Args:
            features: of the event, (B, F).
            place: where light is expected, in cells, (B, 2).
        """
        functions = place_functions(self.shape, place)
        return [
            self._network(k).context(features, self._turned(functions, k))
            for k in range(self.config.transforms)
        ]

    def to_noise(self, x: Tensor, contexts: Sequence[Context]) -> Chain:
        """Follows the chain from data, (B, D), to noise; in one pass for a MAF."""
        points, outputs = [x], list[Tensor]()
        log_det = torch.zeros_like(x[:, 0])
        for k, context in enumerate(contexts):
            y = self._turned(points[-1], k)
            if self.sees == "data":
                parameters = self._network(k)(y, context)
                end, slopes = spline(parameters, self.config.bound).call_and_ladj(y)
            else:
                end, slopes, parameters = self._one_by_one(k, y, context, to_noise=True)
            log_det = log_det + slopes.sum(1)
            points.append(self._turned(end, k))
            outputs.append(parameters)
        return Chain(points, outputs, log_det)

    def to_data(self, z: Tensor, contexts: Sequence[Context]) -> Chain:
        """Follows the chain from noise, (B, D), to data; in one pass for an IAF."""
        points, outputs = [z], list[Tensor]()
        for k in reversed(range(self.config.transforms)):
            y = self._turned(points[-1], k)
            if self.sees == "noise":
                parameters = self._network(k)(y, contexts[k])
                end = spline(parameters, self.config.bound).inv(y)
            else:
                end, _, parameters = self._one_by_one(k, y, contexts[k], to_noise=False)
            points.append(self._turned(end, k))
            outputs.append(parameters)
        return Chain(points[::-1], outputs[::-1], torch.zeros_like(z[:, 0]))

    def _one_by_one(
        self, k: int, y: Tensor, context: Context, to_noise: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Maps cell after cell; returns the other end, the logarithms of the slopes and the parameters."""
        network = self._network(k)
        state = network.begin(context)
        ends, slopes, outputs = list[Tensor](), list[Tensor](), list[Tensor]()
        for cell, here in enumerate(y.unbind(1)):
            parameters = network.at(state, cell)
            transform = spline(parameters, self.config.bound)
            if to_noise:
                end, slope = transform.call_and_ladj(here)
                slopes.append(slope)
            else:
                end = transform.inv(here)
            network.put(state, cell, end)
            ends.append(end)
            outputs.append(parameters)
        return (
            torch.stack(ends, 1),
            torch.stack(slopes, 1) if to_noise else torch.zeros_like(y),
            torch.stack(outputs, 1),
        )

    def _network(self, k: int) -> MADE:
        network = self.networks[k]
        assert isinstance(network, MADE)
        return network

    @staticmethod
    def _turned(values: Tensor, k: int) -> Tensor:
        """Returns values of the cells, (..., D), in the order in which map k takes them."""
        return values.flip(-1) if k % 2 else values
