"""Trained weights as a beginning: a detector with a tenth of the data, from nothing and from another's weights.

    python benchmarks/start.py [--recipe zp-channel_flow_matching] [--start zn-channel_flow_matching] [--epochs 120]

A tenth of the training particles of the detector's samples is kept, all of its validation particles. From nothing the
recipe has `--epochs`; with the trained weights the full schedule in a third of them, and in a sixth. Each is trained
with `--seeds` seeds. Printed is the best validation of each training, min / median / max over the seeds.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import caloforge as cf
from caloforge.events import Joined
from caloforge.io import open_events
from caloforge.io.run import Run
from caloforge.recipe import read
from caloforge.samples import samples_of
from learning_curve import thinned

SHARE = 10
"""One particle of so many is trained on."""


def best_validation(run: Path) -> float:
    """Returns the smallest W1 of the validations of a run."""
    values = [float(row["validation_w1"]) for row in Run(run).log() if row.get("validation_w1")]
    return min(values)


def spread(values: Sequence[float]) -> str:
    """Formats min, median and max."""
    return f"{min(values):.2f} / {np.median(values):.2f} / {max(values):.2f}"


def main() -> None:
    """Trains and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--recipe", default="zp-channel_flow_matching")
    parser.add_argument("--start", default="zn-channel_flow_matching")
    parser.add_argument("--epochs", type=int, default=120)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "tenth.h5"
        samples = [open_events(file) for file in samples_of(read(arguments.recipe)["detector"])]
        rows = thinned(Joined(samples), SHARE, data)
        print(f"{rows} training rows\n")
        print("| begins with | epochs | validation W1, min / median / max |")
        print("|---|---|---|")
        for start, divisor in ((None, 1), (None, 3), (arguments.start, 3), (arguments.start, 6)):
            epochs = arguments.epochs // divisor
            values = []
            for seed in range(arguments.seeds):
                out = Path(folder) / f"{start}-{epochs}-{seed}"
                settings = [
                    f"model.epochs={epochs}",
                    f"training.validate_every={max(epochs // 10, 1)}",
                    f"seed={seed}",
                ]
                cf.train(arguments.recipe, out, data=[data], settings=settings, start=start)
                values.append(best_validation(out))
            print(f"| {start or 'nothing'} | {epochs} | {spread(values)} |", flush=True)


if __name__ == "__main__":
    main()
