import numpy as np
import pytest
import torch

from caloforge.detectors import ZN, ZP
from caloforge.models.base import BatchRandom
from caloforge.models.factorized_latent_flow_matching import (
    FactorizedLatentFlowMatching,
    FactorizedLatentFlowMatchingConfig,
)
from made import made_events

SMALL = FactorizedLatentFlowMatchingConfig.model_validate(
    {
        "sums": {"width": 16, "blocks": 1, "solver": {"steps": 2}},
        "code": {"network": {"width": 8, "blocks": 1, "embedding": 8, "code": 4, "place": 8}},
        "flow": {
            "width": 16,
            "blocks": 1,
            "solver": {"method": "bespoke", "steps": 2},
            "bespoke": {"steps": 2, "reference": 4},
        },
        "validation_events": 20,
    }
)


def fitted(detector, config=SMALL):
    torch.manual_seed(0)
    events = made_events(detector)
    model = FactorizedLatentFlowMatching(detector, config)
    return model, events, model.stages(events)


@torch.no_grad()
@pytest.mark.parametrize("detector", [ZN, ZP], ids=lambda detector: detector.name)
@pytest.mark.parametrize("channels", ["paper", "o2"])
def test_the_image_has_exactly_the_sums_drawn_first(detector, channels):
    model, events, _ = fitted(detector, SMALL.model_copy(update={"channels": channels}))
    conditions = torch.from_numpy(events.conditions[:8])
    noise = torch.randn(8, model.noise_dim)
    sums = model.sums(conditions, model.sums.describe(conditions), noise[:, detector.cells + 4 : -1])
    responses = model(conditions, noise)
    assert torch.equal(responses, responses.round())
    np.testing.assert_array_equal(detector.readout(responses.numpy(), channels), sums.numpy())
    assert sums.sum() > 0


@torch.no_grad()
def test_given_sums_are_kept_whatever_the_decoder_says():
    model, events, _ = fitted(ZN)
    conditions = torch.from_numpy(events.conditions[:4])
    sums = torch.tensor([[0.0, 1, 2, 3, 4], [3000, 0, 0, 0, 0], [0, 0, 0, 0, 0], [17, 1, 999, 5, 400]])
    known = model._known(model.sums.describe(conditions), sums)
    for level in (0.0, 40.0, -40.0):  # a decoder that makes all cells dark, and one gone astray
        model.autoencoder.decoder.forward = lambda *_, level=level: torch.full((6, 4, 44, 44), level)
        image = model.draw_image(
            conditions, known, sums, torch.randn(4, 4), torch.randn(4, 1936), torch.randn(4)
        )
        np.testing.assert_array_equal(ZN.readout(image.numpy()), sums.numpy())


def test_one_leap_learns_to_end_where_the_teacher_ends():
    """The student starts as its teacher, ends nearer to it after some steps, and leaves it as it is."""
    average = {"steps": 1, "teacher": 3, "average": 0.0, "optimizer": {"learning_rate": 1e-2}}
    values = SMALL.model_dump()
    values["flow"] |= {"average_velocity": average, "solver": {"method": "average_velocity", "steps": 1}}
    values["sums"] |= {"average_velocity": average, "solver": {"method": "average_velocity", "steps": 1}}
    config = FactorizedLatentFlowMatchingConfig.model_validate(values)
    model, events, stages = fitted(ZN, config)
    names = [stage.name for stage in stages]
    assert names == ["sums", "sums_average_velocity", "code", "flow", "flow_solver", "flow_average_velocity"]
    rest = {"method": "midpoint", "steps": 3}
    precise = FactorizedLatentFlowMatching(
        ZN,
        config.model_copy(
            update={"flow": type(config.flow).model_validate(values["flow"] | {"solver": rest})}
        ),
    )
    _, _, known = model._tensors(events)
    noise = torch.randn(len(events), 4)
    for parameter in model.flow.parameters():  # zeros that training would have left
        torch.nn.init.normal_(parameter, std=0.3)
    teacher = {name: weights.clone() for name, weights in model.flow.state_dict().items()}
    next(iter(stages[-1].batches(events, np.random.default_rng(0))))
    distances = []
    for step in range(41):
        if step % 40 == 0:
            precise.load_state_dict(model.state_dict())
            with torch.no_grad():
                ends = [one.draw_code(known, noise) for one in (model, precise)]
            distances.append(float((ends[0] - ends[1]).square().mean()))
        random = BatchRandom(step, slice(0, 48), 48)
        stages[-1].step(events, random, lambda loss: loss.backward())
    assert distances[1] < 0.5 * distances[0]
    assert all(torch.equal(weights, teacher[name]) for name, weights in model.flow.state_dict().items())


def test_every_stage_lowers_its_loss():
    _, events, stages = fitted(ZN)
    assert [stage.name for stage in stages] == ["sums", "code", "flow", "flow_solver"]
    for stage in stages[:-1]:  # of the solver there is nothing to gain before the network is trained
        losses = [
            stage.step(events, BatchRandom(step % 5, slice(0, 48), 48), lambda loss: loss.backward())["loss"]
            for step in range(15)
        ]
        assert np.mean(losses[-5:]) < np.mean(losses[:5]), stage.name


@torch.no_grad()
def test_codes_are_standardised_before_the_flow_learns_them():
    model, events, stages = fitted(ZN)
    next(iter(stages[2].batches(events, np.random.default_rng(0))))
    mean, log_variance = model._encode(model.autoencoder, *model._tensors(events))
    z = mean + torch.exp(log_variance / 2) * torch.randn_like(mean)
    found = model.standardize_code(z)
    torch.testing.assert_close(found.mean(0), torch.zeros(4), atol=0.1, rtol=0)
    torch.testing.assert_close(found.std(0), torch.ones(4), atol=0.1, rtol=0)


@torch.no_grad()
def test_a_flow_that_knows_the_code_gives_it():
    model, events, _ = fitted(ZN)
    model.standardize_code.mean.copy_(torch.tensor([1.0, 2, 3, 4]))
    wanted, known = torch.randn(8, 4), model._tensors(events.slices(slice(0, 8)))[2]
    x1 = model.standardize_code(wanted)
    model.flow_solver = None
    model.config = SMALL.model_copy(
        update={"flow": SMALL.flow.model_copy(update={"solver": SMALL.sums.solver})}
    )
    model.flow.forward = lambda x, t, embedding: (x1 - x) / (1 - t)[:, None]
    torch.testing.assert_close(model.draw_code(known, torch.randn(8, 4)), wanted, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_sums_alone_are_told_of_magnets():
    plain, events, _ = fitted(ZP)
    alone, _, stages = fitted(ZP, SMALL.model_copy(update={"transport": "sums", "mirror": True}))
    shapes, told = (
        {name: value.shape for name, value in model.state_dict().items()} for model in (plain, alone)
    )
    assert all(name.startswith("sums.") for name in shapes if told[name] != shapes[name])
    conditions = torch.from_numpy(events.conditions[:8])
    features = alone.sums.describe(conditions)
    assert torch.equal(alone.sums.later(features), plain.sums.describe(conditions))
    assert torch.equal(alone.sums.cell(conditions), plain.sums.cell(conditions))
    assert alone(conditions, torch.randn(8, alone.noise_dim)).shape == (8, *ZP.shape)
    for stage in stages[:2]:
        with torch.enable_grad():
            each = stage.loss(events.slices(slice(0, 16)), BatchRandom(0, slice(0, 16), 16))
        assert torch.isfinite(each).all()


def test_a_smaller_decoder_learns_the_distributions_of_the_trained_one():
    """It starts from its teacher, comes nearer, leaves it as it is, and is all that generation needs."""
    values = SMALL.model_dump()
    values["code"]["network"]["blocks"] = 3
    values["code"]["distillation"] |= {"blocks": 1, "average": 0.0, "optimizer": {"learning_rate": 1e-2}}
    model, events, stages = fitted(ZN, FactorizedLatentFlowMatchingConfig.model_validate(values))
    assert [stage.name for stage in stages][-1] == "distillation"
    teacher = model.autoencoder.decoder
    for parameter in teacher.parameters():  # zeros that training would have left
        torch.nn.init.normal_(parameter, std=0.2)
    kept = {name: weights.clone() for name, weights in teacher.state_dict().items()}
    next(iter(stages[-1].batches(events, np.random.default_rng(0))))
    for name, weights in model.decoder.tokens.blocks[0].state_dict().items():
        assert torch.equal(weights, teacher.tokens.blocks[1].state_dict()[name])
    losses = [
        stages[-1].step(events, BatchRandom(step % 3, slice(0, 48), 48), lambda loss: loss.backward())["loss"]
        for step in range(30)
    ]
    assert np.mean(losses[-3:]) < 0.7 * np.mean(losses[:3])
    assert all(torch.equal(weights, kept[name]) for name, weights in teacher.state_dict().items())
    assert model.training_only == ("autoencoder",)
    with torch.no_grad():
        inputs = torch.from_numpy(events.conditions[:4]), torch.randn(4, model.noise_dim)
        seen = model(*inputs)
        for parameter in teacher.parameters():
            parameter.zero_()
        assert torch.equal(model(*inputs), seen)


def test_average_velocities_of_the_code_may_have_fewer_blocks():
    values = SMALL.model_dump()
    average = {"steps": 1, "blocks": 1}
    solver = {"method": "average_velocity", "steps": 1}
    values["flow"] |= {"blocks": 3, "average_velocity": average, "solver": solver}
    model, events, stages = fitted(ZN, FactorizedLatentFlowMatchingConfig.model_validate(values))
    next(iter(stages[-1].batches(events, np.random.default_rng(0))))
    assert len(model.flow_average_velocity.blocks) == 1
    for name, weights in model.flow_average_velocity.blocks[0].state_dict().items():
        assert torch.equal(weights, model.flow.blocks[1].state_dict()[name])
