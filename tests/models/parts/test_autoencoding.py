import copy

import numpy as np
import pytest
import torch

from caloforge.detectors import ZN
from caloforge.io.run import write_weights
from caloforge.models.base import BatchRandom
from caloforge.models.latent_flow_matching import VAEConfig
from caloforge.models.parts.autoencoding import (
    AutoencoderStage,
    LossesConfig,
    perceptual_network,
    reconstruction_loss,
)
from caloforge.nn.perceptual import Extractor
from caloforge.optim import AdamConfig
from made import made_events


class Constant(torch.nn.Module):
    """An autoencoder that always gives the same image."""

    def __init__(self):
        super().__init__()
        self.image = torch.nn.Parameter(torch.full((44, 44), 0.5))


def stage_of(losses, module, events, distance=None):
    images = torch.log1p(torch.from_numpy(events.responses.astype("f4")))

    def reconstruct(batch, rng):
        found = 1 * module.image.expand(len(batch), -1, -1)
        return images[: len(batch)], found, torch.zeros(()), {}

    return AutoencoderStage(
        "made",
        module,
        reconstruct,
        lambda source: {"w1": 0.0},
        VAEConfig(losses=losses, optimizer=AdamConfig(learning_rate=0.02), epochs=1, batch_size=8),
        torch.tensor(ZN.channel_map("paper").matrix),
        len(events),
        distance,
    )


ALONE = {"perceptual": 0.0, "adversarial": 0.0}


@pytest.mark.parametrize("likelihood", ["l2", "poisson", "negative_binomial"])
def test_a_reconstruction_finds_the_best_constant(likelihood):
    torch.manual_seed(0)
    counts = torch.poisson(torch.full((4000, 1, 1), 3.0))
    image, config = torch.log1p(counts), LossesConfig(likelihood=likelihood, **ALONE)
    candidates = torch.linspace(0.5, 2.5, 201)
    losses = [float(reconstruction_loss(image, torch.full_like(image, float(c)), config)) for c in candidates]
    best = float(candidates[int(np.argmin(losses))])
    wanted = image.mean() if likelihood == "l2" else torch.log1p(counts.mean())
    assert abs(best - float(wanted)) < 0.02


def test_the_losses_balance_by_strength(events):
    module = Constant()
    stage = stage_of(LossesConfig(channels=1.0, **ALONE), module, events)
    rows = slice(0, len(events))
    values = stage.step(events, BatchRandom(0, rows, len(events)), lambda loss: loss.backward())
    assert {"loss", "reconstruction", "channels"} <= set(values)
    # the pulls of both terms on each event's own copy add up to 0.1 and 1 at most
    assert 0.9 / len(events) ** 0.5 < module.image.grad.norm() < 1.1 * len(events) ** 0.5


def test_the_channel_term_brings_the_sums_nearer(events):
    module, rows = Constant(), slice(0, len(events))
    stage = stage_of(LossesConfig(channels=1.0, **ALONE), module, events)
    found = [
        stage.step(events, BatchRandom(k, rows, len(events)), lambda loss: loss.backward())["channels"]
        for k in range(20)
    ]
    assert found[-1] < 0.5 * found[0]


def test_the_discriminator_learns_and_is_restored(events):
    torch.manual_seed(0)
    distance, used = perceptual_network("zdc")
    assert used["name"] == "zdc"
    losses = LossesConfig.model_validate({"discriminator": {"learning_rate": 0.03}})
    rows = slice(0, len(events))

    def made():
        return stage_of(losses, Constant(), events, distance)

    stage = made()
    found = [
        stage.step(events, BatchRandom(k, rows, len(events)), lambda loss: loss.backward()) for k in range(6)
    ]
    assert found[0]["discriminator"] == 2  # of a zero head
    assert found[-1]["discriminator"] < 1.95
    again = made()
    again.load_state_dict(copy.deepcopy(stage.state_dict()))
    first, second = (
        one.step(events, BatchRandom(9, rows, len(events)), lambda loss: loss.backward())
        for one in (stage, again)
    )
    assert first == second


def test_a_file_of_ones_own_is_used_and_named(tmp_path):
    extractor = Extractor(3, [[4], [6]])
    tensors = {name: tensor.numpy() for name, tensor in extractor.state_dict().items()}
    tensors |= {f"lin{k}.model.1.weight": np.ones((1, c, 1, 1), "f4") for k, c in enumerate((4, 6))}
    write_weights(tmp_path / "vgg.safetensors", tensors)
    distance, used = perceptual_network(str(tmp_path / "vgg.safetensors"))
    assert (used["name"], used["input_channels"], used["stages"]) == ("vgg.safetensors", 3, [4, 6])
    assert len(used["sha256"]) == 64
    image = torch.rand(2, 12, 12)
    wanted = extractor(image, shifted=True)
    for first, second in zip(distance.extractor(image, True), wanted, strict=True):
        torch.testing.assert_close(first, second)


@pytest.mark.parametrize("name", ["vgg16", "nowhere.safetensors"])
def test_there_is_no_fallback(name):
    with pytest.raises(ValueError, match=f"perceptual network '{name}' must be 'zdc' or a safetensors file"):
        perceptual_network(name)


def test_the_network_that_ships_tells_images_apart():
    distance, _ = perceptual_network("zdc")
    events = made_events()
    image = torch.log1p(torch.from_numpy(events.responses.astype("f4")))
    near, far = torch.roll(image, 1, 1), torch.roll(image, 12, 1)
    assert (distance(image, near).mean() * 1.5) < distance(image, far).mean()
