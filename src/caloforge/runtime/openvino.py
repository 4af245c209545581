"""Graphs run by OpenVINO (extra `openvino`), in place of ONNX Runtime where it is asked for by name.

It compiles a graph for each size of a batch, in float32: with sizes that are known it is faster at large batches than
ONNX Runtime, with sizes that are not it is slower. Loops (Scan nodes) whose body uses values from without are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge._lookup import require


@dataclass(frozen=True)
class Port:
    """Name and shape of an input or output, None for the batch."""

    name: str
    shape: tuple[int | None, ...]


class OpenVINOGraph:
    """A graph with the methods of ONNX Runtime's session that are used here.

    Args:
        path: the ONNX file.
        threads: threads of one batch.

    Raises:
        ValueError: a graph that OpenVINO cannot run.
        ImportError: it is not installed.
    """

    def __init__(self, path: Path, threads: int) -> None:
        openvino = require("openvino", "openvino")
        self._path, self._core = path, openvino.Core()
        self._options = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": "f32",
            "ENABLE_CPU_PINNING": False,
        }
        self._requests: dict[int, Any] = {}
        try:
            model = self._core.read_model(str(path))
        except RuntimeError as error:
            reason = next((line for line in reversed(str(error).splitlines()) if "-- " in line), "")
            raise ValueError(
                f"openvino {openvino.__version__} cannot run {path}: {reason.strip(' -') or 'not converted'}; "
                "ONNX Runtime can"
            ) from error
        self._inputs, self._outputs = _ports(model.inputs), _ports(model.outputs)

    def get_inputs(self) -> Sequence[Port]:
        """Returns the inputs in order."""
        return self._inputs

    def get_outputs(self) -> Sequence[Port]:
        """Returns the outputs in order."""
        return self._outputs

    def run(
        self, names: Sequence[str] | None, feeds: Mapping[str, NDArray[np.generic]]
    ) -> list[NDArray[np.generic]]:
        """Computes outputs, all where none is named, from inputs by name."""
        batch = len(next(iter(feeds.values())))
        if batch not in self._requests:
            model = self._core.read_model(str(self._path))
            model.reshape({port.name: [batch, *port.shape[1:]] for port in self._inputs})
            self._requests[batch] = self._core.compile_model(
                model, "CPU", self._options
            ).create_infer_request()
        results = self._requests[batch].infer(dict(feeds))
        wanted = [port.name for port in self._outputs] if names is None else names
        return [np.array(results[name]) for name in wanted]


def _ports(ports: Any) -> list[Port]:
    return [
        Port(
            port.any_name,
            tuple(None if size.is_dynamic else int(size.get_length()) for size in port.partial_shape),
        )
        for port in ports
    ]
