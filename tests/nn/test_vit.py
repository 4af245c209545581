import pytest
import torch

from caloforge.nn.vit import ViT, ViTConfig

SMALL = {"width": 12, "heads": 2, "blocks": 2, "inner": 8, "time": 4}


def network(shape=(2, 6, 4, 4), patch=(3, 2, 1), **options):
    torch.manual_seed(0)
    net = ViT(shape, 5, ViTConfig(patch=patch, **SMALL), **options).double()
    for parameter in net.parameters():  # gates and the last layer start at zero on purpose
        parameter.data += 0.1 * torch.randn_like(parameter)
    return net


def inputs(net, rows=3):
    torch.manual_seed(1)
    axes = [size * edge for size, edge in zip(net.grid, net.patch, strict=True)]
    x = torch.randn(rows, net.channels, *axes).double()
    return x, torch.rand(rows).double(), torch.randn(rows, 5).double()


@pytest.mark.parametrize("local", [0, 2])
@pytest.mark.parametrize("outputs", [None, 3])
def test_shapes_and_gradients(outputs, local):
    net = network(outputs=outputs, local=local)
    x, t, conditions = inputs(net)
    y = net(x, t, conditions, torch.randn(3, 6, local).double() if local else None)
    assert y.shape == (3, outputs or 2, 6, 4, 4)
    y.square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_an_event_does_not_depend_on_its_batch():
    net = network()
    together = inputs(net)
    torch.testing.assert_close(net(*together)[1:2], net(*(one[1:2] for one in together)))


@torch.no_grad()
@pytest.mark.parametrize("local", [0, 2])
def test_parts_of_a_batch_are_the_batch(local):
    net = network(local=local)
    given = (*inputs(net, 5), *([torch.randn(5, 6, local).double()] if local else []))
    whole = net(*given)
    net.at_once = 2
    torch.testing.assert_close(net(*given), whole)


def test_starts_at_zero_whatever_the_input():
    torch.manual_seed(0)
    net = ViT((1, 6, 4, 4), 5, ViTConfig(patch=(3, 2, 1), **SMALL)).double()
    assert not net(*inputs(net)).any()


def test_patches_go_back_where_they_came_from():
    net = network()
    x, *_ = inputs(net)
    torch.testing.assert_close(net._voxels(net._patches(x)), x, atol=0, rtol=0)
    # (layer, angle, radius) order: the second token is the next radius
    torch.testing.assert_close(net._patches(x)[0, 1].view(2, 3, 2, 1), x[0, :, :3, :2, 1:2], atol=0, rtol=0)


def test_each_token_sees_its_own_layers():
    net = network(local=1)
    local = torch.arange(6).double().view(1, 6, 1)
    of_tokens = net._of_layers(local)
    assert of_tokens.shape == (1, 2 * 2 * 4, 3)
    assert of_tokens[0, :8].unique(dim=0).tolist() == [[0, 1, 2]]
    assert of_tokens[0, 8:].unique(dim=0).tolist() == [[3, 4, 5]]


def test_positions_tell_the_tokens_apart():
    positions = network()._positions()
    assert positions.shape == (16, 12)
    assert len(positions.detach().numpy().round(6).tolist()) == len({tuple(p) for p in positions.tolist()})


@pytest.mark.parametrize(
    ("shape", "patch", "sizes", "tokens", "parameters"),
    [
        ((1, 45, 16, 9), (3, 16, 1), {}, 135, 26_042_688),
        ((1, 45, 50, 18), (3, 5, 2), {"width": 240, "inner": 720}, 1350, 5_868_870),
        ((2, 15, 9, 9), (3, 1, 1), {"width": 240, "inner": 960, "blocks": 10}, 405, 10_711_566),
        ((2, 9, 26, 16), (3, 2, 2), {"width": 240, "inner": 960, "blocks": 10}, 312, 10_720_224),
    ],
    ids=["ds2", "ds3", "ds2, latent", "ds3, latent"],
)
def test_parameters_of_the_publication(shape, patch, sizes, tokens, parameters):
    with torch.device("meta"):
        net = ViT(shape, 46, ViTConfig(patch=patch, **sizes))
    assert net.tokens == tokens
    assert sum(p.numel() for p in net.parameters()) == parameters


def test_sizes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"patches of 3 x 16 x 2 do not divide a response of 45 x 16 x 9"):
        ViT((1, 45, 16, 9), 46, ViTConfig(patch=(3, 16, 2)))
    with pytest.raises(ValueError, match="5 heads do not divide a width of 12"):
        ViT((1, 6, 4, 4), 5, ViTConfig(patch=(3, 2, 1), **{**SMALL, "heads": 5}))


def test_recomputing_a_block_gives_the_same_gradients():
    torch.manual_seed(0)
    found = []
    for recompute in (False, True):
        torch.manual_seed(0)
        net = ViT((2, 6, 4, 4), 5, ViTConfig(patch=(3, 2, 1), recompute=recompute, **SMALL)).double()
        for parameter in net.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
        net(*inputs(net)).square().sum().backward()
        found.append({name: parameter.grad for name, parameter in net.named_parameters()})
    torch.testing.assert_close(*found, rtol=0, atol=0)
