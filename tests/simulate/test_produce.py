"""Productions with a process that stands in for Geant4: particles, parts, resume and failures."""

import dataclasses
import filecmp
import json
import sys

import numpy as np
import pytest

from caloforge.detectors import CRYSTALS, DS2, DS2_ANGLES, from_xml
from caloforge.io import open_events, provenance
from caloforge.simulate import Job, produce, setup_named, simulate
from caloforge.simulate.physics import ELECTROMAGNETIC
from caloforge.simulate.produce import reason_of, shots_of

JOB = Job("crystals", "gamma", (50.0, 1000.0), theta=(0.0, 0.3), phi=(-3.0, 3.0), seed=5, part=4)

WORKER = """
import json, os, sys
from pathlib import Path
import numpy as np
from caloforge.simulate.produce import Job, shots_of, write_part

task = json.loads(sys.argv[1])
job = Job.parse(task["job"])
marks = Path(os.environ["MARKS"])
(marks / f"{task['part']}-{os.getpid()}").touch()
broken = marks / "break"
if broken.exists() and task["part"] == int(broken.read_text()):
    print("*** G4Exception : em0003\\n   issued by : Nobody\\nno such table\\n\\n*** Fatal Exception ***")
    sys.stdout.flush()
    os.abort()
setup = job.setup()
shots = shots_of(job, setup, task["part"], task["rows"])
responses = {
    f"responses_{k}": np.repeat(shots.energy[:, None], detector.cells, 1) for k, detector in enumerate(setup.detectors)
}
write_part(
    Path(task["path"]),
    digest=np.array(task["digest"]),
    geant4=np.array("0.0.0"),
    rows=np.array(task["rows"]),
    **responses,
)
"""


@pytest.fixture
def marks(tmp_path, monkeypatch):
    """A folder with a file for each process that has run."""
    modules, folder = tmp_path / "modules", tmp_path / "marks"
    modules.mkdir()
    folder.mkdir()
    (modules / "stand_in.py").write_text(WORKER)
    monkeypatch.syspath_prepend(modules)
    monkeypatch.setenv("MARKS", str(folder))
    monkeypatch.setattr(produce, "WORKER", "stand_in")
    monkeypatch.setattr(produce, "wheel_version", lambda: "0.0")
    return folder


@pytest.fixture
def data(tmp_path):
    for one in ELECTROMAGNETIC:
        (tmp_path / "data" / one.folder).mkdir(parents=True)
    return tmp_path / "data"


def parts_run(marks):
    numbers = sorted(int(path.name.partition("-")[0]) for path in marks.iterdir() if path.name != "break")
    for path in marks.iterdir():
        path.unlink()
    return numbers


# --- particles -----------------------------------------------------------------------------------------------


def test_shots_are_a_function_of_seed_and_part():
    whole, some = shots_of(JOB, JOB.setup(), 3, 100), shots_of(JOB, JOB.setup(), 3, 40)
    for name in ("energy", "theta", "phi"):
        np.testing.assert_array_equal(getattr(whole, name)[:40], getattr(some, name))
    assert whole.seeds == some.seeds
    others = [
        shots_of(JOB, JOB.setup(), 4, 100),
        shots_of(dataclasses.replace(JOB, seed=6), JOB.setup(), 3, 100),
    ]
    for other in others:
        assert not set(other.energy) & set(whole.energy)
        assert other.seeds != whole.seeds
    assert all(0 < seed < 2**31 for seed in whole.seeds)


def test_spectra():
    job, gev = dataclasses.replace(JOB, energy=(1.0, 100.0)), setup_named("ds2")
    log = shots_of(job, gev, 0, 4000).energy
    assert np.median(log) == pytest.approx(10_000, rel=0.1)
    flat = shots_of(dataclasses.replace(job, spectrum="flat"), gev, 0, 4000).energy
    assert flat.mean() == pytest.approx(50_500, rel=0.05)
    fixed = shots_of(dataclasses.replace(job, spectrum="fixed", energy=(7.0, 7.0)), JOB.setup(), 0, 10).energy
    np.testing.assert_array_equal(fixed, np.float32(7))


def test_conditions_are_in_the_detectors_order_and_units():
    shots = shots_of(JOB, JOB.setup(), 0, 5)
    np.testing.assert_array_equal(
        shots.conditions(CRYSTALS), np.column_stack([shots.energy, shots.theta, shots.phi])
    )
    np.testing.assert_array_equal(shots.conditions(DS2)[:, 0], shots.energy)
    np.testing.assert_array_equal(
        shots.conditions(DS2_ANGLES), np.column_stack([shots.energy, shots.theta, shots.phi])
    )
    np.testing.assert_allclose(np.linalg.norm(shots.directions, axis=1), 1)
    np.testing.assert_allclose(np.arccos(shots.directions[:, 2]), shots.theta, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spectrum": "steep"}, "a spectrum is one of log, flat, fixed, got 'steep'"),
        ({"energy": (10.0, 1.0)}, "from the least to the greatest value, got 10 to 1"),
        ({"energy": (0.0, 1.0)}, "energies must be above 0"),
        ({"spectrum": "fixed"}, "a fixed energy is given twice"),
        ({"theta": (0.0, 2.0)}, "theta must lie between 0 and pi/2"),
        ({"seed": -1}, "a seed lies between"),
        ({"cut": 0.0}, "the range cut must be above 0 mm"),
        ({"part": 0}, "one event at least"),
    ],
)
def test_a_job_out_of_range_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(JOB, **change)


def test_particles_aslant_need_a_condition_that_tells():
    job = Job("ds2", "e+", (1.0, 2.0), theta=(0.0, 0.1))
    with pytest.raises(ValueError, match="ds2 has no condition theta"):
        job.check(setup_named("ds2"))


# --- parts ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_output_is_the_same_for_any_jobs(marks, data, tmp_path):
    one, two = tmp_path / "one.h5", tmp_path / "two.h5"
    simulate(JOB, one, 10, g4data=data)
    assert parts_run(marks) == [0, 1, 2]
    simulate(JOB, two, 10, jobs=3, g4data=data)
    assert filecmp.cmp(one, two, shallow=False)
    assert not list(tmp_path.glob("*.parts"))
    events = open_events(one).slices(slice(None))
    energies = np.concatenate(
        [shots_of(JOB, JOB.setup(), part, rows).energy for part, rows in ((0, 4), (1, 4), (2, 2))]
    )
    np.testing.assert_array_equal(events.conditions[:, 0], energies)
    np.testing.assert_array_equal(events.responses[:, 3, 7], energies)
    np.testing.assert_array_equal(events.pdg, 22)
    np.testing.assert_array_equal(events.group, np.arange(10))


def test_two_detectors_see_the_same_showers(marks, data, tmp_path):
    job = Job("ds2+ds3", "e+", (1.0, 2.0), part=2)
    files = simulate(job, tmp_path / "out.h5", 3, g4data=data)
    assert [file.name for file in files] == ["out-ds2.h5", "out-ds3.h5"]
    first, second = (open_events(file).slices(slice(None)) for file in files)
    np.testing.assert_array_equal(first.conditions, second.conditions)
    np.testing.assert_array_equal(first.responses[:, 0, 0, 0], second.responses[:, 0, 0, 0])


@pytest.mark.slow
def test_parts_that_are_there_are_not_made_again(marks, data, tmp_path):
    whole, out = tmp_path / "whole.h5", tmp_path / "out.h5"
    simulate(JOB, whole, 10, g4data=data)
    parts_run(marks)
    (marks / "break").write_text("1")
    with pytest.raises(
        ValueError, match=r"Geant4 aborted \(exit code 134\) in part 1: .*em0003.*no such table"
    ):
        simulate(JOB, out, 10, g4data=data)
    assert not out.exists()
    assert parts_run(marks) == [0, 1]
    with pytest.raises(ValueError, match="a job was begun"):
        simulate(JOB, out, 10, g4data=data)
    folder = tmp_path / "out.h5.parts"
    (folder / ".part-000001.partial-1").write_text("half a part")
    simulate(JOB, out, 10, g4data=data, resume=True)
    assert parts_run(marks) == [1, 2]
    assert filecmp.cmp(whole, out, shallow=False)
    assert not folder.exists()


@pytest.mark.slow
def test_a_job_can_be_made_longer(marks, data, tmp_path):
    whole, out = tmp_path / "whole.h5", tmp_path / "out.h5"
    simulate(JOB, whole, 10, g4data=data)
    parts_run(marks)
    simulate(JOB, out, 6, g4data=data, keep=True)
    assert len(open_events(out)) == 6
    assert parts_run(marks) == [0, 1]
    simulate(JOB, out, 10, g4data=data, resume=True, keep=True)
    assert parts_run(marks) == [1, 2]  # the second had two rows of four
    assert filecmp.cmp(whole, out, shallow=False)
    simulate(JOB, out, 6, g4data=data, resume=True)
    assert parts_run(marks) == []
    assert len(open_events(out)) == 6


def test_a_binning_file_is_simulated_and_read_from_anywhere(marks, data, tmp_path, monkeypatch):
    binning = tmp_path / "mine.xml"
    binning.write_text(
        '<Bins><Bin pid="22" name="photon"><Layer id="3" r_edges="0,1,5" n_bin_alpha="4"/></Bin></Bins>'
    )
    layers = ("Pb:2mm,lAr:4mm",)
    job = Job(str(binning), "gamma", (1.0, 2.0), part=2, layers=layers, fraction=0.2)
    (file,) = simulate(job, tmp_path / "out.h5", 3, g4data=data)
    origin = provenance(file)
    assert {name: origin[name] for name in ("detector", "layers", "fraction")} == {
        "detector": "mine.xml",
        "layers": list(layers),
        "fraction": 0.2,
    }
    monkeypatch.chdir(tmp_path)
    events = open_events(file, from_xml("mine.xml")).slices(slice(None))
    assert events.responses.shape == (3, 8)
    np.testing.assert_array_equal(events.responses[:, 0], events.conditions[:, 0])
    parts_run(marks)
    moved = dataclasses.replace(job, detector="mine.xml")
    assert simulate(moved, file, 3, g4data=data, resume=True) == [file]
    assert parts_run(marks) == []
    with pytest.raises(ValueError, match=r"is of another job: layers was .*4mm.*, now .*5mm"):
        simulate(dataclasses.replace(moved, layers=("Pb:2mm,lAr:5mm",)), file, 3, g4data=data, resume=True)


def test_a_finished_job_is_left_alone(marks, data, tmp_path):
    out = tmp_path / "out.h5"
    simulate(JOB, out, 4, g4data=data)
    parts_run(marks)
    with pytest.raises(ValueError, match="is there already"):
        simulate(JOB, out, 4, g4data=data)
    assert simulate(JOB, out, 4, g4data=data, resume=True) == [out]
    assert parts_run(marks) == []


@pytest.mark.parametrize("finished", [True, False])
def test_another_job_is_not_mixed_in(marks, data, tmp_path, finished):
    out = tmp_path / "out.h5"
    if not finished:
        (marks / "break").write_text("1")
        with pytest.raises(ValueError, match="aborted"):
            simulate(JOB, out, 8, g4data=data)
    else:
        simulate(JOB, out, 8, g4data=data)
    with pytest.raises(ValueError, match=r"is of another job: cut was 0\.7, now 1"):
        simulate(dataclasses.replace(JOB, cut=1.0), out, 8, g4data=data, resume=True)


def test_a_damaged_part_is_named(marks, data, tmp_path):
    out = tmp_path / "out.h5"
    simulate(JOB, out, 4, g4data=data, keep=True)
    out.unlink()
    part = tmp_path / "out.h5.parts" / "part-000000.npz"
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"part-000000\.npz is not a part, or damaged"):
        simulate(JOB, out, 4, g4data=data, resume=True)


def test_the_file_says_how_it_was_made(marks, data, tmp_path):
    (file,) = simulate(JOB, tmp_path / "out.h5", 4, g4data=data)
    origin = provenance(file)
    expected = {
        "simulation": "Geant4",
        "geant4": "0.0.0",
        "geant4_pybind": "0.0",
        "physics": "G4EmStandardPhysics",
        "cut": 0.7,
        "seed": 5,
        "particle": "gamma",
        "energy": [50.0, 1000.0],
        "energy_unit": "MeV",
        "events": 4,
        "part": 4,
    }
    assert {name: origin[name] for name in expected} == expected
    assert origin["data_sets"]["origin"] == "substitutes"
    assert origin["data_sets"]["folders"][0] == "G4EMLOW8.8"
    assert str(tmp_path) not in json.dumps(origin)


def test_without_the_wheel_the_message_says_what_to_install(data, tmp_path, monkeypatch):
    def absent(name):
        raise produce.PackageNotFoundError(name)

    monkeypatch.setattr(produce, "version_of", absent)
    with pytest.raises(ImportError, match=r"pip install 'caloforge\[geant4\]'"):
        simulate(JOB, tmp_path / "out.h5", 4, g4data=data)


def test_geant4_is_not_imported_here():
    assert "geant4_pybind" not in sys.modules


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        (
            "",
            -9,
            "was ended by signal 9 in part 7: it said nothing. What is done stays: go on with --resume.",
        ),
        ("noise\nlast words\n", 3, "ended with exit code 3 in part 7: last words."),
        ("caloforge: error: no material 'G4_X'\n", 2, "no material 'G4_X'"),
    ],
)
def test_failures_are_told_in_one_line(text, code, message):
    reason = reason_of(text, code, 7)
    assert reason.endswith(message)
    assert "\n" not in reason
