"""Trained two-sample tests: networks that try to tell generated showers from simulated ones.

A classifier that finds nothing has an area under its curve (AUC) of 0.5; what it finds is real, what it does not find
may need more rows, more epochs or a better network. So each AUC stands beside that of GEANT against GEANT (the floor)
and of GEANT against itself with layer energies smeared by 5 % (the control, which must be found). Three views:

- `low`: log10 E_inc and voxels / E_inc, to a dense network;
- `high`: the high-level features (`caloforge.metrics.showers`), to a dense network;
- `conv`: ln(1 + voxel / threshold) and log10 E_inc, to a 3-D residual network; for detectors of three axes.

Voxels below the threshold are 0. Of both sets 60 % are for training, 20 % choose the best epoch and calibrate, 20 % are
scored. With C the calibrated probability of truth (isotonic regression on the validation rows), over the test rows

    JSD = 1 + mean over all rows of log2 of the probability of the right class,

the Jensen-Shannon divergence in bits. The weight w = C / (1 - C) estimates p_truth / p_generated: a tail of
generated showers at small w is of showers that the simulation does not make, one of true showers at large w of
showers that the generator misses.

Many showers do not fit into memory: what a network sees of them is then read once, kept in a temporary file
(`caloforge.io.stored`) and read from there batch by batch.
"""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

from caloforge._lookup import nearest, require
from caloforge.detectors import Detector
from caloforge.events import Events, EventSource, Selected, in_slices
from caloforge.io.stored import StoredRows
from caloforge.metrics.showers import CONTROL, Sizes, Smeared, cut, observe_showers

View = Literal["low", "high", "conv"]

WEIGHT_EDGES = np.geomspace(1e-2, 1e2, 61)
"""Bins of the classifier's weights; those beyond are counted in the first and the last."""


class DenseConfig(BaseModel):
    """A dense network: a layer to `width`, `hidden` layers of that width, one output; LeakyReLU between."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = Field(2048, ge=1)
    hidden: int = Field(2, ge=0)


class ConvConfig(BaseModel):
    """A 3-D residual network: blocks of two convolutions, the first of all but the first block of stride 2."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: tuple[int, ...] = (32, 64, 128)


class ClassifierConfig(BaseModel):
    """How classifiers are trained.

    Attributes:
        views: which of `low`, `high` and `conv`.
        dense: network of `low` and `high`.
        conv: network of `conv`.
        epochs: passes through the training rows; the best by the loss of the validation rows counts.
        batch_size: showers a step, of both sets together.
        learning_rate: of Adam.
        standardize: give inputs mean 0 and variance 1, by the training rows.
        parts: shares of training, validation and test rows.
        seeds: how often everything is repeated, with other parts and other weights.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    views: tuple[View, ...] = ("low", "high")
    dense: DenseConfig = DenseConfig()
    conv: ConvConfig = ConvConfig()
    epochs: int = Field(50, ge=1)
    batch_size: int = Field(1000, ge=2)
    learning_rate: float = Field(2e-4, gt=0)
    standardize: bool = False
    parts: tuple[float, float, float] = (0.6, 0.2, 0.2)
    seeds: int = Field(5, ge=1)


SUITES: Mapping[str, ClassifierConfig] = {
    "full": ClassifierConfig(views=("low", "high", "conv")),
    "paper": ClassifierConfig(dense=DenseConfig(width=512, hidden=2), epochs=200, parts=(0.7, 0.1, 0.2)),
    "small": ClassifierConfig(
        dense=DenseConfig(width=256, hidden=1),
        epochs=60,
        batch_size=128,
        learning_rate=1e-3,
        standardize=True,
        seeds=3,
    ),
}
"""Named settings: `full`, those of the challenge, with the residual network; `paper`, those of CaloDREAM; `small`, for
a few cores and a few thousand showers."""


def suite(name: str) -> ClassifierConfig:
    """Returns the settings of that name.

    Raises:
        ValueError: there are none; the message lists those there are.
    """
    if name not in SUITES:
        raise ValueError(f"no classifiers {name!r}{nearest(name, SUITES)}; there are {', '.join(SUITES)}")
    return SUITES[name]


# Networks


class Dense(nn.Module):
    """The dense network."""

    def __init__(self, inputs: int, config: DenseConfig) -> None:
        super().__init__()
        widths = [inputs, *[config.width] * (config.hidden + 1)]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.LeakyReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(config.width, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Maps inputs, (B, F), to the logarithm of the odds of truth, (B,)."""
        out: Tensor = self.layers(x)
        return out[:, 0]


class ResidualBlock(nn.Module):
    """y = act(conv(act(conv(x))) + shortcut(x)); the angle closes in a circle, the other axes are padded with 0."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv3d(before, after, 3, stride)
        self.second = nn.Conv3d(after, after, 3)
        self.shortcut = nn.Conv3d(before, after, 1, stride)
        self.norms = nn.ModuleList([nn.GroupNorm(math.gcd(8, after), after) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, before, L, A, R) to (B, after, L', A', R')."""
        y = functional.leaky_relu(self.norms[0](self.first(_padded(x))))
        return functional.leaky_relu(self.norms[1](self.second(_padded(y))) + self.shortcut(x))


def _padded(x: Tensor) -> Tensor:
    return functional.pad(functional.pad(x, (0, 0, 1, 1, 0, 0), mode="circular"), (1, 1, 0, 0, 1, 1))


class Conv(nn.Module):
    """The residual network: blocks, the mean over all places, and a linear layer."""

    def __init__(self, shape: Sequence[int], config: ConvConfig) -> None:
        super().__init__()
        self.shape = tuple(shape)
        channels = [2, *config.channels]
        self.blocks = nn.Sequential(
            *(
                ResidualBlock(before, after, 1 if number == 0 else 2)
                for number, (before, after) in enumerate(pairwise(channels))
            )
        )
        self.head = nn.Linear(channels[-1] + 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps log10 E_inc and voxels, (B, 1 + cells), to the logarithm of the odds of truth, (B,)."""
        energy, voxels = x[:, :1], x[:, 1:].reshape(-1, 1, *self.shape)
        constant = energy[:, :, None, None, None].expand_as(voxels)
        pooled = self.blocks(torch.cat([voxels, constant], 1)).mean((2, 3, 4))
        out: Tensor = self.head(torch.cat([pooled, energy], 1))
        return out[:, 0]


# Inputs


IN_MEMORY = 2**26
"""Numbers of a set, or of a part of two sets, up to which they are kept in memory."""


class Inputs(Protocol):
    """What a classifier sees of showers, in memory or a file: an array is one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Showers and numbers of each."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Any:
        """Reads some rows, (n, F), in the order asked for."""


@dataclass(frozen=True, eq=False)
class SomeInputs:
    """Some rows of inputs, as inputs."""

    inputs: Inputs
    rows: NDArray[np.intp]

    @property
    def shape(self) -> tuple[int, ...]:
        """Showers and numbers of each."""
        return len(self.rows), *self.inputs.shape[1:]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Any) -> Any:
        """Reads some rows, counted within these."""
        return self.inputs[self.rows[rows]]


def inputs_of(source: EventSource, view: View, folder: Path | None = None) -> Inputs:
    """Reads what a classifier sees of showers, (N, F) float32.

    Args:
        source: showers.
        view: of which network.
        folder: where a temporary file lies, if they do not fit into memory; the system's folder where not given.

    Raises:
        ValueError: `conv` for a detector without three axes.
    """
    detector = source.primaries.detector
    if view == "high":
        # of the spectrum and the voxels nothing is needed
        edges, sizes = np.array([detector.threshold, np.inf]), Sizes(prdc_rows=0)
        return observe_showers(source, edges, sizes).features.astype(np.float32)
    if view == "conv" and len(detector.shape) != 3:
        raise ValueError(
            f"the residual network needs three axes, {detector.name} has {len(detector.shape)}: leave conv out"
        )
    width = 1 + detector.cells
    if len(source) * width <= IN_MEMORY:
        return np.concatenate([voxel_inputs(events, view) for events in in_slices(source, 512)])
    rows = StoredRows(width, np.float32, folder or Path(tempfile.gettempdir()))
    for events in in_slices(source, 512):
        rows.append(voxel_inputs(events, view))
    return rows


def voxel_inputs(events: Events, view: View) -> NDArray[np.float32]:
    """Returns what `low` or `conv` see of some showers, (n, 1 + cells)."""
    detector, energy = events.detector, events.conditions.astype(np.float64)
    voxels = cut(detector, events.responses)
    found = np.empty((len(events), 1 + detector.cells), np.float32)
    found[:, :1] = np.log10(energy)
    found[:, 1:] = voxels / energy if view == "low" else np.log1p(voxels / detector.threshold)
    return found


class Part:
    """Training, validation or test rows of two sets of inputs, those of truth first.

    Args:
        truth: inputs of simulated showers.
        generated: inputs of generated ones.
    """

    def __init__(self, truth: Inputs, generated: Inputs) -> None:
        self._sets = truth, generated
        self.labels = torch.cat([torch.ones(len(truth)), torch.zeros(len(generated))])
        self._rows: Tensor | None = None
        if len(self) * self.width <= IN_MEMORY:
            self._rows = torch.cat([torch.from_numpy(rows[np.arange(len(rows))]) for rows in self._sets])

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def width(self) -> int:
        """Numbers of a shower."""
        return self._sets[0].shape[1]

    def __getitem__(self, index: Tensor) -> Tensor:
        """Reads some rows, (n, F), in the order asked for."""
        if self._rows is not None:
            return self._rows[index]
        first = len(self._sets[0])
        numbers = index.numpy()
        true = numbers < first
        ours, theirs = self._sets[0][numbers[true]], self._sets[1][numbers[~true] - first]
        rows = np.empty((len(numbers), self.width), ours.dtype)
        rows[true], rows[~true] = ours, theirs
        return torch.from_numpy(rows)

    def batches(self, size: int) -> Iterator[Tensor]:
        """Reads all rows in order."""
        for index in torch.split(torch.arange(len(self)), size):
            yield self[index]

    def moments(self, size: int) -> tuple[Tensor, Tensor]:
        """Returns mean and standard deviation of each number, (F,)."""
        if self._rows is not None:
            return self._rows.mean(0), self._rows.std(0)
        mean, square = torch.zeros(2, self.width, dtype=torch.float64)
        for rows in self.batches(size):
            mean += rows.double().sum(0) / len(self)
        for rows in self.batches(size):
            square += (rows.double() - mean).square().sum(0)
        return mean.float(), (square / (len(self) - 1)).sqrt().float()


def _network(view: View, inputs: int, detector: Detector, config: ClassifierConfig) -> nn.Module:
    return Conv(detector.shape, config.conv) if view == "conv" else Dense(inputs, config.dense)


# Training and scores


@dataclass(frozen=True, eq=False)
class Verdict:
    """What one classifier found.

    Attributes:
        auc: area under the curve on the test rows; 0.5: nothing, 1: everything.
        jsd: Jensen-Shannon divergence [bits].
        truth: weights of the true test showers.
        generated: weights of the generated ones.
    """

    auc: float
    jsd: float
    truth: NDArray[np.float64]
    generated: NDArray[np.float64]


def auc_of(truth: NDArray[np.floating], generated: NDArray[np.floating]) -> float:
    """Returns the share of pairs in which the true shower has the higher score, ties counting half."""
    values, inverse = np.unique(np.concatenate([truth, generated]), return_inverse=True)
    of_truth, of_generated = (
        np.bincount(part, minlength=len(values)) for part in np.split(inverse, [len(truth)])
    )
    below = np.cumsum(of_generated) - of_generated
    return float((of_truth * (below + of_generated / 2)).sum() / (len(truth) * len(generated)))


def judge(
    scores: NDArray[np.floating],
    labels: NDArray[np.floating],
    test_scores: NDArray[np.floating],
    test_labels: NDArray[np.floating],
) -> Verdict:
    """Calibrates scores by validation rows and judges test rows; labels are 1 for truth, 0 for generated.

    Isotonic regression gives 0 and 1 too, which n validation rows cannot know: probabilities are kept within 1/n and
    1 - 1/n.
    """
    isotonic = require("sklearn.isotonic", "train").IsotonicRegression(
        y_min=0.0, y_max=1.0, out_of_bounds="clip"
    )
    isotonic.fit(scores, labels)
    least = 1 / max(len(scores), 3)
    probability = np.clip(np.asarray(isotonic.predict(test_scores), np.float64), least, 1 - least)
    true = test_labels > 0.5
    right = np.where(true, probability, 1 - probability)
    weights = probability / (1 - probability)
    jsd = 1 + 0.5 * (np.log2(right[true]).mean() + np.log2(right[~true]).mean())
    return Verdict(auc_of(probability[true], probability[~true]), float(jsd), weights[true], weights[~true])


def classify(
    truth: Inputs,
    generated: Inputs,
    view: View,
    detector: Detector,
    config: ClassifierConfig,
    seed: int = 0,
    device: str = "cpu",
) -> Verdict:
    """Trains one classifier and judges its test rows.

    Args:
        truth: inputs of simulated showers, (N, F).
        generated: inputs of generated showers, (M, F).
        view: which network.
        detector: of the showers.
        config: network and training.
        seed: of parts, weights and order.
        device: PyTorch device.

    Raises:
        ValueError: too few showers for the three parts.
    """
    rng = np.random.default_rng([seed, 5])
    orders = [rng.permutation(len(values)) for values in (truth, generated)]
    counts = [[round(share * len(values)) for share in config.parts[:2]] for values in orders]
    if any(min(*pair, len(values) - sum(pair)) < 2 for pair, values in zip(counts, orders, strict=True)):
        raise ValueError(
            f"a classifier needs at least two showers in each part, got {len(truth)} and {len(generated)} showers"
        )
    pieces = [np.split(order, np.cumsum(pair)) for pair, order in zip(counts, orders, strict=True)]
    train, validation, test = (
        Part(SomeInputs(truth, ours), SomeInputs(generated, theirs))
        for ours, theirs in zip(*pieces, strict=True)
    )
    mean, scale = torch.zeros(train.width), torch.ones(train.width)
    if config.standardize:
        mean, scale = train.moments(config.batch_size)
        scale = torch.where(scale > 0, scale, 1.0)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _network(view, train.width, detector, config).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
    order = torch.Generator().manual_seed(seed)

    def logits(rows: Tensor) -> Tensor:
        return torch.as_tensor(network(((rows - mean) / scale).to(device)))

    @torch.no_grad()
    def scores_of(part: Part) -> Tensor:
        return torch.cat([logits(rows).cpu() for rows in part.batches(config.batch_size)]).double()

    best, state = math.inf, copy.deepcopy(network.state_dict())
    for _ in range(config.epochs):
        for index in torch.split(torch.randperm(len(train), generator=order), config.batch_size):
            loss = functional.binary_cross_entropy_with_logits(
                logits(train[index]), train.labels[index].to(device)
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        score = float(
            functional.binary_cross_entropy_with_logits(scores_of(validation), validation.labels.double())
        )
        if score < best:
            best, state = score, copy.deepcopy(network.state_dict())
    network.load_state_dict(state)
    found = [torch.sigmoid(scores_of(part)).numpy() for part in (validation, test)]
    return judge(found[0], validation.labels.numpy(), found[1], test.labels.numpy())


def weight_histograms(verdicts: Sequence[Verdict]) -> dict[str, list[float]]:
    """Counts the weights of truth and generated over all verdicts, in the bins of `WEIGHT_EDGES`."""
    histograms: dict[str, list[float]] = {"edges": WEIGHT_EDGES.tolist()}
    for name in ("truth", "generated"):
        weights = np.concatenate([getattr(verdict, name) for verdict in verdicts])
        inside = np.clip(weights, WEIGHT_EDGES[0], WEIGHT_EDGES[-1])
        histograms[name] = np.histogram(inside, WEIGHT_EDGES)[0].tolist()
    return histograms


def classifier_scores(
    reference: EventSource,
    generated: EventSource,
    config: ClassifierConfig,
    seed: int = 0,
    device: str = "cpu",
    report: Callable[[str], None] = lambda what: None,
    beside: bool = True,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Runs every view of the settings on generated showers, on the floor and on the positive control.

    Floor and control have half the rows: random halves of the reference, the second as it is or smeared.

    Args:
        reference: simulated showers.
        generated: generated ones; their rows need not be those of the reference.
        config: the settings.
        seed: the first of `config.seeds` seeds.
        device: PyTorch device.
        report: called with what is about to be trained.
        beside: whether floor and control are wanted; they are the same for all generated showers.
        folder: where temporary files lie, if the showers do not fit into memory.

    Returns:
        `metrics`: entries of a file of scores by name, `auc_low`, `jsd_low` and so on; `weights`: for each view the
        histograms of the weights.
    """
    detector = reference.primaries.detector
    order = np.random.default_rng([seed, 6]).permutation(len(reference))
    first, second = np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])
    metrics: dict[str, Any] = {}
    weights: dict[str, Any] = {}
    for view in config.views:
        truth = inputs_of(reference, view, folder)
        pairs: dict[str, tuple[Inputs, Inputs]] = {"scores": (truth, inputs_of(generated, view, folder))}
        if beside:
            smeared = inputs_of(Selected(Smeared(reference, seed=seed), second), view, folder)
            half = SomeInputs(truth, first)
            pairs |= {"floor": (half, SomeInputs(truth, second)), "control": (half, smeared)}
        found: dict[str, list[Verdict]] = {}
        for kind, (ours, theirs) in pairs.items():
            for number in range(config.seeds):
                report(f"classifier {view}, {kind} {number + 1}")
                found.setdefault(kind, []).append(
                    classify(ours, theirs, view, detector, config, seed + number, device)
                )
        weights[view] = weight_histograms(found["scores"])
        notes = {
            "floor": f"classifiers of {len(first)} against {len(second)} rows of the reference",
            "control": f"the same with layer energies of the second half smeared by {CONTROL:.0%}",
        }
        for name in ("auc", "jsd"):
            values = {kind: [getattr(one, name) for one in verdicts] for kind, verdicts in found.items()}
            beneath = {
                kind: {**_mean_and_std(values[kind]), "splits": config.seeds, "note": note}
                for kind, note in notes.items()
                if kind in values
            }
            metrics[f"{name}_{view}"] = {
                "values": values["scores"],
                **_mean_and_std(values["scores"]),
                "floor": None,
                "matched_floor": None,
                "control": None,
                **beneath,
                "particles": None,
                "reason": "",
            }
    return {"metrics": metrics, "weights": weights}


def _mean_and_std(values: Sequence[float]) -> dict[str, float | None]:
    return {
        "mean": float(np.mean(values)),
        "std": float(np.std(values, ddof=1)) if len(values) > 1 else None,
    }
