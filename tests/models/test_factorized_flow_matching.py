import copy

import numpy as np
import pytest
import torch

from caloforge.detectors import ZN, ZP
from caloforge.models.base import BatchRandom
from caloforge.models.factorized_flow_matching import (
    FactorizedFlowMatching,
    FactorizedFlowMatchingConfig,
)
from caloforge.models.parts.inference import generate_in_memory
from made import made_events

SMALL = FactorizedFlowMatchingConfig.model_validate(
    {
        "sums": {
            "width": 16,
            "blocks": 1,
            "solver": {"method": "bespoke", "steps": 2},
            "bespoke": {"steps": 2, "reference": 4},
        },
        "place": {"width": 16},
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
    sums = model.sums(conditions, model.sums.describe(conditions), noise[:, detector.cells : -1])
    responses = model(conditions, noise)
    assert torch.equal(responses, responses.round())
    np.testing.assert_array_equal(detector.readout(responses.numpy(), channels), sums.numpy())
    assert sums.sum() > 0


@torch.no_grad()
def test_given_sums_are_kept_whatever_the_network_says():
    model, events, _ = fitted(ZN)
    conditions = torch.from_numpy(events.conditions[:4])
    sums = torch.tensor([[0.0, 1, 2, 3, 4], [3000, 0, 0, 0, 0], [0, 0, 0, 0, 0], [17, 1, 999, 5, 400]])
    for level in (0.0, -3.0, 1e4):  # a channel without any light, and a network gone astray
        model.image.forward = lambda *_, level=level: (torch.full((4, 44, 44), level),) * 2
        image = model.draw_image(
            conditions, model.sums.describe(conditions), sums, torch.randn(4, 1936), torch.randn(4)
        )
        np.testing.assert_array_equal(ZN.readout(image.numpy()), sums.numpy())


@torch.no_grad()
def test_a_network_that_knows_the_image_generates_it():
    model, events, _ = fitted(ZN)
    conditions = torch.from_numpy(events.conditions[:4])
    true = torch.from_numpy(events.responses[:4].astype("f4"))
    model.image.forward = lambda *_: (torch.log1p(true), torch.log(true + 1e-6))
    sums = torch.from_numpy(ZN.readout(true.numpy())).float()
    image = model.draw_image(
        conditions, model.sums.describe(conditions), sums, torch.randn(4, 1936), torch.randn(4)
    )
    assert (image - true).abs().max() <= 1
    assert (image != true).float().mean() < 0.01


def test_unrounded_output_keeps_the_sums_too():
    model, events, _ = fitted(ZN, SMALL.model_copy(update={"rounding": "none"}))
    responses = generate_in_memory(model, events.conditions[:8], seed=0)
    assert (responses != np.rint(responses)).any()
    sums = ZN.readout(responses)
    np.testing.assert_allclose(sums, np.rint(sums), atol=1e-2)


def test_the_loss_of_the_image_is_the_entropy_for_a_perfect_network():
    model, events, stages = fitted(ZN, SMALL.model_copy(update={"average": 0.0}))
    image = stages[-1]
    photons = torch.from_numpy(events.responses[:8].astype("f4"))
    assert image.modules()["module"] is model.image
    model.image.forward = lambda *_: (torch.log1p(photons), torch.log(photons + 1e-9))
    loss = image.loss(events.slices(slice(0, 8)), BatchRandom(0, slice(0, 8), 8))
    sums = ZN.readout(photons.numpy())
    channel = ZN.channel_map("paper").matrix.argmax(0)
    shares = photons.flatten(1).numpy() / np.maximum(sums[:, channel], 1)
    entropy = -(photons.flatten(1).numpy() * np.log(np.maximum(shares, 1e-30))).sum(1) / sums.sum(1)
    np.testing.assert_allclose(loss.numpy(), model.config.image.likelihood * entropy, rtol=2e-3)


def test_every_stage_lowers_its_loss():
    _, events, stages = fitted(ZN)
    assert [stage.name for stage in stages] == ["sums", "sums_solver", "place", "image"]
    for stage in stages:
        if stage.name == "sums_solver":  # nothing to gain before the network is trained; see tests/ode
            continue
        losses = [
            stage.step(events, BatchRandom(step % 5, slice(0, 48), 48), lambda loss: loss.backward())["loss"]
            for step in range(15)
        ]
        assert np.mean(losses[-5:]) < np.mean(losses[:5])


@pytest.mark.slow
def test_distillation_leads_where_many_steps_lead():
    """One step of the student ends nearer to the teacher's path than one of the teacher; the teacher stays."""
    steps = {"steps": 1, "teacher": 6, "optimizer": {"learning_rate": 3e-3}, "epochs": 20, "average": 0.0}
    config = SMALL.model_copy(
        update={
            "image": SMALL.image.model_copy(
                update={"distillation": type(SMALL.image.distillation).model_validate(steps)}
            )
        }
    )
    model, events, stages = fitted(ZN, config)
    image, distillation = stages[-2:]
    for step in range(40):
        image.step(events, BatchRandom(step, slice(0, 48), 48), lambda loss: loss.backward())
    next(iter(distillation.batches(events, np.random.default_rng(0))))
    teacher = copy.deepcopy(model.image)
    losses = [
        distillation.step(events, BatchRandom(step % 3, slice(0, 48), 48), lambda loss: loss.backward())[
            "loss"
        ]
        for step in range(30)
    ]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    kept = distillation.modules()["teacher"].state_dict()
    for name, weights in teacher.state_dict().items():
        assert torch.equal(kept[name], weights)
    assert any(not torch.equal(kept[name], weights) for name, weights in model.image.state_dict().items())
    again = FactorizedFlowMatching(ZN, config).stages(events)[-1]
    again.load_state_dict(distillation.state_dict())
    for name, weights in again.modules()["teacher"].state_dict().items():
        assert torch.equal(kept[name], weights)


def test_a_smaller_network_learns_where_the_steps_of_the_image_lead():
    """It starts from its teacher, comes nearer, leaves it as it is, and is all that generation needs."""
    values = SMALL.model_dump()
    values["image"]["network"]["blocks"] = 3
    values["image"]["student"] |= {"blocks": 1, "average": 0.0, "optimizer": {"learning_rate": 1e-2}}
    model, events, stages = fitted(ZN, FactorizedFlowMatchingConfig.model_validate(values))
    assert stages[-1].name == "student"
    for parameter in model.image.parameters():  # zeros that training would have left
        torch.nn.init.normal_(parameter, std=0.05)
    kept = {name: weights.clone() for name, weights in model.image.state_dict().items()}
    next(iter(stages[-1].batches(events, np.random.default_rng(0))))
    for name, weights in model.student.blocks[0].state_dict().items():
        assert torch.equal(weights, kept[f"blocks.1.{name}"])
    losses = [
        stages[-1].step(events, BatchRandom(step % 3, slice(0, 48), 48), lambda loss: loss.backward())["loss"]
        for step in range(20)
    ]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    assert all(torch.equal(weights, kept[name]) for name, weights in model.image.state_dict().items())
    assert model.training_only == ("image",)
    with torch.no_grad():
        inputs = torch.from_numpy(events.conditions[:4]), torch.randn(4, model.noise_dim)
        seen = model(*inputs)
        for parameter in model.image.parameters():
            parameter.zero_()
        assert torch.equal(model(*inputs), seen)


def test_a_student_needs_a_teacher_with_a_multiple_of_its_steps():
    with pytest.raises(ValueError, match="2 steps needs a teacher with a multiple of them by euler, got 3"):
        FactorizedFlowMatchingConfig.model_validate(
            {"image": {"student": {"blocks": 1, "steps": 2}, "solver": {"steps": 3}}}
        )


def test_the_expected_place_is_learnt():
    _, events, stages = fitted(ZP)
    place = stages[2]
    before = place.validate(events)["distance"]
    for step in range(60):
        place.step(
            events, BatchRandom(step, slice(0, len(events)), len(events)), lambda loss: loss.backward()
        )
    assert place.validate(events)["distance"] < 0.8 * before


def test_a_bespoke_solver_must_have_been_trained():
    with pytest.raises(ValueError, match=r"needs solver\.steps as trained, got 4 and a bespoke solver of 6"):
        FactorizedFlowMatchingConfig.model_validate(
            {"sums": {"solver": {"method": "bespoke", "steps": 4}, "bespoke": {"steps": 6}}}
        )
    with pytest.raises(ValueError, match=r"\(bespoke.steps = 0\)"):
        FactorizedFlowMatchingConfig.model_validate({"sums": {"solver": {"method": "bespoke"}}})
    with pytest.raises(ValueError, match=r"image\.solver\.method\s+Input should be 'euler'"):
        FactorizedFlowMatchingConfig.model_validate({"image": {"solver": {"method": "bespoke"}}})
