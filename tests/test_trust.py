"""Nothing that exists is destroyed, nothing that a file names is run."""

import hashlib
import shutil
import sys

import h5py
import numpy as np
import pytest

from caloforge.detectors import ZN, detector_named
from caloforge.io import create, open_events
from caloforge.recipe import parse
from caloforge.samples import sample, weights
from caloforge.training.checkpoint import load_model
from made import made_events
from made_run import made_run


def hashes(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def few(tmp_path):
    """A reference with few test rows, so that scoring is quick."""
    events = open_events(sample("zn_wide"))
    rows = np.flatnonzero(events.primaries.fold < 2)[:64]
    path = tmp_path / "few.h5"
    with create(path, ZN) as writer:
        writer.append(events.slices(rows))
    return path


@pytest.fixture
def witness(tmp_path, monkeypatch):
    """A module that leaves a file where it is imported."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "witness_of_import.py").write_text(
        f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\n"
        "from caloforge.detectors import ZN as DETECTOR\nfrom caloforge.models import MODELS\n"
        "Model = MODELS['flow_matching']\n"
    )
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr("caloforge._lookup._TRUSTED", set())
    monkeypatch.delitem(sys.modules, "witness_of_import", raising=False)
    return tmp_path / "ran"


def test_scores_of_shipped_weights_leave_a_run_of_that_name_alone(caloforge, tmp_path, few, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "zn-channel_flow_matching"
    shutil.copytree(weights()[name], tmp_path / "runs" / name)
    (tmp_path / "runs" / name / "weights.safetensors").write_bytes(b"a week of training")
    before = hashes(tmp_path)
    code, _, _ = caloforge("evaluate", name, "--reference", few, "--repeats", 1)
    assert code == 0
    after = hashes(tmp_path)
    assert {path: after[path] for path in before} == before
    assert set(after) - set(before) == {f"{name}.scores.json"}
    before = hashes(tmp_path)
    assert caloforge("evaluate", name, "--reference", tmp_path / "none.h5")[0] == 2
    assert hashes(tmp_path) == before


def test_events_of_shipped_generators_lie_beside_their_scores(caloforge, tmp_path, few, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "zn-factorized_latent_flow_matching"
    scores = tmp_path / f"{name}.scores.json"
    (tmp_path / f"{name}.scores.events").mkdir()
    code, _, err = caloforge("evaluate", name, "--reference", few, "--repeats", 1)
    assert code == 2
    assert "is there already" in err
    assert not scores.exists()
    (tmp_path / f"{name}.scores.events").rmdir()
    for _ in range(2):  # again: they are its own now
        assert caloforge("evaluate", name, "--reference", few, "--repeats", 1)[0] == 0
    assert len(open_events(tmp_path / f"{name}.scores.events" / "few.h5")) == 64


@pytest.mark.parametrize(
    "name",
    ["../x", "/tmp/x", "a/b", "..", ".", "", ".hidden", "a\\b", "a\x00b", "a\nb", "-x", "x" * 300],
)
def test_a_recipe_is_named_within_its_folder(name):
    with pytest.raises(ValueError, match="1 to 200 characters"):
        parse({"name": name, "detector": "zn", "model": {"type": "linear"}})


@pytest.mark.parametrize("declared", ["witness_of_import:DETECTOR", ".witness_of_import:DETECTOR", "x.xml"])
def test_a_detector_that_a_data_file_names_is_not_imported(tmp_path, witness, declared):
    path = tmp_path / "events.h5"
    with create(path, ZN) as writer:
        writer.append(made_events())
    with h5py.File(path, "r+") as file:
        file.attrs["detector"] = declared
    with pytest.raises(ValueError, match="which is not r"):
        open_events(path)
    assert not witness.exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [("type", "witness_of_import:Model"), ("detector", "witness_of_import:DETECTOR")],
)
def test_code_that_a_run_names_is_run_with_trust_alone(caloforge, tmp_path, witness, key, value):
    run = tmp_path / "run"
    made_run(run, "flow_matching")
    recipe = run / "recipe.toml"
    old = {"type": "flow_matching", "detector": "zn"}[key]
    recipe.write_text(recipe.read_text().replace(f'{key} = "{old}"', f'{key} = "{value}"', 1))
    with pytest.raises(ValueError, match="is not run because a file says so"):
        load_model(run)
    code, _, err = caloforge("sample", run, "sample:zn", tmp_path / "out.h5")
    assert code == 2
    assert "--trust" in err
    assert not witness.exists()
    load_model(run, trust=True)
    assert witness.exists()


def test_a_detector_that_the_user_names_is_imported(witness):
    assert detector_named("witness_of_import:DETECTOR") is ZN
    assert witness.exists()
