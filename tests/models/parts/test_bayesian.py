import copy

import numpy as np
import pytest
import torch

from caloforge.detectors import ZN
from caloforge.models.base import BatchRandom
from caloforge.models.channel_flow_matching import ChannelFlowMatching, ChannelFlowMatchingConfig
from caloforge.models.parts.bayesian import (
    BayesianConfig,
    BayesianConv2d,
    BayesianLinear,
    LaplaceLinear,
    divergence,
    drawing,
    make_bayesian,
    take_replica,
    variational,
)
from caloforge.models.parts.sums import SumsConfig
from caloforge.nn.unet import UNet, UNetConfig
from caloforge.runtime.noise import standard_normals
from made import made_events

WIDE = BayesianConfig(prior=2.0, initial=0.6)


def layer(inputs=3, outputs=2, config=WIDE):
    torch.manual_seed(0)
    return BayesianLinear(torch.nn.Linear(inputs, outputs), config)


def random(seed, rows):
    return BatchRandom(seed, slice(None), rows)


def test_divergence_of_equal_gaussians_is_zero_and_that_of_others_is_the_formula():
    same = layer(config=BayesianConfig(prior=0.7, initial=0.7))
    torch.nn.init.zeros_(same.weight)
    assert abs(float(divergence(same).detach())) < 1e-6
    other = layer()
    posterior = torch.distributions.Normal(other.weight.detach(), other.spread().detach())
    prior = torch.distributions.Normal(0.0, 2.0 / 3**0.5)
    expected = torch.distributions.kl_divergence(posterior, prior).sum()
    torch.testing.assert_close(divergence(other).detach(), expected)


@pytest.mark.parametrize("shape", [(3,), (4, 3)], ids=["local", "flipout"])
def test_outputs_have_the_mean_and_variance_of_drawn_weights(shape):
    module, events = layer(), 40_000
    x = torch.tensor([[0.5, -1.0, 2.0]] * (1 if len(shape) == 1 else 4)).view(1, *shape)
    drawn = torch.empty(events, *shape[:-1], 2)
    with torch.no_grad():
        if len(shape) == 1:
            with drawing(module, random(1, events)):
                drawn = module(x.expand(events, *shape))
        else:  # one draw of the weights a step
            for seed in range(2000):
                with drawing(module, random(seed, 20)):
                    drawn[20 * seed : 20 * seed + 20] = module(x.expand(20, *shape))
        mean = torch.nn.functional.linear(x[0], module.weight, module.bias)
        variance = torch.nn.functional.linear(x[0].square(), module.spread().square())
    effective = 2000 if len(shape) > 1 else events
    assert ((drawn.mean(0) - mean).abs() < 5 * (variance / effective).sqrt()).all()
    torch.testing.assert_close(drawn.var(0), variance, rtol=6 * (2 / effective) ** 0.5, atol=0.0)
    if len(shape) > 1:  # tokens of one event see the same weights
        torch.testing.assert_close(drawn[:, 0], drawn[:, 3])


def test_convolutions_draw_the_variance_of_their_weights():
    torch.manual_seed(0)
    module = BayesianConv2d(torch.nn.Conv2d(2, 3, 3, padding=1, bias=False), WIDE)
    x = torch.randn(1, 2, 4, 5)
    outputs = []
    with torch.no_grad():
        for seed in range(3000):
            with drawing(module, random(seed, 4)):
                outputs.append(module(x.expand(4, -1, -1, -1)))
        variance = torch.nn.functional.conv2d(x.square(), module.spread().square(), padding=1)
    torch.testing.assert_close(torch.cat(outputs).var(0), variance[0], rtol=0.17, atol=0.0)


def test_without_random_numbers_a_network_gives_what_its_means_give():
    torch.manual_seed(0)
    plain = UNet((8, 8), 9, UNetConfig(blocks=1, multipliers=(1, 2)))
    state = torch.get_rng_state()
    network = copy.deepcopy(plain)
    make_bayesian(network, BayesianConfig())
    assert torch.equal(torch.get_rng_state(), state)
    x, t, conditions = torch.randn(3, 8, 8), torch.rand(3), torch.randn(3, 9)
    assert torch.equal(network(x, t, conditions), plain(x, t, conditions))
    assert set(plain.state_dict()) < set(network.state_dict())
    with drawing(network, random(0, 3)):
        assert not torch.equal(network(x, t, conditions), plain(x, t, conditions))


def test_rows_of_several_processes_are_those_of_one():
    module, x = layer(), torch.randn(6, 3)
    with drawing(module, BatchRandom(5, slice(0, 6), 6)):
        whole = module(x)
    with drawing(module, BatchRandom(5, slice(2, 4), 6)):
        part = module(x[2:4])
    torch.testing.assert_close(part, whole[2:4])


def test_the_divergence_enters_the_loss_over_the_number_of_rows():
    module = layer()

    def loss(network, batch, rng):
        return network(batch).square().mean(1)

    x = torch.randn(4, 3)
    with drawing(module, random(3, 4)):
        alone = loss(module, x, None)
    both = variational(loss, BayesianConfig(weight=0.5), 100)(module, x, random(3, 4))
    torch.testing.assert_close(both, alone + 0.005 * divergence(module))
    assert variational(loss, None, 100) is loss
    both.mean().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


def flow(**bayesian):
    config = ChannelFlowMatchingConfig(
        width=16, blocks=1, solver={"steps": 3}, batch_size=32, validation_events=8, bayesian=bayesian
    )
    torch.manual_seed(0)
    model, events = ChannelFlowMatching(ZN, config), made_events(particles=40, repeats=4)
    torch.nn.init.normal_(model.network.last.weight, std=0.1)
    return model, model.stages(events), events


@pytest.mark.parametrize("method", ["mean_field", "last_layer"])
def test_a_replica_is_a_function_of_seed_and_number(method):
    model, stages, events = flow(method=method)
    if method == "last_layer":
        for batch in stages[1].batches(events, np.random.default_rng(0)):
            stages[1].step(batch, random(0, len(batch)), lambda loss: None)
    conditions, noise = (
        torch.from_numpy(events.conditions),
        torch.from_numpy(standard_normals(0, np.arange(len(events)), 5)),
    )

    def sums(seed, number):
        replica = copy.deepcopy(model)
        take_replica(replica, seed, number)
        with torch.no_grad():
            return replica(conditions, noise)

    with torch.no_grad():
        mean = model(conditions, noise)
    assert torch.equal(sums(1, 0), mean)
    assert torch.equal(sums(1, 3), sums(1, 3))
    different = [mean, sums(1, 1), sums(1, 2), sums(2, 1)]
    assert all(not torch.equal(a, b) for i, a in enumerate(different) for b in different[:i])


def test_weights_of_a_replica_are_the_normals_of_its_number_and_name():
    network = torch.nn.Sequential(layer(4, 2), layer(2, 2))
    before = copy.deepcopy(network)
    take_replica(network, 7, 2)
    assert float(network[0].weight[0, 0].detach()) == pytest.approx(-0.18040997, abs=1e-7)
    drawn = (network[0].weight - before[0].weight) / before[0].spread()
    assert not torch.equal(drawn[:, :2], (network[1].weight - before[1].weight) / before[1].spread())
    many = layer(100, 100)
    start = many.weight.clone()
    take_replica(many, 0, 1)
    normals = ((many.weight - start) / many.spread()).detach()
    assert abs(float(normals.mean())) < 0.05
    assert abs(float(normals.std()) - 1) < 0.03


def test_last_layer_has_the_posterior_of_linear_regression():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(200, 3, generator=generator)
    last = LaplaceLinear(torch.nn.Linear(3, 1), BayesianConfig(prior=1e3))
    features = torch.cat([inputs, torch.ones(200, 1)], 1).double()
    last.fit(features.T @ features, 0.25)
    expected = 0.25 * torch.linalg.inv(features.T @ features)
    torch.testing.assert_close(last.root.double() @ last.root.double().T, expected, rtol=1e-4, atol=1e-8)


def test_more_rows_make_the_last_layer_surer():
    spreads = []
    for repeats in (1, 100):
        model, stages, events = flow(method="last_layer")
        stage = stages[1]
        stage._events = repeats * len(events)
        for batch in stage.batches(events, np.random.default_rng(0)):
            stage.step(batch, random(0, len(batch)), lambda loss: None)
        spreads.append(float((model.network.last.root @ model.network.last.root.T).trace()))
    assert spreads[1] < 0.5 * spreads[0]


def test_models_without_replicas_and_methods_of_sums_alone_are_refused():
    with pytest.raises(ValueError, match="neither Bayesian"):
        take_replica(torch.nn.Linear(2, 2), 0, 1)
    with pytest.raises(ValueError, match="0 or more"):
        take_replica(layer(), 0, -1)
    with pytest.raises(ValueError, match="wanted 'mean_field'"):
        make_bayesian(torch.nn.Linear(2, 2), BayesianConfig(method="last_layer"))


def test_a_solver_without_gaussian_weights_is_refused():
    average = {"average_velocity": {"steps": 2}, "solver": {"method": "average_velocity", "steps": 2}}
    SumsConfig.model_validate(average)
    with pytest.raises(ValueError, match="has a network of its own"):
        SumsConfig.model_validate(average | {"bayesian": {}})
