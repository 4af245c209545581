"""Geant4 itself, with the substitute data sets: skipped where either is absent."""

import filecmp
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from caloforge import detectors
from caloforge.detectors import DS2, DS2_ANGLES, from_xml
from caloforge.io import open_events, provenance
from caloforge.metrics import observe_showers
from caloforge.simulate import Job, simulate
from simulate_data import G4DATA, SUBSTITUTED

if importlib.util.find_spec("geant4_pybind") is None:
    pytest.skip("needs the package geant4-pybind", allow_module_level=True)

if G4DATA is None:
    pytest.skip("no Geant4 data sets", allow_module_level=True)

DATA = G4DATA

pytestmark = pytest.mark.slow


def events_of(path):
    return open_events(path).slices(slice(None))


@pytest.fixture(scope="module")
def showers(tmp_path_factory):
    """Showers of 4 GeV in both meshes."""
    job = Job("ds2+ds3", "e+", (4.0, 4.0), spectrum="fixed", seed=1, part=40)
    return simulate(job, tmp_path_factory.mktemp("showers") / "g4.h5", 40, g4data=DATA)


def test_both_meshes_see_the_same_showers(showers):
    first, second = map(events_of, showers)
    np.testing.assert_array_equal(first.conditions, second.conditions)
    # each mesh drops its voxels below the threshold
    layers = [events.responses.sum((2, 3)) for events in (first, second)]
    assert np.abs(layers[0] - layers[1]).max() < 0.5
    # twice as many rings: the first of ds2 is the first two of ds3
    rings = [events.responses.sum((0, 1, 2)) for events in (first, second)]
    np.testing.assert_allclose(rings[0], rings[1].reshape(9, 2).sum(1), rtol=1e-2)


def test_showers_follow_the_direction_of_the_particle(tmp_path):
    job = Job("ds2-angles", "e+", (2.0, 2.0), "fixed", theta=(0.15, 0.15), phi=(-3.0, 3.0), seed=1, part=40)
    (file,) = simulate(job, tmp_path / "angles.h5", 40, g4data=DATA)
    events = events_of(file)
    assert events.detector is DS2_ANGLES
    showers, phi = observe_showers(events), events.feature("phi").astype(float)
    along = showers.centres[:, :, 0] * np.cos(phi)[:, None] + showers.centres[:, :, 1] * np.sin(phi)[:, None]
    across = showers.centres[:, :, 1] * np.cos(phi)[:, None] - showers.centres[:, :, 0] * np.sin(phi)[:, None]
    line = np.tan(0.15) * 3.4 * (np.arange(45) + 0.5)
    weight = showers.layers[:, 4:14]
    assert np.average(along[:, 4:14] / line[4:14], weights=weight) == pytest.approx(1, abs=0.15)
    assert np.average(across[:, 4:14], weights=weight) == pytest.approx(0, abs=0.6)


def test_showers_look_as_those_of_the_stored_set(showers):
    events = events_of(showers[0])
    energy = events.responses.sum((1, 2, 3)) / events.conditions[:, 0]
    assert energy.mean() == pytest.approx(0.956, abs=0.04)  # 0.06 from shower to shower
    profile = events.responses.sum((0, 2, 3))
    assert (profile * np.arange(45)).sum() / profile.sum() == pytest.approx(8.6, abs=0.8)
    rings = events.responses.sum((0, 1, 2))
    assert rings[0] / rings.sum() == pytest.approx(0.70, abs=0.03)
    angles = events.responses.sum((0, 1, 3))
    assert angles.min() > 0.8 * angles.mean()


def test_the_file_names_geant4_and_the_substitutes(showers):
    origin = provenance(showers[0])
    assert origin["geant4"].startswith("11.")
    assert origin["data_sets"]["origin"] == ("substitutes" if SUBSTITUTED else "official")


def test_replicas_put_energy_where_steps_do(showers, tmp_path):
    job = Job("ds2", "e+", (4.0, 4.0), spectrum="fixed", seed=1, scoring="replicas", part=40)
    (file,) = simulate(job, tmp_path / "replicas.h5", 40, g4data=DATA)
    by_replicas, by_steps = events_of(file), events_of(showers[0])
    assert by_replicas.responses.sum() == pytest.approx(by_steps.responses.sum(), rel=0.06)
    for axes in ((0, 2, 3), (0, 1, 2)):
        shares = [events.responses.sum(axes) / events.responses.sum() for events in (by_replicas, by_steps)]
        assert np.abs(shares[0] - shares[1]).max() < 0.03
    assert by_replicas.responses.shape[1:] == DS2.shape


def test_options_of_the_physics_change_the_energy(showers, tmp_path):
    job = Job(
        "ds2", "e+", (4.0, 4.0), spectrum="fixed", seed=1, physics="G4EmStandardPhysics_option1", part=40
    )
    (file,) = simulate(job, tmp_path / "option1.h5", 40, g4data=DATA)
    ratio = events_of(file).responses.sum() / events_of(showers[0]).responses.sum()
    assert 0.65 < ratio < 0.85


@pytest.fixture(scope="module")
def crystals(tmp_path_factory):
    """Photons in crystals by the command line, undisturbed."""
    out = tmp_path_factory.mktemp("crystals") / "whole.h5"
    finish(command(out))
    return out


def finish(process):
    _, errors = process.communicate()
    assert process.returncode == 0, errors


def command(out, *more):
    arguments = ["simulate", "crystals", str(out), "--events", "40", "--energy", "50", "1000", "--part", "10"]
    arguments += ["--seed", "3", "--g4data", str(DATA), *more]
    call = "import sys; from caloforge.cli import main; sys.argv[0] = 'caloforge'; main()"
    return subprocess.Popen([sys.executable, "-c", call, *arguments], stderr=subprocess.PIPE, text=True)


def test_crystals_hold_the_energy(crystals):
    events = events_of(crystals)
    sums = events.responses.sum((1, 2))
    energy, theta, phi = events.conditions.T
    assert (sums < energy * 1.001).all()
    assert np.median(sums / energy) > 0.9
    assert theta.max() <= 0.3
    # the shower moves to where the photon points: 7 to 10 cm deep
    x, y = ((events.responses * (np.indices((20, 20))[k] - 9.5)).sum((1, 2)) * 2 / sums for k in (0, 1))
    along = x * np.cos(phi) + y * np.sin(phi)
    slope = (along * np.tan(theta)).sum() / (np.tan(theta) ** 2).sum()
    assert 3 < slope < 12


@pytest.mark.parametrize("jobs", [1, 2])
def test_kills_change_nothing(crystals, tmp_path, jobs):
    out = tmp_path / "out.h5"
    more = ["--jobs", str(jobs), "--resume"]
    for wait in np.linspace(0.5, 2.2, 10):
        process = command(out, *more)
        time.sleep(wait)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    finish(command(out, *more))
    assert filecmp.cmp(out, crystals, shallow=False)


def test_an_abort_is_one_line(tmp_path):
    if not SUBSTITUTED:
        pytest.skip("needs the substitute data sets")
    data = tmp_path / "data"
    shutil.copytree(DATA, data, copy_function=shutil.copyfile)
    table = data / "G4EMLOW8.8" / "epics2017" / "phot" / "pe-cs-74.dat"
    table.parent.chmod(0o755)
    table.unlink()
    job = Job("ds2", "e+", (1.0, 1.0))
    with pytest.raises(
        ValueError, match=r"Geant4 aborted \(exit code 134\) in part 0: .*pe-cs-74\.dat"
    ) as error:
        simulate(job, tmp_path / "out.h5", 2, g4data=data)
    assert "\n" not in str(error.value)


def finish_job(tmp_path, name, *arguments):
    call = "import sys; from caloforge.cli import main; sys.argv[0] = 'caloforge'; main()"
    more = ["--g4data", str(DATA)]
    line = [
        sys.executable,
        "-c",
        call,
        "simulate",
        *arguments[:1],
        str(tmp_path / name),
        *arguments[1:],
        *more,
    ]
    finish(subprocess.Popen(line, stderr=subprocess.PIPE, text=True))
    return tmp_path / name


def test_a_binning_file_of_ds2s_sheets_gives_the_showers_of_ds2(tmp_path):
    binning = str(Path(detectors.__file__).with_name("binning_ds2.xml"))
    shared = ["--events", "4", "--energy", "2", "4", "--seed", "3"]
    by_name = finish_job(tmp_path, "ds2.h5", "ds2", *shared, "--particle", "e-")
    sheets = ["--layers", "W:1.4mm,Si:0.3mm,W:1.4mm,Si:0.3mm", "--sampling-fraction", "0.033"]
    by_file = finish_job(tmp_path, "file.h5", binning, *shared, *sheets)
    first, second = events_of(by_name), open_events(by_file, from_xml(binning)).slices(slice(None))
    np.testing.assert_array_equal(first.responses, second.responses)
    np.testing.assert_array_equal(first.conditions, second.conditions)
    assert (first.responses.sum((1, 2, 3)) > 1000).all()


def test_layers_of_a_binning_file_hold_what_their_sheets_stop(tmp_path):
    binning = tmp_path / "mine.xml"
    rows = [f'<Layer id="{k}" r_edges="0,20,200" n_bin_alpha="{a}"/>' for k, a in enumerate((1, 8, 1))]
    binning.write_text(f'<Bins><Bin pid="22" name="photon">{"".join(rows)}</Bin></Bins>')
    layers = ["--layers", "0=Si:1mm", "--layers", "1=PbWO4:20cm", "--layers", "2=W:5cm,Si:1mm"]
    out = finish_job(tmp_path, "out.h5", str(binning), "--events", "20", "--energy", "1", "1.5", *layers)
    events = open_events(out, from_xml(binning)).slices(slice(None))
    sums = events.detector.readout(events.responses) / events.conditions
    assert (sums.sum(1) <= 1.001).all()
    before, crystal, behind = np.median(sums, 0)
    assert before < 0.01
    assert crystal > 0.9
    assert behind < 0.01


OWN = """
from caloforge.detectors import CRYSTALS
from caloforge.simulate import Box, Scorer, Setup, Tube, Volume


def rod():
    volumes = (Volume(Tube(0.0, 20.0, 300.0), "G4_Fe", (0.0, 0.0, 150.0), 210),)
    return Setup((CRYSTALS,), volumes, Scorer(threshold=1.0), energy_unit="GeV")


def cesium():
    return Setup((CRYSTALS,), (Volume(Box((400.0, 400.0, 200.0)), "G4_CESIUM_IODIDE", (0.0, 0.0, 100.0), 0),))
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_setups.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    return "own_setups"


def test_a_setup_of_ones_own(own, tmp_path):
    job = Job(f"{own}:rod", "e-", (1.0, 1.0), spectrum="fixed")
    (file,) = simulate(job, tmp_path / "rod.h5", 5, g4data=DATA)
    responses = events_of(file).responses
    assert (responses[:, 10, 10] > 100).all()
    assert np.count_nonzero(responses) == 5


def test_elements_without_tables_are_named(own, tmp_path):
    if not SUBSTITUTED:
        pytest.skip("the official data sets have all elements")
    job = Job(f"{own}:cesium", "e-", (1.0, 1.0))
    with pytest.raises(ValueError, match="for which the substitute data sets have no tables"):
        simulate(job, tmp_path / "out.h5", 1, g4data=DATA)
