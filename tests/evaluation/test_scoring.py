import numpy as np
import pytest
import torch

from caloforge.detectors import ZN
from caloforge.evaluation.scoring import (
    Sweep,
    evaluate_events,
    evaluate_run,
    origin_of,
    parse_sweep,
    rows_to_score,
)
from caloforge.events import Selected, load, split
from caloforge.io import create, open_events
from caloforge.io.run import Run
from caloforge.models.yardsticks import Resample
from caloforge.recipe import parse
from caloforge.training.run import train, training_data
from made import made_events


def recipe(file, kind="canonical", model="resample", **data):
    return parse(
        {
            "name": model,
            "detector": "zn",
            "seed": 5,
            "data": {"files": [str(file)], "split": kind, **data},
            "model": {"type": model},
            "training": {"accelerator": "cpu"},
        }
    )


@pytest.mark.parametrize("kind", ["canonical", "grouped", "paper"])
def test_no_row_of_the_training_is_scored(events_file, tmp_path, kind):
    run = recipe(events_file, kind)
    train(run, tmp_path / "run")
    scores = evaluate_run(tmp_path / "run", [events_file], repeats=1)
    (entry,) = scores.sets.values()
    source = open_events(events_file)
    parts = split(source, kind, 5)
    assert entry.reference.rows == len(parts["test"])
    scored = rows_to_score(source, origin_of(run)).rows
    assert not set(scored) & set(parts["train"])
    assert (scores.split, scores.split_seed, scores.part) == (kind, 5, "test")
    # the yardstick keeps its training responses: all of them, and nothing else
    stored = Run(tmp_path / "run").card().data[0].rows["train"]
    assert stored == len(parts["train"])


@pytest.mark.parametrize("kind", ["grouped", "paper"])
def test_a_cut_and_shuffled_file_keeps_its_parts(events_file, tmp_path, kind):
    source = load(open_events(events_file))
    rows = np.random.default_rng(0).permutation(len(source))[:200]
    cut = tmp_path / "cut.h5"
    with create(cut, ZN) as writer:
        writer.append(source.slices(rows))
    origin = origin_of(recipe(events_file, kind))
    whole = set(rows_to_score(source, origin).rows)
    assert {rows[row] for row in rows_to_score(open_events(cut), origin).rows} == whole & set(rows)


def test_a_subset_of_particles_is_trained_and_scored_alone(events_file, tmp_path):
    run = recipe(events_file, particles=["n"])
    (source,) = training_data(run).values()
    assert set(source.primaries.pdg) == {2112}
    train(run, tmp_path / "run")
    scores = evaluate_run(tmp_path / "run", [events_file], repeats=1)
    assert scores.particles == ("n",)
    groups = scores.sets[events_file.stem].groups
    assert set(groups) == {"all", "n"}
    assert groups["all"].n == groups["n"].n


def test_readouts_get_the_channel_metrics_only(events_file, tmp_path):
    train(recipe(events_file, model="linear"), tmp_path / "run")
    scores = evaluate_run(tmp_path / "run", [events_file], repeats=1)
    metrics = scores.sets[events_file.stem].all.metrics
    assert "w1" in metrics
    assert "w1_lit" not in metrics
    assert not (tmp_path / "run" / "generated").exists()


def test_repeats_have_seeds_of_their_own_and_repeat(events_file, tmp_path):
    train(recipe(events_file), tmp_path / "run")
    first, second, third = (
        evaluate_run(tmp_path / "run", [events_file], repeats=3, seed=seed).sets[events_file.stem].all
        for seed in (0, 0, 1)
    )
    values = first.metrics["w1"].values
    assert len(set(values)) == 3
    assert second.metrics["w1"].values == values
    assert third.metrics["w1"].values[:2] == values[1:]  # seed 1, 2, 3 after 0, 1, 2


def test_events_of_other_particles_are_refused(events_file, tmp_path):
    other = tmp_path / "other.h5"
    with create(other, ZN) as writer:
        writer.append(made_events(particles=30, repeats=12, seed=1))
    with pytest.raises(ValueError, match="row 0"):
        evaluate_events(other, [events_file])
    with pytest.raises(ValueError, match="the reference's 720 particles, one response each, got 360 rows"):
        evaluate_events(events_file, [events_file, other])
    known = tmp_path / "known.h5"
    with create(known, ZN, {"split": "paper", "split_seed": 0, "particles": []}) as writer:
        writer.append(made_events(particles=30, repeats=12))
    with pytest.raises(ValueError, match="of the paper split are scored against one reference, got 2"):
        evaluate_events(known, [events_file, other])


def test_a_reference_without_test_rows_is_refused(events_file, tmp_path):
    train(recipe(events_file), tmp_path / "run")
    source = open_events(events_file)
    trained = tmp_path / "trained.h5"
    with create(trained, ZN) as writer:
        writer.append(load(Selected(source, split(source, "canonical")["train"])))
    with pytest.raises(ValueError, match="none of them in the test part"):
        evaluate_run(tmp_path / "run", [trained])
    with pytest.raises(ValueError, match="rename one"):
        evaluate_run(tmp_path / "run", [events_file, events_file])


def test_true_sums_are_given_row_by_row(events_file, tmp_path, monkeypatch):
    run = recipe(events_file)
    train(run, tmp_path / "run")
    with pytest.raises(ValueError, match="resample cannot be given photon sums"):
        evaluate_run(tmp_path / "run", [events_file], repeats=1, true_sums=True)

    def with_photons(self, conditions, photons, noise):
        responses = torch.zeros(len(conditions), 44, 44)
        responses[:, 0, 0] = photons
        return responses

    monkeypatch.setattr(Resample, "with_photons", with_photons, raising=False)
    scores = evaluate_run(tmp_path / "run", [events_file], repeats=2, true_sums=True)
    assert (scores.name, scores.settings) == ("resample, true sums", {"sums": "true"})
    (entry,) = scores.sets.values()
    assert entry.all.metrics["w1_photons"].values == (0.0, 0.0)
    assert entry.generated is None
    assert not (tmp_path / "run" / "generated").exists()


def test_the_last_setting_of_a_sweep_is_swept():
    assert parse_sweep("solver.steps=1,2") == Sweep("solver.steps", ("1", "2"))
    assert parse_sweep("solver.method=euler steps=4") == Sweep("steps", ("4",), ("solver.method=euler",))


@pytest.mark.parametrize(
    "text", ["", "steps", "steps=", "steps=1,,2", "=1", "method steps=1", "method= steps=1"]
)
def test_a_sweep_without_path_or_value_is_refused(text):
    with pytest.raises(ValueError, match="a sweep must read"):
        parse_sweep(text)
