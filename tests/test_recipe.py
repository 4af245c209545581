import tomllib

import pytest

from caloforge import recipe

VALUES = {"name": "x", "detector": "zn", "model": {"type": "resample"}}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["trainin.devices=2"], r"unknown key 'trainin', did you mean 'training'\?"),
        (["training.device=2"], r"unknown key 'training.device', did you mean 'devices'\?"),
        (["data.splt='paper'"], r"unknown key 'data.splt', did you mean 'split'\?"),
        (
            ["data.split=random"],
            r"data.split: Input should be 'canonical', 'grouped', 'paper', 'ordered' or 'files', got 'random'",
        ),
        (["training.devices=many"], r"training.devices: .*valid integer.*, got 'many'"),
        (["seed=-1"], r"seed: .*greater than or equal to 0, got -1"),
        (["seed"], "must read path.to.key=value, got 'seed'"),
        (["name.first=x"], "'name' is a value, not a section"),
    ],
)
def test_what_is_wrong_is_named_with_its_path(settings, message):
    with pytest.raises(ValueError, match=message):
        recipe.parse(recipe.with_settings(VALUES, settings))


def test_settings_are_toml_or_plain_words_and_change_nothing_in_place():
    changed = recipe.with_settings(
        VALUES,
        [
            "seed=3",
            "data.files=['a.h5']",
            "training.checkpoint_every=1.5",
            "name=other",
            "training.compile=true",
        ],
    )
    parsed = recipe.parse(changed)
    assert (parsed.seed, parsed.data.files, parsed.name) == (3, ("a.h5",), "other")
    assert parsed.training.compile is True
    assert VALUES == {"name": "x", "detector": "zn", "model": {"type": "resample"}}


def test_a_recipe_survives_toml():
    parsed = recipe.parse(recipe.with_settings(VALUES, ["data.particles=['n']", "model.k=3"]))
    assert recipe.parse(tomllib.loads(recipe.to_toml(parsed))) == parsed


def test_a_missing_recipe_names_those_that_ship():
    with pytest.raises(ValueError, match="did you mean 'zn-flow_matching'"):
        recipe.read("zn-flow_machting")


def test_broken_toml_is_refused(tmp_path):
    path = tmp_path / "broken.toml"
    path.write_text("name = ")
    with pytest.raises(ValueError, match=r"cannot read the recipe .*broken.toml"):
        recipe.read(path)


@pytest.mark.parametrize("name", recipe.packaged())
def test_every_recipe_that_ships_builds_its_model(name):
    from caloforge.models import build, resolved

    parsed = recipe.parse(recipe.read(name))
    assert parsed.name == name
    # the zero response is of both modules, and takes the features of one
    assert name.startswith("zdc" if parsed.model["type"] == "zero_response" else parsed.detector)
    assert build(parsed).detector.name == parsed.detector
    assert recipe.parse(tomllib.loads(recipe.to_toml(resolved(parsed)))) == resolved(parsed)
