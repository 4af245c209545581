import pytest
import torch

from caloforge.nn.made import FUNCTIONS, MADEConfig, made, place_functions

SHAPE, CELLS = (5, 4), 20

CONFIGS = (
    MADEConfig(width=6, shared=3, hidden=8),
    MADEConfig(kind="dense", width=30, layers=1),
    MADEConfig(kind="dense", width=30, layers=2),
)


@pytest.fixture(params=CONFIGS, ids=lambda config: f"{config.kind}-{config.layers}")
def network(request):
    torch.manual_seed(0)
    network = made(SHAPE, 3, 4, request.param).double()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network


def given(network, rows=2):
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(rows, 3, generator=generator, dtype=torch.float64)
    place = torch.tensor([[2.0, 1.5]] * rows, dtype=torch.float64)
    image = torch.randn(rows, CELLS, generator=generator, dtype=torch.float64)
    return image, network.context(features, place_functions(SHAPE, place))


def test_a_cell_depends_on_those_before_it_and_on_all_of_them(network):
    image, context = given(network, 1)
    jacobian = torch.autograd.functional.jacobian(lambda x: network(x, context).sum(2)[0], image)[:, 0]
    before = torch.tril(torch.ones(CELLS, CELLS), -1).bool()
    assert not jacobian[~before].any()
    assert jacobian[before].all()


@torch.no_grad()
def test_cell_by_cell_gives_the_same_as_one_pass(network):
    image, context = given(network)
    state = network.begin(context)
    found = []
    for cell in range(CELLS):
        found.append(network.at(state, cell))
        network.put(state, cell, image[:, cell])
    torch.testing.assert_close(torch.stack(found, 1), network(image, context))


def test_every_parameter_matters(network):
    image, _ = given(network)
    features = torch.ones(2, 3, dtype=torch.float64)
    place = torch.tensor([[2.0, 1.5], [1.0, 3.0]], dtype=torch.float64)
    network(image, network.context(features, place_functions(SHAPE, place))).square().sum().backward()
    assert all(parameter.grad.any() for parameter in network.parameters())


def test_place_functions_move_with_the_place():
    place = torch.tensor([[2.0, 1.0], [3.0, 2.0]])
    found = place_functions((8, 8), place)
    assert found.shape == (2, FUNCTIONS, 64)
    first, second = found.view(2, FUNCTIONS, 8, 8)
    torch.testing.assert_close(first[:, :-1, :-1], second[:, 1:, 1:])  # one step in both: the same colour
    assert first[0].argmax() == 2 * 8 + 1
