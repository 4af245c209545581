"""Learning curves: scores against the number of training rows, and where a power law would end with more of them.

    python benchmarks/learning_curve.py --whole zn-channel_flow_matching --data zn.h5 zn_wide.h5 --out FOLDER \
        --reference sample:zn sample:zn_wide [--parts 8 4 2] [--rows 214746] [--figure docs/images/learning_curve.svg]

The recipe of `--whole`, weights that ship or a run, is trained again on every eighth, fourth and second training
particle, with all their responses and all validation particles; each training has as many updates as the whole one,
and the best validation chooses its weights. What is there already in FOLDER is not trained again. All are scored on the
test rows with five repeats. To each score

    y(n) = c + a n^(-b)

is fitted, n the training rows, a >= 0 by least squares, on a grid of 0 <= c <= the smallest score and 0.05 <= b <= 1.5;
a point counts by the spread of its repeats. The value at `--rows` (70 % of the 306,780 that the publications have) is
the median over the grid, weighted by exp(-chi^2 / 2), with the range from 16 % to 84 %. Rows of the publications belong
to few particles, so that theirs are worth less than ours.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import caloforge as cf
from caloforge.events import EventSource, Joined, load
from caloforge.io import create, open_events
from caloforge.io.run import Run
from caloforge.io.scores import Scores, read_scores
from caloforge.report import figures
from caloforge.report.drawing import style
from caloforge.report.sweeps import Curve
from caloforge.report.tables import entry_of
from caloforge.samples import located, weights

METRICS = ("mae_c", "conditional_w1", "w1")
TITLES = {"mae_c": "MAE_c", "conditional_w1": "conditional W1", "w1": "W1"}


@dataclass(frozen=True)
class Points:
    """A score of all sizes: training rows, values, spreads over the repeats, and its floor."""

    rows: Sequence[int]
    values: Sequence[float]
    spreads: Sequence[float]
    floor: float


def thinned(source: EventSource, part: int, path: Path) -> int:
    """Writes one in so many training particles and all others, and returns the number of training rows."""
    primaries = source.primaries
    training = primaries.fold >= 3
    groups = np.unique(primaries.group[training])
    chosen = np.random.default_rng(0).permutation(groups)[: len(groups) // part]
    kept = np.flatnonzero(~training | np.isin(primaries.group, chosen))
    events = load(source).slices(kept)
    with create(path, events.detector) as writer:
        writer.append(events)
    return int(np.count_nonzero(events.fold >= 3))


def scored(name: str, references: Sequence[str], path: Path) -> Scores:
    """Scores weights once; what is there already is read."""
    return read_scores(path) if path.exists() else cf.evaluate(name, references, out=path)


def trained(arguments: argparse.Namespace, source: EventSource, part: int) -> tuple[int, Path]:
    """Trains on a part of the particles; returns the training rows and the run folder."""
    whole = weights().get(arguments.whole, Path(arguments.whole))
    recipe = Run(whole).recipe()
    data, run = arguments.out / f"part-{part}.h5", arguments.out / f"part-{part}"
    rows = thinned(source, part, data)
    card = Run(whole).card()
    before = sum(file.rows["train"] for file in card.data)
    epochs = round(recipe.model["epochs"] * before / rows)
    if not (run / "card.json").exists():
        settings = [f"model.epochs={epochs}", f"training.validate_every={max(epochs // 14, 1)}"]
        cf.train(whole / "recipe.toml", run, data=[data], settings=settings, resume=run.exists())
    return rows, run


def extrapolated(points: Points, rows: int) -> tuple[float, float, float]:
    """Returns 16 %, 50 % and 84 % of the value at so many rows."""
    n, y = np.array(points.rows, float), np.array(points.values)
    error = np.maximum(np.array(points.spreads), 0.005 * y)
    values, chances = [], []
    for b in np.linspace(0.05, 1.5, 146):
        x = (n / n[-1]) ** -b
        for c in np.linspace(0, y.min(), 201):
            a = max(float(((y - c) * x / error**2).sum() / (x**2 / error**2).sum()), 0.0)
            chances.append(np.exp(-0.5 * (((c + a * x - y) / error) ** 2).sum()))
            values.append(c + a * (rows / n[-1]) ** -b)
    order = np.argsort(values)
    share = np.cumsum(np.array(chances)[order]) / np.sum(chances)
    low, middle, high = (
        float(np.array(values)[order][np.searchsorted(share, level)]) for level in (0.16, 0.5, 0.84)
    )
    return low, middle, high


def main() -> None:
    """Trains, scores, fits and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--whole", default="zn-channel_flow_matching")
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--reference", nargs="+", required=True)
    parser.add_argument("--parts", nargs="+", type=int, default=[8, 4, 2])
    parser.add_argument("--rows", type=int, default=214_746)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--figure", type=Path)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    source = Joined([open_events(located(name)) for name in arguments.data])
    whole = int(np.count_nonzero(source.primaries.fold >= 3))
    runs = [trained(arguments, source, part) for part in sorted(arguments.parts, reverse=True)]
    results = [(rows, scored(str(run), arguments.reference, run / "scores.json")) for rows, run in runs]
    results.append((whole, scored(arguments.whole, arguments.reference, arguments.out / "whole.json")))
    curves: list[Curve] = []
    heads = [*(f"{rows:,} rows" for rows, _ in results), f"at {arguments.rows:,} rows", "floor of halves"]
    print(f"| score | {' | '.join(heads)} |")
    print("|---" * (len(results) + 3) + "|")
    for stem in results[0][1].sets:
        for metric in METRICS:
            entries = [entry_of(scores, stem, metric) for _, scores in results]
            if any(entry is None or entry.mean is None for entry in entries):
                continue
            there = [entry for entry in entries if entry is not None]
            floor = there[0].floor
            points = Points(
                [rows for rows, _ in results],
                [entry.mean or 0.0 for entry in there],
                [entry.std or 0.0 for entry in there],
                floor.mean if floor and floor.mean else float("nan"),
            )
            low, middle, high = extrapolated(points, arguments.rows)
            cells = [f"{y:.2f} ± {s:.2f}" for y, s in zip(points.values, points.spreads, strict=True)]
            print(
                f"| {stem}: {TITLES[metric]} | {' | '.join(cells)} | {middle:.2f} ({low:.2f} to {high:.2f}) | "
                f"{points.floor:.2f} |"
            )
            x = (*map(float, points.rows), float(arguments.rows))
            look = style(len(curves), f"{stem}: {TITLES[metric]}")
            spread = (*points.spreads, (high - low) / 2)
            curves.append(Curve(look, x, (*points.values, middle), spread))
    if arguments.figure:
        caption = "training rows; the last is extrapolated"
        arguments.figure.write_bytes(figures.sweep(curves, None, caption, "score [photons]"))


if __name__ == "__main__":
    main()
