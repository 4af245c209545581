"""Channel sums against evaluations of the network: Euler, midpoint and bespoke solvers of a factorised model.

    python benchmarks/solvers.py RUN --train FILE... --test FILE... [--steps 2 4 6 8 16] [--updates 300]

Bespoke solvers are fitted to the run's frozen network on training folds (batches of 100, as a training would).
Scored on the test folds of all test files together: `error`, root mean square distance of the standardised sums from
a precise solution (midpoint, 100 steps, same noise); energy score of each particle's distribution (four draws) and W1
of the channels, each over `--repeats` seeds as min / median / max.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from caloforge.detectors import Detector
from caloforge.events import Events, Joined, Part, split
from caloforge.io import open_events
from caloforge.metrics.channels import energy_score, mean_wasserstein
from caloforge.models.factorized_flow_matching import FactorizedFlowMatching
from caloforge.models.parts.sums import Sums
from caloforge.ode.bespoke import BespokeConfig, BespokeSolver, frozen
from caloforge.ode.solvers import SolverConfig, integrate
from caloforge.optim import build
from caloforge.runtime.noise import standard_normals
from caloforge.training.checkpoint import load_model

Loss = Literal["local", "global"]
LOSSES: tuple[Loss, ...] = ("local", "global")


def part(files: list[Path], detector: Detector, name: Part) -> Events:
    """Reads one part of the canonical split of all files."""
    source = Joined([open_events(file, detector) for file in files])
    return source.slices(split(source, "canonical", 0)[name])


def fitted(sums: Sums, events: Events, steps: int, loss: Loss, updates: int) -> BespokeSolver:
    """Fits a bespoke solver."""
    solver, config = BespokeSolver(steps), BespokeConfig(steps=steps, loss=loss)
    optimizer, schedule = build(solver.parameters(), config.optimizer, updates)
    rng, noise = np.random.default_rng(0), torch.Generator().manual_seed(0)
    for _ in range(updates):
        conditions = torch.from_numpy(events.conditions[rng.integers(0, len(events), config.batch_size)])
        x0 = torch.randn(len(conditions), sums.outputs, generator=noise)
        with frozen(sums):
            value = solver.loss(sums.velocity(sums.describe(conditions)), x0, config)
            optimizer.zero_grad()
            value.backward()
        optimizer.step()
        schedule.step()
    return solver


def main() -> None:
    """Prints one row a solver and number of evaluations."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--train", type=Path, nargs="+", required=True)
    parser.add_argument("--test", type=Path, nargs="+", required=True)
    parser.add_argument("--steps", type=int, nargs="+", default=[2, 4, 6, 8, 16])
    parser.add_argument("--updates", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    _, model = load_model(arguments.run)
    assert isinstance(model, FactorizedFlowMatching)
    factor = model.sums
    training = part(arguments.train, model.detector, "train")
    test = part(arguments.test, model.detector, "test")
    true = model.detector.readout(test.responses, model.config.channels)
    conditions = torch.from_numpy(test.conditions)
    velocity = factor.velocity(factor.describe(conditions))

    def noise(seed: int) -> torch.Tensor:
        return torch.from_numpy(standard_normals(seed, np.arange(len(test)), factor.outputs))

    def sums(x1: torch.Tensor) -> NDArray[np.float64]:
        values: NDArray[np.float64] = factor.read(x1, conditions).double().numpy()
        return values

    def show(
        name: str, evaluations: int, solve: Callable[[torch.Tensor], torch.Tensor], fitting: float = 0.0
    ) -> None:
        draws = [solve(noise(seed)) for seed in range(4 * arguments.repeats)]
        error = float((draws[0] - precise).square().mean().sqrt())
        found = [sums(x1) for x1 in draws]
        groups = [np.stack(found[4 * i : 4 * i + 4]) for i in range(arguments.repeats)]
        scores = np.array([energy_score(true, group) for group in groups])
        w1 = np.array([mean_wasserstein(true, group[0]) for group in groups])
        spread = [f"{v.min():.2f} / {np.median(v):.2f} / {v.max():.2f}" for v in (scores, w1)]
        print(
            f"| {name} | {evaluations} | {error:.4f} | {spread[0]} | {spread[1]} | {fitting:.0f} |",
            flush=True,
        )

    with torch.no_grad():
        precise = integrate(velocity, noise(0), SolverConfig(method="midpoint", steps=100))
    print(f"{arguments.run.name}, {len(test)} test rows, torch {torch.__version__}\n")
    print("| solver | evaluations | error | energy score | W1 [photons] | fitted in [s of a core] |")
    print("|---|---|---|---|---|---|")
    for steps in arguments.steps:
        with torch.no_grad():
            show("euler", steps, partial(integrate, velocity, solver=SolverConfig(steps=steps)))
            half = SolverConfig(method="midpoint", steps=max(steps // 2, 1))
            show("midpoint", 2 * half.steps, partial(integrate, velocity, solver=half))
        for loss in LOSSES:
            started = time.process_time()
            solver = fitted(factor, training, steps, loss, arguments.updates)
            fitting = time.process_time() - started
            with torch.no_grad():
                show(f"bespoke, {loss}", steps, partial(solver, velocity), fitting)


if __name__ == "__main__":
    main()
