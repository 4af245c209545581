"""Images as models see them: the order of their cells, their channels, mirror images, masks of dropout."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from caloforge.detectors import Detector
from caloforge.events import Events, EventSource, in_slices
from caloforge.models.base import BatchRandom
from caloforge.nn.image_vit import ImageDecoder, ImageEncoder, dropout_mask
from caloforge.transforms import Standardize


def cell_order(detector: Detector, channels: str) -> NDArray[np.intp]:
    """Returns the cells channel by channel, shuffled within each by a fixed permutation, (cells,).

    The order in which counts are rounded: see `nn.rounding`.
    """
    channel = detector.channel_map(channels).matrix.argmax(0)
    shuffled = np.random.Generator(np.random.Philox(0)).permutation(detector.cells)
    return shuffled[np.argsort(channel[shuffled], kind="stable")].astype(np.intp)


def mirrored(
    detector: Detector,
    conditions: NDArray[np.float32],
    responses: NDArray[np.generic],
    rows: NDArray[np.bool_],
    *,
    neutral: bool = False,
) -> tuple[NDArray[np.float32], NDArray[np.generic]]:
    """Mirrors some events, y -> -y.

    Args:
        detector: a detector with an axis y and the features vy, py.
        conditions: (N, F).
        responses: (N, *shape).
        rows: the events to mirror, (N,).
        neutral: of these only neutral particles: magnets before the face do not bend a charged one's mirror image so.

    Returns:
        conditions and responses, as new arrays.
    """
    if neutral:
        rows = rows & (conditions[:, detector.features.index("charge")] == 0)
    columns = np.array([detector.features.index(name) for name in ("vy", "py")])
    conditions, responses = conditions.copy(), responses.copy()
    conditions[np.ix_(rows, columns)] *= -1
    responses[rows] = np.flip(responses[rows], 1 + list(detector.axes).index("y"))
    return conditions, responses


def channel_sums(source: EventSource, channels: str) -> NDArray[np.float64]:
    """Reads the channel sums of a source slice by slice, (N, K)."""
    detector = source.primaries.detector
    return np.concatenate([detector.readout(events.responses, channels) for events in in_slices(source)])


def channel_matrix(detector: Detector) -> Tensor:
    """Returns the matrix of the default channels, (K, cells), of zeros and ones."""
    return torch.tensor(detector.channel_map(detector.default_channels).matrix)


def channel_loss(found: Tensor, wanted: Tensor, readout: Tensor) -> Tensor:
    """Returns how far the channel sums of images are apart, (B,): the mean over channels of (sqrt w - sqrt w^)^2.

    The root gives a channel of many photons the weight of one of few, as their Poisson errors would.

    Args:
        found: ln(1 + n) of one set of images, (B, H, W).
        wanted: the same of the other.
        readout: matrix of the channels, (K, cells).
    """
    sums = [torch.expm1(image.clamp(max=12)).flatten(1) @ readout.T for image in (found, wanted)]
    # the root's derivative has no bound at 0, and the sum of an image below 0 may be negative
    roots = [(sum_of_channel.clamp(min=0) + 0.1).sqrt() for sum_of_channel in sums]
    return (roots[0] - roots[1]).square().mean(1)


def image_shape(detector: Detector, model: str) -> tuple[int, int]:
    """Returns height and width of a detector's images; a ValueError names the model that needs two axes."""
    if len(detector.shape) != 2:
        raise ValueError(f"{model} needs a detector with two axes, {detector.name} has {len(detector.shape)}")
    height, width = detector.shape
    return height, width


def log_images(batch: Events, standardize: Standardize) -> tuple[Tensor, Tensor]:
    """Returns images ln(1 + n), (B, H, W), and standardised features, (B, F), on the device of the standardisation."""
    device = standardize.mean.device
    image = torch.log1p(torch.from_numpy(batch.responses.astype(np.float32)).to(device))
    return image, standardize(torch.from_numpy(batch.conditions).to(device))


def kept_units(network: ImageEncoder | ImageDecoder, dropout: float, rng: BatchRandom) -> Tensor | None:
    """Draws which units of a network stay in a step, (B, *mask); None without dropout."""
    return dropout_mask(rng.uniform(*network.mask), dropout) if dropout else None
