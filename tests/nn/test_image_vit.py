import pytest
import torch

from caloforge.nn.image_vit import ImageDecoder, ImageEncoder, ImageViTConfig, dropout_mask

SHAPES = [((44, 44), 36), ((56, 30), 28), ((9, 5), 2)]
SMALL = ImageViTConfig(width=8, heads=2, layers=2, latent=4)


@pytest.mark.parametrize(("shape", "patches"), SHAPES)
@pytest.mark.parametrize("conditions", [0, 9])
def test_shapes_and_gradients(shape, patches, conditions):
    torch.manual_seed(0)
    encoder = ImageEncoder(shape, conditions, SMALL)
    decoder = ImageDecoder(shape, encoder.size, conditions, SMALL)
    assert encoder.size == patches * SMALL.latent
    assert encoder.mask == decoder.mask == (2, patches + bool(conditions), 8)
    condition = torch.randn(3, 9) if conditions else None
    image = decoder(encoder(torch.rand(3, *shape), condition), condition)
    assert image.shape == (3, *shape)
    assert (image >= 0).all()
    (image - 1).square().sum().backward()
    parameters = [*encoder.named_parameters(), *decoder.named_parameters()]
    assert [n for n, p in parameters if p.grad is None or not p.grad.any()] == []


def test_every_pixel_is_read_and_every_pixel_is_written():
    torch.manual_seed(0)
    for shape, _ in SHAPES:
        encoder, decoder = ImageEncoder(shape, 0, SMALL), ImageDecoder(shape, 3, 0, SMALL)
        image = torch.zeros(1, *shape, requires_grad=True)
        encoder(image, None).square().sum().backward()
        assert (image.grad != 0).all()
        torch.nn.init.ones_(decoder.out.bias)
        torch.nn.init.zeros_(decoder.out.weight)
        torch.testing.assert_close(decoder(torch.randn(1, 3), None), torch.full((1, *shape), 1.5))


def test_the_particle_is_seen_and_an_event_does_not_depend_on_its_batch():
    torch.manual_seed(0)
    decoder = ImageDecoder((44, 44), 10, 9, SMALL).double()
    z, c = torch.randn(4, 10).double(), torch.randn(4, 9).double()
    base = decoder(z, c)
    torch.testing.assert_close(base[1:2], decoder(z[1:2], c[1:2]))
    assert (decoder(z, c + 1) - base).abs().max() > 1e-6


def test_dropout_keeps_the_mean_and_zeros_leave_the_layers_out():
    kept = dropout_mask(torch.rand(1000, 100), 0.1)
    assert kept.unique().tolist() == pytest.approx([0, 1 / 0.9])
    assert kept.mean().item() == pytest.approx(1, abs=0.01)
    torch.manual_seed(0)
    encoder = ImageEncoder((9, 5), 0, SMALL)
    image = torch.rand(2, 9, 5)
    ones = torch.ones(2, *encoder.mask)
    torch.testing.assert_close(encoder(image, None, ones), encoder(image, None))
    assert not torch.allclose(encoder(image, None, 0 * ones), encoder(image, None))


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="3 heads do not divide a width of 8"):
        ImageEncoder((9, 5), 0, SMALL.model_copy(update={"heads": 3}))
