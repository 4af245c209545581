"""Made-up trials, and the graph of a made-up zero response whose probabilities are features of the primary."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from caloforge.detectors import ZN
from caloforge.trials import Trials


def made_probabilities():
    """P(ZN), P(ZP), P(any) are the features vx, vy and vz themselves."""
    constants = {"start": np.array([1]), "stop": np.array([4]), "axis": np.array([1])}
    graph = helper.make_graph(
        [helper.make_node("Slice", ["conditions", "start", "stop", "axis"], ["probabilities"])],
        "made",
        [helper.make_tensor_value_info("conditions", TensorProto.FLOAT, ["batch", 9])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def made_trials(rows=200, seed=0, shots=5) -> Trials:
    """Neutrons that reach ZN where they fly near the axis, and ZP now and then when they do."""
    rng = np.random.default_rng(seed)
    momentum = rng.normal(0, [0.3, 0.3, 1500], (rows, 3))
    mass = np.full(rows, 0.93957)
    energy = np.sqrt((momentum**2).sum(1) + mass**2) * (1 + 1e-6)
    conditions = np.column_stack([energy, np.zeros((rows, 3)), momentum, mass, np.zeros(rows)])
    impact = np.hypot(*momentum[:, :2].T) / np.abs(momentum[:, 2]) * ZN.face.z
    near = np.exp(-((impact / 4) ** 2))
    draws = rng.uniform(size=(rows, shots))
    first, second = draws < near[:, None], (draws < 0.3 * near[:, None]) | (draws > 0.98)
    counts = [first, second, first | second]
    return Trials(
        ZN,
        conditions.astype(np.float32),
        np.full(rows, 2112),
        np.arange(rows),
        (np.arange(rows) % 10).astype(np.int8),
        np.full(rows, shots),
        np.stack([one.sum(1) for one in counts], 1),
    )
