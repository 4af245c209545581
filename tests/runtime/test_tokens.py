import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from caloforge.detectors import ZN
from caloforge.runtime import Surrogate
from caloforge.runtime.bundle import write_card
from caloforge.runtime.tokens import GIVEN, RESPONSE, STEP, TokenSession
from made import made_events
from made_bundle import made_card

FIRST, LENGTH = 2, 5
PLACES = FIRST + LENGTH - 1


def value(name, kind, *shape):
    return helper.make_tensor_value_info(name, kind, ["batch", *shape])


def saved(path, nodes, inputs, outputs, **constants):
    held = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "made", inputs, outputs, held)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


def made_graphs(folder, places=PLACES):
    """The next token is the sum of what was kept before; a place keeps token and noise; a cell is the sum."""
    node = helper.make_node
    folder.mkdir(exist_ok=True)
    saved(
        folder / GIVEN,
        [node("Gather", ["conditions", "two"], ["e"], axis=1), node("Cast", ["e"], ["tokens"], to=7)],
        [value("conditions", TensorProto.FLOAT, 9)],
        [value("tokens", TensorProto.INT64, FIRST)],
        two=np.array([0, 7]),
    )
    saved(
        folder / STEP,
        [
            node("ReduceSum", ["key0", "axes"], ["tokens_before"], keepdims=0),
            node("ReduceSum", ["value0", "axes"], ["noise_before"], keepdims=0),
            node("Add", ["tokens_before", "noise_before"], ["sum"]),
            node("Cast", ["sum"], ["next"], to=TensorProto.INT64),
            node("Cast", ["tokens"], ["token"], to=TensorProto.FLOAT),
            node("Reshape", ["token", "shape"], ["made_key0"]),
            node("Reshape", ["noise", "shape"], ["made_value0"]),
        ],
        [
            *(value(name, TensorProto.INT64) for name in ("tokens", "place")),
            value("noise", TensorProto.FLOAT),
            value("key0", TensorProto.FLOAT, 1, 1, places),
            value("value0", TensorProto.FLOAT, 1, places, 1),
        ],
        [
            value("next", TensorProto.INT64),
            *(value(f"made_{name}0", TensorProto.FLOAT, 1, 1, 1) for name in ("key", "value")),
        ],
        axes=np.array([1, 2, 3]),
        shape=np.array([-1, 1, 1, 1]),
    )
    saved(
        folder / RESPONSE,
        [
            node("ReduceSum", ["tokens", "axis"], ["sum"], keepdims=1),
            node("Expand", ["sum", "cells"], ["flat"]),
            node("Reshape", ["flat", "shape"], ["image"]),
            node("Cast", ["image"], ["responses"], to=TensorProto.INT32),
        ],
        [value("tokens", TensorProto.INT64, LENGTH), value("noise", TensorProto.FLOAT)],
        [value("responses", TensorProto.INT32, *ZN.shape)],
        axis=np.array([1]),
        cells=np.array([1, ZN.cells]),
        shape=np.array([-1, *ZN.shape]),
    )
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return made_graphs(tmp_path_factory.mktemp("tokens"))


def test_every_step_sees_what_came_before(folder):
    session = TokenSession(folder)
    assert (session.features, session.noise_dim, session.shape) == (9, LENGTH + 1, (44, 44))
    conditions = np.arange(18, dtype=np.float32).reshape(2, 9)
    noise = np.arange(12, dtype=np.float32).reshape(2, 6)
    wanted = np.zeros((2, PLACES + 1), np.int64)
    wanted[:, :FIRST] = conditions[:, [0, 7]]
    normals = np.concatenate([np.zeros((2, FIRST - 1)), noise[:, :LENGTH]], 1).astype(int)
    for place in range(FIRST - 1, PLACES):  # the noise of a place is that of the token after it
        wanted[:, place + 1] = (wanted[:, :place] + normals[:, :place]).sum(1)
    np.testing.assert_array_equal(session.tokens(conditions, noise), wanted[:, FIRST:])
    responses = session(conditions, noise)
    assert responses.dtype == np.int32
    np.testing.assert_array_equal(responses[:, 3, 4], wanted[:, FIRST:].sum(1))


def test_no_events(folder):
    none = TokenSession(folder)(np.empty((0, 9), np.float32), np.empty((0, LENGTH + 1), np.float32))
    assert none.shape == (0, 44, 44)


def test_a_bundle_of_tokens_generates(tmp_path):
    folder = made_graphs(tmp_path / "bundle")
    write_card(folder, {**made_card(), "noise_dim": LENGTH + 1})
    events = Surrogate.load(folder).sample(made_events(particles=3, repeats=1).primaries, on_outside="flag")
    assert events.responses.shape == (3, 44, 44)
    (folder / STEP).write_bytes(b"")
    with pytest.raises(ValueError, match=r"damaged: step.onnx"):
        Surrogate.load(folder)


def test_graphs_that_do_not_fit_together(tmp_path):
    with pytest.raises(ValueError, match=r"2 and 5 tokens have 6 places, step.onnx has 7"):
        TokenSession(made_graphs(tmp_path / "x", places=7))
