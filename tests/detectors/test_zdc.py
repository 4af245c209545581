"""The channel maps, cell by cell, against loops written from their definitions."""

import numpy as np
import pytest

from caloforge.detectors import DETECTORS, ZN, ZP, ChannelMap, Detector, detector_named


def paper_channel(i, j, nx, ny):
    """Cells with i + j even feed four quadrants, those with i + j odd the fifth channel."""
    if (i + j) % 2 == 1:
        return 4
    if i < nx // 2:
        return 0 if j < ny // 2 else 1
    return 2 if j < ny // 2 else 3


def o2_zn_channel(x, y):
    """Cells with x + y even are common; the towers are quadrants, 1 and 2 below, 3 and 4 above in y."""
    if (x + y) % 2 == 0:
        return 0
    if x < 22:
        return 1 if y < 22 else 3
    return 2 if y < 22 else 4


def o2_zp_channel(x, y):
    """Cells with x + y even are common; the towers are four strips of 14 fibres along x."""
    if (x + y) % 2 == 0:
        return 0
    for tower in (1, 2, 3, 4):
        if x < 14 * tower:
            return tower
    raise AssertionError


RULES = {
    ("zn", "paper"): lambda x, y: paper_channel(x, y, 44, 44),
    ("zp", "paper"): lambda x, y: paper_channel(x, y, 56, 30),
    ("zn", "o2"): o2_zn_channel,
    ("zp", "o2"): o2_zp_channel,
}
MAPS = [(detector.name, name) for detector in (ZN, ZP) for name in detector.channels]


def test_every_map_has_a_rule():
    assert sorted(MAPS) == sorted(RULES)


@pytest.mark.parametrize(("detector", "channels"), MAPS)
def test_each_cell_feeds_the_channel_of_the_definition(detector, channels):
    nx, ny = DETECTORS[detector].shape
    matrix = DETECTORS[detector].channel_map(channels).matrix.reshape(5, nx, ny)
    for x in range(nx):
        for y in range(ny):
            fed = [k for k in range(5) if matrix[k, x, y] == 1]
            assert fed == [RULES[detector, channels](x, y)], (x, y)


@pytest.mark.parametrize(("detector", "channels"), MAPS)
def test_channels_partition_the_cells(detector, channels):
    channel_map = DETECTORS[detector].channel_map(channels)
    assert set(np.unique(channel_map.matrix)) == {0, 1}
    assert (channel_map.matrix.sum(0) == 1).all()
    assert (channel_map.matrix.sum(1) > 0).all()
    assert len(set(channel_map.labels)) == 5


@pytest.mark.parametrize(("detector", "channels"), MAPS)
def test_readout_is_the_sum_over_the_cells_of_a_channel(detector, channels):
    value = DETECTORS[detector]
    nx, ny = value.shape
    responses = np.random.default_rng(0).integers(0, 65_536, (3, nx, ny)).astype(np.uint16)
    wanted = np.zeros((3, 5))
    for n in range(3):
        for x in range(nx):
            for y in range(ny):
                wanted[n, RULES[detector, channels](x, y)] += int(responses[n, x, y])
    np.testing.assert_array_equal(value.readout(responses, channels), wanted)
    np.testing.assert_array_equal(
        value.readout(responses, channels).sum(1), responses.sum((1, 2), dtype=np.int64)
    )


def test_maps_disagree_on_parity_and_orientation():
    paper, o2 = (ZN.channel_map(name).matrix for name in ("paper", "o2"))
    assert not (paper[4] * o2[0]).any()  # the papers' common fibres are O2's tower fibres, and the reverse
    corner = np.zeros((1, 44, 44))
    corner[0, 43, 0] = 1  # large x, small y, odd
    assert ZN.readout(corner, "o2")[0].tolist() == [0, 0, 1, 0, 0]
    assert ZN.readout(corner, "paper")[0].tolist() == [0, 0, 0, 0, 1]
    corner = np.zeros((1, 44, 44))
    corner[0, 42, 0] = 1  # large first index, small second, even
    assert ZN.readout(corner, "paper")[0].tolist() == [0, 0, 1, 0, 0]
    assert ZN.readout(corner, "o2")[0].tolist() == [1, 0, 0, 0, 0]


def test_geometry_and_features():
    assert (ZN.shape, ZN.cells, ZN.pitch, dict(ZN.axes)) == ((44, 44), 1936, 0.16, {"x": 44, "y": 44})
    assert (ZP.shape, ZP.cells, ZP.pitch, dict(ZP.axes)) == ((56, 30), 1680, 0.4, {"x": 56, "y": 30})
    for detector in (ZN, ZP):
        assert detector.features == ("energy", "vx", "vy", "vz", "px", "py", "pz", "mass", "charge")
        assert [feature.unit for feature in detector.conditions] == ["GeV"] + ["cm"] * 3 + ["GeV"] * 4 + ["e"]
        assert (detector.unit, detector.face.z) == ("photons", 11_260.0)


def test_the_zp_stands_beside_the_beam_and_the_zn_in_it():
    assert (ZN.face.x, ZN.face.y) == (0, 0)
    assert (ZP.face.x, ZP.face.y) == (24.34, 0)


def test_the_map_of_the_magnets_is_linear_in_the_impact_and_the_same_for_both_detectors():
    assert ZN.transport is ZP.transport
    curvature, x, y = np.array([1 / 2500, 1 / 4000, 1.0]), np.array([1.0, -2, 0]), np.array([0.5, 3, 0])
    terms = ZP.transport.terms(curvature, x, y)
    u = np.array([0.2, -0.175, 0.7])  # the last is beyond the range
    assert np.allclose(terms[:, :5], u[:, None] ** np.arange(5))
    assert np.allclose(terms[:, 5:10], terms[:, :5] * x[:, None])
    assert np.allclose(terms[:, 10:], terms[:, :5] * y[:, None])
    assert np.array(ZP.transport.maps).shape == (2, 2, 3, 5)


def test_values_are_frozen():
    with pytest.raises(ValueError, match="read-only"):
        ZN.channel_map("paper").matrix[0, 0] = 5
    with pytest.raises(TypeError):
        ZN.channels["mine"] = ZN.channel_map("paper")
    with pytest.raises(AttributeError):
        ZN.name = "zp"


def test_wrong_shapes_and_names_are_refused():
    with pytest.raises(ValueError, match=r"zn responses must have shape \(N, 44, 44\), got \(2, 56, 30\)"):
        ZN.readout(np.zeros((2, 56, 30)))
    with pytest.raises(ValueError, match="zn has no channel map 'papers'; it has paper, o2"):
        ZN.readout(np.zeros((2, 44, 44)), "papers")
    with pytest.raises(ValueError, match="no detector 'zem'; there are zn, zp"):
        detector_named("zem")
    with pytest.raises(ValueError, match="one label a row"):
        ChannelMap(("a",), np.zeros((2, 4), np.float32), "here")
    with pytest.raises(ValueError, match="channel map 'a' of toy must have 6 cells, got 4"):
        Detector(
            "toy",
            {"x": 2, "y": 3},
            "photons",
            (),
            {"a": ChannelMap(("a",), np.zeros((1, 4), np.float32), "")},
            "Toy",
        )


def test_names_resolve():
    assert detector_named("zn") is ZN
    assert detector_named("caloforge.detectors.zdc:ZP") is ZP
    with pytest.raises(ValueError, match="must be a Detector, got tuple"):
        detector_named("caloforge.detectors.zdc:CONDITIONS")
    with pytest.raises(ValueError, match="cannot import"):
        detector_named("caloforge.detectors.zdc:ZQ")
