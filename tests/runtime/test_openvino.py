"""OpenVINO in place of ONNX Runtime."""

import builtins
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from caloforge import load
from caloforge.runtime.bundle import GRAPH
from caloforge.runtime.session import Session
from made import made_events
from made_bundle import NOISE


def inputs(rows):
    conditions = made_events(particles=rows, repeats=1).conditions
    return conditions, np.random.default_rng(0).standard_normal((rows, NOISE)).astype(np.float32)


@pytest.fixture
def openvino():
    return pytest.importorskip("openvino")


@pytest.mark.parametrize("rows", [1, 5, 40])
@pytest.mark.usefixtures("openvino")
def test_it_gives_the_counts_of_onnx_runtime(bundle, rows):
    here, there = Session(bundle / GRAPH), Session(bundle / GRAPH, runtime="openvino")
    assert (there.features, there.noise_dim, there.shape) == (here.features, here.noise_dim, here.shape)
    expected, got = here(*inputs(rows)), there(*inputs(rows))
    assert got.dtype == expected.dtype
    assert (got != expected).sum() <= 0.001 * (expected > 0).sum()


@pytest.mark.usefixtures("openvino")
def test_a_bundle_is_loaded_with_it(bundle):
    assert load(bundle, runtime="openvino").detector.name == "zn"


@pytest.mark.usefixtures("openvino")
def test_a_graph_that_it_does_not_know_is_refused(tmp_path):
    graph = helper.make_graph(
        [helper.make_node("Unheard", ["conditions", "noise"], ["responses"])],
        "unheard",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2])
            for name in ("conditions", "noise")
        ],
        [helper.make_tensor_value_info("responses", TensorProto.FLOAT, ["batch", 2])],
    )
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / GRAPH)
    with pytest.raises(ValueError, match=r"openvino .* cannot run .*Unheard.*; ONNX Runtime can"):
        Session(tmp_path / GRAPH, runtime="openvino")


def test_where_it_is_missing_the_extra_is_named(bundle, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name.partition(".")[0] == "openvino":
            raise ModuleNotFoundError("No module named 'openvino'", name="openvino")
        return real(name, *rest)

    for name in [name for name in sys.modules if name.partition(".")[0] == "openvino"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'caloforge\[openvino\]'"):
        Session(bundle / GRAPH, runtime="openvino")


def test_another_runtime_is_refused(bundle):
    with pytest.raises(ValueError, match="the runtime must be one of onnxruntime, openvino, got 'tflite'"):
        Session(bundle / GRAPH, runtime="tflite")


def test_a_run_has_none():
    with pytest.raises(ValueError, match="a runtime is for a bundle, and zn-channel_flow_matching is a run"):
        load("zn-channel_flow_matching", runtime="openvino")
