import numpy as np
import pytest
import torch

from caloforge import recipe
from caloforge.detectors import ZN, ZP
from caloforge.models import build
from caloforge.models.base import BatchRandom
from caloforge.models.latent_flow_matching import LatentFlowMatching, LatentFlowMatchingConfig
from caloforge.ode.solvers import SolverConfig
from caloforge.optim import AdamConfig
from made import made_events

SMALL = LatentFlowMatchingConfig.model_validate(
    {
        "vae": {"batch_size": 16, "optimizer": {"schedule": "constant"}},
        "optimizer": {"schedule": "constant"},
        "solver": {"steps": 2},
        "batch_size": 16,
        "validation_events": 16,
    }
)


def size(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("detector", [ZN, ZP], ids=lambda detector: detector.name)
def test_the_default_has_the_papers_sizes(detector):
    model = LatentFlowMatching(detector, LatentFlowMatchingConfig())
    assert size(model.vae) == 59_348
    assert size(model.network) == 127_824
    assert size(model.network) + size(model.vae.decoder) == 158_712
    assert model.config.solver == SolverConfig(method="euler", steps=7)
    assert model.noise_dim == (484 if detector is ZN else 448) + 1


@pytest.mark.parametrize("name", ["zn", "zp"])
def test_the_recipe_is_the_papers(name):
    model = build(recipe.parse(recipe.read(f"{name}-latent_flow_matching-paper")))
    assert size(model) == 59_348 + 127_824
    losses = model.config.vae.losses
    assert (losses.reconstruction, losses.perceptual, losses.adversarial) == (0.1, 1.0, 1.0)
    assert (model.config.rounding, model.config.latents, model.config.average) == ("none", "mean", 0.0)


def run(stage, events, steps):
    rows = slice(0, len(events))
    return [
        stage.step(events, BatchRandom(k, rows, len(events)), lambda loss: loss.backward())
        for k in range(steps)
    ]


def with_losses(**changes):
    losses = SMALL.vae.losses.model_copy(update=changes)
    return SMALL.model_copy(update={"vae": SMALL.vae.model_copy(update={"losses": losses})})


def test_all_losses_are_at_work_and_the_card_says_by_which_network():
    torch.manual_seed(0)
    events = made_events(ZN).slices(slice(0, 4))
    model = LatentFlowMatching(ZN, SMALL)
    vae, _ = model.stages(events)
    assert model.made_with["perceptual_network"]["name"] == "zdc"
    values = run(vae, events, 1)[0]
    assert {"reconstruction", "perceptual", "adversarial", "discriminator", "kl"} <= set(values)


def test_both_stages_learn():
    torch.manual_seed(0)
    events = made_events(ZN).slices(slice(0, 12))
    config = with_losses(perceptual=0.0, adversarial=0.0, reconstruction=1.0)
    vae = config.vae.model_copy(update={"kl": 0.0, "optimizer": AdamConfig(learning_rate=0.01)})
    model = LatentFlowMatching(ZN, config.model_copy(update={"vae": vae}))
    vae, velocity = model.stages(events)
    values = run(vae, events, 40)
    assert np.mean([v["reconstruction"] for v in values[-5:]]) < 0.9 * values[0]["reconstruction"]
    assert vae.validate(events)["photons"] > 0
    batch = next(iter(velocity.batches(events, np.random.default_rng(0))))
    values = run(velocity, batch, 20)
    assert np.mean([v["loss"] for v in values[-5:]]) < values[0]["loss"]


def test_the_channel_loss_reaches_the_velocity_and_not_the_decoder():
    events = made_events(ZN).slices(slice(0, 8))
    losses = []
    for channels in (0.0, 1.0):
        torch.manual_seed(0)
        model = LatentFlowMatching(ZN, SMALL.model_copy(update={"channels": channels}))
        _, velocity = model.stages(events)
        model.standardize_latents.refit(torch.randn(8, 4))
        loss = velocity.loss(events, BatchRandom(0, slice(0, 8), 8))
        loss.mean().backward()
        losses.append(loss.detach())
    assert (losses[1] >= losses[0]).all()
    assert losses[1].sum() > losses[0].sum()
    assert all(p.grad is None for p in model.vae.parameters())
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in model.network.parameters())


def test_events_are_encoded_once():
    events, calls = made_events(ZN), []
    model = LatentFlowMatching(ZN, with_losses(perceptual=0.0, adversarial=0.0))
    encode = model.vae.encode
    _, velocity = model.stages(events)
    model.vae.encode = lambda image: calls.append(len(image)) or encode(image)
    first, second = (list(velocity.batches(events, np.random.default_rng(seed))) for seed in (0, 1))
    assert sum(calls) == len(events)
    assert sum(map(len, first)) == len(events) // 16 * 16
    assert not np.array_equal(first[0].conditions, second[0].conditions)
    row = int(np.flatnonzero((events.conditions == second[0].conditions[3]).all(1))[0])
    with torch.no_grad():
        wanted, _ = encode(model._image(events.slices(slice(row, row + 1))))
    same = [bool(torch.allclose(wanted[0], mean, atol=1e-4)) for mean in second[0].mean]
    assert any(same)


@pytest.mark.parametrize("latents", ["mean", "sample"])
@torch.no_grad()
def test_latents_are_standardised_channel_by_channel(latents):
    torch.manual_seed(0)
    events = made_events(ZN)
    config = with_losses(perceptual=0.0, adversarial=0.0)
    model = LatentFlowMatching(ZN, config.model_copy(update={"latents": latents}))
    _, velocity = model.stages(events)
    assert "perceptual_network" not in model.made_with
    next(iter(velocity.batches(events, np.random.default_rng(0))))
    mean, log_variance = model.vae.encode(model._image(events))
    z = mean
    if latents == "sample":
        z = mean + torch.exp(log_variance / 2) * torch.randn_like(mean)
    x1 = model.standardize_latents(z.permute(0, 2, 3, 1)).reshape(-1, 4)
    torch.testing.assert_close(x1.mean(0), torch.zeros(4), atol=0.05, rtol=0)
    torch.testing.assert_close(x1.std(0), torch.ones(4), atol=0.05, rtol=0)


@torch.no_grad()
def test_a_flow_that_knows_the_latents_generates_the_reconstruction():
    torch.manual_seed(0)
    events = made_events(ZN).slices(slice(0, 4))
    model = LatentFlowMatching(ZN, SMALL.model_copy(update={"rounding": "none"}))
    model.standardize_latents.mean.copy_(torch.tensor([1.0, -2, 0, 3]))
    model.standardize_latents.scale.copy_(torch.tensor([2.0, 0.5, 1, 3]))
    z, _ = model.vae.encode(model._image(events))
    x1 = model.standardize_latents(z.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    model.network.forward = lambda x, t, condition: (x1 - x) / (1 - t)[:, None, None, None]
    image = model(torch.from_numpy(events.conditions), torch.randn(4, model.noise_dim))
    torch.testing.assert_close(torch.log1p(image), model.vae.decoder(z), atol=1e-4, rtol=1e-4)
