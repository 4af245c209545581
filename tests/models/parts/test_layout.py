import math

import numpy as np
import pytest
import torch

from caloforge.detectors import CRYSTALS, ZP
from caloforge.models.base import BatchRandom
from caloforge.models.factorized_flow_matching import FactorizedFlowMatching, FactorizedFlowMatchingConfig
from caloforge.models.parts.layout import HINTS, NUMBERS, PLACES, SHARES, Layout, LayoutConfig
from caloforge.models.parts.stage import aside
from caloforge.samples import weights
from caloforge.training.checkpoint import load_model
from made import made_events

SMALL = {
    "sums": {"width": 16, "blocks": 1, "solver": {"steps": 2}},
    "place": {"width": 16},
    "layout": {"width": 16, "blocks": 1, "solver": {"steps": 2}},
    "image": {"network": {"width": 8, "blocks": 1, "scales": [0.7, 2.0]}, "solver": {"steps": 2}},
    "validation_events": 20,
}


def layout():
    torch.manual_seed(0)
    return Layout((8, 10), 3, LayoutConfig(width=16, blocks=1))


def image():
    counts = torch.zeros(1, 8, 10)
    counts[0, 2, 3], counts[0, 2, 4], counts[0, 5, 3] = 60.0, 30.0, 10.0
    return counts


def test_the_numbers_of_an_image_by_hand():
    straight, expected = torch.tensor([[2.25, 3.0]]), torch.tensor([[2.0, 3.0]])
    numbers, places = layout().measure(image(), straight, expected, torch.full((1, SHARES), 0.5))
    centre = (0.9 * 2 + 0.1 * 5, 0.7 * 3 + 0.3 * 4)
    second = 0.9 * 4 + 0.1 * 25 + 0.7 * 9 + 0.3 * 16 - centre[0] ** 2 - centre[1] ** 2
    core = (2.0, 3 + 30 / 90)
    guess = 2 + 0.25 / (1 + (0.0625 / 36) ** 2)
    shares = [59.5 / 100, 29.5 / 100, 2.5 / 100]
    wanted = [
        math.asinh(centre[0] - 2),
        math.asinh(centre[1] - 3),
        math.log(math.sqrt(second) + 0.3),
        math.asinh(2 * (core[0] - guess)),
        math.asinh(2 * (core[1] - 3)),
        *(math.log((share + 0.002) / (1.002 - share)) for share in shares),
    ]
    torch.testing.assert_close(numbers, torch.tensor([wanted]))
    torch.testing.assert_close(places, torch.tensor([[[2.25, 3.0], centre, core]]))


def test_equally_bright_cells_are_told_apart_by_their_neighbours():
    counts = torch.zeros(1, 8, 10)
    counts[0, 1, 1] = counts[0, 6, 7] = 5.0
    counts[0, 6, 8] = 3.0
    _, places = layout().measure(counts, torch.zeros(1, 2), torch.zeros(1, 2), torch.zeros(1, SHARES))
    torch.testing.assert_close(places[0, 2], torch.tensor([6.0, 7 + 3 / 8]))


def test_places_stay_within_the_image():
    numbers = torch.full((2, NUMBERS), 6.0) * torch.tensor([[1.0], [-1.0]])
    places = layout().places(numbers, torch.full((2, 2), 4.0), torch.full((2, 2), 4.0))
    assert places.shape == (2, PLACES, 2)
    torch.testing.assert_close(places[:, 1:], torch.tensor([[[7.0, 9.0]] * 2, [[0.0, 0.0]] * 2]))


def test_the_flow_is_told_the_phase_of_the_straight_line():
    model = layout()
    assert model.network.condition[0].in_features == 3 + HINTS


def test_a_model_with_a_layout_keeps_sums_and_learns():
    torch.manual_seed(0)
    model = FactorizedFlowMatching(ZP, FactorizedFlowMatchingConfig.model_validate(SMALL))
    events = made_events(ZP)
    stages = model.stages(events)
    assert [stage.name for stage in stages] == ["sums", "place", "layout", "image"]
    assert model.noise_dim == ZP.cells + 5 + 1 + NUMBERS
    for stage in stages[2:]:
        next(iter(stage.batches(events, np.random.default_rng(0))))  # prepares
        losses = [
            stage.step(events, BatchRandom(step % 5, slice(0, 48), 48), lambda loss: loss.backward())["loss"]
            for step in range(15)
        ]
        assert np.mean(losses[-5:]) < np.mean(losses[:5])
    assert model.layout.standardize.mean.abs().sum() > 0
    assert stages[2].validate(events)["energy_score"] > 0
    conditions, sums = torch.from_numpy(events.conditions[:4]), torch.full((4, 5), 40.0)
    with torch.no_grad():
        known = conditions, model.sums.describe(conditions), sums
        image = model.draw_image(*known, torch.randn(4, ZP.cells), torch.randn(4), torch.randn(4, NUMBERS))
    np.testing.assert_array_equal(ZP.readout(image.numpy()), sums.numpy())


def test_average_velocities_lead_where_the_layouts_flow_does():
    torch.manual_seed(0)
    solver = {"method": "average_velocity", "steps": 1}
    student = {"steps": 1, "blocks": 1, "teacher": 2, "optimizer": {"learning_rate": 1e-2}, "average": 0.0}
    layout = {**SMALL["layout"], "blocks": 2, "solver": solver, "average_velocity": student}
    config = FactorizedFlowMatchingConfig.model_validate(SMALL | {"layout": layout, "average": 0.0})
    model, events = FactorizedFlowMatching(ZP, config), made_events(ZP)
    stages = {stage.name: stage for stage in model.stages(events)}
    assert list(stages)[2:] == ["layout", "layout_average_velocity", "image"]
    assert len(model.layout.network.blocks) == 2
    assert len(model.layout.average_velocity.blocks) == 1
    for name in ("layout", "layout_average_velocity"):
        stage = stages[name]
        next(iter(stage.batches(events, np.random.default_rng(0))))  # prepares
        losses = [
            stage.step(events, BatchRandom(step % 5, slice(0, 48), 48), lambda loss: loss.backward())["loss"]
            for step in range(30)
        ]
        assert np.mean(losses[-5:]) < np.mean(losses[:5])
    straight, expected, features, _ = model._known(events)
    with torch.no_grad():
        drawn, _ = model.layout(straight, expected, features, torch.zeros(48, NUMBERS))
        with aside(model.layout, "average_velocity"):
            followed, _ = model.layout(straight, expected, features, torch.zeros(48, NUMBERS))
    assert (drawn != followed).any()
    assert (drawn - followed).abs().mean() < 1


def test_average_velocities_that_are_not_trained_are_refused():
    with pytest.raises(ValueError, match="needs them to be trained"):
        LayoutConfig(solver={"method": "average_velocity", "steps": 1})


def test_energies_have_no_layout():
    config = FactorizedFlowMatchingConfig.model_validate(SMALL | {"channels": CRYSTALS.default_channels})
    with pytest.raises(ValueError, match=r"model\.layout counts photons"):
        FactorizedFlowMatching(CRYSTALS, config)


def test_what_was_trained_without_a_layout_has_no_solver_of_one():
    with pytest.raises(ValueError, match=r"trained without \[model\.layout\]"):
        load_model(weights()["zn-factorized_flow_matching"], ["layout.solver.steps=2"])
