import math

import numpy as np
import pytest

from caloforge.detectors import DS2, ZN
from caloforge.events import Events
from caloforge.metrics.showers import (
    Sizes,
    cut,
    data_set,
    directions,
    feature_names,
    features,
    observe_showers,
)
from made import made_events
from made_showers import (
    RAGGED,
    SMALL,
    detector_of,
    ds1,
    made_flat_showers,
    made_showers,
    made_showers_with_angles,
)


def test_features_by_hand(tmp_path):
    small = detector_of(tmp_path, SMALL)
    # voxels in storage order: angles -pi/2 and pi/2, radii 1 and 4; layer 0 holds 1 MeV at (phi -1) and 3 MeV at
    # (phi 4), layer 1 holds 2 MeV at (phi 1), and one below the threshold
    voxels = np.array([[[[1, 0], [0, 3]], [[0, 0.001], [2, 0]]]], np.float32)
    events = Events(small, np.array([[100.0]], np.float32), np.array([11]), responses=voxels)
    showers = observe_showers(events)
    np.testing.assert_allclose(showers.layers, [[4, 2]], rtol=1e-7)
    centre_phi, centre_r = (-1 + 12) / 4, (1 + 12) / 4
    np.testing.assert_allclose(
        showers.centres[0], [[0, centre_phi, centre_r], [0, 1, 1]], rtol=1e-7, atol=1e-7
    )
    width_phi = math.sqrt((1 + 3 * 16) / 4 - centre_phi**2)
    width_r = math.sqrt((1 + 3 * 16) / 4 - centre_r**2)
    np.testing.assert_allclose(showers.widths[0], [[0, width_phi, width_r], [0, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(showers.sparsity, [[0.5, 0.75]])
    np.testing.assert_allclose(showers.ratio, [0.06])
    # radius 1 holds 1 MeV in layer 0 and 2 MeV in layer 1, radius 4 holds 3 MeV in layer 0
    np.testing.assert_allclose(showers.depth, [[2 / 3, 0]], rtol=1e-7)
    wanted = [
        2, math.log10(4), math.log10(2), 0, 0, centre_phi / 100, 0.01, 0, 0, width_phi / 100, 0,
        math.log10(6), 0.5, 0.75, centre_r / 100, 0.01, width_r / 100, 0,
    ]  # fmt: skip
    np.testing.assert_allclose(showers.features[0], wanted, atol=1e-6)
    assert len(feature_names(small)) == len(wanted)
    # 3 MeV is the largest voxel, in the last bin; the one below the threshold and the empty ones are nowhere
    assert showers.spectrum.sum() == 3
    assert showers.spectrum[0, -1] == 1


def by_definition(source, energy, voxels):
    """The features of one shower by the words of the definition, voxel by voxel."""
    layers, sparsity = [], []
    moments = {z: ([], []) for z in ("eta", "phi", "r")}
    place = 0
    for layer in source.layers:
        total, lit = 0.0, 0
        sums = {z: [0.0, 0.0] for z in moments}
        for angle in range(layer.angles):
            alpha = -math.pi + (angle + 0.5) * 2 * math.pi / layer.angles
            for ring in range(layer.radii):
                x = float(voxels[place])
                place += 1
                if x < source.threshold:
                    continue
                r = (layer.edges[ring] + layer.edges[ring + 1]) / 2
                total += x
                lit += x > 0
                for z, value in {"eta": r * math.cos(alpha), "phi": r * math.sin(alpha), "r": r}.items():
                    sums[z][0] += value * x
                    sums[z][1] += value**2 * x
        layers.append(total)
        sparsity.append(1 - lit / layer.cells)
        for z, (first, second) in sums.items():
            mean, square = first / (total + 1e-16), second / (total + 1e-16)
            if z == "r" or layer.angles > 1:
                moments[z][0].append(mean)
                moments[z][1].append(math.sqrt(max(square - mean**2, 0)))
    return [
        math.log10(energy),
        *(math.log10(value + 1e-8) for value in layers),
        *(value / 100 for which in (0, 1) for z in ("eta", "phi") for value in moments[z][which]),
        math.log10(sum(layers) + 1e-8),
        *sparsity,
        *(value / 100 for which in (0, 1) for value in moments["r"][which]),
    ]


@pytest.mark.parametrize("kind", ["ds2", "ragged"])
def test_features_agree_with_the_definition(kind, tmp_path):
    if kind == "ds2":
        events = made_showers(rows=3)
    else:
        ragged = detector_of(tmp_path, RAGGED)
        voxels = np.random.default_rng(0).gamma(0.3, 4, (5, ragged.cells)).astype(np.float32)
        voxels[1, :2] = 0
        events = Events(ragged, np.full((5, 1), 512, np.float32), np.full(5, 22), responses=voxels)
    found = observe_showers(events).features
    wanted = [
        by_definition(events.detector, float(energy), shower.ravel())
        for energy, shower in zip(events.conditions[:, 0], events.responses, strict=True)
    ]
    assert found.shape == (len(events), len(feature_names(events.detector)))
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("particle", "number"), [("photon", 30), ("pion", 46), (None, 362)])
def test_numbers_of_features(particle, number, tmp_path):
    detector = DS2 if particle is None else ds1(tmp_path, particle)
    assert len(feature_names(detector)) == number
    assert observe_showers(made_flat_showers(detector, rows=2)).features.shape == (2, number)


def test_voxels_below_the_threshold_are_counted(tmp_path):
    detector = ds1(tmp_path, "photon")
    responses = np.zeros((3, detector.cells), np.float32)
    responses[0, :4] = 0.5, 0.999, 1.0, 2.0
    responses[2, 7] = 0.1
    events = Events(detector, np.full((3, 1), 256, np.float32), np.full(3, 22), responses=responses)
    showers = observe_showers(events)
    assert showers.below.tolist() == [2, 0, 1]
    assert showers.select(np.array([2])).below.tolist() == [1]
    assert showers.total.tolist() == [3, 0, 0]


def test_reading_in_slices_changes_nothing(monkeypatch):
    events = made_showers(rows=7)
    whole = observe_showers(events)
    monkeypatch.setattr("caloforge.events.SLICE_CELLS", 3 * DS2.cells)
    monkeypatch.setattr(features, "_BLOCK_CELLS", 2 * DS2.cells)
    parts = observe_showers(events)
    for name in ("features", "spectrum", "depth", "edges", "kept"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(parts.some_voxels(7), whole.some_voxels(7), rtol=1e-12, atol=1e-12)


def test_selected_rows_keep_their_numbers_and_voxels():
    events = made_showers(rows=9)
    showers = observe_showers(events, sizes=Sizes(prdc_rows=3))
    assert (showers.kept >= 0).sum() == 6
    chosen = showers.select(np.array([7, 2, 5, 0]))
    np.testing.assert_array_equal(chosen.layers, showers.layers[[7, 2, 5, 0]])
    rows = np.array([7, 2, 5, 0])[chosen.kept >= 0]
    wanted = (
        np.log10(np.where(cut(DS2, events.responses[rows]) > 0, cut(DS2, events.responses[rows]), 0.1)) + 1
    )
    np.testing.assert_allclose(chosen.some_voxels(9), wanted, atol=1e-6)


def test_showers_of_other_detectors_are_refused():
    with pytest.raises(ValueError, match="a detector with layers, got 48 events of zn"):
        observe_showers(made_events(ZN))
    empty = made_showers(rows=3)
    empty = Events(DS2, empty.conditions, empty.pdg, responses=np.zeros_like(empty.responses))
    with pytest.raises(ValueError, match=r"no voxel above the threshold of 0\.01515"):
        observe_showers(empty)


def test_directions_of_showers_with_angles():
    events = made_showers_with_angles(rows=4)
    theta, phi = events.feature("theta"), events.feature("phi")
    expected = np.column_stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi)])
    np.testing.assert_allclose(directions(events), expected, rtol=1e-6)
    assert directions(made_showers(rows=4)).shape == (4, 0)
    assert data_set(events.detector) is None
    assert observe_showers(events).features.shape == (4, 362)
