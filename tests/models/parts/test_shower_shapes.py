import pytest
import torch

from caloforge.models.parts.shower_shapes import completed, log_expm1, turned, with_energies


def test_energies_are_kept_whatever_the_network_says():
    energies = torch.tensor([[3.0, 0.0, 2.0, 7.0]]).double()
    voxels = torch.zeros(1, 4, 2, 2).double()
    voxels[0, 0] = torch.tensor([[1.0, 1], [1, 1e-9]])
    voxels[0, 1] = 5.0
    voxels[0, 2] = torch.tensor([[-1.0, -2], [-3, -4]])  # nothing is lit: the largest has all
    voxels[0, 3] = torch.tensor([[1.0, 0], [0, 1e-4]])
    found = with_energies(voxels, energies, cut=0.01)
    torch.testing.assert_close(found.sum((2, 3)), energies)
    assert found[0, 0].flatten().tolist() == pytest.approx([1, 1, 1, 0])
    assert found[0, 2].flatten().tolist() == [2, 0, 0, 0]
    assert found[0, 3].flatten().tolist() == [7, 0, 0, 0]


def test_log_odds_of_few_hits_need_no_expm1():
    x = torch.logspace(-7, 1.1, 200)
    torch.testing.assert_close(
        log_expm1(x).double(), torch.log(torch.expm1(x.double())), rtol=1e-6, atol=3e-7
    )


def test_large_voxels_take_what_is_missing():
    voxels = torch.zeros(1, 3, 2, 2).double()
    voxels[0, :, 0, 0], voxels[0, :, 0, 1] = 10.0, 0.4
    found = completed(voxels, torch.tensor([[12.0, 9.0, 0.1]]).double())
    squares = 100 + 0.16
    wanted = [10 + 1.6 * 100 / squares, 0.4 + 1.6 * 0.16 / squares]
    assert found[0, 0].flatten().tolist() == pytest.approx([*wanted, 0, 0])
    assert found.sum((2, 3))[0, :2].tolist() == pytest.approx([12, 9])
    assert found[0, 2, 0].tolist() == pytest.approx([3.0, 0.4 - 10.3 * 0.16 / squares])


def test_what_is_missing_follows_the_spreads_and_no_lit_voxel_falls_below_the_cut():
    voxels = torch.zeros(1, 2, 2, 2).double()
    voxels[0, :, 0, 0], voxels[0, :, 0, 1] = 10.0, 0.5
    spreads = torch.full_like(voxels, 2.0)
    found = completed(voxels, torch.tensor([[12.5, 4.5]]).double(), spreads, 0.4)
    assert found[0, 0].flatten().tolist() == pytest.approx([10.5, 1.0, 0.5, 0.5])
    assert found[0, 1].flatten()[:2].tolist() == pytest.approx([8.5, 0.4])


def test_turning_keeps_rings_and_neighbours():
    voxels = torch.rand(40, 2, 8, 3)
    found = turned(voxels, torch.rand(40, 2, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(found.sum(2), voxels.sum(2))
    assert not torch.equal(found, voxels)
    for before, after in zip(voxels, found, strict=True):
        images = [torch.roll(one, shift, 1) for one in (before, before.flip(1)) for shift in range(8)]
        assert any(torch.equal(after, image) for image in images)
