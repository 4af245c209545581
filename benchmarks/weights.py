"""Classifier weights as a correction: scores of generated events before and after.

    python benchmarks/weights.py generated.h5 reference.h5 [--view high] [--seeds 3] [--clip 10]

`generated.h5` is what `caloforge sample` wrote for the particles of `reference.h5`. Weights are learned from the rows
outside of the test part, with `--seeds` seeds, and with the first also without the division by their mean given the
particle, and scored on the test part: every metric beside its floor and matched floor, before, and after as mean and
spread over the seeds; and the AUC of new classifiers, trained on test rows alone, in whose loss and score the weights
count.
"""

import argparse
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from caloforge.evaluation.refinement import Refined, RefinementConfig, learnable, refine
from caloforge.evaluation.scoring import rows_to_score
from caloforge.events import Events, EventSource, Selected, load
from caloforge.io import create, open_to_judge, provenance
from caloforge.metrics import effective_size, observe, observe_showers, score, score_showers
from caloforge.metrics.showers import Sizes

SIZES = Sizes(
    fpd_least=1000,
    fpd_largest=10_000,
    fpd_draws=5,
    kpd_batch=1000,
    kpd_batches=5,
    prdc_rows=2000,
    splits=10,
    slow_splits=3,
)
"""Of the slow metrics of showers, for some thousand of them."""


def scored(test: EventSource, generated: Sequence[Events]) -> dict[str, Any]:
    """Returns the metrics of all rows, one entry of `values` a set of weights."""
    if test.primaries.detector.layers:
        reference = observe_showers(test, None, SIZES)
        observed = [observe_showers(events, reference.edges, SIZES) for events in generated]
        groups: dict[str, Any] = score_showers(reference, observed, None, 0, SIZES)
    else:
        groups = score(observe(test), [observe(events) for events in generated])
    metrics: dict[str, Any] = groups["all"]["metrics"]
    return metrics


def text(values: Sequence[float | None]) -> str:
    """Formats mean and spread."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    mean = f"{np.mean(known):.4g}"
    return mean if len(known) < 2 else f"{mean} ± {np.std(known, ddof=1):.2g}"


def matched(entry: dict[str, Any]) -> str:
    """Formats a matched floor."""
    level = entry["matched_floor"]
    return "-" if level is None else f"{level['mean']:.4g}"


def main() -> None:
    """Weighs, scores and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("generated", type=Path)
    parser.add_argument("reference", type=Path)
    parser.add_argument("--view", default="high")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--clip", type=float, default=10.0)
    parser.add_argument("--out", type=Path, help="Also write the events with the first weights.")
    parser.add_argument("--judges", nargs="+", default=["high", "low"], help="Views of the new classifiers.")
    arguments = parser.parse_args()
    reference = open_to_judge(arguments.reference)
    generated = open_to_judge(arguments.generated, reference.primaries.detector)
    origin = provenance(arguments.generated)
    learned = learnable(reference, generated, origin)
    if learned is None:
        raise ValueError(f"{arguments.generated} does not say the split of its model: no rows to judge by")
    rows = rows_to_score(reference, origin).rows
    test, plain = Selected(reference, rows), load(Selected(generated, rows))

    sets: dict[str, list[Refined]] = {}
    for conditional, name, seeds in ((True, "weighed", arguments.seeds), (False, "without the division", 1)):
        config = RefinementConfig(view=arguments.view, clip=arguments.clip, conditional=conditional)
        started = time.process_time()
        sets[name] = [
            refine(generated, reference, rows=learned.rows, config=config, seed=seed) for seed in range(seeds)
        ]
        seconds = (time.process_time() - started) / seeds
        sizes = text([effective_size(refined.weight[rows]) for refined in sets[name]])
        print(
            f"{name}: learned from {len(learned)} rows in {seconds:.0f} s of processor time; AUC "
            f"{text([refined.auc for refined in sets[name]])}; on {len(rows)} test rows mean weight "
            f"{text([float(refined.factor[rows].mean()) for refined in sets[name]])}, clipped "
            f"{text([refined.clipped for refined in sets[name]])}, n_eff {sizes}",
            flush=True,
        )
    if arguments.out is not None:
        events = dataclasses.replace(load(generated), weight=sets["weighed"][0].weight)
        with create(arguments.out, events.detector, {**origin, "weighed": {"rows": "not test"}}) as writer:
            writer.append(events)
    weighed = {
        name: [dataclasses.replace(plain, weight=refined.weight[rows]) for refined in seeds]
        for name, seeds in sets.items()
    }
    scores = {"before": scored(test, [plain])} | {name: scored(test, part) for name, part in weighed.items()}
    print(
        f"\n| metric | floor | matched, before | {' | '.join(f'matched, {name}' for name in weighed)} | ",
        end="",
    )
    print(f"all rows, before | {' | '.join(f'all rows, {name}' for name in weighed)} |")
    print("|" + "---|" * (4 + 2 * len(weighed)))
    for metric, entry in scores["before"].items():
        floor = "-" if entry["floor"] is None else f"{entry['floor']['mean']:.4g}"
        parts = [matched(part[metric]) for part in scores.values()]
        values = [text(part[metric]["values"]) for part in scores.values()]
        print(f"| {metric} | {floor} | {' | '.join([*parts, *values])} |", flush=True)
    truth = load(test)
    for view in arguments.judges:
        columns = []
        for part in ([plain] * arguments.seeds, *weighed.values()):
            # by folds of particles: a pair of one particle in two parts would tell each other's class
            judge = RefinementConfig(view=view)
            aucs = [
                refine(events, truth, config=judge, seed=100 + seed).auc for seed, events in enumerate(part)
            ]
            columns.append(text(aucs))
        print(f"| AUC of new classifiers, {view} | 0.5 | {' | '.join(columns)} | | | |", flush=True)


if __name__ == "__main__":
    main()
