"""The unit of a detector decides whether counts are rounded: photons come out whole, energies as they are."""

import dataclasses

import numpy as np
import pytest

from caloforge import detectors
from caloforge.detectors import CRYSTALS
from caloforge.events import Events
from caloforge.io import create, open_events
from caloforge.models import MODELS, READOUTS, configuration, resolved
from caloforge.recipe import Recipe

ROUNDED = {
    name: kind
    for name, kind in {**MODELS, **READOUTS}.items()
    if "rounding" in kind.config_class.model_fields
}


def recipe(name, detector, **changes):
    return Recipe(name="a", detector=detector, model={"type": name, **changes})


@pytest.mark.parametrize("name", ROUNDED)
def test_the_unit_decides_and_a_recipe_may_say_otherwise(name):
    default = ROUNDED[name].config_class().rounding
    assert default != "none"
    assert configuration(recipe(name, "zn")).rounding == default
    assert configuration(recipe(name, "crystals")).rounding == "none"
    assert resolved(recipe(name, "crystals")).model["rounding"] == "none"  # and the run folder says so
    assert configuration(recipe(name, "crystals", rounding=default)).rounding == default
    assert configuration(recipe(name, "zn", rounding="none")).rounding == "none"


def crystals_events(rows=80):
    rng = np.random.default_rng(0)
    conditions = np.column_stack(
        [rng.uniform(50, 200, rows), rng.uniform(0, 0.3, rows), rng.uniform(-3, 3, rows)]
    )
    squared = ((np.indices((20, 20)) - 9.5) ** 2).sum(0)
    shape = np.exp(-squared / 4) * rng.gamma(5, 0.2, (rows, 20, 20))
    energy = 0.9 * conditions[:, 0] / shape.sum((1, 2))
    fold = (np.arange(rows) % 10).astype(np.int8)
    return Events(
        CRYSTALS,
        conditions.astype(np.float32),
        np.full(rows, 22),
        np.arange(rows),
        fold,
        (shape * energy[:, None, None]).astype(np.float32),
    )


def test_energies_from_training_to_file_are_no_whole_numbers(caloforge, tmp_path):
    data, run, out = tmp_path / "data.h5", tmp_path / "run", tmp_path / "out.h5"
    with create(data, CRYSTALS) as writer:
        writer.append(crystals_events())
    network = {"patch": 4, "blocks": 1, "base": 8, "multipliers": [1], "attention": []}
    settings = [f"model.network.{key}={value}" for key, value in network.items()]
    settings += ["model.epochs=1", "model.validation_events=8", "training.threads=1"]
    words = [word for setting in settings for word in ("--set", setting)]
    code, _, err = caloforge("train", "crystals-flow_matching", "--data", data, "--out", run, *words)
    assert code == 0, err
    code, _, err = caloforge("sample", run, data, out, "--on-outside", "flag")
    assert code == 0, err
    responses = open_events(out).slices(slice(None)).responses
    assert responses.dtype == np.float32
    lit = responses[responses > 0.01]
    assert (np.abs(lit - np.rint(lit)) > 1e-3).mean() > 0.9


def test_a_file_of_energies_holds_floats_whatever_they_are(tmp_path):
    events = crystals_events(4)
    whole = dataclasses.replace(events, responses=np.rint(events.responses))
    for name in ("a.h5", "a.npz"):
        with create(tmp_path / name, CRYSTALS) as writer:
            writer.append(whole)
        assert open_events(tmp_path / name).slices(slice(None)).responses.dtype == np.float32
    assert not detectors.CRYSTALS.counts
    assert detectors.ZN.counts
