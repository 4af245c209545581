"""Set-ups: plain data, checked without Geant4."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from caloforge import detectors
from caloforge.detectors import CRYSTALS, DS2, DS3, ZN, detector_named
from caloforge.simulate import SETUPS, Box, Scorer, Setup, Tube, Volume, sampling_calorimeter, setup_named
from caloforge.simulate.geometry import layer_of, mesh_cells
from caloforge.simulate.worker import Counter


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


# --- binning files -------------------------------------------------------------------------------------------

DS2_XML = Path(detectors.__file__).with_name("binning_ds2.xml")

RAGGED = """<Bins>
  <Bin pid="22" name="photon">
    <Layer id="0" r_edges="0,5,20" n_bin_alpha="1"/>
    <Layer id="1" r_edges="0,2,4,8" n_bin_alpha="10"/>
    <Layer id="2" r_edges="0" n_bin_alpha="1"/>
    <Layer id="12" r_edges="0,50,500" n_bin_alpha="1"/>
  </Bin>
  <Bin pid="211" name="pion"><Layer id="0" r_edges="0,5" n_bin_alpha="1"/></Bin>
</Bins>"""


@pytest.fixture
def ragged(tmp_path):
    path = tmp_path / "ragged.xml"
    path.write_text(RAGGED)
    return path


def test_a_binning_file_with_the_sheets_of_ds2_is_ds2():
    by_file = setup_named(str(DS2_XML), layers=["W:1.4mm,Si:0.3mm,W:1.4mm,Si:300um"], fraction=0.033)
    by_name = setup_named("ds2")
    assert by_file.volumes == by_name.volumes
    assert by_file.scorer == by_name.scorer
    assert by_file.front == by_name.front
    assert setup_named(str(DS2_XML), "steps", ["W:1mm,Si:1mm"]).scorer.kind == "steps"


def test_layers_of_a_binning_file_differ(ragged):
    setup = setup_named(f"{ragged}:photon", layers=["Pb:2mm,lAr:4mm", "12=G4_PLASTIC_SC_VINYLTOLUENE:1.5cm"])
    assert setup.scorer.kind == "steps"  # rings differ
    assert setup.particle == "gamma"
    assert setup.scorer.scale == 1
    sheets = [
        (volume.material, volume.shape.size[2], volume.centre[2], volume.cell) for volume in setup.volumes
    ]
    assert sheets == [
        ("G4_Pb", 2.0, 1.0, None),
        ("G4_lAr", 4.0, 4.0, 0),
        ("G4_Pb", 2.0, 7.0, None),
        ("G4_lAr", 4.0, 10.0, 1),
        ("G4_PLASTIC_SC_VINYLTOLUENE", 15.0, 19.5, 2),
    ]
    assert setup.volumes[0].shape.size[:2] == (1500.0, 1500.0)  # wider than the rings


def test_steps_belong_to_the_sheet_they_are_in(ragged):
    layers = ["0=Si:1mm", "1=PbWO4:200mm", "12=W:50mm,Si:2mm"]
    counter = Counter(setup_named(f"{ragged}:photon", layers=layers))
    depths = np.array([0.01, 0.99, 1.01, 20.0, 200.9, 251.1, 252.9])
    counter.add(np.column_stack([np.ones((7, 2)), depths]), np.ones(7))
    counter.end_event(None)
    sums = counter.setup.detectors[0].readout(counter.deposits[0][0][None])
    np.testing.assert_array_equal(sums, [[2, 3, 2]])


def test_what_a_binning_file_is_made_of_is_part_of_the_hash(ragged, tmp_path):
    name = f"{ragged}:photon"
    moved = tmp_path / "elsewhere" / ragged.name
    moved.parent.mkdir()
    moved.write_text(RAGGED)
    digest = setup_named(name, layers=["W:1mm,Si:1mm"]).digest
    assert setup_named(f"{moved}:photon", layers=["W:1.0mm,Si:0.1cm"]).digest == digest
    moved.write_text(RAGGED.replace("0,5,20", "0,6,20"))
    others = {
        setup_named(f"{moved}:photon", layers=["W:1mm,Si:1mm"]).digest,
        setup_named(name, layers=["W:1mm,Si:2mm"]).digest,
        setup_named(name, layers=["W:1mm,Si:1mm"], fraction=0.5).digest,
    }
    assert len(others | {digest}) == 4


@pytest.mark.parametrize(
    ("layers", "fraction", "message"),
    [
        ([], None, r"has rings and angles, not materials: .* --layers W:1\.4mm,Si:0\.3mm"),
        (["W,Si"], None, r"a sheet is MATERIAL:DEPTH with a depth above 0 in mm, cm, um, .* got 'W'"),
        (["W:0mm"], None, "a depth above 0"),
        (["W:1.2.3mm"], None, "a depth above 0"),
        (["W:1mm,"], None, "got ''"),
        (["0-1=W:1mm"], None, "layer 12 has no sheets: give them as 12="),
        (["W:1mm", "2=W:1mm"], None, "there is no layer 2: layers are 0, 1, 12"),
        (["W:1mm", "Pb:1mm"], None, "two texts are for all layers, the second is 'Pb:1mm'"),
        (["0-1=W:1mm", "1=Pb:1mm"], None, "layer 1 is given twice"),
        (["0-1=0=W:1mm"], None, "layers are given as"),
        (["W:1mm"], 0.0, "a sampling fraction lies above 0 and not above 1, got 0"),
    ],
)
def test_layers_that_do_not_fit_are_refused(ragged, layers, fraction, message):
    with pytest.raises(ValueError, match=message):
        setup_named(f"{ragged}:photon", layers=layers, fraction=fraction)


def test_only_binning_files_take_layers(ragged):
    with pytest.raises(
        ValueError, match=r"layers and sampling fraction are those of a binning file \.xml, got ds2"
    ):
        setup_named("ds2", layers=["W:1mm"])
    with pytest.raises(ValueError, match="replicas need layers alike"):
        setup_named(f"{ragged}:photon", "replicas", ["W:1mm"])
