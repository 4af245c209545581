import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from caloforge.detectors import DS2, DS2_ANGLES, DS3, ZN
from caloforge.events import with_responses
from caloforge.models.base import BatchRandom
from caloforge.models.calodream import CaloDream, CaloDreamConfig
from caloforge.models.parts.inference import generate_in_memory
from caloforge.models.parts.layer_energies import energy_of
from caloforge.ode.solvers import SolverConfig, integrate
from caloforge.recipe import merged
from made_showers import TINY, made_showers, made_showers_with_angles

NETWORK = {"width": 12, "heads": 2, "blocks": 1, "inner": 8, "time": 4, "patch": (3, 8, 1)}
SOLVER = {"method": "midpoint", "steps": 2}
TRANSFORMER = {"width": 12, "heads": 2, "layers": 1, "inner": 8}
SMALL = {
    "energy": {"transformer": TRANSFORMER, "width": 16, "blocks": 1, "solver": SOLVER, "batch_size": 8},
    "shape": {"network": NETWORK, "solver": SOLVER, "batch_size": 8},
    "validation_events": 20,
}
LATENT = {
    "shape": {"network": {"patch": (1, 5, 3)}},
    "latent": {"network": {"channels": (4, 4), "condition": 5}, "batch_size": 8},
}
VERSIONS = {
    "paper": {},
    "latent": LATENT,
    "small": {"energy": {"network": "joint"}, "shape": {"prediction": "voxels"}, "cut": 0.01515},
    "drawn": {
        "energy": {"network": "joint", "total": "law"},
        "shape": {"prediction": "drawn", "end": 0.5},
        "cut": 0.01515,
    },
}
VERSIONS["lines"] = merged(VERSIONS["drawn"], {"shape": {"lines": True}})


def fitted(version="paper", rows=24, **changes):
    torch.manual_seed(0)
    events = made_showers(TINY, rows=rows)
    values = merged(merged(SMALL, VERSIONS[version]), changes)
    model = CaloDream(TINY, CaloDreamConfig.model_validate(values))
    return model, events, model.stages(events)


def disturbed(model):
    """Gives networks that start at zero something to say."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def step(stage, events, number):
    random = BatchRandom(number, slice(0, len(events)), len(events))
    return stage.step(events, random, lambda loss: loss.backward())["loss"]


@torch.no_grad()
@pytest.mark.parametrize("version", VERSIONS)
def test_the_layers_hold_exactly_what_was_drawn_first(version):
    model, events, _ = fitted(version)
    disturbed(model)
    conditions = torch.from_numpy(events.conditions[:6])
    noise = torch.randn(6, model.noise_dim)
    energies = model.draw_energies(conditions, noise[:, : model.energy.noise_dim]).numpy()
    showers = model(conditions, noise)
    assert showers.shape == (6, *TINY.shape)
    assert (showers >= 0).all()
    np.testing.assert_allclose(TINY.readout(showers.numpy(), "layers"), energies, rtol=1e-6, atol=1e-9)
    assert energies.any()


@torch.no_grad()
def test_no_voxel_is_below_the_cut_but_where_it_is_all_there_is():
    model, events, _ = fitted(cut=5.0)
    disturbed(model)
    showers = generate_in_memory(model, events.conditions[:8], seed=0).reshape(8, 9, -1)
    lit = showers[showers > 0]
    alone = ((showers > 0).sum(2) == 1) & (showers.sum(2) > 0)
    assert len(lit)
    assert (showers[~alone][showers[~alone] > 0] >= 5.0 * (1 - 1e-6)).all()
    assert (
        TINY.readout(showers.reshape(8, *TINY.shape), "layers")[showers.sum(2) > 0] >= 5.0 * (1 - 1e-6)
    ).all()


@torch.no_grad()
def test_the_edge_of_the_line_of_single_particles_is_sharp_before_any_training():
    """Voxels below an edge at 2 MeV are one in forty; densities as wide as the spectrum draw many more."""
    events = made_showers(TINY, rows=60)
    lit = events.responses > 0
    energies = 2 * np.exp(np.random.default_rng(0).exponential(0.5, lit.sum()))
    energies[::40] /= 4
    responses = np.zeros_like(events.responses)
    responses[lit] = energies
    events = with_responses(events.primaries, responses)
    below = {}
    for version in ("drawn", "lines"):
        model, *_ = fitted(version)
        model.stages(events)
        incident, _, layers = model._tensors(events)
        noise = torch.randn(60, 3 * TINY.cells, generator=torch.Generator().manual_seed(0))
        showers = model.draw_shower(incident, layers, noise)
        below[version] = float((showers[showers > 0] < 1.7).double().mean())
    assert below["lines"] < 0.75 * below["drawn"]


@torch.no_grad()
def test_before_any_training_drawn_showers_are_lit_as_expected():
    model, events, _ = fitted("drawn", rows=60)
    shape, (incident, voxels, energies) = model.shape, model._tensors(events)
    expected = shape._expected(energies).expand_as(voxels)
    torch.testing.assert_close(expected.sum((2, 3)).double(), energies, rtol=1e-3, atol=1e-2)
    odds = shape._scales(energies)[2].expand_as(voxels)
    lit = (voxels > 0).sum()
    assert torch.sigmoid(odds).sum() == pytest.approx(float(lit), rel=0.02)
    noise = torch.randn(60, 3 * TINY.cells, generator=torch.Generator().manual_seed(0))
    drawn = model.draw_shower(incident, energies, noise)
    assert (drawn > 0).sum() == pytest.approx(float(lit), rel=0.1)
    assert drawn[drawn > 0].min() >= 0.01515 * (1 - 1e-6)
    torch.testing.assert_close(drawn.double().sum((2, 3)), energies, rtol=1e-5, atol=1e-6)
    others = torch.cat([noise[:, : 2 * TINY.cells], noise[:, 2 * TINY.cells :].flip(0)], 1)
    again = model.draw_shower(incident, energies, others)
    assert not torch.equal(again, drawn)


@torch.no_grad()
def test_the_energies_follow_from_their_own_noise_alone():
    model, events, _ = fitted("small")
    disturbed(model)
    conditions = torch.from_numpy(events.conditions[:4])
    first = torch.randn(4, model.energy.noise_dim)
    size = model.noise_dim - first.shape[1]
    one, other = (model(conditions, torch.cat([first, torch.randn(4, size)], 1)) for _ in range(2))
    torch.testing.assert_close(one.double().sum((2, 3)), other.double().sum((2, 3)))
    assert not torch.equal(one, other)


@torch.no_grad()
def test_drawing_with_the_cache_is_drawing_from_the_recomputed_prefix():
    model, *_ = fitted()
    disturbed(model)
    network = model.energy.network
    condition, noise = torch.rand(5, 1), torch.randn(5, 9)
    solver = SolverConfig(method="rk4", steps=2)

    def draw(x0, known):
        return integrate(lambda x, t: network.head(x, t, known), x0, solver)

    cached = network.draw(condition, noise, draw)
    u = torch.zeros(5, 9)
    for i in range(9):
        u[:, i : i + 1] = draw(noise[:, i : i + 1], network.known(condition, u)[:, i])
    torch.testing.assert_close(cached, u, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_stage_lowers_its_loss(version):
    _, events, stages = fitted(version)
    names = {"paper": ["energy", "shape"], "latent": ["energy", "latent", "shape"]}
    assert [stage.name for stage in stages] == names.get(version, ["energy", "shape"])
    for stage in stages:
        losses = [step(stage, events, number % 4) for number in range(16)]
        assert np.mean(losses[-4:]) < np.mean(losses[:4]), stage.name
        assert all(np.isfinite(value) for value in stage.validate(events).values())


def test_the_epochs_of_the_energies_do_not_read_the_showers_again():
    _, events, stages = fitted(rows=20)
    batches = list(stages[0].batches(None, np.random.default_rng(0)))
    assert [len(batch) for batch in batches] == [8, 8]
    rows = torch.cat([batch.incident for batch in batches])[:, 0].numpy()
    assert len(np.unique(rows)) == 16
    assert np.isin(rows, events.conditions[:, 0]).all()
    place = int(np.flatnonzero(events.conditions[:, 0] == rows[3])[0])
    whole = stages[0].step(events.slices([place]), BatchRandom(0, slice(0, 1), 1), lambda loss: None)
    sums = stages[0].step(batches[0].slices(slice(3, 4)), BatchRandom(0, slice(0, 1), 1), lambda loss: None)
    assert sums["loss"] == pytest.approx(whole["loss"], rel=1e-5)


def test_a_solver_may_be_fitted_to_some_of_the_events():
    changes = {"shape": {"bespoke": {"steps": 2, "reference": 2, "batch_size": 4, "events": 9}}}
    _, events, stages = fitted("small", **changes)
    assert stages[-1].name == "shape_solver"
    batches = list(stages[-1].batches(events, np.random.default_rng(0)))
    assert [len(batch) for batch in batches] == [4, 4]
    spread = np.linspace(0, 23, 9).astype(int)
    assert np.isin(np.concatenate([b.conditions for b in batches]), events.conditions[spread]).all()


@pytest.mark.parametrize("target", ["path", "identity"])
@pytest.mark.parametrize("version", VERSIONS)
def test_average_velocities_of_every_version(version, target):
    """Each student starts as its teacher, learns, generates in one evaluation, and leaves the other solvers alone."""
    average = {"steps": 1, "teacher": 2, "target": target, "batch_size": 8, "average": 0.0}
    energy = {"average_velocity": average, "solver": {"method": "average_velocity", "steps": 1}}
    changes = {"shape": energy} if version != "small" else {"shape": energy, "energy": energy}
    model, events, stages = fitted(version, **changes)
    disturbed(model)
    assert stages[-1].name == "shape_average_velocity"
    with torch.no_grad():
        before = model.shape.network.last.weight.clone()
    for stage in stages:
        if stage.name.endswith("average_velocity"):
            batch = next(iter(stage.batches(events, np.random.default_rng(0))))
            losses = [step(stage, batch, number % 2) for number in range(12)]
            assert np.isfinite(losses).all()
            # the identity's target moves with the student: its loss says little
            assert target == "identity" or np.mean(losses[-4:]) < np.mean(losses[:4]), stage.name
    assert torch.equal(model.shape.network.last.weight, before)
    calls = []
    model.shape_average_velocity.register_forward_hook(lambda *_: calls.append(1))
    showers = generate_in_memory(model, events.conditions, seed=0)
    assert np.isfinite(showers).all()
    assert len(calls) == 1


@torch.no_grad()
def test_velocities_are_not_judged_by_averages_that_nobody_has_trained():
    average = {"average_velocity": {"steps": 1}, "solver": {"method": "average_velocity", "steps": 1}}
    model, events, stages = fitted("drawn", energy=average, shape=average)
    disturbed(model)
    for stage, network in zip(stages, (model.energy.network, model.energy_average_velocity), strict=False):
        before = stage.validate(events)["energy_score"]
        network.last.weight.add_(0.3 * torch.randn_like(network.last.weight))
        assert stage.validate(events)["energy_score"] != before, stage.name
    shape = next(stage for stage in stages if stage.name == "shape")
    before = shape.validate(events)
    model.shape_average_velocity.last.weight.add_(0.3 * torch.randn_like(model.shape.network.last.weight))
    assert shape.validate(events) == before
    model.shape.network.last.weight.add_(0.3 * torch.randn_like(model.shape.network.last.weight))
    assert shape.validate(events) != before


def test_the_loss_of_energies_in_parts_is_the_loss(monkeypatch):
    monkeypatch.setattr("caloforge.models.parts.layer_energies.RECOMPUTED", 7)
    found = []
    for recompute in (False, True):
        model, events, _ = fitted("paper", energy={"recompute": recompute})
        disturbed(model)
        incident, _, energies = model._tensors(events)
        loss = model.energy.loss(incident, energies, BatchRandom(0, slice(None), len(events)))
        loss.mean().backward()
        found.append([parameter.grad for parameter in model.energy.parameters()])
    torch.testing.assert_close(*found)


def test_a_law_of_the_total_learns_its_width_and_the_layers_add_up_to_it():
    model, events, _ = fitted("drawn", rows=200)
    incident, _, energies = model._tensors(events)
    total = model.energy._total(incident, energies)
    features = model.energy._features(incident)
    before = model.energy.law.surprise(features, total + 1).mean()
    law = torch.optim.Adam(model.energy.law.parameters(), 0.02)
    for _ in range(100):
        law.zero_grad()
        model.energy.law.surprise(features, total + 1).mean().backward()
        law.step()
    assert model.energy.law.surprise(features, total + 1).mean() < before - 0.3
    noise = torch.randn(200, model.energy.noise_dim)
    drawn = model.draw_energies(incident, noise)
    shares = model.energy.total.inverse(
        model.energy.law(features, noise[:, :1]), torch.log(energy_of(incident))
    )
    lit = drawn.sum(1) > 0
    wanted = (shares[:, 0].double() * incident[:, 0]).clamp(min=0)
    torch.testing.assert_close(drawn.sum(1)[lit], wanted[lit], rtol=0.02, atol=2.0)


@torch.no_grad()
def test_a_network_that_knows_the_shower_generates_it():
    model, events, _ = fitted("small")
    true = torch.from_numpy(events.responses[:4])
    y = torch.log1p(true / model.config.unit)
    model.shape._posterior = lambda network, x, t, context, s=None: SimpleNamespace(
        mean=lambda: y, likely=lambda: y, lit=lambda: (y > 0).float()
    )
    energies = true.double().sum((2, 3))
    found = model.draw_shower(torch.from_numpy(events.conditions[:4]), energies, torch.randn(4, TINY.cells))
    torch.testing.assert_close(found, true, rtol=1e-4, atol=1e-4)


def test_parameters_of_the_publication():
    submitted = {"transformer": {"inner": 512}, "width": 512}
    small = {"network": {"patch": (3, 5, 2), "width": 240, "inner": 720}}
    totals = [
        sum(p.numel() for p in CaloDream(detector, CaloDreamConfig.model_validate(values)).parameters())
        for detector, values in ((DS2, {"energy": submitted}), (DS3, {"energy": submitted, "shape": small}))
    ]
    assert totals == [28_427_393, 8_253_575]


def test_what_does_not_fit_is_an_error():
    with pytest.raises(
        ValueError, match="needs a detector of voxels with three axes, zn has 2 and no layers"
    ):
        CaloDream(ZN, CaloDreamConfig())
    with pytest.raises(ValueError, match=r"latents need shape.prediction = 'velocity', got 'voxels'"):
        CaloDreamConfig.model_validate({"shape": {"prediction": "voxels"}, "latent": {}})
    with pytest.raises(ValueError, match="drawn at once, network = 'joint', got 'autoregressive'"):
        CaloDreamConfig.model_validate({"energy": {"average_velocity": {"steps": 1}}})
    with pytest.raises(ValueError, match=r"total = 'law' is of energies drawn at once"):
        CaloDreamConfig.model_validate({"energy": {"total": "law"}})
    with pytest.raises(ValueError, match=r"end must be at most 0.8 where voxels are drawn, got 0.95"):
        CaloDreamConfig.model_validate({"shape": {"prediction": "drawn"}})
    with pytest.raises(ValueError, match=r"needs solver\.steps as trained, got 4"):
        CaloDreamConfig.model_validate({"shape": {"solver": {"method": "bespoke", "steps": 4}}})


# --- showers with angles -------------------------------------------------------------------------------------

OBLIQUE = dataclasses.replace(TINY, name="tiny-angles", conditions=DS2_ANGLES.conditions)
WITH_ANGLES = {
    "voxels": VERSIONS["small"],
    "drawn": VERSIONS["drawn"],
    "velocity": {"energy": {"network": "joint"}},
    "latent": merged({"energy": {"network": "joint"}}, LATENT),
}


def oblique(version, **changes):
    torch.manual_seed(0)
    events = made_showers_with_angles(OBLIQUE)
    values = merged(merged(SMALL, WITH_ANGLES[version]), changes)
    model = CaloDream(OBLIQUE, CaloDreamConfig.model_validate(values))
    return model, events, model.stages(events)


@pytest.mark.parametrize("version", WITH_ANGLES)
def test_both_factors_learn_from_the_direction(version):
    model, events, stages = oblique(version)
    for stage in stages:
        losses = [step(stage, events, number % 4) for number in range(16)]
        assert np.mean(losses[-4:]) < np.mean(losses[:4]), stage.name
    for network in (model.energy.network, model.shape.network):
        assert network.condition[0].weight[:, -2:].abs().min() > 0
    disturbed(model)
    conditions, noise = torch.from_numpy(events.conditions[:4]), torch.randn(4, model.noise_dim)
    others = conditions * torch.tensor([1.0, 0.5, -1.0])
    with torch.no_grad():
        assert (model.draw_energies(conditions, noise[:, : model.energy.noise_dim]) > 0).any()
        assert not torch.equal(model(conditions, noise), model(others, noise))


def test_before_the_training_the_direction_changes_nothing():
    model, events, _ = oblique("drawn")
    conditions, noise = torch.from_numpy(events.conditions[:4]), torch.randn(4, model.noise_dim)
    others = conditions * torch.tensor([1.0, 0.5, -1.0])
    with torch.no_grad():
        torch.testing.assert_close(model(conditions, noise), model(others, noise))


def test_angles_that_a_model_cannot_take_are_refused():
    with pytest.raises(ValueError, match="network = 'joint', got 'autoregressive'"):
        CaloDream(OBLIQUE, CaloDreamConfig.model_validate(SMALL))
    turned = merged(merged(SMALL, VERSIONS["small"]), {"shape": {"turn": True}})
    with pytest.raises(ValueError, match="cannot be turned in training"):
        CaloDream(OBLIQUE, CaloDreamConfig.model_validate(turned))
    swapped = dataclasses.replace(OBLIQUE, conditions=OBLIQUE.conditions[::-1])
    with pytest.raises(ValueError, match="tiny-angles has phi, theta, incident_energy"):
        CaloDream(swapped, CaloDreamConfig.model_validate(merged(SMALL, VERSIONS["small"])))
