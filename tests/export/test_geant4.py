"""Geant4: images are refused, meshes of voxels in Par04's order are not."""

from dataclasses import replace

import pytest

from caloforge.detectors import ZN
from caloforge.export.geant4 import check_voxels

VOXELS = {"axes": {"r": 4, "phi": 5, "z": 6}, "channels": {}, "unit": "MeV"}


def test_voxels_in_the_order_of_par04():
    check_voxels(replace(ZN, **VOXELS), "mine")


@pytest.mark.parametrize("axes", [{"z": 6, "phi": 5, "r": 4}, {"x": 44, "y": 44}])
def test_others_are_refused(axes):
    listed = ", ".join(axes)
    with pytest.raises(
        ValueError, match=rf"needs a voxel detector, .* r, phi, z .* mine is for zn, with the axes {listed}"
    ):
        check_voxels(replace(ZN, **VOXELS | {"axes": axes}), "mine")
