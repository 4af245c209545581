"""The comparison: what it makes, what it keeps, and how it goes on."""

import json

import pytest

from caloforge import comparison, recipe
from caloforge.comparison import Comparing, command_of, data_by_detector, read_plan
from caloforge.evaluation import classifier
from caloforge.io.run import Run
from caloforge.report import drawing

PLAN = """
repeats = 2
seed = 3

[[models]]
recipe = "zn-flow_matching"
settings = [
    "model.network.patch=4", "model.network.blocks=1", "model.network.multipliers=[1,2]", "model.network.attention=[1]",
    "model.solver.steps=2", "model.epochs=1", "model.validation_events=16",
    "training.threads=1", "training.accelerator=cpu",
]
sweep = ["solver.steps=1,2", "solver.method=midpoint solver.steps=2"]

[[models]]
recipe = "zn-linear"
repeats = 1

[[models]]
recipe = "zn-sdi_gan"
settings = ["model.repeats=1000"]
"""


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    path = tmp_path_factory.mktemp("plans") / "tiny.toml"
    path.write_text(PLAN)
    return path


@pytest.fixture(scope="module")
def compared(plan, events_file, tmp_path_factory):
    """A comparison, made twice, and what was said each time."""
    said = []
    out = tmp_path_factory.mktemp("comparison") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "svg", lambda figure: b"<svg/>")
        patch.setattr(drawing, "png", lambda figure: b"\x89PNG")
        patch.setattr(comparison, "BATCHES", {"timing": 16, "timing_single": 1})
        for _ in range(2):
            said.append([])
            comparing = Comparing(
                read_plan(str(plan)), out, data_by_detector([events_file]), say=said[-1].append
            )
            comparing.run()
    return out, said


def test_a_comparison_trains_scores_times_and_writes(compared, events_file):
    out, (first, _) = compared
    scores = json.loads((out / "runs" / "zn-flow_matching" / "scores.json").read_text())
    assert (scores["seed"], scores["repeats"]) == (3, 2)
    assert list(scores["sets"]) == [events_file.stem]
    assert [(one["path"], one["value"], one["settings"]) for one in scores["sweep"]] == [
        ("solver.steps", 1, {}),
        ("solver.steps", 2, {}),
        ("solver.steps", 2, {"solver.method": "midpoint"}),
    ]
    assert (scores["timing"]["batch_size"], scores["timing_single"]["batch_size"]) == (16, 1)
    page = (out / "results.md").read_text()
    assert "| zn-flow_matching |" in page
    assert "| zn-linear |" in page
    assert (out / "results.html").is_file()
    assert "zn-flow_matching: training" in first


def test_what_is_done_is_not_done_again(compared):
    _, (_, second) = compared
    assert [line for line in second if not line.startswith("zn-sdi_gan")] == []


def test_a_model_that_fails_is_named_and_the_others_go_on(compared):
    out, (first, _) = compared
    reason = next(line for line in first if "1000 responses" in line)
    assert reason.startswith("zn-sdi_gan: the SDI-GAN needs particles")
    assert "## Without a result" in (out / "results.md").read_text()


def test_the_command_says_what_differs_from_the_recipe(compared):
    out, _ = compared
    command = command_of(Run(out / "runs" / "zn-flow_matching"), "zn-flow_matching")
    assert command.startswith("caloforge train zn-flow_matching --data made.h5 ")
    assert "--set model.epochs=1" in command
    assert "threads" not in command
    assert (
        command_of(Run(out / "runs" / "zn-linear"), "zn-linear") == "caloforge train zn-linear --data made.h5"
    )


def test_without_training_only_weights_that_ship_are_compared(plan, events_file, tmp_path):
    comparing = Comparing(
        read_plan(str(plan)),
        tmp_path / "out",
        data_by_detector([events_file]),
        train=False,
        say=lambda _: None,
    )
    with pytest.raises(ValueError, match="no model of the plan has a result"):
        comparing.run()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models = [", "cannot read the plan"),
        ("repeat = 1\nmodels = []", "unknown key 'repeat', did you mean 'repeats'"),
        ('[[models]]\nrecipe = "zn-knn"\n[[models]]\nrecipe = "zn-knn"', "may be compared once"),
    ],
)
def test_a_wrong_plan_is_refused(text, message, tmp_path):
    (tmp_path / "plan.toml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_plan(str(tmp_path / "plan.toml"))
    with pytest.raises(ValueError, match="there are papers, showers-100GeV, showers"):
        read_plan("nothing")


@pytest.mark.parametrize("name", ["papers", "showers", "showers-100GeV"])
def test_the_plans_that_ship_name_recipes(name):
    plan = read_plan(name)
    assert {model.recipe for model in plan.models} <= set(recipe.packaged())
    for model in plan.models:
        for sweep in map(comparison.parse_sweep, model.sweep):
            assert sweep.path
            assert sweep.values
        assert model.classifiers is None or model.classifiers in classifier.SUITES


def test_a_plan_can_be_cut():
    plan = read_plan("papers")
    assert [model.recipe for model in plan.restricted(["zp-knn"]).models] == ["zp-knn"]
    with pytest.raises(ValueError, match="did you mean 'zp-knn'"):
        plan.restricted(["zp-kn"])
