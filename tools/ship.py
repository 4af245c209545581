"""Makes a trained run the weights that ship: src/caloforge/samples/weights/NAME.

    python tools/ship.py RUN...

Large weights are stored in half precision, in several files where one would be too large, and what only the training
needs is left out; paths are cut to names.
Evaluate the shipped run afterwards, so that its scores are those of what ships:

    caloforge evaluate src/caloforge/samples/weights/NAME --reference sample:zn_wide --reference sample:zn
    python tools/ship.py --scores src/caloforge/samples/weights/NAME

The second command cuts the scores' paths to names and drops the generated events.
"""

import argparse
import shutil
from pathlib import Path

import numpy as np

from caloforge import samples
from caloforge.io.files import sha256, write_json
from caloforge.io.run import Run, read_weights, write_weights
from caloforge.io.scores import read_scores
from caloforge.models import Generator, build
from caloforge.recipe import Recipe

LIMIT = 2_000_000
"""Bytes a file may have."""

TOTAL = 4_000_000
"""Bytes a model may have."""

HEADER = 50_000
"""Bytes of a file that are left for names and shapes of its arrays."""


def ship(run: Run) -> Path:
    """Copies recipe, card, log and weights."""
    card, recipe = run.card(), run.recipe()
    folder = Path(samples.__file__).parent / "weights" / recipe.name
    folder.mkdir(parents=True, exist_ok=True)
    target = Run(folder)
    files = tuple(Path(file).name for file in recipe.data.files)
    target.write_recipe(recipe.model_copy(update={"data": recipe.data.model_copy(update={"files": files})}))
    shutil.copyfile(run.path / "log.csv", folder / "log.csv")
    left_out = training_only(recipe)
    tensors = {
        name: tensor.astype(np.float16) if tensor.dtype == np.float32 and tensor.size > 1000 else tensor
        for name, tensor in read_weights(run.weights).items()
        if not name.startswith(tuple(f"{module}." for module in left_out))
    }
    for path in folder.glob("weights*.safetensors"):
        path.unlink()
    write_weights(target.weights, tensors, limit=LIMIT - HEADER)
    sizes = [path.stat().st_size for path in folder.glob("weights*.safetensors")]
    if max(sizes) > LIMIT or sum(sizes) > TOTAL:
        raise ValueError(
            f"weights in {folder} must have at most {LIMIT:,} bytes a file and {TOTAL:,} in all, got {sizes}"
        )
    without = f", without {', '.join(left_out)}, which only the training needs" if left_out else ""
    target.write_card(
        card.model_copy(
            update={
                "weights": sha256(target.weights),
                "storage": f"large weights in float16, trained in float32{without}",
            }
        )
    )
    return folder


def training_only(recipe: Recipe) -> tuple[str, ...]:
    """Returns the modules of a recipe's model that generation does without."""
    model = build(recipe)
    return model.training_only if isinstance(model, Generator) else ()


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
    arguments = parser.parse_args()
    for path in arguments.runs:
        if arguments.scores:
            cut_scores(Run(path))
        else:
            print(ship(Run(path)))


if __name__ == "__main__":
    main()
