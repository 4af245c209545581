import math

import numpy as np
import pytest
import torch

from caloforge.nn.patch_network import FAINT, OUTPUTS, PatchNetwork, PatchNetworkConfig, posterior


def network(shape, **sizes):
    torch.manual_seed(0)
    net = PatchNetwork(shape, 3, 2, PatchNetworkConfig(width=8, blocks=2, embedding=16, **sizes)).double()
    for parameter in net.parameters():  # the last layers start at zero on purpose
        parameter.data += 0.1 * torch.randn_like(parameter)
    return net


def inputs(net, rows=3):
    torch.manual_seed(1)
    around = net.around(torch.rand(rows, 2, 2).double() * 10)
    return (
        torch.randn(rows, *net.shape).double(),
        torch.rand(rows).double(),
        torch.randn(rows, 3).double(),
        around,
    )


@pytest.mark.parametrize("shape", [(12, 8), (7, 5), (44, 44), (56, 30)])
@pytest.mark.parametrize("patch", [1, 2, 4])
def test_the_image_keeps_its_shape_and_every_parameter_gets_a_gradient(shape, patch):
    net = network(shape, patch=patch)
    images = net(*inputs(net))
    assert [image.shape for image in images] == [(3, *shape)] * 2
    sum(image.square().sum() for image in images).backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_an_event_does_not_depend_on_its_batch():
    net = network((12, 8))
    together = inputs(net)
    alone = tuple(one[1:2] for one in together)
    for several, one in zip(net(*together), net(*alone), strict=True):
        torch.testing.assert_close(several[1:2], one)


def test_tiles_go_back_where_they_came_from():
    # with no blocks' change the correction is the normalised tile
    net = PatchNetwork((8, 12), 3, 1, PatchNetworkConfig(patch=2, width=4, blocks=1)).double()
    for parameter in net.parameters():
        torch.nn.init.zeros_(parameter)
    net.first.weight.data[:, :4] = torch.eye(4)
    net.last.weight.data[-4:] = torch.eye(4)
    x, t = torch.randn(2, 8, 12).double(), torch.zeros(2).double()
    _, light = net(x, t, torch.zeros(2, 3).double(), net.around(torch.zeros(2, 1, 2).double()))
    tiles = x.view(2, 4, 2, 6, 2).transpose(2, 3).reshape(2, 4, 6, 4)
    normalized = torch.nn.functional.layer_norm(tiles, (4,), eps=1e-6)
    wanted = normalized.view(2, 4, 6, 2, 2).transpose(2, 3).reshape(2, 8, 12)
    assert (light - wanted).std() < 1e-9  # the expected counts are the same everywhere, at t = 0


@pytest.mark.parametrize("t", [0.0, 0.3, 0.7, 0.95])
def test_the_posterior_is_that_of_bayes(t):
    """Against sums over counts and an integral over the density, worked out on a grid."""
    torch.manual_seed(0)
    numbers = torch.randn(OUTPUTS, 1, 2, 3, dtype=torch.float64)
    numbers[-1] = 0
    x = torch.randn(1, 2, 3, dtype=torch.float64) + t
    image, light = posterior(x, torch.tensor(t, dtype=torch.float64), numbers)
    y = torch.linspace(-25, 29, 200_001, dtype=torch.float64)
    for place in np.ndindex(1, 2, 3):
        *odds, mean, spread, _ = (float(value[place]) for value in numbers)
        spread = math.sqrt(0.5) * math.exp(spread)
        density = torch.exp(-0.5 * ((y - 1.8 - mean) / spread) ** 2) / (spread * math.sqrt(2 * math.pi))
        like = torch.exp(-0.5 * ((x[place] - t * y) / (1 - t)) ** 2) * density * (y[1] - y[0])
        counts = torch.arange(4, dtype=torch.float64)
        known = torch.log1p(counts)
        weights = torch.exp(torch.tensor(odds) - 0.5 * ((x[place] - t * known) / (1 - t)) ** 2)
        total = weights.sum() + like.sum()
        mean = ((weights * known).sum() + (like * y).sum()) / total
        torch.testing.assert_close(image[place], mean, atol=1e-6, rtol=1e-6)
        if 0 < float(torch.log((like * torch.exp(y)).sum() / like.sum())) < 12:  # beyond the limits it is cut
            number = ((weights * counts).sum() + (like * torch.expm1(y)).sum()) / total
            torch.testing.assert_close(torch.exp(light[place]), number + FAINT, atol=1e-6, rtol=1e-6)


def test_a_token_knows_where_the_hit_is():
    net = network((12, 12))
    # the middle tile's centre, and the first tile's
    maps = net.around(torch.tensor([[[5.5, 5.5], [1.5, 1.5]]]).double())[0]
    at_centre, at_first = maps.chunk(2, -1)
    assert at_first[0, 0, :2].abs().max() < 1e-9
    assert at_centre[1, 1, :2].abs().max() < 1e-9
    torch.testing.assert_close(at_centre[1, 1, 4:], torch.ones(3).double(), atol=1e-3, rtol=0)
    assert (at_centre[0, :, 0] < 0).all()
    assert (at_centre[2, :, 0] > 0).all()
    assert (at_centre[:, 0, 1] < 0).all()
    conditions = inputs(net)
    moved = (*conditions[:3], net.around(torch.full((3, 2, 2), 20.0).double()))
    assert (net(*conditions)[0] - net(*moved)[0]).abs().max() > 1e-6


def test_the_last_place_is_seen_by_each_pixel():
    net = PatchNetwork((6, 8), 3, 2, PatchNetworkConfig(patch=2, width=4, blocks=1, scales=(1.5, 4.0)))
    seen = net.around(torch.tensor([[[0.0, 0.0], [3.0, 6.0]]]))[0, :, :, 14:].view(3, 4, 2, 2, 2)
    light = seen.permute(2, 0, 3, 1, 4).reshape(2, 6, 8)
    away = torch.hypot(torch.arange(6)[:, None] - 3.0, torch.arange(8) - 6.0)
    for scale, found in zip((1.5, 4.0), light, strict=True):
        torch.testing.assert_close(found, torch.exp(-away / scale), atol=1e-3, rtol=0)


def test_light_around_the_last_place_adds_to_the_prior():
    net = PatchNetwork((8, 8), 3, 1, PatchNetworkConfig(width=4, blocks=1, scales=(2.0,))).double()
    net.profile.bias.data[-1] = 3.0  # of the correction
    x, t = torch.zeros(1, 8, 8).double(), torch.zeros(1).double()
    around = net.around(torch.tensor([[[2.0, 5.0]]]).double())
    _, light = net(x, t, torch.zeros(1, 3).double(), around)
    away = torch.hypot(torch.arange(8)[:, None] - 2.0, torch.arange(8) - 5.0).double()
    difference = light[0] - light[0].min() - 3 * (torch.exp(-away / 2) - torch.exp(-away / 2).min())
    assert difference.abs().max() < 3e-3
