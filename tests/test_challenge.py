"""The way of the challenge, one command a step, on files as they are published: full width, keys alone, own chunks."""

import sys

import h5py
import numpy as np
import pytest

from caloforge.detectors import DETECTORS
from caloforge.evaluation import classifier
from caloforge.io.run import Run
from caloforge.io.scores import read_scores
from caloforge.metrics.showers import scores
from made_showers import QUICK, ds1

TINY = [
    "model.energy.transformer.width=48", "model.energy.transformer.heads=2", "model.energy.transformer.layers=1",
    "model.energy.transformer.inner=8", "model.energy.width=8", "model.energy.blocks=1", "model.energy.solver.steps=1",
    "model.energy.epochs=1", "model.shape.network.width=12", "model.shape.network.heads=2", "model.shape.epochs=1",
    "model.shape.network.blocks=1", "model.shape.network.inner=8", "model.shape.solver.steps=1",
    "model.shape.batch_size=8",
]  # fmt: skip

ROWS = 20

PATCH = {"2": "[9,16,3]", "3": "[9,10,6]"}
"""Large ones, for speed."""


def published(path, detector, seed):
    """Writes showers as the challenge publishes them; energies of data set 1 are powers of two."""
    rng = np.random.default_rng(seed)
    energies = (
        10 ** rng.uniform(3, 5, (ROWS, 1)) if detector.pdg == 11 else 2.0 ** rng.integers(8, 23, (ROWS, 1))
    )
    voxels = np.where(rng.random((ROWS, detector.cells)) < 0.2, rng.gamma(0.5, 1, (ROWS, detector.cells)), 0)
    with h5py.File(path, "w") as file:
        file["incident_energies"] = energies
        showers = 0.8 * energies * voxels / voxels.sum(1, keepdims=True)
        file.create_dataset("showers", data=showers, chunks=True, compression="gzip")


BUDGET = [
    "model.energy.epochs=1", "model.energy.recompute=true", "model.energy.solver.steps=1", "model.shape.epochs=1",
    "model.shape.network.recompute=true", "model.shape.solver.steps=1",
]  # fmt: skip
"""The published networks at the least a training can be, each stage an update; of `rk4` one step."""


@pytest.mark.slow
def test_the_published_networks_train_and_are_evaluated(caloforge, tmp_path, monkeypatch):
    monkeypatch.setattr(scores, "Sizes", lambda: QUICK)
    monkeypatch.setattr(sys.modules[__name__], "ROWS", 12)
    train, test = tmp_path / "dataset_2_1.hdf5", tmp_path / "dataset_2_2.hdf5"
    published(train, DETECTORS["ds2"], 0)
    published(test, DETECTORS["ds2"], 1)
    run, changes = tmp_path / "run", [word for one in BUDGET for word in ("--set", one)]
    for words in (
        ("train", "ds2-calodream-paper", "--data", train, "--reference", test, "--out", run, *changes),
        ("evaluate", run, "--reference", test, "--repeats", 1),
    ):  # fmt: skip
        code, _, problem = caloforge(*words)
        assert code == 0, problem
    log = Run(run).log()
    assert {row["stage"] for row in log} == {"energy", "shape"}
    assert all(np.isfinite(float(row["loss"])) for row in log)
    (entry,) = read_scores(tmp_path / "run" / "scores.json").sets.values()
    assert entry.groups["all"].n == 12
    assert Run(run).card().parameters == 28_427_393


@pytest.mark.slow
@pytest.mark.parametrize("name", ["1-photons", "1-pions", "2", "3"])
def test_train_sample_evaluate(name, caloforge, tmp_path, monkeypatch):
    monkeypatch.setattr(scores, "Sizes", lambda: QUICK)
    small = classifier.SUITES["small"].model_copy(update={"epochs": 1, "seeds": 1})
    monkeypatch.setattr(classifier, "SUITES", {"small": small})
    if name.startswith("1"):
        detector = ds1(tmp_path, name[2:-1])
        recipe, settings = "ds2-nearest", [f"detector={detector.name}"]
    else:
        detector, recipe = DETECTORS[f"ds{name}"], f"ds{name}-calodream-paper"
        settings = [*TINY, f"model.shape.network.patch={PATCH[name]}"]
    train, test = tmp_path / f"dataset_{name}_1.hdf5", tmp_path / f"dataset_{name}_2.hdf5"
    published(train, detector, 0)
    published(test, detector, 1)
    changes = [word for one in settings for word in ("--set", one)]

    def done(*words):
        code, text, problem = caloforge(*words)
        assert code == 0, problem
        return text

    text = done("train", recipe, "--data", train, "--reference", test, "--out", tmp_path / "run", *changes)
    assert f"{ROWS} rows of {train.name} train, 0 (2 %)" in text
    done("sample", tmp_path / "run", test, tmp_path / "showers.hdf5", "--on-outside", "warn")
    with h5py.File(tmp_path / "showers.hdf5") as file:
        assert file["showers"].shape == (ROWS, detector.cells)
        assert np.isfinite(file["showers"][()]).all()
    text = done(
        "evaluate", tmp_path / "showers.hdf5", "--reference", test, "--detector", detector.name,
        "--classifiers", "small", "--out", tmp_path / "scores.json",
    )  # fmt: skip
    found = read_scores(tmp_path / "scores.json")
    (entry,) = found.sets.values()
    assert (found.split, found.part, entry.groups["all"].n) == ("files", "test", ROWS)
    assert {"fpd", "auc_low", "auc_high"} <= set(entry.groups["all"].metrics)
