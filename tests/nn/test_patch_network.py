import pytest
import torch

from caloforge.nn.patch_network import BENDS, PatchNetwork, PatchNetworkConfig


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
    # with no blocks' change the constant term of the second image is the normalised tile, that of the first nothing
    net = PatchNetwork((8, 12), 3, 1, PatchNetworkConfig(patch=2, width=4, blocks=1)).double()
    for parameter in net.parameters():
        torch.nn.init.zeros_(parameter)
    net.first.weight.data[:, :4] = torch.eye(4)
    terms = 2 + len(BENDS)
    net.last.weight.data[terms * 4 : terms * 4 + 4] = torch.eye(4)
    x = torch.randn(2, 8, 12).double()
    around = net.around(torch.zeros(2, 1, 2).double())
    first, second = net(x, torch.zeros(2).double(), torch.zeros(2, 3).double(), around)
    tiles = x.view(2, 4, 2, 6, 2).transpose(2, 3).reshape(2, 4, 6, 4)
    normalized = torch.nn.functional.layer_norm(tiles, (4,), eps=1e-6)
    torch.testing.assert_close(second, normalized.view(2, 4, 6, 2, 2).transpose(2, 3).reshape(2, 8, 12))
    assert not first.any()


def test_a_pixel_passes_beside_the_tokens():
    net = PatchNetwork((8, 12), 3, 1, PatchNetworkConfig(patch=4, width=4, blocks=1)).double()
    # the first image: pixel by pixel x + 10 relu(x - bend t); the second: twice x
    factors = torch.zeros(2, 2 + len(BENDS), 16)
    factors[0, 1], factors[0, 2], factors[1, 1] = 1, 10, 2
    net.last.bias.data = factors.flatten().double()
    x, t = torch.randn(2, 8, 12).double(), torch.tensor([0.3, 0.9]).double()
    first, second = net(x, t, torch.zeros(2, 3).double(), net.around(torch.zeros(2, 1, 2).double()))
    torch.testing.assert_close(first, x + 10 * (x - BENDS[0] * t[:, None, None]).clamp(min=0))
    torch.testing.assert_close(second, 2 * x)


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
