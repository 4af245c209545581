"""Channel sums: objectives of flow matching, numbers of training particles and committees, at one budget.

    python benchmarks/objectives.py zn.h5 zn_wide.h5 [--test sample:zn] [--epochs 20] [--repeats 5]

All train the network of `models.parts.sums` on the training folds, from one seed, and are scored on the test folds of
the repeated set with `--repeats` seeds of the noise, min / median / max: the energy score of each particle's
distribution (four draws), W1 of the channels, MAE_c.

uniform              t ~ U(0, 1), noise independent of the event: what the recipes do
logit-normal         t = 1 / (1 + exp(-n)), n ~ N(0, 1), the loss as it is
optimal transport    noise and events of a batch are paired by least squares (Tong et al. 2023)
..., same particle   the same, where differences of the particle's features weigh ten times those of the sums:
                     noise must not tell the particle
wide                 twice the width
committee of 4       mean velocity of four seeds
1/2, 1/4, 1/8        of the particles of training, for as many steps
"""

import argparse
import copy
import time
from collections.abc import Callable, Sequence
from unittest.mock import patch

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from caloforge.detectors import Detector
from caloforge.events import EventSource, Joined, Selected, split
from caloforge.io import open_events
from caloforge.metrics.channels import energy_score, mean_wasserstein
from caloforge.metrics.conditional import mae_c
from caloforge.metrics.observables import Observables, observe
from caloforge.models.base import BatchRandom
from caloforge.models.parts.sums import Sums, SumsConfig
from caloforge.ode.path import Velocity, cfm_loss
from caloforge.runtime.noise import standard_normals
from caloforge.samples import sample

CHANNELS = "paper"
AWAY = 10.0


class Described(Sums):
    """Remembers the features of the particles of a batch, for pairing."""

    last: Tensor

    def describe(self, conditions: Tensor) -> Tensor:
        """Returns standardised features, (B, features)."""
        self.last = super().describe(conditions)
        return self.last


class Committee(torch.nn.Module):
    """The mean velocity of several networks."""

    def __init__(self, members: Sequence[Sums]) -> None:
        super().__init__()
        self.members = [member.network for member in members]
        self.networks = torch.nn.ModuleList(self.members)

    def condition(self, features: Tensor) -> Tensor:
        """What the members make of the features, (B, members, width)."""
        return torch.stack([network.condition(features) for network in self.members], 1)

    def forward(self, x: Tensor, t: Tensor, embedding: Tensor) -> Tensor:
        """The velocity, (B, K)."""
        velocities = [network(x, t, embedding[:, i]) for i, network in enumerate(self.members)]
        return torch.stack(velocities).mean(0)


def logit_normal(velocity: Velocity, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
    """The loss at times in the middle more often: the uniform is mapped."""
    return cfm_loss(velocity, x0, x1, torch.sigmoid(torch.special.ndtri(t.clamp(1e-6, 1 - 1e-6))))


def paired(features: Callable[[], Tensor] | None) -> Callable[[Velocity, Tensor, Tensor, Tensor], Tensor]:
    """The loss with noise that is dealt out anew within the batch."""

    def loss(velocity: Velocity, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
        cost = torch.cdist(x1, x0).square()
        if features is not None:
            c = features()
            cost = cost + AWAY * torch.cdist(c, c).square()  # row i's noise belonged to particle i
        _, chosen = linear_sum_assignment(cost.detach().numpy())
        return cfm_loss(velocity, x0[chosen], x1, t)

    return loss


def trained(
    detector: Detector, train: EventSource, epochs: int, steps: int, *, width: int, seed: int, objective: str
) -> Sums:
    """Trains the network for `steps` steps of 256 events."""
    torch.manual_seed(seed)
    rows = len(train)
    epochs = max(round(steps * 256 / rows), 1)
    model = Described(detector, CHANNELS, SumsConfig(width=width, epochs=epochs), 0.999, 4096)
    losses = {
        "logit-normal": logit_normal,
        "optimal transport": paired(None),
        "optimal transport, same particle": paired(lambda: model.last),
    }
    stage, rng, number = model.stages(train)[0], np.random.default_rng(seed), 0
    with patch("caloforge.models.parts.sums.cfm_loss", losses.get(objective, cfm_loss)):
        for _ in range(epochs):
            for batch in stage.batches(train, rng):
                random = BatchRandom(hash((seed, number)) % 2**31, slice(0, len(batch)), len(batch))
                stage.step(batch, random, lambda loss: loss.backward())
                number += 1
    return model


def score(model: Sums, test: EventSource, truth: Observables, repeats: int) -> str:
    """Returns the row's cells: energy score, W1, MAE_c."""
    conditions, numbers = torch.from_numpy(test.primaries.conditions), np.arange(len(test))
    found = []
    with torch.no_grad():
        features = model.describe(conditions)
        for repeat in range(repeats):
            noise = [standard_normals(4 * repeat + i, numbers, model.outputs) for i in range(4)]
            drawn = [model(conditions, features, torch.from_numpy(one)).double().numpy() for one in noise]
            first = Observables(test.primaries, drawn[0])
            sums_only = Observables(test.primaries, truth.channels)
            found.append(
                (
                    energy_score(truth.channels, np.stack(drawn)),
                    mean_wasserstein(truth.channels, drawn[0]),
                    mae_c(sums_only, first).value,
                )
            )
    low, middle, high = (f(np.array(found), axis=0) for f in (np.min, np.median, np.max))
    return " | ".join(f"{a:.2f} / {b:.2f} / {c:.2f}" for a, b, c in zip(low, middle, high, strict=True))


def main() -> None:
    """Prints one row a variant."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+")
    parser.add_argument(
        "--test", help="the repeated set; the sample of the first file's detector if not given"
    )
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    source = Joined([open_events(file) for file in arguments.files])
    detector = source.primaries.detector
    train = Selected(source, split(source, "canonical")["train"])
    repeated = open_events(arguments.test or sample(detector.name))
    test = repeated.slices(split(repeated, "canonical")["test"])
    truth = observe(test, CHANNELS)
    steps = arguments.epochs * (len(train) // 256)
    groups = np.unique(train.primaries.group)
    print(
        f"{detector.name}, {len(train)} training events of {len(groups)} particles, {steps} steps; "
        f"{len(test)} test events; torch {torch.__version__}, one thread\n"
    )
    print("| variant | energy score | W1 [photons] | MAE_c [photons] | training [s of a core] |")
    print("|---|---|---|---|---|", flush=True)

    def show(name: str, model: Sums, seconds: float) -> None:
        print(f"| {name} | {score(model, test, truth, arguments.repeats)} | {seconds:.0f} |", flush=True)

    def fit(
        part: EventSource = train, width: int = 128, seed: int = 0, objective: str = ""
    ) -> tuple[Sums, float]:
        started = time.process_time()
        model = trained(detector, part, arguments.epochs, steps, width=width, seed=seed, objective=objective)
        return model, time.process_time() - started

    plain = [fit(seed=seed) for seed in range(4)]
    for seed, (model, seconds) in enumerate(plain):
        show(f"uniform, seed {seed}", model, seconds)
    committee = copy.deepcopy(plain[0][0])
    committee.network = Committee([model for model, _ in plain])  # type: ignore[assignment] # of the same calls
    show("committee of 4", committee, sum(seconds for _, seconds in plain))
    for objective in ("logit-normal", "optimal transport", "optimal transport, same particle"):
        show(objective, *fit(objective=objective))
    show("wide", *fit(width=256))
    order = np.random.default_rng(0).permutation(groups)
    for share in (2, 4, 8):
        kept = np.isin(train.primaries.group, order[: len(order) // share])
        show(f"1/{share} of the particles", *fit(Selected(train, np.flatnonzero(kept))))


if __name__ == "__main__":
    main()
