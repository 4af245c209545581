import dataclasses

import numpy as np
import pytest
import torch

from caloforge.detectors import CRYSTALS, ZN, ZP, Face
from caloforge.events import RAY, Events, straight_impact
from caloforge.models.base import BatchRandom
from caloforge.models.channel_flow_matching import ChannelFlowMatching, ChannelFlowMatchingConfig
from caloforge.models.parts.images import THINNEST, moved, thinned
from caloforge.models.parts.particle_features import TransportFeatures
from caloforge.models.parts.sums import Sums, SumsConfig
from made import made_events


def place(events):
    """Where straight lines meet the face, in cells from the first."""
    detector = events.detector
    rays = events.conditions[:, [detector.features.index(name) for name in RAY]].astype(float)
    at = straight_impact(rays, detector.face.z) - (detector.face.x, detector.face.y)
    return at / detector.pitch + (np.array(detector.shape) - 1) / 2


def photons(detector, rows, seed=0):
    """Photons within the window, with one lit cell each, the one that the ray meets, and a fainter one beside it."""
    rng = np.random.default_rng(seed)
    low, high = np.array(detector.face.window).T
    at = rng.uniform(low, high, (rows, 2))
    pz = rng.choice([-1, 1], rows) * 900.0
    centre = np.array([detector.face.x, detector.face.y])
    slopes = (at + centre) / detector.face.z
    momentum = np.column_stack([slopes * abs(pz)[:, None], pz])
    energy = np.linalg.norm(momentum, axis=1)
    zero = np.zeros((rows, 3))
    conditions = np.column_stack([energy, zero, momentum, zero[:, :2]]).astype("f4")
    cell = np.rint(at / detector.pitch + (np.array(detector.shape) - 1) / 2).astype(int)
    responses = np.zeros((rows, *detector.shape), np.uint16)
    responses[np.arange(rows), cell[:, 0], cell[:, 1]] = 100
    responses[np.arange(rows), cell[:, 0] + 1, cell[:, 1]] = 7
    group = np.arange(rows)
    return Events(detector, conditions, np.full(rows, 22), group, (group % 10).astype(np.int8), responses)


@pytest.mark.parametrize("detector", [ZN, ZP], ids=lambda detector: detector.name)
def test_a_photon_and_its_light_move_together(detector):
    events = photons(detector, 200)
    rng = np.random.default_rng(1)
    rows, u = rng.uniform(size=200) < 0.7, rng.uniform(size=(200, 5))
    other = moved(events, rows, u)
    before, after = place(events), place(other)
    turned = [rows & (u[:, k] < 0.5) & (detector.face.turns or k == 0) for k in range(3)]
    step = np.zeros((200, 2), int)
    step[:, 0] = 1  # the fainter cell is the next one in x
    for axis in (0, 1):
        before[turned[axis], axis] = detector.shape[axis] - 1 - before[turned[axis], axis]
        step[turned[axis], axis] *= -1
    before[turned[2]], step[turned[2]] = before[turned[2], ::-1], step[turned[2], ::-1]
    np.testing.assert_allclose((after - before) - np.rint(after - before), 0, atol=2e-3)
    assert len(np.unique(np.rint(after - before)[rows], axis=0)) > 90
    brightest = np.array(np.unravel_index(other.responses.reshape(200, -1).argmax(1), detector.shape)).T
    assert (abs(brightest - after) <= 0.502).all()
    assert (other.responses[(np.arange(200), *(brightest + step).T)] == 7).all()
    low, high = np.array(detector.face.window).T / detector.pitch
    middle = (np.array(detector.shape) - 1) / 2
    assert ((after > middle + low - 2e-3) & (after < middle + high + 2e-3)).all()
    np.testing.assert_array_equal(other.responses.sum((1, 2)), 107)
    np.testing.assert_allclose(
        np.linalg.norm(other.conditions[:, 4:7], axis=1), other.conditions[:, 0], rtol=1e-6
    )
    np.testing.assert_array_equal(other.conditions[~rows], events.conditions[~rows])
    np.testing.assert_array_equal(other.responses[~rows], events.responses[~rows])


def test_neutral_particles_of_the_zn_turn_but_are_not_shifted():
    events = dataclasses.replace(photons(ZN, 60), pdg=np.repeat([2112, 130, 310], 20))
    other = moved(events, np.ones(60, bool), np.random.default_rng(0).uniform(size=(60, 5)))
    middle = 21.5
    before, after = abs(place(events) - middle), abs(place(other) - middle)
    np.testing.assert_allclose(np.sort(after, 1), np.sort(before, 1), atol=2e-3)
    assert (abs(place(other) - place(events))[:40] > 0.01).any(1).mean() > 0.7
    np.testing.assert_array_equal(other.conditions[40:], events.conditions[40:])


def test_only_photons_in_the_window_of_the_zp_move():
    events = photons(ZP, 40)
    events.pdg[:20] = 2112
    events.conditions[20:30, ZP.features.index("px")] += 900 * 15 / ZP.face.z
    other = moved(events, np.ones(40, bool), np.full((40, 5), 0.9))
    np.testing.assert_array_equal(other.conditions[:30], events.conditions[:30])
    np.testing.assert_array_equal(other.responses[:30], events.responses[:30])
    assert (other.conditions[30:] != events.conditions[30:]).any(1).all()


def test_protons_in_the_strip_move_along_it_as_magnets_ask_for():
    events = made_events(ZP, particles=40, repeats=1)
    rng = np.random.default_rng(0)
    momentum = np.column_stack(
        [rng.normal(0, 0.3, (40, 2)), rng.choice([-1, 1], 40) * rng.uniform(2500, 5000, 40)]
    )
    conditions = np.column_stack(
        [np.linalg.norm(momentum, axis=1), np.zeros((40, 3)), momentum, np.zeros((40, 2))]
    )
    conditions[:, -2:] = 0.938, 1
    events = dataclasses.replace(events, conditions=conditions.astype("f4"), pdg=np.full(40, 2212))
    at = TransportFeatures(ZP).cell
    other = moved(events, np.ones(40, bool), rng.uniform(size=(40, 5)))
    before, after = (at(torch.from_numpy(some.conditions).double()).numpy() for some in (events, other))
    low, high = np.array(ZP.face.strip).T / ZP.pitch + (np.array(ZP.shape)[:, None].T - 1) / 2
    inside = ((before > low) & (before < high)).all(1)
    assert 10 < inside.sum() < 40
    np.testing.assert_allclose(after[:, 0], before[:, 0], atol=5e-3)
    shift = np.rint(after - before)[:, 1].astype(int)
    np.testing.assert_allclose(after[:, 1] - before[:, 1], shift, atol=5e-3)
    assert (shift[inside] != 0).mean() > 0.7
    assert (shift[~inside] == 0).all()
    for row, cells in enumerate(shift):
        np.testing.assert_array_equal(other.responses[row], shifted(events.responses[row], cells))
    np.testing.assert_allclose(
        np.linalg.norm(other.conditions[:, 4:7], axis=1), np.linalg.norm(momentum, axis=1), rtol=1e-6
    )


def shifted(image, cells):
    """An image moved along y, dark where nothing was."""
    other = np.roll(image, cells, 1)
    if cells > 0:
        other[:, :cells] = 0
    elif cells < 0:
        other[:, cells:] = 0
    return other


def test_light_that_leaves_the_image_is_lost_and_none_comes_in():
    events = photons(ZP, 1)
    full = dataclasses.replace(events, responses=np.ones((1, *ZP.shape), np.uint16))
    other = moved(full, np.array([True]), np.array([[0.9, 0.9, 0.9, 0.999, 0.0]]))
    shift = np.rint(place(other) - place(events))[0].astype(int)
    assert other.responses.sum() == (56 - abs(shift[0])) * (30 - abs(shift[1]))


def test_a_face_without_a_window_moves_nothing():
    without = dataclasses.replace(ZN, face=Face(1000.0))
    with pytest.raises(ValueError, match="move needs a face with a window"):
        ChannelFlowMatching(without, ChannelFlowMatchingConfig(move=True))


def test_moved_photons_are_what_a_training_sees():
    events = made_events(ZN)
    model = ChannelFlowMatching(ZN, ChannelFlowMatchingConfig(move=True, width=16, blocks=1))
    (stage,) = model.stages(events)
    plain = ChannelFlowMatching(ZN, ChannelFlowMatchingConfig(width=16, blocks=1))
    plain.load_state_dict(model.state_dict())
    (other,) = plain.stages(events)
    random = BatchRandom(0, slice(0, 48), 48)
    assert (stage.loss(events, random) != other.loss(events, random)).any()


def test_a_photon_with_a_part_of_its_energy_gives_that_part_of_its_light():
    events = photons(ZN, 4000)
    rng = np.random.default_rng(2)
    rows, u = rng.uniform(size=4000) < 0.5, rng.uniform(size=(4000, 2))
    other = thinned(events, rows, u, least=10)
    share = other.conditions[:, 0] / events.conditions[:, 0]
    np.testing.assert_allclose(share, np.where(rows, THINNEST ** -u[:, 0], 1), rtol=1e-5)
    np.testing.assert_allclose(place(other), place(events), atol=1e-4)
    np.testing.assert_allclose(
        np.linalg.norm(other.conditions[:, 4:7], axis=1), other.conditions[:, 0], rtol=1e-6
    )
    assert (other.responses <= events.responses).all()
    # binomial: 107 photons with the probability of the share
    pulls = (other.responses.sum((1, 2)) - 107 * share)[rows] / np.sqrt(107 * share * (1 - share))[rows]
    assert abs(pulls.mean()) < 4 / np.sqrt(rows.sum())
    assert abs(pulls.std() - 1) < 0.05
    np.testing.assert_array_equal(other.responses[~rows], events.responses[~rows])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint64, np.float32])
def test_counts_of_any_type_are_thinned_alike(dtype):
    events = photons(ZN, 20)
    rows, u = np.ones(20, bool), np.full((20, 2), 0.5)
    other = thinned(dataclasses.replace(events, responses=events.responses.astype(dtype)), rows, u, least=10)
    assert other.responses.dtype == dtype
    np.testing.assert_array_equal(other.responses, thinned(events, rows, u, least=10).responses)


def test_what_cannot_be_thinned_stays_as_it_was():
    events = photons(ZP, 50)
    events.pdg[:10] = 2112
    events.conditions[10:20, ZP.features.index("px")] += 900 * 30 / ZP.face.z
    events.conditions[:, 0] = np.linalg.norm(events.conditions[:, 4:7], axis=1)
    events.responses[20:30] //= 10
    other = thinned(events, np.ones(50, bool), np.full((50, 2), 0.9), least=10)
    np.testing.assert_array_equal(other.conditions[:30], events.conditions[:30])
    np.testing.assert_array_equal(other.responses[:30], events.responses[:30])
    assert (other.conditions[30:, 0] < events.conditions[30:, 0] / 3).all()


def test_energies_are_not_thinned():
    with pytest.raises(ValueError, match="thin needs photon counts"):
        Sums(CRYSTALS, "sum", SumsConfig(thin=True), 0.0, 8)


@pytest.mark.parametrize("thin", [False, True])
def test_thinned_photons_are_what_velocity_and_student_see(thin):
    events = photons(ZN, 48)
    config = {"width": 16, "blocks": 1, "thin": thin, "average_velocity": {"steps": 1}}
    sums = Sums(ZN, "paper", SumsConfig(**config), 0.0, 8, least=10)
    seen = []
    stages = sums.stages(events, lambda batch, rng: seen.append(batch.conditions) or batch)
    told = []
    sums._conditions = lambda batch: told.append(batch.conditions) or torch.from_numpy(batch.conditions)
    for stage in stages:
        stage.loss(events, BatchRandom(0, slice(0, 48), 48))
    assert len(seen) == len(told) == 2
    for given, used in zip(seen, told, strict=True):
        assert (given[:, 0] != used[:, 0]).any() == thin
