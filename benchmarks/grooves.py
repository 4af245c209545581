"""Light and zero response of neutral particles by how deep their straight line flies along a groove of the ZN.

    python benchmarks/grooves.py EVENTS... --trials TRIALS... [--models NAME_OR_RUN...] [--part test]

Lines that meet the face within 2.9 cm of its middle. First photons of light per GeV of training events, mean and number
of rows, then the share of primaries of all folds that the ZN sees, and, of all primaries of a part, the log loss of
models of the zero response with P(ZN) observed and predicted.
"""

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from caloforge.detectors import ZN
from caloforge.events import Joined, load
from caloforge.io import open_events, open_trials
from caloforge.models.parts.inference import probabilities_in_memory
from caloforge.models.parts.particle_features import GrooveFeatures, ImpactFeatures
from caloforge.models.zero_response import log_loss
from caloforge.particles import particle_name
from caloforge.runtime.folders import run_path
from caloforge.training.checkpoint import load_classifier
from caloforge.trials import joined_trials

EDGES = (0.0, 0.3, 0.6, 0.8, 1.0)
"""Of depths over the length of the module."""

SPECIES = (22, 2112)


def depths(conditions: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Returns the depth of each line, (N,), and whether it meets the middle of the face."""
    given = torch.from_numpy(conditions)
    depth = GrooveFeatures(ZN)(given)[:, 0].double().numpy()
    return depth, (np.abs(ImpactFeatures(ZN).impact(given).numpy()) < 2.9).all(1)


def bins(depth: NDArray[np.float64]) -> dict[str, NDArray[np.bool_]]:
    """Returns which lines are in each bin of depth."""
    inner = {
        f"{low:g} to {high:g}": (depth > low) & (depth <= high) & (depth < 1) for low, high in pairwise(EDGES)
    }
    return {"enters none": depth == 0, **inner, "stays in it": depth == 1}


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("events", nargs="+")
    parser.add_argument("--trials", nargs="+", required=True)
    parser.add_argument("--models", nargs="+", default=["zdc-zero_response"])
    parser.add_argument("--part", choices=("test", "validation"), default="test")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    events = load(Joined([open_events(Path(file)) for file in arguments.events]))
    depth, middle = depths(events.conditions)
    light = events.responses.sum((1, 2)) / events.conditions[:, 0]
    for pdg in SPECIES:
        rows = middle & (events.pdg == pdg) & (events.fold >= 3)
        cells = [
            f"{name}: {light[rows & one].mean():.3f} ({(rows & one).sum()})"
            for name, one in bins(depth).items()
        ]
        print(f"{particle_name(pdg)}, light per GeV | " + " | ".join(cells))
    trials = joined_trials([open_trials(Path(file), detector=ZN) for file in arguments.trials]).slices(
        slice(None)
    )
    trials = trials.slices(np.flatnonzero(trials.trials > 0))
    depth, middle = depths(trials.conditions)
    outcomes = trials.outcomes()
    seen = outcomes[:, 1] + outcomes[:, 3]
    for pdg in SPECIES:
        rows = middle & (trials.pdg == pdg)
        shares = [
            f"{name}: {seen[rows & one].sum() / outcomes[rows & one].sum():.3f}"
            for name, one in bins(depth).items()
        ]
        print(f"{particle_name(pdg)}, share seen | " + " | ".join(shares))
    part = trials.fold < 2 if arguments.part == "test" else trials.fold == 2
    for name in arguments.models:
        _, model = load_classifier(run_path(name))
        for title, chosen in (("all", depth >= 0), ("enter a groove", depth > 0), ("stay in it", depth == 1)):
            rows = np.flatnonzero(part & chosen)
            some = trials.slices(rows)
            found = probabilities_in_memory(model, some.conditions)
            shots = outcomes[rows].sum(1)
            predicted = float((found[:, 0] * shots).sum() / shots.sum())
            print(
                f"{name}, {title} ({len(rows)}): log loss {log_loss(some, found):.4f}, P(ZN) observed "
                f"{seen[rows].sum() / shots.sum():.3f}, predicted {predicted:.3f}"
            )


if __name__ == "__main__":
    main()
