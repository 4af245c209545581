"""Runs of small models, fitted but hardly trained, made without the training loop."""

import numpy as np
import torch

from caloforge.detectors import ZN
from caloforge.io import create
from caloforge.io.card import Budget, Card, DataFile
from caloforge.io.files import sha256
from caloforge.io.run import Run
from caloforge.models import build, resolved
from caloforge.models.base import Readout
from caloforge.recipe import Recipe
from caloforge.training.checkpoint import save_weights
from made import made_events

SMALL = {
    "channel_flow_matching": {"width": 16, "blocks": 1, "solver": {"steps": 3}},
    "channel_mlp": {"width": 16, "layers": 1},
    "factorized_flow_matching": {
        "sums": {"width": 16, "blocks": 1, "solver": {"steps": 3}},
        "image": {"network": {"width": 8, "blocks": 1}, "solver": {"steps": 2}},
    },
    "factorized_latent_flow_matching": {
        "sums": {"width": 16, "blocks": 1, "solver": {"steps": 3}},
        "code": {"network": {"width": 8, "blocks": 1, "code": 4, "embedding": 8}},
        "flow": {
            "width": 16,
            "blocks": 1,
            "average_velocity": {"steps": 2},
            "solver": {"method": "average_velocity", "steps": 2},
        },
    },
    "flow_matching": {
        "network": {"patch": 4, "blocks": 1, "multipliers": (1, 2), "attention": (1,)},
        "prediction": "data",
        "solver": {"steps": 3},
    },
    "latent_flow_matching": {
        "vae": {"network": {"blocks": 1}},
        "network": {"base": 8, "multipliers": (1, 2), "blocks": 1},
        "solver": {"steps": 3},
    },
    "linear": {},
    "nearest": {},
    "vqgan": {
        "image": {"codes": 16},
        "condition": {"codes": 8},
        "particle": {"hidden": 16, "photons": {"width": 16}, "place": {"width": 16}},
        "prior": {"network": {"width": 16, "hidden": 16, "layers": 1, "heads": 2}},
    },
}


def made_run(folder, name, **changes):
    events = made_events(particles=60, repeats=4)
    folder.mkdir()
    path = folder / "made.h5"
    with create(path, ZN) as writer:
        writer.append(events)
    recipe = resolved(
        Recipe(
            name=f"zn-{name}",
            detector="zn",
            data={"files": [str(path)]},
            model={"type": name, **SMALL[name], **changes},
        )
    )
    torch.manual_seed(0)
    model = build(recipe)
    train = np.flatnonzero(events.fold >= 3)
    model.stages(events.slices(train))
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():  # zeros that training would have left
                parameter.normal_(std=0.05)
    run = Run(folder)
    run.write_recipe(recipe)
    save_weights(model, run.weights)
    run.write_card(
        Card(
            format=1,
            name=recipe.name,
            type=name,
            kind="readout" if isinstance(model, Readout) else "generator",
            detector="zn",
            features=ZN.features,
            units=tuple(feature.unit for feature in ZN.conditions),
            channels="paper",
            data=(DataFile(name="made.h5", sha256=sha256(path), rows={"train": len(train)}),),
            split="canonical",
            particles=(),
            seed=0,
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            version="0.0",
            training=Budget(seconds=1.0, machine="here", epochs=1, best_epoch=1),
        )
    )
    return folder
