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

PHOTON = 22
"""PDG id of photons."""

LASTING = (PHOTON, 2112, -2112, 130)
"""PDG ids of neutral particles that reach a detector far away: photons, neutrons and K(L)0."""

THINNEST = 4.0
"""By how much the energy of a photon is divided at most when its light is thinned."""

Bounds = tuple[tuple[float, float], tuple[float, float]]
"""Lowest and highest x, then y, in cm from the centre of a face."""


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


def moved(events: Events, rows: NDArray[np.bool_], u: NDArray[np.floating]) -> Events:
    """Moves particles across the face, ray and image, where the light they give stays the same.

    - Where the face has `turns`, neutral particles that live long enough are brought to any of its eight sides.
    - Photons in its `window` are moved by whole cells in x and y, of which all that keep them in it are equally likely;
      where it has no `turns` they are first reflected, x to -x, or not.
    - Charged particles that magnets bring to its `strip` are moved by whole cells in y.

    Side, vertex and size of the momentum stay.

    Args:
        events: of a detector that `check_moved` lets pass, N.
        rows: the events to move, (N,).
        u: uniforms, (N, 5).
    """
    detector, face, pitch = events.detector, events.detector.face, events.detector.pitch
    assert face is not None
    assert face.window is not None
    assert pitch is not None
    centre = np.array([face.x, face.y])
    columns = np.array([detector.features.index(name) for name in RAY])
    conditions, responses = events.conditions.copy(), events.responses.copy()
    rays = conditions[:, columns].astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        place = straight_impact(rays, face.z) - centre
    photons = np.flatnonzero(rows & _within(place, face.window) & (events.pdg == PHOTON))
    turned, sides = photons, (u[photons, :3] < 0.5) & (True, False, False)
    if face.turns:
        turned = np.flatnonzero(rows & _on_face(detector, place) & np.isin(events.pdg, LASTING))
        sides = u[turned, :3] < 0.5
    place[turned], responses[turned] = _turned(place[turned], responses[turned], sides)
    straight = place + centre
    cells = _steps(place[photons], face.window, pitch, u[photons, 3:])
    straight[photons] += cells * pitch
    responses[photons] = _shifted(responses[photons], cells)
    chosen = turned
    if face.strip is not None and detector.transport is not None:
        charge = conditions[:, detector.features.index("charge")]
        curvature = charge / np.linalg.norm(rays[:, 3:], axis=1)
        bent = np.flatnonzero(rows & detector.transport.passes(straight, curvature))
        way = curvature[bent], rays[bent, 5] > 0
        at = detector.transport.place(straight[bent], *way)
        cells = _steps(at - centre, face.strip, pitch, u[bent, 3:]) * (0, 1)
        aim = detector.transport.aim(at + cells * pitch, *way)
        there = _within(at - centre, face.strip) & detector.transport.passes(aim, curvature[bent])
        bent, cells = bent[there], cells[there]
        straight[bent] = aim[there]
        responses[bent] = _shifted(responses[bent], cells)
        chosen = np.union1d(chosen, bent)
    conditions[np.ix_(chosen, columns)] = aimed(rays[chosen], rays[chosen, :3], straight[chosen], face.z)
    return dataclasses.replace(events, conditions=conditions, responses=responses)


def thinned(events: Events, rows: NDArray[np.bool_], u: NDArray[np.floating], least: int) -> Events:
    """Gives photons less energy: each photon of their light is kept with the probability by which energy is less.

    An electromagnetic shower gives light in proportion to its energy (in the training folds of the ZN 0.53 to 0.54
    photons a GeV from 50 to 4,000 GeV), and a Poisson number of photons that is thinned is one of a smaller mean. The
    energy is divided by up to `THINNEST`, by any factor as likely in its logarithm. Direction and vertex stay. Events
    that would have fewer than the fewest photons of the data stay as they are, and so do photons that do not fly to the
    face.

    Args:
        events: of a detector that `check_thinned` lets pass, N.
        rows: the events to thin, (N,).
        u: uniforms, (N, 2): for the energy, and to draw photons by.
        least: photons of the faintest response in the data.
    """
    detector, face = events.detector, events.detector.face
    assert face is not None
    conditions, responses = events.conditions.copy(), events.responses.copy()
    rays = conditions[:, [detector.features.index(name) for name in RAY]].astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        place = straight_impact(rays, face.z) - np.array([face.x, face.y])
    on_face = _on_face(detector, place)
    scaled = [detector.features.index(name) for name in ("energy", "px", "py", "pz")]
    for row in np.flatnonzero(rows & on_face & (events.pdg == PHOTON)):
        share = THINNEST ** -float(u[row, 0])
        random = np.random.Generator(np.random.Philox(int(u[row, 1] * 2**32)))
        kept = random.binomial(responses[row].astype(np.int64), share)
        if kept.sum() >= least:
            responses[row] = kept
            conditions[row, scaled] *= share
    return dataclasses.replace(events, conditions=conditions, responses=responses)


def half_thinned(batch: Events, rng: BatchRandom, least: int) -> Events:
    """Thins half of the events of a batch, at random, as by `thinned`."""
    u = rng.uniform(3).cpu().numpy()
    return thinned(batch, u[:, 2] < 0.5, u[:, :2], least)


def augmented(batch: Events, rng: BatchRandom, *, mirror: bool, move: bool, transport: bool) -> Events:
    """Changes a batch of the training by what leaves the response the same.

    Args:
        batch: events.
        rng: random numbers.
        mirror: half of the events, at random, are mirrored as by `mirrored`.
        move: half of them are moved as by `moved`.
        transport: as for `mirrored`.
    """
    if mirror:
        chosen = (rng.uniform() < 0.5).cpu().numpy()
        conditions, responses = mirrored(
            batch.detector, batch.conditions, batch.responses, chosen, transport=transport
        )
        batch = dataclasses.replace(batch, conditions=conditions, responses=responses)
    if move:
        u = rng.uniform(6).cpu().numpy()
        batch = moved(batch, u[:, 5] < 0.5, u[:, :5])
    return batch


def check_moved(detector: Detector) -> None:
    """Raises ValueError for a detector whose particles cannot be moved."""
    known = detector.face is not None and detector.face.window is not None and detector.pitch is not None
    if not known or tuple(detector.axes) != ("x", "y") or not {*RAY, "charge"} <= set(detector.features):
        raise ValueError(
            "move needs a face with a window, a pitch, the axes x and y and the conditions vertex, momentum and "
            f"charge; {detector.name} has face {detector.face}, pitch {detector.pitch}, the axes "
            f"{', '.join(detector.axes)} and {', '.join(detector.features)}"
        )


def check_thinned(detector: Detector) -> None:
    """Raises ValueError for a detector whose light cannot be thinned."""
    known = detector.counts and detector.face is not None and detector.pitch is not None
    if not known or not {*RAY, "energy"} <= set(detector.features):
        raise ValueError(
            "thin needs photon counts, a face with a pitch and the conditions energy, vertex and momentum; "
            f"{detector.name} measures {'photons' if detector.counts else 'energies'}, has face {detector.face}, pitch "
            f"{detector.pitch} and {', '.join(detector.features)}"
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


def _on_face(detector: Detector, place: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tells which places (N, 2), from the centre of the face, are on it, (N,)."""
    return np.asarray((np.abs(place) < np.array(detector.shape) * detector.pitch / 2).all(1))


def _within(place: NDArray[np.float64], bounds: Bounds) -> NDArray[np.bool_]:
    """Tells which places (N, 2) are within bounds, (N,)."""
    low, high = np.array(bounds).T
    return np.asarray(((place >= low) & (place <= high)).all(1))


def _steps(
    place: NDArray[np.float64], bounds: Bounds, pitch: float, u: NDArray[np.floating]
) -> NDArray[np.intp]:
    """Draws by how many cells to move places (N, 2), so that they stay within bounds; uniforms and result (N, 2)."""
    low, high = np.array(bounds).T
    least, most = np.ceil((low - place) / pitch), np.floor((high - place) / pitch)
    return np.asarray(least + np.floor(u * (most - least + 1)), np.intp)


def _turned(
    place: NDArray[np.float64], images: NDArray[np.generic], sides: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.generic]]:
    """Reflects places (N, 2) and images (N, H, W) in x, in y, and at the diagonal, each where told, (N, 3)."""
    place, images = place.copy(), images.copy()
    for axis in (0, 1):
        rows = sides[:, axis]
        place[rows, axis] *= -1
        images[rows] = np.flip(images[rows], 1 + axis)
    rows = sides[:, 2]
    place[rows] = place[rows, ::-1]
    if rows.any():
        images[rows] = images[rows].swapaxes(1, 2)
    return place, images


def _shifted(images: NDArray[np.generic], cells: NDArray[np.intp]) -> NDArray[np.generic]:
    """Shifts images (N, H, W) by whole cells (N, 2); what leaves them is lost, what enters is dark."""
    rows, columns = (np.arange(size) - cells[:, axis, None] for axis, size in enumerate(images.shape[1:]))
    within = [
        (index >= 0) & (index < size) for index, size in zip((rows, columns), images.shape[1:], strict=True)
    ]
    rows, columns = np.where(within[0], rows, 0), np.where(within[1], columns, 0)
    found = images[np.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None]]
    return np.where(within[0][:, :, None] & within[1][:, None], found, np.zeros_like(found))


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
