import pytest
import torch

from caloforge.nn.stored import Stored


def build() -> Stored:
    return Stored(counts=torch.empty(0, 3, dtype=torch.uint16), weights=torch.empty(0))


def test_a_fresh_one_takes_the_sizes_of_the_state_it_loads():
    filled = build()
    filled.put(counts=torch.arange(6).reshape(2, 3).to(torch.uint16), weights=torch.tensor([0.5]))
    outer = torch.nn.ModuleDict({"stored": filled})
    fresh = torch.nn.ModuleDict({"stored": build()})
    fresh.load_state_dict(outer.state_dict())
    assert torch.equal(fresh["stored"]["counts"], filled["counts"])
    assert torch.equal(fresh["stored"]["weights"], filled["weights"])
    assert set(outer.state_dict()) == {"stored.counts", "stored.weights"}


def test_another_type_or_number_of_axes_is_refused():
    stored = build()
    with pytest.raises(
        ValueError, match=r"weights must be torch\.float32 with 1 axes, got torch\.float32 of shape \(1, 1\)"
    ):
        stored.put(weights=torch.zeros(1, 1))
    with pytest.raises(ValueError, match=r"counts must be torch\.uint16"):
        stored.put(counts=torch.zeros(2, 3))
    with pytest.raises(RuntimeError, match="size mismatch"):
        stored.load_state_dict(
            {"counts": torch.zeros(2, 3, 1, dtype=torch.uint16), "weights": torch.zeros(1)}
        )
