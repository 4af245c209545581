"""A training that begins with trained weights."""

import dataclasses

import numpy as np
import pytest
import torch

from caloforge import face, recipe
from caloforge.detectors import ZN
from caloforge.io.run import Run, read_weights
from caloforge.models import build
from caloforge.training.run import train
from caloforge.training.start import start_folder, start_from

SETTINGS = ["model.width=16", "model.blocks=1", "model.epochs=1", "model.validation_events=16"]


def parsed(events_file, *settings, **more):
    return face.recipe_of("zn-channel_flow_matching", [events_file], [*SETTINGS, *settings], **more)


@pytest.fixture(scope="module")
def first(tmp_path_factory, events_file):
    folder = tmp_path_factory.mktemp("start") / "first"
    train(parsed(events_file), folder)
    return folder


def test_the_same_architecture_goes_on(events_file, first, tmp_path):
    lines = []
    still = parsed(events_file, "name=second", "seed=5", "model.optimizer.learning_rate=1e-12", start=first)
    train(still, tmp_path / "second", say=lines.append)
    card = Run(tmp_path / "second").card()
    assert card.start.name == "zn-channel_flow_matching"
    assert card.start.weights == Run(first).check_weights()
    assert card.start.taken == card.start.arrays
    assert lines[-1] == f"start from {card.start.name}: {card.start.arrays} of {card.start.arrays} arrays"
    theirs, ours = (read_weights(Run(run).weights) for run in (first, tmp_path / "second"))
    for name, tensor in theirs.items():
        np.testing.assert_allclose(ours[name], tensor, atol=1e-6, err_msg=name)
    assert recipe.read(tmp_path / "second" / "recipe.toml")["start"] == str(first)


def test_another_width_takes_what_fits_and_says_the_rest(events_file, first):
    model = build(parsed(events_file, "model.blocks=2"))
    start = start_from(model, first)
    assert 0 < start.origin.taken < start.origin.arrays
    assert "(not there)" in str(start)
    with pytest.raises(ValueError, match="no weights of zn-channel_flow_matching fit"):
        start_from(build(face.recipe_of("zn-linear", [events_file], [])), first)


def test_constants_of_other_conditions_are_those_of_the_new_data(events_file, first):
    model = build(parsed(events_file))
    model.detector = dataclasses.replace(ZN, name="other")
    buffers = {name: tensor.clone() for name, tensor in model.named_buffers()}
    start = start_from(model, first)
    assert start.left
    assert all("(of other conditions)" in text for text in start.left)
    for name, tensor in model.named_buffers():
        torch.testing.assert_close(tensor, buffers[name])


def test_what_is_no_start_is_refused_before_anything_is_written(events_file, tmp_path, caloforge):
    assert start_folder("zn-vqgan").name == "zn-vqgan"
    for name, message in (("zn-vqgn", "did you mean 'zn-vqgan'"), (str(tmp_path), "has no card.json")):
        with pytest.raises(ValueError, match=message):
            train(parsed(events_file, start=name), tmp_path / "run")
    code, _, err = caloforge("train", "zn-linear", "--start", "nothing", "--out", tmp_path / "run")
    assert (code, "start: no run folder nothing" in err) == (2, True)
    assert not (tmp_path / "run").exists()
