import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from caloforge import samples
from caloforge.events import Joined
from caloforge.io import create, open_events
from caloforge.io.run import Run, read_weights
from caloforge.metrics.conditional import impact
from caloforge.models.base import BatchRandom
from caloforge.models.parts.stage import shuffled_batches
from caloforge.recipe import parse, to_toml
from caloforge.runtime.domain import Domain
from caloforge.training.checkpoint import load_checkpoint, load_model, load_weights
from caloforge.training.run import in_beam_spot, train


def recipe(file, **training):
    return parse(
        {
            "name": "tiny",
            "detector": "zn",
            "seed": 3,
            "data": {"files": [str(file)]},
            "model": {
                "type": "flow_matching",
                "prediction": "data",
                "network": {"patch": 4, "blocks": 1},
                "solver": {"steps": 2},
                "epochs": 3,
                "batch_size": 50,
                "average": 0.9,
                "validation_events": 20,
            },
            "training": {"threads": 1, "accelerator": "cpu", **training},
        }
    )


def test_a_run_folder_holds_everything(events_file, tmp_path):
    out = tmp_path / "a" / "run"
    train(recipe(events_file), out)
    run = Run(out)
    card = run.card()
    assert card.data[0].rows == {"train": 252, "validation": 36, "test": 72}
    assert card.parameters == sum(p.numel() for p in load_model(out)[1].parameters())
    log = run.log()
    assert [row["epoch"] for row in log] == ["1", "2", "3"]
    assert all(float(row["loss"]) > 0 and float(row["validation_w1"]) > 0 for row in log)
    assert run.recipe().model["solver"] == {"method": "euler", "steps": 2}
    scores = [float(row["validation_w1"]) for row in log]
    assert card.training.best_epoch == 1 + int(np.argmin(scores))


def test_a_checkpoint_holds_plain_numbers_whatever_a_validation_returns(events_file, tmp_path, monkeypatch):
    found = {"score": np.float64(1.5), "w1": np.float64(1.5), "photons": np.float32(2)}
    monkeypatch.setattr("caloforge.models.parts.stage.LossStage.validate", lambda *_: found)
    train(recipe(events_file, checkpoint_every=0), tmp_path / "run")
    (first, *_) = load_checkpoint(Run(tmp_path / "run").checkpoint)["history"]["rows"]
    assert type(first["validation_w1"]) is float
    assert first["validation_w1"] == 1.5


class StopError(Exception):
    pass


@pytest.mark.parametrize("at", [(1, 2), (2, 5), (3, 1)])
def test_a_resumed_training_is_bit_identical(events_file, tmp_path, at):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    tiny = recipe(events_file, checkpoint_every=0)
    train(tiny, whole)

    def stopping(progress):
        if (progress.epoch, progress.step) == at:
            raise StopError

    with pytest.raises(StopError):
        train(tiny, broken, reporter=lambda: stopping)
    train(tiny, broken, resume=True)
    ours, theirs = read_weights(Run(broken).weights), read_weights(Run(whole).weights)
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)
    columns = ("epoch", "loss", "validation_w1")
    assert [[row[c] for c in columns] for row in Run(broken).log()] == [
        [row[c] for c in columns] for row in Run(whole).log()
    ]


def test_every_validation_is_shown_and_may_end_the_training(events_file, tmp_path):
    seen = []

    def watch(validation):
        seen.append(validation)
        if len(seen) == 2:
            raise StopError

    run = Run(tmp_path / "run")
    with pytest.raises(StopError):
        train(recipe(events_file, checkpoint_every=0), run.path, watch=watch)
    assert [(one.stage, one.epoch) for one in seen] == [("velocity", 1), ("velocity", 2)]
    assert [float(row["validation_w1"]) for row in run.log()] == [one.values["w1"] for one in seen]
    assert all(one.values["score"] == one.values["w1"] for one in seen)
    assert [one.best for one in seen] == [True, seen[1].values["w1"] < seen[0].values["w1"]]
    train(recipe(events_file, checkpoint_every=0), run.path, resume=True)
    assert [row["epoch"] for row in run.log()] == ["1", "2", "3"]


@pytest.mark.slow
def test_a_killed_training_resumes_to_the_same_weights(events_file, tmp_path):
    tiny = recipe(events_file, checkpoint_every=0)
    tiny = tiny.model_copy(update={"model": tiny.model | {"epochs": 12}})
    toml = tmp_path / "tiny.toml"
    toml.write_text(to_toml(tiny))
    command = [sys.executable, "-m", "caloforge", "train", str(toml), "--out"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = subprocess.Popen([*command, str(killed)], stderr=subprocess.DEVNULL)
    while not (killed / "log.csv").exists() and process.poll() is None:
        time.sleep(0.02)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    subprocess.run([*command, str(killed), "--resume"], check=True, capture_output=True)
    subprocess.run([*command, str(whole)], check=True, capture_output=True)
    assert Run(killed).weights.read_bytes() == Run(whole).weights.read_bytes()
    assert not list(killed.glob(".*partial*"))


@pytest.mark.slow
def test_two_processes_get_the_result_of_one(events_file, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    train(recipe(events_file), one)
    train(recipe(events_file, devices=2), two)
    ours, theirs = read_weights(Run(two).weights), read_weights(Run(one).weights)
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, atol=2e-4, err_msg=name)
    losses = [[float(row["loss"]) for row in Run(path).log()] for path in (one, two)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3)


def test_other_data_or_another_recipe_do_not_resume(events_file, tmp_path):
    out = tmp_path / "run"
    train(recipe(events_file), out)
    with pytest.raises(ValueError, match="already holds a run"):
        train(recipe(events_file), out)
    with pytest.raises(ValueError, match="another recipe"):
        train(recipe(events_file, validate_every=2), out, resume=True)
    with pytest.raises(ValueError, match="not a run folder"):
        train(recipe(events_file), tmp_path / "nothing", resume=True)


def test_changed_data_do_not_resume(events, tmp_path):
    file, out = tmp_path / "data.h5", tmp_path / "run"
    for keep in (48, 44):
        with create(file, events.detector) as writer:
            writer.append(events.slices(slice(keep)))
        if keep == 48:
            train(recipe(file), out)
    with pytest.raises(ValueError, match="other data"):
        train(recipe(file), out, resume=True)


def test_a_bad_model_section_is_found_before_the_data(tmp_path):
    bad = parse(
        {
            "name": "x",
            "detector": "zn",
            "data": {"files": ["nowhere.h5"]},
            "model": {"type": "flow_matching", "epoch": 1},
        }
    )
    with pytest.raises(ValueError, match=r"unknown key 'model.epoch', did you mean 'epochs'\?"):
        train(bad, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_pickle_is_no_weights(events_file, tmp_path):
    out = tmp_path / "run"
    train(recipe(events_file), out)
    torch.save({"network": torch.zeros(3)}, out / "weights.safetensors")
    with pytest.raises(ValueError, match=r"not a safetensors file.*never loaded"):
        load_model(out)


def test_weights_of_another_model_are_refused(events_file, tmp_path):
    out = tmp_path / "run"
    train(recipe(events_file), out)
    with pytest.raises(ValueError, match="another model"):
        load_weights(torch.nn.Linear(2, 2), Run(out).weights)
    for setting in ("network.base=6", "prediction=velocity", "solvers=1"):
        with pytest.raises(ValueError, match="cannot be changed after the training"):
            load_model(out, [setting])
    assert load_model(out, ["solver.steps=5", "rounding=none"])[1].config.solver.steps == 5


def test_a_setting_that_would_change_nothing_is_refused():
    """The images of these weights are drawn by a student, whatever the solver of its teacher."""
    shipped = samples.weights()["zn-factorized_flow_matching"]
    with pytest.raises(ValueError, match=r"'image\.solver\.steps' would change nothing"):
        load_model(shipped, ["image.solver.steps=4"])
    assert load_model(shipped, ["image.end=0.9"])[1].config.image.end == 0.9


def test_an_infinite_loss_stops_the_training(events_file, tmp_path):
    wild = recipe(events_file)
    wild = wild.model_copy(update={"model": wild.model | {"optimizer": {"learning_rate": 1e30}}})
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        train(wild, tmp_path / "run")


def test_the_numbers_of_a_batch_do_not_depend_on_the_processes():
    whole = BatchRandom(5, slice(0, 8), 8)
    halves = [BatchRandom(5, slice(0, 4), 8), BatchRandom(5, slice(4, 8), 8)]
    expected = whole.normal(3), whole.uniform()
    parts = [(half.normal(3), half.uniform()) for half in halves]
    for index, value in enumerate(expected):
        torch.testing.assert_close(torch.cat([part[index] for part in parts]), value, atol=0, rtol=0)


@pytest.mark.parametrize("buffer", [1024, 65_536])
def test_an_epoch_visits_each_event_at_most_once_in_full_batches(buffer, events):
    source = Joined([events] * 60)  # 2,880 events in blocks of 512
    numbered = np.arange(len(source), dtype=np.float32)

    class Numbered:
        primaries = source.primaries

        def __len__(self):
            return len(source)

        def slices(self, rows):
            chosen = source.slices(rows)
            chosen.responses[:, 0, 0] = numbered[rows]
            return chosen

    rng = np.random.default_rng(0)
    batches = [batch.responses[:, 0, 0] for batch in shuffled_batches(Numbered(), 50, rng, buffer)]
    assert [len(batch) for batch in batches] == [50] * (2880 // 50)
    seen = np.concatenate(batches)
    assert len(np.unique(seen)) == len(seen)
    assert not np.array_equal(seen, np.sort(seen))


def test_a_source_smaller_than_a_batch_is_one_batch(events):
    batches = list(shuffled_batches(events, 256, np.random.default_rng(0)))
    assert [len(batch) for batch in batches] == [48]


def test_the_card_is_plain_json(events_file, tmp_path):
    train(recipe(events_file), tmp_path / "run")
    card = json.loads((tmp_path / "run" / "card.json").read_text())
    assert card["format"] == 1
    assert card["split"] == "canonical"
    assert len(open_events(events_file)) == sum(card["data"][0]["rows"].values())


@pytest.mark.slow
def test_options_of_the_training(events_file, tmp_path):
    out = tmp_path / "run"
    train(recipe(events_file, tensorboard=True, precision="bf16-mixed"), out)
    assert list((out / "tensorboard").glob("events.out.tfevents.*"))
    plain = tmp_path / "plain"
    train(recipe(events_file), plain)
    losses = [[float(row["loss"]) for row in Run(path).log()] for path in (out, plain)]
    # bf16 has three digits
    np.testing.assert_allclose(losses[0], losses[1], rtol=0.1)
    assert losses[0] != losses[1]


def test_a_training_sees_vertices_from_within_the_beam_spot_and_its_guard_knows_them(
    events_file, tmp_path, monkeypatch
):
    seen = []

    def watched(self, batch, rng, backward):
        seen.append(batch.primaries)
        return {"loss": 0.0}

    monkeypatch.setattr("caloforge.models.parts.stage.LossStage.step", watched)
    events = open_events(events_file)
    start = events.primaries
    train(recipe(events_file), tmp_path / "run")
    assert all(np.ptp(batch.feature("vz")) > 5 for batch in seen)
    assert not np.array_equal(seen[0].conditions, seen[5].conditions)  # each epoch anew
    (low, high), where = np.percentile(impact(start), [0, 100], axis=0), impact(seen[0])
    assert (where > low - 0.01).all()
    assert (where < high + 0.01).all()
    spot = parse(recipe(events_file).model_dump() | {"seed": 4})
    inside = Domain.from_card(Run(tmp_path / "run").card().domain).inside(
        in_beam_spot(events, spot, "other").primaries
    )
    assert inside.mean() > 0.9

    seen.clear()
    unmoved = recipe(events_file).model_dump()
    unmoved["data"]["beam_spot"] = (0, 0, 0)
    train(parse(unmoved), tmp_path / "unmoved")
    assert all(np.isin(batch.feature("vz"), start.feature("vz")).all() for batch in seen)
