import json
import os
import signal
import socket
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from caloforge.io.run import Run
from caloforge.io.study import Study, Trial
from caloforge.recipe import parse, read, to_toml
from caloforge.training import tune as module
from caloforge.training.fit import Validation
from caloforge.training.run import train
from caloforge.training.space import parse_space
from caloforge.training.tune import tune

optuna = pytest.importorskip("optuna")

RATE = "model.optimizer.learning_rate"


def recipe(file, **model):
    return parse(
        {
            "name": "tiny",
            "detector": "zn",
            "seed": 3,
            "data": {"files": [str(file)]},
            "model": {
                "type": "channel_flow_matching",
                "width": 8,
                "blocks": 1,
                "solver": {"steps": 2},
                "epochs": 2,
                "batch_size": 50,
                "average": 0.0,
                "validation_events": 20,
                **model,
            },
            "training": {"threads": 1, "accelerator": "cpu"},
        }
    )


def space(parameters=None, **more):
    rate = {RATE: {"type": "float", "low": 1e-5, "high": 1e-2, "log": True}}
    return parse_space({"parameters": parameters or rate, **more})


def choices(*values, path=RATE):
    return {path: {"type": "categorical", "choices": list(values)}}


def states(result):
    return [trial.state for trial in result.trials]


@pytest.fixture
def pretended(monkeypatch):
    """Puts a training in place of the loop's whose validations follow from the learning rate."""

    def pretend(values_of):
        def training(recipe, folder, watch):
            for epoch, value in enumerate(values_of(recipe.model["optimizer"]["learning_rate"]), 1):
                watch(Validation("velocity", epoch, {"score": value, "w1": value}, best=epoch == 1))

        monkeypatch.setattr(module, "train", training)

    return pretend


def test_the_best_recipe_trains_to_the_value_of_the_best_trial(events_file, tmp_path):
    result = tune(recipe(events_file), space(), tmp_path / "study", trials=3)
    assert states(result) == ["finished"] * 3
    best = result.finished[0]
    assert best.value == min(trial.value for trial in result.trials)
    assert sorted(path.name for path in (tmp_path / "study").iterdir()) == [
        "best.toml",
        "journal.log",
        "trials.json",
    ]
    page = (Path(__file__).parents[2] / "docs" / "tune.md").read_text()
    for key in set(Study.model_fields) - {"trials"} | {f"trials[].{key}" for key in Trial.model_fields}:
        assert f"`{key}`" in page
    winner = parse(read(tmp_path / "study" / "best.toml"))
    assert winner.name == "tiny-tuned"
    assert winner.model["optimizer"]["learning_rate"] == best.parameters[RATE]
    train(winner, tmp_path / "run")
    log = Run(tmp_path / "run").log()
    assert [float(row["validation_w1"]) for row in log] == [value for _, value in best.validations]
    card = Run(tmp_path / "run").card()
    assert card.training.best_epoch == best.best_epoch
    assert float(log[best.best_epoch - 1]["validation_w1"]) == best.value


def test_a_study_goes_on_with_the_next_trial_and_repeats_by_its_seed(events_file, tmp_path, pretended):
    pretended(lambda rate: [abs(np.log(rate / 1e-3))])
    tiny = recipe(events_file)
    rate = space(pruning={"startup_trials": 100})
    whole = tune(tiny, rate, tmp_path / "whole", trials=12)
    broken = tune(tiny, rate, tmp_path / "broken", trials=4)
    assert tune(tiny, rate, tmp_path / "broken", trials=4) == broken
    broken = tune(tiny, rate, tmp_path / "broken", trials=12)

    def tried(result):
        return [trial.parameters[RATE] for trial in result.trials]

    assert tried(broken) == tried(whole)
    assert len(set(tried(whole))) == 12
    assert whole.importance == {RATE: 1.0}
    other = tune(tiny.model_copy(update={"seed": 4}), space(), tmp_path / "other", trials=2)
    assert not set(tried(other)) & set(tried(whole))


def test_a_trial_worse_than_the_median_is_stopped(events_file, tmp_path, pretended):
    reached = []

    def values(rate):
        reached.append([])
        level = len(reached) if len(reached) < 4 else 10 if len(reached) == 4 else 0.5
        for epoch in range(3):
            reached[-1].append(epoch)
            yield level - 0.1 * epoch

    pretended(values)
    early = {"startup_trials": 3, "warmup_epochs": 2}
    result = tune(recipe(events_file), space(pruning=early), tmp_path, trials=5)
    assert states(result) == ["finished"] * 3 + ["pruned", "finished"]
    assert [len(epochs) for epochs in reached] == [3, 3, 3, 2, 3]
    assert result.trials[3].value is None
    assert result.trials[3].validations == ((1, 10.0), (2, 9.9))
    assert result.finished[0].number == 4


def test_the_value_is_that_of_the_weights_that_were_kept(events_file, tmp_path, pretended):
    pretended(lambda rate: [3.0, 2.0])  # the first is called the best, by another entry of the validation
    (trial,) = tune(recipe(events_file), space(), tmp_path, trials=1).trials
    assert (trial.value, trial.best_epoch) == (3.0, 1)


def test_a_training_that_diverges_is_a_failed_trial(events_file, tmp_path):
    wild = space(choices(1e30, 1e-3))
    tiny = recipe(events_file, epochs=1).model_copy(update={"seed": 2})
    result = tune(tiny, wild, tmp_path, trials=3)
    assert len(result.trials) == 3
    for trial in result.trials:
        diverged = trial.parameters[RATE] > 1
        assert trial.state == ("failed" if diverged else "finished")
        assert ("lower the learning rate" in trial.reason) == diverged
    assert {"failed", "finished"} == set(states(result))
    assert result.finished[0].parameters == {RATE: 1e-3}


def test_a_validation_that_is_no_number_is_a_failed_trial(events_file, tmp_path, pretended):
    pretended(lambda rate: [2.0, float("nan")])
    result = tune(recipe(events_file), space(), tmp_path, trials=2)
    assert states(result) == ["failed"] * 2
    assert result.trials[0].reason == "validation w1 became nan after epoch 2"
    assert not (tmp_path / "best.toml").exists()


def test_keys_that_do_not_fit_together_are_a_failed_trial_and_lists_are_choices(events_file, tmp_path):
    network = {"patch": 4, "blocks": 1, "multipliers": [1, 2], "attention": [1]}
    images = {"type": "flow_matching", "network": network, "prediction": "data", "epochs": 1}
    images |= {"solver": {"steps": 1}, "batch_size": 50, "validation_events": 20}
    wanted = choices(2, 3, path="model.network.heads")
    wanted |= choices([1, 2], [1, 1], path="model.network.multipliers")
    tiny = recipe(events_file).model_copy(update={"model": images, "seed": 2})
    result = tune(tiny, space(wanted), tmp_path, trials=2)
    found = {trial.parameters["model.network.heads"]: trial for trial in result.trials}
    assert found.keys() == {2, 3}
    assert found[3].state == "failed"
    assert found[3].reason
    assert found[2].state == "finished"
    assert found[2].parameters["model.network.multipliers"] in ([1, 2], [1, 1])


def test_run_folders_are_kept_where_wanted(events_file, tmp_path):
    tune(recipe(events_file, epochs=1), space(), tmp_path, trials=1, keep=True)
    assert Run(tmp_path / "trial-0").card().name == "tiny"


def test_a_folder_that_is_there_is_left_alone(events_file, tmp_path):
    (tmp_path / "trial-0").mkdir()
    with pytest.raises(ValueError, match="trial-0 is already there"):
        tune(recipe(events_file), space(), tmp_path, trials=1)
    assert (tmp_path / "trial-0").is_dir()


def test_an_error_that_is_not_the_trial_s_ends_the_worker(events_file, tmp_path, pretended):
    def broken(rate):
        raise OSError("no space left")

    pretended(broken)
    with pytest.raises(OSError, match="no space left"):
        tune(recipe(events_file), space(), tmp_path, trials=2)
    (trial,) = json.loads((tmp_path / "trials.json").read_text())["trials"]
    assert trial["state"] == "failed"


@pytest.mark.parametrize(
    "storage", ["shared.log", pytest.param("sqlite:///shared.db", marks=pytest.mark.slow)]
)
def test_workers_share_a_study_by_name(events_file, tmp_path, monkeypatch, pretended, storage):
    monkeypatch.chdir(tmp_path)
    pretended(lambda rate: [rate])
    tiny = recipe(events_file)
    tune(tiny, space(), tmp_path / "a", storage=storage, name="both", trials=2)
    result = tune(tiny, space(), tmp_path / "b", storage=storage, name="both", trials=3)
    assert [trial.number for trial in result.trials] == [0, 1, 2]
    assert len(json.loads((tmp_path / "a" / "trials.json").read_text())["trials"]) == 2
    alone = tune(tiny, space(), tmp_path / "c", storage=storage, name="alone", trials=1)
    assert len(alone.trials) == 1


def test_workers_may_have_their_data_and_devices_elsewhere(events_file, tmp_path, pretended):
    pretended(lambda rate: [rate])
    copy = tmp_path / "copy.h5"
    copy.write_bytes(events_file.read_bytes())
    tune(recipe(events_file), space(), tmp_path / "study", trials=1)
    there = recipe(copy)
    there = there.model_copy(update={"training": there.training.model_copy(update={"threads": 2})})
    assert len(tune(there, space(), tmp_path / "study", trials=2).trials) == 2


def test_another_recipe_or_space_is_another_study(events_file, tmp_path, pretended):
    pretended(lambda rate: [rate])
    tiny, wider = recipe(events_file), space(choices(1e-3, 1e-4))
    tune(tiny, space(), tmp_path / "study", trials=1)
    with pytest.raises(ValueError, match=r"begun with another model\.epochs: .*--study"):
        tune(recipe(events_file, epochs=3), space(), tmp_path / "study", trials=2)
    with pytest.raises(ValueError, match=r"begun with another space\.parameters"):
        tune(tiny, wider, tmp_path / "study", trials=2)
    with pytest.raises(ValueError, match="already holds the study 'tiny', not 'other'"):
        tune(tiny, wider, tmp_path / "study", name="other", trials=2)


@pytest.mark.parametrize(
    ("changes", "more", "message"),
    [
        (
            {},
            {"objective": "w2"},
            r"no entry 'w2' in the validation of channel_flow_matching, did you mean 'w1'\?",
        ),
        ({}, {"parameters": choices(1, 2, path="model.widths")}, "'model.widths', did you mean 'width'"),
        (
            {"type": "resample"},
            {"parameters": choices(1, 2, path="seed")},
            "resample has no training to tune",
        ),
    ],
)
def test_what_does_not_fit_is_found_before_any_training(events_file, tmp_path, changes, more, message):
    tiny = recipe(events_file)
    tiny = tiny.model_copy(update={"model": changes or tiny.model})
    with pytest.raises(ValueError, match=message):
        tune(tiny, space(**more), tmp_path / "study", trials=1)
    assert not (tmp_path / "study").exists()


def test_a_study_needs_an_end_one_device_and_a_storage(events_file, tmp_path):
    tiny = recipe(events_file)
    with pytest.raises(ValueError, match="when to stop"):
        tune(tiny, space(), tmp_path / "study")
    two = tiny.model_copy(update={"training": tiny.training.model_copy(update={"devices": 2})})
    with pytest.raises(ValueError, match="start a worker for each device"):
        tune(two, space(), tmp_path / "study", trials=1)
    (tmp_path / "text.log").write_text("hello\n")
    for storage, message in (
        (str(tmp_path / "text.log"), "is not the journal of a study"),
        (str(tmp_path / "no" / "a.log"), "there is no folder"),
        ("study.db", r"FILE\.log or the URL of a database, got study\.db"),
        (f"sqlite:///{tmp_path}/no/study.db", "cannot open the storage sqlite"),
        ("nosuch://user:secret@host/x", "cannot open the storage nosuch"),
    ):
        with pytest.raises(ValueError, match=message) as refused:
            tune(tiny, space(), tmp_path / "study", storage=storage, trials=1)
        assert "secret" not in str(refused.value)


def test_no_trial_is_begun_after_the_time(events_file, tmp_path):
    assert tune(recipe(events_file), space(), tmp_path, timeout=0).trials == ()


def test_a_killed_worker_leaves_a_study_that_goes_on(events_file, tmp_path, pretended):
    pretended(lambda rate: [rate])
    tiny = recipe(events_file)
    tune(tiny, space(), tmp_path, trials=1)
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    journal = tmp_path / "journal.log"
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
    study = optuna.load_study(study_name="tiny", storage=storage)
    for worker in (
        [socket.gethostname(), process.pid],
        [socket.gethostname(), os.getpid()],
        ["elsewhere", 1],
    ):
        study.ask().set_user_attr("worker", worker)
    (tmp_path / "trial-1").mkdir()
    with journal.open("a") as file:
        file.write('{"op_code": 5, "worker')
    result = tune(tiny, space(), tmp_path, trials=4)
    assert states(result) == ["finished", "failed", "running", "running", "finished", "finished"]
    assert result.trials[1].reason == "its worker was stopped"
    assert not (tmp_path / "trial-1").exists()


def test_a_trial_whose_worker_was_killed_before_it_wrote_its_name_is_ended_after_a_while(
    events_file, tmp_path, pretended, monkeypatch
):
    pretended(lambda rate: [rate])
    tiny = recipe(events_file)
    tune(tiny, space(), tmp_path, trials=1)
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "journal.log"))
    optuna.load_study(study_name="tiny", storage=optuna.storages.JournalStorage(backend)).ask()
    assert states(tune(tiny, space(), tmp_path, trials=2)) == ["finished", "running", "finished"]
    monkeypatch.setattr("caloforge.training.tune.NAMELESS", timedelta(0))
    assert states(tune(tiny, space(), tmp_path, trials=2))[1] == "failed"


def test_without_optuna_the_extra_is_named(events_file, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r"caloforge\[tune\]"):
        tune(recipe(events_file), space(), tmp_path, trials=1)


@pytest.mark.slow
def test_two_processes_share_a_journal_and_a_third_is_killed(events_file, tmp_path):
    (tmp_path / "tiny.toml").write_text(to_toml(recipe(events_file)))
    (tmp_path / "space.toml").write_text(
        f'[parameters]\n"{RATE}" = {{type = "float", low = 1e-5, high = 1e-2, log = true}}\n'
    )
    command = [sys.executable, "-m", "caloforge", "tune", "tiny.toml", "--space", "space.toml"]
    command += ["--storage", "shared.log", "--trials"]
    folders = [tmp_path / name for name in ("first", "second", "killed")]
    workers = [
        subprocess.Popen(
            [*command, "8", "--out", str(folder)], cwd=tmp_path, stderr=subprocess.PIPE, text=True
        )
        for folder in folders
    ]
    while not (folders[2] / "trials.json").exists() and workers[2].poll() is None:
        time.sleep(0.02)
    workers[2].send_signal(signal.SIGKILL)
    for worker in workers:
        worker.communicate()
    assert [worker.returncode for worker in workers[:2]] == [0, 0]
    done = subprocess.run(
        [*command, "12", "--out", str(folders[0])], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "the best is" in done.stdout
    trials = json.loads((folders[0] / "trials.json").read_text())["trials"]
    assert [trial["number"] for trial in trials] == list(range(len(trials)))
    assert 12 <= len(trials) <= 14
    # the killed worker may have begun a trial without having written its name into it
    nameless = [trial for trial in trials if trial["state"] == "running"]
    assert len(nameless) <= 1
    assert all(trial["parameters"] == {} for trial in nameless)
    assert {trial["state"] for trial in trials} <= {"finished", "pruned", "failed", "running"}
    assert len({trial["parameters"][RATE] for trial in trials if trial["parameters"]}) >= 11
    second = json.loads((folders[1] / "trials.json").read_text())["trials"]
    assert trials[: len(second)][0] == second[0]
