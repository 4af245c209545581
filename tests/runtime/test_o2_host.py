"""The emulation of O2's side: its files, its order of cells, its two ways of summing channels."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from caloforge.detectors import ZN, ZP
from caloforge.events import Primaries
from caloforge.runtime.o2_host import (
    Model,
    channels_of,
    counts_of,
    debug_channels,
    features_of,
    parse_scales,
    separate_noise,
    shared_noise,
    smeared,
)
from made import made_events

SCALES = "#means\n" + "\n".join(map(str, range(9))) + "\n\n#scales\n" + "\n".join(["2.0"] * 9) + "\n"


def test_scales_are_read_block_by_block():
    mean, scale = parse_scales(SCALES)
    np.testing.assert_array_equal(mean, np.arange(9))
    np.testing.assert_array_equal(scale, np.full(9, 2))
    with pytest.raises(ValueError, match="no line #scales"):
        parse_scales(SCALES.replace("#scales", "#scale"))
    with pytest.raises(ValueError, match="9 lines with one number each must follow #means"):
        parse_scales(SCALES.replace("8\n", "", 1))


def test_features_have_the_units_of_o2():
    primaries = made_events().primaries
    features = features_of(primaries)
    np.testing.assert_array_equal(features[:, :7], primaries.conditions[:, :7])
    np.testing.assert_allclose(features[:, 7], primaries.feature("mass") * 1000, rtol=1e-6)
    np.testing.assert_array_equal(features[:, 8], primaries.feature("charge") * 3)
    assert features.dtype == np.float32


@pytest.mark.parametrize("detector", [ZN, ZP], ids=lambda d: d.name)
def test_the_flat_output_is_read_y_by_y(detector):
    width, height = detector.shape
    image = np.random.default_rng(0).integers(0, 3000, detector.shape)
    flat = np.log1p(image + 0.01 * (image > 0)).T.astype(np.float32).ravel()
    for x, y in [(0, 0), (1, 0), (0, 1), (width - 1, height - 1), (17, 9)]:
        assert int(np.expm1(flat[width * y + x])) == image[x, y]
    np.testing.assert_array_equal(counts_of(flat, detector), image)


@pytest.mark.parametrize("detector", [ZN, ZP], ids=lambda d: d.name)
def test_its_channels_are_those_of_the_map_o2(detector):
    images = np.random.default_rng(0).poisson(0.5, (20, *detector.shape))
    wanted = detector.readout(images, "o2")
    np.testing.assert_array_equal([channels_of(image) for image in images], wanted)


def test_the_debug_channels_are_the_papers_of_the_transposed_image():
    image = np.random.default_rng(0).poisson(2.0, (44, 44))
    exact = np.log1p(image).T.astype(np.float32).ravel()
    # what it calls i is y
    np.testing.assert_array_equal(debug_channels(exact), ZN.readout(image.T[None], "paper")[0])
    # without truncation a margin adds up
    margin = np.log1p(image + 0.01 * (image > 0)).T.astype(np.float32).ravel()
    added = 0.01 * ZN.readout((image > 0).T[None], "paper")[0]
    difference = debug_channels(margin) - ZN.readout(image.T[None], "paper")[0]
    np.testing.assert_allclose(difference, added, atol=0.51)
    assert difference[4] > 0


def made_model(folder, outputs):
    """A model of two inputs, (batch, 10) and (batch, 9), that returns the second."""
    graph = helper.make_graph(
        [helper.make_node("Identity", ["b"], ["y"])],
        "made",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", k]) for n, k in (("a", 10), ("b", 9))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 9])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, folder / "made.onnx")
    (folder / "made_scales.txt").write_text(SCALES)
    return Model(folder / "made.onnx", folder / "made_scales.txt")


def test_inputs_go_by_position_with_dynamic_dimensions_set_to_one(tmp_path):
    model = made_model(tmp_path, 9)
    assert model.shapes == [(1, 10), (1, 9)]
    features = np.arange(9, dtype=np.float32) + 4
    scaled = model.scaled(features)
    np.testing.assert_array_equal(scaled, np.full(9, 2, np.float32))
    np.testing.assert_array_equal(model(np.zeros(10, np.float32), scaled), scaled)
    with pytest.raises(ValueError, match="takes inputs of shape"):
        model(scaled, np.zeros(10, np.float32))
    with pytest.raises(ValueError, match="takes inputs of shape"):
        model(scaled)


def test_noise_is_shared_or_not():
    shared, separate = shared_noise(1), separate_noise(1)
    np.testing.assert_array_equal(shared(3, "zn"), shared(3, "zp"))
    assert (separate(3, "zn") != separate(3, "zp")).all()
    assert (shared(3, "zn") != shared(4, "zn")).all()


def test_vertices_are_smeared_together_within_a_collision_and_directions_stay():
    conditions = np.tile(np.array([[1000, 0, 0, 0, 0.1, 0, 999, 0.9396, 0]], np.float32), (400, 1))
    primaries = Primaries(ZN, conditions, np.full(400, 2112))
    moved = smeared(primaries, (0.01, 0.01, 6.0), seed=1, event=np.repeat(np.arange(200), 2))
    np.testing.assert_array_equal(moved.conditions[::2], moved.conditions[1::2])
    np.testing.assert_array_equal(moved.conditions[:, 4:], conditions[:, 4:])
    np.testing.assert_allclose(moved.conditions[::2, 1:4].std(0), [0.01, 0.01, 6], rtol=0.2)
    assert len(np.unique(smeared(primaries, (0.01, 0.01, 6.0), seed=1).feature("vz"))) == 400
