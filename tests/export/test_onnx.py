"""Graphs: what they hold, and that they give what PyTorch gives. Tracing takes seconds, so most are slow."""

import re

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from caloforge.detectors import ZP
from caloforge.export.onnx import absorb, check_exportable, check_single_graph, graph_of
from caloforge.models.channel_flow_matching import ChannelFlowMatching, ChannelFlowMatchingConfig
from caloforge.models.parts.inference import as_function
from caloforge.runtime.noise import standard_normals
from caloforge.runtime.session import Session
from caloforge.training.checkpoint import load_model
from made_run import made_run


@pytest.fixture(scope="module")
def model(flow_run):
    return load_model(flow_run)[1]


@pytest.fixture(scope="module")
def graph(model):
    return graph_of(model, whole=True)


def nodes(graph):
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            yield from nodes(attribute.g)


@pytest.mark.slow
def test_inputs_output_and_batch(graph):
    shapes = {
        value.name: [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (*graph.graph.input, *graph.graph.output)
    }
    assert shapes == {"conditions": ["batch", 9], "noise": ["batch", 5], "channels": ["batch", 5]}
    assert graph.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.INT32
    assert [opset.version for opset in graph.opset_import] == [18]


@pytest.mark.slow
def test_nothing_of_the_machine_is_left(graph):
    assert list(graph.metadata_props) == []
    assert not any(node.doc_string or node.metadata_props for node in nodes(graph.graph))
    names = [node.name for node in nodes(graph.graph)]
    assert all(re.fullmatch(r"n\d+", name) for name in names)
    assert len(set(names)) == len(names)  # ONNX Runtime 1.20 refuses two nodes of one name
    for text in (b".py", b"site-packages", b"/home", b"caloforge/"):
        assert text not in graph.SerializeToString()


@pytest.mark.slow
def test_one_step_whatever_their_number(flow_run, graph):
    more = graph_of(load_model(flow_run, ["solver.steps=40"])[1], whole=True)
    assert len(list(nodes(more.graph))) == len(list(nodes(graph.graph)))
    assert more.ByteSize() < graph.ByteSize() + 1000


@pytest.mark.slow
def test_no_random_operator(graph):
    assert not [node.op_type for node in nodes(graph.graph) if "Random" in node.op_type]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["midpoint", "rk4"])
def test_every_solver_is_the_same_in_a_loop(flow_run, events, tmp_path, method):
    _, model = load_model(flow_run, [f"solver.method={method}", "rounding=none"])
    onnx.save(graph_of(model, whole=False), tmp_path / "x.onnx")
    session, rows = Session(tmp_path / "x.onnx"), 8
    noise = standard_normals(0, np.arange(rows), model.noise_dim)
    np.testing.assert_allclose(
        session(events.conditions[:rows], noise),
        as_function(model)(events.conditions[:rows], noise),
        atol=1e-3,
        rtol=1e-4,
    )


@pytest.mark.slow
def test_exporting_leaves_the_model_as_it_was(model, graph, events):
    noise = torch.zeros(2, 5)
    with torch.no_grad():
        assert model(torch.from_numpy(events.conditions[:2]), noise).dtype == torch.float32


def test_a_yardstick_is_refused(tmp_path):
    recipe, model = load_model(made_run(tmp_path / "run", "nearest"))
    with pytest.raises(ValueError, match=r"zn-nearest keeps fitted tables .* no network"):
        check_exportable(model, recipe.name)


def test_a_model_of_tokens_is_no_single_graph(tmp_path):
    recipe, model = load_model(made_run(tmp_path / "run", "vqgan"))
    with pytest.raises(ValueError, match=r"zn-vqgan draws an event token by token"):
        check_single_graph(model, recipe.name)


@pytest.mark.slow
def test_transport_through_magnets_and_the_threshold_are_in_the_graph(tmp_path):
    torch.manual_seed(0)
    config = ChannelFlowMatchingConfig(transport=True, least=10, width=8, blocks=1, solver={"steps": 2})
    model = ChannelFlowMatching(ZP, config)
    rng = np.random.default_rng(0)
    conditions = np.zeros((60, 9), np.float32)
    conditions[:, 4:6] = rng.normal(size=(60, 2)) * 0.3
    conditions[:, 6] = rng.uniform(500, 4000, 60) * rng.choice([-1, 1], 60)
    conditions[:, 8] = np.arange(60) % 3 - 1
    conditions[:, 0] = np.linalg.norm(conditions[:, 4:7], axis=1) + 1
    model.standardize.refit(model.derive(torch.from_numpy(conditions)))
    model.standardize_sums.scale.fill_(0.05)
    path = tmp_path / "model.onnx"
    onnx.save(graph_of(model, whole=True), path)
    noise = standard_normals(0, np.arange(60), 5)
    with torch.no_grad():
        expected = model(torch.from_numpy(conditions), torch.from_numpy(noise)).numpy()
    found = Session(path)(conditions, noise)
    assert np.abs(found - expected).max() <= 1
    assert expected.sum(1).min() >= 10
    assert (expected.sum(1) == 10).any()


@pytest.mark.parametrize(("transposed", "left"), [(False, 0), (True, 0), (False, 1)])
def test_constants_go_into_the_weights_of_a_product(transposed, left):
    rng = np.random.default_rng(0)
    shapes = {"a": (4, 3), "b": (3, 2), "shift": (3,), "scale": (3,), "more": (1, 3)}
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    weights["b"] = np.ascontiguousarray(weights["b"].T) if not transposed else weights["b"]
    nodes = [
        onnx.helper.make_node("Gemm", ["y", "b", "shift"], ["first"], transB=int(transposed)),
        onnx.helper.make_node("Gemm", ["x", "a", "first"], ["second"]),
        onnx.helper.make_node("Mul", ["scale", "second"], ["third"]),
        onnx.helper.make_node("Add", ["third", "more"], ["out"]),
    ]
    if left:  # another node takes what the first product gives, so it stays as it is
        nodes.append(onnx.helper.make_node("Relu", ["first"], ["other"]))
    values = {"x": 4, "y": 2, "out": 3, **({"other": 3} if left else {})}
    infos = {
        name: onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", size])
        for name, size in values.items()
    }
    outputs = [info for name, info in infos.items() if name not in "xy"]
    constants = [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = onnx.helper.make_graph(nodes, "products", [infos["x"], infos["y"]], outputs, constants)
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    inputs = {name: rng.normal(size=(5, size)).astype(np.float32) for name, size in (("x", 4), ("y", 2))}

    def results():
        session = onnxruntime.InferenceSession(proto.SerializeToString())
        return session.run(None, inputs)

    expected = results()
    absorb(proto)
    assert [node.op_type for node in proto.graph.node] == (
        ["Gemm", "Gemm", "Mul", "Add", "Relu"] if left else ["Gemm", "Gemm"]
    )
    for got, value in zip(results(), expected, strict=True):
        np.testing.assert_allclose(got, value, rtol=1e-5, atol=1e-6)
