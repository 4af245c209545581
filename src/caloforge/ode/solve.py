"""The solver that a configuration asks for: a rule, a bespoke solver, or average velocities."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from caloforge.ode.average_velocity import Average, AverageVelocityConfig, leap
from caloforge.ode.bespoke import BespokeConfig, BespokeSolver, Conditioned
from caloforge.ode.path import Velocity
from caloforge.ode.solvers import SolverConfig, integrate, step_times

UNTRAINED = SolverConfig(method="midpoint", steps=6)
"""What a velocity is followed by while the network of its average is not trained: the path it will learn from."""

UNROLLED = 16
"""Most evaluations that an exported graph holds one after another; more are a loop."""


def check_solver(
    solver: SolverConfig, bespoke: BespokeConfig, average_velocity: AverageVelocityConfig | None = None
) -> None:
    """Raises ValueError where what is asked for is not trained, or not with so many steps.

    Args:
        solver: what is asked for.
        bespoke: the bespoke solver that is trained.
        average_velocity: the average velocities; None for a model that has none.
    """
    if solver.method == "bespoke" and solver.steps != bespoke.steps:
        trained = f"of {bespoke.steps} steps" if bespoke.steps else "(bespoke.steps = 0)"
        raise ValueError(
            f"solver.method = 'bespoke' needs solver.steps as trained, got {solver.steps} and a bespoke solver "
            f"{trained}"
        )
    if solver.method != "average_velocity":
        return
    if average_velocity is None:
        raise ValueError("solver.method = 'average_velocity': this model has none")
    if not average_velocity.steps:
        raise ValueError(
            "solver.method = 'average_velocity' needs them to be trained, got average_velocity.steps = 0"
        )
    if average_velocity.target == "path" and solver.steps != average_velocity.steps:
        raise ValueError(
            f"solver.method = 'average_velocity' with the target 'path' needs solver.steps as trained, "
            f"{average_velocity.steps}, got {solver.steps}"
        )


def solve(
    velocity: Velocity,
    x0: Tensor,
    solver: SolverConfig,
    bespoke: BespokeSolver | None,
    average: Average | None = None,
    end: float = 1.0,
    *,
    shares: bool = False,
) -> Tensor:
    """Goes from t = 0 to the end by the solver asked for, which `check_solver` has seen.

    Args:
        velocity: v(x, t).
        x0: the start, (B, *).
        solver: what is asked for.
        bespoke: the bespoke solver, of the same end.
        average: the average velocities; None where they are not trained yet: `UNTRAINED` does for them.
        end: the last time.
        shares: as in `step_times`; a bespoke solver has times of its own.

    Returns:
        x at the end, (B, *).
    """
    if solver.method == "average_velocity" and average is None:
        solver = UNTRAINED
    if torch.compiler.is_exporting() and solver.steps <= UNROLLED:
        followed = _followed(
            velocity, x0, solver, bespoke, average, step_times(end, solver.steps, shares=shares)
        )
        if followed is not None:
            return followed
    if solver.method == "bespoke" and bespoke is not None:
        x: Tensor = bespoke(velocity, x0)
        return x
    if average is not None and solver.method == "average_velocity":
        return leap(average, x0, step_times(end, solver.steps, shares=shares))
    return integrate(velocity, x0, solver, end, shares=shares)


def _followed(
    velocity: Velocity,
    x0: Tensor,
    solver: SolverConfig,
    bespoke: BespokeSolver | None,
    average: Average | None,
    ends: list[float],
) -> Tensor | None:
    """Lets a network that can follow a path by itself, for an exported graph; None where there is none."""
    function = average if solver.method == "average_velocity" else velocity
    follow = getattr(function.network, "follow", None) if isinstance(function, Conditioned) else None
    if follow is None or not isinstance(function, Conditioned):
        return None
    if solver.method == "bespoke" and bespoke is not None:
        x: Tensor = follow(x0, bespoke.times()[:-1], bespoke.weights(), function.condition)
        return x
    if solver.method not in ("euler", "average_velocity"):
        return None
    times = torch.tensor(ends, dtype=x0.dtype)
    ways = [last - first for first, last in pairwise(ends)]
    weights = [torch.tensor([1.0, *ways[: i + 1]], dtype=x0.dtype) for i in range(len(ways))]
    later = times[1:] if solver.method == "average_velocity" else None
    x = follow(x0, times[:-1], weights, function.condition, later)
    return x
