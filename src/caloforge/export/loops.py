"""Makes Scan nodes of the loops that `ode.loop` marked, and takes out of them what no step waits for.

Besides its image a step uses what follows from its time and the particle alone: an embedding, and the shifts, scales
and gates that each block makes of it. These are computed for all steps at once, before the loop, as one batch of
steps x B rows, so that large matrices are read once and not once a step; the Scan node then takes B rows a step. It
needs operators that treat each row of a batch by itself (`_each_row`); what follows from others stays in the loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from caloforge._lookup import require
from caloforge.ode.loop import DOMAIN, END

_ONE = {
    "Abs",
    "Cast",
    "Cos",
    "Erf",
    "Exp",
    "Gelu",
    "Identity",
    "Log",
    "Neg",
    "Relu",
    "Sigmoid",
    "Sign",
    "Sin",
}
_MORE = {"Add", "Clip", "Div", "Max", "Min", "Mul", "Pow", "Reciprocal", "Softplus", "Sqrt", "Sub", "Tanh"}
_ELEMENTWISE = _ONE | _MORE


def make_loops(model: Any) -> None:
    """Turns each pair of marks of an `onnx_ir.Model` into a Scan node, pairs within pairs first."""
    for node in list(model.graph):
        if (node.domain, node.op_type) == (DOMAIN, END):
            _make_loop(model.graph, node)
    model.opset_imports.pop(DOMAIN, None)


def fix_shapes(model: Any) -> None:
    """Writes down the shapes that are known but for the batch, so that nothing computes them at run time."""
    passes = require("onnx_ir.passes.common", "export")
    for node in list(model.graph):
        if node.op_type != "Reshape" or _constant(node.inputs[1]):
            continue
        shape = node.outputs[0].shape
        if shape is not None and all(isinstance(size, int) for size in shape[1:]):
            node.replace_input_with(1, _sizes(model.graph, [-1, *shape[1:]]))
    passes.RemoveUnusedNodesPass()(model)


def _sizes(graph: Any, numbers: Sequence[int]) -> Any:
    """Returns the constant of these numbers."""
    ir = require("onnx_ir", "export")
    name = "_".join(["sizes", *map(str, numbers)])
    if name not in graph.initializers:
        graph.register_initializer(
            ir.val(name, const_value=ir.tensor(np.array(numbers, np.int64), name=name))
        )
    return graph.initializers[name]


def _make_loop(graph: Any, end: Any) -> None:
    ir = require("onnx_ir", "export")
    begin = end.inputs[1].producer()
    x, row = begin.outputs
    inside = _after(graph, [x, row], end)
    moving = set(_after(graph, [x], end))
    ahead = _Ahead(graph, begin.inputs[1], row)
    body = [node for node in inside if node in moving or not ahead.take(node)]

    last = end.inputs[0]
    captured = dict.fromkeys(value for value in (*_inputs(body), last) if value in ahead)
    rows = {value: _like(ir, value) for value in captured or [row]}
    state = _like(ir, x)
    _replace(body, {x: state, **rows})
    if last not in {output for node in body for output in node.outputs}:
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
    known, nodes = set(starts), []
    for node in graph:
        if node is end:
            break
        if any(value in known for value in _inputs([node])):
            known |= set(node.outputs)
            nodes.append(node)
    return nodes


def _inside(node: Any) -> list[Any]:
    """Returns the nodes of the graphs within a node: a loop that has been made before."""
    return [
        graph
        for attribute in node.attributes.values()
        if attribute.type.name == "GRAPH"
        for graph in attribute.value
    ]


def _inputs(nodes: Iterable[Any]) -> list[Any]:
    """Returns what nodes take, and what loops among them take from without."""
    values = []
    for node in nodes:
        values += [value for value in node.inputs if value is not None]
        inner = _inside(node)
        inner_outputs = {output for node_inside in inner for output in node_inside.outputs}
        own = {value for node_inside in inner[:1] for value in node_inside.graph.inputs}
        values += [value for value in _inputs(inner) if value not in inner_outputs and value not in own]
    return values


def _replace(nodes: Iterable[Any], values: Mapping[Any, Any]) -> None:
    for node in nodes:
        _replace(_inside(node), values)
        for index, value in enumerate(node.inputs):
            if value in values:
                node.replace_input_with(index, values[value])


def _like(ir: Any, value: Any) -> Any:
    return ir.Value(name=f"{value.name}_in_loop", shape=value.shape, type=value.type)


def _constant(value: Any) -> bool:
    return value.const_value is not None


def _batched(value: Any) -> bool:
    """Tells whether a value has one row, or several, for each particle: its first size is not known."""
    return not _constant(value) and len(value.shape) > 0 and not isinstance(value.shape[0], int)


class _Ahead:
    """Computes for all steps at once.

    Args:
        graph: the graph of the loop.
        values: what differs from step to step, (steps, *).
        row: one of its rows, as the step sees it.

    Attributes:
        nodes: what has to be computed before the loop.
    """

    def __init__(self, graph: Any, values: Any, row: Any) -> None:
        self._graph, self._ir = graph, require("onnx_ir", "export")
        self._steps = int(values.shape[0])
        self._single = {row: values}  # (*,) in the step -> (steps, *)
        self._rows: dict[Any, Any] = {}  # (B, *) in the step -> (steps * B, *)
        self._tiled: dict[Any, Any] = {}
        self._left: set[Any] = set()  # of the step, and not computed ahead
        self.nodes: list[Any] = []

    def __contains__(self, value: Any) -> bool:
        return value in self._single or value in self._rows

    def take(self, node: Any) -> bool:
        """Tries to compute a node for all steps; tells whether it could."""
        taken = not self._left & set(node.inputs) and self._taken(node)
        if not taken:
            self._left |= set(node.outputs)
        return taken

    def _taken(self, node: Any) -> bool:
        values = _inputs([node])
        if any(value.shape is None for value in (*values, *node.outputs)):
            return False
        if node.op_type == "Expand":
            return self._spread(node)
        if not all(value in self or _constant(value) or _batched(value) for value in values):
            return False
        if all(value in self._single or _constant(value) for value in values):
            return self._take_single(node)
        return self._take_rows(node)

    def sequence(self, value: Any) -> Any:
        """Returns a value of the step for all steps, (steps, *)."""
        if value in self._single:
            return self._single[value]
        return self._add("Reshape", [self._rows[value], self._sizes([self._steps, -1, *value.shape[1:]])])

    def _spread(self, node: Any) -> bool:
        """A number of each step for all particles, () -> (B,)."""
        number, output = node.inputs[0], node.outputs[0]
        if number not in self._single or len(number.shape) or len(output.shape) != 1 or not _batched(output):
            return False
        column = self._add("Reshape", [self._single[number], self._sizes([self._steps, 1])])
        spread = self._add("Expand", [column, node.inputs[1]])
        self._rows[output] = self._add("Reshape", [spread, self._sizes([-1])])
        return True

    def _take_single(self, node: Any) -> bool:
        """A number of each step, the same for all particles: one of the row's, or computed from such."""
        first, *others = node.inputs
        if node.op_type == "Gather" and first in self._single and _constant(others[0]):
            if len(first.shape) != 1 or len(others[0].shape):
                return False
            self.nodes.append(self._ir.node("Gather", [self._single[first], others[0]], {"axis": 1}))
            self._single[node.outputs[0]] = self.nodes[-1].outputs[0]
            return True
        if node.op_type not in _ELEMENTWISE or any(len(value.shape) for value in _inputs([node])):
            return False
        self._copy(node, [self._single.get(value, value) for value in node.inputs], self._single)
        return True

    def _take_rows(self, node: Any) -> bool:
        """Rows of all particles."""
        values = _inputs([node])
        if any(value in self._single for value in values):
            return False
        rows = [value for value in values if value in self._rows or _batched(value)]
        if not _each_row(node, rows):
            return False
        inputs = [self._tile(value) if value in rows else value for value in node.inputs]
        if node.op_type == "Reshape":
            inputs[1] = self._sizes([-1, *node.outputs[0].shape[1:]])
        self._copy(node, inputs, self._rows)
        return True

    def _tile(self, value: Any) -> Any:
        """Returns rows for all steps, of a value that is the same in every step by repeating it."""
        if value in self._rows:
            return self._rows[value]
        if value not in self._tiled:
            times = self._sizes([self._steps, *[1] * (len(value.shape) - 1)])
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

    def _sizes(self, numbers: Sequence[int]) -> Any:
        return _sizes(self._graph, numbers)


def _each_row(node: Any, rows: Sequence[Any]) -> bool:
    """Tells whether a node treats each row of its batched inputs, `rows`, by itself."""
    first, rank = node.inputs[0], len(node.outputs[0].shape)
    if node.op_type in _ELEMENTWISE:
        same = all(len(value.shape) == rank for value in rows)
        return same and all(
            value in rows or len(value.shape) < rank or value.shape[0] == 1 for value in _inputs([node])
        )
    if node.op_type == "Concat":
        return len(rows) == len(node.inputs) and node.attributes["axis"].as_int() % rank != 0
    if rows != [first]:
        return False
    if node.op_type in ("Split", "LayerNormalization", "Softmax"):
        return bool(node.attributes["axis"].as_int() % rank != 0)
    if node.op_type in ("Squeeze", "Unsqueeze", "Slice"):
        axes = node.inputs[3 if node.op_type == "Slice" else 1].const_value
        return axes is not None and bool((axes.numpy() > 0).all())
    if node.op_type == "Gemm":
        return not node.attributes["transA"].as_int()
    if node.op_type == "MatMul":
        return len(node.inputs[1].shape) == 2
    return node.op_type == "Reshape" and all(isinstance(size, int) for size in node.outputs[0].shape[1:])
