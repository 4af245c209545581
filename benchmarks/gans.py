"""What a GAN makes of light and of its discriminator, after a few hundred updates or as a run left it.

    python benchmarks/gans.py short zn-gan --data zn_wide.h5 [--steps 360] [--set model.KEY=VALUE...]
    python benchmarks/gans.py runs RUN... --data zn.h5 zn_wide.h5 [--every 1]

`short` trains a recipe, its schedule cut to so many updates, on the first rows of the training fold, each seen once. It
prints every 40 updates the means of losses and of the share of images that the discriminator takes for what they are,
and of the last batch, made and GEANT's: photon sum, lit cells, brightest cell, and how the logarithms of the sums of
the same particles are correlated. At the end W1 on 1,024 validation rows.

`runs` prints of each run on the validation fold, GEANT's own above:

light           mean photon sum of photons and of neutrons by energy, and the photon sums of all: quantiles
one particle    of particles with ten rows, the standard deviation of ln(1 + sum) within a particle: a generator that
                gives the same image whatever its noise has none
cells           the rate of cells by content over that of GEANT
discriminator   where the run has its last checkpoint: quantiles of the logits of GEANT's images and of made ones, and
                the share that it takes for what they are
"""

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from caloforge import recipe as recipes
from caloforge.events import Events, Joined, Selected, load, split
from caloforge.io import open_events
from caloforge.models import build
from caloforge.models.base import BatchRandom
from caloforge.models.gan import GAN, AdversarialStage
from caloforge.models.parts.inference import channel_scores, generate_in_memory, spread_rows
from caloforge.training.checkpoint import load_checkpoint, load_model

ENERGIES = (10, 300, 1000, 2000, 3000, 7000)
"""In GeV."""

EDGES = (1, 2, 3, 4, 8, 16, 32, 64, 100, 250, 10**6)
"""Of cells, in photons."""

QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99, 0.999)

SPECIES = {"photons": 22, "neutrons": 2112}


def line(*cells: object) -> None:
    """Prints a row of a table."""
    print("|", " | ".join(str(cell) for cell in cells), "|", flush=True)


def header(*cells: object) -> None:
    """Prints the head of a table."""
    print()
    line(*cells)
    line(*["---"] * len(cells))


def by_energy(events: Events, total: NDArray[np.float64]) -> list[str]:
    """Returns the mean sum of each species in each range of energy."""
    energy, values = events.conditions[:, 0], []
    for code in SPECIES.values():
        for low, high in pairwise(ENERGIES):
            rows = (events.pdg == code) & (energy >= low) & (energy < high)
            values.append(f"{total[rows].mean():.0f}" if rows.any() else "")
    return values


def within(events: Events, total: NDArray[np.float64]) -> float:
    """Returns the mean standard deviation of ln(1 + sum) of particles with ten rows."""
    groups, counts = np.unique(events.group, return_counts=True)
    spreads = [np.log1p(total[events.group == group]).std() for group in groups[counts >= 10]]
    return float(np.mean(spreads)) if spreads else float("nan")


def content(responses: NDArray[np.float32]) -> NDArray[np.float64]:
    """Counts cells an event by content."""
    return np.histogram(responses[responses > 0], EDGES)[0] / len(responses)


@torch.no_grad()
def logits(path: Path, train: Selected, events: Events) -> tuple[Tensor, Tensor]:
    """Returns what the discriminator of a run's last checkpoint says of GEANT's images and of made ones, (N,) each."""
    state = load_checkpoint(path / "checkpoint.pt")
    recipe = recipes.read(path / "recipe.toml")
    model = build(recipes.parse(recipe))
    assert isinstance(model, GAN)
    stage = model.stages(train)[0]
    assert isinstance(stage, AdversarialStage)
    model.load_state_dict(state["model"])
    stage.load_state_dict(state["stage"])
    real, made = [], []
    for start in range(0, len(events), 256):
        batch = events.slices(slice(start, start + 256))
        rows = BatchRandom(start, slice(0, len(batch)), len(batch), torch.device("cpu"))
        theirs, true = stage.logits(batch, rows)
        made.append(theirs)
        real.append(true)
    return torch.cat(real), torch.cat(made)


def short(arguments: argparse.Namespace) -> None:
    """Trains a recipe for a few hundred updates and prints a row every 40."""
    recipe = recipes.parse(
        recipes.with_settings(recipes.read(arguments.recipe), [*arguments.settings, "model.epochs=1"])
    )
    torch.manual_seed(recipe.seed)
    model = build(recipe)
    assert isinstance(model, GAN)
    source = Joined([open_events(path) for path in arguments.data])
    parts, size = split(source, "canonical"), model.config.batch_size
    events = load(source).slices(parts["train"][: arguments.steps * size])
    stage = model.stages(events)[0]
    assert isinstance(stage, AdversarialStage)
    order = np.random.default_rng(0).permutation(len(events))
    names, logged = ("sum", "lit cells", "brightest"), []
    header("update", "discriminator", "told", "generator", *names, "correlation")
    for step in range(len(events) // size):
        batch = events.slices(order[step * size : (step + 1) * size])
        random = BatchRandom(step, slice(0, size), size)
        logged.append(stage.step(batch, random, lambda loss: loss.backward()))
        if (step + 1) % 40:
            continue
        counts = [torch.expm1(image) for image in stage.pair(batch, random)]
        sums = [image.sum((1, 2)) for image in counts]
        lit = [(image > 0.5).float().sum((1, 2)) for image in counts]
        pairs = [[f"{value.mean():.0f}" for value in values] for values in (sums, lit)]
        pairs.append([f"{image.max():.0f}" for image in counts])
        together = np.corrcoef(*(np.log1p(values.numpy()) for values in sums))[0, 1]
        means = [
            np.mean([values[key] for values in logged]) for key in ("discriminator", "told", "generator")
        ]
        line(step + 1, *(f"{value:.3f}" for value in means), *map("/".join, pairs), f"{together:.2f}")
        logged = []
    rows = spread_rows(Selected(source, parts["validation"]), 1024)
    print(channel_scores(rows, generate_in_memory(model, rows.conditions, 0)))


def show(arguments: argparse.Namespace) -> None:
    """Prints the tables of runs."""
    source = Joined([open_events(path) for path in arguments.data])
    parts = split(source, "canonical")
    train, events = (
        Selected(source, parts["train"]),
        load(source).slices(parts["validation"][:: arguments.every]),
    )
    responses = {"GEANT": events.responses.astype(np.float32)}
    for path in arguments.runs:
        _, model = load_model(path)
        responses[path.name] = generate_in_memory(model, events.conditions, 0)
    sums = {name: images.sum((1, 2), dtype=np.float64) for name, images in responses.items()}
    ranges = [f"{name}, {low} to {high} GeV" for name in SPECIES for low, high in pairwise(ENERGIES)]
    header("mean sum", *ranges)
    for name, total in sums.items():
        line(name, *by_energy(events, total))
    header("quantiles of the sum", *QUANTILES, "within a particle")
    for name, total in sums.items():
        line(
            name, *(f"{value:.0f}" for value in np.quantile(total, QUANTILES)), f"{within(events, total):.3f}"
        )
    true = content(responses["GEANT"])
    header("cells with", *EDGES[:-1])
    for name, images in responses.items():
        line(name, *(f"{value:.3g}" for value in (content(images) / true if name != "GEANT" else true)))
    header("logits", *(f"GEANT, {q}" for q in QUANTILES), *(f"made, {q}" for q in QUANTILES), "told")
    for path in arguments.runs:
        if (path / "checkpoint.pt").is_file():
            real, made = logits(path, train, events)
            told = float(((real > 0).float().mean() + (made < 0).float().mean()) / 2)
            quantiles = [np.quantile(values.numpy(), QUANTILES) for values in (real, made)]
            line(path.name, *(f"{value:.2f}" for value in np.concatenate(quantiles)), f"{told:.3f}")


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = parser.add_subparsers(dest="part", required=True)
    trained = parts.add_parser("short")
    trained.add_argument("recipe")
    trained.add_argument("--steps", type=int, default=360)
    trained.add_argument("--set", dest="settings", nargs="+", default=[])
    left = parts.add_parser("runs")
    left.add_argument("runs", nargs="+", type=Path)
    left.add_argument("--every", type=int, default=1)
    for part in (trained, left):
        part.add_argument("--data", nargs="+", required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    {"short": short, "runs": show}[arguments.part](arguments)


if __name__ == "__main__":
    main()
