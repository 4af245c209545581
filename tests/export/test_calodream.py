"""The chain as one graph: loops in it, one within the other for numbers drawn one after the other."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from caloforge.export.onnx import _trace, graph_of
from caloforge.models.calodream import CaloDream, CaloDreamConfig
from caloforge.models.parts.inference import as_function
from caloforge.ode.loop import repeated
from caloforge.ode.solvers import SolverConfig, integrate
from caloforge.runtime.noise import standard_normals
from caloforge.runtime.session import Session
from made_showers import TINY, made_showers

NETWORK = {"width": 12, "heads": 2, "blocks": 1, "inner": 8, "time": 4, "patch": (3, 8, 1)}
SOLVER = {"method": "midpoint", "steps": 2}
VERSIONS = {
    "paper": {
        "energy": {
            "transformer": {"width": 12, "heads": 2, "layers": 1, "inner": 8},
            "width": 16,
            "blocks": 1,
            "solver": SOLVER,
        },
        "shape": {"network": NETWORK, "solver": SOLVER},
    },
    "small": {
        "energy": {"network": "joint", "width": 16, "blocks": 1, "solver": SOLVER},
        "shape": {"prediction": "voxels", "network": NETWORK, "solver": SOLVER},
        "cut": 0.01515,
    },
    "drawn": {
        "energy": {"network": "joint", "total": "law", "width": 16, "blocks": 1, "solver": SOLVER},
        "shape": {"prediction": "drawn", "end": 0.5, "lines": True, "network": NETWORK, "solver": SOLVER},
        "cut": 0.01515,
    },
}
LEAPS = {"solver": {"method": "average_velocity", "steps": 1}, "average_velocity": {"steps": 1}}
VERSIONS["leaps"] = {
    **VERSIONS["small"],
    "energy": VERSIONS["small"]["energy"] | LEAPS,
    "shape": VERSIONS["small"]["shape"] | LEAPS,
}


class Nested(nn.Module):
    """Integrates dx/dt = scale x for each column, from what the columns before have become."""

    def forward(self, conditions, noise):
        own = torch.eye(3)

        def step(state, row):
            known = state.sum(1, keepdim=True) + conditions
            start = (noise * row).sum(1, keepdim=True)
            end = integrate(lambda x, t: known * x * t[:, None].cos(), start, SolverConfig(steps=4))
            return state + end * row

        if torch.compiler.is_exporting():
            return repeated(step, torch.zeros_like(noise), own)
        state = torch.zeros_like(noise)
        for row in own:
            state = step(state, row)
        return state


@pytest.mark.parametrize("batch", [1, 5])
def test_a_loop_within_a_loop(batch):
    graph = _trace(Nested(), {"conditions": torch.ones(3, 1), "noise": torch.zeros(3, 3)}, ["responses"])
    outer = [node for node in graph.graph.node if node.op_type == "Scan"]
    assert len(outer) == 1
    assert [node.op_type for node in outer[0].attribute[0].g.node].count("Scan") == 1
    conditions, noise = torch.rand(batch, 1), torch.randn(batch, 3)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"conditions": conditions.numpy(), "noise": noise.numpy()})
    np.testing.assert_allclose(found, Nested()(conditions, noise).numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_the_chain_as_a_graph_gives_what_pytorch_gives(version, tmp_path):
    torch.manual_seed(0)
    model = CaloDream(TINY, CaloDreamConfig.model_validate(VERSIONS[version]))
    events = made_showers(TINY, rows=40)
    model.stages(events)
    with torch.no_grad():
        for parameter in model.parameters():  # networks that start at zero get something to say
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.eval()
    onnx.save(graph_of(model, whole=False), tmp_path / "graph.onnx")
    session = Session(tmp_path / "graph.onnx")
    assert session.shape == TINY.shape
    for batch in (1, 3, 17):
        noise = standard_normals(batch, np.arange(batch), model.noise_dim)
        conditions = events.conditions[:batch]
        wanted, found = as_function(model)(conditions, noise), session(conditions, noise)
        far = np.abs(np.log1p(wanted) - np.log1p(found)) > 1e-4  # a voxel at its threshold may flip
        assert far.mean() < 1e-3
        np.testing.assert_allclose(
            TINY.readout(found, "layers"), TINY.readout(wanted, "layers"), rtol=1e-4, atol=1e-3
        )
