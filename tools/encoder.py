"""Fits an encoder to a decoder that ships without one, and leaves everything else as it is.

    python tools/encoder.py zn-vqgan RUN --data zn.h5 zn_wide.h5 [--epochs 1] [--set KEY=VALUE...]
    python tools/ship.py RUN --modules image.encoder --stages encoder

A flow or a prior can then be trained anew on latents or tokens of what ships (`tools/later_stage.py`). The first stage
of the recipe is trained, with its losses, all weights held but those of the encoder, and the codes of a codebook too.
"""

import argparse
from functools import partial
from pathlib import Path

import torch
from lightning_fabric import Fabric

from caloforge import recipe as recipes
from caloforge import samples
from caloforge.events import Selected, split
from caloforge.io.files import sha256
from caloforge.io.run import Run
from caloforge.models import Generator, build
from caloforge.nn.quantizer import Codebook
from caloforge.training.checkpoint import load_weights, save_weights
from caloforge.training.fit import Fitting, History, derived_seed
from caloforge.training.run import in_beam_spot, joined, training_data


def encoder_of(model: Generator) -> str:
    """Returns the name of the encoder that a model's weights may lack.

    Raises:
        ValueError: it has none.
    """
    names = [name for name in model.training_only if name.endswith("encoder")]
    if not names:
        raise ValueError(f"{type(model).__name__} has no encoder that only the training needs")
    return names[0]


def main() -> None:
    """Writes a run folder with the weights that ship and an encoder beside them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name")
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--set", dest="settings", nargs="+", default=[])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    shipped = Run(samples.weights()[arguments.name])
    values = recipes.with_settings(shipped.recipe().model_dump(mode="json"), arguments.settings)
    values["data"]["files"] = arguments.data
    recipe = recipes.parse(values)
    torch.manual_seed(derived_seed(recipe.seed, "encoder"))
    model = build(recipe)
    assert isinstance(model, Generator)
    encoder = encoder_of(model)

    files = training_data(recipe)
    source = joined(files.values(), trials=False)
    parts = split(source, recipe.data.split, recipe.seed)
    train, validation = Selected(source, parts["train"]), Selected(source, parts["validation"])
    stage = model.stages(train)[0]
    load_weights(model, shipped.weights)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(f"{encoder}."))
    for module in model.modules():
        if isinstance(module, Codebook):  # its codes follow the vectors otherwise
            module.decay, module.dead = 1.0, 0.0

    run = Run(arguments.out)
    arguments.out.mkdir(parents=True)
    run.write_recipe(recipe)
    stage.name, stage.epochs = "encoder", arguments.epochs
    history = History([sha256(path) for path in files])
    displaced = partial(in_beam_spot, train, recipe, 0)
    judged = in_beam_spot(validation, recipe, "validation")
    fabric = Fabric(accelerator="cpu", devices=1)
    Fitting(stage, model, displaced, judged, fabric, run, recipe.seed, recipe.training, history).fit()
    save_weights(model, run.weights)
    run.write_card(shipped.card().model_copy(update={"weights": sha256(run.weights)}))
    for row in run.log():
        print({key: value for key, value in row.items() if value not in ("", None)})


if __name__ == "__main__":
    main()
