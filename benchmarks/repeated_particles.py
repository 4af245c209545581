"""How far the mean channel sums of repeated particles are off, apart from the chance of one draw.

    python benchmarks/repeated_particles.py zn.h5 zn_wide.h5 --models NAME_OR_RUN... [--part validation] [--seeds 24] \
        [--steps 16]

MAE_c of particles with at least six responses scatters by a twentieth from one set of draws to the next. Here the
channel sums alone are drawn, which takes no time: of a model of channel sums its answer, of a factorised one its first
factor, with `--steps` its velocity by that many steps of Euler in place of its student. Printed are, by species: MAE_c
of one draw a response as `evaluate` has it, mean and its error over the seeds, and after the slash MAE_c of the mean
over all draws, what is left without the chance of the model's draws. Of detectors with grooves likewise for neutral
particles whose straight line enters one, and for the rest. `width` is the spread of the photon sum of a particle,
generated over simulated, median over the particles; energy score and W1 are those of the same events.
"""

import argparse
import itertools
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from caloforge.events import Events, Joined, load, split
from caloforge.io import open_events
from caloforge.metrics.channels import energy_score, mean_wasserstein
from caloforge.models.base import Readout
from caloforge.models.parts.inference import generate_in_memory
from caloforge.models.parts.particle_features import GrooveFeatures
from caloforge.ode.solvers import SolverConfig
from caloforge.particles import particle_name
from caloforge.runtime.folders import run_path
from caloforge.runtime.noise import standard_normals
from caloforge.training.checkpoint import load_model

LEAST = 6
"""Responses a particle needs."""


@torch.no_grad()
def drawn(folder: Path, events: Events, seeds: int, steps: int = 0) -> NDArray[np.float64]:
    """Returns channel sums of every seed, (seeds, N, K); with steps, of the velocity of a factorised model's sums."""
    _, model = load_model(folder)
    if steps:
        model.sums.config = model.sums.config.model_copy(update={"solver": SolverConfig(steps=steps)})
    if isinstance(model, Readout):
        draws = [generate_in_memory(model, events.conditions, seed=seed) for seed in range(seeds)]
        return np.stack(draws).astype(np.float64)
    conditions, numbers = torch.from_numpy(events.conditions), np.arange(len(events))
    features = model.sums.describe(conditions)
    noise = [torch.from_numpy(standard_normals(seed, numbers, model.outputs)) for seed in range(seeds)]
    return np.stack([model.sums(conditions, features, one).double().numpy() for one in noise])


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+")
    parser.add_argument("--models", nargs="+", required=True)
    parser.add_argument("--part", default="validation")
    parser.add_argument("--seeds", type=int, default=24)
    parser.add_argument("--steps", type=int, nargs="+", default=[0])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    source = Joined([open_events(file) for file in arguments.files])
    events = load(source).slices(split(source, "canonical")[arguments.part])
    _, number, counts = np.unique(events.group, return_inverse=True, return_counts=True)
    events = events.slices(np.flatnonzero(counts[number] >= LEAST))
    _, first, number = np.unique(events.group, return_index=True, return_inverse=True)
    pdg = np.abs(events.pdg[first])
    groups = {"all": np.ones(len(first), bool)}
    groups |= {particle_name(one): pdg == one for one in np.unique(pdg) if (pdg == one).sum() >= 4}
    if events.detector.grooves is not None:
        features = GrooveFeatures(events.detector)(torch.from_numpy(events.conditions[first]))
        groups |= {"grooves": features[:, 0].numpy() > 0, "others": features[:, 0].numpy() == 0}

    def means(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.stack([values[number == one].mean(0) for one in range(len(first))])

    def widths(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.stack([values[number == one].sum(1).std() for one in range(len(first))])

    true = events.detector.readout(events.responses, None)
    wanted, spread = means(true), widths(true)
    print(
        "model | "
        + " | ".join(f"{name} ({one.sum()})" for name, one in groups.items())
        + " | width | energy score | W1"
    )
    for name, steps in itertools.product(arguments.models, arguments.steps):
        sums = drawn(run_path(name), events, arguments.seeds, steps)
        off = np.stack([np.abs(means(one) - wanted).mean(1) for one in sums])
        bias = np.abs(means(sums.mean(0)) - wanted).mean(1)
        width = np.mean([widths(one) for one in sums], 0) / spread
        cells = [
            f"{off[:, one].mean():.2f} ± {off[:, one].mean(1).std() / np.sqrt(len(sums)):.2f} / {bias[one].mean():.2f}"
            for one in groups.values()
        ]
        w1 = np.mean([mean_wasserstein(true, one) for one in sums])
        last = [f"{np.median(width):.2f}", f"{energy_score(true, sums[:8]):.3f}", f"{w1:.2f}"]
        print(" | ".join([f"{name} {steps or ''}", *cells, *last]), flush=True)


if __name__ == "__main__":
    main()
