import pytest
import torch

from caloforge.nn.autoencoder import (
    AutoencoderConfig,
    Decoder,
    Encoder,
    LinearHeads,
    SelfAttention,
    latent_shape,
    normalized_gradient,
)
from caloforge.nn.unet import Conv

SHAPES = [(44, 44), (56, 30)]


def size(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("shape", SHAPES)
def test_the_papers_sizes(shape):
    config = AutoencoderConfig()
    assert (size(Encoder(config, 2)), size(Decoder(shape, config))) == (28_460, 30_888)
    config = AutoencoderConfig(channels=8)
    assert size(Encoder(config, 1)) + size(Decoder(shape, config)) == 59_924


@pytest.mark.parametrize(("shape", "latent"), [((44, 44), (4, 11, 11)), ((56, 30), (4, 14, 8))])
def test_shapes_and_gradients(shape, latent):
    torch.manual_seed(0)
    config = AutoencoderConfig()
    encoder, decoder = Encoder(config, 2), Decoder(shape, config)
    mean, spread = encoder(torch.rand(3, *shape))
    assert mean.shape == spread.shape == (3, *latent)
    assert latent_shape(shape, config) == latent
    image = decoder(mean + spread)
    assert image.shape == (3, *shape)
    (image - 1).square().sum().backward()
    for module in (encoder, decoder):
        assert [n for n, p in module.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_a_dark_image_can_become_brighter_again():
    torch.manual_seed(0)
    decoder = Decoder((44, 44), AutoencoderConfig())
    latent = torch.randn(4, 4, 11, 11)
    last = decoder.layers[-1]
    last.weight.data.zero_()
    with torch.no_grad():
        decoder.layers[-2].register_forward_hook(lambda *args: args[2] + 1)
        last.weight.data -= 1  # every pixel far below 0
    image = decoder(latent)
    assert image.max() == 0
    (image - 1).square().sum().backward()
    assert last.weight.grad.max() < 0  # asks for more
    last.weight.grad = None
    (decoder(latent) + 1).square().sum().backward()  # less light than none is not asked for
    assert not last.weight.grad.any()


def test_attention_sees_all_places_and_keeps_them_in_place():
    torch.manual_seed(0)
    block, x = SelfAttention(4, 2).double(), torch.randn(1, 4, 3, 5).double()
    order = torch.randperm(15)
    shuffled = x.flatten(2)[:, :, order].view_as(x)
    torch.testing.assert_close(block(shuffled), block(x).flatten(2)[:, :, order].view_as(x))
    changed = x.clone()
    changed[0, 0, 2, 4] += 1  # of one channel: the norm takes out what all have in common
    assert ((block(changed) - block(x)).abs().amax(1) > 1e-9).all()


def test_a_gradient_has_the_strength_that_is_asked_for():
    image = torch.randn(4, 6, 5, requires_grad=True)
    for scale in (1e-3, 1.0, 1e3):
        pull = normalized_gradient(scale * image.square().sum(), image, 0.1)
        assert abs(float(pull.norm()) - 0.1) < 1e-5
        torch.testing.assert_close(pull, 0.1 * image.detach() / image.detach().norm(), atol=1e-6, rtol=1e-4)


def test_a_new_discriminator_does_not_judge():
    heads = LinearHeads(torch.nn.Identity(), [3])
    heads.extractor.forward = lambda image: [image[:, None].expand(-1, 3, -1, -1)]
    assert torch.equal(heads(torch.randn(5, 4, 4)), torch.zeros(5))


@torch.no_grad()
def test_first_weights_by_name():
    torch.manual_seed(0)
    for initial in ("even", "published"):
        encoder = Encoder(AutoencoderConfig(base=16, initial=initial), 1)
        down = next(one for one in encoder.layers if isinstance(one, Conv) and one.stride == (2, 2))
        inputs, outputs = down.in_channels, down.out_channels
        scale = (9 * inputs) ** -0.5 if initial == "even" else 1 / (9 * outputs)
        assert abs(float(down.weight.std()) / scale - 1) < 0.1
        assert (
            abs(float(encoder.layers[0].weight.std()) / (1 / 3 if initial == "even" else 1 / 144) - 1) < 0.3
        )
        assert float(encoder.layers[1].conv2.weight.std()) < 1e-4
