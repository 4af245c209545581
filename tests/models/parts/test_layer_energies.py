import numpy as np
import torch

from caloforge.models.parts.layer_energies import directions_of, energy_of


def test_without_angles_conditions_are_the_energy_alone():
    conditions = torch.tensor([[1e3], [2e3]])
    assert energy_of(conditions) is conditions
    assert directions_of(conditions) == []
    angles = torch.tensor([[1e3, 0.1, 0.5]])
    across = torch.cat(directions_of(angles), 1) * 0.1
    torch.testing.assert_close(
        across, torch.sin(angles[:, 1:2]) * torch.tensor([[np.cos(0.5), np.sin(0.5)]]).float()
    )
