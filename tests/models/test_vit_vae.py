import numpy as np
import pytest
import torch

from caloforge import recipe
from caloforge.detectors import ZN, ZP
from caloforge.models import build
from caloforge.models.base import BatchRandom
from caloforge.models.vit_vae import ViTVAE, ViTVAEConfig

SMALL = ViTVAEConfig.model_validate(
    {
        "network": {"width": 16, "heads": 2, "layers": 1, "latent": 8, "dropout": 0.0},
        "optimizer": {"learning_rate": 3e-3},
    }
)


def test_it_learns(events):
    torch.manual_seed(0)
    few = events.slices(slice(0, 12))
    (stage,) = ViTVAE(ZN, SMALL).stages(few)
    losses = [
        stage.step(few, BatchRandom(k, slice(0, 12), 12), lambda loss: loss.backward())["loss"]
        for k in range(25)
    ]
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.7 * losses[0]


def test_the_loss_is_the_summed_square_and_the_weighted_divergence(events):
    few = events.slices(slice(0, 4))
    model = ViTVAE(ZN, SMALL)
    (stage,) = model.stages(few)
    y = torch.log1p(torch.from_numpy(few.responses.astype("f4")))
    mean, log_variance = torch.full((4, 10), 2.0), torch.full((4, 10), -1.0)
    model.vae.encode = lambda image, condition, kept: (mean, log_variance)
    model.vae.decoder.forward = lambda z, condition, kept: y + 0.5
    loss = stage.loss(few, BatchRandom(0, slice(0, 4), 4))
    kl = 10 * 0.5 * (4 + np.exp(-1) - 1 + 1)
    torch.testing.assert_close(loss, torch.full((4,), 0.25 * 44 * 44 + 0.7 * kl), rtol=1e-5, atol=0)


def test_dropout_is_drawn_from_outside_and_for_training_only(events):
    torch.manual_seed(0)
    few = events.slices(slice(0, 4))
    config = SMALL.model_copy(update={"network": SMALL.network.model_copy(update={"dropout": 0.5})})
    model = ViTVAE(ZN, config)
    (stage,) = model.stages(few)
    first, second, other = (stage.loss(few, BatchRandom(seed, slice(0, 4), 4)) for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(("name", "detector"), [("zn", ZN), ("zp", ZP)])
def test_the_recipes(name, detector):
    paper = build(recipe.parse(recipe.read(f"{name}-vit_vae-paper")))
    network = paper.config.network
    assert (network.width, network.layers, network.heads, network.dropout) == (96, 4, 4, 0.1)
    assert (paper.config.latent, paper.config.kl, paper.config.rounding) == (10, 0.7, "none")
    assert paper.vae.decoder.tokens.positions.shape == (36 if detector is ZN else 28, 96)
    assert build(recipe.parse(recipe.read(f"{name}-vit_vae"))).noise_dim == 11
