"""Begins a run at a later stage, with weights that another run has trained up to it.

    python tools/later_stage.py RECIPE WEIGHTS OUT --stage STAGE... [--only MODULE...] [--sums READOUT] \
        [--data FILE...] [--set KEY=VALUE...]
    caloforge train RECIPE ... --out OUT --resume

The run is what a training from nothing would be, if its stages before had given these weights: batches and noise of
a stage depend on the seed and the stage's number alone. With one `--stage` all after it are trained too, with several
these and no others. With `--only` the weights of these modules are taken and the others start from nothing, so that
one autoencoder can have several models behind it.

With `--sums` the velocity of the channel sums is that of a run of `channel_flow_matching`, which trains the same
network from the same features where both have `transport`, and no stages but those named are trained.
"""

import argparse
from pathlib import Path
from typing import Any

import torch

from caloforge import recipe as recipes
from caloforge.events import Selected, split
from caloforge.io import sha256
from caloforge.io.run import Run, read_weights
from caloforge.models import build, resolved
from caloforge.training.checkpoint import load_weights, save_checkpoint
from caloforge.training.fit import History, derived_seed
from caloforge.training.run import joined, training_data

SUMS = ("standardize", "standardize_sums", "network")
"""Modules that a model of channel sums and the first factor of a factorised one both have."""


def take_sums(model: torch.nn.Module, readout: Run) -> None:
    """Gives the first factor of a factorised model the weights of a model of channel sums."""
    own = {name: value for name, value in model.state_dict().items() if name.startswith("sums.")}
    theirs = {
        f"sums.{name}": torch.from_numpy(value) for name, value in read_weights(readout.weights).items()
    }
    wanted = [name for name in own if name.split(".")[1] in SUMS]
    missing = [name for name in wanted if name not in theirs or theirs[name].shape != own[name].shape]
    if missing:
        raise ValueError(f"{readout.path} has other channel sums: {missing[0]} does not fit")
    model.load_state_dict({name: theirs[name] for name in wanted}, strict=False)


def main() -> None:
    """Writes recipe and checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe")
    parser.add_argument("weights", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--stage", nargs="+", required=True)
    parser.add_argument("--only", nargs="+", default=[])
    parser.add_argument("--sums", type=Path)
    parser.add_argument("--data", nargs="+", default=[])
    parser.add_argument("--set", dest="settings", nargs="+", default=[])
    arguments = parser.parse_args()
    values = recipes.with_settings(recipes.read(arguments.recipe), arguments.settings)
    if arguments.data:
        values["data"]["files"] = arguments.data
    recipe = resolved(recipes.parse(values))
    torch.manual_seed(derived_seed(recipe.seed, "weights"))
    model = build(recipe)
    files = training_data(recipe)
    source = joined(files.values(), trials=False)
    train = Selected(source, split(source, recipe.data.split, recipe.seed)["train"])
    stages = model.stages(train)
    numbers = {stage.name: number for number, stage in enumerate(stages)}
    unknown = [name for name in arguments.stage if name not in numbers]
    if unknown:
        parser.error(f"no stage {unknown[0]!r}; there are {', '.join(numbers)}")
    before = Run(arguments.weights)
    if arguments.only:
        kept = {
            name: torch.from_numpy(tensor)
            for name, tensor in read_weights(before.weights).items()
            if name.startswith(tuple(f"{module}." for module in arguments.only))
        }
        model.load_state_dict(kept, strict=False)
    else:
        load_weights(model, before.weights)
    chosen = sorted(numbers[name] for name in arguments.stage)
    number = chosen[0]
    alone = len(chosen) > 1 or arguments.sums
    given = [n for n in range(number, len(stages)) if n not in chosen] if alone else []
    rows: list[dict[str, Any]] = [
        dict(row) for row in before.log() if numbers.get(row["stage"], -1) in {*range(number), *given}
    ]
    if arguments.sums:
        take_sums(model, Run(arguments.sums))
        sums = [{**row, "stage": "sums"} for row in Run(arguments.sums).log()]
        rows = sums + [row for row in rows if row["stage"] != "sums"]
    seconds = float(rows[-1]["seconds"]) if rows else 0.0
    history = History([sha256(path) for path in files], stage=number, seconds=seconds, rows=rows, given=given)
    run = Run(arguments.out)
    arguments.out.mkdir(parents=True)
    run.write_recipe(recipe)
    state = {
        "history": vars(history),
        "model": model.state_dict(),
        "stage": stages[number].state_dict(),
    }
    save_checkpoint(state, run.checkpoint)


if __name__ == "__main__":
    main()
