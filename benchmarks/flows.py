"""Autoregressive flows, teacher and student, with trained weights.

    python benchmarks/flows.py speed TEACHER STUDENT [--batch 64] [--repeats 5] [--passes 8]
    python benchmarks/flows.py speed TEACHER STUDENT --batch 4 --repeats 3 --passes 0
    python benchmarks/flows.py inverse TEACHER EVENTS
    python benchmarks/flows.py photons RUN EVENTS... [--figure FILE.svg]
    python benchmarks/flows.py likelihood TEACHER EVENTS
    python benchmarks/flows.py profile RUN EVENTS [--rows 256]
    python benchmarks/flows.py thin sample:zn... OUT.h5 [--every 4] [--particles Lambda "K(S)0" Sigma+]

speed: processor time of both in one process and one thread, one after the other in each repeat, and of the teacher
without what its steps keep: each cell by a full pass of the network, as is usual. Of that way `--passes` passes are
timed, and the time of all (cells x maps) is computed from them; with 0 all are made and timed, and the images compared
with those of the teacher that keeps: some minutes at a batch of 4.

inverse: test images to noise and back in float32. photons: is the photon sum calibrated on test particles? Shares of
the sums below the quantiles that the model gives, by type. likelihood: of test responses, of responses of another
particle with about the same sum, turned upside down, and generated. profile: photons by
distance from the middle of the true light, and how many cells have one, two, ... of them, with true sums. thin: writes
the test responses of one in so many neutrons and other particles, for evaluations that take less time.
"""

import argparse
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from caloforge.evaluation.scoring import origin_of, rows_to_score
from caloforge.events import EventSource, Joined, Selected, of_particles, with_responses
from caloforge.events import load as load_events
from caloforge.io import create, open_events
from caloforge.metrics.channels import wasserstein
from caloforge.models.autoregressive_flow import MAF
from caloforge.models.inverse_autoregressive_flow import IAF
from caloforge.models.parts.flow_likelihood import log_likelihoods
from caloforge.models.parts.inference import spread_rows
from caloforge.models.parts.photons import photon_sums
from caloforge.nn.autoregressive import spline
from caloforge.nn.rounding import normal_to_uniform
from caloforge.particles import particle_name
from caloforge.recipe import Recipe
from caloforge.report.drawing import style
from caloforge.report.figures import Reliability, reliability
from caloforge.runtime.noise import standard_normals
from caloforge.samples import SAMPLES, located, sample, weights
from caloforge.training.checkpoint import load_model

LEVELS = np.linspace(0.05, 0.95, 19)
LEAST = 20
NEUTRON = 2112


def load(name: str) -> tuple[Recipe, MAF | IAF]:
    """Loads a run folder, or weights that ship."""
    recipe, model = load_model(weights().get(name, Path(name)))
    assert isinstance(model, MAF | IAF), f"{name} is no autoregressive flow"
    return recipe, model


def opened(names: list[str]) -> EventSource:
    """Opens files, or samples by name."""
    sources = [open_events(located(name)) for name in names]
    return Joined(sources) if len(sources) > 1 else sources[0]


def test_events(recipe: Recipe, names: list[str]) -> Selected:
    """Returns the rows that the run was not trained on, of files or samples by name."""
    return rows_to_score(opened(names), origin_of(recipe))


def seconds(function: Callable[..., object], *arguments: object) -> float:
    """Returns the processor time of a call."""
    started = time.process_time()
    function(*arguments)
    return time.process_time() - started


@torch.no_grad()
def speed(arguments: argparse.Namespace) -> None:
    """Prints ms an event: minimum, median, maximum."""
    _, teacher = load(arguments.runs[0])
    _, student = load(arguments.runs[1])
    batch = arguments.batch
    conditions = spread_rows(open_events(sample("zn")), batch).conditions
    noise = standard_normals(0, np.arange(batch), teacher.noise_dim)
    given = torch.from_numpy(conditions), torch.from_numpy(noise)
    contexts = teacher.flow.contexts(*teacher.images.given(given[0], torch.full((batch,), 200.0)))
    flow, every = teacher.flow, teacher.detector.cells * teacher.flow.config.transforms
    passes = arguments.passes or every
    images = []

    def full_passes() -> None:
        """Undoes the chain from noise as publications do; stops after so many passes."""
        left, y = passes, given[1][:, :-1]
        for k in reversed(range(flow.config.transforms)):
            z = y.flip(-1) if k % 2 else y  # every other map takes the cells in the opposite order
            y = torch.zeros_like(z)
            for cell in range(min(z.shape[1], left)):
                y[:, cell] = spline(flow.networks[k](y, contexts[k]), flow.config.bound).inv(z)[:, cell]
            left -= min(z.shape[1], left)
            y = y.flip(-1) if k % 2 else y
        images.append(y)

    times: dict[str, list[float]] = {"student": [], "teacher": [], "teacher, full passes": []}
    student(*given)
    for _ in range(arguments.repeats):
        times["student"].append(seconds(student, *given))
        times["teacher"].append(seconds(teacher, *given))
        times["teacher, full passes"].append(seconds(full_passes) / passes * every)
    print(f"batch {batch}, one thread, processor time; {every:,} passes, {passes:,} of them timed")
    if passes == every:
        apart = (images[-1] - flow.to_data(given[1][:, :-1], contexts).points[0]).abs().max()
        print(f"images of both ways of the teacher differ by at most {apart:.1e}")
    print("| | ms an event, min / median / max | over the student, median |\n|---|---|---|")
    base = np.median(times["student"])
    for name, found in times.items():
        low, middle, high = (1e3 * float(f(found)) / batch for f in (np.min, np.median, np.max))
        print(f"| {name} | {low:.2f} / {middle:.2f} / {high:.2f} | {np.median(found) / base:,.1f} |")


@torch.no_grad()
def inverse(arguments: argparse.Namespace) -> None:
    """Prints how far test images come back from where they were."""
    recipe, teacher = load(arguments.runs[0])
    events = spread_rows(test_events(recipe, arguments.runs[1:]), arguments.rows)
    conditions, counts = teacher.images.tensors(events)
    u = normal_to_uniform(torch.from_numpy(standard_normals(0, np.arange(len(events)), counts.shape[1])))
    image, _ = teacher.images.prepare(counts, u)
    contexts = teacher.flow.contexts(*teacher.images.given(conditions, counts.sum(1)))
    z = teacher.flow.to_noise(image, contexts).points[-1]
    error = (teacher.flow.to_data(z, contexts).points[0] - image).abs().flatten().numpy()
    quantiles = np.quantile(error, [0.5, 0.999, 0.999999])
    print(
        f"{len(events)} images, {error.size:,} cells: |difference| median {quantiles[0]:.1e}, 99.9 % "
        f"{quantiles[1]:.1e}, 99.9999 % {quantiles[2]:.1e}, largest {error.max():.1e}"
    )
    noise = torch.cat([z, torch.zeros(len(z), 1)], 1)
    back = teacher.with_photons(conditions, counts.sum(1), noise).flatten(1)
    print(f"counts that differ after the floor: {int((back != counts).sum())} of {counts.numel():,}")
    spread = z.flatten().numpy()
    print(f"noise of test images: mean {spread.mean():.4f}, standard deviation {spread.std():.4f}")


@torch.no_grad()
def photons(arguments: argparse.Namespace) -> None:
    """Prints shares of the sums below the model's quantiles, by type of particle, and draws them."""
    recipe, model = load(arguments.runs[0])
    source = test_events(recipe, arguments.runs[1:])
    conditions = torch.from_numpy(source.primaries.conditions)
    features = model.images.describe(conditions)
    sums = photon_sums(source)
    noise = torch.from_numpy(standard_normals(0, np.arange(len(sums)), 2))
    dequantized = torch.from_numpy(sums.astype(np.float32)) + normal_to_uniform(noise[:, 0])
    z, _ = model.images.photons.noise(conditions, features, dequantized)
    place = normal_to_uniform(z).numpy()
    drawn = torch.floor(model.images.photons(conditions, features, noise[:, 1])).numpy()
    pdg, count = np.unique(source.primaries.pdg, return_counts=True)
    groups = {"all": np.ones(len(sums), np.bool_)}
    groups |= {particle_name(int(k)): source.primaries.pdg == k for k in pdg[np.argsort(-count)]}
    print(f"{len(sums)} test responses, {len(np.unique(source.primaries.group))} particles\n")
    print(
        "| particle | events | particles | below 5 % | 25 % | 50 % | 75 % | 95 % | W1 [photons] | mean: true, drawn |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    curves: list[Reliability] = []
    for name, rows in groups.items():
        particles = len(np.unique(source.primaries.group[rows]))
        if particles < LEAST:
            continue
        shares = [f"{100 * (place[rows] < level).mean():.1f}" for level in (0.05, 0.25, 0.5, 0.75, 0.95)]
        distance = wasserstein(sums[rows], drawn[rows].astype(np.float64))
        means = f"{sums[rows].mean():.1f}, {drawn[rows].mean():.1f}"
        print(
            f"| {name} | {rows.sum():,} | {particles:,} | {' | '.join(shares)} | {distance:.2f} | {means} |"
        )
        if len(curves) < 4:
            curves.append(_curve(name, place[rows], len(curves)))
    if arguments.figure:
        arguments.figure.write_bytes(
            reliability(curves, "quantile that the model gives", "share of test sums below it")
        )


def _curve(name: str, place: NDArray[np.float32], number: int) -> Reliability:
    """Returns the shares of test sums below the model's quantiles with their binomial errors."""
    share = np.array([(place < level).mean() for level in LEVELS])
    error = np.sqrt(LEVELS * (1 - LEVELS) / len(place))
    return Reliability(style(number, name), LEVELS, share, error)


@torch.no_grad()
def likelihood(arguments: argparse.Namespace) -> None:
    """Prints ln p of responses in nats: their own particles, others' responses, dark and doubled ones."""
    recipe, teacher = load(arguments.runs[0])
    assert isinstance(teacher, MAF)
    events = spread_rows(test_events(recipe, arguments.runs[1:]), arguments.rows)
    sums = photon_sums(events)
    order = np.argsort(sums, kind="stable")
    other = np.empty_like(order)
    other[order] = np.roll(order, 1)  # the response with the next smaller sum
    generated = teacher(
        torch.from_numpy(events.conditions),
        torch.from_numpy(standard_normals(1, np.arange(len(events)), teacher.noise_dim)),
    )
    sets = {
        "their own": events.responses,
        "of another particle, with about the same sum": events.responses[other],
        "turned upside down": events.responses[:, ::-1, ::-1],
        "generated by the teacher": generated.numpy(),
    }
    own = None
    print(
        "| responses | ln p, mean | 1 % | 50 % | 99 % | below the 1 % of their own |\n|---|---|---|---|---|---|"
    )
    for name, responses in sets.items():
        others = with_responses(events.primaries, np.ascontiguousarray(responses))
        found = log_likelihoods(teacher.images, teacher.flow, others)
        own = found if own is None else own
        low, middle, high = np.quantile(found, [0.01, 0.5, 0.99])
        outside = 100 * (found < np.quantile(own, 0.01)).mean()
        print(f"| {name} | {found.mean():.0f} | {low:.0f} | {middle:.0f} | {high:.0f} | {outside:.1f} % |")


RINGS = (0, 2, 4, 7, 10, 15, 20, 30, 62)
"""Edges of distances, in cells."""


@torch.no_grad()
def profile(arguments: argparse.Namespace) -> None:
    """Prints the mean light of an event by distance and the numbers of cells by count, true and generated."""
    recipe, model = load(arguments.runs[0])
    events = spread_rows(test_events(recipe, arguments.runs[1:]), arguments.rows)
    conditions, true = model.images.tensors(events)
    noise = torch.from_numpy(standard_normals(0, np.arange(len(events)), model.noise_dim))
    photons = true.sum(1)
    made = model.with_photons(conditions, photons, noise).flatten(1)
    contexts = model.flow.contexts(*model.images.given(conditions, photons))
    image = model.flow.to_data(noise[:, :-1], contexts).points[0]
    unscaled = torch.floor(model.images.shares(image, photons) * (photons[:, None] + 1))
    rows, columns = (one.flatten() for one in np.indices(model.detector.shape))
    light = true.numpy() / photons[:, None].numpy()
    middle = light @ rows, light @ columns
    distance = np.hypot(rows - middle[0][:, None], columns - middle[1][:, None])
    rings = [(distance >= low) & (distance < high) for low, high in pairwise(RINGS)]
    sets = {"true": true.numpy(), "generated": made.numpy(), "before the sum is met": unscaled.numpy()}
    print(f"{arguments.runs[0]}, {len(events)} events, true sums; means of an event\n")
    print(f"| photons at | {' | '.join(f'{a} to {b} cells' for a, b in pairwise(RINGS))} | sum | lit cells |")
    print("|---" * (len(rings) + 3) + "|")
    for name, counts in sets.items():
        light_at = [(counts * ring).sum() / len(events) for ring in rings]
        ends = f"{counts.sum() / len(events):.1f} | {(counts > 0).sum() / len(events):.1f}"
        print(f"| {name} | {' | '.join(f'{one:.2f}' for one in light_at)} | {ends} |")
    print("\n| cells with | 1 | 2 | 3 | 4 to 7 | 8 to 15 | 16 and more |\n|---|---|---|---|---|---|---|")
    for name, counts in sets.items():
        cells = np.histogram(counts, (1, 2, 3, 4, 8, 16, np.inf))[0] / len(events)
        print(f"| {name} | {' | '.join(f'{one:.2f}' for one in cells)} |")


def thin(arguments: argparse.Namespace) -> None:
    """Writes the responses of one in so many test particles (folds 0 and 1)."""
    *names, out = arguments.runs
    events = load_events(of_particles(opened(names), arguments.particles))
    test, neutron = events.fold < 2, events.pdg == NEUTRON
    kept = [np.unique(events.group[test & kind])[:: arguments.every] for kind in (neutron, ~neutron)]
    chosen = events.slices(np.flatnonzero(test & np.isin(events.group, np.concatenate(kept))))
    share = f"one in {arguments.every} test particles of {', '.join(names)}"
    with create(out, events.detector, {"source": share}) as writer:
        writer.append(chosen)
    print(f"{len(chosen)} responses of {len(np.unique(chosen.group))} particles")


PARTS = {
    "speed": speed,
    "inverse": inverse,
    "photons": photons,
    "likelihood": likelihood,
    "profile": profile,
    "thin": thin,
}


def main() -> None:
    """Prints one part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=PARTS)
    parser.add_argument(
        "runs", nargs="+", help=f"runs, then files of events, or sample:NAME of {', '.join(SAMPLES)}"
    )
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--passes", type=int, default=8)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--every", type=int, default=4)
    parser.add_argument("--particles", nargs="*", default=[])
    parser.add_argument("--figure", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    PARTS[arguments.part](arguments)


if __name__ == "__main__":
    main()
