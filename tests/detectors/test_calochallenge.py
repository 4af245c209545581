import math
import pickle

import numpy as np
import pytest

from caloforge.detectors import (
    CRYSTALS,
    DS2,
    DS2_ANGLES,
    DS3,
    DS3_ANGLES,
    Layer,
    detector_named,
    from_xml,
    with_angles,
)


def edges(rings):
    return ",".join(str(5 * number) for number in range(rings + 1))


def binning(*bins):
    """Writes a binning: (pid, name, [(angles, rings) or None where a layer is absent])."""
    lines = ["<Bins>"]
    for pid, name, layers in bins:
        lines.append(f'<Bin pid="{pid}" name="{name}">')
        for number, layer in enumerate(layers):
            angles, rings = layer or (1, 0)
            lines.append(f'<Layer id="{number}" r_edges="{edges(rings)}" n_bin_alpha="{angles}"/>')
        lines.append("</Bin>")
    return "\n".join([*lines, "</Bins>"])


ABSENT = [None] * 8
PHOTONS = (22, "photon", [(1, 8), (10, 16), (10, 19), (1, 5), *ABSENT, (1, 5)])
PIONS = (211, "pion", [(1, 8), (10, 10), (10, 10), (1, 5), *ABSENT, (10, 15), (10, 16), (1, 10)])


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "binning.xml"
    path.write_text(binning(PHOTONS, PIONS))
    return path


@pytest.mark.parametrize(
    ("detector", "shape", "cells"), [(DS2, (45, 16, 9), 6480), (DS3, (45, 50, 18), 40_500)], ids=lambda v: ""
)
def test_dense_detectors_have_the_published_voxels(detector, shape, cells):
    assert (detector.shape, detector.cells) == (shape, cells)
    assert list(detector.axes) == ["layer", "angle", "radius"]
    assert (detector.unit, detector.pdg, detector.features) == ("MeV", 11, ("incident_energy",))
    width = 41.85 / shape[2]
    for layer in detector.layers:
        np.testing.assert_allclose(np.diff(layer.edges), width)
    assert detector.threshold == pytest.approx(15.15e-3, rel=1e-3)


@pytest.mark.parametrize(
    ("particle", "pdg", "cells", "numbers"),
    [("photon", 22, 368, [0, 1, 2, 3, 12]), ("pion", 211, 533, [0, 1, 2, 3, 12, 13, 14])],
)
def test_data_set_1_has_the_published_voxels(path, particle, pdg, cells, numbers):
    for detector in (
        from_xml(path, particle),
        from_xml(path, str(pdg)),
        detector_named(f"{path}:{particle}"),
    ):
        assert (detector.cells, detector.shape, detector.pdg) == (cells, (cells,), pdg)
        assert [layer.number for layer in detector.layers] == numbers
        assert detector.channel_map().labels == tuple(f"layer {number}" for number in numbers)
        assert detector.threshold == 1.0
    assert detector_named(detector.name).name == detector.name


def test_a_threshold_can_stand_in_the_name(path, tmp_path):
    pion = detector_named(f"{path}:pion:1e-3")
    assert (pion.pdg, pion.threshold) == (211, 1e-3)
    assert detector_named(pion.name).threshold == 1e-3
    (tmp_path / "one.xml").write_text(binning(PHOTONS))
    alone = detector_named(f"{tmp_path / 'one.xml'}::0.5")
    assert (alone.pdg, alone.threshold) == (22, 0.5)
    assert detector_named(alone.name).threshold == 0.5
    for wrong in ("little", "-1", "0", "inf", "nan"):
        with pytest.raises(ValueError, match=f"must be a number of MeV above 0, got '{wrong}'"):
            detector_named(f"{path}:pion:{wrong}")


def test_channels_are_the_layers_in_storage_order(path):
    for detector in (DS2, from_xml(path, "pion")):
        matrix = detector.channel_map("layers").matrix
        assert (matrix.sum(0) == 1).all()
        assert (np.diff(matrix.argmax(0)) >= 0).all()
        assert matrix.sum(1).tolist() == [layer.cells for layer in detector.layers]
    voxels = np.random.default_rng(0).random((3, *DS2.shape), np.float32)
    np.testing.assert_allclose(DS2.readout(voxels), voxels.astype(float).sum((2, 3)), rtol=1e-12)


def test_centres_by_hand():
    eta, phi, r = Layer(0, (0.0, 2.0, 6.0), 2).centres
    # angles from -pi to 0 and from 0 to pi, middles -pi/2 and pi/2; radii 1 and 4, fastest
    np.testing.assert_allclose(r, [1, 4, 1, 4])
    np.testing.assert_allclose(eta, [0, 0, 0, 0], atol=1e-15)
    np.testing.assert_allclose(phi, [-1, -4, 1, 4])
    eta, phi, _ = Layer(0, (0.0, 1.0), 4).centres
    np.testing.assert_allclose(eta, 0.5 * np.cos(np.pi * np.array([-0.75, -0.25, 0.25, 0.75])))
    np.testing.assert_allclose(phi, 0.5 * math.sqrt(0.5) * np.array([-1, -1, 1, 1]))


def test_storage_order_is_layer_angle_radius():
    layer = DS2.layers[0]
    _, _, r = layer.centres
    np.testing.assert_allclose(r.reshape(16, 9)[3], 4.65 * (np.arange(9) + 0.5))


def test_detectors_can_be_pickled(path):
    copy = pickle.loads(pickle.dumps(from_xml(path, "pion")))
    assert (copy.name, copy.layers, copy.pdg) == (f"{path}:pion", from_xml(path, "pion").layers, 211)


@pytest.mark.parametrize(
    ("text", "particle", "message"),
    [
        (binning(PHOTONS, PIONS), None, r"needs one Bin, got 2; the file has photon \(22\), pion \(211\)"),
        (binning(PHOTONS), "kaon", r"needs one Bin of 'kaon', got 0"),
        ("<Bins>", None, "not valid XML"),
        (binning((11, "e", [None])), None, "needs layers in ascending order"),
        (binning(PHOTONS).replace('"10"', '"ten"', 1), None, "layer 1 must have numbers"),
        (binning(PHOTONS).replace("0,5,10", "0,10,5", 1), None, "layer 0 must have ascending edges"),
    ],
)
def test_broken_binnings_are_refused(tmp_path, text, particle, message):
    path = tmp_path / "broken.xml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        from_xml(path, particle)
    assert str(path) in str(error.value)


def test_a_missing_binning_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"cannot read the binning .*nowhere.xml"):
        detector_named(str(tmp_path / "nowhere.xml"))


@pytest.mark.parametrize(("plain", "detector"), [(DS2, DS2_ANGLES), (DS3, DS3_ANGLES)])
def test_a_layout_with_angles_has_the_same_voxels(plain, detector):
    assert detector_named(f"{plain.name}-angles") is detector
    assert detector.features == ("incident_energy", "theta", "phi")
    assert [feature.unit for feature in detector.conditions] == ["MeV", "rad", "rad"]
    assert (detector.shape, detector.layers, detector.threshold) == (
        plain.shape,
        plain.layers,
        plain.threshold,
    )


def test_angles_are_for_showers_of_the_challenge():
    with pytest.raises(ValueError, match="condition incident_energy, crystals has energy"):
        with_angles(CRYSTALS)
    with pytest.raises(ValueError, match="ds2-angles has incident_energy, theta, phi"):
        with_angles(DS2_ANGLES)
