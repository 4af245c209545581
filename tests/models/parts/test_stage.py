import copy

import numpy as np
import pytest
import torch
from torch import nn

from caloforge.models.base import BatchRandom
from caloforge.models.parts.photons import PhotonsConfig
from caloforge.models.parts.stage import LossStage, aside
from made import made_events

CONFIG = PhotonsConfig(epochs=2, batch_size=8)
EVENTS = made_events(particles=4, repeats=4)
BATCH, RANDOM = EVENTS.slices(slice(0, 8)), BatchRandom(0, slice(0, 8), 8)


def stage_of(network, average=0.0, **options):
    def loss(network, batch, rng):
        return network(torch.ones(len(batch), 1))[:, 0].square()

    scores = {"w1": 3.0, "photons": 1.0}
    return LossStage("made", network, loss, lambda _: scores, CONFIG, 16, average=average, **options)


def test_without_an_average_the_network_itself_is_trained():
    network = nn.Linear(1, 1)
    stage, before = stage_of(network), copy.deepcopy(network.state_dict())
    assert stage.modules() == {"module": network}
    assert stage.step(BATCH, RANDOM, torch.Tensor.backward)["loss"] > 0
    assert not torch.equal(network.weight, before["weight"])


def test_the_network_keeps_the_average_of_the_weights_in_training():
    network = nn.Linear(1, 1)
    stage = stage_of(network, average=0.9)
    trained = stage.modules()["module"]
    assert stage.modules()["average"] is network
    assert trained is not network
    expected = network.weight.detach().clone()
    for step in (1, 2, 3):
        stage.step(BATCH, RANDOM, torch.Tensor.backward)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * trained.weight.detach()
    torch.testing.assert_close(network.weight.detach(), expected)
    assert not torch.equal(network.weight, trained.weight)


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_a_stage_starts_from_what_those_before_it_left(average):
    network, other = nn.Linear(1, 1), nn.Linear(1, 1)
    seen = []

    def prepare(source):
        network.load_state_dict(other.state_dict())
        seen.append(source)

    stage = stage_of(network, average, prepare=prepare)
    loss = stage.loss(BATCH, RANDOM)
    next(stage.batches(EVENTS, np.random.default_rng(0)))
    assert seen == [EVENTS]
    assert not torch.equal(stage.loss(BATCH, RANDOM), loss)
    torch.testing.assert_close(stage.modules()["module"].state_dict(), other.state_dict())


def test_a_stage_goes_on_where_another_was_saved():
    first, second = nn.Linear(1, 1), nn.Linear(1, 1)
    stage, again = stage_of(first, 0.9), stage_of(second, 0.9)
    stage.step(BATCH, RANDOM, torch.Tensor.backward)
    again.load_state_dict(copy.deepcopy(stage.state_dict()))
    for one in (stage, again):
        one.step(BATCH, RANDOM, torch.Tensor.backward)
    torch.testing.assert_close(first.state_dict(), second.state_dict(), rtol=0, atol=0)


def test_the_first_score_chooses_the_best_weights():
    assert stage_of(nn.Linear(1, 1)).validate(EVENTS) == {"score": 3.0, "w1": 3.0, "photons": 1.0}


def test_a_module_is_left_aside_and_comes_back_also_after_an_error():
    model = nn.Module()
    model.student, model.none = nn.Linear(2, 3), None
    student = model.student

    def broken():
        with aside(model, "student"), aside(model, "none"):
            raise ValueError(f"broken, with {model.student}")

    with pytest.raises(ValueError, match="broken, with None"):
        broken()
    assert model.student is student
    assert model.none is None
    assert set(model.state_dict()) == {"student.weight", "student.bias"}
