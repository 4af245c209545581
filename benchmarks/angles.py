"""Showers with angles: does a model's shower follow the direction of the particle as GEANT's does?

    python benchmarks/angles.py RUN showers.h5 [--repeats 4] [--layers 4 16]

RUN is a run folder of a layout with angles such as `ds2-angles`, `showers.h5` what `caloforge simulate` wrote. For the
test rows, in thirds of theta, the slope of the centres of the layers along the particle's azimuth against the layer's
depth z, weighted by the layer's energy: sum E z c / sum E z^2, about tan(theta). Beside it tan(theta) itself
and E_tot / E_inc.
"""

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np

import caloforge as cf
from caloforge.events import Selected, judged, load
from caloforge.io import open_events
from caloforge.io.run import Run
from caloforge.metrics.showers import Showers, observe_showers
from caloforge.report.pages.showers import along_direction


def slopes(showers: Showers, first: int, last: int) -> np.ndarray:
    """Returns the slope of each shower's centres against the depth, (N,)."""
    detector = showers.primaries.detector
    z = (np.array([layer.number for layer in detector.layers]) + 0.5) * (detector.layer_depth or 1.0)
    energy, centre = showers.layers[:, first:last], along_direction(showers)[:, first:last]
    depth = z[first:last]
    return np.asarray((energy * depth * centre).sum(1) / (energy * depth**2).sum(1))


def text(values: np.ndarray) -> str:
    """Formats mean and its error."""
    return f"{values.mean():.4f} ± {values.std() / np.sqrt(len(values)):.4f}"


def main() -> None:
    """Samples and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("showers", type=Path)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument(
        "--layers", type=int, nargs=2, default=(4, 16), help="From the first to before the last."
    )
    arguments = parser.parse_args()
    recipe = Run(arguments.run).recipe()
    source = open_events(arguments.showers)
    rows = judged(source, recipe.data.split, recipe.seed)
    test = load(Selected(source, rows))
    model = cf.load(arguments.run)
    reference = observe_showers(test)
    generated = [
        observe_showers(
            model.sample(test.primaries, seed=seed, batch_size=32, on_outside="flag"), reference.edges
        )
        for seed in range(arguments.repeats)
    ]
    theta = test.feature("theta").astype(np.float64)
    edges = np.quantile(theta, [0, 1 / 3, 2 / 3, 1])
    edges[-1] += 1e-9
    print(f"{len(test)} test rows, {arguments.repeats} repeats, layers {arguments.layers}\n")
    print(
        "| theta [rad] | tan(theta) | GEANT, slope | model, slope | GEANT, E_tot/E_inc | model, E_tot/E_inc |"
    )
    print("|---|---|---|---|---|---|")
    for low, high in pairwise(edges):
        inside = np.flatnonzero((theta >= low) & (theta < high))
        ours = slopes(reference, *arguments.layers)[inside]
        theirs = np.concatenate([slopes(one, *arguments.layers)[inside] for one in generated])
        ratios = reference.ratio[inside], np.concatenate([one.ratio[inside] for one in generated])
        print(
            f"| {low:.3f} to {high:.3f} | {np.tan(theta[inside]).mean():.4f} | {text(ours)} | {text(theirs)} | "
            f"{text(ratios[0])} | {text(ratios[1])} |",
            flush=True,
        )
    both = [slopes(one, *arguments.layers) for one in generated]
    known = np.corrcoef(np.tan(theta), slopes(reference, *arguments.layers))[0, 1]
    print(f"\ncorrelation of tan(theta) and slope: GEANT {known:.3f}, model ", end="")
    print(f"{np.mean([np.corrcoef(np.tan(theta), one)[0, 1] for one in both]):.3f}")


if __name__ == "__main__":
    main()
