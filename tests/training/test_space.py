import tomllib

import pytest

from caloforge.recipe import packaged, parse, read
from caloforge.training.space import (
    Choices,
    FloatRange,
    IntRange,
    check,
    parse_space,
    read_space,
    with_parameters,
)

RECIPE = {"name": "x", "detector": "zn", "model": {"type": "flow_matching"}}


def space(text):
    return parse_space(tomllib.loads(text))


def test_sections_and_quoted_paths_are_the_same_keys():
    sections = space(
        "[parameters.model.optimizer]\n"
        "beta1 = {type = 'float', low = 0.4, high = 0.9}\n"
        "[parameters.model]\n"
        "epochs = {type = 'int', low = 1, high = 8, log = true}\n"
        "[parameters.model.network]\n"
        "multipliers = {type = 'categorical', choices = [[1, 2], [1, 1]]}\n"
    )
    quoted = space(
        "[parameters]\n"
        "'model.optimizer.beta1' = {type = 'float', low = 0.4, high = 0.9}\n"
        "'model.epochs' = {type = 'int', low = 1, high = 8, log = true}\n"
        "'model.network.multipliers' = {type = 'categorical', choices = [[1, 2], [1, 1]]}\n"
    )
    assert sections == quoted
    assert sections.parameters == {
        "model.optimizer.beta1": FloatRange(low=0.4, high=0.9),
        "model.epochs": IntRange(low=1, high=8, log=True),
        "model.network.multipliers": Choices(choices=([1, 2], [1, 1])),
    }
    check(sections, parse(RECIPE))


def test_the_space_that_ships_is_the_publication_s_and_fits_its_recipes():
    published = read_space("flow_matching-paper")
    assert published.objective == "w1"
    assert set(published.parameters) == {
        f"model.optimizer.{key}" for key in ("learning_rate", "beta1", "beta2", "schedule")
    }
    rate = published.parameters["model.optimizer.learning_rate"]
    assert (rate.low, rate.high, rate.log) == (1e-6, 1e-2, True)
    fitting = [name for name in packaged() if read(name)["model"]["type"] == "flow_matching"]
    assert len(fitting) >= 4
    for name in fitting:
        check(published, parse(read(name)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "parameters: Dictionary should have at least 1 item"),
        ("parameters = 3", "parameters must be a section, got 3"),
        (
            "objectiv = 'w1'\n[parameters]\na = {type = 'int', low = 1, high = 2}",
            "'objectiv', did you mean 'objective'",
        ),
        ("[parameters.model]\nepochs = 3", "parameters.model.epochs must be a range such as"),
        (
            "[parameters.model]\nepochs = {low = 1, high = 3}",
            "epochs.type must be float, int, categorical, got None",
        ),
        ("[parameters.model]\nepochs = {type = 'integer', low = 1, high = 3}", "did you mean 'int'"),
        (
            "[parameters.a]\nb = {type = 'int', low = 1, hgh = 3}",
            r"'parameters.a.b.hgh', did you mean 'high'",
        ),
        ("[parameters.a]\nb = {type = 'int', low = 1, high = 3.5}", "parameters.a.b.high: .*got 3.5"),
        ("[parameters.a]\nb = {type = 'int', low = 3, high = 3}", "low must be less than high, got 3 and 3"),
        ("[parameters.a]\nb = {type = 'float', low = 0, high = 3, log = true}", "must begin above 0, got 0"),
        ("[parameters.a]\nb = {type = 'categorical', choices = [1]}", "at least 2 items"),
        ("[pruning]\nwarmup = 3\n[parameters.a]\nb = {type = 'int', low = 1, high = 3}", "'pruning.warmup'"),
    ],
)
def test_a_space_that_is_none(text, message):
    with pytest.raises(ValueError, match=message):
        space(text)


@pytest.mark.parametrize(
    ("path", "parameter", "message"),
    [
        ("model.optimizer.lerning_rate", "low = 1e-6, high = 1e-2", "did you mean 'learning_rate'"),
        ("model.optimizer.beta1", "low = 0.4, high = 1.0", r"model.optimizer.beta1: .*less than 1, got 1.0"),
        ("model.optimizer.learning_rate.x", "low = 0.4, high = 0.9", "model.optimizer.learning_rate"),
        ("modl.epochs", "low = 0.4, high = 0.9", "unknown key 'modl', did you mean 'model'"),
        ("data.split", "low = 0.4, high = 0.9", "compared on equal events"),
        ("detector", "low = 0.4, high = 0.9", "compared on equal events"),
    ],
)
def test_a_key_the_recipe_does_not_have_or_an_end_it_refuses(path, parameter, message):
    wrong = space(f"[parameters]\n'{path}' = {{type = 'float', {parameter}}}")
    with pytest.raises(ValueError, match=message):
        check(wrong, parse(RECIPE))


def test_files_that_are_no_space(tmp_path):
    with pytest.raises(ValueError, match="did you mean 'flow_matching-paper'"):
        read_space("flow_matching-papr")
    (tmp_path / "a.toml").write_text("a = [")
    with pytest.raises(ValueError, match="cannot read the search space"):
        read_space(tmp_path / "a.toml")


def test_parameters_change_a_recipe_and_nothing_else():
    recipe = parse(RECIPE)
    changed = with_parameters(recipe, {"model.optimizer.beta1": 0.7, "training.precision": "bf16-mixed"})
    assert changed.model == {"type": "flow_matching", "optimizer": {"beta1": 0.7}}
    assert changed.training.precision == "bf16-mixed"
    assert recipe.model == {"type": "flow_matching"}
