import dataclasses

import numpy as np
import pytest

from caloforge.detectors import ZN, ChannelMap
from caloforge.events import SLICE, Events
from caloforge.metrics import Observables, centre_and_radius, observe


def image(*cells, shape=(4, 4)):
    out = np.zeros(shape, np.uint16)
    for i, j, photons in cells:
        out[i, j] = photons
    return out


@pytest.mark.parametrize(
    ("cells", "centre", "radius"),
    [
        ([(2, 3, 7)], (2, 3), 0.0),  # all photons in one cell
        ([(0, 0, 9), (0, 3, 1)], (0, 0.3), 0.3),  # nine of ten are exactly 90 %
        ([(0, 0, 8), (0, 3, 2)], (0, 0.6), 2.4),  # eight of ten are not: the far cell is needed
        ([(0, 0, 1), (0, 2, 1), (2, 0, 1), (2, 2, 1)], (1, 1), np.sqrt(2)),  # four cells at one distance
        ([(1, 1, 90), (1, 3, 5), (3, 1, 5)], (1.1, 1.1), np.hypot(0.1, 0.1)),
    ],
)
def test_centre_and_radius_worked_by_hand(cells, centre, radius):
    found, length = centre_and_radius(image(*cells)[None])
    np.testing.assert_allclose(found[0], centre, atol=1e-12)
    np.testing.assert_allclose(length[0], radius, atol=1e-12)


def test_radius_is_the_smallest_that_holds_90_percent():
    rng = np.random.default_rng(0)
    images = rng.poisson(rng.gamma(0.3, 3, (600, 5, 7)))
    images[3] = 0
    centre, radius = centre_and_radius(images)
    i, j = np.indices((5, 7))
    for number in np.flatnonzero(images.any(axis=(1, 2))):
        n = images[number]
        c = np.array([(i * n).sum(), (j * n).sum()]) / n.sum()
        away = np.hypot(i - c[0], j - c[1])
        smallest = min(r for r in away.ravel() if 10 * n[away <= r + 1e-9].sum() >= 9 * n.sum())
        np.testing.assert_allclose(centre[number], c)
        np.testing.assert_allclose(radius[number], smallest)


def test_an_empty_response_has_no_centre_and_no_radius():
    images = np.stack([image((1, 2, 5)), image(), image((3, 3, 1))])
    centre, radius = centre_and_radius(images)
    assert np.isnan(centre[1]).all()
    assert np.isnan(radius[1])
    np.testing.assert_array_equal(centre[[0, 2]], [[1, 2], [3, 3]])


def test_observe_worked_by_hand(events):
    seen = observe(events([image((0, 0, 9), (0, 3, 1)), image((1, 1, 2), (3, 0, 4)), image()]))
    np.testing.assert_array_equal(seen.channels, [[10, 0], [2, 4], [0, 0]])
    np.testing.assert_array_equal(seen.photons, [10, 6, 0])
    np.testing.assert_array_equal(seen.lit, [2, 2, 0])
    np.testing.assert_allclose(seen.centre[1], [7 / 3, 1 / 3])


def test_a_cell_is_lit_from_one_photon_on(events):
    unrounded = np.zeros((1, 4, 4), np.float32)
    unrounded[0, 0] = [0.2, 0.999, 1.0, 3.5]
    assert observe(events(unrounded)).lit == 2


class Counting:
    """A source that remembers how many rows were asked of it at once."""

    def __init__(self, events):
        self.events, self.primaries, self.asked = events, events.primaries, []

    def __len__(self):
        return len(self.events)

    def slices(self, rows):
        part = self.events.slices(rows)
        self.asked.append(len(part))
        return part


def test_observe_walks_in_slices_and_keeps_the_order(events):
    responses = np.random.default_rng(0).poisson(1.0, (SLICE + 500, 4, 4))
    source = Counting(events(responses))
    seen = observe(source)
    assert source.asked == [SLICE, 500]
    np.testing.assert_array_equal(seen.photons, responses.sum(axis=(1, 2)))
    np.testing.assert_array_equal(seen.lit, (responses > 0).sum(axis=(1, 2)))
    np.testing.assert_array_equal(seen.centre, centre_and_radius(responses)[0])


def test_observe_takes_channel_maps_by_name():
    conditions = np.zeros((2, 9))
    conditions[:, 0] = 1.0
    responses = np.random.default_rng(0).poisson(0.5, (2, 44, 44))
    zn = Events(ZN, conditions, np.array([22, 22]), responses=responses)
    np.testing.assert_array_equal(observe(zn, "o2").channels, ZN.readout(responses, "o2"))
    np.testing.assert_array_equal(observe(zn).photons, observe(zn, "o2").photons)
    with pytest.raises(ValueError, match="no channel map 'o3'"):
        observe(zn, "o3")


def test_responses_without_two_axes_give_channel_sums_only(tiny):
    layers = ChannelMap(("all",), np.ones((1, 8), np.float32), "test")
    cube = dataclasses.replace(tiny, name="cube", axes={"x": 2, "y": 2, "z": 2}, channels={"paper": layers})
    conditions = np.zeros((3, 9))
    conditions[:, 0] = 1.0
    seen = observe(Events(cube, conditions, np.full(3, 22), responses=np.ones((3, 2, 2, 2), np.uint16)))
    np.testing.assert_array_equal(seen.channels, [[8], [8], [8]])
    assert seen.centre is None
    assert seen.radius is None
    assert seen.lit is None


def test_select_takes_the_rows_of_everything(random_observables):
    whole = random_observables()
    part = whole.select(np.array([7, 3]))
    for name in ("channels", "centre", "radius", "lit"):
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[[7, 3]])
    np.testing.assert_array_equal(part.primaries.group, whole.primaries.group[[7, 3]])
    readout = Observables(whole.primaries, whole.channels).select(slice(2, 5))
    assert len(readout) == 3
    assert readout.centre is None


def test_wrong_observables_are_refused(primaries):
    particles = primaries([0, 1])
    with pytest.raises(
        ValueError, match=r"channels must have shape \(2, K\), one row a particle, got \(3, 5\)"
    ):
        Observables(particles, np.zeros((3, 5)))
    with pytest.raises(ValueError, match=r"channel sums must be finite, got .* in row 1"):
        Observables(particles, np.array([[1.0], [np.nan]]))
    with pytest.raises(ValueError, match="come together, got no radius and no lit"):
        Observables(particles, np.zeros((2, 5)), np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"radius must have shape \(2,\), got \(2, 1\)"):
        Observables(particles, np.zeros((2, 5)), np.zeros((2, 2)), np.zeros((2, 1)), np.zeros(2))
