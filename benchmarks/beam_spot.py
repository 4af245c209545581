"""What displaced vertices do to a surrogate: test primaries as they are, and from within a beam spot.

    python benchmarks/beam_spot.py RUN... [--repeats 3]

Each RUN is a run folder, or weights that ship. GEANT's primaries start at one point; here their vertices are displaced,
each ray to the same impact (`caloforge.events.displaced`), so that what GEANT saw still holds. For a zero response the
lit fractions by type of particle are printed, for a generator W1, conditional W1 and, over repeated particles, MAE_c.
An error of a fraction is the greater of two: that of trials, and that of primaries.
"""

import argparse
import dataclasses
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from caloforge.events import Primaries, displaced, load, split
from caloforge.io import open_events, open_trials
from caloforge.metrics import observe
from caloforge.metrics.channels import mean_wasserstein
from caloforge.metrics.conditional import conditional_w1, mae_c
from caloforge.metrics.probability import fraction
from caloforge.models.parts.inference import generate_in_memory, probabilities_in_memory
from caloforge.particles import particle_name
from caloforge.samples import TRIALS, sample, samples_of, weights
from caloforge.training.checkpoint import load_classifier, load_model

SPOTS = {
    "none": ((0, 0, 0), (0, 0, 0)),
    "x, y": ((0.01, 0.01, 0), (0, 0, 0)),
    "z": ((0, 0, 6.0), (0, 0, 0)),
    "x, y, z": ((0.01, 0.01, 6.0), (0, 0, 0)),
    "offset": ((0, 0, 0), (0.02, 0.02, 0)),
}
"""Standard deviations and mean of the displacement in cm."""

LEAST = 300


def in_spot(primaries: Primaries, name: str, seed: int = 0) -> NDArray[np.float32]:
    """Returns conditions from within the named beam spot."""
    spot, mean = SPOTS[name]
    shifts = np.random.default_rng(seed).normal(size=(len(primaries), 3)) * spot + mean
    return displaced(primaries, shifts) if np.any(shifts) else primaries.conditions


def zero_response(run: Path, files: list[Path]) -> None:
    """Prints observed fractions and what the classifier makes of each beam spot, by type of particle."""
    _, model = load_classifier(run)
    sources = [open_trials(path, model.detector) for path in files or [sample(TRIALS)]]
    for source, path in zip(sources, files or [Path(TRIALS)], strict=True):
        trials = source.slices(np.flatnonzero(source.fold < 2))
        predicted = {
            name: probabilities_in_memory(model, in_spot(trials.primaries, name)).astype(float)
            for name in SPOTS
        }
        print(f"\n{path.stem}: lit fraction in %, GEANT ± error | " + " | ".join(SPOTS) + " (errors apart)\n")
        for column, outcome in enumerate(("zn", "zp")):
            for pdg in np.unique(trials.pdg):
                rows = np.flatnonzero(trials.pdg == pdg)
                if trials.trials[rows].sum() < LEAST:
                    continue
                parts = [
                    fraction(trials.trials[rows], trials.hits[rows, column], values[rows, column])
                    for values in predicted.values()
                ]
                errors = [max(part.error, part.scatter) for part in parts]
                cells = [
                    f"{100 * part.predicted:.2f} ({(part.predicted - part.observed) / error if error else 0:+.1f})"
                    for part, error in zip(parts, errors, strict=True)
                ]
                name = particle_name(int(pdg))
                head = f"{outcome} {name} {100 * parts[0].observed:.2f} ± {100 * errors[0]:.2f}"
                print(f"| {head} | {' | '.join(cells)} |")


def generator(run: Path, files: list[Path], repeats: int) -> None:
    """Prints the scores of each beam spot: mean and standard deviation of the repeats."""
    _, model = load_model(run)
    for path in files or samples_of(model.detector.name):
        source = open_events(path, model.detector)
        test = load(source).slices(split(source, "canonical")["test"])
        reference = observe(test, model.detector.default_channels)
        print(f"\n{run.name} on {path.stem}, {len(test)} rows: W1 | conditional W1 | MAE_c\n")
        for name in SPOTS:
            scores = []
            for seed in range(repeats):
                conditions = in_spot(test.primaries, name, seed)
                responses = generate_in_memory(model, conditions, seed)
                # judged by the particles as GEANT had them
                generated = observe(
                    dataclasses.replace(test, responses=responses), model.detector.default_channels
                )
                scores.append(
                    [
                        mean_wasserstein(reference.channels, generated.channels),
                        conditional_w1(reference, generated).value,
                        mae_c(reference, generated).value,
                    ]
                )
            mean, spread = np.mean(scores, 0), np.std(scores, 0)
            print(
                f"| {name} | "
                + " | ".join(f"{m:.2f} ± {s:.2f}" for m, s in zip(mean, spread, strict=True))
                + " |"
            )


def main() -> None:
    """Prints the tables of each run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--data", action="append", type=Path, default=[])
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    for name in arguments.runs:
        run = weights().get(name, Path(name))
        if "zero_response" in run.name:
            zero_response(run, arguments.data)
        else:
            generator(run, arguments.data, arguments.repeats)


if __name__ == "__main__":
    main()
