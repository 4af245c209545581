"""The command line: what it leaves, and how it refuses what is wrong."""

import errno
import json
import re
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest
import torch

from caloforge import __version__, cli
from caloforge.detectors import ZP
from caloforge.io import create, open_events, provenance
from made import made_events

TINY = (
    "model.network.patch=4",
    "model.network.blocks=1",
    "model.solver.steps=2",
    "model.epochs=1",
    "model.batch_size=64",
    "model.validation_events=16",
    "training.threads=1",
    "training.accelerator=cpu",
)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, events_file):
    """A trained run, made once."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    settings = [part for setting in TINY for part in ("--set", setting)]
    with pytest.MonkeyPatch.context() as patch:
        command = [
            "caloforge",
            "train",
            "zn-flow_matching",
            "--data",
            str(events_file),
            "--out",
            str(out),
            *settings,
        ]
        patch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as stop:
            cli.main()
    assert not stop.value.code
    return out


def copy_of(run_folder, tmp_path):
    return shutil.copytree(run_folder, tmp_path / "run")


# --- what it leaves ----------------------------------------------------------------------------------------


def test_every_verb_in_a_row(caloforge, run_folder, events_file, tmp_path):
    run = copy_of(run_folder, tmp_path)
    code, out, _ = caloforge("data", "inspect", events_file)
    assert code == 0
    assert "360" in out
    assert "gamma" in out

    code, _, err = caloforge(
        "sample", run, events_file, tmp_path / "events.h5", "--seed", 5, "--batch-size", 32
    )
    assert (code, err) == (0, "")
    generated = open_events(tmp_path / "events.h5")
    assert len(generated) == 360
    assert provenance(tmp_path / "events.h5")["seed"] == 5

    sweeps = ("--sweep", "solver.steps=1,3", "--sweep", "solver.method=midpoint")
    code, out, _ = caloforge("evaluate", run, "--reference", events_file, "--repeats", 2, *sweeps)
    assert code == 0
    assert "W1" in out
    scores = json.loads((run / "scores.json").read_text())
    everything = scores["sets"][events_file.stem]["groups"]["all"]
    assert everything["n"] == 72
    assert len(everything["metrics"]["w1"]["values"]) == 2
    assert everything["metrics"]["mae_c"]["particles"] == 6
    assert [entry["value"] for entry in scores["sweep"]] == [1, 3, "midpoint"]
    kept = open_events(run / "generated" / f"{events_file.stem}.h5")
    assert (kept.primaries.fold < 2).all()

    code, _, err = caloforge("report", run, "--out", tmp_path / "report.html")
    assert (code, err) == (0, "")
    page = (tmp_path / "report.html").read_text()
    assert "<html" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_the_same_seed_gives_the_same_file_for_any_order(caloforge, run_folder, events_file, tmp_path):
    for name in ("a", "b"):
        assert caloforge("sample", run_folder, events_file, tmp_path / f"{name}.npz", "--seed", 1)[0] == 0
    first, second = (open_events(tmp_path / f"{name}.npz") for name in ("a", "b"))
    np.testing.assert_array_equal(first.responses, second.responses)


def test_scores_of_a_sampled_file_are_those_of_its_test_rows(caloforge, run_folder, events_file, tmp_path):
    caloforge("sample", run_folder, events_file, tmp_path / "events.h5")
    code, _, err = caloforge("evaluate", tmp_path / "events.h5", "--reference", events_file)
    assert (code, err) == (0, "")
    scores = json.loads((tmp_path / "events.scores.json").read_text())
    assert (scores["split"], scores["part"]) == ("canonical", "test")
    assert scores["sets"][events_file.stem]["groups"]["all"]["n"] == 72


def test_foreign_events_are_scored_with_an_unknown_split(caloforge, events_file, tmp_path):
    with create(tmp_path / "foreign.h5", made_events().detector) as writer:
        writer.append(made_events(particles=30, repeats=12))
    code, _, _ = caloforge("evaluate", tmp_path / "foreign.h5", "--reference", events_file)
    assert code == 0
    scores = json.loads((tmp_path / "foreign.scores.json").read_text())
    assert (scores["split"], scores["part"]) == ("unknown", "all")
    assert scores["sets"][events_file.stem]["groups"]["all"]["metrics"]["w1"]["mean"] == 0


@pytest.mark.parametrize("suffix", [".npz", ".parquet", ".root"])
def test_convert_keeps_the_events(caloforge, events_file, tmp_path, suffix):
    code, out, _ = caloforge("data", "convert", events_file, tmp_path / f"copy{suffix}")
    assert code == 0
    assert "360 events" in out
    copy = open_events(tmp_path / f"copy{suffix}").slices(slice(None))
    original = open_events(events_file).slices(slice(None))
    np.testing.assert_array_equal(copy.responses, original.responses)
    np.testing.assert_array_equal(copy.conditions, original.conditions)


def test_info_and_version(caloforge):
    code, out, _ = caloforge("info")
    assert code == 0
    for word in ("zn_wide", "flow_matching", "zn-, zp-: ", "torch"):
        assert word in out
    assert caloforge("--version") == (0, f"caloforge {__version__}\n", "")


def test_unrounded_output_by_name(caloforge, run_folder, events_file, tmp_path):
    assert caloforge("sample", run_folder, events_file, tmp_path / "x.h5", "--set", "rounding=none")[0] == 0
    responses = open_events(tmp_path / "x.h5").slices(slice(0, 10)).responses
    assert responses.dtype == np.float32
    assert (responses != np.rint(responses)).any()


SPACE = """
[parameters.model.optimizer]
learning_rate = { type = "float", low = 1e-5, high = 1e-2, log = true }
"""


def test_a_study_and_its_report(caloforge, events_file, tmp_path):
    (tmp_path / "space.toml").write_text(SPACE)
    study = tmp_path / "study"
    settings = [part for setting in TINY for part in ("--set", setting)]
    command = ("tune", "zn-flow_matching", "--data", events_file, "--out", study, *settings)
    code, out, err = caloforge(*command, "--space", tmp_path / "space.toml", "--trials", 1)
    assert code == 0, err
    assert "trial 0 finished: w1" in err
    assert "the best is 0" in out
    code, _, err = caloforge(*command, "--space", "flow_matching-paper", "--trials", 2)
    assert code == 2
    assert "begun with another space" in err
    code, _, err = caloforge("report", study, "--out", tmp_path / "report.html")
    assert (code, err) == (0, "")
    assert "What trials reach" in (tmp_path / "report.html").read_text()


# --- what it refuses ---------------------------------------------------------------------------------------


def spoiled(path, events_file, change):
    """Copies the made-up events and changes the file."""
    shutil.copy(events_file, path)
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def replace(name, values):
    def change(file):
        old = file[name]
        attributes = dict(old.attrs)
        new = values(old[:])
        del file[name]
        file.create_dataset(name, data=new).attrs.update(attributes)

    return change


def with_value(index, value, dtype=None):
    def values(array):
        array = array.astype(dtype or array.dtype)
        array[index] = value
        return array

    return values


BROKEN = {
    "wrong image shape": (replace("responses", lambda a: a[:, :, :30]), r"\(N, 44, 44\).*44, 30"),
    "NaN": (replace("conditions", with_value((7, 5), np.nan)), "finite.*row 7, py"),
    "NaN in a response": (replace("responses", with_value((40, 3, 3), np.nan, "f4")), "finite.*row 40"),
    "negative counts": (replace("responses", with_value((41, 0, 0), -2, "i4")), "-2 in row 41"),
    "missing column": (replace("conditions", lambda a: a[:, :8]), "9.*energy.*charge.*8"),
    "swapped columns": (
        replace("conditions", lambda a: a[:, [6, 1, 2, 3, 4, 5, 0, 7, 8]]),
        r"energy.*\|p\|.*row",
    ),
    "columns of different length": (replace("pdg", lambda a: a[:-3]), "360.*357|357.*360"),
    "no events": (lambda f: [replace(n, lambda a: a[:0])(f) for n in list(f)], "no rows|no events|empty"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_inspect_refuses_a_broken_file_with_the_reason(caloforge, events_file, tmp_path, name):
    change, message = BROKEN[name]
    path = spoiled(tmp_path / "broken.h5", events_file, change)
    code, _, err = caloforge("data", "inspect", path)
    assert code == 2
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
    assert re.search(message, err)


@pytest.mark.parametrize("name", BROKEN)
def test_train_refuses_a_broken_file_and_leaves_nothing(caloforge, events_file, tmp_path, name):
    change, _ = BROKEN[name]
    path = spoiled(tmp_path / "broken.h5", events_file, change)
    settings = [part for setting in TINY for part in ("--set", setting)]
    code, _, err = caloforge(
        "train", "zn-flow_matching", "--data", path, "--out", tmp_path / "run", *settings
    )
    assert code == 2
    assert "error: " in err
    assert not (tmp_path / "run" / "card.json").exists()
    assert not list(tmp_path.rglob("*.partial*"))


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "empty"), (b"photons\n1\n2\n", "HDF5"), ("truncated", "HDF5|truncated")]
)
def test_no_hdf5_file(caloforge, events_file, tmp_path, content, message):
    path = tmp_path / "file.h5"
    path.write_bytes(events_file.read_bytes()[:-2000] if content == "truncated" else content)
    code, _, err = caloforge("data", "inspect", path)
    assert code == 2
    assert any(word in err for word in message.split("|"))


def test_an_unknown_recipe_key_names_the_nearest(caloforge, tmp_path):
    code, _, err = caloforge("train", "zn-flow_matching", "--out", tmp_path / "run", "--set", "model.epoch=3")
    assert code == 2
    assert "'model.epoch', did you mean 'epochs'?" in err
    assert not (tmp_path / "run").exists()


def test_a_run_of_another_detector(caloforge, run_folder, tmp_path):
    path = tmp_path / "zp.h5"
    with create(path, ZP) as writer:
        writer.append(made_events(ZP))
    for command in (
        ("sample", run_folder, path, tmp_path / "out.h5"),
        ("evaluate", run_folder, "--reference", path),
    ):
        code, _, err = caloforge(*command)
        assert code == 2
        assert "zn" in err
        assert "zp" in err
    assert not (tmp_path / "out.h5").exists()


def test_a_folder_that_is_not_there(caloforge, run_folder, events_file, tmp_path):
    code, _, err = caloforge("sample", run_folder, events_file, tmp_path / "no" / "out.h5")
    assert code == 2
    assert "no" in err


def test_a_full_disk_leaves_nothing(caloforge, run_folder, events_file, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("caloforge.io.hdf5.Table.append", full)
    code, _, err = caloforge("sample", run_folder, events_file, tmp_path / "out.h5")
    assert code == 2
    assert "No space left on device" in err
    assert list(tmp_path.iterdir()) == []


def test_a_pickle_given_as_weights(caloforge, run_folder, events_file, tmp_path):
    run = copy_of(run_folder, tmp_path)
    torch.save({"a": torch.zeros(2)}, run / "weights.safetensors")
    code, _, err = caloforge("sample", run, events_file, tmp_path / "out.h5")
    assert code == 2
    assert "pickled weights are never loaded" in err


def test_a_run_without_weights_or_no_run(caloforge, run_folder, events_file, tmp_path):
    run = copy_of(run_folder, tmp_path)
    (run / "weights.safetensors").unlink()
    code, _, err = caloforge("sample", run, events_file, tmp_path / "out.h5")
    assert (code, "no weights" in err) == (2, True)
    code, _, err = caloforge("sample", tmp_path / "nothing", events_file, tmp_path / "out.h5")
    assert (code, "no run folder" in err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("evaluate", "RUN", "--reference", "EVENTS", "--sweep", "solver.steps"), "a sweep must read"),
        (("evaluate", "RUN", "--reference", "EVENTS", "--sweep", "solver.stps=1,2"), "did you mean 'steps'"),
        (("evaluate", "EVENTS", "--reference", "EVENTS", "--set", "a=1"), "is an events file"),
        (("sample", "RUN", "EVENTS", "x.h5", "--set", "prediction=velocity"), "cannot be changed after"),
        (("sample", "RUN", "EVENTS", "x.xyz"), ".parquet"),
        (("data", "inspect", "sample:zm"), "zn_wide"),
        (
            ("tune", "zn-flow_matching", "--space", "flow_matching-papr", "--trials", "1"),
            "did you mean 'flow_matching-paper'",
        ),
        (("tune", "zn-flow_matching", "--space", "flow_matching-paper"), "when to stop"),
        (("report", "nothing"), "no run folder nothing"),
    ],
)
def test_arguments_that_do_not_fit(
    caloforge, run_folder, events_file, monkeypatch, tmp_path, arguments, message
):
    monkeypatch.chdir(tmp_path)
    names = {"RUN": run_folder, "EVENTS": events_file}
    code, _, err = caloforge(*(names.get(argument, argument) for argument in arguments))
    assert code == 2
    assert message in err
    assert list(tmp_path.iterdir()) == []


def test_usage_errors_exit_with_two():
    process = subprocess.run([sys.executable, "-m", "caloforge", "sample"], capture_output=True, text=True)
    assert process.returncode == 2
    assert "Missing argument" in process.stderr


def test_the_numpy_world_needs_no_torch():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import caloforge.io, caloforge.metrics, caloforge.report, caloforge.recipe, caloforge.cli\n"
        "import caloforge.runtime.generate, caloforge.runtime.noise\n"
        "heavy = {'torch', 'matplotlib', 'pyarrow', 'uproot', 'sklearn', 'onnxruntime', 'optuna'} & "
        "{name for name, module in sys.modules.items() if module}\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


@pytest.mark.slow
def test_demo(tmp_path):
    command = [sys.executable, "-m", "caloforge", "demo", "--out", str(tmp_path / "demo")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "demo" / "report.html").stat().st_size > 100_000
