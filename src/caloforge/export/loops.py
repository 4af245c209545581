"""Makes Scan nodes of the loops that `ode.loop` marked, and takes out of them what no step waits for.

A step uses its image and, besides, what follows from its time and the particle alone: an embedding, and the shifts,
scales and gates that each block makes of it. The latter are computed for all steps at once, before the loop, as one
batch of steps x B rows, so that large matrices are read once and not once a step. What comes out goes into the Scan row by
row. This needs operators that treat each row of a batch by itself; others are known by `_each_row` not to be, and
stay in the loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from caloforge._lookup import require
from caloforge.ode.loop import DOMAIN, END

_ELEMENTWISE = {
    *("Abs", "Cast", "Cos", "Erf", "Exp", "Gelu", "Identity", "Log", "Neg", "Reciprocal", "Relu", "Sigmoid", "Sign"),
    *("Sin", "Softplus", "Sqrt", "Tanh", "Add", "Clip", "Div", "Max", "Min", "Mul", "Pow", "Sub"),
}


def make_loops(model: Any) -> None:
    """Turns each pair of marks of an `onnx_ir.Model` into a Scan node."""
    for node in list(model.graph):
        if (node.domain, node.op_type) == (DOMAIN, END):
            _make_loop(model.graph, node)
    model.opset_imports.pop(DOMAIN, None)


def fix_shapes(model: Any) -> None:
    """Writes down the shapes that are known but for the batch, so that nothing computes them at run time."""
    ir = require("onnx_ir", "export")
    passes = require("onnx_ir.passes.common", "export")
    for node in list(model.graph):
        shape = node.outputs[0].shape if node.op_type == "Reshape" and node.outputs else None
        if not shape or _constant(node.inputs[1]) or not all(isinstance(size, int) for size in shape[1:]):
            continue
        sizes = ir.tensor(np.array([-1, *shape[1:]], np.int64))
        known = ir.node("Constant", [], {"value": sizes})
        model.graph.insert_before(node, known)
        node.replace_input_with(1, known.outputs[0])
    passes.RemoveUnusedNodesPass()(model)


def _make_loop(graph: Any, end: Any) -> None:
    ir = require("onnx_ir", "export")
    begin = end.inputs[1].producer()
    x, row = begin.outputs
    inside = _after(graph, [x, row], end)
    moving = set(_after(graph, [x], end))
    ahead = _Ahead(begin.inputs[1], row)
    body = [node for node in inside if node in moving or not ahead.take(node)]

    outputs = {output for node in body for output in node.outputs}
    wanted = [value for value in _inputs(body) if value in ahead or value is row]
    rows = {value: _like(ir, value) for value in dict.fromkeys(wanted)} or {row: _like(ir, row)}
    state = _like(ir, x)
    _replace(body, {x: state, **rows})
    last = end.inputs[0]
    if last not in outputs:
        body.append(ir.node("Identity", [{x: state, **rows}.get(last, last)]))
        last = body[-1].outputs[0]
    sequences = [ahead.sequence(value) for value in rows]
    graph.insert_before(end, ahead.nodes)
    graph.remove([node for node in body if node.graph is graph])
    step = ir.Graph([state, *rows.values()], [last], nodes=body, name="step")
    scan = ir.node("Scan", [begin.inputs[0], *sequences], {"body": step, "num_scan_inputs": len(rows)})
    scan.outputs[0].shape, scan.outputs[0].dtype = x.shape, x.dtype
    scan.outputs[0].name = end.outputs[0].name
    graph.insert_before(end, scan)
    end.outputs[0].replace_all_uses_with(scan.outputs[0], replace_graph_outputs=True)
    graph.remove([begin, end, *(node for node in inside if node.graph is graph)], safe=True)


def _after(graph: Any, starts: Sequence[Any], end: Any) -> list[Any]:
    """Returns the nodes that depend on any of the values and come before the end, in order."""
    known, found = set(starts), []
    for node in graph:
        if node is end:
            break
        if any(value in known for value in node.inputs):
            known |= set(node.outputs)
            found.append(node)
    return found


def _inputs(nodes: Iterable[Any]) -> list[Any]:
    return [value for node in nodes for value in node.inputs if value is not None]


def _replace(nodes: Iterable[Any], values: Mapping[Any, Any]) -> None:
    for node in nodes:
        for index, value in enumerate(node.inputs):
            if value in values:
                node.replace_input_with(index, values[value])


def _like(ir: Any, value: Any) -> Any:
    return ir.Value(name=f"{value.name}_in_loop", shape=value.shape, type=value.type)


def _constant(value: Any) -> bool:
    return value.const_value is not None


def _batched(value: Any) -> bool:
    return bool(value.shape) and not isinstance(value.shape[0], int)


class _Ahead:
    """Computes for all steps at once.

    Args:
        values: what differs from step to step, (steps, *).
        row: one of its rows, as the step sees it.

    Attributes:
        nodes: what has to be computed before the loop.
    """

    def __init__(self, values: Any, row: Any) -> None:
        self._ir = require("onnx_ir", "export")
        self._steps = int(values.shape[0])
        self._single = {row: values}  # (*,) in the step -> (steps, *)
        self._rows: dict[Any, Any] = {}  # (B, *) in the step -> (steps * B, *)
        self._tiled: dict[Any, Any] = {}
        self.nodes: list[Any] = []

    def __contains__(self, value: Any) -> bool:
        return value in self._single or value in self._rows

    def take(self, node: Any) -> bool:
        """Tries to compute a node for all steps; tells whether it could."""
        if node.op_type == "Expand":
            return self._spread(node)
        if any(value is not None and not (value in self or _constant(value) or _batched(value)) for value in node.inputs):
            return False
        if any(value in self._rows for value in node.inputs):
            return self._take_rows(node)
        return self._take_single(node)

    def sequence(self, value: Any) -> Any:
        """Returns a value of the step for all steps, (steps, *)."""
        if value in self._single:
            return self._single[value]
        return self._add("Reshape", [self._rows[value], self._integers([self._steps, -1, *value.shape[1:]])])

    def _spread(self, node: Any) -> bool:
        """A number of each step for all particles, () -> (B,)."""
        number, output = node.inputs[0], node.outputs[0]
        if number not in self._single or len(number.shape) or len(output.shape) != 1 or not _batched(output):
            return False
        column = self._add("Reshape", [self._single[number], self._integers([self._steps, 1])])
        spread = self._add("Expand", [column, node.inputs[1]])
        self._rows[output] = self._add("Reshape", [spread, self._integers([-1])])
        return True

    def _take_single(self, node: Any) -> bool:
        """A number of each step, the same for all particles."""
        if node.op_type not in _ELEMENTWISE or any(value is not None and value.shape for value in node.inputs):
            return False
        self._copy(node, [self._single.get(value, value) for value in node.inputs], self._single)
        return True

    def _take_rows(self, node: Any) -> bool:
        if not _each_row(node, [value for value in node.inputs if value in self._rows or _is_rows(value)]):
            return False
        if any(value in self._single for value in node.inputs):
            return False
        inputs = [self._tile(value) if _is_rows(value) and value not in self._rows else value for value in node.inputs]
        inputs = [self._rows.get(value, value) for value in inputs]
        if node.op_type == "Reshape":
            inputs[1] = self._integers([-1, *node.outputs[0].shape[1:]])
        self._copy(node, inputs, self._rows)
        return True

    def _tile(self, value: Any) -> Any:
        if value not in self._tiled:
            times = self._integers([self._steps, *[1] * (len(value.shape) - 1)])
            self._tiled[value] = self._add("Tile", [value, times])
        return self._tiled[value]

    def _copy(self, node: Any, inputs: Sequence[Any], into: dict[Any, Any]) -> None:
        outputs = len(node.outputs)
        copy = self._ir.node(node.op_type, inputs, node.attributes, domain=node.domain, num_outputs=outputs)
        self.nodes.append(copy)
        into.update(zip(node.outputs, copy.outputs, strict=True))

    def _add(self, operator: str, inputs: Sequence[Any]) -> Any:
        self.nodes.append(self._ir.node(operator, inputs))
        return self.nodes[-1].outputs[0]

    def _integers(self, numbers: Sequence[int]) -> Any:
        tensor = self._ir.tensor(np.array(numbers, np.int64))
        self.nodes.append(self._ir.node("Constant", [], {"value": tensor}))
        return self.nodes[-1].outputs[0]


def _is_rows(value: Any) -> bool:
    return value is not None and not _constant(value) and _batched(value)


def _each_row(node: Any, rows: Sequence[Any]) -> bool:
    """Tells whether a node treats each row of its batched inputs by itself."""
    rank = len(node.outputs[0].shape)
    first, *rest = node.inputs
    attributes = node.attributes
    if node.op_type in _ELEMENTWISE:
        return all(len(value.shape) == rank for value in rows) and all(
            value in rows or len(value.shape) < rank or value.shape[0] == 1
            for value in node.inputs
            if value is not None
        )
    if node.op_type in ("Concat", "Split"):
        axis = attributes["axis"].as_int()
        return axis % rank != 0 and all(value in rows for value in (node.inputs if node.op_type == "Concat" else [first]))
    if node.op_type in ("Squeeze", "Unsqueeze", "Slice"):
        axes = node.inputs[3 if node.op_type == "Slice" else 1] if len(node.inputs) > 1 else None
        return axes is not None and rest and first in rows and bool((axes.const_value.numpy() > 0).all())
    if node.op_type == "LayerNormalization":
        return first in rows and attributes["axis"].as_int() % rank != 0
    if node.op_type == "Gemm":
        return rows == [first] and not attributes["transA"].as_int()
    if node.op_type == "MatMul":
        return rows == [first] and len(node.inputs[1].shape) == 2
    if node.op_type == "Reshape":
        return first in rows and all(isinstance(size, int) for size in node.outputs[0].shape[1:])
    return False
