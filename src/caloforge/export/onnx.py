"""Turns a model into an ONNX graph: two inputs, one output, no random operator, only the batch dynamic.

The solver's step is traced once and stays one step in the graph, the body of a Scan node: see `export.loops`.

ONNX Runtime prepares weights (packing, convolution layouts) only where they belong to the graph that uses them,
so the weights of a step are moved into the body of its Scan: twice as fast at batch 1.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from caloforge._lookup import require
from caloforge.export.loops import fix_shapes, make_loops
from caloforge.models import Classifier, Generator, Readout
from caloforge.models.autoregressive_flow import MAF
from caloforge.nn.gpt import GPT
from caloforge.nn.stored import Stored

OPSET = 20
"""The first with Gelu as one operator."""

INPUTS = ("conditions", "noise")

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
    """A model as it is exported, with its counts as integers."""

    def __init__(self, model: Generator | Readout, whole: bool) -> None:
        super().__init__()
        self.model, self.whole = model, whole

    def forward(self, conditions: Tensor, noise: Tensor) -> Tensor:
        output: Tensor = self.model(conditions, noise)
        return output.to(torch.int32) if self.whole else output


def check_exportable(model: Generator | Readout, name: str) -> None:
    """Raises ValueError for a model that is no network.

    Args:
        model: the model.
        name: of its run, for the message.
    """
    if any(isinstance(module, Stored) for module in model.modules()):
        raise ValueError(
            f"{name} keeps fitted tables (trees, or its training events) and no network: it is a yardstick, "
            "to be scored and not to be deployed; export needs a network, such as flow_matching"
        )
    if isinstance(model, MAF):
        raise ValueError(
            f"{name} draws an event cell by cell, each after those before: that makes no single graph; an "
            "inverse_autoregressive_flow needs one pass"
        )
    if any(isinstance(module, GPT) for module in model.modules()):
        raise ValueError(
            f"{name} draws an event token by token, each after those before: that makes no single graph, and loops of "
            "the runtime are not there yet; generate from its run folder"
        )


def graph_of(model: Generator | Readout, *, whole: bool) -> Any:
    """Traces a model.

    Args:
        model: with its weights, ready to generate.
        whole: what comes out are whole numbers, and the output is int32; float32 otherwise.

    Returns:
        an `onnx.ModelProto` with inputs `conditions` (B, F) and `noise` (B, D) and the output `responses`
        (B, *shape), or `channels` (B, K) for a readout.

    Raises:
        ValueError: the graph is not what the runtime needs.
    """
    device = next((tensor.device for tensor in (*model.parameters(), *model.buffers())), torch.device("cpu"))
    # a batch of one would be taken for a constant
    conditions = torch.ones(3, len(model.detector.conditions), device=device)
    noise = torch.zeros(3, model.noise_dim, device=device)
    output = "channels" if isinstance(model, Readout) else "responses"
    return _trace(_Exported(model, whole).eval(), dict(zip(INPUTS, (conditions, noise), strict=True)), output)


def graph_of_classifier(model: Classifier) -> Any:
    """Traces a classifier: input `conditions` (B, F), output `probabilities` (B, K)."""
    conditions = torch.ones(3, len(model.detector.conditions), device=next(model.parameters()).device)
    return _trace(model.eval(), {"conditions": conditions}, "probabilities")


def _trace(module: nn.Module, inputs: Mapping[str, Tensor], output: str) -> Any:
    """Traces a module whose arguments have the names of `inputs`, all with the batch as their first axis."""
    onnx = require("onnx", "export")
    require("onnxscript", "export")
    batch = torch.export.Dim("batch", min=1)
    with _quiet(), torch.no_grad():
        traced = torch.export.export(
            module, tuple(inputs.values()), dynamic_shapes={name: {0: batch} for name in inputs}
        )
        program = torch.onnx.export(
            traced,
            (),
            dynamo=True,
            input_names=list(inputs),
            output_names=[output],
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
    _tidy(proto)
    _check(proto)
    onnx.checker.check_model(proto, full_check=True)
    return proto


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


def _move_weights(graph: Any) -> None:
    outer = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    weights = {weight.name: weight for weight in graph.initializer}
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                body = attribute.g
                used = {name for inner in graphs(body) for node in inner.node for name in node.input}
                body.initializer.extend(weights[name] for name in sorted(used & weights.keys()))
    kept = [weight for weight in graph.initializer if weight.name in outer]
    del graph.initializer[:]
    graph.initializer.extend(kept)


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
