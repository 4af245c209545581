import pytest
import torch

from caloforge.nn.transformer import Transformer, TransformerConfig
from caloforge.nn.transfusion import Transfusion

SMALL = TransformerConfig(width=12, heads=3, layers=2, inner=16)


def network():
    torch.manual_seed(0)
    return Transformer(SMALL).double()


def inputs(tokens=7, seen=1):
    torch.manual_seed(1)
    return torch.randn(3, seen, 12).double(), torch.randn(3, tokens, 12).double()


@pytest.mark.parametrize("seen", [1, 4])
def test_token_by_token_is_the_same_as_all_at_once(seen):
    net = network()
    condition, x = inputs(seen=seen)
    memory = net.encode(condition)
    cache, found = net.start(memory), []
    for i in range(x.shape[1]):
        token, cache = net.step(cache, x[:, i : i + 1])
        found.append(token)
    torch.testing.assert_close(torch.cat(found, 1), net.decode(memory, x))


def test_with_places_for_all_from_the_start_it_is_the_same():
    net = network()
    condition, x = inputs()
    memory = net.encode(condition)
    wanted, kept, seen = (
        net.decode(memory, x),
        torch.zeros(3, 2, 2, 3, 7, 4).double(),
        net.start(memory).memory,
    )
    own = torch.eye(7).double()
    for i in range(7):
        found, kept = net.step_in_place(seen, kept, x[:, i : i + 1], own[i], own[: i + 1].sum(0))
        torch.testing.assert_close(found[:, 0], wanted[:, i])


def test_a_token_does_not_see_those_after_it_but_those_before():
    net = network()
    condition, x = inputs()
    memory, changed = net.encode(condition), x.clone()
    changed[:, 3] += 1
    before, after = net.decode(memory, x), net.decode(memory, changed)
    torch.testing.assert_close(before[:, :3], after[:, :3], atol=0, rtol=0)
    assert ((before - after)[:, 3:].abs().amax(-1) > 1e-6).all()


def test_the_condition_is_seen():
    net = network()
    condition, x = inputs()
    other = net.decode(net.encode(condition + 1), x)
    assert (net.decode(net.encode(condition), x) - other).abs().min() > 0


def test_every_parameter_gets_a_gradient():
    net = network()
    condition, x = inputs(seen=2)
    net.decode(net.encode(condition), x).square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_numbers_drawn_follow_from_those_before():
    torch.manual_seed(0)
    net = Transfusion(6, SMALL, 8, 1).double()
    condition, u = torch.rand(4, 1).double(), torch.randn(4, 6).double()
    known = net.known(condition, u)
    seen = []

    def draw(x0, now):  # draws what is wanted, and keeps what it was told
        seen.append(now)
        return x0

    torch.testing.assert_close(net.draw(condition, u, draw), u, atol=0, rtol=0)
    torch.testing.assert_close(torch.stack(seen, 1), known)


@pytest.mark.parametrize(
    ("inner", "width", "parameters"),
    [(1024, 256, 1_695_297), (512, 512, 2_384_705)],
    ids=["tables", "submitted"],
)
def test_parameters_of_the_publication(inner, width, parameters):
    net = Transfusion(45, TransformerConfig(inner=inner), width, 6)
    assert sum(p.numel() for p in net.parameters()) == parameters


def test_tokens_must_hold_a_number_and_its_place():
    with pytest.raises(ValueError, match="a width of at least 47, got 12"):
        Transfusion(45, SMALL, 8, 1)
