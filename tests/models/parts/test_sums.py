import pytest
import torch

from caloforge import samples
from caloforge.detectors import ZN
from caloforge.io import open_primaries
from caloforge.models.parts.sums import Sums, SumsConfig, reflected


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


@pytest.mark.parametrize("transport", [False, True, "sums"])
@pytest.mark.parametrize(("feature", "size"), [("species", 5), ("grooves", 2)])
def test_only_the_sums_are_told_species_and_grooves(transport, feature, size):
    def sums(**told):
        return Sums(ZN, "paper", SumsConfig(width=8), 0.0, 4, transport=transport, **told)

    among, without = sums(**{feature: True}), sums()
    assert among.features == without.features + size
    assert among.told == without.told
    conditions = torch.from_numpy(open_primaries(samples.sample("zn")).conditions[:20])
    later = [one.later(one.describe(conditions)) for one in (among, without)]
    assert torch.equal(*later)
    assert later[0].shape == (20, without.told)
