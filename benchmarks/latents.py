"""Latent models: what their autoencoders keep, what an event costs beside others, and quality against their settings.

    python benchmarks/latents.py reconstruct RUN... --reference sample:zn_wide
    python benchmarks/latents.py time RECIPE... [--batch 256]
    python benchmarks/latents.py passes zn-vqgan [--batch 32]
    python benchmarks/latents.py curves RUN:solver.steps=1,2,4,7 RUN:temperature=0.8,1,1.2 --reference sample:zn_wide
    python benchmarks/latents.py table SCORED... --autoencoders RUN... --reference sample:zn_wide sample:zn

`reconstruct` passes test events through the autoencoder and compares channel sums, lit cells and radius with those of
the events themselves, W1 beside the floor of halves. Runs must still have their encoders, which weights that ship do
not. `time` measures recipes, with random weights, in turns in one process: processor time of one thread with the noise.
`passes` asks what drawing tokens in a few parallel passes could save. `curves` draws W1 against one setting after the
other, the rest being those of the run, and writes one figure a setting. `table` has reconstructions and scored runs,
among them yardsticks, in one table beside the floor. With `--fold validation` nothing of the test is seen: so settings
and objectives are chosen.
"""

import argparse
import dataclasses
import time
from pathlib import Path

import numpy as np
import torch

from caloforge import recipe, samples
from caloforge.events import Events, Selected, split
from caloforge.io import open_events
from caloforge.io.files import read_json
from caloforge.io.run import Run
from caloforge.metrics import METRICS, observe
from caloforge.metrics.channels import mean_wasserstein
from caloforge.models import Generator, Readout, build
from caloforge.models.latent_flow_matching import LatentFlowMatching
from caloforge.models.parts.inference import generate_in_memory, spread_rows
from caloforge.models.vqgan import VQGAN
from caloforge.nn.quantizer import usage
from caloforge.report import drawing, figures
from caloforge.report.sweeps import Curve
from caloforge.training.checkpoint import load_model

MEASURES = {"w1": "W1", "w1_lit": "W1 of lit cells", "w1_radius": "W1 of the radius"}


def rows_of(arguments: argparse.Namespace, name: str, run: Path) -> Events:
    """Returns the test or validation rows of a reference, evenly spread over it."""
    path = samples.located(name)
    source, recipe = open_events(path), Run(run).recipe()
    rows = split(source, recipe.data.split, recipe.seed)[arguments.fold]
    return spread_rows(Selected(source, rows), arguments.rows or len(rows))


def distances(events: Events, responses: np.ndarray) -> list[float]:
    """Returns the distances of `MEASURES` of responses to those of the events."""
    reference, found = observe(events), observe(dataclasses.replace(events, responses=responses))
    return [METRICS[name].function(reference, found).value for name in MEASURES]


def floor_of(events: Events, splits: int = 20) -> tuple[float, float]:
    """Returns mean and spread of W1 between random halves."""
    sums, rng = events.detector.readout(events.responses), np.random.default_rng(0)
    orders = [np.array_split(rng.permutation(len(sums)), 2) for _ in range(splits)]
    found = [mean_wasserstein(sums[first], sums[second]) for first, second in orders]
    return float(np.mean(found)), float(np.std(found))


def reconstruct(arguments: argparse.Namespace) -> None:
    """Prints one row a run and reference."""
    print(
        f"| model | {arguments.fold} rows of | events | floor | {' | '.join(MEASURES.values())} | W1 over the floor | "
        "codes used | perplexity |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for run in arguments.runs:
        loaded, model = load_model(run)
        for name in arguments.reference:
            events = rows_of(arguments, name, run)
            codes = "| |"
            if isinstance(model, VQGAN):
                found, tokens = model.reconstruct(events)
                used, perplexity = usage(tokens, model.config.image.codes)
                codes = f"{used:.1%} | {perplexity:.0f} |"
            elif isinstance(model, LatentFlowMatching):
                found = model.reconstruct(events)
            else:
                raise SystemExit(f"{loaded.name} has no autoencoder of images")
            (w1, *others), (floor, spread) = distances(events, found), floor_of(events)
            print(
                f"| {loaded.name} | {name} | {len(events)} | {floor:.2f} ± {spread:.2f} | {w1:.2f} | "
                f"{' | '.join(f'{value:.2f}' for value in others)} | {w1 / floor:.2f} | {codes}"
            )


def measure_time(arguments: argparse.Namespace) -> None:
    """Prints milliseconds an event of each recipe, beside the first one's."""
    torch.set_num_threads(1)
    models = {name: build(recipe.parse(recipe.read(name))).eval() for name in arguments.recipes}
    times: dict[str, list[float]] = {name: [] for name in models}
    for repeat in range(arguments.repeats + 1):
        for name, model in models.items():
            assert isinstance(model, Generator | Readout)
            events = open_events(samples.samples_of(model.detector.name)[0]).primaries
            conditions = events.conditions[: arguments.batch]
            started = time.process_time()
            generate_in_memory(model, conditions, seed=repeat, batch_size=arguments.batch)
            times[name].append(1e3 * (time.process_time() - started) / arguments.batch)
    print(f"batch {arguments.batch}, one thread, processor time, min / median / max of {arguments.repeats}\n")
    print("| recipe | ms an event | times the first |")
    print("|---|---|---|")
    first = np.median(times[arguments.recipes[0]][1:])
    for name, measured in times.items():
        low, middle, high = (f(measured[1:]) for f in (np.min, np.median, np.max))
        print(f"| {name} | {low:.3g} / {middle:.3g} / {high:.3g} | {middle / first:.3g} |")


def measure_passes(arguments: argparse.Namespace) -> None:
    """Prints the time of one pass over all tokens at once beside that of drawing them one after the other."""
    torch.set_num_threads(1)
    model = build(recipe.parse(recipe.read(arguments.recipe))).eval()
    assert isinstance(model, VQGAN)
    times: dict[str, list[float]] = {"drawn one after the other": [], "one pass over all": []}
    given = torch.zeros(arguments.batch, model.config.condition.tokens, dtype=torch.int64)
    for _ in range(arguments.repeats + 1):
        with torch.no_grad():
            started = time.process_time()
            tokens = model.prior.draw(given, torch.rand(arguments.batch, model.length), 1.0, 128)
            between = time.process_time()
            model.prior(given, tokens)
        times["drawn one after the other"].append(1e3 * (between - started) / arguments.batch)
        times["one pass over all"].append(1e3 * (time.process_time() - between) / arguments.batch)
    print(
        f"{model.length} tokens, batch {arguments.batch}, one thread, processor time, min / median / max of "
        f"{arguments.repeats}\n\n| tokens | ms an event |\n|---|---|"
    )
    for name, measured in times.items():
        print(f"| {name} | {' / '.join(f'{f(measured[1:]):.3g}' for f in (np.min, np.median, np.max))} |")


def curves(arguments: argparse.Namespace) -> None:
    """Prints every point and writes one figure a setting of several values."""
    drawn: dict[str, list[Curve]] = {}
    names = list(dict.fromkeys(curve.partition(":")[0] for curve in arguments.curves))
    events = rows_of(arguments, arguments.reference[0], Path(names[0]))
    floor = floor_of(events)
    print(
        f"{len(events)} {arguments.fold} rows of {arguments.reference[0]}, floor of halves {floor[0]:.2f} ± "
        f"{floor[1]:.2f}, mean ± spread of {arguments.seeds}\n"
    )
    print(f"| model | setting | {' | '.join(MEASURES.values())} | ms an event |")
    print("|---|---|---|---|---|---|")
    for curve in arguments.curves:
        run, _, setting = curve.partition(":")
        path, _, values = setting.partition("=")
        points = []
        for value in values.split(","):
            loaded, model = load_model(Path(run), [f"{path}={value}"])
            started = time.process_time()
            made = [generate_in_memory(model, events.conditions, seed) for seed in range(arguments.seeds)]
            each = 1e3 * (time.process_time() - started) / len(events) / arguments.seeds
            found = np.array([distances(events, responses) for responses in made])
            columns = [
                f"{mean:.2f} ± {spread:.2f}" for mean, spread in zip(found.mean(0), found.std(0), strict=True)
            ]
            print(f"| {run} | {path}={value} | {' | '.join(columns)} | {each:.2f} |", flush=True)
            points.append((float(value), float(found[:, 0].mean()), float(found[:, 0].std())))
        look = drawing.style(names.index(run), loaded.name)
        if len(points) > 1:
            x, y, spread = zip(*points, strict=True)
            drawn.setdefault(path, []).append(Curve(look, x, y, spread))
    for path, lines in drawn.items():
        picture = figures.sweep(lines, floor, path, f"W1 [{events.detector.unit}]")
        (arguments.out / f"{arguments.prefix}{path.replace('.', '_')}.svg").write_bytes(picture)


def table(arguments: argparse.Namespace) -> None:
    """Prints the autoencoders beside scored runs, a row each, with the distances on every set."""
    references = {Path(name).stem.removeprefix("sample:"): name for name in arguments.reference}
    scored = [read_json(Run(run).scores) for run in arguments.runs]
    rows: dict[str, list[str]] = {"floor, halves": []}
    rows |= {f"{Run(run).recipe().name}, reconstruction": [] for run in arguments.autoencoders}
    rows |= {one["name"]: [] for one in scored}
    for stem, name in references.items():
        metrics = {one["name"]: one["sets"][stem]["groups"]["all"]["metrics"] for one in scored}
        floors = [next(iter(metrics.values()))[measure]["floor"] for measure in MEASURES]
        rows["floor, halves"] += [f"{floor['mean']:.2f} ± {floor['std']:.2f}" for floor in floors]
        for run in arguments.autoencoders:
            loaded, model = load_model(run)
            events = rows_of(arguments, name, run)
            assert isinstance(model, LatentFlowMatching | VQGAN)
            made = model.reconstruct(events)
            found = distances(events, made[0] if isinstance(made, tuple) else made)
            rows[f"{loaded.name}, reconstruction"] += [f"{value:.2f}" for value in found]
        for model_name, entries in metrics.items():
            rows[model_name] += [
                f"{entry['mean']:.2f} ± {entry['std']:.2f}" if entry["mean"] is not None else "–"
                for entry in (entries[measure] for measure in MEASURES)
            ]
    for one in scored:
        timing = one["timing"]
        rows[one["name"]].append(f"{timing['ms_per_event']['median']:.3g}" if timing else "")
    heads = [f"{stem}: {title}" for stem in references for title in MEASURES.values()]
    print(f"| model | {' | '.join(heads)} | ms an event |\n|---{'|---' * (len(heads) + 1)}|")
    for model_name, cells in rows.items():
        print(f"| {model_name} | {' | '.join(cells + [''] * (len(heads) + 1 - len(cells)))} |")


def main() -> None:
    """Reads the arguments and runs one part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = parser.add_subparsers(dest="part", required=True)
    kept = parts.add_parser("reconstruct")
    kept.add_argument("runs", nargs="+", type=Path)
    timed = parts.add_parser("time")
    timed.add_argument("recipes", nargs="+")
    timed.add_argument("--batch", type=int, default=256)
    timed.add_argument("--repeats", type=int, default=5)
    passed = parts.add_parser("passes")
    passed.add_argument("recipe")
    passed.add_argument("--batch", type=int, default=32)
    passed.add_argument("--repeats", type=int, default=5)
    swept = parts.add_parser("curves")
    swept.add_argument("curves", nargs="+", metavar="RUN:PATH=V1,V2,...")
    swept.add_argument("--seeds", type=int, default=2)
    swept.add_argument("--out", type=Path, default=Path("docs/images"))
    swept.add_argument("--prefix", default="w1_")
    beside = parts.add_parser("table")
    beside.add_argument("runs", nargs="+", type=Path)
    beside.add_argument("--autoencoders", nargs="*", type=Path, default=[])
    for part in (kept, swept, beside):
        part.add_argument("--reference", nargs="+", required=True)
        part.add_argument("--rows", type=int, help="so many rows, evenly spread, in place of all")
        part.add_argument("--fold", choices=("test", "validation"), default="test")
    arguments = parser.parse_args()
    {
        "reconstruct": reconstruct, "time": measure_time, "passes": measure_passes, "curves": curves, "table": table
    }[arguments.part](arguments)  # fmt: skip


if __name__ == "__main__":
    main()
