import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from caloforge import recipe
from caloforge.detectors import DS2, ZN, ZP
from caloforge.models import build
from caloforge.models.base import BatchRandom
from caloforge.models.diffusion import Diffusion, DiffusionConfig, schedule, signal
from caloforge.optim import AdamConfig

SMALL = DiffusionConfig.model_validate(
    {
        "architecture": "unet",
        "network": {"patch": 4, "blocks": 1},
        "steps": 4,
        "batch_size": 8,
        "optimizer": AdamConfig(learning_rate=0.01),
    }
)
K = 1000


def test_the_signal_is_that_of_the_published_schedule():
    left = signal(K)
    assert left[0] == pytest.approx(1 - 1e-4)
    # ln a of the last is the sum of ln(1 - b), b rising evenly to 0.02
    assert left[-1] == pytest.approx(math.exp(np.log1p(-np.linspace(1e-4, 0.02, K)).sum()))
    assert left[-1] < 1e-4


def test_steps_are_evenly_spread_and_end_at_the_image():
    now = schedule(signal(K), 50, 0.0)
    np.testing.assert_allclose(now[:, 0] * K, np.arange(999, 0, -20))
    assert now[-1, 3:].tolist() == [1, 0, 0]
    # what is next starts from where the one before has led
    torch.testing.assert_close(now[:-1, 3:5], now[1:, 1:3])


@pytest.mark.parametrize("eta", [0.0, 0.7, 1.0])
def test_a_step_keeps_the_variance_of_the_noise(eta):
    now = schedule(signal(K), 50, eta)
    total = now[:, 4] ** 2 + now[:, 5] ** 2
    torch.testing.assert_close(total[:-1], now[1:, 2] ** 2)
    assert bool((now[:-1, 5] > 0).all()) == (eta > 0)


def test_with_as_many_steps_as_the_training_eta_1_is_the_posterior_of_ddpm():
    left = signal(K)
    now = schedule(left, K, 1.0)
    beta = 1 - left[1:] / left[:-1]
    expected = ((1 - left[:-1]) / (1 - left[1:]) * beta).sqrt()  # arXiv:2006.11239, eq. 7
    torch.testing.assert_close(now[:-1, 5], expected.flip(0))


@torch.no_grad()
@pytest.mark.parametrize("prediction", ["noise", "data"])
@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_a_network_that_knows_the_image_generates_it(prediction, eta, events):
    config = SMALL.model_copy(update={"prediction": prediction, "eta": eta})
    model = Diffusion(ZN, config)
    y = torch.log1p(torch.from_numpy(events.responses[:4].astype("f4")))

    def network(x, t, condition):
        a = model.left[(t * K).round().long()][:, None, None]
        return y if prediction == "data" else (x - a.sqrt() * y) / (1 - a).sqrt()

    model.network.forward = network
    response = model(torch.from_numpy(events.conditions[:4]), torch.randn(4, model.noise_dim))
    assert (response - torch.from_numpy(events.responses[:4].astype("f4"))).abs().max() <= 1


@pytest.mark.parametrize("prediction", ["noise", "data"])
def test_the_loss_vanishes_for_a_perfect_network(prediction, events):
    model = Diffusion(ZN, SMALL.model_copy(update={"prediction": prediction}))
    y = torch.log1p(torch.from_numpy(events.responses[:8].astype("f4")))

    def network(x, t, condition):
        a = model.left[(t * K).round().long()][:, None, None]
        return y if prediction == "data" else (x - a.sqrt() * y) / (1 - a).sqrt()

    model.network.forward = network
    (stage,) = model.stages(events)
    assert stage.loss(events.slices(slice(0, 8)), BatchRandom(0, slice(0, 8), 8)).max() < 1e-3


@torch.no_grad()
def test_fresh_noise_is_looked_at_but_for_the_last_step(events):
    torch.manual_seed(0)
    model = Diffusion(ZN, SMALL.model_copy(update={"eta": 0.7, "rounding": "none"}))
    assert model.noise_dim == 4 * ZN.cells + 1
    conditions, noise = torch.from_numpy(events.conditions[:2]), torch.randn(2, model.noise_dim)
    base = model(conditions, noise)
    for step in range(4):
        other = noise.clone()
        other[:, step * ZN.cells : (step + 1) * ZN.cells] *= -1
        assert not torch.equal(model(conditions, other), base)


@torch.no_grad()
def test_without_fresh_noise_an_image_is_a_function_of_its_start(events):
    model = Diffusion(ZP, SMALL)
    assert model.noise_dim == ZP.cells + 1


@pytest.mark.parametrize("name", ["zn", "zp"])
def test_the_recipes_are_the_papers_and_the_flow_matchings_network(name):
    paper = build(recipe.parse(recipe.read(f"{name}-diffusion-paper"))).config
    assert (paper.architecture, paper.prediction, paper.training_steps) == ("cross_attention", "noise", 1000)
    assert (paper.steps, paper.eta, paper.rounding) == (50, 0.7, "none")
    assert paper.cross_attention.channels == (16, 32, 64, 128)
    ours = build(recipe.parse(recipe.read(f"{name}-diffusion")))
    flow = build(recipe.parse(recipe.read(f"{name}-flow_matching")))
    assert ours.config.network == flow.config.network
    assert [p.shape for p in ours.network.parameters()] == [p.shape for p in flow.network.parameters()]


@pytest.mark.parametrize("update", [{"prediction": "data"}, {"architecture": "cross_attention"}])
def test_both_networks_learn(update, events):
    torch.manual_seed(0)
    sizes = {"channels": [4, 8, 8], "blocks": 1, "attention": [2], "groups": 2, "heads": 2}
    config = DiffusionConfig.model_validate({**SMALL.model_dump(), "cross_attention": sizes, **update})
    (stage,) = Diffusion(ZN, config).stages(events)
    few = events.slices(slice(0, 6))
    losses = [
        stage.step(few, BatchRandom(0, slice(0, 6), 6), lambda loss: loss.backward())["loss"]
        for _ in range(10)
    ]
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.9 * losses[0]


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValidationError, match="steps must be at most training_steps, 10, got 50"):
        DiffusionConfig(training_steps=10)
    with pytest.raises(ValueError, match="diffusion needs a detector with two axes"):
        Diffusion(DS2, DiffusionConfig())
