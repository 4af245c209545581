"""Training and sampling speed of networks on one core: samples a core-second, ms an event.

    python benchmarks/training_speed.py [RECIPE ...] [--repeats 5] [--compile] [--training] [--stage 0]

Of a training in several stages the last is timed, which is that of the image, or that with the number `--stage`.
Recipes take turns, so that the machine's drift touches all; printed are min / median / max over the repeats.
`--compile` trains each recipe also as `training.compile = true` does (it needs a C++ compiler; compiling is not
counted). `--training` leaves generation out.
"""

import argparse
import platform
import time
from collections import defaultdict
from collections.abc import Callable

import numpy as np
import torch

from caloforge import recipe as recipes
from caloforge import samples
from caloforge.io import open_events
from caloforge.models import Generator, Readout, build
from caloforge.models.base import BatchRandom
from caloforge.models.parts.inference import generate_in_memory


def spread(values: list[float]) -> str:
    """Returns min / median / max."""
    return f"{min(values):.3g} / {np.median(values):.3g} / {max(values):.3g}"


def cpu_seconds(action: Callable[[], object]) -> float:
    """Returns the processor time of an action: other programs on the machine count less than in wall time."""
    started = time.process_time()
    action()
    return time.process_time() - started


def main() -> None:
    """Prints one row a recipe."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "recipes",
        nargs="*",
        default=["zn-factorized_flow_matching", "zn-flow_matching", "zn-flow_matching-paper"],
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--compile", action="store_true", help="training with torch.compile beside it")
    parser.add_argument("--training", action="store_true", help="training alone, without generation")
    parser.add_argument("--stage", type=int, default=-1, help="the stage that is timed, from 0")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cases = {}
    for name in arguments.recipes:
        recipe = recipes.parse(recipes.read(name))
        model = build(recipe)
        assert isinstance(model, Generator | Readout)
        events = open_events(samples.sample(f"{recipe.detector}_wide")).slices(slice(0, arguments.batch_size))
        stage = model.stages(events)[arguments.stage]
        cases[name] = model, stage, events
        if arguments.compile:
            twin = build(recipe)
            assert isinstance(twin, Generator | Readout)
            compiled = twin.stages(events)[arguments.stage]
            for module in compiled.modules().values():
                module.compile()
            cases[f"{name}, compiled"] = twin, compiled, events
    figures: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for repeat in range(arguments.repeats + 1):
        for name, (model, stage, events) in cases.items():
            rows = slice(0, len(events))
            batch = BatchRandom(repeat, rows, len(events))
            training = cpu_seconds(lambda: stage.step(events, batch, lambda loss: loss.backward()))  # noqa: B023
            size = len(events)
            if repeat:  # the first is a warm-up
                figures[name]["samples"].append(len(events) / training)
            if arguments.training:
                continue
            many = cpu_seconds(lambda: generate_in_memory(model, events.conditions, 0, batch_size=size))  # noqa: B023
            one = cpu_seconds(lambda: generate_in_memory(model, events.conditions[:4], 0, batch_size=1))  # noqa: B023
            if repeat:
                figures[name]["many"].append(1e3 * many / len(events))
                figures[name]["one"].append(1e3 * one / 4)
    print(
        f"{platform.machine()}, torch {torch.__version__}, one thread, {arguments.repeats} repeats, processor time\n"
    )
    print(
        "| recipe | training, samples/s | ms an event, in a batch | ms an event, batch 1 |\n|---|---|---|---|"
    )
    for name, row in figures.items():
        columns = [spread(row[what]) if row[what] else "" for what in ("samples", "many", "one")]
        print(f"| {name} | {' | '.join(columns)} |")


if __name__ == "__main__":
    main()
