import dataclasses

import numpy as np
import pytest
import torch

from caloforge.detectors import ZN, ZP
from caloforge.events import Events
from caloforge.metrics.channels import energy_score
from caloforge.models.base import BatchRandom
from caloforge.models.channel_flow_matching import ChannelFlowMatching, ChannelFlowMatchingConfig
from caloforge.models.parts.images import mirrored
from caloforge.models.parts.inference import generate_in_memory
from caloforge.models.parts.particle_features import TransportFeatures
from caloforge.optim import AdamConfig
from caloforge.runtime.noise import standard_normals

TINY = {"width": 16, "blocks": 2, "solver": {"steps": 4}, "validation_events": 32}


def photons(energies, detector=ZN, seed=0) -> Events:
    """Photons onto the face: in every channel 0.1 of the energy forwards, 0.02 backwards, each +- 20 %."""
    rng = np.random.default_rng(seed)
    rows = len(energies)
    conditions = np.zeros((rows, 9), np.float32)
    conditions[:, 0] = energies
    conditions[:, 6] = energies * rng.choice([-1, 1], rows)
    conditions[:, 4:6] = energies[:, None] * rng.normal(size=(rows, 2)) * 1e-4
    conditions[:, 0] = np.linalg.norm(conditions[:, 4:7].astype(np.float64), axis=1) * (1 + 1e-6)
    responses = np.zeros((rows, *detector.shape), np.uint16)
    matrix = detector.channel_map("paper").matrix
    light = energies * np.where(conditions[:, 6] > 0, 0.1, 0.02)
    for channel in range(5):
        cell = np.unravel_index(matrix[channel].argmax(), detector.shape)
        responses[(slice(None), *cell)] = np.maximum(rng.normal(light, 0.2 * light), 0)
    return Events(detector, conditions, np.full(rows, 22), np.arange(rows), responses=responses)


def untrained(detector=ZN, **settings) -> ChannelFlowMatching:
    torch.manual_seed(0)
    model = ChannelFlowMatching(detector, ChannelFlowMatchingConfig(**{**TINY, **settings}))
    model.stages(photons(np.linspace(100, 3000, 64), detector))
    for block in model.network.blocks:
        torch.nn.init.normal_(block.modulation.weight, std=0.3)
    torch.nn.init.normal_(model.network.last.weight, std=0.3)
    return model


@pytest.mark.parametrize("detector", [ZN, ZP], ids=lambda d: d.name)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"derived": False},
        {"transport": True, "mirror": True, "least": 10},
        {"scale": "log"},
        {"channels": "o2"},
        {"average": 0.0},
        {"solver": {"method": "rk4"}},
    ],
    ids=str,
)
def test_sums_are_counts_the_same_in_any_batch_and_after_saving(detector, settings):
    model = untrained(detector, **settings)
    conditions = photons(np.linspace(100, 3000, 40), detector, seed=1).conditions
    sums = generate_in_memory(model, conditions, seed=1)
    assert sums.shape == (40, 5)
    assert sums.dtype == np.float32
    assert (sums >= 0).all()
    assert np.array_equal(sums, np.round(sums))
    assert (sums != generate_in_memory(model, conditions, seed=2)).any()
    # a sum may flip to its neighbour where rounding falls on an edge
    assert np.abs(sums - generate_in_memory(model, conditions, seed=1, batch_size=7)).max() <= 1
    restored = ChannelFlowMatching(detector, model.config)
    restored.load_state_dict(model.state_dict())
    assert np.array_equal(sums, generate_in_memory(restored, conditions, seed=1))


def test_unrounded_sums_lie_half_a_count_around_the_rounded_ones():
    model = untrained()
    conditions = photons(np.linspace(100, 3000, 40)).conditions
    rounded = generate_in_memory(model, conditions, seed=1)
    model.config = ChannelFlowMatchingConfig(**TINY, rounding="none")
    assert np.abs(rounded - generate_in_memory(model, conditions, seed=1)).max() <= 0.5001


def test_mirroring_twice_gives_the_event_back():
    events = photons(np.linspace(100, 3000, 6))
    rows = np.array([True, False, True, False, True, False])
    conditions, responses = mirrored(ZN, events.conditions, events.responses, rows)
    assert np.array_equal(conditions[~rows], events.conditions[~rows])
    assert np.array_equal(responses[~rows], events.responses[~rows])
    # y is the second axis, vy and py are the third and sixth feature
    assert np.array_equal(responses[rows], events.responses[rows][:, :, ::-1])
    signs = np.where(np.isin(np.arange(9), [2, 5]), -1, 1)
    assert np.array_equal(conditions[rows], events.conditions[rows] * signs)
    again = mirrored(ZN, conditions, responses, rows)
    assert np.array_equal(again[0], events.conditions)
    assert np.array_equal(again[1], events.responses)


def test_mirror_images_of_charged_particles_are_aimed_as_magnets_ask_for():
    rng = np.random.default_rng(0)
    conditions = photons(np.linspace(1000, 4000, 40), ZP).conditions
    conditions[:, 4:6] = rng.normal(0, 1, (40, 2))
    conditions[:, 6] = np.where(rng.random(40) < 0.5, 1, -1) * rng.uniform(2000, 5000, 40)
    conditions[:, 8] = np.repeat([1, 0, -1, 1], 10)
    conditions[30:, 4] = 0.1 * conditions[30:, 0]  # far beside the magnets
    responses = rng.poisson(1, (40, *ZP.shape)).astype(np.uint16)
    images, turned = mirrored(ZP, conditions, responses, np.ones(40, bool), transport=True)
    transport = TransportFeatures(ZP)
    places, _ = transport.place(torch.from_numpy(conditions))
    found, _ = transport.place(torch.from_numpy(images))
    same = (images == conditions).all(1)
    assert same.mean() < 0.5
    assert np.array_equal(turned[same], responses[same])
    assert np.array_equal(turned[~same], responses[~same][:, :, ::-1])
    torch.testing.assert_close(found[~same], (places * torch.tensor([1.0, -1.0]))[~same], atol=1e-3, rtol=0)
    momenta = [np.linalg.norm(values[:, 4:7], axis=1) for values in (images, conditions)]
    np.testing.assert_allclose(*momenta, rtol=1e-5)
    again, _ = mirrored(ZP, images, turned, ~same, transport=True)
    np.testing.assert_allclose(again[~same], conditions[~same], rtol=1e-4, atol=1e-3)


def test_no_event_is_fainter_than_the_faintest_of_the_data():
    model = untrained(ZP, transport=True, least=10)
    conditions = photons(np.linspace(1, 300, 60), ZP).conditions
    assert generate_in_memory(model, conditions, seed=1).sum(1).min() >= 10
    model.config = ChannelFlowMatchingConfig(**TINY, transport=True)
    assert generate_in_memory(model, conditions, seed=1).sum(1).min() < 10


def test_settings_that_a_detector_cannot_serve_are_refused():
    charges = dataclasses.replace(ZN, conditions=ZN.conditions[3:])
    with pytest.raises(ValueError, match="needs the condition energy"):
        ChannelFlowMatching(charges, ChannelFlowMatchingConfig(derived=False))
    plain = ChannelFlowMatchingConfig(derived=False, scale="log")
    assert ChannelFlowMatching(charges, plain).standardize.mean.shape == (6,)
    layered = dataclasses.replace(ZN, axes={"x": 44, "layer": 44})
    with pytest.raises(ValueError, match="needs an axis y; zn has x, layer"):
        ChannelFlowMatching(layered, ChannelFlowMatchingConfig(mirror=True))


def test_a_detector_without_a_face_has_no_derived_features():
    bare = dataclasses.replace(ZN, face=None)
    with pytest.raises(ValueError, match=r"zn has face None"):
        ChannelFlowMatching(bare, ChannelFlowMatchingConfig())
    assert not ChannelFlowMatching(bare, ChannelFlowMatchingConfig(derived=False)).config.derived


def trained(epochs: int) -> tuple[ChannelFlowMatching, list[float]]:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    train = photons(rng.uniform(500, 3000, 512))
    config = ChannelFlowMatchingConfig(
        width=32,
        blocks=2,
        epochs=epochs,
        batch_size=128,
        average=0.98,
        optimizer=AdamConfig(learning_rate=5e-3, schedule="cosine", warmup=0.05),
    )
    model = ChannelFlowMatching(ZN, config)
    (stage,) = model.stages(train)
    losses = []
    for _ in range(epochs):
        for batch in stage.batches(train, rng):
            random = BatchRandom(len(losses), slice(0, 128), 128)
            losses.append(stage.step(batch, random, torch.Tensor.backward)["loss"])
    assert all(parameter.grad.abs().sum() > 0 for parameter in stage.modules()["module"].parameters())
    return model, losses


def test_training_lowers_the_loss_and_reaches_every_parameter():
    _, losses = trained(epochs=15)
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:3])


@pytest.mark.slow
def test_it_learns_mean_and_spread_of_a_conditional_distribution():
    model, _ = trained(epochs=150)
    for energy in (1000.0, 2500.0):
        asked = photons(np.full(2000, energy), seed=7)
        sums = generate_in_memory(model, asked.conditions, seed=0, batch_size=2000)
        forwards = asked.conditions[:, 6] > 0
        for rows, light in ((forwards, 0.1 * energy), (~forwards, 0.02 * energy)):
            assert sums[rows].mean(0) == pytest.approx(np.full(5, light), rel=0.1)
            assert sums[rows].std(0) == pytest.approx(np.full(5, 0.2 * light), rel=0.35)


def test_validation_scores_repeat_and_name_the_energy_score_first():
    events = photons(np.linspace(100, 3000, 64))
    model = untrained()
    scores = model.scores(events)
    assert list(scores) == ["energy_score", "w1"]
    assert scores == model.scores(events)
    (stage,) = model.stages(events)
    assert stage.validate(events) == {"score": scores["energy_score"], **scores}


def test_energy_score_by_hand():
    reference = np.array([[0.0, 0.0], [3.0, 4.0]])
    generated = np.array([[[3.0, 4.0], [3.0, 4.0]], [[0.0, 0.0], [3.0, 4.0]]])
    # errors 5, 0 and 0, 0; the two draws are 5 and 0 apart, and half of that is taken off
    assert energy_score(reference, generated) == pytest.approx(5 / 4 - (5 / 2) / 2)


def test_energy_score_prefers_the_true_distribution():
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(4000, 5))
    score = {
        width: energy_score(reference, width * rng.normal(size=(4, 4000, 5))) for width in (0.7, 1.0, 1.4)
    }
    assert score[1.0] == min(score.values())
    assert score[1.0] < energy_score(reference, np.zeros((2, 4000, 5)))


def test_noise_has_one_number_a_channel():
    model = untrained()
    assert model.noise_dim == 5
    noise = torch.from_numpy(standard_normals(0, np.arange(3), 5))
    assert model(torch.from_numpy(photons(np.full(3, 500.0)).conditions), noise).shape == (3, 5)
