"""A made-up bundle for tests: a graph written by hand in place of a network, exported in no time."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from caloforge.detectors import ZN
from caloforge.runtime.bundle import GRAPH, channel_maps, write_card
from caloforge.runtime.domain import Domain
from made import made_events

NOISE = 64


def made_graph(detector=ZN):
    """counts = floor(relu(noise W + energy / 500)), with fixed random W (64, cells)."""
    weights = np.random.default_rng(0).normal(0, 0.2, (NOISE, detector.cells)).astype(np.float32)
    constants = {
        "weights": weights,
        "energy": np.array([0]),
        "over": np.array(1 / 500, np.float32),
        "shape": np.array([-1, *detector.shape]),
    }
    nodes = [
        helper.make_node("MatMul", ["noise", "weights"], ["spread"]),
        helper.make_node("Gather", ["conditions", "energy"], ["e"], axis=1),
        helper.make_node("Mul", ["e", "over"], ["light"]),
        helper.make_node("Add", ["spread", "light"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["positive"]),
        helper.make_node("Floor", ["positive"], ["floor"]),
        helper.make_node("Reshape", ["floor", "shape"], ["image"]),
        helper.make_node("Cast", ["image"], ["responses"], to=TensorProto.INT32),
    ]
    graph = helper.make_graph(
        nodes,
        "made",
        [
            helper.make_tensor_value_info(
                "conditions", TensorProto.FLOAT, ["batch", len(detector.conditions)]
            ),
            helper.make_tensor_value_info("noise", TensorProto.FLOAT, ["batch", NOISE]),
        ],
        [helper.make_tensor_value_info("responses", TensorProto.INT32, ["batch", *detector.shape])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def made_card(detector=ZN, training=None):
    """What `export` would say of it."""
    training = made_events(detector, particles=60, repeats=2) if training is None else training
    return {
        "name": "made",
        "kind": "generator",
        "detector": detector.name,
        "features": list(detector.features),
        "units": [feature.unit for feature in detector.conditions],
        "shape": list(detector.shape),
        "unit": detector.unit,
        "channels": "paper",
        "channel_maps": channel_maps(detector),
        "split": "canonical",
        "seed": 0,
        "particles": [],
        "settings": [],
        "noise_dim": NOISE,
        "domain": Domain.fit(training).to_card(),
    }


def made_bundle(path: Path, imitated=ZN, **changes) -> Path:
    """Writes the bundle, with changes of its card."""
    path.mkdir()
    onnx.save(made_graph(imitated), path / GRAPH)
    write_card(path, {**made_card(imitated), **changes})
    return path
