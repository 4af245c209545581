"""Geant4's fast simulation: which detectors a bundle can stand in for there, and the graph that its example reads.

Geant4's Par04 example runs a graph of one input, (1, N), and reads output 0 as a flat array of cells in the order
r, phi, z of a cylinder around the particle. `par04.onnx` is that: its input is the noise and then the conditions, its
output the cells in Par04's order, permuted from the detector's own. An image of fibres is no such mesh: it has no
depth, and its cells lie fixed in the cavern, not around the particle.

The domain is the host's to guard: `par04.onnx` answers whatever it is asked. `caloforge simulate --fast` is a host in
Python that does.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from caloforge._lookup import require
from caloforge.detectors import Detector

AXES = ("r", "phi", "z")

SAME = {"r": "r", "radius": "r", "phi": "phi", "angle": "phi", "z": "z", "layer": "z"}
"""Names of the axes of meshes, and Par04's."""


def check_voxels(detector: Detector, name: str) -> None:
    """Raises ValueError where a detector is no mesh of voxels.

    Args:
        detector: the detector of a run.
        name: of the run, for the message.
    """
    axes = tuple(detector.axes or ())
    if sorted(SAME.get(axis, axis) for axis in axes) != sorted(AXES):
        raise ValueError(
            f"--target geant4 needs a voxel detector, with the axes {', '.join(AXES)} around the particle (or layer, "
            f"angle, radius); {name} is for {detector.name}, with the axes {', '.join(axes) or 'none'}"
        )
    if len({(layer.edges, layer.angles) for layer in detector.layers}) > 1:
        raise ValueError(f"--target geant4 needs layers alike, {detector.name} of {name} has several kinds")


def permutation(detector: Detector) -> list[int]:
    """Returns which axis of the detector is Par04's first, second and third."""
    axes = [SAME[axis] for axis in detector.axes]
    return [axes.index(axis) for axis in AXES]


def mesh(detector: Detector, noise_dim: int) -> dict[str, Any]:
    """Returns what a host must know, for the card."""
    order = permutation(detector)
    return {
        "input": f"(1, {noise_dim + len(detector.features)}): {noise_dim} standard normals, then "
        + ", ".join(f"{feature.name} [{feature.unit}]" for feature in detector.conditions),
        "output": f"cells in {detector.unit}, flat: index = (r * {detector.shape[order[1]]} + phi) * "
        f"{detector.shape[order[2]]} + z",
        "permutation": order,
        "shape": [detector.shape[axis] for axis in order],
        **({"rings": list(detector.layers[0].edges), "unit_of_rings": "mm"} if detector.layers else {}),
    }


def par04_graph(graph: Any, detector: Detector, noise_dim: int) -> Any:
    """Puts the graph of a generator into the form that Par04 reads.

    Args:
        graph: of conditions (B, F) and noise (B, D), with one output (B, *shape).
        detector: a mesh of voxels.
        noise_dim: D.
    """
    onnx = require("onnx", "export")
    helper, kinds = onnx.helper, onnx.TensorProto
    result = onnx.ModelProto()
    result.CopyFrom(graph)
    inner, features = result.graph, len(detector.features)
    output = inner.output[0].name
    constants = {
        "par04_sizes": np.array([noise_dim, features]),
        "par04_flat": np.array([-1, detector.cells]),
    }
    inner.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in constants.items())
    del inner.input[:]
    inner.input.append(helper.make_tensor_value_info("input", kinds.FLOAT, ["batch", noise_dim + features]))
    inner.node.insert(
        0,
        helper.make_node("Split", ["input", "par04_sizes"], ["noise", "conditions"], "par04_split", axis=1),
    )
    inner.node.extend(
        [
            helper.make_node("Cast", [output], ["par04_energies"], "par04_cast", to=kinds.FLOAT),
            helper.make_node(
                "Transpose", ["par04_energies"], ["par04_mesh"], "par04_permute",
                perm=[0, *(axis + 1 for axis in permutation(detector))],
            ),
            helper.make_node("Reshape", ["par04_mesh", "par04_flat"], ["cells"], "par04_reshape"),
        ]
    )  # fmt: skip
    del inner.output[:]
    inner.output.append(helper.make_tensor_value_info("cells", kinds.FLOAT, ["batch", detector.cells]))
    return result
