"""The shipped models stay within a budget of kernel calls: at batch 1 a call costs more than what it computes."""

from unittest.mock import patch

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from caloforge import samples
from caloforge.export.onnx import graph_of
from caloforge.io import open_primaries
from caloforge.runtime.noise import standard_normals
from caloforge.training.checkpoint import load_model

CALLS = 350
"""Kernel calls of an event, after the optimizations of ONNX Runtime."""

OPERATIONS = {
    "zn-factorized_latent_flow_matching": 375,
    "zn-factorized_flow_matching": 425,
    "zp-factorized_latent_flow_matching": 380,
}
"""Operations of PyTorch on what depends on the inputs: some become no kernel call, others one together."""


class Counted(TorchDispatchMode):
    """Counts operations on given tensors and on what follows from them."""

    def __init__(self, *inputs):
        super().__init__()
        self.known, self.calls = {id(value): value for value in inputs}, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        results = function(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        if any(id(tensor) in self.known for tensor in tensors):
            self.calls += 1
            made = [leaf for leaf in tree_leaves(results) if isinstance(leaf, torch.Tensor)]
            self.known |= {id(tensor): tensor for tensor in made}
        return results


def test_only_what_depends_on_the_inputs_is_counted():
    x, weights = torch.ones(3), torch.ones(3)
    with Counted(x) as counted:
        (weights * 2 + 1).sum()
        assert counted.calls == 0
        (x * weights).sum()
    assert counted.calls == 2


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_of_the_shipped_models(name):
    recipe, model = load_model(samples.weights()[name])
    conditions = open_primaries(samples.samples_of(recipe.detector)[0]).conditions[:2]
    noise = torch.from_numpy(standard_normals(0, np.arange(2), model.noise_dim))
    given = torch.from_numpy(conditions.copy())
    with (
        patch("torch.compiler.is_exporting", lambda: True),
        torch.no_grad(),
        Counted(given, noise) as counted,
    ):
        model(given, noise)
    assert counted.calls <= OPERATIONS[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", OPERATIONS)
def test_kernel_calls_of_the_shipped_models(name, tmp_path):
    _, model = load_model(samples.weights()[name])
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    graph = graph_of(model, whole=True).SerializeToString()
    onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    assert len(onnx.load(tmp_path / "optimized.onnx").graph.node) <= CALLS
