"""Learning curves: scores against the number of training rows, and where a power law would end with more of them.

    python benchmarks/learning_curve.py --whole zn-channel_flow_matching --data zn.h5 zn_wide.h5 --out FOLDER \
        --reference sample:zn sample:zn_wide [--parts 8 4 2] [--updates 2000] [--rows 214746] \
        [--figure docs/images/learning_curve.svg]

The recipe of `--whole`, weights that ship or a run, is trained again on every eighth, fourth and second training
particle, with all their responses and all validation particles; each training has as many updates as the whole one,
and the best validation chooses its weights. With fewer `--updates` the whole is
trained as well, with as many, and validations have 1,024 events. What is
there already in FOLDER is not trained again. All are scored on the test rows with three repeats.

To each score

    y(n) = c + a n^(-b)

is fitted, n the training rows, a >= 0 by least squares, on a grid of 0 <= c <= the smallest score and 0.05 <= b <= 1.5;
a point counts by the spread of its repeats. The value at `--rows` (70 % of the 306,780 that the publications have) is
the median over the grid, weighted by exp(-chi^2 / 2), with the range from 16 % to 84 %. Rows of the publications belong
to few particles, so that theirs are worth less than ours.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import caloforge as cf
from caloforge.evaluation.scoring import origin_of, rows_to_score
from caloforge.events import EventSource, Joined, in_slices, load
from caloforge.io import create, open_events
from caloforge.io.run import Run
from caloforge.metrics import METRICS as IMAGE_METRICS
from caloforge.metrics import Observables
from caloforge.models import Generator, Readout
from caloforge.models.parts.inference import generate_in_memory
from caloforge.report import figures
from caloforge.report.drawing import style
from caloforge.report.sweeps import Curve
from caloforge.samples import located, weights
from caloforge.training.checkpoint import load_model

METRICS = ("mae_c", "conditional_w1", "w1")
SEEDS = 3
"""Repeats of the scores."""

TITLES = {"mae_c": "MAE_c", "conditional_w1": "conditional W1", "w1": "W1"}


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


def scored(run: Path, references: Sequence[str]) -> dict[str, list[float]]:
    """Scores test rows once a seed: values by set and metric, of those that have one."""
    recipe, model = load_model(run)
    assert isinstance(model, Generator | Readout)
    values: dict[str, list[float]] = {}
    for name in references:
        path = located(name)
        test = rows_to_score(open_events(path), origin_of(recipe))
        primaries, detector = test.primaries, test.primaries.detector
        true = np.concatenate([detector.readout(part.responses) for part in in_slices(test)])
        reference = Observables(primaries, true.astype(np.float64))
        for seed in range(SEEDS):
            made = generate_in_memory(model, primaries.conditions, seed)
            sums = made if isinstance(model, Readout) else detector.readout(made)
            generated = Observables(primaries, sums.astype(np.float64))
            for metric in METRICS:
                result = IMAGE_METRICS[metric].function(reference, generated)
                if np.isfinite(result.value):
                    values.setdefault(f"{path.stem}: {TITLES[metric]}", []).append(result.value)
    return values


def trained(arguments: argparse.Namespace, source: EventSource, part: int) -> tuple[int, Path]:
    """Trains on a part of the particles; returns the training rows and the run folder."""
    whole = weights().get(arguments.whole, Path(arguments.whole))
    recipe = Run(whole).recipe()
    data, run = arguments.out / f"part-{part}.h5", arguments.out / f"part-{part}"
    rows = thinned(source, part, data)
    card = Run(whole).card()
    before = sum(file.rows["train"] for file in card.data)
    batch = recipe.model["batch_size"]
    updates = arguments.updates or recipe.model["epochs"] * (before // batch)
    epochs = max(round(updates / (rows // batch)), 1)
    if not (run / "card.json").exists():
        settings = [f"model.epochs={epochs}", f"training.validate_every={max(epochs // 4, 1)}"]
        settings += ["model.validation_events=1024"] if arguments.updates else []
        cf.train(whole / "recipe.toml", run, data=[data], settings=settings, resume=run.exists())
    return rows, run


def extrapolated(
    sizes: Sequence[int], scores: Sequence[float], spreads: Sequence[float], rows: int
) -> tuple[float, float, float]:
    """Returns 16 %, 50 % and 84 % of the score at so many rows."""
    n, y = np.array(sizes, float), np.array(scores)
    error = np.maximum(np.array(spreads), 0.005 * y)
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
    parser.add_argument("--updates", type=int)
    parser.add_argument("--rows", type=int, default=214_746)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--figure", type=Path)
    arguments = parser.parse_args()
    if arguments.updates:
        arguments.parts = [*arguments.parts, 1]
    arguments.out.mkdir(parents=True, exist_ok=True)
    source = Joined([open_events(located(name)) for name in arguments.data])
    runs = [trained(arguments, source, part) for part in sorted(arguments.parts, reverse=True)]
    if 1 not in arguments.parts:
        whole = int(np.count_nonzero(source.primaries.fold >= 3))
        runs.append((whole, weights().get(arguments.whole, Path(arguments.whole))))
    sizes = [rows for rows, _ in runs]
    results = [scored(run, arguments.reference) for _, run in runs]
    curves: list[Curve] = []
    print(f"| score | {' | '.join(f'{rows:,} rows' for rows in sizes)} | at {arguments.rows:,} rows |")
    print("|---" * (len(sizes) + 2) + "|")
    for title in results[0]:
        means = [float(np.mean(result[title])) for result in results]
        spreads = [float(np.std(result[title], ddof=1)) for result in results]
        low, middle, high = extrapolated(sizes, means, spreads, arguments.rows)
        cells = [f"{y:.2f} ± {s:.2f}" for y, s in zip(means, spreads, strict=True)]
        print(f"| {title} | {' | '.join(cells)} | {middle:.2f} ({low:.2f} to {high:.2f}) |")
        x = (*map(float, sizes), float(arguments.rows))
        y, spread = (*means, middle), (*spreads, (high - low) / 2)
        curves.append(Curve(style(len(curves), title), x, y, spread))
    if arguments.figure:
        caption = "training rows; the last is extrapolated"
        arguments.figure.write_bytes(figures.sweep(curves, None, caption, "score [photons]"))


if __name__ == "__main__":
    main()
