"""Does the spread of replicas cover how far a surrogate is off? Pulls and coverage of means, by region.

    python benchmarks/pulls.py zn.h5 zn_wide.h5 [--parts 8 4 2 1] [--methods mean_field last_layer committee bootstrap]
    python benchmarks/pulls.py ds2.h5 --part validation
    python benchmarks/pulls.py zn.h5 zn_wide.h5 --guard
    python benchmarks/pulls.py zn.h5 --cost

Networks of the channel sums (of showers the layer energies of `calodream`) are trained on 1/8, 1/4, 1/2 and all of the
training particles for as many updates. Each replica generates one event for each row of the part that judges, with the
same noise. In each region of particles, with n rows, and for each channel:

    deviation  mean generated sum - mean simulated sum
    model      standard deviation over the replicas of the first
    stat       root of (variance of generated - simulated sums) / n
    pull       deviation / root(model^2 + stat^2), its coverage the share within 1 and 1.96 (of a committee that of
               Student's t with as many degrees of freedom)
    share      median of model^2 / (model^2 + stat^2): where it is small, coverage says little of the model
    ratio      root of (sum of (deviation^2 - stat^2) over the sum of model^2), each over stat^2: actual over predicted
               deviation, without the error of the rows; above 1 the method is too sure of itself
    band       median of model over the mean sum

Gaussian weights and fitted last layers are judged by the mean weights' generated events, committees member by member.
`--part validation` is for choosing settings, `test` for the numbers.

With `--guard` some particles are left out of the training, and the spread of each event's sum over the replicas is
asked whether it tells them from the others, beside the guard of the domain (`runtime.domain`). With `--cost` processor
times of updates and of generating are taken, Gaussian weights and plain ones in turns.
"""

import argparse
import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import t as student
from torch import Tensor, nn

from caloforge.detectors import ChannelMap, Detector
from caloforge.events import Events, EventSource, Joined, split
from caloforge.io import open_events
from caloforge.models.base import BatchRandom, Stage
from caloforge.models.calodream import CaloDream, CaloDreamConfig
from caloforge.models.channel_flow_matching import ChannelFlowMatching, ChannelFlowMatchingConfig
from caloforge.models.flow_matching import FlowMatching, FlowMatchingConfig
from caloforge.models.parts.bayesian import make_bayesian, take_replica, variational
from caloforge.models.parts.layer_energies import EnergyConfig, JointEnergies, LayerSums
from caloforge.models.parts.particle_features import ImpactFeatures
from caloforge.models.parts.stage import LossStage
from caloforge.ode.solvers import SolverConfig, integrate
from caloforge.optim import AdamConfig
from caloforge.particles import particle_name
from caloforge.runtime.domain import Domain
from caloforge.runtime.noise import standard_normals
from caloforge.training.fit import derived_seed
from caloforge.transforms import LayerEnergies

BATCH = 256
DRAWS = 1
FLOAT = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Data:
    """Sums of all events, and who trains and who judges.

    Attributes:
        events: conditions, and the sums as responses of a detector whose cells are the channels.
        energies: incident energy, (N,).
        train: rows that train.
        judged: rows that judge.
        regions: names and rows of `judged`, (N_judged,) bool each.
    """

    events: Events
    train: NDArray[np.intp]
    judged: NDArray[np.intp]
    regions: Mapping[str, NDArray[np.bool_]]


def of_sums(detector: Detector, channels: str) -> Detector:
    """Returns a detector with the same particles whose cells are the channels."""
    labels = detector.channel_map(channels).labels
    sums = ChannelMap(labels, np.eye(len(labels), dtype=np.float32), "one cell a channel")
    axes = {"x": len(labels), "y": 1} if len(detector.axes) == 2 else {"layer": len(labels)}
    return dataclasses.replace(detector, axes=axes, channels={channels: sums}, layers=())


def read(paths: Sequence[Path], part: str) -> Data:
    """Reads files and cuts them into regions."""
    source: EventSource = Joined([open_events(path) for path in paths])
    detector = source.primaries.detector
    layers = bool(detector.layers)
    channels = "layers" if layers else "paper"
    starts = range(0, len(source), 1000)
    sums = np.concatenate(
        [detector.readout(source.slices(slice(start, start + 1000)).responses, channels) for start in starts]
    )
    primaries = source.primaries
    small = of_sums(detector, channels)
    events = Events(
        small,
        primaries.conditions,
        primaries.pdg,
        primaries.group,
        primaries.fold,
        responses=sums.reshape(-1, *small.shape).astype(np.float32),
    )
    parts = split(source, "ordered" if layers else "canonical", 0, None)
    judged = parts["test" if part == "test" else "validation"]
    regions = shower_regions if layers else particle_regions
    chosen = regions(detector, primaries.conditions[judged], primaries.pdg[judged])
    return Data(events, parts["train"], judged, {name: rows for name, rows in chosen if rows.sum() >= 40})


def particle_regions(
    detector: Detector, conditions: NDArray[np.float32], pdg: NDArray[np.integer[Any]]
) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yields regions of particle type, energy and impact position."""
    energy = conditions[:, 0].astype(float)
    assert detector.face is not None
    impact = ImpactFeatures(detector).impact(torch.from_numpy(conditions)).numpy()
    off = np.hypot(impact[:, 0] - detector.face.x, impact[:, 1] - detector.face.y)
    yield "all", np.ones(len(conditions), bool)
    names = np.array([particle_name(int(number)) for number in pdg])
    for name in ("gamma", "n", "p"):
        yield f"type {name}", names == name
        for low, high in ((0, 0.5), (0.5, 1)):
            edges = np.quantile(energy[names == name], (low, high)) if (names == name).any() else (0, 0)
            yield (
                f"type {name}, energy {low:g} to {high:g}",
                (names == name) & (energy >= edges[0]) & (energy <= edges[1]),
            )
    for name in sorted(set(names) - {"gamma", "n", "p"}):
        yield f"rare {name}", names == name
    for low, high in ((0, 0.02), (0.02, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 0.98), (0.98, 1)):
        edges = np.quantile(energy, (low, high))
        kind = "edge" if high - low < 0.1 else "energy"
        yield f"{kind} {low:g} to {high:g} of energy", (energy >= edges[0]) & (energy <= edges[1])
        edges = np.quantile(off, (low, high))
        kind = "edge" if low > 0.9 else "impact"
        yield f"{kind} {low:g} to {high:g} of distance", (off >= edges[0]) & (off <= edges[1])


def shower_regions(
    detector: Detector, conditions: NDArray[np.float32], pdg: NDArray[np.integer[Any]]
) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yields regions of energy."""
    energy = conditions[:, 0].astype(float)
    yield "all", np.ones(len(conditions), bool)
    shares = (0, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 1)
    for low, high in pairwise(shares):
        edges = np.quantile(energy, (low, high))
        kind = "edge" if high - low < 0.1 else "energy"
        yield f"{kind} {low:g} to {high:g} of energy", (energy >= edges[0]) & (energy <= edges[1])


@dataclass(frozen=True)
class Method:
    """A way to make replicas.

    Attributes:
        bayesian: section of the configuration; empty for a committee.
        bootstrap: other particles for each member.
        replicas: how many.
    """

    bayesian: Mapping[str, Any]
    bootstrap: bool
    replicas: int

    @property
    def committee(self) -> bool:
        """Whether each replica is a training."""
        return not self.bayesian


def method_named(name: str, members: int, replicas: int) -> Method:
    """Reads `committee`, `bootstrap`, `last_layer`, `mean_field:0.1`: after the colon the weight."""
    kind, _, weight = name.partition(":")
    if kind in ("committee", "bootstrap"):
        return Method({}, kind == "bootstrap", members)
    return Method({"method": kind, "weight": float(weight or 0.1)}, False, replicas)


def trained(data: Data, rows: NDArray[np.intp], method: Method, seed: int, steps: int) -> nn.Module:
    """Trains the network of sums, or of layer energies, for so many updates."""
    detector, bayesian = data.events.detector, dict(method.bayesian) or None
    if method.bootstrap:
        rows = drawn_particles(data.events.group[rows], rows, seed)
    train = data.events.slices(rows)
    epochs = max(round(steps * BATCH / len(rows)), 1)
    optimizer = AdamConfig(learning_rate=2e-3, schedule="cosine", warmup=0.05)
    torch.manual_seed(derived_seed(seed, "weights"))
    model: nn.Module
    if len(detector.axes) == 2:
        config = ChannelFlowMatchingConfig.model_validate(
            {"width": 64, "blocks": 3, "epochs": epochs, "batch_size": BATCH, "bayesian": bayesian}
            | {"optimizer": optimizer.model_dump(), "solver": {"steps": 8, "method": "midpoint"}}
        )
        model = ChannelFlowMatching(detector, config)
        stages = list(model.stages(train))
    else:
        model, stages = layer_energies(train, epochs, optimizer, bayesian)
    for stage in stages:
        run(stage, train, seed)
    return model.eval()


def drawn_particles(groups: NDArray[np.integer[Any]], rows: NDArray[np.intp], seed: int) -> NDArray[np.intp]:
    """Returns the rows of as many particles as there are, drawn with replacement."""
    _, number = np.unique(groups, return_inverse=True)
    times = np.bincount(np.random.default_rng(seed).integers(0, number.max() + 1, number.max() + 1))
    return np.repeat(rows, np.pad(times, (0, number.max() + 1 - len(times)))[number])


def layer_energies(
    train: Events, epochs: int, optimizer: AdamConfig, bayesian: dict[str, Any] | None
) -> tuple[nn.Module, list[Stage]]:
    """Returns the first factor of `calodream` and its stage."""
    config = EnergyConfig.model_validate(
        {"network": "joint", "width": 112, "blocks": 3, "epochs": epochs, "batch_size": BATCH}
        | {"optimizer": optimizer.model_dump(), "bayesian": bayesian}
    )
    model = LayerNetwork(train.detector.cells, config)
    incident = torch.from_numpy(train.conditions)
    sums = LayerSums(incident, torch.from_numpy(train.responses.reshape(len(train), -1).astype(np.float64)))
    model.energy.fit(incident, sums.energies)

    def loss(energy: JointEnergies, batch: LayerSums, rng: BatchRandom) -> Tensor:
        return energy.loss(batch.incident, batch.energies, rng)

    each = variational(loss, config.bayesian, len(train))
    stage = LossStage(
        "energy",
        model.energy,
        each,
        lambda source: {},
        config,
        len(train),
        average=0.999,
        batches=sums.batches,
    )
    return model, [stage]


class LayerNetwork(nn.Module):
    """Draws layer energies [MeV] from E_inc [MeV], (B, 1), as the first factor of `calodream` does."""

    def __init__(self, layers: int, config: EnergyConfig) -> None:
        super().__init__()
        self.energy = JointEnergies(LayerEnergies([1] * layers), config, 0.4)
        self.noise_dim = self.energy.noise_dim
        make_bayesian(self.energy, config.bayesian)

    def forward(self, conditions: Tensor, noise: Tensor) -> Tensor:
        """Returns layer energies, (B, L) float64, of noise (B, noise_dim)."""
        solver = SolverConfig(method="midpoint", steps=8)
        return self.energy.draw(
            conditions,
            noise,
            lambda velocity, x0, _: integrate(velocity, x0, solver, self.energy.end, shares=True),
        )


def run(stage: Stage, train: EventSource, seed: int) -> None:
    """Makes the steps of a stage."""
    rng, number = np.random.default_rng(seed), 0
    for _ in range(stage.epochs):
        for batch in stage.batches(train, rng):
            random = BatchRandom(derived_seed(seed, stage.name, number), slice(0, len(batch)), len(batch))
            stage.step(batch, random, lambda loss: loss.backward())
            number += 1


@torch.no_grad()
def generated(model: Any, conditions: NDArray[np.float32]) -> FLOAT:
    """Returns the mean of a few generated sums of each particle, (N, K)."""
    inputs, numbers = torch.from_numpy(conditions), np.arange(len(conditions))
    total: FLOAT | float = 0.0
    for draw in range(DRAWS):
        noise = torch.from_numpy(standard_normals(draw, numbers, model.noise_dim))
        parts = [
            model(inputs[start : start + 2048], noise[start : start + 2048]).double().numpy()
            for start in range(0, len(inputs), 2048)
        ]
        total = total + np.concatenate(parts) / DRAWS
    return np.asarray(total)


def predictions(
    data: Data, rows: NDArray[np.intp], method: Method, steps: int
) -> tuple[list[FLOAT], list[FLOAT]]:
    """Returns what is judged, and the replicas, each (N_judged, K + 1) with the total last."""
    conditions = data.events.conditions[data.judged]

    def sums(model: nn.Module) -> FLOAT:
        values = generated(model, conditions)
        return np.concatenate([values, values.sum(1, keepdims=True)], 1)

    if method.committee:
        members = [sums(trained(data, rows, method, seed, steps)) for seed in range(1, method.replicas + 1)]
        return members, members
    model = trained(data, rows, method, 1, steps)
    replicas = []
    for number in range(1, method.replicas + 1):
        replica = deepcopy(model)
        take_replica(replica, 1, number)
        replicas.append(sums(replica))
    return [sums(model)], replicas


def judged(data: Data, method: Method, of: list[FLOAT], replicas: list[FLOAT]) -> list[dict[str, Any]]:
    """Compares actual and predicted deviations; one entry for each region, channel and judged surrogate."""
    truth = data.events.responses[data.judged].reshape(len(data.judged), -1).astype(np.float64)
    truth = np.concatenate([truth, truth.sum(1, keepdims=True)], 1)
    entries = []
    for region, rows in data.regions.items():
        means = np.stack([replica[rows].mean(0) for replica in replicas])
        model = means.std(0, ddof=1)
        scale = truth[rows].mean(0)
        for values in of:
            off = values[rows] - truth[rows]
            stat = off.std(0, ddof=1) / np.sqrt(rows.sum())
            for k in np.flatnonzero(scale > 0.002 * scale[-1]):
                entries.append(
                    {
                        "region": region,
                        "channel": int(k),
                        "rows": int(rows.sum()),
                        "mean": scale[k],
                        "deviation": off[:, k].mean(),
                        "model": model[k],
                        "stat": stat[k],
                    }
                )
    return entries


def summary(entries: Sequence[Mapping[str, Any]], freedom: float) -> list[str]:
    """Returns the cells of a row: pulls, coverage, share and ratio."""
    deviation, model, stat, mean = (
        np.array([entry[key] for entry in entries]) for key in ("deviation", "model", "stat", "mean")
    )
    total = np.hypot(model, stat)
    pull = deviation / total
    # Welch and Satterthwaite: the rows have many degrees of freedom, the replicas few
    degrees = freedom * (total / np.maximum(model, 1e-12)) ** 4
    inside = [np.abs(pull) < student.ppf(0.5 + level / 2, degrees) for level in (0.6827, 0.95)]
    excess = ((deviation / stat) ** 2 - 1).sum() / max(((model / stat) ** 2).sum(), 1e-30)
    return [
        f"{np.sqrt(np.mean(pull**2)):.2f}",
        *(f"{100 * np.mean(values):.0f}" for values in inside),
        f"{100 * np.median(model**2 / total**2):.0f}",
        f"{np.sqrt(max(excess, 0.0)):.2f}",
        f"{100 * np.median(model / mean):.1f}",
    ]


def left_out(data: Data) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yields what a training leaves out, and which of all events that is."""
    conditions, pdg = data.events.conditions, data.events.pdg
    energy = conditions[:, 0].astype(float)
    yield "Lambda and K0S", np.isin(pdg, (3122, -3122, 310))
    yield "the tenth of highest energy", energy > np.quantile(energy, 0.9)
    face = data.events.detector.face
    assert face is not None
    impact = ImpactFeatures(data.events.detector).impact(torch.from_numpy(conditions)).numpy()
    off = np.hypot(impact[:, 0] - face.x, impact[:, 1] - face.y)
    yield "the tenth of farthest impact", off > np.quantile(off, 0.9)


def guard(data: Data, methods: Mapping[str, Method], steps: int) -> None:
    """Prints how well the spread of replicas tells events outside of the training from others, and today's domain."""
    print(
        "| left out | guard | AUC | outside flagged at 1 % of inside [%] | inside flagged [%] | outside flagged [%] |"
    )
    print("|---" * 6 + "|")
    for what, outside in left_out(data):
        rows = data.train[~outside[data.train]]
        away = outside[data.judged]
        primaries = data.events.primaries
        inside = Domain.fit(primaries.select(rows)).inside(primaries.select(data.judged))
        flagged = [f"{100 * np.mean(~inside[part]):.1f}" for part in (~away, away)]
        print(f"| {what} | domain | - | - | {flagged[0]} | {flagged[1]} |", flush=True)
        for name, method in methods.items():
            _, replicas = predictions(data, rows, method, steps)
            totals = np.stack([replica[:, -1] for replica in replicas])
            energy = data.events.conditions[data.judged, 0].astype(float)
            for kind, spread in (
                ("spread", totals.std(0, ddof=1)),
                ("spread over sum", totals.std(0, ddof=1) / np.maximum(totals.mean(0), 10)),
                ("spread over energy", totals.std(0, ddof=1) / energy),
            ):
                order = np.argsort(np.argsort(spread))
                auc = (order[away].sum() - away.sum() * (away.sum() - 1) / 2) / (away.sum() * (~away).sum())
                cut = np.quantile(spread[~away], 0.99)
                share = np.mean(spread[away] > cut)
                print(f"| {what} | {name}, {kind} | {auc:.3f} | {100 * share:.1f} | 1.0 | |", flush=True)


def cost(paths: Sequence[Path], rounds: int = 12) -> None:
    """Prints what Gaussian weights cost: processor time of an update and of generating, in turns with plain ones."""
    source = Joined([open_events(path) for path in paths])
    events = source.slices(slice(0, 64 * len(source.primaries.detector.axes)))
    detector = events.detector
    sections: dict[str, tuple[Any, Any, dict[str, Any], str]]
    if detector.layers:
        small = {"network": "joint", "width": 112, "blocks": 3, "batch_size": 64}
        vit = {"prediction": "voxels", "batch_size": 16, "solver": {"steps": 2}}
        network = {"patch": [5, 16, 1], "width": 96, "heads": 4, "blocks": 4, "inner": 192, "time": 32}
        base: dict[str, Any] = {"energy": small, "shape": {**vit, "network": network}}
        sections = {
            "layer energies": (CaloDream, CaloDreamConfig, base, "energy"),
            "shape": (CaloDream, CaloDreamConfig, base, "shape"),
        }
    else:
        image = {"network": {"patch": 4}, "batch_size": 32, "solver": {"steps": 4}}
        sums = {"batch_size": 128, "solver": {"steps": 8}}
        sections = {
            "channel sums": (ChannelFlowMatching, ChannelFlowMatchingConfig, sums, ""),
            "flow matching": (FlowMatching, FlowMatchingConfig, image, ""),
        }
    print(
        "| network | update, Gaussian over plain | generating, replica over plain | making a replica [ms] |"
    )
    print("|---" * 4 + "|")
    for name, (kind, configuration, base, part) in sections.items():
        models: list[Any] = []
        steps: list[Callable[[], Any]] = []
        for gaussian in (False, True):
            bayesian: dict[str, Any] | None = {} if gaussian else None
            torch.manual_seed(0)
            section = {**base[part], "bayesian": bayesian} if part else {"bayesian": bayesian}
            values = {**base, part: section} if part else {**base, **section}
            model = kind(detector, configuration.model_validate(values))
            stage = next(stage for stage in model.stages(events) if part in ("", stage.name))
            batch = next(iter(stage.batches(events, np.random.default_rng(0))))
            random = BatchRandom(0, slice(0, len(batch)), len(batch))
            steps.append(partial(stage.step, batch, random, Tensor.backward))
            models.append(model.eval())
        started = time.process_time()
        take_replica(models[1], 0, 1)
        making = time.process_time() - started
        inputs = torch.from_numpy(events.conditions[:16])
        noise = torch.from_numpy(standard_normals(0, np.arange(16), models[0].noise_dim))

        def generate(model: Any, inputs: Tensor = inputs, noise: Tensor = noise) -> None:
            with torch.no_grad():
                model(inputs, noise)

        update = in_turns(steps, rounds)
        sampling = in_turns([partial(generate, model) for model in models], rounds)
        print(f"| {name} | {update} | {sampling} | {1e3 * making:.0f} |", flush=True)


def in_turns(actions: Sequence[Callable[[], Any]], rounds: int) -> str:
    """Returns the ratio of processor times of two actions, done in turns: median, and the quartiles."""
    ratios = []
    for turn in range(rounds + 2):
        spent = []
        for action in actions:
            started = time.process_time()
            action()
            spent.append(time.process_time() - started)
        if turn > 1:
            ratios.append(spent[1] / spent[0])
    low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


HEAD = ("rows", "pull rms", "in 68 % [%]", "in 95 % [%]", "share of the model [%]", "ratio", "band [%]")
KINDS: Mapping[str, Callable[[str], bool]] = {
    "all regions": lambda region: True,
    "types": lambda region: region.startswith("type"),
    "rare types": lambda region: region.startswith("rare"),
    "energies": lambda region: region.startswith("energy"),
    "distances": lambda region: region.startswith("impact"),
    "edges": lambda region: region.startswith("edge"),
}


def main() -> None:
    """Reads the arguments, trains, prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument(
        "--methods", nargs="+", default=["mean_field:0.1", "last_layer", "committee", "bootstrap"]
    )
    parser.add_argument(
        "--parts", nargs="+", type=int, default=[8, 4, 2, 1], help="1/8, 1/4, ... of the particles"
    )
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--replicas", type=int, default=8)
    parser.add_argument("--part", choices=["test", "validation"], default="test")
    parser.add_argument("--guard", action="store_true", help="compare as guards of the domain instead")
    parser.add_argument("--cost", action="store_true", help="take processor times instead")
    parser.add_argument("--out", type=Path, help="all entries as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.cost:
        cost(arguments.paths)
        return
    data, kept = read(arguments.paths, arguments.part), {}
    if arguments.guard:
        methods = {
            name: method_named(name, arguments.members, arguments.replicas) for name in arguments.methods
        }
        guard(data, methods, arguments.steps)
        return
    eighths = np.array(
        [crc32(int(group).to_bytes(8, "little")) % 8 for group in data.events.group[data.train]]
    )
    print("| particles | method | regions | " + " | ".join(HEAD) + " | s |")
    print("|---" * (len(HEAD) + 4) + "|")
    for part in arguments.parts:
        rows = data.train[eighths < 8 // part]
        for name in arguments.methods:
            method, started = method_named(name, arguments.members, arguments.replicas), time.process_time()
            entries = judged(data, method, *predictions(data, rows, method, arguments.steps))
            seconds = time.process_time() - started
            kept[f"1/{part} {name}"] = entries
            freedom = method.replicas - 1 if method.committee else 1e6
            for kind, belongs in KINDS.items():
                some = [entry for entry in entries if belongs(entry["region"])]
                if some:
                    cells = [
                        f"1/{part}",
                        name,
                        kind,
                        str(len(rows)),
                        *summary(some, freedom),
                        f"{seconds:.0f}",
                    ]
                    print("| " + " | ".join(cells) + " |", flush=True)
            if arguments.out:
                arguments.out.write_text(json.dumps(kept))


if __name__ == "__main__":
    main()
