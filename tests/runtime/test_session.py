import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from caloforge.runtime.bundle import GRAPH
from caloforge.runtime.session import Session
from made import made_events
from made_bundle import NOISE, made_graph


def inputs(rows):
    rng = np.random.default_rng(0)
    conditions = made_events(particles=rows, repeats=1).conditions
    return conditions, rng.standard_normal((rows, NOISE)).astype(np.float32)


def test_a_session_is_a_function(bundle):
    session = Session(bundle / GRAPH)
    assert (session.features, session.noise_dim, session.shape) == (9, NOISE, (44, 44))
    output = session(*inputs(5))
    assert output.shape == (5, 44, 44)
    assert output.dtype == np.int32


def test_threads_do_not_change_a_byte(bundle):
    one, two = (Session(bundle / GRAPH, threads)(*inputs(32)) for threads in (1, 2))
    np.testing.assert_array_equal(one, two)


def test_one_thread_unless_asked(bundle):
    code = (
        "import os, sys; from pathlib import Path; from caloforge.runtime.session import Session\n"
        "before = len(os.listdir('/proc/self/task'))\n"
        f"kept = Session(Path({str(bundle / GRAPH)!r}), int(sys.argv[1]))\n"
        "print(len(os.listdir('/proc/self/task')) - before)"
    )
    counts = [
        int(subprocess.run([sys.executable, "-c", code, n], check=True, capture_output=True).stdout)
        for n in ("1", "3")
    ]
    # what the library keeps for itself is there either way
    assert counts[1] - counts[0] == 2


def test_no_graph(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"no graph")
    with pytest.raises(ValueError, match=r"onnxruntime [\d.]+ cannot run .*x.onnx"):
        Session(tmp_path / "x.onnx")


def test_a_graph_with_other_inputs(tmp_path):
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [value], [out])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9),
        tmp_path / "x.onnx",
    )
    with pytest.raises(ValueError, match="must have the inputs conditions, noise and one output, got x"):
        Session(tmp_path / "x.onnx")


def test_no_threads(bundle):
    with pytest.raises(ValueError, match="threads must be 1 to 1024, got 0"):
        Session(bundle / GRAPH, 0)


def test_a_graph_that_reads_other_files_is_refused(tmp_path):
    """Whoever made the bundle would choose which file of this machine is taken for weights."""
    onnx.save(made_graph(), tmp_path / "whole.onnx")
    Session(tmp_path / "whole.onnx")
    path = tmp_path / "graph.onnx"
    onnx.save(made_graph(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert (tmp_path / "weights.bin").exists()
    with pytest.raises(ValueError, match=r"graph.onnx keeps tensors in another file"):
        Session(path)
    content = path.read_bytes()
    at = content.index(b"\x08location")
    path.write_bytes(content[:at] + b"\x88\x00location" + content[at + 9 :])  # the same length, in two bytes
    with pytest.raises(ValueError, match="keeps tensors in another file"):
        Session(path)
