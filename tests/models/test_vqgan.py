import numpy as np
import pytest
import torch

from caloforge.detectors import ZN, ZP
from caloforge.models.base import BatchRandom
from caloforge.models.vqgan import VQGAN, ParticleConfig, VQGANConfig
from made import made_events

SMALL = VQGANConfig.model_validate(
    {
        "image": {"codes": 16, "batch_size": 16},
        "condition": {"codes": 8, "batch_size": 16},
        "prior": {"network": {"width": 16, "hidden": 16, "layers": 1, "heads": 2}, "batch_size": 16},
        "top_k": 8,
        "validation_events": 16,
    }
)


TOLD = SMALL.model_copy(
    update={
        "particle": ParticleConfig.model_validate(
            {
                "hidden": 16,
                "photons": {"width": 16, "batch_size": 16},
                "place": {"width": 16, "batch_size": 16},
            }
        )
    }
)


def size(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("detector", [ZN, ZP], ids=lambda detector: detector.name)
def test_the_default_has_the_papers_sizes(detector):
    model = VQGAN(detector, VQGANConfig())
    assert size(model.image) == 59_924
    assert model.image.codebook.vectors().shape == (512, 8)
    assert size(model.condition) == 116_873
    assert (model.config.temperature, model.config.top_k) == (1.2, 128)
    if detector is ZN:
        assert (size(model.prior), model.length) == (934_912, 121)


def test_every_stage_lowers_its_loss():
    torch.manual_seed(0)
    events = made_events(ZN).slices(slice(0, 12))
    rows = slice(0, len(events))
    changes = {
        "image": SMALL.image.model_copy(
            update={"optimizer": SMALL.image.optimizer.model_copy(update={"schedule": "constant"})}
        )
    }
    model = VQGAN(ZN, SMALL.model_copy(update=changes))
    stages = model.stages(events)
    assert [stage.name for stage in stages] == ["image_tokens", "condition_tokens", "prior"]
    for stage in stages:
        losses = [
            stage.step(events, BatchRandom(step, rows, len(events)), lambda loss: loss.backward())["loss"]
            for step in range(12)
        ]
        assert np.mean(losses[-4:]) < np.mean(losses[:4]), stage.name
    scores = stages[0].validate(events)
    assert 0 < scores["codes_used"] <= 1 <= scores["perplexity"] <= 16


@torch.no_grad()
def test_the_image_is_that_of_the_tokens_drawn():
    torch.manual_seed(0)
    model = VQGAN(ZN, SMALL.model_copy(update={"rounding": "none"}))
    tokens = torch.randint(16, (3, 121))
    model.prior.draw = lambda *_: tokens
    conditions = torch.from_numpy(made_events(ZN).conditions[:3])
    image = model(conditions, torch.randn(3, model.noise_dim))
    wanted = model.image.decode(model.image.codebook.lookup(tokens))
    torch.testing.assert_close(torch.log1p(image), wanted)


@torch.no_grad()
def test_a_told_prior_meets_the_sum_that_is_drawn():
    torch.manual_seed(0)
    model = VQGAN(ZN, TOLD)
    events = made_events(ZN)
    stages = model.stages(events)
    assert [stage.name for stage in stages] == [
        "image_tokens",
        "condition_tokens",
        "photons",
        "place",
        "prior",
    ]
    conditions = torch.from_numpy(events.conditions[::9][:6])
    noise = torch.randn(6, model.noise_dim)
    sums = model.given(conditions, noise[:, -2])[2]
    assert sums.unique().numel() > 1
    torch.testing.assert_close(model(conditions, noise).sum((1, 2)), sums, atol=1.0, rtol=0)


def test_tokens_are_made_once_and_particles_are_those_of_the_epoch():
    torch.manual_seed(0)
    model = VQGAN(ZN, TOLD)
    events = made_events(ZN).slices(slice(0, 8))
    *_, prior = model.stages(events)
    encoded = []
    encode = model.image.encode
    model.image.encode = lambda image: encoded.append(len(image)) or encode(image)
    for shift in (0.0, 1.0):
        moved = events.slices(np.arange(8))
        moved.conditions[:, 1] = 0.01 * np.arange(8) + shift
        (batch,) = prior.batches(moved, np.random.default_rng(0))
        order = np.rint(100 * (batch.conditions[:, 1] - shift)).astype(int)
        sums = events.responses.reshape(8, -1).sum(1, dtype=np.float64)
        np.testing.assert_array_equal(batch.photons, sums[order])
    assert encoded == [8]
    before = model.told.outer.weight.clone()
    values = [
        prior.step(batch, BatchRandom(step, slice(0, 8), 8), lambda loss: loss.backward())["loss"]
        for step in range(12)
    ]
    assert np.mean(values[-4:]) < np.mean(values[:4])
    assert (model.told.outer.weight - before).abs().max() > 0
