"""A variational autoencoder of voxels by 3-D convolutions (CaloDREAM, arXiv:2405.09629, section on latents).

Before every convolution the coordinates of each place, 0 to 1 along each axis, are appended as channels. A block on the
way down is two convolutions of 3 x 3 x 3, the conditions added to the first one's channels, and a strided one; on the
way up a transposed convolution and two of 3 x 3 x 3. The paper's bottleneck is (2, 15, 9, 9) for data set 2 and
(2, 9, 26, 16) for data set 3; its printed stride (2, 2, 1) of the latter cannot give that, (5, 2, 1) does.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

Sizes = tuple[int, int, int]


class Scale(BaseModel):
    """The strided convolution of one block: layer, angle, radius.

    Attributes:
        kernel: size of the kernel.
        stride: its stride.
        padding: zeros around.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kernel: Sizes
    stride: Sizes
    padding: Sizes = (0, 0, 0)


class VoxelVAEConfig(BaseModel):
    """Sizes of the autoencoder; the defaults are the paper's for data set 2.

    Attributes:
        channels: of each block.
        latent: channels of the bottleneck.
        scales: the strided convolutions, as many as blocks.
        condition: width of the hidden layer of the conditions.
        places: append the coordinates before the convolutions of 1 x 1 x 1 too, as the authors' code does.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: tuple[int, ...] = (64, 64)
    latent: int = Field(2, ge=1)
    scales: tuple[Scale, ...] = (
        Scale(kernel=(3, 2, 1), stride=(3, 2, 1), padding=(0, 1, 0)),
        Scale(kernel=(1, 1, 1), stride=(1, 1, 1)),
    )
    condition: int = Field(100, ge=1)
    places: bool = False


def _with_places(x: Tensor) -> Tensor:
    """Appends the coordinates, (B, C, L, A, R) to (B, C + 3, L, A, R)."""
    axes = [torch.linspace(0, 1, size, dtype=x.dtype, device=x.device) for size in x.shape[2:]]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    return torch.cat([x, places[None].expand(x.shape[0], 3, *x.shape[2:])], 1)


class Convolutions(nn.Module):
    """Two convolutions with the conditions between them."""

    def __init__(self, inputs: int, outputs: int, conditions: int, width: int) -> None:
        super().__init__()
        self.condition = nn.Sequential(
            nn.Linear(conditions, width), nn.ReLU(), nn.Linear(width, width), nn.Linear(width, outputs)
        )
        self.first = nn.Conv3d(inputs + 3, outputs, 3, padding=1, bias=False)
        self.second = nn.Conv3d(outputs + 3, outputs, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm3d(outputs) for _ in range(2))

    def forward(self, x: Tensor, conditions: Tensor) -> Tensor:
        """Maps (B, C_in, L, A, R), given conditions (B, F), to (B, C_out, L, A, R)."""
        x = self.first(_with_places(x)) + self.condition(conditions)[:, :, None, None, None]
        x = F.silu(self.norms[0](x))
        return F.silu(self.norms[1](self.second(_with_places(x))))


class VoxelVAE(nn.Module):
    """Encodes normalised voxels and decodes them.

    Args:
        axes: layers, angles and radii.
        conditions: numbers of the condition vector, F.
        config: sizes.

    Raises:
        ValueError: scales that do not fit the channels, or that the decoder could not undo.
    """

    def __init__(self, axes: Sequence[int], conditions: int, config: VoxelVAEConfig) -> None:
        super().__init__()
        if len(config.scales) != len(config.channels):
            raise ValueError(
                f"the autoencoder needs as many scales as channels, got {len(config.scales)} and "
                f"{len(config.channels)}"
            )
        sizes = [tuple(axes)]
        for scale in config.scales:
            zipped = zip(sizes[-1], scale.kernel, scale.stride, scale.padding, strict=True)
            sizes.append(tuple((n + 2 * pad - kernel) // stride + 1 for n, kernel, stride, pad in zipped))
            again = tuple(
                (n - 1) * stride - 2 * pad + kernel
                for n, kernel, stride, pad in zip(
                    sizes[-1], scale.kernel, scale.stride, scale.padding, strict=True
                )
            )
            if again != sizes[-2] or min(sizes[-1]) < 1:
                raise ValueError(
                    f"the autoencoder's kernel {scale.kernel}, stride {scale.stride} and padding "
                    f"{scale.padding} turn {sizes[-2]} into {sizes[-1]} and that back into {again}"
                )
        self.axes = tuple(axes)
        self.shape = (config.latent, *sizes[-1])
        widths = list(config.channels)
        width, self.places = config.condition, config.places
        more = 3 if config.places else 0
        self.down, self.strided = nn.ModuleList(), nn.ModuleList()
        for before, after, scale in zip([1, *widths], widths, config.scales, strict=False):
            self.down.append(Convolutions(before, after, conditions, width))
            self.strided.append(nn.Conv3d(after + 3, after, scale.kernel, scale.stride, scale.padding))
        self.mean, self.logvar = (nn.Conv3d(widths[-1] + more, config.latent, 1) for _ in range(2))
        self.up, self.transposed = nn.ModuleList(), nn.ModuleList()
        before = config.latent
        for after, scale in zip(reversed(widths), reversed(config.scales), strict=True):
            self.transposed.append(
                nn.ConvTranspose3d(before + 3, after, scale.kernel, scale.stride, scale.padding)
            )
            self.up.append(Convolutions(after, after, conditions, width))
            before = after
        self.last = nn.Conv3d(before + more, 1, 1)

    def encode(self, x: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and log-variance of the posterior, both (B, *shape).

        Args:
            x: normalised voxels in [0, 1], (B, L, A, R).
            conditions: standardised, (B, F).
        """
        h = x[:, None]
        for block, strided in zip(self.down, self.strided, strict=True):
            h = strided(_with_places(block(h, conditions)))
        h = _with_places(h) if self.places else h
        return self.mean(h), self.logvar(h).clamp(-20, 10)

    def decode(self, z: Tensor, conditions: Tensor) -> Tensor:
        """Returns the logits of normalised voxels, (B, L, A, R), for latents (B, *shape)."""
        for block, transposed in zip(self.up, self.transposed, strict=True):
            z = block(transposed(_with_places(z)), conditions)
        voxels: Tensor = self.last(_with_places(z) if self.places else z)
        return voxels[:, 0]
