import numpy as np
import pytest
import torch

from caloforge.detectors import ZN
from caloforge.models.parts.particle_features import BendingFeatures, ImpactFeatures


def test_the_derived_features_are_those_worked_by_hand():
    derive = ImpactFeatures(ZN)
    # backwards, from vz = 60 cm: 11,320 cm to the face at -11,260 cm; 1e-4 rad in x make 1.132 cm
    neutron = [1000.0, 0.5, 0.0, 60.0, 0.1, 0.0, -1000.0, 0.9396, 0.0]
    columns = derive(torch.tensor([neutron, [*neutron[:8], 1.0]], dtype=torch.float64)).numpy()
    assert columns.shape == (2, 9 + 17)
    assert np.allclose(columns[0, :9], neutron)
    x = 0.5 + 1.132
    a = np.pi * x / 0.16
    assert columns[0, 9:] == pytest.approx(
        [
            *(x, 0, np.arcsinh(x / 0.1), 0, np.log(1000), np.arcsinh(6000)),
            *(0, np.sin(a), 0, np.cos(a), np.sin(2 * a), np.cos(2 * a), 0, 1),
            *(np.cos(2 * a), np.cos(4 * a), 1),
        ],
        abs=1e-6,
    )
    assert np.allclose(columns[1, 9:15], columns[0, 9:15])
    assert (columns[1, 15:] == 0).all()


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
