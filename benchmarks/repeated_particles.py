"""How far the mean channel sums of repeated particles are off, apart from the chance of one draw.

    python benchmarks/repeated_particles.py zn.h5 zn_wide.h5 --models NAME_OR_RUN... [--part validation] [--seeds 24] \
        [--steps 16]

MAE_c of particles with at least six responses scatters by a twentieth from one set of draws to the next. Here the
channel sums alone are drawn, which takes no time: of a model of channel sums its answer, of a factorised one its first
factor, with `--steps` its velocity by that many steps of Euler in place of its student. Printed are, by species: the
energy score of all events, then MAE_c of one draw a response as `evaluate` has it, mean and its error over the seeds,
and after the slash MAE_c of the mean over all draws, what is left without the chance of the model's draws. Of detectors
with grooves likewise for neutral particles whose straight line enters one, and for the rest. `width` is the spread of
the photon sum of a particle, generated over simulated, median over the particles; W1 is that of the channels.
"""

import argparse
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from caloforge.events import Events, Joined, load, split
from caloforge.io import open_events
from caloforge.metrics.channels import energy_score, mean_wasserstein
from caloforge.models.base import Readout
from caloforge.models.factorized_flow_matching import FactorizedFlowMatching
from caloforge.models.factorized_latent_flow_matching import FactorizedLatentFlowMatching
from caloforge.models.parts.inference import generate_in_memory
from caloforge.models.parts.particle_features import GrooveFeatures
from caloforge.ode.solvers import SolverConfig
from caloforge.particles import particle_name
from caloforge.runtime.folders import run_path
from caloforge.runtime.noise import standard_normals
from caloforge.training.checkpoint import load_model

LEAST = 6
"""Responses a particle needs for MAE_c."""

FEW = 3
"""Particles for which MAE_c is printed."""

FREQUENT = 100
"""Events a species needs to be printed."""


@torch.no_grad()
def drawn(folder: Path, events: Events, seeds: int, steps: int = 0) -> NDArray[np.float64]:
    """Returns channel sums of every seed, (seeds, N, K); with steps, of the velocity of a factorised model's sums."""
    _, model = load_model(folder)
    if not isinstance(model, Readout | FactorizedFlowMatching | FactorizedLatentFlowMatching):
        raise SystemExit(f"{folder} draws no channel sums")
    if isinstance(model, Readout):
        draws = [generate_in_memory(model, events.conditions, seed=seed) for seed in range(seeds)]
        return np.stack(draws).astype(np.float64)
    if steps:
        model.sums.config = model.sums.config.model_copy(update={"solver": SolverConfig(steps=steps)})
    conditions, numbers = torch.from_numpy(events.conditions), np.arange(len(events))
    features, outputs = model.sums.describe(conditions), model.sums.standardize_sums.mean.numel()
    noise = [torch.from_numpy(standard_normals(seed, numbers, outputs)) for seed in range(seeds)]
    return np.stack([model.sums(conditions, features, one).double().numpy() for one in noise])


def kinds(events: Events) -> dict[str, NDArray[np.bool_]]:
    """Returns which events are of each frequent species, and where there are grooves which particles enter one."""
    pdg = np.abs(events.pdg)
    groups = {"all": np.ones(len(events), bool)}
    groups |= {particle_name(one): pdg == one for one in np.unique(pdg) if (pdg == one).sum() >= FREQUENT}
    if events.detector.grooves is not None:
        depth = GrooveFeatures(events.detector)(torch.from_numpy(events.conditions))[:, 0].numpy()
        groups |= {"grooves": depth > 0, "others": depth == 0}
    return groups


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
    every = load(source).slices(split(source, "canonical")[arguments.part])
    _, number, counts = np.unique(every.group, return_inverse=True, return_counts=True)
    repeated = np.flatnonzero(counts[number] >= LEAST)
    _, first, number = np.unique(every.group[repeated], return_index=True, return_inverse=True)
    groups = kinds(every)
    of_particles = {name: chosen[repeated][first] for name, chosen in groups.items()}

    def by_particle(
        values: NDArray[np.float64], of: Callable[[NDArray[np.float64]], Any]
    ) -> NDArray[np.float64]:
        return np.stack([of(values[repeated][number == one]) for one in range(len(first))])

    def means(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return by_particle(values, lambda rows: rows.mean(0))

    def widths(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return by_particle(values, lambda rows: rows.sum(1).std())

    true = every.detector.readout(every.responses)
    wanted, spread = means(true), widths(true)
    header = [f"{name} ({chosen.sum()}, {of_particles[name].sum()})" for name, chosen in groups.items()]
    print(" | ".join(["model", *header, "width", "W1"]))
    for name, steps in itertools.product(arguments.models, arguments.steps):
        sums = drawn(run_path(name), every, arguments.seeds, steps)
        off = np.stack([np.abs(means(one) - wanted).mean(1) for one in sums])
        bias = np.abs(means(sums.mean(0)) - wanted).mean(1)
        cells = []
        for group, chosen in groups.items():
            cell, particles = f"{energy_score(true[chosen], sums[:8, chosen]):.2f}", of_particles[group]
            if particles.sum() >= FEW:
                error = off[:, particles].mean(1).std() / np.sqrt(len(sums))
                cell += f"; {off[:, particles].mean():.2f} ± {error:.2f} / {bias[particles].mean():.2f}"
            cells.append(cell)
        width = np.median(np.mean([widths(one) for one in sums], 0) / spread)
        w1 = np.mean([mean_wasserstein(true, one) for one in sums])
        print(" | ".join([f"{name} {steps or ''}", *cells, f"{width:.2f}", f"{w1:.2f}"]), flush=True)


if __name__ == "__main__":
    main()
