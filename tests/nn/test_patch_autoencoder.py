import numpy as np
import torch

from caloforge.nn.patch_autoencoder import (
    PatchAutoencoderConfig,
    PatchDecoder,
    PatchEncoder,
    _density,
    divergence,
    draw,
    log_likelihood,
    summary,
    with_sums,
)

SMALL = PatchAutoencoderConfig(width=8, blocks=1, embedding=8, code=4, place=8)


def numbers(*values):
    return torch.tensor(values, dtype=torch.float32).view(6, 1, 1, 1)


def test_probabilities_of_counts_add_up_to_one():
    for values in ((2.0, 1.0, 0.0, -1.0, 0.5, 0.0), (-1.0, -1.0, 0.5, 0.0, 1.0, 0.3)):
        counts = torch.arange(4000.0).view(-1, 1, 1)
        total = log_likelihood(numbers(*values).expand(-1, 4000, 1, 1), counts).exp().double()
        few = total[:4].sum()
        odds = torch.tensor([*values[:4], 0.0]).softmax(0)
        torch.testing.assert_close(few.float(), odds[:4].sum())
        # the density is cut at 4 and taken at whole numbers: right but for what it puts below
        assert 0.9 < total.sum() < 1.1


def test_counts_are_drawn_by_their_probabilities():
    values = numbers(2.0, 1.0, 0.0, -1.0, 0.5, 0.0)
    rows = 20_000
    u = ((torch.arange(rows) + 0.5) / rows).view(-1, 1, 1)
    drawn, mean = draw(values.expand(-1, rows, 1, 1), u)
    odds = torch.tensor([2.0, 1.0, 0.0, -1.0, 0.0]).softmax(0)
    for k in range(4):
        assert abs((drawn == k).double().mean() - odds[k]) < 1e-3
    large = drawn[drawn > 3]
    logs = torch.log1p(large)
    assert (torch.diff(drawn.flatten()) >= 0).all()
    assert abs(logs.median() - 2.5) < 0.01
    spread = torch.quantile(logs, torch.tensor([0.16, 0.84])) - 2.5
    torch.testing.assert_close(spread, torch.tensor([-0.5, 0.5]), atol=0.02, rtol=0)
    assert abs(drawn.mean() / mean.mean() - 1) < 0.03


def test_every_uniform_gives_a_finite_count():
    torch.manual_seed(0)
    values = 20 * torch.randn(6, 50, 3, 3)
    for u in (0.0, 1 - 2**-24):
        counts, mean = draw(values, torch.full((50, 3, 3), u))
        assert torch.isfinite(counts).all()
        assert (counts >= 0).all()
        assert torch.isfinite(mean).all()


def test_shapes_and_gradients():
    torch.manual_seed(0)
    for shape in ((44, 44), (56, 30)):
        encoder, decoder = (kind(shape, 5, SMALL) for kind in (PatchEncoder, PatchDecoder))
        for layer in (decoder.last, decoder.profile, decoder.place.layers[-1]):  # zero at first
            torch.nn.init.normal_(layer.weight, std=0.1)
        for tokens in (encoder.tokens, decoder.tokens):
            torch.nn.init.normal_(tokens.blocks[0].modulation.weight, std=0.1)
        counts = torch.poisson(torch.full((3, *shape), 0.5))
        places, features = 20 + torch.randn(3, 2, 2), torch.randn(3, 5)
        mean, log_variance = encoder(torch.log1p(counts), places, features)
        assert mean.shape == log_variance.shape == (3, 4)
        found = decoder(mean + log_variance, places[:, 0], features)
        assert found.shape == (6, 3, *shape)
        log_likelihood(found, counts).sum().backward()
        for module in (encoder, decoder):
            assert [n for n, p in module.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_an_image_is_summed_up():
    image = torch.zeros(1, 9, 9)
    image[0, 4, 2] = image[0, 4, 6] = np.log(1 + 10.0)
    middle = torch.tensor([[[4.0, 4.0], [4.0, 4.0]]])
    wanted = [0, 0, np.log(1 + 0.0) - 2.5, np.log(1 + 4.0) - 2.5, 0, np.log(3) - 4, np.log(11) - 2.5]
    torch.testing.assert_close(
        summary(image, middle)[0], torch.tensor([*wanted, np.log(3) - 3], dtype=torch.float32)
    )
    moved = summary(image, middle - torch.tensor([[[5.0, 0], [0, 0]]]))
    torch.testing.assert_close(moved[0, 0], torch.tanh(torch.tensor(1.0)))


def test_counts_are_moved_to_sums_and_small_ones_stay_where_large_ones_can_give():
    channel = torch.tensor([0, 0, 0, 1, 1, 1])
    mean = torch.tensor([[1.0, 3, 9, 1, 2, 1]]).double()
    drawn = torch.tensor([[1.0, 0, 10, 0, 0, 0]]).double()
    found = with_sums(drawn, mean, torch.tensor([[14.0, 8]]), channel)
    torch.testing.assert_close(found, torch.tensor([[1.0, 0, 13, 2, 4, 2]]).double(), atol=1e-6, rtol=0)
    found = with_sums(drawn, mean, torch.tensor([[34.0, 0]]), channel)  # 1 + 2 x 10, and 13 where expected
    torch.testing.assert_close(found, torch.tensor([[2.0, 3, 29, 0, 0, 0]]).double(), atol=1e-6, rtol=0)
    found = with_sums(drawn, mean, torch.tensor([[3.0, 0]]), channel)  # 1 + 10 / 2, and half of it
    torch.testing.assert_close(found, torch.tensor([[0.5, 0, 2.5, 0, 0, 0]]).double(), atol=1e-6, rtol=0)


def test_the_divergence_is_that_of_the_classes_and_of_the_density_in_its_share():
    torch.manual_seed(0)
    numbers, others = torch.randn(2, 6, 1, 4, 4)
    assert divergence(numbers, numbers).abs().max() < 1e-6
    classes = [
        torch.distributions.Categorical(logits=torch.cat([each[:4], torch.zeros(1, 1, 4, 4)]).movedim(0, -1))
        for each in (numbers, others)
    ]
    densities = [torch.distributions.Normal(*_density(each)) for each in (numbers, others)]
    divergences = [torch.distributions.kl_divergence(*pair) for pair in (classes, densities)]
    expected = divergences[0] + classes[0].probs[..., 4] * divergences[1]
    torch.testing.assert_close(divergence(numbers, others), expected)
