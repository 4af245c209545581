import numpy as np
import pytest
import torch

from caloforge import recipe
from caloforge.detectors import ZN
from caloforge.models import build
from caloforge.models.base import BatchRandom
from caloforge.models.sinkhorn_autoencoder import SinkhornAutoencoder, SinkhornAutoencoderConfig

SMALL = SinkhornAutoencoderConfig.model_validate(
    {
        "network": {"width": 16, "heads": 2, "layers": 1, "latent": 8, "dropout": 0.0},
        "hidden": 16,
        "optimizer": {"learning_rate": 3e-3},
    }
)


def losses(stage, events, steps):
    rows = slice(0, len(events))
    return [
        stage.step(events, BatchRandom(k, rows, len(events)), lambda loss: loss.backward())["loss"]
        for k in range(steps)
    ]


def test_it_learns(events):
    torch.manual_seed(0)
    few = events.slices(slice(0, 12))
    values = losses(SinkhornAutoencoder(ZN, SMALL).stages(few)[0], few, 25)
    assert np.isfinite(values).all()
    assert values[-1] < 0.8 * values[0]


def test_a_perfect_model_has_no_loss_and_another_particles_code_costs(events):
    torch.manual_seed(0)
    few = events.slices(slice(0, 24, 4))  # six particles
    model = SinkhornAutoencoder(ZN, SMALL)
    (stage,) = model.stages(few)
    y = torch.log1p(torch.from_numpy(few.responses.astype("f4")))
    code = torch.rand(6, 20)
    model.autoencoder.encode = lambda image, kept: code
    model.autoencoder.decoder.forward = lambda code, condition, kept: y
    rng = BatchRandom(0, slice(0, 6), 6)
    model.autoencoder.noise_generator.forward = lambda z, condition: code
    assert stage.loss(few, rng).mean().abs() < 1e-3
    # the same codes, given to other particles
    model.autoencoder.noise_generator.forward = lambda z, condition: code.roll(1, 0)
    assert stage.loss(few, rng).mean() > 1


def test_the_divergence_moves_encoder_and_noise_generator_towards_each_other(events):
    torch.manual_seed(0)
    few = events.slices(slice(0, 12))
    model = SinkhornAutoencoder(ZN, SMALL)
    (stage,) = model.stages(few)
    network = model.autoencoder
    image = torch.log1p(torch.from_numpy(few.responses.astype("f4")))
    network.decoder.forward = lambda code, condition, kept: image
    stage.loss(few, BatchRandom(0, slice(0, 12), 12)).mean().backward()
    for part in (network.code, network.noise_generator):
        assert all(p.grad.isfinite().all() and p.grad.any() for p in part.parameters())


@pytest.mark.parametrize("name", ["zn", "zp"])
def test_the_recipes(name):
    paper = build(recipe.parse(recipe.read(f"{name}-sinkhorn_autoencoder-paper"))).config
    assert (paper.network.width, paper.network.layers, paper.network.dropout) == (96, 4, 0.1)
    assert (paper.latent, paper.code, paper.sinkhorn, paper.rounding) == (10, 20, 20.0, "none")
    assert build(recipe.parse(recipe.read(f"{name}-sinkhorn_autoencoder"))).noise_dim == 11
