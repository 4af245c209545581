"""Stages chosen by name are trained on the weights of another run, and no others (`tools/later_stage.py`)."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from caloforge.io.run import Run, read_weights
from caloforge.recipe import parse, to_toml
from caloforge.training.run import train

SCRIPT = Path(__file__).parents[2] / "tools" / "later_stage.py"
STUDENTS = ("sums.average_velocity.", "flow_average_velocity.")


def recipe(file, **flow):
    flow = {"width": 8, "blocks": 1, "epochs": 1, "batch_size": 50, "solver": {"steps": 1}, **flow}
    code = {"network": {"width": 8, "blocks": 1, "code": 4, "embedding": 8}, "epochs": 1, "batch_size": 50}
    model = {"type": "factorized_latent_flow_matching", "sums": flow, "code": code, "flow": flow}
    return parse(
        {
            "name": "tiny",
            "detector": "zn",
            "data": {"files": [str(file)]},
            "model": {**model, "validation_events": 20},
            "training": {"threads": 1, "accelerator": "cpu"},
        }
    )


def later_stage(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
    runpy.run_path(str(SCRIPT), run_name="__main__")


@pytest.mark.slow
def test_students_are_trained_and_what_was_given_stays(events_file, tmp_path, monkeypatch, capsys):
    first, second = tmp_path / "first", tmp_path / "second"
    train(recipe(events_file), first)
    average = {"steps": 1, "teacher": 1, "epochs": 1, "batch_size": 50}
    whole = recipe(events_file, average_velocity=average, solver={"method": "average_velocity", "steps": 1})
    file = tmp_path / "recipe.toml"
    file.write_text(to_toml(whole))
    only = ["--only", "sums", "autoencoder", "flow", "standardize_logs", "standardize_code"]
    later_stage(
        monkeypatch, file, first, second, "--stage", "sums_average_velocity", "flow_average_velocity", *only
    )
    train(Run(second).recipe(), second, resume=True)
    before, after = read_weights(Run(first).weights), read_weights(Run(second).weights)
    assert {name for name in after if name not in before} == {n for n in after if n.startswith(STUDENTS)}
    for name, weights in before.items():
        np.testing.assert_array_equal(after[name], weights, err_msg=name)
    assert [row["stage"] for row in Run(second).log()] == [
        "sums",
        "code",
        "flow",
        "sums_average_velocity",
        "flow_average_velocity",
    ]
    with pytest.raises(SystemExit):
        later_stage(monkeypatch, file, first, tmp_path / "third", "--stage", "image")
    assert "no stage 'image'; there are sums, sums_average_velocity, code" in capsys.readouterr().err


@pytest.mark.slow
def test_the_first_factor_may_be_that_of_a_model_of_channel_sums(events_file, tmp_path, monkeypatch):
    first, sums, second = tmp_path / "first", tmp_path / "sums", tmp_path / "second"
    train(recipe(events_file), first)
    average = {"steps": 1, "teacher": 1, "epochs": 1, "batch_size": 50}
    whole = recipe(events_file).model_dump()
    settings = {
        "transport": True,
        "width": 8,
        "blocks": 1,
        "epochs": 1,
        "batch_size": 50,
        "validation_events": 20,
    }
    train(parse({**whole, "model": {"type": "channel_flow_matching", **settings}}), sums)
    whole["model"] |= {"transport": "sums"}
    whole["model"]["sums"] |= {
        "average_velocity": average,
        "solver": {"method": "average_velocity", "steps": 1},
    }
    file = tmp_path / "recipe.toml"
    file.write_text(to_toml(parse(whole)))
    only = ["--only", "autoencoder", "flow", "standardize_logs", "standardize_code"]
    later_stage(monkeypatch, file, first, second, "--stage", "sums_average_velocity", "--sums", sums, *only)
    train(Run(second).recipe(), second, resume=True)
    before, after, drawn = (read_weights(Run(run).weights) for run in (first, second, sums))
    for name, weights in after.items():
        if name.startswith(("sums.network.", "sums.standardize")):
            np.testing.assert_array_equal(weights, drawn[name.removeprefix("sums.")], err_msg=name)
        elif not name.startswith("sums."):
            np.testing.assert_array_equal(weights, before[name], err_msg=name)
    assert [row["stage"] for row in Run(second).log()] == ["sums", "code", "flow", "sums_average_velocity"]
