import pytest
import torch
from pydantic import ValidationError
from torch.utils.flop_counter import FlopCounterMode

from caloforge.nn.cross_attention_unet import CrossAttentionUNet, CrossAttentionUNetConfig, TransformerLayer

SMALL = CrossAttentionUNetConfig(channels=(8, 8, 16), blocks=1, attention=(1,), heads=2, groups=4)


def test_with_the_weights_that_a_single_key_leaves_without_effect_it_has_the_published_4255585_parameters():
    config = CrossAttentionUNetConfig()
    network = CrossAttentionUNet(9, config)
    layers = [layer for layer in network.modules() if isinstance(layer, TransformerLayer)]
    widths = [layer.norm1.normalized_shape[0] for layer in layers]
    assert sorted(widths) == [64] * 5 + [128]
    # norm, queries and keys of an attention to one vector
    idle = sum(2 * width + width * width + config.context * width for width in widths)
    assert idle == 52_096
    assert sum(p.numel() for p in network.parameters()) + idle == 4_255_585


def test_an_evaluation_takes_the_published_793_million_operations():
    network = CrossAttentionUNet(9, CrossAttentionUNetConfig())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 44, 44), torch.zeros(1), torch.zeros(1, 9))
    # published: queries, weights, sums and outputs of the attention to the particle for each pixel, not once
    idle = sum(
        layers * (4 * pixels * width**2 + 4 * pixels * width - 2 * width**2)
        for layers, pixels, width in ((5, 11 * 11, 64), (1, 6 * 6, 128))
    )
    assert (counter.get_total_flops() + idle) / 1e6 == pytest.approx(793, abs=0.5)


def test_an_attention_to_one_vector_is_what_its_value_adds():
    torch.manual_seed(0)
    attention = torch.nn.MultiheadAttention(8, 2, bias=False, kdim=4, vdim=4, batch_first=True)
    queries, particle = torch.randn(3, 5, 8), torch.randn(3, 1, 4)
    seen, _ = attention(queries, particle, particle)
    added = attention.out_proj(particle @ attention.v_proj_weight.T)
    torch.testing.assert_close(seen, added.expand_as(seen))


@pytest.mark.parametrize("shape", [(44, 44), (56, 30), (7, 5)])
def test_the_output_has_the_shape_of_the_image_and_every_parameter_a_gradient(shape):
    torch.manual_seed(0)
    network = CrossAttentionUNet(9, SMALL)
    output = network(torch.randn(2, *shape), torch.rand(2), torch.randn(2, 9))
    assert output.shape == (2, *shape)
    output.square().sum().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_an_event_does_not_depend_on_its_batch_but_on_time_and_particle():
    torch.manual_seed(0)
    network = CrossAttentionUNet(9, SMALL).double()
    x, t, c = torch.randn(4, 12, 8).double(), torch.rand(4).double(), torch.randn(4, 9).double()
    base = network(x, t, c)
    torch.testing.assert_close(base[2:3], network(x[2:3], t[2:3], c[2:3]))
    assert (network(x, t + 0.3, c) - base).abs().max() > 1e-6
    assert (network(x, t, c + 1) - base).abs().max() > 1e-6


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"channels": [12]}, "multiples of the 8 groups"),
        ({"channels": [8], "heads": 3}, "multiples of heads"),
    ],
)
def test_channels_that_do_not_divide_are_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        CrossAttentionUNetConfig.model_validate(values)
