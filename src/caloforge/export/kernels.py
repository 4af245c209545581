"""Operators and types that the oldest ONNX Runtime runs: a graph of others is refused before it is shipped.

A host loads graphs with the ONNX Runtime that it was built with: ALICE with 1.22, others with older ones. Each entry
was run in 1.15 and in every version of `tools/runtime_matrix.py`; 1.14 reads the same operators and file format. An
operator that is missing here may well be fine: run it in these versions, then add it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from caloforge._lookup import require

LOWEST = "1.14"
"""The oldest ONNX Runtime that reads what is exported."""

_FLOAT, _REAL = frozenset({"float"}), frozenset({"float", "double"})
_NUMBER = _REAL | {"int64"}
_ANY = _NUMBER | {"bool", "int32", "uint64"}


def _all(names: str, types: frozenset[str]) -> dict[str, frozenset[str]]:
    return dict.fromkeys(names.split(), types)


KERNELS: Mapping[str, frozenset[str]] = {
    **_all("Clip Div Exp Floor Gemm LayerNormalization Log LogSoftmax MatMul Pow Reciprocal Relu", _REAL),
    **_all("Sigmoid Sign Sin Softmax Sqrt Tanh", _REAL),
    **_all("Abs Add CumSum Equal Greater GreaterOrEqual Less LessOrEqual Max Min Mul Neg Sub", _NUMBER),
    **_all("ReduceL2 ReduceMax ReduceMean ReduceMin ReduceSum", _NUMBER),
    **_all("Cast Concat ConstantOfShape Expand Gather GatherElements GatherND Identity If Pad Reshape", _ANY),
    **_all("Scan ScatterND Shape Slice Split Squeeze Tile Transpose Unsqueeze Where", _ANY),
    **_all(
        "Asinh Conv ConvTranspose Cos DepthToSpace Elu Erf InstanceNormalization LeakyRelu Softplus", _FLOAT
    ),
    **_all("And Not Or", frozenset({"bool"})),
    **_all("BitShift BitwiseAnd BitwiseOr BitwiseXor", frozenset({"uint64"})),
    **_all("ArgMax ArgMin Resize TopK", frozenset({"float", "int64"})),
    "Mod": frozenset({"int64"}),
}
"""For each operator the types of tensors that its kernels take in the oldest version."""


def check_kernels(proto: Any) -> None:
    """Raises ValueError where a graph holds an operator, or a type of it, that the oldest ONNX Runtime may not run.

    Args:
        proto: an `onnx.ModelProto` whose shapes can be inferred.
    """
    onnx = require("onnx", "export")
    _check(onnx.shape_inference.infer_shapes(proto, strict_mode=True).graph, {}, onnx.TensorProto.DataType)


def _check(graph: Any, outer: Mapping[str, str], names: Any) -> None:
    types = dict(outer)
    for value in (*graph.value_info, *graph.input, *graph.output):
        types[value.name] = names.Name(value.type.tensor_type.elem_type).lower()
    for value in graph.initializer:
        types[value.name] = names.Name(value.data_type).lower()
    for node in graph.node:
        allowed = KERNELS.get(node.op_type)
        used = {types[name] for name in node.input if name in types}
        if node.domain or allowed is None:
            raise ValueError(
                f"the node {node.name} of the graph is a {node.op_type}, which is not among the operators that ONNX "
                f"Runtime {LOWEST} is known to run (caloforge.export.kernels)"
            )
        # sizes, axes and indices are int64 beside what is computed, and conditions bool
        foreign = used - allowed - {"int64", "bool"}
        if foreign or not (used & allowed or not used):
            raise ValueError(
                f"the node {node.name} of the graph, a {node.op_type}, takes {', '.join(sorted(used))}; ONNX Runtime "
                f"{LOWEST} is known to run it with {', '.join(sorted(allowed))} (caloforge.export.kernels)"
            )
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _check(attribute.g, types, names)
