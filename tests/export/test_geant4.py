"""Geant4: images are refused, meshes of voxels get the graph that Par04 reads."""

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest

from caloforge.detectors import DS2, DS3, ZN, Layer
from caloforge.export.geant4 import check_voxels, mesh, par04_graph, permutation
from made_bundle import NOISE, made_graph
from made_showers import TINY, made_showers

VOXELS = {"axes": {"r": 4, "phi": 5, "z": 6}, "channels": {}, "unit": "MeV"}


@pytest.mark.parametrize(
    "axes", [{"r": 4, "phi": 5, "z": 6}, {"z": 6, "phi": 5, "r": 4}, {"layer": 6, "angle": 5, "radius": 4}]
)
def test_meshes_of_voxels_in_any_order(axes):
    detector = replace(ZN, **VOXELS | {"axes": axes})
    check_voxels(detector, "mine")
    assert mesh(detector, 7)["shape"] == [4, 5, 6]
    assert [detector.shape[axis] for axis in permutation(detector)] == [4, 5, 6]


@pytest.mark.parametrize("detector", [DS2, DS3])
def test_layouts_of_the_challenge(detector):
    check_voxels(detector, "mine")
    assert permutation(detector) == [2, 1, 0]


@pytest.mark.parametrize(
    "axes", [{"x": 44, "y": 44}, {"z": 6, "phi": 5, "x": 4}, {"z": 6, "layer": 5, "r": 4}]
)
def test_others_are_refused(axes):
    listed = ", ".join(axes)
    with pytest.raises(
        ValueError, match=rf"needs a voxel detector, .* mine is for zn, with the axes {listed}"
    ):
        check_voxels(replace(ZN, **VOXELS | {"axes": axes}), "mine")


def test_layers_of_several_kinds_are_refused():
    layers = (*TINY.layers[:-1], Layer(8, (0.0, 1.0, 10.0, 15.0), 8))
    with pytest.raises(ValueError, match="needs layers alike"):
        check_voxels(replace(TINY, layers=layers), "mine")


def test_the_graph_has_one_input_and_the_cells_in_par04_s_order(tmp_path):
    graph = made_graph(TINY)
    changed = par04_graph(graph, TINY, NOISE)
    onnx.checker.check_model(changed, full_check=True)
    onnx.save(graph, tmp_path / "a.onnx")
    onnx.save(changed, tmp_path / "b.onnx")
    first, second = (onnxruntime.InferenceSession(tmp_path / name) for name in ("a.onnx", "b.onnx"))
    conditions = made_showers(TINY, 3).conditions
    noise = np.random.default_rng(0).standard_normal((3, NOISE)).astype(np.float32)
    (wanted,) = first.run(None, {"conditions": conditions, "noise": noise})
    (got,) = second.run(None, {"input": np.concatenate([noise, conditions], 1)})
    assert wanted.any()
    for layer, angle, radius in ((0, 0, 0), (1, 2, 0), (8, 7, 2), (3, 5, 1)):
        cell = (radius * 8 + angle) * 9 + layer  # Par04's: r, phi, z
        np.testing.assert_array_equal(got[:, cell], wanted[:, layer, angle, radius])
