import numpy as np
import pytest
import torch

from caloforge.detectors import ZN, ZP
from caloforge.models.base import BatchRandom
from caloforge.models.flow_matching import FlowMatching, FlowMatchingConfig
from caloforge.models.parts.images import cell_order, channel_loss
from caloforge.nn.unet import UNetConfig
from caloforge.ode.solvers import SolverConfig

SMALL = FlowMatchingConfig(
    network=UNetConfig(patch=4, blocks=1), solver=SolverConfig(steps=2), epochs=1, batch_size=8
)


@pytest.mark.parametrize("detector", [ZN, ZP], ids=lambda detector: detector.name)
def test_the_default_is_the_papers(detector):
    model = FlowMatching(detector, FlowMatchingConfig())
    assert sum(p.numel() for p in model.parameters()) == 77_372
    assert model.config.solver == SolverConfig(method="euler", steps=11)
    assert (model.config.epochs, model.config.batch_size, model.config.average) == (50, 256, 0.0)


@pytest.mark.parametrize("channels", [0.0, 1.0])
@pytest.mark.parametrize("prediction", ["velocity", "data"])
def test_the_loss_vanishes_for_a_perfect_network(prediction, channels, events):
    model = FlowMatching(ZN, SMALL.model_copy(update={"prediction": prediction, "channels": channels}))
    (stage,) = model.stages(events)
    x1 = torch.log1p(torch.from_numpy(events.responses[:8].astype("f4")))

    class Perfect(torch.nn.Module):
        def forward(self, x, t, condition):
            # x_t = (1 - t) x_0 + t x_1, so the velocity is (x_1 - x_t) / (1 - t)
            return x1 if prediction == "data" else (x1 - x) / (1 - t)[:, None, None]

    loss = stage._loss(Perfect(), events.slices(slice(0, 8)), BatchRandom(0, slice(0, 8), 8))
    assert loss.max() < 1e-5


def test_the_channel_loss_sees_sums_and_nothing_else(events):
    images = torch.log1p(torch.from_numpy(events.responses[:8].astype("f4")))
    matrix = torch.tensor(ZN.channel_map("paper").matrix)
    shuffled = images.flatten(1).clone()
    for row in matrix.bool():
        cells = torch.nonzero(row)[:, 0]
        shuffled[:, cells] = shuffled[:, cells.flip(0)]
    assert channel_loss(shuffled.view_as(images), images, matrix).max() < 1e-6
    doubled = torch.log1p(2 * torch.expm1(images))
    sums = torch.expm1(images).flatten(1) @ matrix.T
    expected = ((2 * sums + 0.1).sqrt() - (sums + 0.1).sqrt()).square().mean(1)
    torch.testing.assert_close(channel_loss(doubled, images, matrix), expected)


@pytest.mark.parametrize("prediction", ["velocity", "data"])
def test_the_channel_loss_reaches_the_network(prediction, events):
    values = []
    for channels in (0.0, 1.0):
        torch.manual_seed(0)
        model = FlowMatching(ZN, SMALL.model_copy(update={"prediction": prediction, "channels": channels}))
        (stage,) = model.stages(events)
        loss = stage.loss(events.slices(slice(0, 8)), BatchRandom(0, slice(0, 8), 8))
        loss.mean().backward()
        values.append((loss.detach(), torch.cat([p.grad.flatten() for p in model.network.parameters()])))
    assert (values[1][0] > values[0][0]).all()
    assert torch.isfinite(values[1][1]).all()
    assert not torch.equal(values[1][1], values[0][1])


@torch.no_grad()
@pytest.mark.parametrize("method", ["euler", "midpoint"])
def test_a_network_that_knows_the_image_generates_it(method, events):
    config = SMALL.model_copy(update={"prediction": "data", "solver": SolverConfig(method=method, steps=3)})
    model = FlowMatching(ZN, config)
    x1 = torch.log1p(torch.from_numpy(events.responses[:4].astype("f4")))
    model.network.forward = lambda x, t, condition: x1
    noise = torch.randn(4, model.noise_dim)
    response = model(torch.from_numpy(events.conditions[:4]), noise)
    # systematic rounding gives the floor or the ceiling, here within rounding of the counts themselves
    assert (response - torch.from_numpy(events.responses[:4].astype("f4"))).abs().max() <= 1
    if method == "euler":
        torch.testing.assert_close(response.sum((1, 2)), torch.expm1(x1).sum((1, 2)), atol=1.01, rtol=0)


@torch.no_grad()
def test_rounding_by_name(events):
    torch.manual_seed(0)
    model = FlowMatching(ZN, SMALL)
    noise, conditions = torch.randn(4, model.noise_dim), torch.from_numpy(events.conditions[:4])
    outputs = {}
    for rounding in ("none", "nearest", "systematic"):
        model.config = SMALL.model_copy(update={"rounding": rounding})
        outputs[rounding] = model(conditions, noise)
    assert not torch.equal(outputs["none"], outputs["none"].round())
    torch.testing.assert_close(outputs["nearest"], outputs["none"].round())
    assert (outputs["systematic"] - outputs["none"]).abs().max() < 1
    channels = [ZN.readout(outputs[name].numpy()) for name in ("systematic", "none")]
    assert np.abs(channels[0] - channels[1]).max() < 1.01


def test_cells_are_ordered_channel_by_channel():
    for detector in (ZN, ZP):
        order = cell_order(detector, "paper")
        np.testing.assert_array_equal(np.sort(order), np.arange(detector.cells))
        assert (np.diff(detector.channel_map("paper").matrix.argmax(0)[order]) >= 0).all()


def test_the_average_is_what_generates(events):
    torch.manual_seed(0)
    model = FlowMatching(ZN, SMALL.model_copy(update={"average": 0.5}))
    (stage,) = model.stages(events)
    modules = stage.modules()
    assert modules["average"] is model.network
    assert modules["module"] is not model.network
    before = [p.clone() for p in model.network.parameters()]
    stage.step(events.slices(slice(0, 8)), BatchRandom(0, slice(0, 8), 8), lambda loss: loss.backward())
    assert any(not torch.equal(a, b) for a, b in zip(before, model.network.parameters(), strict=True))


@pytest.mark.slow
def test_it_learns_a_made_up_detector(events):
    torch.manual_seed(0)
    model = FlowMatching(
        ZN,
        FlowMatchingConfig(
            prediction="data",
            network=UNetConfig(base=16, multipliers=(1, 2), patch=4, attention=(0, 1), embedding=32),
            solver=SolverConfig(steps=4),
        ),
    )
    (stage,) = model.stages(events)
    losses = [
        stage.step(events, BatchRandom(step, slice(0, 48), 48), lambda loss: loss.backward())["loss"]
        for step in range(150)
    ]
    assert np.mean(losses[-30:]) < 0.8 * np.mean(losses[:30])
