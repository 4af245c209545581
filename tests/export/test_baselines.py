"""Graphs of the baselines give what PyTorch gives, in one graph, the steps of the diffusion in a loop."""

import numpy as np
import onnx
import pytest
import torch

from caloforge.detectors import ZP
from caloforge.export.onnx import check_exportable, graph_of
from caloforge.models import MODELS
from caloforge.models.parts.inference import as_function
from caloforge.runtime.session import Session

VIT = {"width": 8, "heads": 2, "layers": 1, "latent": 4}
SMALL = {"patch": 4, "blocks": 1, "multipliers": [2, 3], "attention": [1]}
UNET = {"architecture": "unet", "network": SMALL, "prediction": "data", "steps": 5}
CROSS = {"channels": [4, 8], "blocks": 1, "attention": [1], "groups": 2, "heads": 2}
CASES = {
    "gan": ("gan", {"network": VIT}),
    "vit_vae": ("vit_vae", {"network": VIT}),
    "sinkhorn_autoencoder": ("sinkhorn_autoencoder", {"network": VIT, "hidden": 8}),
    "diffusion, one start": ("diffusion", UNET),
    "diffusion, fresh noise": ("diffusion", {"cross_attention": CROSS, "steps": 5, "eta": 0.7, "limit": 3.0}),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_graph_gives_what_pytorch_gives(case, tmp_path):
    name, config = CASES[case]
    torch.manual_seed(0)
    kind = MODELS[name]
    model = kind(ZP, kind.config_class.model_validate({**config, "rounding": "none"})).eval()
    for parameter in model.parameters():  # some start at next to nothing
        parameter.data += 0.05 * torch.randn_like(parameter)
    check_exportable(model, name)
    graph = graph_of(model, whole=False)
    if name == "diffusion":
        assert [node.op_type for node in graph.graph.node].count("Scan") == 1
    onnx.save(graph, tmp_path / "x.onnx")
    rng = np.random.default_rng(0)
    conditions, noise = (rng.normal(size=(7, size)).astype("f4") for size in (9, model.noise_dim))
    theirs, ours = Session(tmp_path / "x.onnx")(conditions, noise), as_function(model)(conditions, noise)
    assert ours.max() > 0.1
    np.testing.assert_allclose(np.log1p(theirs), np.log1p(ours), atol=1e-4)
