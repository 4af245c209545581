"""Laws of every generator and readout in the tables: a new entry is tested before its author writes a line."""

import numpy as np
import pytest
import torch

from caloforge.detectors import DS2, ZN, ZP
from caloforge.io.run import write_weights
from caloforge.models import MODELS, READOUTS
from caloforge.models.base import BatchRandom
from caloforge.models.parts.inference import generate_in_memory
from caloforge.runtime.noise import standard_normals
from caloforge.training.checkpoint import load_weights, save_weights
from caloforge.transforms import Standardize
from made import FEW, made_events
from made_showers import made_showers

SMALL = {
    "autoregressive_flow": {
        "photons": {"width": 16, "batch_size": 16},
        "place": {"width": 16, "batch_size": 16},
        "flow": {"bins": 4, "network": {"width": 8, "hidden": 16, "shared": 4}},
        "training": {"batch_size": 16},
    },
    "calodream": {
        "energy": {
            "network": "joint",
            "width": 16,
            "blocks": 1,
            "solver": {"method": "bespoke", "steps": 2},
            "bespoke": {"steps": 2, "reference": 4, "batch_size": 16},
            "batch_size": 16,
        },
        "shape": {
            "prediction": "voxels",
            "network": {"width": 12, "heads": 2, "blocks": 1, "inner": 8, "time": 4, "patch": [9, 8, 3]},
            "solver": {"method": "bespoke", "steps": 2},
            "bespoke": {"steps": 2, "reference": 4, "batch_size": 16},
            "batch_size": 16,
        },
        "cut": 0.01515,
        "average": 0.9,
        "validation_events": 20,
    },
    "diffusion": {
        "cross_attention": {"channels": [4, 4, 4], "blocks": 1, "attention": [], "groups": 2, "heads": 1},
        "steps": 2,
        "eta": 0.7,
        "limit": 2.0,
        "batch_size": 16,
    },
    "factorized_flow_matching": {
        "sums": {
            "width": 16,
            "blocks": 1,
            "solver": {"method": "bespoke", "steps": 2},
            "bespoke": {"steps": 2, "reference": 4, "batch_size": 16},
            "batch_size": 16,
        },
        "place": {"width": 16, "batch_size": 16},
        "image": {"network": {"width": 8, "blocks": 1}, "solver": {"steps": 2}, "batch_size": 16},
        "validation_events": 20,
    },
    "factorized_latent_flow_matching": {
        "sums": {
            "width": 16,
            "blocks": 1,
            "solver": {"method": "average_velocity", "steps": 1},
            "average_velocity": {"steps": 1, "teacher": 2, "batch_size": 16},
            "batch_size": 16,
        },
        "code": {"network": {"width": 8, "blocks": 1, "code": 4, "embedding": 8}, "batch_size": 16},
        "flow": {
            "width": 16,
            "blocks": 1,
            "solver": {"method": "average_velocity", "steps": 1},
            "average_velocity": {"steps": 1, "teacher": 2, "batch_size": 16},
            "batch_size": 16,
        },
        "validation_events": 20,
    },
    "flow_matching": {
        "network": {"patch": 4, "blocks": 1},
        "solver": {"method": "bespoke", "steps": 2},
        "bespoke": {"steps": 2, "reference": 4, "batch_size": 16},
        "batch_size": 16,
    },
    "gan": {
        "network": {"width": 8, "heads": 2, "layers": 1, "latent": 4},
        "diversity": 1.0,
        "repeats": 4,
        "whole": True,
        "grain": True,
        "light": True,
        "particle": True,
        "batch_size": 16,
    },
    "inverse_autoregressive_flow": {
        "photons": {"width": 16, "batch_size": 16},
        "place": {"width": 16, "batch_size": 16},
        "flow": {"bins": 4, "network": {"width": 8, "hidden": 16, "shared": 4}},
        "training": {"batch_size": 16},
        "distillation": {"channel": True, "batch_size": 16},
    },
    "latent_flow_matching": {
        "vae": {"batch_size": 16},
        "latents": "sample",
        "solver": {"method": "bespoke", "steps": 2},
        "bespoke": {"steps": 2, "reference": 4, "batch_size": 16},
        "batch_size": 16,
    },
    "gradient_boosting": {"candidates": 1},
    "tree": {"candidates": 2},
    "sinkhorn_autoencoder": {
        "network": {"width": 8, "heads": 2, "layers": 1, "latent": 4},
        "code": 6,
        "hidden": 8,
        "batch_size": 16,
    },
    "vit_vae": {"network": {"width": 8, "heads": 2, "layers": 1, "latent": 4}, "batch_size": 16},
    "vqgan": {
        "image": {"codes": 16, "batch_size": 16},
        "condition": {"codes": 8, "batch_size": 16},
        "particle": {
            "hidden": 16,
            "photons": {"width": 16, "batch_size": 16},
            "place": {"width": 16, "batch_size": 16},
        },
        "prior": {"network": {"width": 16, "hidden": 16, "layers": 1, "heads": 2}, "batch_size": 16},
        "validation_events": 16,
    },
}
"""Settings that keep a model's training short; the defaults where a model has none here."""


SHOWERS = ("calodream", "nearest", "resample")
"""Models of detectors of voxels."""

FLOWS = ("autoregressive_flow", "inverse_autoregressive_flow")
"""Models that take a step for every cell, and their students: tested on few cells."""

IMAGES = tuple(name for name in (*MODELS, *READOUTS) if name not in ("calodream", *FLOWS))
"""Models of the ZDC."""


def trained(name, detector):
    kind = {**MODELS, **READOUTS}[name]
    events = (
        made_showers(detector, rows=80) if detector.layers else made_events(detector, particles=20, repeats=4)
    )
    torch.manual_seed(0)
    model = kind(detector, kind.config_class.model_validate(SMALL.get(name, {})))
    for stage in model.stages(events):
        for number, batch in enumerate(stage.batches(events, np.random.default_rng(0))):
            if number < 2:
                rows = slice(0, len(batch))
                stage.step(batch, BatchRandom(number, rows, len(batch)), lambda loss: loss.backward())
    return model.eval(), events


@pytest.fixture(
    scope="module",
    params=[(name, d) for name in IMAGES for d in (ZN, ZP)]
    + [(name, DS2) for name in SHOWERS]
    + [(name, FEW) for name in FLOWS],
    ids=lambda p: f"{p[0]}-{p[1].name}",
)
def case(request):
    name, detector = request.param
    return *trained(name, detector), name


def inputs(model, events, rows=8):
    noise = standard_normals(1, np.arange(rows), model.noise_dim)
    return torch.from_numpy(events.conditions[:rows]), torch.from_numpy(noise)


@torch.no_grad()
def test_shape_unit_and_physical_values(case):
    model, events, name = case
    output = model(*inputs(model, events))
    expected = model.detector.shape if name in MODELS else (len(model.detector.channel_map("paper").labels),)
    assert output.shape == (8, *expected)
    assert output.dtype == torch.float32
    assert torch.isfinite(output).all()
    assert (output >= 0).all()
    if name in MODELS and not model.detector.layers:
        assert torch.equal(output, output.round())


@torch.no_grad()
def test_equal_noise_gives_equal_events(case):
    model, events, _ = case
    torch.testing.assert_close(model(*inputs(model, events)), model(*inputs(model, events)), atol=0, rtol=0)


@torch.no_grad()
def test_an_event_is_the_same_in_any_batch(case):
    model, events, name = case
    conditions, noise = inputs(model, events)
    together, alone = model(conditions, noise), model(conditions[5:6], noise[5:6])
    if name in MODELS:  # a count may flip where the sum before rounding is within rounding of an integer
        different = ~torch.isclose(together[5:6], alone, atol=1e-3, rtol=1e-3)
        assert different.float().mean() < 0.01
    else:
        torch.testing.assert_close(together[5:6], alone, atol=1e-3, rtol=1e-4)


@torch.no_grad()
def test_order_does_not_matter(case):
    model, events, _ = case
    conditions, noise = inputs(model, events)
    shuffled = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    different = model(conditions[shuffled], noise[shuffled]) != model(conditions, noise)[shuffled]
    assert different.float().mean() < 0.01


@torch.no_grad()
def test_saving_and_loading_changes_nothing(case, tmp_path):
    model, events, _ = case
    save_weights(model, tmp_path / "weights.safetensors")
    fresh = type(model)(model.detector, model.config)
    load_weights(fresh, tmp_path / "weights.safetensors")
    torch.testing.assert_close(
        fresh.eval()(*inputs(model, events)), model(*inputs(model, events)), atol=0, rtol=0
    )


@torch.no_grad()
def test_generation_does_without_what_only_the_training_needs(case, tmp_path):
    model, events, _ = case
    parts = tuple(f"{part}." for part in getattr(model, "training_only", ()))
    state = {key: tensor.numpy() for key, tensor in model.state_dict().items()}
    kept = {key: array for key, array in state.items() if not (parts and key.startswith(parts))}
    assert (len(kept) < len(state)) == bool(parts)
    write_weights(tmp_path / "weights.safetensors", kept)
    fresh = type(model)(model.detector, model.config)
    load_weights(fresh, tmp_path / "weights.safetensors")
    torch.testing.assert_close(
        fresh.eval()(*inputs(model, events)), model(*inputs(model, events)), atol=0, rtol=0
    )
    first = next(iter(kept))
    write_weights(tmp_path / "fewer.safetensors", {key: kept[key] for key in kept if key != first})
    with pytest.raises(ValueError, match="weights of another model"):
        load_weights(fresh, tmp_path / "fewer.safetensors")


def test_every_trained_parameter_gets_a_gradient(case):
    model, events, _ = case
    for stage in model.stages(events):
        seen: set[str] = set()
        names = [n for n, _ in stage.modules()["module"].named_parameters()]
        for number in range(3):  # zero-initialised gates open with the first updates
            stage.step(events, BatchRandom(number, slice(0, 80), 80), lambda loss: loss.backward())
            seen |= {
                n
                for n, p in stage.modules()["module"].named_parameters()
                if p.grad is not None and p.grad.any()
            }
        assert sorted(set(names) - seen) == []


def test_what_is_standardised_has_mean_0_and_spread_1(case):
    model, events, _ = case
    seen = {}

    def keep(name, part, output):
        seen.setdefault(name, []).append(output.detach().reshape(-1, part.mean.numel()))

    parts = [(name, part) for name, part in model.named_modules() if isinstance(part, Standardize)]
    for stage in model.stages(events):
        next(iter(stage.batches(events, np.random.default_rng(0))))  # prepares
        hooks = [
            part.register_forward_hook(lambda part, _, output, name=name: keep(name, part, output))
            for name, part in parts
        ]
        stage.step(events, BatchRandom(0, slice(0, 80), 80), lambda loss: None)
        for hook in hooks:
            hook.remove()
    for name, outputs in seen.items():
        values = torch.cat(outputs)
        spread, mean = values.std(0, correction=0), values.mean(0)
        # codes and dequantized counts have noise of their own in them
        assert mean.abs().max() < 0.3, name
        assert ((spread - 1).abs() < 0.3).logical_or(spread < 1e-3).all(), name


@pytest.mark.slow
@torch.no_grad()
def test_every_stage_is_judged_by_what_it_trains(case):
    model, events, _ = case
    some = events.slices(slice(0, 16))
    for stage in model.stages(events):
        next(iter(stage.batches(events, np.random.default_rng(0))))  # prepares
        modules = stage.modules()
        network = modules.get("average", modules["module"])
        before, weights = stage.validate(some), {k: v.clone() for k, v in network.state_dict().items()}
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
        after = stage.validate(some)
        network.load_state_dict(weights)
        assert before[stage.best_by] != after[stage.best_by], stage.name


def test_generation_in_memory_pads_the_last_batch(case):
    model, events, _ = case
    whole = generate_in_memory(model, events.conditions[:11], seed=4, batch_size=4)
    part = generate_in_memory(model, events.conditions[:6], seed=4, batch_size=4)
    np.testing.assert_array_equal(whole[:6], part)
