"""Prints the judgement of showers on the test part of a file: floor, positive control and the two yardsticks.

    python benchmarks/challenge.py SHOWERS [--slow-splits 3] [--classifiers small] [--views high,low] [--seeds 3]
        [--whole]

`resample` answers a test shower's energy by a random training shower, `nearest` by that of the nearest energy, as the
models of these names do. The parts are those of the ordered split: the last 20 % of the rows are the test. With --whole
the floor and the control of the classifiers are halves of the whole file, which no model was trained on: nothing is
generated there, and five times as many showers see more. Lines are printed as they are done: value, or mean +-
standard deviation over splits or seeds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from caloforge.events import Events, EventSource, Primaries, Selected, split, with_responses
from caloforge.io import open_events
from caloforge.metrics.calochallenge import Showers, Sizes, Smeared, compare, observe_showers
from caloforge.metrics.scores import halves


@dataclass
class Answers:
    """Showers of some rows of a source as answers to other particles, row by row."""

    primaries: Primaries
    source: EventSource
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def slices(self, rows: np.ndarray | slice) -> Events:
        """Reads some rows."""
        return with_responses(self.primaries.select(rows), self.source.slices(self.rows[rows]).responses)


def line(name: str, rows: Sequence[dict[str, float]]) -> None:
    """Prints one row of the table: each metric's mean over the rows, and its spread."""
    cells = []
    for key in rows[0]:
        values = [row[key] for row in rows if key in row]
        spread = f" +- {np.std(values, ddof=1):.2g}" if len(values) > 1 else ""
        cells.append(f"{key} {np.mean(values):.4g}{spread}")
    print(f"{name}: {', '.join(cells)} [{time.process_time():.0f} s]", flush=True)


def judge(reference: Showers, smeared: Showers, models: Mapping[str, EventSource], sizes: Sizes) -> None:
    """Prints what the metrics say without classifiers."""
    for name, model in models.items():
        found = compare(reference, observe_showers(model, reference.edges, sizes), sizes=sizes)
        line(name, [{key: result.value for key, result in found.items()}])
    for name, other in {"floor": reference, "control": smeared}.items():
        rows = []
        for number in range(sizes.splits):
            a, b = halves(len(reference), np.random.default_rng([0, 1, number]))
            slow = number < sizes.slow_splits
            found = compare(reference.select(a), other.select(b), sizes=sizes, slow=slow)
            rows.append({key: result.value for key, result in found.items()})
        line(name, rows)


def main() -> None:
    """Reads the arguments, computes, prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("showers", type=Path)
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--slow-splits", type=int, default=3)
    parser.add_argument("--metrics", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--classifiers")
    parser.add_argument("--views", default="high,low")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--whole", action="store_true")
    arguments = parser.parse_args()
    sizes = Sizes(splits=arguments.splits, slow_splits=arguments.slow_splits)

    source = open_events(arguments.showers)
    parts = split(source, "ordered")
    test = Selected(source, parts["test"])
    energy = source.primaries.feature("incident_energy")
    rng = np.random.default_rng(0)
    distance = np.abs(energy[parts["test"]][:, None] - energy[parts["train"]])
    models = {
        "resample": Answers(test.primaries, source, rng.choice(parts["train"], len(test))),
        "nearest": Answers(test.primaries, source, parts["train"][distance.argmin(1)]),
    }
    reference = observe_showers(test, sizes=sizes)
    smeared = observe_showers(Smeared(test), reference.edges, sizes)
    print(f"{len(test):,} test showers of {len(source):,}", flush=True)

    if arguments.metrics:
        judge(reference, smeared, models, sizes)
    if not arguments.classifiers:
        return

    from caloforge.evaluation.classifier import classify, inputs_of, suite

    config = suite(arguments.classifiers)
    detector = source.primaries.detector
    halved = source if arguments.whole else test
    a, b = (np.sort(rows) for rows in halves(len(halved), np.random.default_rng([0, 1, 0])))
    for view in arguments.views.split(","):
        pairs = {
            "floor": (inputs_of(Selected(halved, a), view), inputs_of(Selected(halved, b), view)),
            "control": (
                inputs_of(Selected(halved, a), view),
                inputs_of(Selected(Smeared(halved), b), view),
            ),
        }
        if not arguments.whole:
            truth = inputs_of(test, view)
            pairs |= {name: (truth, inputs_of(model, view)) for name, model in models.items()}
        for name, (ours, theirs) in pairs.items():
            verdicts = [
                classify(ours, theirs, view, detector, config, seed) for seed in range(arguments.seeds)
            ]
            line(f"{name}, classifier {view}", [{"auc": one.auc, "jsd": one.jsd} for one in verdicts])


if __name__ == "__main__":
    main()
