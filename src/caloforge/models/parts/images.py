"""Images as models see them: the order of their cells, their channels, mirror images, masks of dropout."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from caloforge.detectors import Detector
from caloforge.events import RAY, Events, EventSource, aimed, in_slices, straight_impact
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
    transport: bool = False,
) -> tuple[NDArray[np.float32], NDArray[np.generic]]:
    """Mirrors some events, y -> -y.

    Args:
        detector: a detector with an axis y and the features vy, py.
        conditions: (N, F).
        responses: (N, *shape).
        rows: the events to mirror, (N,).
        transport: aims charged particles so that the magnets of `Detector.transport` bring them to the mirror image of
            their place; where they cannot, the event stays as it is. Without, their rays are mirrored like others.

    Returns:
        conditions and responses, as new arrays.
    """
    image = conditions.copy()
    image[:, [detector.features.index(name) for name in ("vy", "py")]] *= -1
    if transport:
        rows = rows & _aim(detector, conditions, image)
    conditions, responses = np.where(rows[:, None], image, conditions), responses.copy()
    responses[rows] = np.flip(responses[rows], 1 + list(detector.axes).index("y"))
    return conditions, responses


def moved(
    detector: Detector,
    conditions: NDArray[np.float32],
    responses: NDArray[np.generic],
    rows: NDArray[np.bool_],
    u: NDArray[np.floating],
) -> tuple[NDArray[np.float32], NDArray[np.generic]]:
    """Moves photons across the face, ray and image, within the window where they give the same light everywhere.

    A photon in `Face.window` is reflected, x to -x, or not, and moved by whole cells in x and y, of which all that keep
    it in the window are equally likely. Side, vertex and size of the momentum stay.

    Args:
        detector: a detector that `check_moved` lets pass.
        conditions: (N, F).
        responses: (N, *shape).
        rows: the events to move, (N,); of these only photons in the window are.
        u: uniforms, (N, 3).

    Returns:
        conditions and responses, as new arrays.
    """
    face, pitch = detector.face, detector.pitch
    assert face is not None
    assert face.window is not None
    assert pitch is not None
    low, high = np.array(face.window).T
    centre = np.array([face.x, face.y])
    columns = [detector.features.index(name) for name in RAY]
    kind = conditions[:, [detector.features.index(name) for name in ("mass", "charge")]]
    rays = conditions[:, columns].astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        place = straight_impact(rays, face.z) - centre
    inside = ((place >= low) & (place <= high)).all(1)
    chosen = np.flatnonzero(rows & (kind == 0).all(1) & inside)
    place, u = place[chosen], u[chosen]
    conditions, responses = conditions.copy(), responses.copy()
    turned = u[:, 0] < 0.5
    place[turned, 0] *= -1
    images = responses[chosen]
    images[turned] = np.flip(images[turned], 1)
    least, most = np.ceil((low - place) / pitch), np.floor((high - place) / pitch)
    cells = (least + np.floor(u[:, 1:] * (most - least + 1))).astype(np.intp)
    aim = place + cells * pitch + centre
    conditions[np.ix_(chosen, np.array(columns))] = aimed(rays[chosen], rays[chosen, :3], aim, face.z)
    responses[chosen] = _shifted(images, cells)
    return conditions, responses


def augmented(batch: Events, rng: BatchRandom, *, mirror: bool, move: bool, transport: bool) -> Events:
    """Changes a batch of the training by what leaves the response the same.

    Args:
        batch: events.
        rng: random numbers.
        mirror: half of the events, at random, are mirrored as by `mirrored`.
        move: half of the photons are moved as by `moved`.
        transport: as for `mirrored`.
    """
    conditions, responses = batch.conditions, batch.responses
    if mirror:
        chosen = (rng.uniform() < 0.5).cpu().numpy()
        conditions, responses = mirrored(batch.detector, conditions, responses, chosen, transport=transport)
    if move:
        u = rng.uniform(4).cpu().numpy()
        conditions, responses = moved(batch.detector, conditions, responses, u[:, 3] < 0.5, u[:, :3])
    return dataclasses.replace(batch, conditions=conditions, responses=responses)


def check_moved(detector: Detector) -> None:
    """Raises ValueError for a detector whose photons cannot be moved."""
    known = detector.face is not None and detector.face.window is not None and detector.pitch is not None
    if (
        not known
        or tuple(detector.axes) != ("x", "y")
        or not {*RAY, "mass", "charge"} <= set(detector.features)
    ):
        raise ValueError(
            "move needs a face with a window, a pitch, the axes x and y and the conditions vertex, momentum, mass and "
            f"charge; {detector.name} has face {detector.face}, pitch {detector.pitch}, the axes "
            f"{', '.join(detector.axes)} and {', '.join(detector.features)}"
        )


def check_mirror(detector: Detector) -> None:
    """Raises ValueError for a detector whose events have no mirror image in y."""
    if "y" not in detector.axes or not {"vy", "py"} <= set(detector.features):
        raise ValueError(
            f"mirror needs an axis y and the conditions vy and py, {detector.name} has the axes "
            f"{', '.join(detector.axes)} and {', '.join(detector.features)}"
        )


def _aim(
    detector: Detector, conditions: NDArray[np.float32], image: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """Aims the charged particles of mirror images as magnets ask for, and returns which of all can be so."""
    assert detector.face is not None
    assert detector.transport is not None
    charge = conditions[:, detector.features.index("charge")].astype(np.float64)
    columns = [detector.features.index(name) for name in RAY]
    rays, turned = (values[:, columns].astype(np.float64) for values in (conditions, image))
    with np.errstate(divide="ignore", invalid="ignore"):
        straight = straight_impact(rays, detector.face.z)
        curvature = charge / np.linalg.norm(rays[:, 3:], axis=1)
        wanted = detector.transport.mirrored(straight, curvature, rays[:, 5] > 0)
        turned = aimed(turned, turned[:, :3], wanted, detector.face.z)
    possible = np.asarray(np.isfinite(turned).all(1))
    charged = (charge != 0) & possible
    image[np.ix_(charged, np.array(columns))] = turned[charged]
    return np.asarray(possible | (charge == 0))


def _shifted(images: NDArray[np.generic], cells: NDArray[np.intp]) -> NDArray[np.generic]:
    """Shifts images (N, H, W) by whole cells (N, 2); what leaves them is lost, what enters is dark."""
    rows, columns = (np.arange(size) - cells[:, axis, None] for axis, size in enumerate(images.shape[1:]))
    within = [
        (index >= 0) & (index < size) for index, size in zip((rows, columns), images.shape[1:], strict=True)
    ]
    rows, columns = np.where(within[0], rows, 0), np.where(within[1], columns, 0)
    found = images[np.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None]]
    return found * (within[0][:, :, None] & within[1][:, None])


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
