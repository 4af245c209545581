import pytest
import torch

from caloforge.detectors import ZN
from caloforge.transforms import BendingFeatures, Compose, Log1p, Standardize, Transform


def transforms() -> dict[str, Transform]:
    values = torch.rand(200, 5, dtype=torch.float64) * 50
    return {
        "log1p": Log1p(),
        "standardize": Standardize.fit(values).double(),
        "compose": Compose(Log1p(), Standardize.fit(torch.log1p(values))).double(),
    }


@pytest.mark.parametrize("name", transforms())
def test_a_transform_inverts_on_its_support(name):
    torch.manual_seed(0)
    transform = transforms()[name]
    x = torch.rand(64, 5, dtype=torch.float64) * 100
    before = x.clone()
    torch.testing.assert_close(transform.inverse(transform(x)), x, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(x, before, atol=0, rtol=0)


@pytest.mark.parametrize("name", transforms())
def test_a_transform_is_saved_with_its_fit(name):
    transform, fresh = transforms()[name], transforms()[name]
    for buffer in fresh.buffers():
        buffer.zero_()
    fresh.load_state_dict(transform.state_dict())
    x = torch.rand(3, 5, dtype=torch.float64)
    torch.testing.assert_close(fresh(x), transform(x), atol=0, rtol=0)


def test_standardize_by_hand():
    transform = Standardize.fit(torch.tensor([[1.0, 7.0], [3.0, 7.0]]))
    # population variance 1; a constant feature is only shifted
    torch.testing.assert_close(transform(torch.tensor([[4.0, 8.0]])), torch.tensor([[2.0, 1.0]]))


def test_features_of_bending_by_hand():
    bend = BendingFeatures(ZN)
    columns = {name: ZN.features.index(name) for name in ("energy", "vx", "px", "pz", "charge")}
    conditions = torch.zeros(3, 9)
    conditions[:, columns["energy"]] = torch.tensor([2000.0, 2000, 500])
    conditions[:, columns["pz"]] = torch.tensor([2000.0, 2000, -500])
    conditions[:, columns["vx"]] = 5  # cm, along the beam: half a decimetre at the face
    conditions[:, columns["charge"]] = torch.tensor([0.0, 1, -1])
    expected = [[0.0] * 7, [0.5, 0.25, 0, 0.25, 0.5, 0.25, 0], [-2, -1, 0, 4, 2, 1, 0]]
    torch.testing.assert_close(bend(conditions), torch.tensor(expected))
