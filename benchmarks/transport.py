"""Channel sums and expected places with and without the map of the magnets, at one budget, on the validation fold.

    python benchmarks/transport.py zp.h5 zp_wide.h5 [--epochs 40] [--seeds 0 1] [--shares 1 2 4 8] [--widths 128] \
        [--variants plain transport mirror move species]

The first and the cheap second factor of `factorized_flow_matching` are trained on the training folds from one seed,
without the map, with `transport`, with `mirror` too, with `move` as well, and with `species` as well: the channel sums
(16 steps of Euler), and where the middle of the light is. With several seeds there is one more row, of the committee:
the mean of their velocities. With `--shares 2` on half of the particles for as many steps, and so on.
Validation particles, the mean over four seeds of
the noise: the energy score of each particle's distribution, W1 of the channels and of the photon sum, MAE_c over
particles with at least six responses, of all and by type; the distance of the expected place, given the sums, from
the middle of the light, mean over events; and the share of events with fewer photons than any of the data, before
they are reflected.
"""

import argparse
import copy
import time
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from caloforge.events import Events, EventSource, Joined, Selected, load, split
from caloforge.io import open_events
from caloforge.metrics.channels import energy_score, mean_wasserstein, wasserstein
from caloforge.models.base import BatchRandom
from caloforge.models.factorized_flow_matching import FactorizedFlowMatching, FactorizedFlowMatchingConfig
from caloforge.models.parts.sums import Sums
from caloforge.ode.path import Velocity
from caloforge.particles import particle_name
from caloforge.runtime.noise import standard_normals

LEAST = 6
"""Responses a particle needs for MAE_c."""

TYPES = (22, 2112, 2212, 211)


def trained(train: EventSource, steps: int, *, variant: str, width: int, seed: int) -> FactorizedFlowMatching:
    """Trains sums and place, each for as many steps of its batch as the whole set has in so many epochs."""
    torch.manual_seed(seed)
    epochs = max(round(steps * 256 / len(train)), 1)
    values = {
        "transport": variant != "plain",
        "mirror": variant in ("mirror", "move", "species"),
        "move": variant in ("move", "species"),
        "species": variant == "species",
        "sums": {"width": width, "epochs": epochs, "optimizer": {**RATES, "weight_decay": 0.05}},
        "place": {"epochs": epochs},
    }
    detector = train.primaries.detector
    model = FactorizedFlowMatching(detector, FactorizedFlowMatchingConfig.model_validate(values))
    for order, stage in enumerate(model.stages(train)):
        if stage.name not in ("sums", "place"):
            continue
        rng, number = np.random.default_rng(seed), 0
        for _ in range(stage.epochs):
            for batch in stage.batches(train, rng):
                random = BatchRandom(hash((seed, order, number)) % 2**31, slice(0, len(batch)), len(batch))
                stage.step(batch, random, lambda loss: loss.backward())
                number += 1
    return model


VARIANTS = ("plain", "transport", "mirror", "move", "species")

RATES = {"learning_rate": 2e-3, "schedule": "cosine", "warmup": 0.05}


def committee(models: Sequence[FactorizedFlowMatching]) -> FactorizedFlowMatching:
    """Returns the first model with the mean of all velocities for its sums."""
    first = copy.deepcopy(models[0])

    def velocity(features: torch.Tensor) -> Velocity:
        every = [Sums.velocity(model.sums, features) for model in models]
        return lambda x, t: torch.stack([member(x, t) for member in every]).mean(0)

    first.sums.velocity = velocity  # type: ignore[method-assign]
    return first


@torch.no_grad()
def score(model: FactorizedFlowMatching, events: Events) -> str:
    """Returns the row's cells."""
    conditions = torch.from_numpy(events.conditions)
    features = model.sums.describe(conditions)
    true = model.detector.readout(events.responses)
    noise = [
        torch.from_numpy(standard_normals(seed, np.arange(len(events)), model.outputs)) for seed in range(4)
    ]
    drawn = np.stack([model.sums(conditions, features, x).double().numpy() for x in noise])
    sums = torch.from_numpy(true.astype(np.float32))
    known = torch.cat([features, model.standardize_logs(torch.log1p(sums))], 1)
    place = model.place(model.sums.cell(conditions), known).numpy()
    away = np.linalg.norm(place - middles(events), axis=1)
    _, particle, counts = np.unique(events.group, return_inverse=True, return_counts=True)
    off, pdg = [], []
    for number in np.flatnonzero(counts >= LEAST):
        rows = particle == number
        off.append(np.abs(true[rows].mean(0) - drawn[:, rows].mean(1)).mean())
        pdg.append(events.pdg[rows][0])
    errors, types = np.array(off), np.array(pdg)
    by_type = [f"{errors[types == one].mean():.1f} ({(types == one).sum()})" for one in TYPES if one in types]
    cells = [
        f"{energy_score(true, drawn):.2f}",
        f"{np.mean([mean_wasserstein(true, one) for one in drawn]):.2f}",
        f"{np.mean([wasserstein(true.sum(1), one.sum(1)) for one in drawn]):.1f}",
        f"{errors.mean():.2f}",
        *by_type,
        f"{away.mean():.2f}",
        f"{100 * (drawn.sum(2) < true.sum(1).min()).mean():.1f}",
    ]
    return " | ".join(cells)


def middles(events: Events) -> NDArray[np.float64]:
    """Returns the middle of the light in cells, (N, 2)."""
    light = events.responses.astype(np.float64)
    axes = [np.arange(size) for size in light.shape[1:]]
    middle = np.stack([light.sum(2) @ axes[0], light.sum(1) @ axes[1]], 1) / light.sum((1, 2))[:, None]
    return np.asarray(middle, np.float64)


def main() -> None:
    """Prints one row a variant, share and seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--shares", type=int, nargs="+", default=[1])
    parser.add_argument("--widths", type=int, nargs="+", default=[128])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["plain", "transport"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    source = Joined([open_events(file) for file in arguments.files])
    parts = split(source, "canonical")
    train, validation = Selected(source, parts["train"]), load(source).slices(parts["validation"])
    groups = np.unique(train.primaries.group)
    order = np.random.default_rng(0).permutation(groups)
    steps = arguments.epochs * (len(train) // 256)
    print(
        f"{source.primaries.detector.name}, {len(train)} training events of {len(groups)} particles, {steps} steps; "
        f"{len(validation)} validation events; torch {torch.__version__}, one thread\n"
    )
    types = [f"{particle_name(one)} (particles)" for one in TYPES if one in validation.pdg]
    heads = [
        "variant",
        "width",
        "particles",
        "seed",
        "energy score",
        "W1",
        "W1 of the sum",
        "MAE_c",
        *types,
    ]
    heads += ["place [cells]", "too faint [%]", "training and scores [s of a core]"]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}", flush=True)
    for share in arguments.shares:
        rows = np.flatnonzero(np.isin(train.primaries.group, order[: len(order) // share]))
        part = Selected(train, rows)
        for width in arguments.widths:
            for variant in arguments.variants:
                models: list[FactorizedFlowMatching] = []
                for seed in arguments.seeds:
                    started = time.process_time()
                    models.append(trained(part, steps, variant=variant, width=width, seed=seed))
                    cells = f"{score(models[-1], validation)} | {time.process_time() - started:.0f}"
                    print(f"| {variant} | {width} | 1/{share} | {seed} | {cells} |", flush=True)
                if len(models) > 1:
                    cells = score(committee(models), validation)
                    print(f"| {variant} | {width} | 1/{share} | all {len(models)} | {cells} | |", flush=True)


if __name__ == "__main__":
    main()
