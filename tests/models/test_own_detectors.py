"""The factorised models take any detector with two axes: photons or energies, with or without a face and a pitch."""

import dataclasses

import numpy as np
import pytest
import torch

from caloforge.detectors import CRYSTALS, DS2, ZN, ChannelMap, Detector, Feature
from caloforge.events import Events
from caloforge.models import MODELS, configuration
from caloforge.models.base import BatchRandom
from caloforge.models.parts.inference import generate_in_memory
from caloforge.models.parts.particle_features import GenericFeatures
from caloforge.nn.patch_network import posterior, posterior_draw
from caloforge.recipe import Recipe

FLOW = {"width": 16, "blocks": 1, "solver": {"steps": 2}, "batch_size": 16}

SMALL = {
    "factorized_flow_matching": {
        "sums": FLOW,
        "place": {"width": 16, "batch_size": 16},
        "image": {"network": {"width": 8, "blocks": 1}, "solver": {"steps": 2}, "batch_size": 16},
        "validation_events": 16,
    },
    "factorized_latent_flow_matching": {
        "sums": FLOW,
        "code": {"network": {"width": 8, "blocks": 1, "code": 4, "embedding": 8}, "batch_size": 16},
        "flow": FLOW,
        "validation_events": 16,
    },
}

NAMES = ("factorized_flow_matching", "factorized_latent_flow_matching")

HALVES = (np.arange(2)[:, None] == np.arange(99) % 2).astype(np.float32)

PLATE = Detector(
    name="plate",
    axes={"row": 9, "column": 11},
    unit="photons",
    conditions=(Feature("tilt", "deg", "tilt of the track"), Feature("x", "cm", "where it enters")),
    channels={"halves": ChannelMap(("even", "odd"), HALVES, "made up")},
    title="a plate without a feature energy",
)

GEV = dataclasses.replace(
    CRYSTALS,
    name="gev",
    unit="GeV",
    conditions=(Feature("incident_energy", "GeV", "of the primary"), *CRYSTALS.conditions[1:]),
    threshold=2e-4,
)

DETECTORS = (CRYSTALS, GEV, PLATE)


def events_of(detector, rows=32, scale=1.0) -> Events:
    rng = np.random.default_rng(0)
    energy = rng.uniform(50, 200, rows) * (1e-3 if detector.unit == "GeV" else 1.0)
    columns = [energy, rng.uniform(0, 0.3, rows), rng.uniform(-3, 3, rows)][-len(detector.conditions) :]
    cells = np.indices(detector.shape) - (np.array(detector.shape)[:, None, None] - 1) / 2
    shape = np.exp(-(cells**2).sum(0) / 4) * rng.gamma(5, 0.2, (rows, *detector.shape))
    responses = shape * (scale * 0.9 * energy / shape.sum((1, 2)))[:, None, None]
    responses[0, :, :] = 0.0  # one without any light
    return Events(
        detector,
        np.column_stack(columns).astype(np.float32),
        np.full(rows, 22),
        np.arange(rows),
        np.zeros(rows, np.int8),
        rng.poisson(responses) if detector.counts else responses.astype(np.float32),
    )


def configured(name, detector, **changes):
    """The configuration that a recipe with the built-in name would get: the unit and channels decide."""
    kind = MODELS[name].config_class
    values = {**SMALL[name], "channels": detector.default_channels, **changes}
    if not detector.counts:
        values.setdefault("rounding", "none")
    return kind.model_validate(values)


def trained(name, detector, events, steps=2, **changes):
    torch.manual_seed(0)
    model = MODELS[name](detector, configured(name, detector, **changes))
    scores = {}
    for stage in model.stages(events):
        for number, batch in enumerate(stage.batches(events, np.random.default_rng(0))):
            if number < steps:
                rows = slice(0, len(batch))
                stage.step(batch, BatchRandom(number, rows, len(batch)), lambda loss: loss.backward())
        scores[stage.name] = stage.validate(events)
    return model.eval(), scores


@pytest.mark.parametrize("detector", DETECTORS, ids=lambda detector: detector.name)
@pytest.mark.parametrize("name", NAMES)
def test_every_two_dimensional_detector_is_taken(name, detector):
    events = events_of(detector)
    model, scores = trained(name, detector, events)
    assert all(np.isfinite(value) for stage in scores.values() for value in stage.values())
    responses = generate_in_memory(model, events.conditions, seed=0)
    assert responses.shape == (len(events), *detector.shape)
    assert np.isfinite(responses).all()
    assert (responses >= 0).all()
    whole = responses == np.rint(responses)
    assert whole.all() if detector.counts else not whole[responses > 0.01 * responses.max()].all()
    if detector.threshold:
        assert (responses[responses > 0] > 0.3 * detector.threshold).all()  # scaled to the sum after the cut
        assert (responses == 0).any()
    # untrained but standardised: already of the right size
    ratio = detector.readout(responses).sum() / detector.readout(events.responses).sum()
    assert 0.5 < ratio < 2


@pytest.mark.parametrize("name", NAMES)
def test_the_sums_of_energies_are_those_drawn_first(name):
    events = events_of(CRYSTALS)
    model, _ = trained(name, CRYSTALS, events)
    conditions, noise = torch.from_numpy(events.conditions[:16]), torch.randn(16, model.noise_dim)
    first = 400 + (4 if "latent" in name else 0)
    with torch.no_grad():
        sums = model.sums(conditions, model.sums.describe(conditions), noise[:, first : first + 1])
        energies = sums / model.sums.counted(torch.ones_like(sums), conditions)
        responses = model(conditions, noise)
    np.testing.assert_allclose(CRYSTALS.readout(responses.numpy()), energies.numpy(), rtol=1e-4, atol=1e-4)
    mean = events.responses.sum() / events.conditions[:, 0].sum()
    np.testing.assert_allclose(float(model.sums.quantum), mean / 3000, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_unit_of_energy_changes_nothing(name):
    """Responses of a thousand times the number, as in another unit, train the same network."""
    first, second = (
        generate_in_memory(trained(name, CRYSTALS, events)[0], events.conditions, seed=0)
        for events in (events_of(CRYSTALS), events_of(CRYSTALS, scale=1024.0))
    )
    different = ~np.isclose(1024 * first, second, rtol=1e-2, atol=1e-2 * second.max())
    assert different.mean() < 1e-3


@torch.no_grad()
def test_a_channel_without_energy_is_read_back_as_such():
    model, _ = trained(NAMES[0], CRYSTALS, events_of(CRYSTALS), steps=0)
    conditions = torch.tensor([[100.0, 0.1, 0.0]]).expand(4, -1)
    for sums, u in ((torch.tensor([[0.0], [1e-3], [1.0], [4e3]]), torch.full((4, 1), 0.3)),):
        x1 = model.sums.standardize_sums(model.sums._root(sums, u))
        np.testing.assert_allclose(model.sums.read(x1, conditions), sums, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_small_quanta_are_spread_within_their_class():
    from caloforge.nn.patch_autoencoder import draw

    numbers = torch.zeros(6, 100_000, 1, 1)  # 0, 1, 2, 3 and more are as likely
    u = ((torch.arange(100_000) + 0.5) / 100_000)[:, None, None]
    counts, mean = draw(numbers, u)
    values, same = draw(numbers, u, spread=True)
    assert torch.equal(mean, same)
    assert torch.equal(values[counts == 0], counts[counts == 0])
    assert torch.equal(values[counts > 3], counts[counts > 3])
    for k in (1, 2, 3):
        inside = np.sort(values[counts == k].numpy().ravel())
        np.testing.assert_allclose(inside, k - 0.5 + (np.arange(len(inside)) + 0.5) / len(inside), atol=1e-2)


def test_angles_energy_and_direction_are_derived():
    derive = GenericFeatures(CRYSTALS)
    energy, theta, phi = 200.0, 0.2, 2.5
    found = derive(torch.tensor([[energy, theta, phi]]))[0]
    sin, cos = np.sin, np.cos
    wanted = [energy, theta, phi, np.log(energy), sin(theta), cos(theta), sin(phi), cos(phi)]
    wanted += [sin(theta) * cos(phi), sin(theta) * sin(phi)]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    assert derive.size == len(wanted)
    np.testing.assert_array_equal(derive.cell(torch.zeros(2, 3)), np.full((2, 2), 9.5))
    tilt = GenericFeatures(PLATE)(torch.tensor([[30.0, 1.0]]))[0]
    np.testing.assert_allclose(tilt, [30, 1, 0.5, np.sqrt(0.75)], rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_takes_the_channels_of_its_detector(name):
    assert configuration(Recipe(name="a", detector="crystals", model={"type": name})).channels == "sum"
    assert configuration(Recipe(name="a", detector="zn", model={"type": name})).channels == "paper"


@pytest.mark.parametrize("name", NAMES)
def test_what_does_not_fit_is_refused_in_one_line(name):
    gap = ChannelMap(("left",), np.eye(1, 400, dtype=np.float32), "one cell")
    with pytest.raises(ValueError, match="two axes, ds2 has 3"):
        MODELS[name](DS2, configured(name, DS2))
    with pytest.raises(ValueError, match="exactly one channel, 399 of the 400 cells of crystals are in none"):
        MODELS[name](
            dataclasses.replace(CRYSTALS, channels={"gap": gap}), configured(name, CRYSTALS, channels="gap")
        )


def test_only_what_can_be_mirrored_is():
    with pytest.raises(ValueError, match="mirror needs an axis y and the conditions vy and py, crystals has"):
        MODELS[NAMES[0]](CRYSTALS, configured(NAMES[0], CRYSTALS, mirror=True))
    assert MODELS[NAMES[0]](ZN, configured(NAMES[0], ZN, mirror=True)).config.mirror


@torch.no_grad()
@pytest.mark.parametrize("t", [0.0, 0.5, 0.9])
def test_quanta_are_drawn_with_the_mean_and_the_share_of_dark_cells_that_the_posterior_says(t):
    numbers = torch.tensor([1.0, 0.5, -0.5, 0.0, 0.4, -0.6, 0.7]).view(7, 1, 1, 1)
    x, time = torch.full((1, 1, 1), 0.8), torch.full((1, 1, 1), t)
    noise = torch.randn(2, 100_000, 1, 1, generator=torch.Generator().manual_seed(0))
    drawn = torch.exp(posterior_draw(x, time, numbers, noise) - 0.7)
    _, logs = posterior(x, time, numbers)
    np.testing.assert_allclose(float(drawn.mean()), float(torch.exp(logs - 0.7)), rtol=0.03)
    values = torch.log1p(torch.arange(4.0))
    odds = numbers[:4].flatten() - 0.5 * ((0.8 - t * values) / (1 - t)) ** 2
    mean, spread = 1.8 + 0.4, 0.5 * np.exp(-1.2)
    total = t * t * spread + (1 - t) ** 2
    more = -0.5 * ((0.8 - t * mean) ** 2 / total + np.log(total / (1 - t) ** 2))
    dark = torch.softmax(torch.cat([odds, torch.tensor([more], dtype=torch.float32)]), 0)[0]
    np.testing.assert_allclose(float((drawn < 1e-3).float().mean()), float(dark), atol=6e-3)
