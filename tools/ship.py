"""Makes a trained run the weights that ship: src/caloforge/samples/weights/NAME.

    python tools/ship.py RUN...

Large weights are stored in half precision, in several files where one would be too large, and what only the training
needs is left out, but for encoders that fit: with them a flow or a prior can be trained anew on the same codes. Paths
are cut to names.
Where a run has trained some modules only, and others have changed since in what ships, these alone are exchanged:

    python tools/ship.py RUN --modules decoder flow_average_velocity --sections model.code.distillation

takes these modules, the stages of the log that have their names or trained them (`--stages`), and these sections of the
recipe from the run, and everything else from the weights that ship.

Evaluate the shipped run afterwards, so that its scores are those of what ships:

    caloforge evaluate src/caloforge/samples/weights/NAME --reference sample:zn_wide --reference sample:zn
    python tools/ship.py --scores src/caloforge/samples/weights/NAME

The second command cuts the scores' paths to names and drops the generated events.
"""

import argparse
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from caloforge import samples
from caloforge.io.card import Card
from caloforge.io.files import sha256, write_json
from caloforge.io.run import Run, read_weights, write_weights
from caloforge.io.scores import read_scores
from caloforge.models import Generator, build
from caloforge.recipe import Recipe, parse
from caloforge.training.checkpoint import load_model

LIMIT = 2_000_000
"""Bytes a file may have."""

TOTAL = 4_000_000
"""Bytes a model may have."""

ENCODER = ".encoder."
"""What names of an encoder's weights hold."""

HEADER = 50_000
"""Bytes of a file that are left for names and shapes of its arrays."""


def ship(run: Run) -> Path:
    """Copies recipe, card, log and weights."""
    card, recipe = run.card(), run.recipe()
    folder = Path(samples.__file__).parent / "weights" / recipe.name
    folder.mkdir(parents=True, exist_ok=True)
    target = Run(folder)
    files = tuple(Path(file).name for file in recipe.data.files)
    start = recipe.start and Path(recipe.start).name
    data = recipe.data.model_copy(update={"files": files})
    target.write_recipe(recipe.model_copy(update={"data": data, "start": start}))
    shutil.copyfile(run.path / "log.csv", folder / "log.csv")
    write_stored(target, read_weights(run.weights), card, recipe)
    return folder


def exchange(run: Run, modules: Sequence[str], sections: Sequence[str], stages: Sequence[str]) -> Path:
    """Takes some modules, sections of the recipe and stages of the log into the weights that ship.

    Raises:
        ValueError: nothing ships under this name.
    """
    recipe = run.recipe()
    target = Run(Path(samples.__file__).parent / "weights" / recipe.name)
    shipped, log = target.recipe().model_dump(mode="json"), target.log()
    theirs = recipe.model_dump(mode="json")
    for section in sections:
        *way, last = section.split(".")
        inner, other = shipped, theirs
        for key in way:
            inner, other = inner[key], other[key]
        inner[last] = other[last]
    changed = parse(shipped)
    prefixes = tuple(f"{module}." for module in modules)
    tensors = {
        name: tensor for name, tensor in read_weights(target.weights).items() if not name.startswith(prefixes)
    }
    tensors |= {
        name: tensor for name, tensor in read_weights(run.weights).items() if name.startswith(prefixes)
    }
    target.write_recipe(changed)
    rows = [row for row in log if row["stage"] not in stages]
    target.write_log(rows + [row for row in run.log() if row["stage"] in stages])
    model = build(changed)
    card = target.card().model_copy(
        update={
            "parameters": sum(weights.numel() for weights in model.parameters()),
            "created": run.card().created,
        }
    )
    write_stored(target, tensors, card, changed)
    load_model(target.path)
    return target.path


def write_stored(target: Run, weights: Mapping[str, NDArray[np.generic]], card: Card, recipe: Recipe) -> None:
    """Writes weights as they are stored, and the card that says so."""
    folder, left_out = target.path, training_only(recipe)
    tensors = {
        name: tensor.astype(np.float16) if tensor.dtype == np.float32 and tensor.size > 1000 else tensor
        for name, tensor in weights.items()
    }
    beside = {name for name in tensors if name.startswith(tuple(f"{module}." for module in left_out))}
    encoders = {name for name in beside if ENCODER in f".{name}"}
    needed = sum(tensor.nbytes for name, tensor in tensors.items() if name not in beside - encoders)
    if needed > TOTAL - 2 * HEADER:
        encoders = set()
    tensors = {name: tensor for name, tensor in tensors.items() if name not in beside - encoders}
    for path in folder.glob("weights*.safetensors"):
        path.unlink()
    write_weights(target.weights, tensors, limit=LIMIT - HEADER)
    sizes = [path.stat().st_size for path in folder.glob("weights*.safetensors")]
    if max(sizes) > LIMIT or sum(sizes) > TOTAL:
        raise ValueError(
            f"weights in {folder} must have at most {LIMIT:,} bytes a file and {TOTAL:,} in all, got {sizes}"
        )
    missing = ", ".join(
        f"{module} (but its encoder)" if any(name.startswith(f"{module}.") for name in encoders) else module
        for module in left_out
        if not whole(recipe, module) <= tensors.keys()
    )
    without = f", without {missing}, which only the training needs" if missing else ""
    target.write_card(
        card.model_copy(
            update={
                "weights": sha256(target.weights),
                "storage": f"large weights in float16, trained in float32{without}",
            }
        )
    )


def training_only(recipe: Recipe) -> tuple[str, ...]:
    """Returns the modules of a recipe's model that generation does without."""
    model = build(recipe)
    return model.training_only if isinstance(model, Generator) else ()


def whole(recipe: Recipe, module: str) -> set[str]:
    """Returns the names of all weights of a module of a recipe's model."""
    return {name for name in build(recipe).state_dict() if name.startswith(f"{module}.")}


def cut_scores(run: Run) -> None:
    """Cuts the paths of the scores to names."""
    scores = read_scores(run.scores).content()
    for sets in (scores["sets"], *(entry["sets"] for entry in scores["sweep"])):
        for entry in sets.values():
            entry["reference"]["path"] = Path(entry["reference"]["path"]).name
            entry["generated"] = None
            entry.pop("replicas", None)
    write_json(run.scores, scores)
    shutil.rmtree(run.path / "generated", ignore_errors=True)


def main() -> None:
    """Ships runs, or tidies their scores."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--scores", action="store_true")
    for name in ("modules", "sections", "stages"):
        parser.add_argument(f"--{name}", nargs="+", default=[])
    arguments = parser.parse_args()
    for path in arguments.runs:
        if arguments.scores:
            cut_scores(Run(path))
        elif arguments.modules:
            print(exchange(Run(path), arguments.modules, arguments.sections, arguments.stages))
        else:
            print(ship(Run(path)))


if __name__ == "__main__":
    main()
