import numpy as np
import pytest
import torch

from caloforge.detectors import ZN, ZP
from caloforge.models.base import BatchRandom, generate_in_memory
from caloforge.models.factorized_flow_matching import (
    FactorizedFlowMatching,
    FactorizedFlowMatchingConfig,
    image_distances,
)
from made import made_events

SMALL = FactorizedFlowMatchingConfig.model_validate(
    {
        "sums": {"width": 16, "blocks": 1, "solver": {"steps": 2}},
        "image": {"network": {"width": 8, "blocks": 1}, "solver": {"steps": 2}},
        "validation_events": 20,
    }
)


def fitted(detector, config=SMALL):
    torch.manual_seed(0)
    events = made_events(detector)
    model = FactorizedFlowMatching(detector, config)
    return model, events, model.stages(events)


@torch.no_grad()
@pytest.mark.parametrize("detector", [ZN, ZP], ids=lambda detector: detector.name)
@pytest.mark.parametrize("channels", ["paper", "o2"])
def test_the_image_has_exactly_the_sums_drawn_first(detector, channels):
    model, events, _ = fitted(detector, SMALL.model_copy(update={"channels": channels}))
    conditions = torch.from_numpy(events.conditions[:8])
    noise = torch.randn(8, model.noise_dim)
    sums = model.draw_sums(conditions, noise[:, detector.cells : -1])
    responses = model(conditions, noise)
    assert torch.equal(responses, responses.round())
    np.testing.assert_array_equal(detector.readout(responses.numpy(), channels), sums.numpy())
    assert sums.sum() > 0


@torch.no_grad()
def test_given_sums_are_kept_whatever_the_network_says():
    model, events, _ = fitted(ZN)
    conditions = torch.from_numpy(events.conditions[:4])
    sums = torch.tensor([[0.0, 1, 2, 3, 4], [3000, 0, 0, 0, 0], [0, 0, 0, 0, 0], [17, 1, 999, 5, 400]])
    for network in (lambda *_: torch.zeros(4, 44, 44), lambda *_: torch.full((4, 44, 44), -3.0)):
        model.image.forward = network  # a channel without any light
        image = model.draw_image(conditions, sums, torch.randn(4, 1936), torch.randn(4))
        np.testing.assert_array_equal(ZN.readout(image.numpy()), sums.numpy())


@torch.no_grad()
def test_a_network_that_knows_the_image_generates_it():
    model, events, _ = fitted(ZN)
    conditions = torch.from_numpy(events.conditions[:4])
    true = torch.from_numpy(events.responses[:4].astype("f4"))
    model.image.forward = lambda *_: torch.log1p(true)
    sums = torch.from_numpy(ZN.readout(true.numpy())).float()
    image = model.draw_image(conditions, sums, torch.randn(4, 1936), torch.randn(4))
    assert (image - true).abs().max() <= 1
    assert (image != true).float().mean() < 0.01


def test_unrounded_output_keeps_the_sums_too():
    model, events, _ = fitted(ZN, SMALL.model_copy(update={"rounding": "none"}))
    responses = generate_in_memory(model, events.conditions[:8], seed=0)
    assert (responses != np.rint(responses)).any()
    sums = ZN.readout(responses)
    np.testing.assert_allclose(sums, np.rint(sums), atol=1e-2)


def test_the_loss_of_the_image_vanishes_for_a_perfect_network():
    model, events, (_, image) = fitted(ZN, SMALL.model_copy(update={"average": 0.0, "mirror": False}))
    true = torch.log1p(torch.from_numpy(events.responses[:8].astype("f4")))
    assert image.modules()["module"] is model.image
    model.image.forward = lambda *_: true
    assert image._loss(events.slices(slice(0, 8)), BatchRandom(0, slice(0, 8), 8)).max() == 0


def test_both_stages_lower_their_loss():
    _, events, stages = fitted(ZN)
    for stage in stages:
        losses = [
            stage.step(events, BatchRandom(step % 5, slice(0, 48), 48), lambda loss: loss.backward())["loss"]
            for step in range(40)
        ]
        assert np.mean(losses[-5:]) < np.mean(losses[:5])


def test_distances_of_images():
    events = made_events()
    assert max(image_distances(events.responses, events.responses).values()) == 0
    moved = np.roll(events.responses, 3, axis=1)
    distances = image_distances(events.responses, moved)
    assert distances["centre_x"] > 0.1
    assert distances["lit"] == 0
