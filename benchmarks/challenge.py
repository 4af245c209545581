"""Prints the judgement of showers on the test part of a file: runs, yardsticks, floor and positive controls.

    python benchmarks/challenge.py SHOWERS [RUN...] [--slow-splits 3] [--smear 0.05 0.2] [--yardsticks resample nearest]
        [--classifiers small] [--views high,low] [--seeds 3] [--whole]

The parts are those of the ordered split: the last 20 % of the rows are the test. Of every run one shower for each test
row. `resample` answers a test shower's energy by a random training shower, `nearest` by that of the nearest energy, as
the models of these names do. The floor compares random halves, a control halves of which the second has its layer
energies smeared, and a run's `matched` column a half with as many generated showers: what compares with the floor;
classifiers see all showers of a run. With
--whole the floor and the controls of the classifiers are halves of the whole file, which no model was trained on:
nothing is generated there, and five times as many showers see more. Lines are printed as they are done, the table at
the end: value, or mean +- standard deviation over splits or seeds; of an AUC below 0.5 one minus it.
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
from caloforge.metrics.scores import halves
from caloforge.metrics.showers import CONTROL, Showers, Sizes, Smeared, compare, observe_showers

YARDSTICKS = ("resample", "nearest")


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


class Table:
    """Rows by metric, columns by what was judged."""

    def __init__(self) -> None:
        self.columns: dict[str, dict[str, str]] = {}

    def add(self, column: str, rows: Sequence[Mapping[str, float]]) -> None:
        """Adds and prints each metric's mean over the rows, and its spread."""
        cells = {}
        for key in rows[0]:
            values = [row[key] for row in rows if key in row]
            spread = f" +- {np.std(values, ddof=1):.2g}" if len(values) > 1 else ""
            cells[key] = f"{np.mean(values):.4g}{spread}"
        self.columns.setdefault(column, {}).update(cells)
        shown = ", ".join(f"{key} {cell}" for key, cell in cells.items())
        print(f"{column}: {shown} [{time.process_time():.0f} s]", flush=True)

    def show(self) -> None:
        """Prints it as Markdown."""
        print(f"\n| metric | {' | '.join(self.columns)} |\n|---{'|---:' * len(self.columns)}|")
        for metric in dict.fromkeys(key for column in self.columns.values() for key in column):
            cells = [column.get(metric, "") for column in self.columns.values()]
            print(f"| {metric} | {' | '.join(cells)} |")


def control_name(by: float) -> str:
    """Names the column of a control."""
    return f"control, {100 * by:g} %"


def generated(run: Path, primaries: Primaries) -> tuple[str, Events]:
    """Returns the name of a run and a shower of it for each of the primaries."""
    from caloforge.models.parts.inference import generate_in_memory
    from caloforge.training.checkpoint import load_model

    recipe, model = load_model(run)
    started = time.process_time()
    showers = generate_in_memory(model, primaries.conditions, seed=0)
    each = 1e3 * (time.process_time() - started) / len(primaries)
    print(f"{recipe.name}: {each:.1f} ms a shower of processor time", flush=True)
    return recipe.name, with_responses(primaries, showers)


def judge(
    reference: Showers,
    smeared: Mapping[str, Showers],
    models: Mapping[str, EventSource],
    runs: Mapping[str, EventSource],
    sizes: Sizes,
    table: Table,
) -> None:
    """Adds what the metrics say without classifiers."""
    others = {"floor": reference, **smeared}
    for name, model in {**models, **runs}.items():
        seen = observe_showers(model, reference.edges, sizes)
        found = compare(reference, seen, sizes=sizes)
        table.add(name, [{key: result.value for key, result in found.items()}])
        if name in runs:
            others[f"{name}, matched"] = seen
    for name, other in others.items():
        rows = []
        for number in range(sizes.splits):
            a, b = halves(len(reference), np.random.default_rng([0, 1, number]))
            slow = number < sizes.slow_splits
            found = compare(reference.select(a), other.select(b), sizes=sizes, slow=slow)
            rows.append({key: result.value for key, result in found.items()})
        table.add(name, rows)


def classifiers(
    halved: EventSource,
    test: EventSource,
    models: Mapping[str, EventSource],
    runs: Mapping[str, EventSource],
    arguments: argparse.Namespace,
    table: Table,
) -> None:
    """Adds what classifiers find."""
    from caloforge.evaluation.classifier import classify, inputs_of, suite

    config = suite(arguments.classifiers)
    detector = test.primaries.detector
    a, b = (np.sort(rows) for rows in halves(len(halved), np.random.default_rng([0, 1, 0])))
    for view in arguments.views.split(","):
        first = inputs_of(Selected(halved, a), view)
        others = {"floor": inputs_of(Selected(halved, b), view)}
        for by in arguments.smear:
            others[control_name(by)] = inputs_of(Selected(Smeared(halved, by), b), view)
        pairs = {name: (first, other) for name, other in others.items()}
        if not arguments.whole:
            truth = inputs_of(test, view)
            for name, model in {**models, **runs}.items():
                pairs[name] = (truth, inputs_of(model, view))
        for name, (ours, theirs) in pairs.items():
            verdicts = [
                classify(ours, theirs, view, detector, config, seed) for seed in range(arguments.seeds)
            ]
            table.add(
                name,
                [
                    {f"AUC, {view}": max(one.auc, 1 - one.auc), f"JSD, {view} [bits]": one.jsd}
                    for one in verdicts
                ],
            )


def main() -> None:
    """Reads the arguments, computes, prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("showers", type=Path)
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--slow-splits", type=int, default=3)
    parser.add_argument("--smear", type=float, nargs="*", default=[CONTROL])
    parser.add_argument("--yardsticks", nargs="*", choices=YARDSTICKS, default=list(YARDSTICKS))
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
    rows = {
        "resample": rng.choice(parts["train"], len(test)),
        "nearest": parts["train"][distance.argmin(1)],
    }
    models = {name: Answers(test.primaries, source, rows[name]) for name in arguments.yardsticks}
    runs = dict(generated(run, test.primaries) for run in arguments.runs)
    print(f"{len(test):,} test showers of {len(source):,}", flush=True)

    table = Table()
    if arguments.metrics:
        reference = observe_showers(test, sizes=sizes)
        smeared = {
            control_name(by): observe_showers(Smeared(test, by), reference.edges, sizes)
            for by in arguments.smear
        }
        judge(reference, smeared, models, runs, sizes, table)
    if arguments.classifiers:
        classifiers(source if arguments.whole else test, test, models, runs, arguments, table)
    table.show()


if __name__ == "__main__":
    main()
