import pytest
import torch

from caloforge.nn.gpt import GPT, GPTConfig, ToldPlaces, invert

SMALL = GPTConfig(width=16, hidden=24, layers=2, heads=2)


def made(seed=0):
    torch.manual_seed(seed)
    net = GPT(5, 7, 2, 9, SMALL).double()
    for parameter in net.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return net


def test_the_papers_sizes():
    assert sum(p.numel() for p in GPT(512, 512, 2, 121, GPTConfig()).parameters()) == 934_912


@torch.no_grad()
@pytest.mark.parametrize("tells", [False, True])
def test_kept_keys_and_values_give_the_logits_of_the_whole_sequence(tells):
    net = made()
    given, u = torch.randint(5, (4, 2)), torch.rand(4, 9)
    told = torch.randn(4, 10, 16, dtype=torch.float64) if tells else None
    tokens = net.draw(given, u, 1.2, 4, told)
    _, logits = net(given, tokens, told=told)
    again = torch.stack([invert(logits[:, k], u[:, k], 1.2, 4) for k in range(9)], 1)
    assert torch.equal(tokens, again)


@torch.no_grad()
def test_a_token_sees_only_what_came_before():
    net = made()
    given, tokens = torch.randint(5, (1, 2)), torch.randint(7, (1, 9))
    changed = tokens.clone()
    changed[0, 5] = (tokens[0, 5] + 1) % 7
    first, second = net(given, tokens)[1], net(given, changed)[1]
    torch.testing.assert_close(first[:, :6], second[:, :6])
    assert (first[:, 6:] - second[:, 6:]).abs().max() > 1e-4


@torch.no_grad()
def test_the_condition_token_is_predicted_from_the_first_alone():
    net = made()
    given, tokens = torch.tensor([[1, 2], [1, 4]]), torch.randint(7, (1, 9)).expand(2, -1)
    first, second = net(given, tokens)
    assert (first.shape, second.shape) == ((2, 1, 5), (2, 9, 7))
    torch.testing.assert_close(first[0], first[1])
    assert (second[0] - second[1]).abs().max() > 1e-4


def test_tokens_are_drawn_by_their_probabilities():
    logits = torch.tensor([0.0, 1.0, -1.0, 2.0, -3.0]).expand(20_000, -1)
    u = (torch.arange(20_000) + 0.5) / 20_000
    for temperature, top_k in ((1.0, 5), (2.0, 5), (1.0, 2)):
        drawn = invert(logits, u, temperature, top_k)
        wanted = torch.softmax(logits[0] / temperature, 0)
        wanted = torch.where(wanted >= wanted.topk(top_k)[0][-1], wanted, 0)
        found = torch.bincount(drawn, minlength=5) / 20_000
        torch.testing.assert_close(found, wanted / wanted.sum(), atol=2e-4, rtol=0)


@pytest.mark.parametrize("u", [0.0, 1 - 2**-24])
def test_the_ends_of_the_uniform_give_a_token(u):
    assert 0 <= invert(torch.randn(1, 5), torch.tensor([u]), 1.0, 5).item() < 5


@torch.no_grad()
def test_places_are_told_where_their_token_lies_from_the_expected_place():
    torch.manual_seed(0)
    places = ToldPlaces(3, (2, 3), (8, 12), 2, 16, 8)
    assert places.middles.tolist() == [[1.5, 1.5], [1.5, 5.5], [1.5, 9.5], [5.5, 1.5], [5.5, 5.5], [5.5, 9.5]]
    features, expected = torch.randn(2, 3), torch.tensor([[1.5, 1.5], [1.5, 5.5]])
    assert not places(features, expected).any()  # a prior without them is where the training begins
    places.outer.weight.normal_()
    told = places(features[:1].expand(2, 3), expected)
    assert told.shape == (2, 7, 16)
    assert not told[:, 0].any()  # before the last condition token
    torch.testing.assert_close(told[0, 1], told[1, 2])
    assert (told[0, 1] - told[0, 2]).abs().max() > 1e-3
    assert (places(features, expected)[1] - told[1])[1:].abs().max() > 1e-3
