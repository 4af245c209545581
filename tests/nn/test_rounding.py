import numpy as np
import torch

from caloforge.nn.rounding import floor_to_sum, normal_to_uniform, systematic_rounding


def test_systematic_rounding_by_hand():
    expected = torch.tensor([[0.5, 0.0, 1.25, 0.5]])
    order = torch.tensor([0, 1, 2, 3])
    # cumulative 0.5, 0.5, 1.75, 2.25; with u = 0.3: floors 0, 0, 2, 2
    torch.testing.assert_close(
        systematic_rounding(expected, torch.tensor([0.3]), order), torch.tensor([[0.0, 0.0, 2.0, 0.0]])
    )


def test_systematic_rounding_is_unbiased_in_every_cell_and_keeps_sums():
    rng = torch.Generator().manual_seed(0)
    expected = torch.rand(1, 30, generator=rng) * 3
    order = torch.randperm(30, generator=rng)
    u = (torch.arange(4000) + 0.5) / 4000
    counts = systematic_rounding(expected.expand(4000, -1), u, order)
    assert (counts == counts.round()).all()
    assert ((counts - expected).abs() < 1).all()
    torch.testing.assert_close(counts.mean(0), expected[0], atol=1e-3, rtol=0)
    runs = (counts - expected)[:, order].cumsum(1)
    assert runs.abs().max() < 1 + 1e-4


def test_rounding_leaves_integers_alone():
    counts = torch.tensor([[3.0, 0.0, 570.0, 1.0]])
    for u in (0.0, 0.5, 1 - 2**-24):
        torch.testing.assert_close(
            systematic_rounding(counts, torch.tensor([u]), torch.tensor([2, 0, 3, 1])), counts
        )


def test_normals_become_uniforms_below_one():
    u = normal_to_uniform(torch.linspace(-9, 9, 10_001))
    assert u.min() >= 0
    assert u.max() < 1
    assert (u.diff() >= 0).all()
    normals = torch.from_numpy(np.random.default_rng(0).standard_normal(20_000).astype("f4"))
    histogram = torch.histc(normal_to_uniform(normals), 10, 0, 1)
    assert ((histogram - 2000).abs() < 5 * 2000**0.5).all()


@torch.no_grad()
def test_floors_are_scaled_to_their_sum():
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(200, 300, generator=generator) * 1.3
    total = torch.randint(10, 500, (200,), generator=generator).float()
    found = floor_to_sum(values, total)
    assert torch.equal(found.sum(1), total)
    assert not found[values < 1].any()
    dark = torch.tensor([[0.1, 0.2, 0.7, 0.3]])
    assert torch.equal(floor_to_sum(dark, torch.tensor([12.0])), torch.tensor([[0.0, 0.0, 12.0, 0.0]]))


@torch.no_grad()
def test_floors_that_have_the_sum_already_stay():
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(50, 300, generator=generator) * 4
    total = torch.floor(values).sum(1)
    # the largest scale that fits is above 1 by less than one jump
    assert torch.equal(floor_to_sum(values, total), torch.floor(values))


@torch.no_grad()
def test_scaled_floors_are_unbiased_where_the_noise_is_uniform():
    generator = torch.Generator().manual_seed(0)
    counts = torch.tensor([1.0] * 3000 + [10.0] * 300)
    values = (counts + torch.rand(50, 3300, generator=generator)).double()
    found = floor_to_sum(values, torch.full((50,), 6600.0).double())
    torch.testing.assert_close(found[:, :3000].mean().float(), torch.tensor(1.1), atol=0.003, rtol=0)
