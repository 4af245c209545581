"""What a GAN makes of light and of its discriminator, on the validation fold.

    python benchmarks/gans.py RUN... --data zn.h5 zn_wide.h5 [--every 1]

Printed of each run, GEANT's own above:

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
from caloforge.models.parts.inference import generate_in_memory
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
        seen = stage.told_apart(batch, rows)
        real.append(seen[0])
        made.append(seen[1])
    return torch.cat(real), torch.cat(made)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--every", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
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


if __name__ == "__main__":
    main()
