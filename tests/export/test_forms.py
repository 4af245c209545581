"""What a model is in an exported graph, in fewer operators, gives what it gives in PyTorch."""

from unittest.mock import patch

import numpy as np
import pytest
import torch

from caloforge.detectors import DETECTORS, ZN
from caloforge.io import open_primaries
from caloforge.models.factorized_flow_matching import FactorizedFlowMatching, FactorizedFlowMatchingConfig
from caloforge.models.factorized_latent_flow_matching import (
    FactorizedLatentFlowMatching,
    FactorizedLatentFlowMatchingConfig,
)
from caloforge.models.parts.particle_features import GrooveFeatures, ParticleFeatures
from caloforge.models.parts.sums import reflected
from caloforge.nn import patch_graph
from caloforge.nn.velocity_network import VelocityNetwork
from caloforge.ode.bespoke import BespokeSolver, conditioned
from caloforge.ode.solve import solve
from caloforge.ode.solvers import SolverConfig
from caloforge.runtime.noise import standard_normals
from caloforge.samples import sample

EVENTS = 6


def exported(function, *arguments):
    with patch("torch.compiler.is_exporting", lambda: True), torch.no_grad():
        return function(*arguments)


def with_weights(model, seed=0):
    """The model with random weights everywhere, none of them 0 as at the start of a training."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        fan = parameter[0].numel() if parameter.ndim > 1 else 16
        parameter.data.copy_(0.7 * fan**-0.5 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def conditions_of(detector):
    particles = open_primaries(sample(f"{detector}_wide"))
    return torch.from_numpy(particles.conditions[:: len(particles) // EVENTS][:EVENTS])


@pytest.mark.parametrize("detector", ["zn", "zp"])
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("rounding", ["systematic", "none"])
@pytest.mark.parametrize("layout", [False, True])
def test_a_factorized_model(detector, steps, rounding, layout):
    solver = {"method": "euler", "steps": steps}
    network = {"width": 8, "blocks": 2, "embedding": 12, "scales": [0.7, 3.0] if layout else []}
    config = FactorizedFlowMatchingConfig.model_validate(
        {
            "sums": {"width": 16, "blocks": 2, "solver": solver},
            "place": {"width": 8},
            "image": {"network": network, "solver": solver},
            "rounding": rounding,
            **({"layout": {"width": 16, "blocks": 1, "solver": solver}} if layout else {}),
        }
    )
    agree(with_weights(FactorizedFlowMatching(DETECTORS[detector], config)), detector, rounding)


@pytest.mark.parametrize("detector", ["zn", "zp"])
@pytest.mark.parametrize(
    ("photons", "rounding"), [("drawn", "systematic"), ("drawn", "none"), ("expected", "none")]
)
def test_a_factorized_latent_model(detector, photons, rounding):
    bespoke = {"solver": {"method": "bespoke", "steps": 2}, "bespoke": {"steps": 2}}
    config = FactorizedLatentFlowMatchingConfig.model_validate(
        {
            "sums": {"width": 16, "blocks": 2, **bespoke},
            "flow": {"width": 16, "blocks": 1, **bespoke},
            "code": {"network": {"width": 8, "blocks": 2, "embedding": 12, "code": 5, "place": 8}},
            "photons": photons,
            "rounding": rounding,
        }
    )
    agree(with_weights(FactorizedLatentFlowMatching(DETECTORS[detector], config)), detector, rounding)


def agree(model, detector, rounding):
    conditions = conditions_of(detector)
    noise = torch.from_numpy(standard_normals(0, np.arange(EVENTS), model.noise_dim))
    model.sums.standardize.refit(model.sums.derive(conditions))
    model.sums.standardize_sums.mean.fill_(1.0)
    with torch.no_grad():
        expected = model(conditions, noise)
    got = exported(model, conditions, noise)
    assert expected.sum() > 0
    if rounding == "none":
        torch.testing.assert_close(torch.log1p(got), torch.log1p(expected), atol=5e-4, rtol=0)
    else:
        assert (got != expected).sum() <= 0.01 * (expected > 0).sum()
        torch.testing.assert_close(got.sum((1, 2)), expected.sum((1, 2)), atol=0, rtol=0)


@pytest.mark.parametrize("transport", [False, True])
@pytest.mark.parametrize(("detector", "grooves"), [("zn", False), ("zn", True), ("zp", False)])
def test_features_of_a_particle(detector, transport, grooves):
    features = ParticleFeatures(DETECTORS[detector], transport, grooves)
    conditions = conditions_of(detector)
    if grooves:
        every = torch.from_numpy(open_primaries(sample("zn_wide")).conditions[:200])
        conditions = torch.cat([conditions, every[GrooveFeatures(ZN)(every)[:, 0] > 0]])
        assert len(conditions) > EVENTS + 5
    for function in (features, features.cell):
        torch.testing.assert_close(exported(function, conditions), function(conditions), atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("least", [1, 10])
def test_sums_below_the_threshold(least):
    sums = torch.cat([torch.zeros(1, 5), torch.cartesian_prod(*[torch.arange(4.0)] * 5), 300 * torch.eye(5)])
    torch.testing.assert_close(exported(reflected, sums, least), reflected(sums, least), atol=0, rtol=0)


@pytest.mark.parametrize("method", ["euler", "bespoke", "average_velocity"])
def test_a_path_without_a_loop(method):
    network = with_weights(VelocityNetwork(3, 4, 16, 2, until=True))
    bespoke = BespokeSolver(4)
    bespoke.b.data.normal_(generator=torch.Generator().manual_seed(1))
    x0, condition = torch.randn(5, 3), network.condition(torch.randn(5, 4)).detach()
    velocity = conditioned(network, condition)
    arguments = velocity, x0, SolverConfig(method=method, steps=4), bespoke, velocity
    with torch.no_grad():
        expected = solve(*arguments)
    torch.testing.assert_close(exported(solve, *arguments), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("shape", [(8, 12), (7, 10)])
def test_cells_have_their_places_in_the_tiles(shape):
    cells = np.prod(shape)
    image = torch.arange(1.0, cells + 1)[None]
    tiles = patch_graph.into_tiles(image, shape, 4)
    torch.testing.assert_close(tiles.flatten(1)[:, patch_graph.places(shape, 4)], image)
    assert tiles.count_nonzero() == cells
