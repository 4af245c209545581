"""How the images of factorised models place the light of GEANT's channel sums, on the validation fold.

    python benchmarks/images.py RUN... --data zp.h5 zp_wide.h5 [--set layout.solver.steps=16] [--true-layout] \
        [--every 4] [--draws 5]

Each run draws an image for each validation row with the row's own channel sums, so that nothing is a matter of the
sums, with `--draws` several times: then the mean is printed, and its error, and brightest cells of the last. Printed
of each: the rate of cells by content over that of GEANT, with GEANT's own cells above; W1 of radius and lit cells,
and of particles with ten rows the mean error of centre and radius; the mean share of the brightest cell in the light
by size of the event and by kind of particle, GEANT's behind a slash. With `--true-layout` a model with a layout is
told that of the row.
"""

import argparse
import dataclasses
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from caloforge.events import Events, Joined, load, split
from caloforge.io import open_events
from caloforge.metrics.images import centre_mae, radius_mae, w1_lit, w1_radius
from caloforge.metrics.observables import observe
from caloforge.models.factorized_flow_matching import FactorizedFlowMatching
from caloforge.runtime.noise import standard_normals
from caloforge.training.checkpoint import load_model

EDGES = (1, 2, 3, 4, 8, 16, 32, 64, 100, 150, 250, 10**6)
"""Of cells, in photons."""

SIZES = (10, 30, 100, 300, 1000, 10**6)
"""Of events, in photons."""

BATCH = 256


@torch.no_grad()
def images(
    model: FactorizedFlowMatching, events: Events, true_layout: bool, seed: int = 0
) -> NDArray[np.float32]:
    """Draws an image for each event, with its sums, (N, H, W)."""
    parts, cells, sums = [], model.detector.cells, model.outputs
    for start in range(0, len(events), BATCH):
        rows = np.arange(start, min(start + BATCH, len(events)))
        conditions, responses, counts = model._tensors(events.slices(rows))
        noise = torch.from_numpy(standard_normals(seed, rows, model.noise_dim))
        layout = model.layout
        known = (conditions, model.sums.describe(conditions), counts)
        after = noise[:, cells + sums + 1 :] if layout is not None else None
        drawn = (noise[:, :cells], noise[:, cells + sums], after)
        if layout is None or not true_layout:
            parts.append(model.draw_image(*known, *drawn).numpy())
            continue

        def measured(
            straight: Tensor, expected: Tensor, _: Tensor, noise: Tensor, seen: Tensor = responses
        ) -> tuple[Tensor, Tensor]:
            half = torch.full((len(noise), 3), 0.5)
            return model.layout.measure(seen, straight, expected, half)  # type: ignore[union-attr]

        with patch.object(layout, "forward", measured):
            parts.append(model.draw_image(*known, *drawn).numpy())
    return np.concatenate(parts)


def cells_by_content(responses: NDArray[np.float32]) -> NDArray[np.float64]:
    """Counts cells an event by content."""
    return np.histogram(responses[responses.nonzero()], EDGES)[0] / len(responses)


def brightest(responses: NDArray[np.float32]) -> NDArray[np.float64]:
    """Returns the share of the brightest cell of each event."""
    shares: NDArray[np.float64] = responses.max((1, 2)) / np.maximum(responses.sum((1, 2)), 1)
    return shares


def line(*cells: object) -> None:
    """Prints a row of a table."""
    print("|", " | ".join(str(cell) for cell in cells), "|", flush=True)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--set", dest="settings", nargs="+", default=[])
    parser.add_argument("--true-layout", action="store_true")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--draws", type=int, default=1)
    arguments = parser.parse_args()
    source = Joined([open_events(path) for path in arguments.data])
    chosen = split(source, "canonical")["validation"][:: arguments.every]
    events = load(source).slices(chosen)
    true, reference = events.responses.astype(np.float32), observe(events)
    spectrum, share, total = cells_by_content(true), brightest(true), true.sum((1, 2))
    mass, charge = events.conditions[:, 7], events.conditions[:, 8]
    groups = {f"{low} to {high} photons": (total >= low) & (total < high) for low, high in pairwise(SIZES)}
    lit = total >= 30
    groups |= {
        "photons": lit & (mass == 0),
        "neutral hadrons": lit & (charge == 0) & (mass > 0),
        "charged": lit & (charge != 0),
    }
    header = ["cells with", *(f"{low}" for low in EDGES[:-1]), "W1 radius", "W1 lit", "centre", "radius"]
    line(*header)
    line(*["---"] * len(header))
    line("GEANT: cells", *(int(value) for value in np.rint(spectrum * len(events))), "", "", "", "")
    drawn = {}
    for path in arguments.runs:
        _, model = load_model(path, arguments.settings)
        if not isinstance(model, FactorizedFlowMatching):
            parser.error(f"{path} is no run of factorized_flow_matching")
        rows = []
        for seed in range(arguments.draws):
            drawn[path.name] = image = images(model, events, arguments.true_layout, seed)
            found = observe(dataclasses.replace(events, responses=image))
            scores = [
                metric(reference, found).value for metric in (w1_radius, w1_lit, centre_mae, radius_mae)
            ]
            rows.append([*cells_by_content(image) / spectrum, *scores])
        means, errors = np.mean(rows, 0), np.std(rows, 0) / np.sqrt(len(rows))
        several = arguments.draws > 1
        line(path.name, *(f"{m:.2f}" + f" ± {e:.2f}" * several for m, e in zip(means, errors, strict=True)))
    print()
    line("brightest cell", *groups)
    line(*["---"] * (len(groups) + 1))
    for name, image in drawn.items():
        theirs = brightest(image)
        line(name, *(f"{theirs[rows].mean():.3f}/{share[rows].mean():.3f}" for rows in groups.values()))


if __name__ == "__main__":
    main()
