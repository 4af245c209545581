"""A runtime on one CPU: one thread unless asked, and few events at once.

Many sites give a job one core and two gigabytes. ONNX Runtime would start a thread a core, and its memory grows with
the batch. One thread or several give the same bytes.
"""

from __future__ import annotations

import importlib
import mmap
import re
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from caloforge.runtime.openvino import OpenVINOGraph

Runtime = Literal["onnxruntime", "openvino"]
"""What runs a graph: ONNX Runtime, or OpenVINO where it is installed (`runtime.openvino`)."""

MOST_THREADS = 1024

TOGETHER = 32
"""Events that a graph computes at once: what belongs to more of them does not fit into a core's cache."""

EXTERNAL = re.compile(rb"\n[\x08\x88][\x80\x00]*location")
"""How a tensor of an ONNX graph says in which other file its values lie: a field 1 of 8 bytes, "location"."""


def check_whole(path: Path) -> None:
    """Raises ValueError where a graph would read its weights from another file, whichever its maker has named."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            external = EXTERNAL.search(content)
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read {path}: {error}") from error
    if external:
        raise ValueError(f"{path} keeps tensors in another file, which is not read: save it as one file")


class Session:
    """A graph ready to run: a function of conditions (B, F) and noise (B, D).

    Args:
        path: the ONNX file.
        threads: threads of one batch.
        runtime: what runs it.

    Attributes:
        features: number of conditions, F.
        noise_dim: standard normals an event, D.
        shape: shape of the output without the batch.

    Raises:
        ValueError: no graph that this version of ONNX Runtime can run, or one with other inputs.
    """

    def __init__(self, path: Path, threads: int = 1, runtime: Runtime = "onnxruntime") -> None:
        self._session = open_graph(path, threads, runtime)
        inputs = {value.name: value.shape for value in self._session.get_inputs()}
        outputs = self._session.get_outputs()
        if list(inputs) != ["conditions", "noise"] or len(outputs) != 1:
            raise ValueError(
                f"{path} must have the inputs conditions, noise and one output, "
                f"got {', '.join(inputs)} and {len(outputs)}"
            )
        self.features, self.noise_dim = int(inputs["conditions"][1]), int(inputs["noise"][1])
        self.shape = tuple(outputs[0].shape[1:])
        self._output = outputs[0].name

    def __call__(self, conditions: NDArray[np.float32], noise: NDArray[np.float32]) -> NDArray[np.generic]:
        """Runs a batch, `TOGETHER` events at once; returns (B, *shape), integers or float32 as the graph has them."""
        parts = [
            self._session.run(
                [self._output],
                {
                    name: rows[start : start + TOGETHER]
                    for name, rows in (("conditions", conditions), ("noise", noise))
                },
            )[0]
            for start in range(0, max(len(conditions), 1), TOGETHER)
        ]
        return np.asarray(parts[0]) if len(parts) == 1 else np.concatenate(parts)


class Probabilities:
    """The graph of a classifier ready to run: a function of conditions (B, F).

    Args:
        path: the ONNX file.
        threads: threads of one batch.
        runtime: what runs it.

    Attributes:
        features: number of conditions, F.
        outcomes: number of probabilities, K.

    Raises:
        ValueError: no graph that this version of ONNX Runtime can run, or one with other inputs.
    """

    def __init__(self, path: Path, threads: int = 1, runtime: Runtime = "onnxruntime") -> None:
        self._session = open_graph(path, threads, runtime)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if [value.name for value in inputs] != ["conditions"] or len(outputs) != 1:
            raise ValueError(f"{path} must have the input conditions and one output")
        self.features, self.outcomes = int(inputs[0].shape[1]), int(outputs[0].shape[1])
        self._output = outputs[0].name

    def __call__(self, conditions: NDArray[np.float32]) -> NDArray[np.float32]:
        """Runs one batch; returns (B, K)."""
        (result,) = self._session.run([self._output], {"conditions": conditions})
        return np.asarray(result, np.float32)


def open_graph(path: Path, threads: int, runtime: Runtime = "onnxruntime") -> Any:
    """Opens a graph with a runtime.

    Raises:
        ValueError: no such runtime, no graph that this version of it can run, one that reads other files, or no thread.
        ImportError: OpenVINO is asked for and not installed.
    """
    if runtime not in get_args(Runtime):
        raise ValueError(f"the runtime must be one of {', '.join(get_args(Runtime))}, got {runtime!r}")
    if not 1 <= threads <= MOST_THREADS:
        raise ValueError(f"threads must be 1 to {MOST_THREADS}, got {threads}")
    check_whole(path)
    if runtime == "openvino":
        return OpenVINOGraph(path, threads)
    onnxruntime: Any = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    # a thread that waits sleeps, as neighbours on the machine expect
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no class of their own
        raise ValueError(
            f"onnxruntime {onnxruntime.__version__} cannot run {path}: {str(error).splitlines()[0]}"
        ) from error
