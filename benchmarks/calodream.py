"""CaloDREAM, measured: layer energies, solvers, cache, cost of the networks.

    python benchmarks/calodream.py energies RUN... --showers FILE [--seeds 5] [--epochs 200] [--smear 0.2]
    python benchmarks/calodream.py layers RUN... --showers FILE [--seeds 5] [--methods midpoint:2 midpoint:4]
    python benchmarks/calodream.py solvers RUN --showers FILE [--evaluations 4 8 16] [--out FIGURE]
    python benchmarks/calodream.py reading RUN... --showers FILE [--ends 0.5] [--evaluations 0 2 4 8]
    python benchmarks/calodream.py windows RUN... --showers FILE [--seeds 3]
    python benchmarks/calodream.py latent RUN --showers FILE [--rows 500] [--cuts 0 0.1 0.4 1]
    python benchmarks/calodream.py cache [--batch 100]
    python benchmarks/calodream.py vit [--batch 100]
    python benchmarks/calodream.py paper [--recipes ds3-calodream-paper] [--rows 4000] [--updates 2] [--sampled 4]

`energies`: can classifiers (3 x 512) tell the u of the test showers from drawn ones, with u or logit u as inputs?
Beside the runs: the floor, two halves of the test, and positive controls, the layer energies of a half smeared.
Processor time of one thread at batch 100, runs in turns.

`layers`: layer energies drawn for validation showers, by the solver of the run and by others, against those of the
simulation: `score`, energy score of ln(1 + E_l / unit); `total`, W1 of E_tot / E_inc, x 1000; `width`, spread of what
E_tot / E_inc differs from its mean at that energy over the simulation's, below 5, 20, 100 and 400 GeV and above, and
of all; `depth`, W1 of the mean layer over the spread it has at an energy, and that spread over the simulation's;
`layers`, root mean square of ln of the ratio of the spreads of ln(1 + E_l / unit) at an energy. What is smooth along
the energy is fitted to the training showers.

`solvers`: solvers of the shape network of a run, at equal numbers of evaluations. Bespoke ones are fitted to the frozen
network on training rows. Given the true layer energies, so that nothing but the solver differs; scored on test rows:
`error`, root mean square distance at the end of the path from a precise solution (midpoint, `--reference` steps, same
noise); `features`, mean over the challenge's features of Wasserstein-1 over the spread; `voxels`, separation power of
the voxel spectrum; AUC of small classifiers.

`reading`: voxels drawn at each end of the path, after so many evaluations of each solver that is a rule, and of the
bespoke solvers and average velocities that this run and others have for it; 0 evaluations draw from the noise. True
layer energies, validation showers unless told otherwise. `voxels` and `features` as above; `centres`, root mean square
over layers of ln of the ratio of the standard deviations of the centres in eta and phi, of showers below and above
100 GeV; `angle`, covariance of neighbours in angle over the variance, of whether a voxel is lit below 10 GeV and of
ln(1 + E / unit) above, after the mean of the ring in that layer of that shower was taken away, so that independent
voxels have -1 / (angles - 1); precision and recall. `python tools/pictures.py evaluations` draws what is printed.

`windows`: test showers of about 10, 50, 200 and 800 GeV, each with as many generated ones a seed, the layers drawn
too: mean and spread of E_tot / E_inc and of the mean layer, each with its standard error; share of lit voxels;
`voxels`, separation power, and `features` as above, in brackets those of as many training showers of the window, the
matched floor. All training showers of the window stand beside: what these say of mean and spread the test showers say
too, but for chance.

`latent`: what the autoencoder of a latent version makes of test showers, given the true layer energies: voxels that are
not empty over those of the simulation, separation powers of sparsity and voxel energies; voxels below each cut made
empty in what is decoded, and in the last two columns in the simulation too.

`cache`, `vit`: times of one thread, processor time, min / median / max. `paper`: a published network makes updates of
its energies, of `--rows` made events at once, of its autoencoder, if it has one, and of its shapes, in batches of the
recipe's size, and some showers; peak memory of the process.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from caloforge import recipe
from caloforge.detectors import DS2
from caloforge.evaluation.classifier import classify, inputs_of, suite
from caloforge.events import Events, EventSource, Part, split, with_responses
from caloforge.io import open_events
from caloforge.metrics.channels import energy_score, wasserstein
from caloforge.metrics.scores import halves
from caloforge.metrics.showers import Showers, compare, observe_showers, prdc, separation
from caloforge.models import build
from caloforge.models.base import BatchRandom
from caloforge.models.calodream import CaloDream
from caloforge.models.parts.inference import generate_in_memory
from caloforge.models.parts.layer_energies import scaled_energy
from caloforge.models.parts.shower_shapes import DrawnShapes, LatentShapes, shares, with_energies
from caloforge.nn.transformer import TransformerConfig
from caloforge.nn.transfusion import Transfusion
from caloforge.nn.vit import ViT, ViTConfig
from caloforge.ode.bespoke import BespokeConfig, BespokeSolver, frozen
from caloforge.ode.path import Velocity
from caloforge.ode.solve import solve
from caloforge.ode.solvers import Method, SolverConfig, integrate
from caloforge.optim import build as optimizer_of
from caloforge.runtime.noise import standard_normals
from caloforge.training.checkpoint import load_model
from caloforge.transforms import LayerEnergies, Logit, StandardizeAlong


def spread(values: Sequence[float], form: str = ".3f") -> str:
    """Shows values as min / median / max."""
    return " / ".join(format(one, form) for one in (min(values), np.median(values), max(values)))


def timed(functions: Sequence[Callable[[], object]], repeats: int = 5) -> list[list[float]]:
    """Returns processor times [ms] of each function, in turns, after one round that is not counted."""
    times: list[list[float]] = [[] for _ in functions]
    for number in range(repeats + 1):
        for function, found in zip(functions, times, strict=True):
            started = time.process_time()
            function()
            if number:
                found.append(1e3 * (time.process_time() - started))
    return times


def part(source: EventSource, name: Part) -> Events:
    """Reads one part of the ordered split."""
    return source.slices(split(source, "ordered")[name])


# Layer energies


def u_inputs(incident: Tensor, energies: Tensor, view: str) -> np.ndarray:
    """Returns what a classifier sees of layer energies, (N, 46)."""
    layers = LayerEnergies([layer.cells for layer in DS2.layers])
    u = layers.fractions(energies.double(), incident).clamp(0, 1)
    if view == "logit":
        u = Logit()(u)
    return torch.cat([scaled_energy(incident), u], 1).float().numpy()


@torch.no_grad()
def energies(arguments: argparse.Namespace) -> None:
    """Prints one row a run, floor and control."""
    test = part(open_events(arguments.showers, DS2), "test")
    incident = torch.from_numpy(test.conditions)
    true = torch.from_numpy(DS2.readout(test.responses, "layers"))
    a, b = (np.sort(rows) for rows in halves(len(test), np.random.default_rng(0)))
    every = np.arange(len(test))
    pairs = {}
    loaded = {}
    for run in arguments.runs:
        settings, model = load_model(run)
        assert isinstance(model, CaloDream)
        solver = model.config.energy.solver
        name = f"{settings.name}, {model.config.energy.network}, {solver.method} {solver.steps}"
        noise = torch.from_numpy(standard_normals(0, every, model.energy.noise_dim))
        batches = zip(incident.split(100), noise.split(100), strict=True)
        drawn = torch.cat([model.draw_energies(*batch) for batch in batches])
        pairs[name], loaded[name] = (every, drawn, every), (model, noise[:100])
    costs = timed(
        [partial(model.draw_energies, incident[:100], noise) for model, noise in loaded.values()],
        arguments.repeats,
    )
    notes = {
        name: (
            f"{sum(p.numel() for p in model.energy.parameters()):,}",
            spread([one / 100 for one in times]),
        )
        for (name, (model, _)), times in zip(loaded.items(), costs, strict=True)
    }
    controls = {"floor, halves": (a, true, b)}
    normals = torch.from_numpy(np.random.default_rng(1).standard_normal(true.shape))
    for by in arguments.smear:
        smeared = true * (1 + by * normals).clamp(min=0)
        controls[f"control, layers smeared by {100 * by:g} %, halves"] = (a, smeared, b)
    config = suite("paper").model_copy(update={"epochs": arguments.epochs})
    print(
        f"{len(test)} test showers, {config.epochs} epochs, min / median / max of {arguments.seeds} seeds\n"
    )
    print("| layer energies | AUC, u | AUC, logit u | parameters | ms a shower |\n|---|---|---|---|---|")
    for name, (first, other, second) in (pairs | controls).items():
        cells = []
        for view in ("raw", "logit"):
            ours, theirs = u_inputs(incident, true, view)[first], u_inputs(incident, other, view)[second]
            with torch.enable_grad():
                found = [
                    classify(ours, theirs, "high", DS2, config, seed).auc for seed in range(arguments.seeds)
                ]
            cells.append(spread([max(auc, 1 - auc) for auc in found]))
        print(f"| {' | '.join([name, *cells, *notes.get(name, ('', ''))])} |", flush=True)


EDGES = (0.0, 5e3, 2e4, 1e5, 4e5, np.inf)
"""Between these energies the widths of the totals are compared [MeV]."""


@torch.no_grad()
def layers(arguments: argparse.Namespace) -> None:
    """Prints one row a run and solver."""
    print("| layer energies | solver | score | total | width | of all | depth | its spread | layers | ms |")
    print("|---" * 10 + "|")
    for run in arguments.runs:
        for solver in ["", *arguments.methods]:
            method, _, steps = solver.partition(":")
            changes = [f"energy.solver.method={method}", f"energy.solver.steps={steps}"] if solver else []
            settings, model = load_model(run, changes)
            assert isinstance(model, CaloDream)
            source = open_events(arguments.showers, model.detector)
            known, judged = (
                (
                    torch.from_numpy(one.conditions),
                    torch.from_numpy(model.detector.readout(one.responses, "layers")),
                )
                for one in (part(source, "train"), part(source, arguments.part))
            )
            incident, true = judged
            started, drawn = time.process_time(), []
            for seed in range(arguments.seeds):
                noise = standard_normals(seed, np.arange(len(incident)), model.energy.noise_dim)
                drawn.append(model.draw_energies(incident, torch.from_numpy(noise)))
            cost = 1e3 * (time.process_time() - started) / len(incident) / arguments.seeds
            every, unit = torch.cat(drawn), model.config.unit
            many = incident.repeat(arguments.seeds, 1)
            total, depth, each = (StandardizeAlong(size) for size in (1, 1, true.shape[1]))

            def seen(
                incident: Tensor,
                energies: Tensor,
                unit: float = unit,
            ) -> tuple[Tensor, Tensor, Tensor]:
                middle = (energies @ torch.arange(energies.shape[1]).double()) / energies.sum(1)
                logs = torch.log1p(energies / unit)
                return (energies.sum(1) / incident[:, 0])[:, None], middle[:, None], logs

            scales = (total, depth, each)
            for scale, values in zip(scales, seen(*known), strict=True):
                scale.refit(values, torch.log(known[0]).double())
            ours, theirs = (
                [
                    scale(values, torch.log(at).double()).numpy()
                    for scale, values in zip(scales, seen(at, energies), strict=True)
                ]
                for at, energies in ((many, every), judged)
            )
            bands = list(pairwise(EDGES))
            widths = [
                ours[0][(many >= low) & (many < high)].std()
                / theirs[0][(incident >= low) & (incident < high)].std()
                for low, high in bands
            ]
            lit = theirs[2].std(0) > 1e-6
            ratios = np.log(ours[2].std(0)[lit] / theirs[2].std(0)[lit])
            shares = [energies.sum(1) / at[:, 0] for at, energies in ((many, every), judged)]
            generated = np.stack([one.numpy() for one in drawn])
            name = f"{model.config.energy.solver.method} {model.config.energy.solver.steps}"
            print(
                f"| {settings.name}, {run.name} | {name} | "
                f"{energy_score(np.log1p(true.numpy() / unit), np.log1p(generated / unit)):.3f} | "
                f"{1e3 * wasserstein(*(one.numpy() for one in shares)):.2f} | "
                f"{', '.join(f'{one:.2f}' for one in widths)} | {ours[0].std() / theirs[0].std():.3f} | "
                f"{wasserstein(ours[1][:, 0], theirs[1][:, 0]):.3f} | {ours[1].std() / theirs[1].std():.3f} | "
                f"{np.sqrt(np.mean(ratios**2)):.3f} | {cost:.2f} |",
                flush=True,
            )


# Solvers


def fitted(
    model: CaloDream, events: Events, config: BespokeConfig, updates: int, end: float
) -> BespokeSolver:
    """Fits a bespoke solver to the frozen shape network."""
    solver = BespokeSolver(config.steps, end)
    optimizer, schedule = optimizer_of(solver.parameters(), config.optimizer, updates)
    rng, noise = np.random.default_rng(0), torch.Generator().manual_seed(0)
    for _ in range(updates):
        incident, _, layers = model._tensors(
            events.slices(np.sort(rng.choice(len(events), config.batch_size, False)))
        )
        x0 = torch.randn(len(incident), *model.shape.shape, generator=noise)
        with frozen(model):
            value = solver.loss(
                model.shape.velocity(model.shape.network, model.context(incident, layers)), x0, config
            )
            optimizer.zero_grad()
            value.backward()
        optimizer.step()
        schedule.step()
    return solver


def solvers(arguments: argparse.Namespace) -> None:
    """Prints one row a solver and number of evaluations, and draws the figure."""
    (run,) = arguments.runs
    source = open_events(arguments.showers, DS2)
    training, test = part(source, "train"), part(source, "test").slices(slice(0, arguments.rows))
    _, model = load_model(run)
    assert isinstance(model, CaloDream)
    incident, _, layers = model._tensors(test)
    end, size = model._end, int(np.prod(model.shape.shape))
    every = torch.from_numpy(standard_normals(0, np.arange(len(test)), (1 + model.shape.drawn) * size))
    x0, normals = every[:, :size].view(-1, *model.shape.shape), every[:, size:]
    truth = {view: inputs_of(test, view) for view in arguments.views}
    seen = observe_showers(test)
    spreads = seen.features.std(0)
    rows: dict[str, list[tuple[int, list[float]]]] = {}

    @torch.no_grad()
    def ends(solve: Callable[[Velocity, Tensor], Tensor]) -> tuple[Tensor, np.ndarray]:
        paths, showers = [], []
        for first in range(0, len(test), 64):
            here = slice(first, first + 64)
            context = model.context(incident[here], layers[here])
            paths.append(solve(model.shape.velocity(model.shape.network, context), x0[here]))
            voxels = model.shape.read(paths[-1], context, normals[here])
            showers.append(with_energies(voxels, layers[here], model.config.cut).float().numpy())
        return torch.cat(paths), np.concatenate(showers)

    def show(
        name: str, evaluations: int, solve: Callable[[Velocity, Tensor], Tensor], note: str = ""
    ) -> None:
        started = time.process_time()
        path, showers = ends(solve)
        seconds = time.process_time() - started
        error = float((path - precise).square().mean().sqrt())
        generated = with_responses(test.primaries, showers)
        found = observe_showers(generated, seen.edges)
        distance = np.mean(
            [
                wasserstein(seen.features[:, k], found.features[:, k]) / spreads[k]
                for k in np.flatnonzero(spreads)
            ]
        )
        spectra = [one.spectrum.sum(0, dtype=np.int64) for one in (seen, found)]
        cells = []
        for view in arguments.views:
            aucs = [
                classify(truth[view], inputs_of(generated, view), view, DS2, suite("small"), seed).auc
                for seed in range(arguments.seeds)
            ]
            cells.append([max(auc, 1 - auc) for auc in aucs])
        rows.setdefault(name, []).append((evaluations, cells[0]))
        shown = " | ".join(spread(one) for one in cells)
        print(
            f"| {name} | {evaluations} | {error:.4f} | {distance:.4f} | {separation(*spectra):.4f} | {shown} | "
            f"{1e3 * seconds / len(test):.1f} | {note} |",
            flush=True,
        )

    precise, _ = ends(
        lambda v, x: integrate(
            v, x, SolverConfig(method="midpoint", steps=arguments.reference), end, shares=end < 1
        )
    )
    print(f"{run.name}, {len(test)} test showers, min / median / max of {arguments.seeds} seeds\n")
    heads = " | ".join(f"AUC, {view}" for view in arguments.views)
    print(
        f"| solver | evaluations | error | features | voxels | {heads} | ms a shower | fitted in [s of a core] |"
    )
    print("|---" * (7 + len(arguments.views)) + "|")
    cost: dict[Method, int] = {"euler": 1, "midpoint": 2, "rk4": 4}
    for evaluations in arguments.evaluations:
        for method, each in cost.items():
            if evaluations >= each:
                steps = SolverConfig(method=method, steps=evaluations // each)
                show(method, evaluations, partial(integrate, solver=steps, end=end, shares=end < 1))
        if evaluations not in arguments.bespoke:
            continue
        for loss in arguments.losses:
            config = BespokeConfig(
                steps=evaluations, loss=loss, reference=arguments.path, batch_size=arguments.batch
            )
            started = time.process_time()
            solver = fitted(model, training, config, arguments.updates, end)
            seconds = time.process_time() - started
            show(f"bespoke, {loss}", evaluations, solver, f"{seconds:.0f}")
    show("midpoint", 2 * arguments.reference, lambda v, x: precise_of(precise, x, x0), "precise")
    if arguments.out:
        draw(rows, arguments.views[0], arguments.out)


def neighbours(values: np.ndarray) -> float:
    """Returns the covariance of neighbours in angle over the variance, of values (N, L, A, R) less the ring's mean."""
    off = values.astype(np.float64) - values.mean(2, keepdims=True)
    return float((off * np.roll(off, 1, 2)).mean() / off.var())


@torch.no_grad()
def reading(arguments: argparse.Namespace) -> None:
    """Prints one row an end and number of evaluations, under the rows of other showers of the simulation."""
    run = arguments.runs[0]
    _, model = load_model(run)
    assert isinstance(model, CaloDream)
    assert isinstance(model.shape, DrawnShapes)
    source = open_events(arguments.showers, model.detector)
    reference = part(source, arguments.part).slices(slice(0, arguments.rows))
    incident, _, layers = model._tensors(reference)
    noise = torch.from_numpy(standard_normals(0, np.arange(len(reference)), model.noise_dim))
    noise = noise[:, model.energy.noise_dim :]
    unit = model.config.unit
    seen, high = observe_showers(reference), reference.conditions[:, 0] > 1e5
    spreads = seen.features.std(0)
    print(f"{run.name}, {len(reference)} {arguments.part} showers\n")
    print(
        "| solver | end | evaluations | voxels | features | lit | centres | angle | precision | recall | ms a shower |"
    )
    print("|---" * 11 + "|")

    def show(name: str, end: str, evaluations: int, generated: Events, milliseconds: float) -> None:
        found = observe_showers(generated, seen.edges)
        distances = [
            wasserstein(seen.features[:, k], found.features[:, k]) / spreads[k]
            for k in np.flatnonzero(spreads)
        ]
        spectra = [one.spectrum.sum(0, dtype=np.int64) for one in (seen, found)]
        lit = np.mean(1 - found.sparsity) / np.mean(1 - seen.sparsity)
        ratios = []
        for rows in (~high, high):
            stds = [np.std(one.centres[rows][:, :, :2], 0) + 1e-3 for one in (seen, found)]
            ratios.append(f"{np.sqrt(np.mean(np.log(stds[1] / stds[0]) ** 2)):.3f}")
        share = prdc(seen.some_voxels(len(reference)), found.some_voxels(len(reference)))
        low = generated.conditions[:, 0] < 1e4
        voxels = generated.responses.astype(np.float64)
        near = [neighbours(voxels[low] > 0), neighbours(np.log1p(voxels[~low] / unit))]
        angle = ", ".join(f"{one:.3f}" for one in near)
        print(
            f"| {name} | {end} | {evaluations} | {separation(*spectra):.5f} | {np.mean(distances):.4f} | {lit:.3f} | "
            f"{', '.join(ratios)} | {angle} | {share['precision']:.2f} | {share['recall']:.2f} | {milliseconds:.1f} |",
            flush=True,
        )

    others = np.linspace(0, len(split(source, "ordered")["train"]) - 1, len(reference)).astype(np.intp)
    show("simulation, training rows", "-", 0, source.slices(split(source, "ordered")["train"][others]), 0.0)

    def drawn(name: str, model: CaloDream, end: float, solver: SolverConfig | None, evaluations: int) -> None:
        shape = model.shape
        assert isinstance(shape, DrawnShapes)
        trained, shape.end = shape.end, end if solver else 0.0
        started, showers = time.process_time(), []
        for first in range(0, len(reference), 32):
            here = slice(first, first + 32)
            context = model.context(incident[here], layers[here])
            x0, normals = noise[here].split([model.detector.cells, 2 * model.detector.cells], 1)
            x = x0.view(-1, *shape.shape)
            if solver:
                velocity, student = shape.velocity(shape.network, context), model.shape_average_velocity
                average = None if student is None else shape.average(student, context)
                x = solve(velocity, x, solver, model.shape_solver, average, end, shares=True)
            voxels = with_energies(shape.read(x, context, normals), layers[here], model.config.cut)
            showers.append(voxels.float().numpy())
        milliseconds = 1e3 * (time.process_time() - started) / len(reference)
        shape.end = trained
        generated = with_responses(reference.primaries, np.concatenate(showers))
        show(name, f"{end:g}" if solver else "-", evaluations, generated, milliseconds)

    for end in arguments.ends:
        for evaluations in arguments.evaluations:
            ways = [("euler", 1), ("midpoint", 2), ("rk4", 4)]
            if not evaluations:
                drawn("none", model, end, None, 0)
            for method, each in ways:
                if evaluations and not evaluations % each:
                    solver = SolverConfig.model_validate({"method": method, "steps": evaluations // each})
                    drawn(method, model, end, solver, evaluations)
        for other in (load_model(one)[1] for one in arguments.runs):
            assert isinstance(other, CaloDream)
            if other.config.shape.end != end:
                continue
            if other.shape_solver is not None:
                steps = other.shape_solver.steps
                drawn("bespoke", other, end, SolverConfig(method="bespoke", steps=steps), steps)
            if other.shape_average_velocity is not None:
                steps = other.config.shape.average_velocity.steps
                solver = SolverConfig(method="average_velocity", steps=steps)
                drawn("average velocity", other, end, solver, steps)


WINDOWS = {"10": (5e3, 2e4), "50": (2.5e4, 1e5), "200": (1e5, 4e5), "800": (4e5, 1e6)}
"""Incident energies that stand for a number of GeV [MeV]."""


def moments(values: np.ndarray, independent: int) -> tuple[tuple[float, float], tuple[float, float]]:
    """Returns mean and spread of values, (N,), each with its standard error, of which so many are independent."""
    off, spread = values - values.mean(), values.std()
    kurtosis = (off**4).mean() / spread**4
    error = spread * np.sqrt((kurtosis - 1) / 4 / independent)
    return (float(values.mean()), float(spread / np.sqrt(independent))), (float(spread), float(error))


def windows(arguments: argparse.Namespace) -> None:
    """Prints one row a run, window and set."""
    loaded = [load_model(run) for run in arguments.runs]
    (detector,) = {model.detector.name: model.detector for _, model in loaded}.values()
    source = open_events(arguments.showers, detector)
    rows, energy = split(source, "ordered"), source.primaries.conditions[:, 0]
    print("| showers | GeV | rows | E_tot / E_inc | mean layer | lit | voxels | features |")
    print("|---" * 8 + "|")
    for name, (low, high) in WINDOWS.items():
        test, train = (
            rows[which][(energy[rows[which]] >= low) & (energy[rows[which]] < high)]
            for which in ("test", "train")
        )
        reference = source.slices(test)
        seen = observe_showers(reference)
        spreads = seen.features.std(0)

        def distances(showers: Showers, seen: Showers = seen, spreads: np.ndarray = spreads) -> list[float]:
            spectra = [one.spectrum.sum(0, dtype=np.int64) for one in (seen, showers)]
            each = [
                wasserstein(seen.features[:, k], showers.features[:, k]) / spreads[k]
                for k in np.flatnonzero(spreads)
            ]
            return [separation(*spectra), float(np.mean(each))]

        floors = np.mean(
            [
                distances(
                    observe_showers(
                        source.slices(np.sort(np.random.default_rng(seed).choice(train, len(test), False))),
                        seen.edges,
                    )
                )
                for seed in range(arguments.seeds)
            ],
            0,
        )

        def show(
            title: str, several: Sequence[Showers], name: str = name, floors: np.ndarray = floors
        ) -> None:
            ratio, layers = (
                np.concatenate([getattr(one, what) for one in several]) for what in ("ratio", "layers")
            )
            independent = len(several[0].ratio)
            middle = layers @ np.arange(layers.shape[1]) / layers.sum(1)
            told = ", ".join(f"{value:.4f} ± {error:.4f}" for value, error in moments(ratio, independent))
            depth = ", ".join(f"{value:.2f} ± {error:.2f}" for value, error in moments(middle, independent))
            lit = np.mean([1 - one.sparsity.mean() for one in several])
            far = np.mean([distances(one) for one in several], 0)
            print(
                f"| {title} | {name} | {len(ratio)} | {told} | {depth} | "
                f"{lit:.4f} | {1e4 * far[0]:.1f} ({1e4 * floors[0]:.1f}) | {far[1]:.4f} ({floors[1]:.4f}) |",
                flush=True,
            )

        show("simulation", [seen])
        show("simulation, training rows", [observe_showers(source.slices(train), seen.edges)])
        for settings, model in loaded:
            drawn = [
                generate_in_memory(model, reference.conditions, seed=seed, batch_size=32)
                for seed in range(arguments.seeds)
            ]
            show(
                settings.name,
                [observe_showers(with_responses(reference.primaries, one), seen.edges) for one in drawn],
            )


def precise_of(precise: Tensor, x: Tensor, x0: Tensor) -> Tensor:
    """Looks up the precise solution of a batch."""
    first = int((x0.flatten(1)[:, 0] == x.flatten(1)[0, 0]).nonzero()[0, 0])
    return precise[first : first + len(x)]


def draw(rows: dict[str, list[tuple[int, list[float]]]], view: str, out: Path) -> None:
    """Draws AUC against evaluations."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "caloforge"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    for name, points in rows.items():
        x = [evaluations for evaluations, _ in points]
        middle = [float(np.median(values)) for _, values in points]
        low = [m - min(values) for m, (_, values) in zip(middle, points, strict=True)]
        high = [max(values) - m for m, (_, values) in zip(middle, points, strict=True)]
        axes.errorbar(x, middle, (low, high), marker="o", capsize=3, label=name)
    axes.axhline(0.5, color="grey", linewidth=0.8)
    axes.set(xscale="log", xlabel="evaluations of the network", ylabel=f"AUC, {view}-level features")
    axes.set_xticks(sorted({x for points in rows.values() for x, _ in points}))
    axes.get_xaxis().set_major_formatter(matplotlib.ticker.ScalarFormatter())
    axes.minorticks_off()
    axes.legend(frameon=False)
    figure.savefig(out, metadata={"Date": None})


# The latent version


@torch.no_grad()
def latent(arguments: argparse.Namespace) -> None:
    """Prints one row a cut."""
    (run,) = arguments.runs
    test = part(open_events(arguments.showers, DS2), "test").slices(slice(0, arguments.rows))
    settings, model = load_model(run)
    assert isinstance(model, CaloDream)
    assert isinstance(model.shape, LatentShapes)
    incident, voxels, layers = model._tensors(test)
    noise = torch.from_numpy(standard_normals(0, np.arange(len(test)), int(np.prod(model.shape.shape)))).view(
        -1, *model.shape.shape
    )
    decoded = []
    for first in range(0, len(test), 64):
        here = slice(first, first + 64)
        context = model.context(incident[here], layers[here])
        wanted = shares(voxels[here], layers[here]).float()
        mean, logvar = model.shape.vae.encode(wanted, context.features)
        decoded.append(model.shape.read(mean + torch.exp(0.5 * logvar) * noise[here], context, noise[here]))
    parameters = sum(p.numel() for p in model.shape.vae.parameters())
    print(f"{settings.name}, autoencoder of {parameters:,} parameters, {len(test)} test showers\n")
    print(
        "| cut [MeV] | lit | sparsity | voxels | sparsity, both cut | voxels, both cut |\n|---|---|---|---|---|---|"
    )
    for cut in arguments.cuts:
        responses = with_energies(torch.cat(decoded), layers, cut).float().numpy()
        generated = with_responses(test.primaries, responses)
        cells = [f"{np.count_nonzero(responses >= DS2.threshold) / np.count_nonzero(test.responses):.3f}"]
        for below in (0.0, cut):
            kept = np.where(np.less(test.responses, below), 0, test.responses)
            true = observe_showers(with_responses(test.primaries, kept))
            found = compare(true, observe_showers(generated, true.edges), slow=False)
            cells += [f"{found[name].value:.4f}" for name in ("sep_sparsity", "sep_voxels")]
        print(f"| {cut:g} | {' | '.join(cells)} |", flush=True)


# Costs


@torch.no_grad()
def cache(arguments: argparse.Namespace) -> None:
    """Times the sampling of 45 layer energies by the paper's network."""
    network = Transfusion(45, TransformerConfig(), 256, 6).eval()
    condition, noise = torch.rand(arguments.batch, 1), torch.randn(arguments.batch, 45)
    known, u = torch.randn(arguments.batch, 64), torch.zeros(arguments.batch, 45)
    print(f"batch {arguments.batch}, processor time in ms, min / median / max of {arguments.repeats}\n")
    print("| solver | head calls alone | with the cache | prefix recomputed |\n|---|---|---|---|")

    def heads(one: Callable[[Tensor, Tensor], Tensor]) -> list[Tensor]:
        return [one(noise[:, i : i + 1], known) for i in range(45)]

    def prefixes(one: Callable[[Tensor, Tensor], Tensor]) -> list[Tensor]:
        return [one(noise[:, i : i + 1], network.known(condition, u[:, : i + 1])[:, i]) for i in range(45)]

    ways_of: tuple[tuple[Method, int], ...] = (("euler", 8), ("midpoint", 8), ("rk4", 50))
    for method, steps in ways_of:
        solver = SolverConfig(method=method, steps=steps)

        def one(x0: Tensor, known: Tensor, solver: SolverConfig = solver) -> Tensor:
            return integrate(lambda x, t: network.head(x, t, known), x0, solver)

        ways: list[Callable[[], object]] = [
            partial(heads, one),
            partial(network.draw, condition, noise, one),
            # as the published code: the whole prefix for each number
            partial(prefixes, one),
        ]
        alone, cached, again = timed(ways, arguments.repeats)
        times = [spread(values, ".0f") for values in (alone, cached, again)]
        ratios = [
            spread([one / other for one, other in zip(values, alone, strict=True)], ".2f")
            for values in (cached, again)
        ]
        print(
            f"| {method}, {steps} steps | {times[0]} | {times[1]} ({ratios[0]} x) | "
            f"{times[2]} ({ratios[1]} x) |",
            flush=True,
        )


@torch.no_grad()
def vit(arguments: argparse.Namespace) -> None:
    """Times one evaluation of the shape networks, in parts that the cache holds and all showers at once."""
    sizes = {
        "ds2, the paper's": ((45, 16, 9), ViTConfig()),
        "ds2, small": ((45, 16, 9), ViTConfig(patch=(5, 16, 1), width=96, heads=4, blocks=4, inner=192)),
    }
    print(
        f"batch {arguments.batch}, processor time in ms a shower, min / median / max of {arguments.repeats}\n"
    )
    print(
        "| network | parameters | tokens | one evaluation | all at once | ratio |\n|---|---|---|---|---|---|"
    )
    for name, (axes, config) in sizes.items():
        network = ViT((1, *axes), 46, config).eval()
        x, t = torch.randn(arguments.batch, 1, *axes), torch.rand(arguments.batch)
        conditions = torch.randn(arguments.batch, 46)

        def evaluate(
            at_once: int, network: ViT = network, given: tuple[Tensor, ...] = (x, t, conditions)
        ) -> None:
            network.at_once = at_once
            network(*given)

        ways = [lambda n=n, evaluate=evaluate: evaluate(n) for n in (network.at_once, arguments.batch)]
        times = timed(ways, arguments.repeats)
        parameters = sum(p.numel() for p in network.parameters())
        shown = " | ".join(spread([one / arguments.batch for one in each], ".2f") for each in times)
        ratio = spread([ours / other for ours, other in zip(*times, strict=True)], ".2f")
        print(f"| {name} | {parameters:,} | {network.tokens} | {shown} | {ratio} |", flush=True)


def paper(arguments: argparse.Namespace) -> None:
    """Makes updates of a published network at its own batch sizes, one stage after the other, and some showers."""
    (name,) = arguments.recipes
    changes = [f"model.shape.solver.steps={arguments.steps}", *arguments.set]
    values = recipe.parse(recipe.with_settings(recipe.read(name), changes))
    model = build(values)
    assert isinstance(model, CaloDream)
    rng, detector = np.random.default_rng(0), model.detector
    sections = {name: section for name, section in values.model.items() if name in ("latent", "shape")}
    batches = {"energy": arguments.rows} | {name: each["batch_size"] for name, each in sections.items()}
    for chosen, rows in batches.items():
        energy = 10 ** rng.uniform(3, 6, (rows, 1))
        voxels = rng.standard_gamma(0.1, (rows, *detector.shape), np.float32)
        voxels *= (0.8 * energy[:, :, None, None] / voxels.sum((1, 2, 3), keepdims=True)).astype(np.float32)
        voxels[voxels < detector.threshold] = 0
        events = Events(detector, energy.astype(np.float32), np.full(rows, 11), responses=voxels)
        for stage in model.stages(events):
            if stage.name != chosen:
                continue
            for number in range(arguments.updates):
                batch = next(iter(stage.batches(events, rng)))
                started = time.process_time()
                loss = stage.step(
                    batch, BatchRandom(number, slice(None), len(batch)), lambda loss: loss.backward()
                )
                print(
                    f"{name}, {stage.name}: an update of {len(batch)}, loss {loss['loss']:.3f}, "
                    f"{time.process_time() - started:.0f} s, peak memory {peak():.2f} GiB",
                    flush=True,
                )
    started = time.process_time()
    noise = torch.from_numpy(standard_normals(0, np.arange(arguments.sampled), model.noise_dim))
    with torch.no_grad():
        showers = model.eval()(torch.from_numpy(events.conditions[: arguments.sampled]), noise)
    seconds = (time.process_time() - started) / arguments.sampled
    print(
        f"sampled {tuple(showers.shape)}, finite {bool(torch.isfinite(showers).all())}, {arguments.steps} steps of the "
        f"shapes, {seconds:.0f} s a shower, peak memory {peak():.2f} GiB, "
        f"{sum(p.numel() for p in model.parameters()):,} parameters"
    )


def peak() -> float:
    """Returns the greatest memory of this process so far [GiB]."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Runs one of the measurements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "what",
        choices=["energies", "layers", "solvers", "reading", "windows", "latent", "cache", "vit", "paper"],
    )
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--showers", type=Path)
    parser.add_argument("--recipes", nargs=1, default=["ds3-calodream-paper"], help="of `paper`")
    parser.add_argument("--set", nargs="*", default=[], help="changes of the recipe of `paper`")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=200, help="of the classifiers of layer energies")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--smear", type=float, nargs="*", default=[0.2])
    parser.add_argument("--sampled", type=int, default=4, help="showers of `paper`")
    parser.add_argument("--steps", type=int, default=20, help="of the solver of the shapes of `paper`")
    parser.add_argument("--rows", type=int, default=1_000_000, help="test showers at most")
    parser.add_argument("--evaluations", type=int, nargs="+", default=[2, 4, 8, 16])
    parser.add_argument("--methods", nargs="*", default=["midpoint:2", "midpoint:4"], help="METHOD:STEPS")
    parser.add_argument("--bespoke", type=int, nargs="*", default=[4, 8])
    parser.add_argument("--losses", nargs="*", default=["local", "global"])
    parser.add_argument("--updates", type=int, default=100)
    parser.add_argument("--path", type=int, default=20, help="steps of the reference of bespoke solvers")
    parser.add_argument("--reference", type=int, default=32)
    parser.add_argument(
        "--cuts", type=float, nargs="+", default=[0.0, 0.015, 0.1, 0.4, 1.0, 3.0], help="[MeV]"
    )
    parser.add_argument("--ends", type=float, nargs="+", default=[0.3, 0.5, 0.6])
    parser.add_argument("--part", choices=["train", "validation", "test"], default="validation")
    parser.add_argument("--views", nargs="+", default=["high", "low"])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    globals()[arguments.what](arguments)


if __name__ == "__main__":
    main()
