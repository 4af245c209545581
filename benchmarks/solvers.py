"""Quality against evaluations of the network: rules, bespoke solvers and average velocities of one factor of a model.

    python benchmarks/solvers.py RUN --data FILE... [--factor sums|code|energies] [--part validation|test] \
        [--steps 1 2 4 6 16] [--fit 1 2 4] [--fits bespoke path identity] [--updates 600]

Solvers and students are fitted to the run's frozen network on training rows: average velocities with batches of 256,
as many updates as `--updates` says, bespoke solvers with batches of 100 and half as many. What the run itself has
trained is scored too. All are scored on the same rows with the same noise, by

- `error`: root mean square distance of the factor's end x_1 from a precise solution (midpoint, 40 steps);
- sums: energy score of each particle's distribution (four draws), W1 and MAE_c of the channels [photons];
- code: of images with the true sums, W1 of the radius and of the lit cells [cells];
- energies: energy score of ln(1 + E_l / unit) (four draws), W1 of E_tot / E_inc.

Each over `--repeats` seeds as min / median / max. `python tools/pictures.py evaluations` draws what is printed.
"""

import argparse
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from caloforge.events import Events, Joined, Part, split, with_responses
from caloforge.io import open_events
from caloforge.metrics.channels import energy_score, mean_wasserstein, wasserstein
from caloforge.metrics.conditional import mae_c
from caloforge.metrics.images import w1_lit, w1_radius
from caloforge.metrics.observables import Observables, observe
from caloforge.models.calodream import CaloDream
from caloforge.models.factorized_flow_matching import FactorizedFlowMatching
from caloforge.models.factorized_latent_flow_matching import FactorizedLatentFlowMatching
from caloforge.models.parts.layer_energies import JointEnergies
from caloforge.models.parts.sums import interval_conditioned
from caloforge.nn.velocity_network import VelocityNetwork
from caloforge.ode.average_velocity import Average, AverageVelocityConfig, average_loss, leap
from caloforge.ode.bespoke import BespokeConfig, BespokeSolver, frozen
from caloforge.ode.path import Velocity
from caloforge.ode.solvers import Method, SolverConfig, integrate, step_times
from caloforge.optim import build, update_average
from caloforge.runtime.noise import standard_normals
from caloforge.training.checkpoint import load_model

DRAWS = 4
"""Draws of each event for an energy score."""

RULES: tuple[Method, ...] = ("euler", "midpoint")
TARGETS: tuple[Literal["path", "identity"], ...] = ("path", "identity")


class Factor(ABC):
    """One flow of a trained model.

    Attributes:
        numbers: that it draws, K.
        network: of the velocity.
        bespoke: the solver that was trained with it.
        trained: the average velocities that were trained with it.
        steps: of these.
        end: the last time.
    """

    numbers: int
    network: nn.Module
    bespoke: BespokeSolver | None
    trained: VelocityNetwork | None
    steps: int
    end: float = 1.0

    @abstractmethod
    def velocity(self, events: Events) -> Velocity:
        """Returns the velocity for some events."""

    @abstractmethod
    def average(self, student: VelocityNetwork, events: Events) -> Average:
        """Returns the average velocities that a student gives for some events."""

    @abstractmethod
    def student(self) -> VelocityNetwork:
        """Returns a student that starts as its teacher."""

    @abstractmethod
    def scores(self, draws: list[Tensor], events: Events) -> dict[str, float]:
        """Scores `DRAWS` draws of x_1, (B, K) each."""


class SumsFactor(Factor):
    """Channel sums."""

    def __init__(self, model: FactorizedFlowMatching | FactorizedLatentFlowMatching) -> None:
        self.sums, self.channels = model.sums, model.config.channels
        self.numbers, self.network = self.sums.outputs, self.sums.network
        self.bespoke, self.trained = self.sums.solver, self.sums.average_velocity
        self.steps = self.sums.config.average_velocity.steps

    def _features(self, events: Events) -> Tensor:
        return self.sums.describe(torch.from_numpy(events.conditions))

    def velocity(self, events: Events) -> Velocity:
        """As the model's own."""
        return self.sums.velocity(self._features(events))

    def average(self, student: VelocityNetwork, events: Events) -> Average:
        """As the model's own."""
        return interval_conditioned(student, self._features(events))

    def student(self) -> VelocityNetwork:
        """Of the sizes of the velocity network."""
        config = self.sums.config
        return told(self.network, self.numbers, self.sums.features, config.width, config.blocks)

    def scores(self, draws: list[Tensor], events: Events) -> dict[str, float]:
        """Scores the channels."""
        true = events.detector.readout(events.responses, self.channels)
        conditions = torch.from_numpy(events.conditions)
        sums = np.stack([self.sums.read(x1, conditions).double().numpy() for x1 in draws])
        sets = [Observables(events.primaries, values) for values in (true, sums[0])]
        return {
            "energy score": energy_score(true, sums),
            "W1": mean_wasserstein(true, sums[0]),
            "MAE_c": mae_c(sets[0], sets[1]).value,
        }


class CodeFactor(Factor):
    """The code of the rest of the image."""

    def __init__(self, model: FactorizedLatentFlowMatching) -> None:
        self.model = model
        self.numbers, self.network = model.config.code.network.code, model.flow
        self.bespoke, self.trained = model.flow_solver, model.flow_average_velocity
        self.steps = model.config.flow.average_velocity.steps

    def _known(self, events: Events) -> tuple[Tensor, Tensor, Tensor]:
        """Returns conditions, sums, and what the flow knows of an event."""
        counts = events.detector.readout(events.responses, self.model.config.channels)
        conditions, sums = torch.from_numpy(events.conditions), torch.from_numpy(counts).float()
        sums = self.model.sums.counted(sums, conditions)
        logs = self.model.standardize_logs(torch.log1p(sums))
        return conditions, sums, torch.cat([self.model.sums.describe(conditions), logs], 1)

    def velocity(self, events: Events) -> Velocity:
        """As the model's own, with the true sums."""
        average = interval_conditioned(self.model.flow, self._known(events)[2])
        return lambda x, t: average(x, t, t)  # a network that knows no intervals gives the velocity

    def average(self, student: VelocityNetwork, events: Events) -> Average:
        """As the model's own, with the true sums."""
        return interval_conditioned(student, self._known(events)[2])

    def student(self) -> VelocityNetwork:
        """Of the sizes of the velocity network."""
        config, known = self.model.config.flow, self.model.sums.told + self.model.sums.outputs
        return told(self.network, self.numbers, known, config.width, config.blocks)

    def scores(self, draws: list[Tensor], events: Events) -> dict[str, float]:
        """Scores images with the true sums, drawn with the same noise for the photons."""
        conditions, sums, known = self._known(events)
        cells = events.detector.cells
        noise = torch.from_numpy(standard_normals(99, np.arange(len(events)), cells + 1))
        z = self.model.standardize_code.inverse(draws[0])
        inputs = (conditions, known, sums, z, noise[:, :-1], noise[:, -1])
        parts = [
            self.model.draw_image(*part)
            for part in zip(*(torch.split(one, 256) for one in inputs), strict=True)
        ]
        generated = with_responses(events.primaries, torch.cat(parts).numpy())
        true, drawn = observe(events), observe(generated)
        return {
            "W1 of the radius": w1_radius(true, drawn).value,
            "W1 of lit cells": w1_lit(true, drawn).value,
        }


class EnergiesFactor(Factor):
    """Layer energies, all at once."""

    def __init__(self, model: CaloDream) -> None:
        assert isinstance(model.energy, JointEnergies)
        self.model, self.energy = model, model.energy
        if self.energy.law is not None:
            raise ValueError("energies whose total has a law are measured by benchmarks/calodream.py layers")
        self.numbers, self.network, self.end = self.energy.noise_dim, self.energy.network, self.energy.end
        self.bespoke, self.trained = model.energy_solver, model.energy_average_velocity
        self.steps = model.config.energy.average_velocity.steps

    def velocity(self, events: Events) -> Velocity:
        """As the model's own."""
        average = self.energy.average(self.energy.network, torch.from_numpy(events.conditions), None)
        return lambda x, t: average(x, t, t)

    def average(self, student: VelocityNetwork, events: Events) -> Average:
        """As the model's own."""
        return self.energy.average(student, torch.from_numpy(events.conditions), None)

    def student(self) -> VelocityNetwork:
        """Of the sizes of the velocity network."""
        student = self.energy.student()
        student.load_state_dict(self.network.state_dict(), strict=False)
        return student

    def scores(self, draws: list[Tensor], events: Events) -> dict[str, float]:
        """Scores the layers, read off the end of the path."""
        true, incident = (
            events.detector.readout(events.responses, "layers"),
            torch.from_numpy(events.conditions),
        )
        unit, energy = self.model.config.unit, events.conditions[:, 0].astype(np.float64)
        layers = np.stack(
            [self.energy.draw(incident, x1, lambda velocity, x, _: x).double().numpy() for x1 in draws]
        )
        return {
            "energy score": energy_score(np.log1p(true / unit), np.log1p(layers / unit)),
            "W1 of E_tot/E_inc, x 1000": 1000 * wasserstein(true.sum(1) / energy, layers[0].sum(1) / energy),
        }


def told(teacher: nn.Module, *sizes: int) -> VelocityNetwork:
    """Returns a student of a velocity network that starts as it."""
    student = VelocityNetwork(*sizes, until=True)
    student.load_state_dict(teacher.state_dict(), strict=False)
    return student


def leaped(average: Average, times: list[float], x0: Tensor) -> Tensor:
    """Leaps from x0, (B, K), along the times."""
    return leap(average, x0, times)


def factor_of(model: nn.Module, name: str) -> Factor:
    """Returns a factor of a model."""
    if name == "sums" and isinstance(model, FactorizedFlowMatching | FactorizedLatentFlowMatching):
        return SumsFactor(model)
    if name == "code" and isinstance(model, FactorizedLatentFlowMatching):
        return CodeFactor(model)
    if name == "energies" and isinstance(model, CaloDream):
        return EnergiesFactor(model)
    raise SystemExit(f"{type(model).__name__} has no factor {name}")


def fitted_solver(factor: Factor, events: Events, steps: int, updates: int) -> BespokeSolver:
    """Fits a bespoke solver."""
    solver, config = BespokeSolver(steps, factor.end), BespokeConfig(steps=steps, reference=20)
    optimizer, schedule = build(solver.parameters(), config.optimizer, updates)
    rng, noise = np.random.default_rng(0), torch.Generator().manual_seed(0)
    for _ in range(updates):
        batch = events.slices(rng.integers(0, len(events), config.batch_size))
        x0 = torch.randn(len(batch), factor.numbers, generator=noise)
        with frozen(factor.network):
            value = solver.loss(factor.velocity(batch), x0, config)
            optimizer.zero_grad()
            value.backward()
        optimizer.step()
        schedule.step()
    return solver


def fitted_student(
    factor: Factor, events: Events, config: AverageVelocityConfig, updates: int
) -> VelocityNetwork:
    """Fits average velocities and returns the moving average of their network."""
    student, kept = factor.student(), factor.student()
    optimizer, schedule = build(student.parameters(), config.optimizer, updates)
    rng, noise = np.random.default_rng(0), torch.Generator().manual_seed(0)
    several = config.steps * config.teacher if config.target == "identity" else 1
    size = max(config.batch_size // several, 1)
    for number in range(updates):
        batch = events.slices(rng.integers(0, len(events), size))
        x0, u = (
            draw(size, n, generator=noise) for draw, n in ((torch.randn, factor.numbers), (torch.rand, 3))
        )
        with frozen(factor.network):
            each = average_loss(
                factor.average(student, batch),
                factor.velocity(batch),
                x0,
                u,
                config,
                factor.end,
                shares=factor.end < 1,
            )
            optimizer.zero_grad()
            each.mean().backward()
        nn.utils.clip_grad_norm_(student.parameters(), config.optimizer.gradient_clip or float("inf"))
        optimizer.step()
        schedule.step()
        update_average(kept, student, config.average, number + 1)
    return kept


def main() -> None:
    """Prints one row a solver and number of evaluations."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--factor", choices=("sums", "code", "energies"), default="sums")
    parser.add_argument("--part", choices=("validation", "test"), default="validation")
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4, 6, 16])
    parser.add_argument("--fit", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--fits", nargs="+", default=["bespoke", *TARGETS])
    parser.add_argument("--updates", type=int, default=600)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--rows", type=int, default=100_000, help="of those that judge, spread evenly over all"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    recipe, model = load_model(arguments.run)
    factor = factor_of(model, arguments.factor)
    source = Joined([open_events(file, model.detector) for file in arguments.data])
    parts = split(source, recipe.data.split, recipe.seed)
    part: Part = arguments.part
    some = np.unique(np.linspace(0, len(parts[part]) - 1, min(arguments.rows, len(parts[part]))).astype(int))
    training, judged = source.slices(parts["train"]), source.slices(parts[part][some])
    printed = False
    shares = factor.end < 1

    def noise(seed: int) -> Tensor:
        return torch.from_numpy(standard_normals(seed, np.arange(len(judged)), factor.numbers))

    def show(name: str, evaluations: int, go: Callable[[Tensor], Tensor], fitting: float = 0.0) -> None:
        with torch.no_grad():
            draws = [go(noise(seed)) for seed in range(DRAWS * arguments.repeats)]
            groups = [draws[DRAWS * i : DRAWS * (i + 1)] for i in range(arguments.repeats)]
            scores = [factor.scores(group, judged) for group in groups]
        error = float((draws[0] - precise).square().mean().sqrt())
        values = {key: [score[key] for score in scores] for key in scores[0]}
        nonlocal printed
        if not printed:
            printed = True
            print(f"| solver | evaluations | error | {' | '.join(values)} | fitted in [s of a core] |")
            print(f"|{'---|' * (len(values) + 4)}")
        spread = " | ".join(f"{min(v):.3g} / {np.median(v):.3g} / {max(v):.3g}" for v in values.values())
        print(f"| {name} | {evaluations} | {error:.4f} | {spread} | {fitting:.0f} |", flush=True)

    print(f"{arguments.run.name}, {arguments.factor}, {len(judged)} {part} rows, torch {torch.__version__}\n")
    with torch.no_grad():
        velocity = factor.velocity(judged)

        def rule(method: Method, steps: int) -> Callable[[Tensor], Tensor]:
            config = SolverConfig(method=method, steps=steps)
            return lambda x: integrate(velocity, x, config, factor.end, shares=shares)

        precise = rule("midpoint", 40)(noise(0))
    for steps in arguments.steps:
        show("euler", steps, rule("euler", steps))
        if steps > 1:
            show("midpoint", 2 * (steps // 2), rule("midpoint", steps // 2))
    if factor.bespoke is not None:
        show("bespoke, of the run", factor.bespoke.steps, partial(factor.bespoke, velocity))
    if factor.trained is not None:
        with torch.no_grad():
            average = factor.average(factor.trained, judged)
        times = step_times(factor.end, factor.steps, shares=shares)
        show("average velocity, of the run", factor.steps, partial(leaped, average, times))
    for steps in arguments.fit:
        if "bespoke" in arguments.fits:
            started = time.process_time()
            solver = fitted_solver(factor, training, steps, arguments.updates // 2)
            show("bespoke", steps, partial(solver, velocity), time.process_time() - started)
        for target in (target for target in TARGETS if target in arguments.fits):
            config = AverageVelocityConfig(steps=steps, target=target)
            started = time.process_time()
            student = fitted_student(factor, training, config, arguments.updates)
            fitting = time.process_time() - started
            with torch.no_grad():
                average = factor.average(student, judged)
            times = step_times(factor.end, steps, shares=shares)
            show(f"average velocity, {target}", steps, partial(leaped, average, times), fitting)


if __name__ == "__main__":
    main()
