import torch

from caloforge.models.parts.sums import reflected


def test_faint_sums_are_reflected_at_the_threshold_and_others_stay():
    generator = torch.Generator().manual_seed(0)
    sums = torch.randint(0, 6, (2000, 5), generator=generator).float()
    found, total = reflected(sums, 10), sums.sum(1)
    faint = total < 10
    assert 0 < faint.sum() < len(sums)
    assert torch.equal(found[~faint], sums[~faint])
    assert torch.equal(found.sum(1)[faint], 19 - total[faint])
    assert (found >= 0).all()
    assert torch.equal(found, found.round())
    # channels keep their shares to a photon
    some = faint & (total > 0)
    shares = sums[some] * (19 / total[some] - 1)[:, None]
    assert ((found[some] - shares).abs() <= 1).all()
    assert reflected(torch.zeros(1, 5), 10).sum() == 19
    assert torch.equal(reflected(sums, 0), sums)
