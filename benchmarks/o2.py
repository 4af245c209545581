"""The O2 drop-in on raw primaries: fractions of responses, photons, speed, and what its approximations cost.

    python benchmarks/o2.py FOLDER TRIALS --zero RUN --zn RUN --zp RUN [--part fractions latency threshold ...]

FOLDER is what `caloforge export --target o2` wrote from the three runs, TRIALS a file of trials ("sample": the one that
ships). The host's side is `runtime.o2_host`: one thread, one primary at a time. Parts:

fractions    every test primary once; observed by GEANT against the chain's, by type of particle, with shared and with
             separate noise for the two generators
threshold    what the classifier excludes: primaries, responses, and photons
latency      processor time of classifier and generators, min / median / max of --repeats
noise        W1 of channel sums of generated test events, with the runtime's noise and with the expanded one
features     error of the impact point within float32 scales: as passed, and if the features were standardised
expansion    time to expand ten normals to 2,000
"""

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from caloforge.detectors import ZN
from caloforge.evaluation.zero_response import by_particle, with_both
from caloforge.events import split
from caloforge.io import open_events, open_trials
from caloforge.metrics.channels import mean_wasserstein
from caloforge.models.parts.inference import as_function, probabilities_in_memory
from caloforge.runtime.expansion import SIZE, expand
from caloforge.runtime.noise import standard_normals
from caloforge.runtime.o2_host import Host, Model, features_of, separate_noise, shared_noise
from caloforge.samples import TRIALS, sample
from caloforge.training.checkpoint import load_classifier, load_model
from caloforge.trials import Trials

PARTS = ("fractions", "threshold", "latency", "noise", "features", "expansion")
LEAST = 100

ALIKE = (("K(S)0", "K(L)0"), ("n", "n~"), ("Lambda", "Lambda~"))
"""Types of particle that the nine features do not tell apart."""


def clock(run: Callable[[int], object], repeats: int) -> list[float]:
    """Returns sorted processor times in ms of run(0), run(1), ..."""
    times = []
    for number in range(repeats):
        started = time.process_time()
        run(number)
        times.append(1e3 * (time.process_time() - started))
    return sorted(times)


def spread(times: list[float]) -> str:
    """Returns min / median / max."""
    return " / ".join(f"{times[i]:.3g}" for i in (0, len(times) // 2, -1))


def fractions(host: Host, trials: Trials, options: argparse.Namespace) -> None:
    """Prints fractions of responses by type of particle."""
    primaries = trials.primaries
    lit = {}
    for label, noise in (("shared", shared_noise(options.seed)), ("separate", separate_noise(options.seed))):
        found = host.simulate(primaries, noise)
        zn, zp = (events.responses.any((1, 2)) for events in found.values())
        lit[label] = np.stack([zn, zp, zn | zp, zn & zp], 1)
    hits = with_both(trials.hits)
    n = trials.trials
    print("observed by GEANT / the chain's, % (difference over its statistical error)\n")
    print("| particle | trials | ZN | ZP | any | both | both, separate noise |")
    print("|---|---|---|---|---|---|---|")
    groups = [("all", np.arange(len(primaries))), *by_particle(trials)]
    rare = [rows for _, rows in groups if n[rows].sum() < LEAST]
    groups = [(label, rows) for label, rows in groups if n[rows].sum() >= LEAST]
    if rare:
        groups.append(("others", np.concatenate(rare)))
    types = dict(by_particle(trials))
    for pair in ALIKE:
        if all(name in types for name in pair):
            groups.append((" + ".join(pair), np.concatenate([types[name] for name in pair])))
    pulls = []
    for label, rows in groups:
        cells = []
        for number in range(5):
            column = min(number, 3)
            drawn = lit["separate" if number == 4 else "shared"][rows, column]
            weights = n[rows] / n[rows].sum()
            observed, got = hits[rows, column].sum() / n[rows].sum(), float((weights * drawn).sum())
            # primaries are independent, the shots of one need not be
            error = np.sqrt((weights**2 * (drawn - hits[rows, column] / n[rows]) ** 2).sum())
            pull = (got - observed) / error if error else 0.0
            pulls += [pull] if number < 4 and label in types and label not in sum(ALIKE, ()) else []
            cells.append(f"{100 * observed:.2f} / {100 * got:.2f} ({pull:+.1f})")
        print(f"| {label} | {n[rows].sum():,} | {' | '.join(cells)} |")
    errors = np.array(pulls)
    print(
        f"\n{len(errors)} fractions: root mean square of the differences {np.sqrt((errors**2).mean()):.2f} errors, "
        f"{(np.abs(errors) > 2).sum()} beyond 2, {(np.abs(errors) > 3).sum()} beyond 3"
    )


def threshold(host: Host, trials: Trials, options: argparse.Namespace) -> None:
    """Prints what the classifier excludes, by the model and as observed."""
    _, classifier = load_classifier(options.zero)
    p = probabilities_in_memory(classifier, trials.conditions).astype(np.float64)
    n, hits = trials.trials, trials.hits
    print(
        "| threshold | primaries excluded | responses lost, predicted | observed | photons lost, observed |"
    )
    print("|---|---|---|---|---|")
    for limit in (1e-5, 1e-4, 1e-3, 3e-3, 1e-2):
        out = p[:, 2] < limit
        lost, every = (n * p[:, 2])[out].sum(), (n * p[:, 2]).sum()
        photons = []
        for files in (options.zn_events, options.zp_events):
            for path in files:
                events = open_events(path)
                rows = split(events, "canonical")["test"]
                part = events.slices(rows)
                sums = part.responses.reshape(len(part), -1).sum(1, dtype=np.float64)
                low = probabilities_in_memory(classifier, part.conditions)[:, 2] < limit
                photons.append((sums[low].sum(), sums.sum()))
        share = (
            "-" if not photons else f"{100 * sum(a for a, _ in photons) / sum(b for _, b in photons):.4f} %"
        )
        print(
            f"| {limit:g} | {100 * (n * out).sum() / n.sum():.1f} % | {100 * lost / every:.4f} % | "
            f"{hits[out, 2].sum()} of {hits[:, 2].sum()} | {share} |"
        )


def latency(host: Host, trials: Trials, options: argparse.Namespace) -> None:
    """Prints processor times."""
    primaries = trials.primaries
    features = features_of(primaries)
    _, classifier = load_classifier(options.zero)
    p = probabilities_in_memory(classifier, primaries.conditions)
    rng = np.random.default_rng(options.seed)

    def noise(number: int) -> NDArray[np.float32]:
        return rng.standard_normal(SIZE).astype(np.float32)

    def answered(
        generator: Model, chosen: Sequence[tuple[NDArray[np.float32], np.intp]], number: int
    ) -> NDArray[np.generic]:
        normals, row = chosen[number % len(chosen)]
        return generator(normals, features[row])

    likely = np.argsort(-(p[:, 0] * p[:, 1]))[:50]
    empty = np.flatnonzero(p[:, 2] < 1e-3)[:50]
    repeats = options.repeats
    host.classifier(features[0])
    print("| part | processor time, ms: min / median / max |")
    print("|---|---|")
    print(f"| classifier | {spread(clock(lambda i: host.classifier(features[i]), repeats))} |")
    for name, generator in host.generators.items():
        # the same normals may leave it dark: take those that do not
        pairs = []
        for number in range(100 * repeats):
            row, normals = likely[number % len(likely)], noise(number)
            if (
                expand(normals[None], 1)[0][0] < 0.3 * p[row].min()
                and generator(normals, features[row]).any()
            ):
                pairs.append((normals, row))
            if len(pairs) == repeats:
                break
        for label, chosen in (
            ("responding", pairs),
            ("dark", [(noise(number), row) for number, row in enumerate(empty)]),
        ):
            run = partial(answered, generator, chosen)
            run(0)
            print(f"| {name}, {label} | {spread(clock(run, repeats))} |")

    def chain(row: int, normals: NDArray[np.float32]) -> None:
        scaled = host.classifier.scaled(features[row])
        if np.rint(host.classifier(scaled)[0]):
            for generator in host.generators.values():
                generator(normals, generator.scaled(features[row]))

    both = []
    for number in range(100 * repeats):
        row, normals = likely[number % len(likely)], noise(number)
        if all(g(normals, features[row]).any() for g in host.generators.values()):
            both.append((row, normals))
        if len(both) == repeats:
            break
    print(f"| whole chain, both respond | {spread(clock(lambda i: chain(*both[i % len(both)]), repeats))} |")
    # those that point at a module by chance, as a generator gives them, and those of the bulk, which miss both
    weights = trials.trials / trials.trials.sum()
    cone = np.random.default_rng(1).choice(len(primaries), 1000, p=weights)
    bulk = np.random.default_rng(2).choice(np.flatnonzero(p[:, 2] < 1e-3), 1000)
    for label, rows in (("mean over 1,000 primaries of the cone", cone), ("over 1,000 that miss both", bulk)):
        totals = []
        for _ in range(5):
            started = time.process_time()
            for row in rows:
                chain(row, noise(row))
            totals.append(1e3 * (time.process_time() - started) / len(rows))
        print(f"| whole chain, {label} | {spread(sorted(totals))} |")


def noise_part(host: Host, trials: Trials, options: argparse.Namespace) -> None:
    """Prints W1 with the runtime's noise and with the expanded one."""
    print("| detector | events | W1, runtime's noise | W1, expanded noise | the two against each other |")
    print("|---|---|---|---|---|")
    for run, files in ((options.zn, options.zn_events), (options.zp, options.zp_events)):
        _, model = load_model(run)
        for path in files:
            events = open_events(path, model.detector)
            part = events.slices(split(events, "canonical")["test"][: options.events])
            true = part.detector.readout(part.responses, "o2")
            sums: dict[str, list[NDArray[np.float64]]] = {"plain": [], "expanded": []}
            forward = as_function(model)
            for seed in range(options.seeds):
                numbers = np.arange(len(part))
                ten = standard_normals(seed, numbers, SIZE, stream=7)
                for label in sums:
                    images = []
                    for start in range(0, len(part), 256):
                        rows = numbers[start : start + 256]
                        normals = (
                            standard_normals(seed, rows, model.noise_dim)
                            if label == "plain"
                            else expand(ten[rows], model.noise_dim)[1]
                        )
                        images.append(forward(part.conditions[rows], normals))
                    sums[label].append(part.detector.readout(np.concatenate(images), "o2"))
            scores = {
                label: [mean_wasserstein(true, one) for one in values] for label, values in sums.items()
            }
            cross = [mean_wasserstein(a, b) for a, b in zip(*sums.values(), strict=True)]
            cells = [f"{np.mean(v):.2f} ± {np.std(v):.2f}" for v in (*scores.values(), cross)]
            print(f"| {model.detector.name}, {path.stem} | {len(part):,} | {' | '.join(cells)} |", flush=True)


def features_part(host: Host, trials: Trials, options: argparse.Namespace) -> None:
    """Prints the error of the impact point that float32 leaves."""
    x = trials.conditions
    names = [ZN.features.index(name) for name in ("vx", "vy", "vz", "px", "py", "pz")]

    assert ZN.face is not None
    z = ZN.face.z

    def impact(conditions: NDArray[np.floating]) -> NDArray[np.float64]:
        vx, vy, vz, px, py, pz = (conditions.astype(np.float64)[:, column] for column in names)
        length = z - np.sign(pz) * vz
        return np.stack([vx + px / np.abs(pz) * length, vy + py / np.abs(pz) * length], 1)

    exact = impact(x)
    near = (np.abs(exact) < 4).all(1)
    print("| scales | largest error of the impact point in cm, within 4 cm of the axis | everywhere |")
    print("|---|---|---|")
    for label, mean, scale in (
        ("means 0, scales 1 (as exported)", np.zeros(9), np.ones(9)),
        ("standardised", x.astype(np.float64).mean(0), x.astype(np.float64).std(0)),
        ("standardised, means of 10 sigma", 10 * x.astype(np.float64).std(0), x.astype(np.float64).std(0)),
    ):
        mean, scale = mean.astype(np.float32), scale.astype(np.float32)
        scaled = (x - mean) / scale
        error = np.abs(impact(scaled * scale + mean) - exact)
        print(f"| {label} | {error[near].max():.2g} | {error.max():.2g} |")


def expansion_part(host: Host, trials: Trials, options: argparse.Namespace) -> None:
    """Prints the time of the expansion alone, as a graph."""
    import onnx
    import onnxruntime

    from caloforge.export import o2
    from caloforge.export.onnx import IR_VERSION, OPSET

    nodes = o2._Nodes("n")
    high, low = o2._halves(nodes, "noise", 1001)
    nodes("Identity", o2._normals(nodes, high, low, 2000), name="normals")
    kinds, helper = onnx.TensorProto, onnx.helper
    graph = helper.make_graph(
        nodes.nodes, "expansion",
        [helper.make_tensor_value_info("noise", kinds.FLOAT, ["batch", SIZE])],
        [helper.make_tensor_value_info("normals", kinds.FLOAT, ["batch", 2000])],
        nodes.initializers,
    )  # fmt: skip
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )
    ten = np.zeros((1, SIZE), np.float32)
    session.run(None, {"noise": ten})
    times = clock(lambda i: session.run(None, {"noise": ten + i}), options.repeats)
    print(f"2,000 normals of ten, ms: {spread(times)}")


def main() -> None:
    """Runs the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("trials")
    parser.add_argument("--zero", type=Path, required=True)
    parser.add_argument("--zn", type=Path)
    parser.add_argument("--zp", type=Path)
    parser.add_argument("--zn-events", type=Path, nargs="*", default=[sample("zn_wide")])
    parser.add_argument("--zp-events", type=Path, nargs="*", default=[sample("zp_wide")])
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--events", type=int, default=5000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=50)
    options = parser.parse_args()
    every = open_trials(sample(TRIALS) if options.trials == "sample" else Path(options.trials), ZN)
    trials = every.slices(np.flatnonzero(every.fold < 2))
    host = Host.load(options.folder)
    parts = {
        "fractions": fractions,
        "threshold": threshold,
        "latency": latency,
        "noise": noise_part,
        "features": features_part,
        "expansion": expansion_part,
    }
    for part in options.part:
        print(f"\n## {part}\n", flush=True)
        parts[part](host, trials, options)


if __name__ == "__main__":
    main()
