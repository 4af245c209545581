"""What is exported loads in old versions of ONNX Runtime: operators and types are checked against a table."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from caloforge.export.kernels import KERNELS, check_kernels
from caloforge.export.onnx import lower


def made(*nodes, kind=TensorProto.DOUBLE, inner=False):
    values = [helper.make_tensor_value_info(name, kind, ["batch", 4]) for name in ("x", "y")]
    graph = helper.make_graph(list(nodes), "made", values[:1], values[1:])
    if inner:
        condition = helper.make_tensor("true", TensorProto.BOOL, [], [True])
        branch = helper.make_graph(list(nodes), "inner", [], values[1:])
        choice = helper.make_node("If", ["true"], ["y"], then_branch=branch, else_branch=branch)
        graph = helper.make_graph([choice], "made", values[:1], values[1:], [condition])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.mark.parametrize("inner", [False, True])
def test_what_old_versions_lack_is_named(inner):
    celu = made(helper.make_node("Celu", ["x"], ["y"], name="odd"), kind=TensorProto.FLOAT, inner=inner)
    with pytest.raises(
        ValueError, match="the node odd of the graph is a Celu, which is not among the operators"
    ):
        check_kernels(celu)
    cosine = made(helper.make_node("Cos", ["x"], ["y"], name="odd"), inner=inner)
    with pytest.raises(ValueError, match="the node odd of the graph, a Cos, takes double"):
        check_kernels(cosine)
    check_kernels(
        made(helper.make_node("Cos", ["x"], ["y"], name="even"), kind=TensorProto.FLOAT, inner=inner)
    )


@pytest.mark.parametrize("inner", [False, True])
def test_the_cosine_of_float64_becomes_a_sine(inner):
    proto = made(helper.make_node("Cos", ["x"], ["y"]), inner=inner)
    lower(proto)
    check_kernels(proto)
    onnx.checker.check_model(proto, full_check=True)
    assert (proto.ir_version, proto.opset_import[0].version) == (8, 18)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.linspace(-1e4, 1e4, 400).reshape(100, 4)
    np.testing.assert_allclose(session.run(None, {"x": x})[0], np.cos(x), atol=3e-12)


def test_a_norm_without_a_shift_gets_one_of_zero():
    scale = onnx.numpy_helper.from_array(np.full(4, 2, np.float32), "scale")
    proto = made(helper.make_node("LayerNormalization", ["x", "scale"], ["y"]), kind=TensorProto.FLOAT)
    proto.graph.initializer.append(scale)
    x = {"x": np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)}
    before, after = (
        onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"]).run(
            None, x
        )[0]
        for proto in (proto, lowered(proto))
    )
    np.testing.assert_array_equal(before, after)
    assert [len(node.input) for node in lowered(proto).graph.node] == [3]


def lowered(proto):
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    lower(copy)
    return copy


def test_the_table_knows_operators_of_the_format_alone():
    known = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}
    assert set(KERNELS) <= known
