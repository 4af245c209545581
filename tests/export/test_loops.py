"""Loops made of marks, on graphs written by hand: every step against NumPy, and what is taken out of the loop."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from caloforge.export.loops import fix_shapes, make_loops

STEPS, WIDTH = 3, 4
TIMES = np.array([0.0, 0.25, 1.0], np.float32)
RNG = np.random.default_rng(0)
WEIGHTS = {
    "first": RNG.normal(size=(WIDTH, 2 * WIDTH)).astype(np.float32),
    "bias": RNG.normal(size=2 * WIDTH).astype(np.float32),
}


def looped(body, *, shapes, times=TIMES):
    """A graph of x and condition, (B, 4), that adds the body's `y` to x in each step.

    Args:
        body: nodes as tuples of operator, inputs, outputs and attributes; `t` is the step's time, or row of `times`.
        shapes: of the values the body makes, "B" for the batch.
    """
    axis = numpy_helper.from_array(np.array([1]), "axis")
    constants = [numpy_helper.from_array(value, name) for name, value in WEIGHTS.items()]
    constants += [axis, numpy_helper.from_array(times, "times")]
    constants += [numpy_helper.from_array(np.array(0.5, np.float32), "half")]
    constants += [
        numpy_helper.from_array(np.array(index), name) for index, name in enumerate(("none", "one"))
    ]
    nodes = [
        helper.make_node("Shape", ["x"], ["batch"], start=0, end=1),
        helper.make_node("LoopBegin", ["x", "times"], ["state", "t"], domain="caloforge"),
        *(helper.make_node(name, given, made, **rest) for name, given, made, rest in body),
        helper.make_node("Add", ["state", "y"], ["next"]),
        helper.make_node("LoopEnd", ["next", "t"], ["responses"], domain="caloforge"),
    ]
    shapes = {"t": times.shape[1:], "state": ("B", WIDTH), "y": ("B", WIDTH), "next": ("B", WIDTH), **shapes}
    kind = onnx.TensorProto.FLOAT

    def value(name, shape):
        return helper.make_tensor_value_info(name, kind, shape)

    graph = helper.make_graph(
        nodes,
        "looped",
        [value(name, ("B", WIDTH)) for name in ("x", "condition")],
        [value("responses", ("B", WIDTH))],
        constants,
        value_info=[
            *(value(name, shape) for name, shape in shapes.items()),
            helper.make_tensor_value_info("batch", onnx.TensorProto.INT64, (1,)),
        ],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("caloforge", 1)]
    model = ir.from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=9))
    make_loops(model)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto)
    return proto


def operators(proto):
    """Names of the operators before and after the loop, and within."""
    (scan,) = [node for node in proto.graph.node if node.op_type == "Scan"]
    (body,) = [attribute.g for attribute in scan.attribute if attribute.name == "body"]
    return [node.op_type for node in proto.graph.node], [node.op_type for node in body.node]


def run(proto, x, condition):
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x, "condition": condition})[0]


def inputs(batch):
    rng = np.random.default_rng(1)
    return (rng.normal(size=(batch, WIDTH)).astype(np.float32) for _ in range(2))


SPREAD = [
    ("Expand", ["t", "batch"], ["times_of"], {}),
    ("Unsqueeze", ["times_of", "axis"], ["column"], {}),
]
SHAPES = {"times_of": ("B",), "column": ("B", 1), "embedding": ("B", WIDTH)}


@pytest.mark.parametrize("batch", [1, 5])
def test_what_follows_from_time_and_particle_is_computed_before_the_loop(batch):
    body = [
        *SPREAD,
        ("Mul", ["condition", "column"], ["scaled"], {}),
        ("Sin", ["scaled"], ["embedding"], {}),
        ("Gemm", ["embedding", "first", "bias"], ["both"], {"transA": 0}),
        ("Split", ["both"], ["shift", "gate"], {"axis": 1, "num_outputs": 2}),
        ("Mul", ["state", "gate"], ["gated"], {}),
        ("Add", ["gated", "shift"], ["y"], {}),
    ]
    made = {"scaled": ("B", WIDTH), "both": ("B", 2 * WIDTH)}
    made |= dict.fromkeys(("shift", "gate", "gated"), ("B", WIDTH))
    proto = looped(body, shapes={**SHAPES, **made})
    outside, inside = operators(proto)
    assert inside == ["Mul", "Add", "Add"]
    assert outside.count("Gemm") == outside.count("Scan") == 1
    x, condition = inputs(batch)
    wanted = x
    for t in TIMES:
        both = np.sin(condition * t) @ WEIGHTS["first"] + WEIGHTS["bias"]
        wanted = wanted + wanted * both[:, WIDTH:] + both[:, :WIDTH]
    np.testing.assert_allclose(run(proto, x, condition), wanted, rtol=1e-5, atol=1e-5)


def test_what_mixes_the_rows_of_a_batch_stays_in_the_loop():
    body = [
        *SPREAD,
        ("Mul", ["condition", "column"], ["embedding"], {}),
        ("ReduceMean", ["embedding"], ["mean"], {"keepdims": 1}),
        ("Sub", ["embedding", "mean"], ["centred"], {}),
        ("Mul", ["state", "centred"], ["y"], {}),
    ]
    proto = looped(body, shapes={**SHAPES, "mean": (1, 1), "centred": ("B", WIDTH)})
    assert operators(proto)[1] == ["ReduceMean", "Sub", "Mul", "Add"]
    x, condition = inputs(5)
    wanted = x
    for t in TIMES:
        wanted = wanted + wanted * (condition * t - (condition * t).mean())
    np.testing.assert_allclose(run(proto, x, condition), wanted, rtol=1e-5, atol=1e-6)


def test_what_follows_from_something_left_in_the_loop_stays_too():
    body = [
        *SPREAD,
        ("Transpose", ["column"], ["row"], {"perm": [1, 0]}),
        ("Transpose", ["row"], ["again"], {"perm": [1, 0]}),
        ("Mul", ["condition", "again"], ["embedding"], {}),
        ("Mul", ["state", "embedding"], ["y"], {}),
    ]
    proto = looped(body, shapes={**SHAPES, "row": (1, "B"), "again": ("B", 1)})
    assert operators(proto)[1] == ["Transpose", "Transpose", "Mul", "Mul", "Add"]
    x, condition = inputs(3)
    wanted = x
    for t in TIMES:
        wanted = wanted + wanted * condition * t
    np.testing.assert_allclose(run(proto, x, condition), wanted, rtol=1e-5)


def test_numbers_of_a_step():
    body = [
        ("Add", ["t", "half"], ["later"], {}),
        ("Mul", ["state", "later"], ["scaled"], {}),
        ("Mul", ["scaled", "t"], ["y"], {}),
    ]
    proto = looped(body, shapes={"later": (), "scaled": ("B", WIDTH)})
    assert operators(proto)[1] == ["Mul", "Mul", "Add"]
    x, condition = inputs(2)
    wanted = x
    for t in TIMES:
        wanted = wanted + wanted * (t + 0.5) * t
    np.testing.assert_allclose(run(proto, x, condition), wanted, rtol=1e-5)


def test_steps_of_different_lengths():
    each = np.array([[0.0, 0.5], [0.5, 0.3], [0.8, 0.2]], np.float32)
    body = [
        ("Gather", ["t", "none"], ["now"], {"axis": 0}),
        ("Gather", ["t", "one"], ["length"], {"axis": 0}),
        ("Expand", ["now", "batch"], ["times_of"], {}),
        ("Unsqueeze", ["times_of", "axis"], ["column"], {}),
        ("Mul", ["condition", "column"], ["embedding"], {}),
        ("Sub", ["embedding", "state"], ["velocity"], {}),
        ("Mul", ["velocity", "length"], ["y"], {}),
    ]
    proto = looped(body, shapes={**SHAPES, "now": (), "length": (), "velocity": ("B", WIDTH)}, times=each)
    assert operators(proto)[1] == ["Sub", "Mul", "Add"]
    x, condition = inputs(3)
    wanted = x
    for now, length in each:
        wanted = wanted + length * (condition * now - wanted)
    np.testing.assert_allclose(run(proto, x, condition), wanted, rtol=1e-5, atol=1e-6)


def test_a_step_that_needs_no_time():
    proto = looped([("Mul", ["state", "condition"], ["y"], {})], shapes={})
    x, condition = inputs(2)
    np.testing.assert_allclose(run(proto, x, condition), x * (1 + condition) ** STEPS, rtol=1e-4)


def test_shapes_known_but_for_the_batch():
    text = """<ir_version: 9, opset_import: ["": 20]>
    g (float[B,4] x) => (float[B,2,2] y) <int64[2] tail = {2, 2}, float[B,2,2] y> {
        batch = Shape <start = 0, end = 1> (x)
        sizes = Concat <axis = 0> (batch, tail)
        y = Reshape (x, sizes)
    }"""
    model = ir.from_onnx_text(text)
    fix_shapes(model)
    assert [node.op_type for node in model.graph] == ["Reshape"]
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], x.reshape(3, 2, 2))
