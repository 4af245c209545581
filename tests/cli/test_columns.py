"""Files of other names on the command line and in recipes."""

import h5py
import numpy as np
import pytest
import uproot

from caloforge import recipe as recipes
from caloforge.detectors import CRYSTALS
from caloforge.events import load
from caloforge.io import open_events
from caloforge.training.run import training_data


@pytest.fixture
def showers(tmp_path, monkeypatch):
    """A ROOT file of two trees, with columns of other names and no PDG id."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    columns = {"E": rng.uniform(50, 900, 12), "th": rng.uniform(0, 0.3, 12), "ph": rng.uniform(-3, 3, 12)}
    with uproot.recreate("mine.root") as file:
        file["showers"] = {**columns, "cells": rng.random((12, 20, 20), np.float32), "weight": np.ones(12)}
        file["run"] = {"number": np.arange(2)}
    return columns


def test_the_command_of_the_message_reads_the_file(caloforge, showers):
    code, _, err = caloforge("data", "inspect", "mine.root", "--detector", "crystals")
    assert code == 2
    assert err.rstrip().endswith("try: caloforge data inspect mine.root --tree showers")
    code, _, err = caloforge("data", "inspect", "mine.root", "--detector", "crystals", "--tree", "showers")
    command = err.partition("try: caloforge ")[2].split()
    assert command[-3:] == ["--columns", "energy=E,theta=th,phi=ph,responses=cells", "--remember"]
    assert "--tree showers" in " ".join(command)
    code, out, err = caloforge(*command, "--columns", "pdg=22")
    assert code == 0, err
    assert "wrote mine.root.columns.toml" in out
    assert "gamma  100.00 %" in out
    assert "weight  float64" in out
    found = load(open_events("mine.root"))
    assert found.detector is CRYSTALS
    np.testing.assert_array_equal(found.feature("theta"), showers["th"].astype(np.float32))


def test_convert_takes_columns_and_inspect_shows_the_provenance(caloforge, showers):
    options = [
        "--tree",
        "showers",
        "--columns",
        "energy=E,theta=th,phi=ph",
        "--columns",
        "responses=cells,pdg=22",
    ]
    code, _, err = caloforge("data", "convert", "mine.root", "a.h5", "--detector", "crystals", *options)
    assert code == 0, err
    with h5py.File("a.h5") as file:
        np.testing.assert_array_equal(file["weight"], 1)
    code, out, _ = caloforge("data", "inspect", "a.h5")
    assert code == 0
    assert '"name": "mine.root"' in out
    assert max(map(len, out.splitlines())) < 130


def test_remember_needs_something_to_keep(caloforge, showers):
    code, _, err = caloforge(
        "data", "inspect", "mine.root", "--tree", "run", "--detector", "crystals", "--remember"
    )
    assert code == 2
    code, _, err = caloforge("data", "inspect", "sample:ds2", "--remember")
    assert code == 2
    assert "--remember keeps --detector, --columns and --tree" in err


def test_recipes_name_columns_and_tree(showers):
    values = recipes.read("crystals-flow_matching")
    columns = {"energy": "E", "theta": "th", "phi": "ph", "responses": "cells", "pdg": 22}
    values["data"] = {"files": ["mine.root"], "tree": "showers", "columns": columns}
    recipe = recipes.parse(values)
    (source,) = training_data(recipe).values()
    np.testing.assert_array_equal(source.primaries.feature("energy"), showers["E"].astype(np.float32))
    assert "columns" not in recipes.to_toml(recipes.parse({**values, "data": {"files": ["mine.root"]}}))
    again = recipes.parse(
        recipes.with_settings({**values, "data": {}}, ['data.columns.energy="E"', "data.tree=T"])
    )
    assert again.data.columns == {"energy": "E"}
    assert again.data.tree == "T"
