import pytest
import torch
from pydantic import ValidationError

from caloforge.nn.unet import ConditionAttention, PixelNorm, UNet, UNetConfig

SHAPES = [(44, 44), (56, 30)]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_papers_network_has_77372_parameters(shape):
    assert sum(p.numel() for p in UNet(shape, 9, UNetConfig()).parameters()) == 77_372


@pytest.mark.parametrize("shape", [*SHAPES, (7, 5)])
@pytest.mark.parametrize("patch", [1, 2, 4])
def test_the_velocity_has_the_shape_of_the_image_and_every_parameter_a_gradient(shape, patch):
    torch.manual_seed(0)
    net = UNet(shape, 9, UNetConfig(patch=patch))
    velocity = net(torch.randn(3, *shape), torch.rand(3), torch.randn(3, 9))
    assert velocity.shape == (3, *shape)
    velocity.square().sum().backward()
    missing = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert missing == []


def test_an_event_does_not_depend_on_its_batch():
    torch.manual_seed(0)
    net = UNet((12, 8), 9, UNetConfig()).double()
    x, t, c = torch.randn(4, 12, 8).double(), torch.rand(4).double(), torch.randn(4, 9).double()
    torch.testing.assert_close(net(x, t, c)[2:3], net(x[2:3], t[2:3], c[2:3]))


def test_time_and_particle_are_seen():
    torch.manual_seed(0)
    net = UNet((12, 8), 9, UNetConfig()).double()
    for p in net.parameters():  # the initial weights of time and attention are tiny on purpose
        p.data += 0.1 * torch.randn_like(p)
    x, t, c = torch.randn(1, 12, 8).double(), torch.rand(1).double(), torch.randn(1, 9).double()
    base = net(x, t, c)
    assert (net(x, t + 0.3, c) - base).abs().max() > 1e-6
    assert (net(x, t, c + 1) - base).abs().max() > 1e-6


def test_attention_keeps_pixels_in_place():
    # the published code drops the wrong token, which shifts the image by a pixel at each block
    torch.manual_seed(0)
    block = ConditionAttention(4, 4, 2, 16)
    torch.nn.init.zeros_(block.out.weight)
    x = torch.randn(1, 4, 3, 5)
    torch.testing.assert_close(block(x, torch.randn(1, 16)), x)
    block = ConditionAttention(4, 4, 2, 16)
    condition = torch.randn(1, 16)
    permutation = torch.randperm(15)
    shuffled = x.flatten(2)[:, :, permutation].view_as(x)
    expected = block(x, condition).flatten(2)[:, :, permutation].view_as(x)
    torch.testing.assert_close(block(shuffled, condition), expected)


def test_pixel_norm_is_over_channels():
    x = torch.randn(2, 6, 3, 4)
    torch.testing.assert_close(PixelNorm(6)(x).mean(1), torch.zeros(2, 3, 4), atol=1e-6, rtol=0)


def test_unknown_sizes_are_refused():
    with pytest.raises(ValidationError):
        UNetConfig(width=3)
