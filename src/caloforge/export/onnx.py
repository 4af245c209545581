"""Turns a model into ONNX graphs: no random operator, only the batch dynamic.

Most are one graph of two inputs and one output. A model that draws tokens makes three, between which the runtime
loops (`runtime.tokens`): the particle's tokens, one step, and the response of all tokens.

The step of a large network is traced once and stays one step in the graph, the body of a Scan node: see
`export.loops`. Small ones follow a path of few steps without a loop (`nn.velocity_network`, `nn.patch_graph`), and what
follows from weights alone is computed here, once.

ONNX Runtime prepares weights (packing, convolution layouts) only where they belong to the graph that uses them,
so the weights of a step are moved into the body of its Scan: twice as fast at batch 1.
"""

from __future__ import annotations

import inspect
import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from caloforge._lookup import require
from caloforge.export.kernels import check_kernels
from caloforge.export.loops import fix_shapes, make_loops
from caloforge.models import Classifier, Generator, Readout
from caloforge.models.base import DrawsTokens
from caloforge.nn.rounding import before_rounding
from caloforge.nn.stored import Stored
from caloforge.runtime.tokens import GIVEN, STEP

OPSET = 18
"""The greatest that ONNX Runtime 1.14 reads."""

IR_VERSION = 8
"""Of the file format: likewise."""

INPUTS = ("conditions", "noise")

ROWS = 3
"""Rows of the batch that is traced: one would be taken for a constant."""

_RANDOM = {
    "Bernoulli",
    "Dropout",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
}


class _Exported(nn.Module):
    """A function of two tensors as it is exported, with its counts as integers.

    Args:
        model: what the function belongs to.
        name: of the function.
        whole: its counts are whole numbers.
        both: what is rounded is a second result.
    """

    def __init__(self, model: nn.Module, name: str, whole: bool, both: bool = False) -> None:
        super().__init__()
        self.model, self.name, self.whole, self.both = model, name, whole, both

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        with before_rounding() as seen:
            output: Tensor = getattr(self.model, self.name)(*inputs)
        result = output.to(torch.int32) if self.whole else output
        return (result, seen[0]) if self.both else result


class _Given(nn.Module):
    """What is known before the first token."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        assert isinstance(self.model, DrawsTokens)
        return self.model.given(*inputs)


class _Step(nn.Module):
    """One token, after those whose keys and values are kept for all places; the ones that are not there are masked."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, place: Tensor, noise: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        assert isinstance(self.model, DrawsTokens)
        told, past = (others[0], others[1:]) if self.model.tells else (None, others)
        pairs = list(zip(past[::2], past[1::2], strict=True))
        seen = torch.arange(past[0].shape[-1], device=place.device) < place[:, None]
        drawn, entries = self.model.next_token(tokens, place, noise, pairs, seen, told)
        return drawn, *(tensor for pair in entries for tensor in pair)


def check_exportable(model: Generator | Readout, name: str) -> None:
    """Raises ValueError for a model that makes no graph.

    Args:
        model: the model.
        name: of its run, for the message.
    """
    if any(isinstance(module, Stored) for module in model.modules()):
        raise ValueError(
            f"{name} keeps fitted tables (trees, or its training events) and no network: it is a yardstick, "
            "to be scored and not to be deployed; export needs a network, such as flow_matching"
        )
    if model.no_graph:
        raise ValueError(f"{name} {model.no_graph}")


def check_single_graph(model: Generator | Readout, name: str) -> None:
    """Raises ValueError for a model of several graphs, for hosts that run one.

    Args:
        model: the model.
        name: of its run, for the message.
    """
    if isinstance(model, DrawsTokens):
        raise ValueError(
            f"{name} draws an event token by token, each after those before: that makes no single graph; export it as "
            "a bundle"
        )


def graph_of(model: Generator | Readout, *, whole: bool) -> Any:
    """Traces a model; arguments, result and errors as `graphs_of`, without the second graph."""
    return _of_model(model, whole, both=False)


def graphs_of(model: Generator | Readout, *, whole: bool) -> tuple[Any, Any]:
    """Traces a model, and where rounding is the last it does also what comes before.

    Args:
        model: with its weights, ready to generate.
        whole: what comes out are whole numbers, and the output is int32; float32 otherwise.

    Returns:
        an `onnx.ModelProto` with inputs `conditions` (B, F) and `noise` (B, D) and the output `responses`
        (B, *shape), or `channels` (B, K) for a readout. Of a model that draws tokens the inputs are `tokens` (B, L)
        and `noise` (B,), and `photons` (B,) where it is told more: see `graphs_of_tokens`. And the graph of the
        counts before they are rounded, None of a model that rounds otherwise than at its end by
        `nn.rounding.rounded`, or not at all.

    Raises:
        ValueError: the graph is not what the runtime needs.
    """
    graph = _of_model(model, whole, both=True)
    if len(graph.graph.output) == 1:
        return graph, None
    return _only(graph, 0), _only(graph, 1)


def _of_model(model: Generator | Readout, whole: bool, both: bool) -> Any:
    device, name, output = _device(model), "__call__", "responses"
    if isinstance(model, DrawsTokens):
        length = model.noise_dim - 1 - model.tells
        tokens = torch.zeros(ROWS, length, dtype=torch.int64, device=device)
        inputs = {"tokens": tokens, "noise": torch.zeros(ROWS, device=device)}
        inputs |= {"photons": torch.ones(ROWS, device=device)} if model.tells else {}
        name = "respond"
    else:
        conditions = torch.ones(ROWS, len(model.detector.conditions), device=device)
        noise = torch.zeros(ROWS, model.noise_dim, device=device)
        inputs = dict(zip(INPUTS, (conditions, noise), strict=True))
        output = "channels" if isinstance(model, Readout) else "responses"
    if both:
        with torch.no_grad(), before_rounding() as seen:
            getattr(model, name)(*inputs.values())
        both = len(seen) == 1
    module = _Exported(model, name, whole, both).eval()
    return _trace(module, inputs, [output, "expected"] if both else [output])


def _only(proto: Any, number: int) -> Any:
    """Returns a graph with one of its outputs alone, and the nodes and weights that lead there."""
    onnx = require("onnx", "export")
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    graph = result.graph
    output = graph.output[number]
    name = output.name
    output.name = graph.output[0].name
    needed, nodes = {name}, []
    for node in reversed(proto.graph.node):
        if needed & set(node.output):
            nodes.append(node)
            needed |= set(node.input)
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    needed |= set().union(*map(_taken, graphs(attribute.g)))
    del graph.node[:]
    graph.node.extend(reversed(nodes))
    weights = [weight for weight in proto.graph.initializer if weight.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(weights)
    del graph.value_info[:]
    for node in graph.node:
        node.output[:] = [output.name if name_there == name else name_there for name_there in node.output]
        node.input[:] = [output.name if name_there == name else name_there for name_there in node.input]
    chosen = onnx.ValueInfoProto()
    chosen.CopyFrom(output)
    del graph.output[:]
    graph.output.append(chosen)
    onnx.checker.check_model(result, full_check=True)
    return result


def _taken(graph: Any) -> set[str]:
    """Returns the names that the nodes of a graph take, and those of its outputs."""
    return {name for node in graph.node for name in node.input} | {value.name for value in graph.output}


def graphs_of_tokens(model: Generator | Readout) -> dict[str, Any]:
    """Traces what draws the tokens of a model, by the names of the files; none of a model without tokens.

    Args:
        model: with its weights, ready to generate.

    Returns:
        given.onnx: conditions (B, F) -> tokens (B, G); and step.onnx: tokens (B,), place (B,), noise (B,), key0
        (B, heads, size, T), value0 (B, heads, T, size), ... of all places -> next (B,), made_key0 (B, heads, size, 1),
        made_value0 (B, heads, 1, size), ... Of a model that is told more given.onnx takes noise (B,) as well and gives
        told (B, T, width) and photons (B,), and step.onnx takes told (B, width) after the noise.
    """
    if not isinstance(model, DrawsTokens):
        return {}
    device = _device(model)
    given = {"conditions": torch.ones(ROWS, len(model.detector.conditions), device=device)}
    known, told = ["tokens"], {}
    if model.tells:
        given["noise"] = torch.zeros(ROWS, device=device)
        known += ["told", "photons"]
        with torch.no_grad():
            told = {"told": model.given(*given.values())[1][:, 0]}
    number = torch.zeros(ROWS, dtype=torch.int64, device=device)
    cache = {
        f"{kind}{block}": tensor
        for block, pair in enumerate(model.nothing_seen(ROWS))
        for kind, tensor in zip(("key", "value"), pair, strict=True)
    }
    step = {
        "tokens": number, "place": number.clone(), "noise": torch.zeros(ROWS, device=device), **told, **cache
    }  # fmt: skip
    return {
        GIVEN: _trace(_Given(model).eval(), given, known),
        STEP: _trace(_Step(model).eval(), step, ["next", *(f"made_{name}" for name in cache)]),
    }


def _device(model: nn.Module) -> torch.device:
    return next((tensor.device for tensor in (*model.parameters(), *model.buffers())), torch.device("cpu"))


def graph_of_classifier(model: Classifier) -> Any:
    """Traces a classifier: input `conditions` (B, F), output `probabilities` (B, K)."""
    conditions = torch.ones(ROWS, len(model.detector.conditions), device=_device(model))
    return _trace(model.eval(), {"conditions": conditions}, ["probabilities"])


def _trace(module: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Any:
    """Traces a module; all its arguments and results have the batch as their first axis."""
    onnx = require("onnx", "export")
    require("onnxscript", "export")
    batch = torch.export.Dim("batch", min=1)
    with _quiet(), torch.no_grad():
        traced = torch.export.export(
            module, tuple(inputs.values()), dynamic_shapes=_of_arguments(module, {0: batch}, len(inputs))
        )
        program = torch.onnx.export(
            traced,
            (),
            dynamo=True,
            input_names=list(inputs),
            output_names=list(outputs),
            opset_version=OPSET,
            custom_translation_table={torch.ops.aten.scaled_dot_product_attention.default: _attention},
            optimize=False,
            verbose=False,
        )
        assert program is not None
        program.optimize()
    fix_shapes(program.model)
    make_loops(program.model)
    proto = program.model_proto
    _fold(proto)
    absorb(proto)
    _tidy(proto)
    lower(proto)
    _check(proto)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def _fold(proto: Any) -> None:
    """Computes what follows from weights alone: embeddings of the solver's times, products of matrices, orders."""
    onnx, runtime = require("onnx", "export"), require("onnxruntime", "export")
    graph = proto.graph
    known = {weight.name for weight in graph.initializer}
    nodes = []
    for node in graph.node:
        if known.issuperset(node.input) and not any(part.HasField("g") for part in node.attribute):
            nodes.append(node)
            known.update(node.output)
    made = {name for node in nodes for name in node.output}
    others = [node for node in graph.node if not made & set(node.output)]
    taken = {name for node in others for name in (*node.input, *_of_inner(node))} | {
        value.name for value in graph.output
    }
    results = sorted(made & taken)
    if not results:
        return
    used = {name for node in nodes for name in node.input}
    part = onnx.helper.make_graph(
        nodes,
        "constants",
        [],
        [onnx.ValueInfoProto(name=name) for name in results],
        [weight for weight in graph.initializer if weight.name in used],
    )
    opsets = [opset for opset in proto.opset_import if not opset.domain]
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = runtime.InferenceSession(
        onnx.helper.make_model(part, opset_imports=opsets, ir_version=IR_VERSION).SerializeToString(), options
    )
    values = zip(results, session.run(results, {}), strict=True)
    weights = [weight for weight in graph.initializer if weight.name in taken]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(others)
    graph.initializer.extend(
        [*weights, *(onnx.numpy_helper.from_array(value, name) for name, value in values)]
    )


def absorb(proto: Any) -> None:
    """Puts a constant that is added to the result of a `Gemm`, or multiplies it, into the weights of the `Gemm`."""
    graph = proto.graph
    absorber = _Absorber(graph)
    nodes = [node for node in graph.node if not absorber.takes(node)]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in (*node.input, *_of_inner(node))}
    graph.initializer.extend(
        weight for name, weight in absorber.weights.items() if name in used | absorber.outputs
    )


class _Absorber:
    """What `absorb` knows of a graph: weights by name, which node makes a value, and how often it is taken."""

    def __init__(self, graph: Any) -> None:
        onnx = require("onnx", "export")
        self._to_array, self._from_array = onnx.numpy_helper.to_array, onnx.numpy_helper.from_array
        self.weights = {weight.name: weight for weight in graph.initializer}
        self.outputs = {value.name for value in graph.output}
        self._makers = {name: node for node in graph.node for name in node.output}
        self._taken = Counter(name for node in graph.node for name in (*node.input, *_of_inner(node)))

    def takes(self, node: Any) -> bool:
        """Tells whether a node was put into the `Gemm` before it."""
        if node.op_type not in ("Add", "Mul"):
            return False
        for value, other in (node.input, reversed(node.input)):
            if other not in self.weights:
                continue
            constant = self._to_array(self.weights[other])
            maker = self._gemm(value)
            if maker is None or not self._fits(maker, constant) or not self._reaches(maker, node.op_type):
                continue
            self._change(maker, node.op_type, constant.reshape(-1))
            maker.output[0] = node.output[0]
            self._makers[node.output[0]] = maker
            return True
        return False

    def _gemm(self, value: str) -> Any:
        """Returns the `Gemm` that makes a value which nothing else takes; None where there is none."""
        maker = self._makers.get(value)
        alone = self._taken[value] == 1 and value not in self.outputs
        return maker if alone and maker is not None and maker.op_type == "Gemm" else None

    def _fits(self, gemm: Any, constant: NDArray[np.generic]) -> bool:
        """Tells whether a constant is one number, or one for each column of a result."""
        if gemm.input[1] not in self.weights:
            return False
        columns = self.weights[gemm.input[1]].dims[0 if _attribute(gemm, "transB", 0) else 1]
        return constant.size == 1 or (constant.ndim <= 2 and constant.shape[-1] == constant.size == columns)

    def _reaches(self, gemm: Any, operator: str) -> bool:
        """Tells whether all that has to change is constant."""
        if gemm.input[1] not in self.weights or any(
            _attribute(gemm, name, default) != default for name, default in (("alpha", 1.0), ("beta", 1.0))
        ):
            return False
        if len(gemm.input) < 3:
            return operator == "Mul"
        if gemm.input[2] in self.weights:
            return True
        before = self._gemm(gemm.input[2])
        return before is not None and self._reaches(before, operator)

    def _change(self, gemm: Any, operator: str, constant: NDArray[np.generic]) -> None:
        if operator == "Mul":
            across = constant[:, None] if _attribute(gemm, "transB", 0) else constant
            gemm.input[1] = self._added(gemm, "matrix", self._to_array(self.weights[gemm.input[1]]) * across)
        if len(gemm.input) < 3:
            return
        if gemm.input[2] not in self.weights:
            self._change(self._makers[gemm.input[2]], operator, constant)
            return
        shift = self._to_array(self.weights[gemm.input[2]])
        changed = shift * constant if operator == "Mul" else shift + constant
        gemm.input[2] = self._added(gemm, "shift", changed)

    def _added(self, gemm: Any, role: str, values: NDArray[np.generic]) -> str:
        """Adds weights and returns their name; those of before may have other uses."""
        name = f"{gemm.input[1]}_{gemm.output[0]}_{role}"
        self.weights[name] = self._from_array(values, name)
        return name


def _attribute(node: Any, name: str, default: float) -> float:
    """Returns a number that a node has, or what it is where it is not given."""
    values = [attribute for attribute in node.attribute if attribute.name == name]
    return default if not values else values[0].f if values[0].type == 1 else values[0].i


def _of_inner(node: Any) -> set[str]:
    """Returns the names that the graphs within a node take."""
    inner = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return set().union(*(_taken(graph) for body in inner for graph in graphs(body)))


def _of_arguments(module: nn.Module, shape: Mapping[int, Any], number: int) -> tuple[Any, ...]:
    """Returns one dynamic shape for each argument of a module, those after a star as one tuple."""
    kinds = list(inspect.signature(module.forward).parameters.values())
    named = sum(kind.kind is not inspect.Parameter.VAR_POSITIONAL for kind in kinds)
    named = min(named, number)
    starred = ((dict(shape),) * (number - named),) if len(kinds) > named else ()
    return (dict(shape),) * named + starred


def _attention(
    query: Any, key: Any, value: Any, *mask: Any, scale: float | None = None, **options: Any
) -> Any:
    """Writes attention of (B, heads, tokens, width); the exporter's own computes its shapes at run time."""
    if mask or scale or any(options.values()):
        raise ValueError(f"attention with {mask or scale or options} is not exported")
    opset = require("onnxscript", "export").values.Opset("", OPSET)
    keys = opset.Transpose(key, perm=[0, 1, 3, 2])
    scores = opset.Mul(opset.MatMul(query, keys), opset.Constant(value_float=query.shape[-1] ** -0.5))
    return opset.MatMul(opset.Softmax(scores), value)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporters' remarks on packages we do not use and on their own internals to themselves."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def graphs(graph: Any) -> Iterator[Any]:
    """Walks through a graph and those within its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from graphs(attribute.g)


def _tidy(proto: Any) -> None:
    """Strips what describes the machine it was made on, and puts weights where they are used."""
    proto.producer_name, proto.doc_string = "caloforge", ""
    del proto.metadata_props[:]
    _move_weights(proto.graph)
    for graph in graphs(proto.graph):
        graph.doc_string = ""
        del graph.metadata_props[:]
        del graph.value_info[:]
        for value in (*graph.initializer, *graph.input, *graph.output):
            value.doc_string = ""
            del value.metadata_props[:]
        for value in (*graph.input, *graph.output):
            for size in value.type.tensor_type.shape.dim:
                if size.dim_param:
                    size.dim_param = "batch"
        for node in graph.node:
            node.name = node.doc_string = ""
            del node.metadata_props[:]


def lower(proto: Any) -> None:
    """Writes a graph for the oldest ONNX Runtime: no operator that came later, and a name of its own for each node.

    There the cosine of float64 has no kernel, the sine has: cos(x) = sin(x + pi/2). And before 1.18 an optimizer looks
    for the third input of a LayerNormalization whether there is one or not: a shift of 0 is given.
    """
    onnx = require("onnx", "export")
    proto.ir_version = IR_VERSION
    quarter = "quarter_turn"
    double = _doubles(proto)
    turned = 0
    for graph in graphs(proto.graph):
        nodes = list(graph.node)
        del graph.node[:]
        for node in nodes:
            if node.op_type == "Cos" and node.output[0] in double:
                shifted = f"{node.output[0]}_turned"
                graph.node.append(onnx.helper.make_node("Add", [node.input[0], quarter], [shifted]))
                node.op_type = "Sin"
                node.input[0] = shifted
                turned += 1
            graph.node.append(node)
    if turned:
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array(np.pi / 2), quarter))
    _give_shifts(proto)
    for number, node in enumerate(node for graph in graphs(proto.graph) for node in graph.node):
        node.name = f"n{number}"


def _give_shifts(proto: Any) -> None:
    """Gives each LayerNormalization without a shift one of 0, within the graph that it is in."""
    onnx = require("onnx", "export")
    every = list(graphs(proto.graph))
    scales = {value.name: value for graph in every for value in graph.initializer}
    for graph in every:
        shifts = {}
        for node in graph.node:
            if node.op_type == "LayerNormalization" and len(node.input) == 2 and node.input[1] in scales:
                name = f"{node.input[1]}_shift"
                zeros = np.zeros_like(onnx.numpy_helper.to_array(scales[node.input[1]]))
                shifts[name] = onnx.numpy_helper.from_array(zeros, name)
                node.input.append(name)
        graph.initializer.extend(shifts.values())


def _doubles(proto: Any) -> set[str]:
    """Returns the names of all values of type float64, of the graph and those within its nodes."""
    onnx = require("onnx", "export")
    inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True)
    return {
        value.name
        for graph in graphs(inferred.graph)
        for value in (*graph.value_info, *graph.output, *graph.input)
        if value.type.tensor_type.elem_type == onnx.TensorProto.DOUBLE
    }


def _move_weights(graph: Any) -> None:
    outer = _taken(graph)
    weights = {weight.name: weight for weight in graph.initializer}
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                body = attribute.g
                used = {name for inner in graphs(body) for node in inner.node for name in node.input}
                body.initializer.extend(weights[name] for name in sorted(used & weights.keys()))
    moved = [weight for weight in graph.initializer if weight.name in outer]
    del graph.initializer[:]
    graph.initializer.extend(moved)


def _check(proto: Any) -> None:
    if proto.functions:
        raise ValueError(f"the graph must hold no functions, got {len(proto.functions)}")
    operators = {node.op_type for graph in graphs(proto.graph) for node in graph.node}
    if operators & _RANDOM:
        raise ValueError(f"the graph must draw no random numbers, got {', '.join(operators & _RANDOM)}")
    for value in (*proto.graph.input, *proto.graph.output):
        first, *rest = value.type.tensor_type.shape.dim
        if first.HasField("dim_value") or not all(size.dim_value > 0 for size in rest):
            raise ValueError(f"only the batch of {value.name} may be dynamic, got {value.type.tensor_type}")
    check_kernels(proto)
