"""Set-ups: plain data, checked without Geant4."""

import dataclasses

import numpy as np
import pytest

from caloforge.detectors import CRYSTALS, DS2, DS3, ZN, detector_named
from caloforge.simulate import SETUPS, Box, Scorer, Setup, Tube, Volume, sampling_calorimeter, setup_named
from caloforge.simulate.geometry import layer_of, mesh_cells


@pytest.mark.parametrize("name", SETUPS)
def test_every_setup_counts_for_every_cell_or_layer(name):
    setup = setup_named(name)
    cells = {volume.cell for volume in setup.volumes} - {None}
    for detector in setup.detectors:
        assert detector_named(detector.name) is detector
        size = detector.cells if setup.scorer.kind in ("volumes", "light") else len(detector.layers)
        assert cells == set(range(size))


def test_the_stack_is_that_of_the_challenge():
    setup = sampling_calorimeter(DS2, DS3)
    depth = sum(volume.shape.size[2] for volume in setup.volumes)
    assert len(setup.volumes) == 180
    assert depth == pytest.approx(45 * DS2.layer_depth)
    silicon = [volume for volume in setup.volumes if volume.cell is not None]
    assert {volume.material for volume in silicon} == {"G4_Si"}
    assert silicon[0].centre[2] == pytest.approx(1.55)
    assert silicon[-1].centre[2] == pytest.approx(153 - 0.15)
    depths, layers = layer_of(setup)
    np.testing.assert_array_equal(layers, np.repeat(np.arange(45), 2))
    np.testing.assert_allclose(np.diff(depths), 1.7)


@pytest.mark.parametrize("detector", [DS2, DS3])
def test_the_middle_of_a_cell_lies_in_it(detector):
    eta, phi, _ = detector.layers[0].centres
    per_layer = len(eta)
    for layer in (0, 44):
        cells = mesh_cells(detector, np.full(per_layer, layer), eta, phi)
        np.testing.assert_array_equal(cells, layer * per_layer + np.arange(per_layer))


def test_outside_of_the_rings_there_is_no_cell():
    layer = np.zeros(3, np.intp)
    cells = mesh_cells(DS2, layer, np.array([0.0, 41.8, 41.9]), np.array([0.0, 0.0, 0.0]))
    assert cells[0] >= 0
    assert cells[1] >= 0
    assert cells[2] == -1


def test_small_responses_are_empty():
    scorer = Scorer(scale=2.0, threshold=1.0)
    responses = scorer.responses(np.array([0.4, 0.5, 3.0]))
    np.testing.assert_array_equal(responses, np.float32([0, 1, 6]))


def test_the_hash_tells_setups_apart():
    digests = {setup_named(name).digest for name in SETUPS}
    digests.add(setup_named("ds2", "steps").digest)
    assert len(digests) == len(SETUPS) + 1
    assert setup_named("ds2").digest == setup_named("ds2", "replicas").digest


BLOCK = Volume(Box((20.0, 20.0, 200.0)), "G4_PbWO4", (0.0, 0.0, 100.0), 0)


def test_particles_start_at_the_front():
    assert Setup((CRYSTALS,), (BLOCK,)).front == (0, 0, 0)
    tube = dataclasses.replace(BLOCK, shape=Tube(0.0, 5.0, 60.0))
    assert Setup((CRYSTALS,), (tube,)).front == (0, 0, 70)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"detectors": ()}, "one detector at least"),
        ({"volumes": (dataclasses.replace(BLOCK, cell=None),)}, "nothing would be counted"),
        ({"volumes": (dataclasses.replace(BLOCK, cell=400),)}, "cells 0 to 399, the volumes count for 400"),
        ({"volumes": (BLOCK, dataclasses.replace(BLOCK, centre=(19.0, 0.0, 100.0)))}, "overlap"),
        ({"scorer": Scorer("steps")}, "crystals has no layers"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Setup(**{"detectors": (CRYSTALS,), "volumes": (BLOCK,), **change})


def test_boxes_may_touch():
    Setup((CRYSTALS,), (BLOCK, dataclasses.replace(BLOCK, centre=(20.0, 0.0, 100.0), cell=1)))


def test_replicas_take_one_mesh():
    with pytest.raises(ValueError, match="replicas hold the mesh of one detector, got ds2"):
        setup_named("ds2+ds3", "replicas")


@pytest.mark.parametrize(
    ("name", "scoring", "message"),
    [
        ("ds4", None, "no detector 'ds4' to simulate.*did you mean 'ds3'"),
        ("ds2", "volumes", "the scoring is steps or replicas"),
        ("crystals", "steps", "the scoring is steps or replicas"),
        ("caloforge.simulate.geometry:no_such", None, "cannot import"),
        ("made:made_events", None, "must return a Setup, got Events"),
    ],
)
def test_unknown_names_are_refused(name, scoring, message):
    with pytest.raises(ValueError, match=message):
        setup_named(name, scoring)


def test_a_detector_without_an_energy_cannot_be_simulated():
    blind = dataclasses.replace(CRYSTALS, conditions=CRYSTALS.conditions[1:])
    with pytest.raises(ValueError, match="must have a condition energy"):
        Setup((blind,), (BLOCK,))
    assert ZN.energy is not None
