import numpy as np
import pytest
import torch
from scipy import stats

from caloforge.detectors import DS2, ZN, ZP
from caloforge.events import Events
from caloforge.models.parts.inference import generate_in_memory
from caloforge.models.yardsticks import Nearest, NearestConfig, Resample, ResampleConfig
from caloforge.runtime.noise import standard_normals
from made_showers import made_showers

TABLE = [(Resample, ResampleConfig), (Nearest, NearestConfig)]


def toy(rows: int = 24, particles: int = 6, detector=ZN) -> Events:
    """Events whose cell (0, 0) holds the row and cell (0, 1) the particle."""
    rng = np.random.default_rng(3)
    particle = np.arange(rows) % particles
    momentum = rng.normal(size=(particles, 3)) * [0.5, 0.5, 1000.0]
    mass = np.where(np.arange(particles) % 2, 0.9396, 0.0)
    energy = np.sqrt((momentum**2).sum(1) + mass**2) * 1.001
    vertex = rng.normal(size=(particles, 3)) * 0.01
    conditions = np.column_stack([energy, vertex, momentum, mass, np.zeros(particles)]).astype(np.float32)
    responses = np.zeros((rows, *detector.shape), np.uint16)
    responses[:, 0, 0], responses[:, 0, 1] = np.arange(rows), particle
    pdg = np.where(mass > 0, 2112, 22)
    return Events(detector, conditions[particle], pdg[particle], particle * 7, responses=responses)


@pytest.mark.parametrize("detector", [ZN, ZP], ids=lambda d: d.name)
@pytest.mark.parametrize(("model_class", "config_class"), TABLE)
def test_responses_are_those_of_the_training_events_in_any_batch_and_after_saving(
    model_class, config_class, detector
):
    events = toy(detector=detector)
    model = model_class(detector, config_class())
    assert model.stages(events) == []
    generated = generate_in_memory(model, events.conditions, seed=1)
    assert generated.shape == events.responses.shape
    assert generated.dtype == np.float32
    assert {row.tobytes() for row in generated.astype(np.uint16)} <= {
        row.tobytes() for row in events.responses
    }
    assert np.array_equal(generated, generate_in_memory(model, events.conditions, seed=1, batch_size=5))
    assert not np.array_equal(generated, generate_in_memory(model, events.conditions, seed=2))
    restored = model_class(detector, config_class())
    restored.load_state_dict(model.state_dict())
    assert np.array_equal(generated, generate_in_memory(restored, events.conditions, seed=1))


def test_resample_takes_every_training_response_equally_often():
    events = toy(rows=20, particles=5)
    model = Resample(ZN, ResampleConfig())
    model.stages(events)
    draws = 10_000
    noise = torch.from_numpy(standard_normals(0, np.arange(draws), 1))
    rows = torch.cat([model(torch.zeros(1000, 9), part)[:, 0, 0] for part in noise.split(1000)])
    counts = np.bincount(rows.numpy().astype(int), minlength=20)
    assert len(counts) == 20
    assert stats.chisquare(counts).pvalue > 1e-3


def test_resample_survives_the_ends_of_the_noise():
    events = toy(rows=20)
    model = Resample(ZN, ResampleConfig())
    model.stages(events)
    rows = model(torch.zeros(2, 9), torch.tensor([[-40.0], [40.0]]))[:, 0, 0]
    assert rows.tolist() == [0.0, 19.0]


def test_nearest_finds_training_particles_themselves_and_picks_among_their_responses():
    events = toy(rows=24, particles=6)
    model = Nearest(ZN, NearestConfig())
    model.stages(events)
    conditions = torch.from_numpy(events.conditions)
    found = set()
    for seed in range(40):
        noise = torch.from_numpy(standard_normals(seed, np.arange(24), 1))
        generated = model(conditions, noise).numpy()
        assert np.array_equal(generated[:, 0, 1], events.group // 7)
        found |= set(generated[:, 0, 0].astype(int))
    assert found == set(range(24))


def test_nearest_is_nearest_in_standardised_features():
    events = toy(rows=6, particles=6)
    model = Nearest(ZN, NearestConfig())
    model.stages(events)
    rng = np.random.default_rng(0)
    scale, mean = events.conditions.std(0), events.conditions.mean(0)
    asked = (mean + scale * rng.normal(size=(50, 9))).astype(np.float32)
    unit = np.where(scale > 0, scale, 1.0)
    distance = np.linalg.norm((asked[:, None] - events.conditions[None]) / unit, axis=-1)
    generated = model(torch.from_numpy(asked), torch.zeros(50, 1)).numpy()
    assert np.array_equal(generated[:, 0, 1], distance.argmin(1))


def test_nearest_of_a_voxel_detector_is_the_shower_of_the_nearest_energy():
    events = made_showers(rows=12)
    model = Nearest(DS2, NearestConfig())
    model.stages(events)
    energy = np.sort(events.conditions[:, 0])
    asked = np.array([[energy[0] / 2], [0.9 * energy[4] + 0.1 * energy[5]], [2 * energy[-1]]], np.float32)
    rows = np.argsort(events.conditions[:, 0])[[0, 4, -1]]
    np.testing.assert_array_equal(generate_in_memory(model, asked, seed=1), events.responses[rows])
