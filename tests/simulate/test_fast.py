"""A bundle in place of full showers: where its voxels lie, what it refuses; in Geant4 where that is installed."""

import dataclasses
import importlib.util

import numpy as np
import onnx
import pytest

from caloforge.detectors import DS2, DS3
from caloforge.io import open_events, provenance
from caloforge.runtime.bundle import GRAPH, Surrogate, write_card
from caloforge.simulate import Job, crystal_box, sampling_calorimeter, simulate
from caloforge.simulate.fast import LARGEST_ANGLE, FastShowers, frame, voxel_points
from caloforge.simulate.geometry import layer_of, mesh_cells
from made_bundle import made_bundle, made_card, made_graph
from made_showers import made_showers
from simulate_data import G4DATA


@pytest.fixture(scope="module")
def showers_bundle(tmp_path_factory):
    """A bundle of DS2 for 1 to 100 GeV."""
    path = tmp_path_factory.mktemp("bundles") / "ds2"
    path.mkdir()
    onnx.save(made_graph(DS2), path / GRAPH)
    write_card(path, made_card(DS2, made_showers(rows=200)) | {"channels": DS2.default_channels})
    return path


@pytest.fixture(scope="module")
def fast(showers_bundle):
    return FastShowers(showers_bundle, sampling_calorimeter(DS2, scoring="steps"), seed=5)


def cells(points, detector=DS2):
    depths, layers = layer_of(sampling_calorimeter(detector))
    layer = layers[np.searchsorted((depths[1:] + depths[:-1]) / 2, points[:, 2])]
    return mesh_cells(detector, layer, points[:, 0], points[:, 1])


@pytest.mark.parametrize("detector", [DS2, DS3])
def test_every_voxel_lies_in_its_own_cell(detector):
    depths, layers = layer_of(sampling_calorimeter(detector))
    points = voxel_points(detector, np.array([depths[layers == k].mean() for k in range(45)]))
    np.testing.assert_array_equal(cells(points, detector), np.arange(detector.cells))


@pytest.mark.parametrize("direction", [(0, 0, 1), (0.05, 0.02, 0.9985), (-0.3, 0.4, 0.8660254)])
def test_the_frame_is_a_rotation_that_keeps_the_world_s_along_z(direction):
    axes = frame(np.array(direction) / np.linalg.norm(direction))
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(axes) == pytest.approx(1)
    np.testing.assert_allclose(axes[2], np.array(direction) / np.linalg.norm(direction))
    if direction == (0, 0, 1):
        np.testing.assert_array_equal(axes, np.eye(3))


def test_a_particle_along_the_axis_fills_the_voxels_of_the_bundle(fast, showers_bundle):
    points, energy = fast.deposits(20e3, -11, (0, 0, 0), (0, 0, 1), event=3)
    one = dataclasses.replace(made_showers(rows=1).primaries, conditions=np.array([[20e3]], np.float32))
    wanted = Surrogate.load(showers_bundle).sample(one, seed=5, first_event=3, on_outside="flag").responses
    filled = np.bincount(cells(points), energy / 0.033, minlength=DS2.cells)
    np.testing.assert_allclose(filled, wanted.ravel().astype(float), rtol=1e-9)


def test_a_displaced_and_inclined_particle_takes_its_shower_along(fast):
    straight, energy = fast.deposits(20e3, 11, (0, 0, 0), (0, 0, 1), event=3)
    moved, same = fast.deposits(20e3, 11, (7.0, -3.0, 0), (0, 0, 1), event=3)
    np.testing.assert_array_equal(energy, same)
    np.testing.assert_allclose(moved - straight, np.tile([7.0, -3.0, 0], (len(energy), 1)), atol=1e-9)
    slope = 0.08
    direction = np.array([0, np.sin(slope), np.cos(slope)])
    turned, same = fast.deposits(20e3, 11, (0, 0, 0), direction, event=3)
    np.testing.assert_array_equal(energy, same)
    np.testing.assert_allclose(turned @ direction, straight[:, 2], atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(turned, axis=1), np.linalg.norm(straight, axis=1))


@pytest.mark.parametrize(
    ("energy", "pdg", "angle"),
    [(900e3, -11, 0), (500.0, 11, 0), (20e3, 211, 0), (20e3, 22, 0), (20e3, 11, LARGEST_ANGLE + 0.01)],
)
def test_what_it_was_not_trained_on_is_simulated_in_full(fast, energy, pdg, angle):
    assert fast.deposits(energy, pdg, (0, 0, 0), (np.sin(angle), 0, np.cos(angle)), event=0) is None


def test_bundles_and_setups_that_do_not_fit(showers_bundle, tmp_path):
    with pytest.raises(ValueError, match="draws showers of ds2, and ds3 is simulated"):
        FastShowers(showers_bundle, sampling_calorimeter(DS3, scoring="steps"), 0)
    with pytest.raises(ValueError, match="scored by steps, not by replicas"):
        FastShowers(showers_bundle, sampling_calorimeter(DS2, scoring="replicas"), 0)
    with pytest.raises(ValueError, match="zn has none"):
        FastShowers(made_bundle(tmp_path / "zn"), crystal_box(), 0)


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("geant4_pybind") is None, reason="needs the package geant4-pybind"
)
@pytest.mark.skipif(G4DATA is None, reason="no Geant4 data sets")
def test_geant4_hands_the_primary_over(showers_bundle, tmp_path):
    """Inside of the domain every shower is the bundle's, outside it is Geant4's own."""
    job = Job("ds2", "e+", (2.0, 50.0), seed=9, part=8, fast=str(showers_bundle))
    (path,) = simulate(job, tmp_path / "fast.h5", 20, jobs=2, g4data=G4DATA)
    events = open_events(path).slices(slice(None))
    assert provenance(path)["fast"]["name"] == "ds2"
    surrogate = Surrogate.load(showers_bundle)
    for row in range(20):
        one = events.primaries.select(slice(row, row + 1))
        one = dataclasses.replace(one, pdg=np.full(1, DS2.pdg))
        wanted = surrogate.sample(one, seed=9, first_event=row, batch_size=1, on_outside="flag").responses
        np.testing.assert_allclose(events.responses[row], wanted[0], rtol=1e-5)
    beyond = dataclasses.replace(job, energy=(0.5, 0.5), spectrum="fixed")
    plain = dataclasses.replace(beyond, fast=None)
    first, second = (
        open_events(simulate(one, tmp_path / f"{number}.h5", 8, g4data=G4DATA)[0]).slices(slice(None))
        for number, one in enumerate((beyond, plain))
    )
    totals = [events.responses.sum() for events in (first, second)]
    assert totals[0] == pytest.approx(totals[1], rel=0.3)
    assert first.responses.max() < 300
