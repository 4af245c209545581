"""Nothing that exists is destroyed, nothing that a file names is run."""

import hashlib
import shutil
import sys

import h5py
import numpy as np
import pytest

from caloforge.detectors import DS2, ZN, detector_named
from caloforge.io import carried, create, open_events, provenance
from caloforge.io.run import Run, read_weights, write_weights
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


def test_weights_are_those_that_the_training_left(caloforge, tmp_path, few):
    name = "zn-factorized_latent_flow_matching"
    run = shutil.copytree(weights()[name], tmp_path / "run")
    tensors = read_weights(run / "weights.safetensors")
    first = min(tensors)
    write_weights(run / "weights.safetensors", {**tensors, first: tensors[first] + 1})
    for words in (("sample", run, few, tmp_path / "a.h5"), ("export", run, "--out", tmp_path / "bundle")):
        code, _, err = caloforge(*words)
        assert (code, "is not what the training left" in err, err.count("\n")) == (2, True, 1)
    assert not (tmp_path / "a.h5").exists()


@pytest.mark.parametrize("name", weights())
def test_cards_that_ship_hold_the_hash_of_their_weights(name):
    run = Run(weights()[name])
    assert run.card().weights == run.check_weights()


def test_a_run_asks_about_particles_outside_as_a_bundle_does(caloforge, tmp_path):
    """900 GeV of a model that was trained up to 100."""
    rows = "\n".join(f"{energy},{DS2.pdg}" for energy in (5e3, 9e5, 5e4))
    path, out = tmp_path / "showers.csv", tmp_path / "out.h5"
    path.write_text(f"incident_energy,pdg\n{rows}\n")
    words = ("sample", "ds2-calodream", path, out)
    code, _, err = caloforge(*words)
    assert (code, "1 of 3 particles are outside" in err, out.exists()) == (2, True, False)
    code, _, err = caloforge(*words, "--on-outside", "warn")
    assert (code, err.startswith("warning: 1 of 3 particles are outside")) == (0, True)
    assert carried(out).read(0, 3)["in_domain"].tolist() == [1, 0, 1]
    assert provenance(out)["outside_domain"] == 1
    code, _, err = caloforge(*words, "--on-outside", "maybe")
    assert (code, "error, warn, flag, got 'maybe'" in err) == (2, True)


LOOKALIKES = (
    "scores.json", "events.h5", "report.html", "results.md", "card.json", "weights.safetensors", "recipe.toml",
    "log.csv", "checkpoint.pt", "journal.log", "best.toml", "plan.json", ".events.partial-1.h5.keep", "sample:zn",
    "generated/few.h5", "images/a.png", "runs/scores.json", "studies/scores.json",
)  # fmt: skip


@pytest.mark.slow
def test_no_verb_changes_what_it_was_not_given(caloforge, tmp_path, few, monkeypatch):
    """Every verb, in a folder full of files of the names that verbs write."""
    monkeypatch.chdir(tmp_path)
    name, readout = "zn-factorized_latent_flow_matching", "zn-channel_flow_matching"
    for folder in (
        ".",
        f"runs/{name}",
        f"runs/{readout}",
        "runs/zn-linear",
        f"bundles/{name}",
        f"studies/{readout}",
    ):
        for file in LOOKALIKES:
            path = tmp_path / folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"of somebody: {folder}/{file}")
    made = tmp_path / "made"
    made.mkdir()
    before = hashes(tmp_path)
    bundle = ("--bundle", made / "bundle")
    outside = ("--on-outside", "flag")
    done = (
        ("data", "inspect", few),
        ("data", "convert", few, made / "few.npz"),
        ("data", "merge", few, few, made / "two.h5"),
        ("train", "zn-linear", "--out", made / "linear"),
        ("sample", name, few, made / "sampled.h5", *outside),
        ("export", name, "--out", made / "bundle"),
        ("sample", made / "bundle", few, made / "bundled.h5", *outside),
        ("generate", few, made / "produced.h5", *bundle),
        ("generate", few, made / "shards.h5", *bundle, "--write-submit", "slurm", "--shards", 1),
        ("evaluate", name, "--reference", few, "--repeats", 1, "--out", made / "scores.json"),
        ("evaluate", readout, "--reference", few, "--repeats", 1),
        ("evaluate", made / "linear", "--reference", few),
        ("report", made / "linear", "--out", made / "page.html"),
        ("info",),
    )
    refused = (
        ("train", "zn-linear", "--data", few),
        ("tune", readout, "--space", "none", "--trials", 1),
        ("export", name, "--out", f"bundles/{name}"),
        ("evaluate", "runs/zn-linear", "--reference", few),
        ("evaluate", name, "--reference", "none.h5"),
        ("report", "runs/zn-linear"),
        ("compare", made / "comparison", "--shipped", "--only", "nothing"),
        ("simulate", "nothing", made / "g4.h5", "--events", 1, "--energy", 1, 1),
        ("demo", "--out", "runs"),
    )
    for words in done:
        assert caloforge(*words)[0] == 0, words
    for words in refused:
        assert caloforge(*words)[0] == 2, words
    after = hashes(tmp_path)
    assert {path: after.get(path) for path in before} == before
    fresh = {path.split("/")[0] for path in set(after) - set(before)}
    assert fresh == {"made", f"{readout}.scores.json"}
