"""Trained two-sample tests: networks that try to tell generated showers from simulated ones.

A classifier that finds nothing has an area under its curve (AUC) of 0.5; what it finds is real, what it does not find
may need more rows, more epochs or a better network. So each AUC stands beside that of GEANT against GEANT (the floor)
and of GEANT against itself with layer energies smeared by 5 % (the control, which must be found). Four views, those of
the Fast Calorimeter Simulation Challenge:

- `low`: log10 E_inc and voxels / E_inc, to a dense network;
- `low-normed`: log10 E_inc, voxels / (E_layer + 1e-16) and log10(E_layer + 1e-8), to a dense network;
- `high`: the high-level features (`caloforge.metrics.showers`), to a dense network;
- `resnet`: what `low` sees, to a 3-D residual network; for detectors of three axes.

Voxels below the threshold are 0, but for those of `low-normed`, of which the layer energies alone are cut. Of both sets
one part is for training, one chooses the best epoch and calibrates, one is scored. Over the scored rows, the two sets
alike, with C the probability of truth,

    JSD = 1 + mean of log2 of the probability of the right class,

the Jensen-Shannon divergence in bits. It and the AUC are given twice: raw, of what the network says, and calibrated by
isotonic regression on the second part, which is the challenge's final result. The calibrated weight w = C / (1 - C)
estimates p_truth / p_generated: a tail of generated showers at small w is of showers that the simulation does not
make, one of true showers at large w of showers that the generator misses.

Rows that have weights count by them: in the loss, in the choice of the epoch, in the calibration and in what is said of
the scored rows. `caloforge.evaluation.refinement` makes weights of w.

What to use when: `challenge` for numbers beside published ones, `paper` for those of CaloDREAM's own paper, `small` to
compare models on a few cores.

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
from caloforge.metrics import observe
from caloforge.metrics.showers import CONTROL, Sizes, Smeared, cut, data_set, directions, observe_showers
from caloforge.metrics.weights import Weights, mean, select, uneven, weights_of
from caloforge.models.parts.particle_features import ParticleFeatures

View = Literal["low", "low-normed", "high", "resnet"]

ROWS: Mapping[str, tuple[int, int, int]] = {
    "ds1-photons": (80_000, 20_000, 21_000),
    "ds1-pions": (80_000, 20_000, 20_800),
    "ds2": (60_000, 20_000, 20_000),
    "ds3": (60_000, 20_000, 20_000),
}
"""The challenge's training, validation and test rows of each set, by data set."""

WEIGHT_EDGES = np.geomspace(1e-2, 1e2, 61)
"""Bins of the classifier's weights; those beyond are counted in the first and the last."""


class DenseConfig(BaseModel):
    """A dense network: a layer to `width`, `hidden` layers of that width, one output; LeakyReLU between."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = Field(2048, ge=1)
    hidden: int = Field(2, ge=0)


class ResNetConfig(BaseModel):
    """A 3-D ResNet-18: channels of the four stages of two blocks; the first stage's are the stem's too."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: tuple[int, int, int, int] = (32, 64, 64, 128)


class ClassifierConfig(BaseModel):
    """How classifiers are trained.

    Attributes:
        views: which of `low`, `low-normed`, `high` and `resnet`; the last is left out where layers differ.
        dense: network of all but `resnet`.
        resnet: network of `resnet`.
        epochs: passes through the training rows.
        choose: which epoch counts, by the validation rows: the first of the best accuracy, after which training ends if
            that is 1, or the one of the smallest loss.
        patience: epochs without a better one after which training ends; none where not given.
        batch_size: showers a step, of both sets together.
        learning_rate: of Adam.
        standardize: give inputs mean 0 and variance 1, by the training rows.
        parts: shares of training, validation and test rows, or `challenge`: as many rows as the challenge has (`ROWS`),
            and the same shares of sets with fewer.
        clip: calibrated probabilities are kept within this and 1 minus it; 1/n of n validation rows where not given.
        precision: of weights and inputs.
        seeds: how often everything is repeated, with other parts and other weights.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    views: tuple[View, ...] = ("low", "high")
    dense: DenseConfig = DenseConfig()
    resnet: ResNetConfig = ResNetConfig()
    epochs: int = Field(50, ge=1)
    choose: Literal["accuracy", "loss"] = "loss"
    patience: int | None = Field(None, ge=1)
    batch_size: int = Field(1000, ge=2)
    learning_rate: float = Field(2e-4, gt=0)
    standardize: bool = False
    parts: tuple[float, float, float] | Literal["challenge"] = (0.6, 0.2, 0.2)
    clip: float | None = Field(None, gt=0, lt=0.5)
    precision: Literal["float32", "float64"] = "float32"
    seeds: int = Field(5, ge=1)


CHALLENGE = ClassifierConfig(
    views=("low", "low-normed", "high", "resnet"),
    choose="accuracy",
    parts="challenge",
    clip=1e-6,
    precision="float64",
    seeds=1,
)

SUITES: Mapping[str, ClassifierConfig] = {
    "challenge": CHALLENGE,
    "full": CHALLENGE.model_copy(update={"precision": "float32", "seeds": 5}),
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
"""Named settings: `challenge`, exactly the challenge's; `full`, the same in float32, five times; `paper`, those of the
paper of CaloDREAM; `small`, for a few cores and a few thousand showers."""


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


class BasicBlock(nn.Module):
    """y = relu(norm(conv(relu(norm(conv(x))))) + x), with a convolution of one voxel and a norm where shapes differ."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.path = nn.Sequential(
            nn.Conv3d(before, after, 3, stride, padding=1, bias=False),
            nn.BatchNorm3d(after),
            nn.ReLU(),
            nn.Conv3d(after, after, 3, padding=1, bias=False),
            nn.BatchNorm3d(after),
        )
        same = stride == 1 and before == after
        shortcut = nn.Sequential(nn.Conv3d(before, after, 1, stride, bias=False), nn.BatchNorm3d(after))
        self.shortcut = nn.Identity() if same else shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, before, L, A, R) to (B, after, L', A', R')."""
        return functional.relu(self.path(x) + self.shortcut(x))


class ResNet(nn.Module):
    """The residual network: a stem, four stages of two blocks, the mean over all places, and a linear layer.

    It is He and others' ResNet-18 (arXiv 1512.03385) in three dimensions; the energy joins before the last layer.
    """

    def __init__(self, shape: Sequence[int], config: ResNetConfig) -> None:
        super().__init__()
        self.shape = tuple(shape)
        first, *_, last = config.channels
        layers: list[nn.Module] = [
            nn.Conv3d(1, first, 7, 2, padding=3, bias=False),
            nn.BatchNorm3d(first),
            nn.ReLU(),
            nn.MaxPool3d(3, 2, padding=1),
        ]
        for number, (before, after) in enumerate(pairwise((first, *config.channels))):
            layers += [BasicBlock(before, after, 1 if number == 0 else 2), BasicBlock(after, after, 1)]
        self.layers = nn.Sequential(*layers)
        self.energy = nn.BatchNorm1d(1)
        self.head = nn.Linear(last + 1, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Maps log10 E_inc and voxels, (B, 1 + cells), to the logarithm of the odds of truth, (B,)."""
        voxels = x[:, 1:].reshape(-1, 1, *self.shape)
        pooled = self.layers(voxels).mean((2, 3, 4))
        out: Tensor = self.head(torch.cat([pooled, self.energy(x[:, :1])], 1))
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
        ValueError: `resnet` for a detector without three axes, or another than `high` and `low` for one without layers.
    """
    detector = source.primaries.detector
    if not detector.layers:
        if view not in ("high", "low"):
            raise ValueError(
                f"{view} needs a detector of layers, and {detector.name} has none: high and low need none"
            )
        return image_inputs(source, view)
    if view == "high":
        # of the spectrum and the voxels nothing is needed
        edges, sizes = np.array([detector.threshold, np.inf]), Sizes(prdc_rows=0)
        features = observe_showers(source, edges, sizes).features
        return np.concatenate([features, directions(source.primaries)], 1).astype(np.float32)
    if view == "resnet" and len(detector.shape) != 3:
        raise ValueError(
            f"the residual network needs three axes, {detector.name} has {len(detector.shape)}: leave resnet out"
        )
    known = directions(source.primaries).shape[1] if view != "resnet" else 0
    width = 1 + known + detector.cells + (len(detector.layers) if view == "low-normed" else 0)
    if len(source) * width <= IN_MEMORY:
        return np.concatenate([voxel_inputs(events, view) for events in in_slices(source, 512)])
    rows = StoredRows(width, np.float32, folder or Path(tempfile.gettempdir()))
    for events in in_slices(source, 512):
        rows.append(voxel_inputs(events, view))
    return rows


def image_inputs(source: EventSource, view: View) -> NDArray[np.float32]:
    """Returns what a classifier sees of events of a detector without layers, (N, F).

    Both views see what the models see of a particle (`ParticleFeatures`), and of the response, with n its contents:
    `low` ln(1 + n) of every cell; `high` ln(1 + sum) of each channel of every map, and of images of two axes the
    centre, from the first guess of the place too, the radius, ln(1 + lit cells) and the place of the brightest cell in
    the edges of the spectrum. An empty response has 0 for those that it has not.
    """
    primaries = source.primaries
    particle = ParticleFeatures(primaries.detector)
    conditions = torch.from_numpy(primaries.conditions)
    known = particle(conditions).numpy()
    if view == "low":
        cells = [np.log1p(events.responses.reshape(len(events), -1)) for events in in_slices(source, 512)]
        return np.concatenate([known, np.concatenate(cells)], 1).astype(np.float32)
    observed = [observe(source, name) for name in primaries.detector.channels]
    columns = [known, *(np.log1p(each.channels) for each in observed)]
    first = observed[0]
    if first.centre is not None and first.radius is not None and first.lit is not None:
        centre = np.nan_to_num(first.centre)
        guess = particle.cell(conditions).numpy()
        columns += [
            centre,
            centre - guess,
            np.nan_to_num(first.radius)[:, None],
            np.log1p(first.lit)[:, None],
        ]
    if first.spectra is not None:
        lit = first.spectra > 0
        brightest = np.where(lit.any(1), lit.shape[1] - np.argmax(lit[:, ::-1], axis=1), 0)
        columns.append(brightest[:, None])
    return np.concatenate(columns, 1).astype(np.float32)


def voxel_inputs(events: Events, view: View) -> NDArray[np.float32]:
    """Returns what `low` and `resnet`, (n, 1 + cells), or `low-normed`, (n, 1 + cells + L), see of some showers.

    Of a detector with angles the dense networks see the direction too, (n, 2), at the end.
    """
    detector, energy = events.detector, events.feature("incident_energy").astype(np.float64)[:, None]
    voxels, known = cut(detector, events.responses), directions(events)
    if view == "resnet":
        return np.concatenate([np.log10(energy), voxels / energy], 1).astype(np.float32)
    if view != "low-normed":
        return np.concatenate([np.log10(energy), voxels / energy, known], 1).astype(np.float32)
    sums = detector.readout(voxels.reshape(events.responses.shape), "layers")
    each = np.repeat(sums, [layer.cells for layer in detector.layers], axis=1)
    normed = events.responses.reshape(len(events), -1).astype(np.float64) / (each + 1e-16)
    return np.concatenate([np.log10(energy), normed, np.log10(sums + 1e-8), known], 1).astype(np.float32)


class Part:
    """Training, validation or test rows of two sets of inputs, those of truth first.

    Args:
        truth: inputs of simulated showers.
        generated: inputs of generated ones.
        weights: of the rows of both, where they do not count alike.

    Attributes:
        labels: 1 for truth, 0 for generated, (n,).
        weight: of all rows, those of each set over their mean, (n,); None where all count alike.
    """

    def __init__(
        self, truth: Inputs, generated: Inputs, weights: tuple[Weights | None, Weights | None] = (None, None)
    ) -> None:
        self._sets = truth, generated
        pair = [uneven(weight) for weight in weights]
        self.weight: Weights | None = None
        if any(weight is not None for weight in pair):
            self.weight = np.concatenate(
                [
                    np.ones(len(rows)) if weight is None else weight
                    for rows, weight in zip(self._sets, pair, strict=True)
                ]
            )
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
    return ResNet(detector.shape, config.resnet) if view == "resnet" else Dense(inputs, config.dense)


def views_of(config: ClassifierConfig, detector: Detector) -> tuple[View, ...]:
    """Returns the views that a detector can have: the residual network needs three axes."""
    return tuple(view for view in config.views if view != "resnet" or len(detector.shape) == 3)


def parts_of(config: ClassifierConfig, detector: Detector, rows: int) -> tuple[int, int, int]:
    """Returns the training, validation and test rows of a set of `rows` showers."""
    if config.parts == "challenge":
        published = ROWS.get(data_set(detector) or "", ROWS["ds2"])
        if rows >= sum(published):
            return published
        shares = [number / sum(published) for number in published]
    else:
        shares = list(config.parts)
    first, second = (round(share * rows) for share in shares[:2])
    return first, second, rows - first - second


# Training and scores


@dataclass(frozen=True, eq=False)
class Verdict:
    """What one classifier found.

    Attributes:
        auc: area under the curve on the test rows after calibration; 0.5: nothing, 1: everything.
        jsd: Jensen-Shannon divergence after calibration [bits].
        truth: weights of the true test showers.
        generated: weights of the generated ones.
        auc_raw: `auc` of what the network says.
        jsd_raw: `jsd` of what the network says.
        counts: how much each true and each generated test shower counts; None where all count alike.
    """

    auc: float
    jsd: float
    truth: NDArray[np.float64]
    generated: NDArray[np.float64]
    auc_raw: float
    jsd_raw: float
    counts: tuple[Weights, Weights] | None = None


def auc_of(
    truth: NDArray[np.floating],
    generated: NDArray[np.floating],
    weight: Weights | None = None,
    weight_generated: Weights | None = None,
) -> float:
    """Returns the share of pairs in which the true shower has the higher score, ties counting half.

    Args:
        truth: scores of true showers, (n,).
        generated: scores of generated showers, (m,).
        weight: how much each true shower counts, (n,); alike where not given.
        weight_generated: the same of the generated ones, (m,).
    """
    values, inverse = np.unique(np.concatenate([truth, generated]), return_inverse=True)
    weights = uneven(weight), uneven(weight_generated)
    of_truth, of_generated = (
        np.bincount(part, counts, minlength=len(values))
        for part, counts in zip(np.split(inverse, [len(truth)]), weights, strict=True)
    )
    below = np.cumsum(of_generated) - of_generated
    return float((of_truth * (below + of_generated / 2)).sum() / (len(truth) * len(generated)))


class Calibration:
    """Isotonic regression of the probability of truth on what a network says.

    Args:
        logits: logarithms of the odds of truth of validation rows, (n,).
        labels: 1 for truth, 0 for generated, (n,).
        clip: isotonic regression gives 0 and 1 too, which n rows cannot know: probabilities are kept within this and 1
            minus it, 1/n where not given.
        weight: of the rows, (n,); alike where not given.
    """

    def __init__(
        self,
        logits: NDArray[np.floating],
        labels: NDArray[np.floating],
        clip: float | None = None,
        weight: Weights | None = None,
    ) -> None:
        self._least = 1 / max(len(logits), 3) if clip is None else clip
        self._isotonic = require("sklearn.isotonic", "train").IsotonicRegression(
            y_min=0.0, y_max=1.0, out_of_bounds="clip"
        )
        self._isotonic.fit(_probability(logits), labels, weight)

    def __call__(self, logits: NDArray[np.floating]) -> NDArray[np.float64]:
        """Returns the calibrated probability of truth, (m,)."""
        probability = np.asarray(self._isotonic.predict(_probability(logits)), np.float64)
        return np.clip(probability, self._least, 1 - self._least)


def judge(
    logits: NDArray[np.floating],
    labels: NDArray[np.floating],
    test_logits: NDArray[np.floating],
    test_labels: NDArray[np.floating],
    clip: float | None = None,
    weight: Weights | None = None,
    test_weight: Weights | None = None,
) -> Verdict:
    """Calibrates a network by validation rows and judges test rows; labels are 1 for truth, 0 for generated.

    Args:
        logits: logarithms of the odds of truth of the validation rows, (n,).
        labels: of them, (n,).
        test_logits: the same of the test rows, (m,).
        test_labels: of them, (m,).
        clip: as of `Calibration`.
        weight: of the validation rows, (n,); alike where not given.
        test_weight: of the test rows, (m,).
    """
    raw = _probability(test_logits)
    probability = Calibration(logits, labels, clip, weight)(test_logits)
    true = test_labels > 0.5
    right = np.where(true, probability, 1 - probability)
    weights = probability / (1 - probability)
    counts = None if test_weight is None else (test_weight[true], test_weight[~true])
    return Verdict(
        auc_of(probability[true], probability[~true], *(counts or ())),
        _bits(np.log(right), true, test_weight),
        weights[true],
        weights[~true],
        auc_of(raw[true], raw[~true], *(counts or ())),
        _bits(-np.logaddexp(0, np.where(true, -test_logits, test_logits)), true, test_weight),
        counts,
    )


def _probability(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.exp(-np.logaddexp(0, -np.asarray(logits, np.float64)))


def _bits(right: NDArray[np.floating], true: NDArray[np.bool_], weight: Weights | None = None) -> float:
    """Returns the divergence by the logarithms of the probabilities of the right class, the two classes alike."""
    sums = [mean(right[rows], select(weight, rows)) for rows in (true, ~true)]
    return float(1 + 0.5 * (sums[0] + sums[1]) / math.log(2))


@dataclass(frozen=True, eq=False)
class Fitted:
    """A trained network.

    Attributes:
        network: it.
        mean: subtracted from its inputs, (F,).
        scale: what they are divided by, (F,).
        config: how it was trained.
        device: PyTorch device.
    """

    network: nn.Module
    mean: Tensor
    scale: Tensor
    config: ClassifierConfig
    device: str

    def outputs(self, rows: Tensor) -> Tensor:
        """Returns the logarithm of the odds of truth of some inputs, (n, F), with gradients."""
        dtype = _DTYPES[self.config.precision]
        return torch.as_tensor(self.network(((rows - self.mean) / self.scale).to(self.device, dtype)))

    @torch.no_grad()
    def logits(self, part: Part) -> Tensor:
        """Returns the logarithm of the odds of truth of every row, (n,) float64."""
        self.network.eval()
        return torch.cat([self.outputs(rows).cpu() for rows in part.batches(self.config.batch_size)]).double()


_DTYPES = {"float32": torch.float32, "float64": torch.float64}


def fit(
    train: Part,
    validation: Part,
    view: View,
    detector: Detector,
    config: ClassifierConfig,
    seed: int = 0,
    device: str = "cpu",
) -> Fitted:
    """Trains a network on some rows and chooses its epoch by others.

    Args:
        train: rows to train on.
        validation: rows that choose.
        view: which network.
        detector: of the showers.
        config: network and training.
        seed: of weights and order.
        device: PyTorch device.
    """
    mean, scale = torch.zeros(train.width), torch.ones(train.width)
    if config.standardize:
        mean, scale = train.moments(config.batch_size)
        scale = torch.where(scale > 0, scale, 1.0)

    dtype = _DTYPES[config.precision]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _network(view, train.width, detector, config).to(device, dtype)
    fitted = Fitted(network, mean, scale, config, device)
    optimizer = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
    order = torch.Generator().manual_seed(seed)
    weight = None if train.weight is None else torch.from_numpy(train.weight).to(device, dtype)
    weight_of_validation = None if validation.weight is None else torch.from_numpy(validation.weight)

    best, state, last = math.inf, copy.deepcopy(network.state_dict()), 0
    labels = validation.labels.double()
    for epoch in range(config.epochs):
        network.train()
        for index in torch.split(torch.randperm(len(train), generator=order), config.batch_size):
            if view == "resnet" and len(index) < 2:
                continue  # one shower has no variance to be normalized by
            loss = functional.binary_cross_entropy_with_logits(
                fitted.outputs(train[index]),
                train.labels[index].to(device, dtype),
                None if weight is None else weight[index],
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        outputs = fitted.logits(validation)
        missed = ((outputs > 0) != (labels > 0.5)).double()
        wrong = float((missed if weight_of_validation is None else missed * weight_of_validation).mean())
        score = (
            wrong
            if config.choose == "accuracy"
            else float(functional.binary_cross_entropy_with_logits(outputs, labels, weight_of_validation))
        )
        if score < best:
            best, state, last = score, copy.deepcopy(network.state_dict()), epoch
        if config.patience is not None and epoch - last >= config.patience:
            break
        if config.choose == "accuracy" and wrong == 0:
            break
    network.load_state_dict(state)
    return fitted


def classify(
    truth: Inputs,
    generated: Inputs,
    view: View,
    detector: Detector,
    config: ClassifierConfig,
    seed: int = 0,
    device: str = "cpu",
    weights: tuple[Weights | None, Weights | None] = (None, None),
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
        weights: of the rows of both sets, (N,) and (M,), where they do not count alike.

    Raises:
        ValueError: too few showers for the three parts.
    """
    rng = np.random.default_rng([seed, 5])
    orders = [rng.permutation(len(values)) for values in (truth, generated)]
    counts = [parts_of(config, detector, len(values)) for values in orders]
    if min(min(parts) for parts in counts) < 2:
        raise ValueError(
            f"a classifier needs at least two showers in each part, got {len(truth)} and {len(generated)} showers"
        )
    pieces = [
        np.split(order[: sum(parts)], np.cumsum(parts[:2]))
        for parts, order in zip(counts, orders, strict=True)
    ]
    train, validation, test = (
        Part(
            SomeInputs(truth, ours),
            SomeInputs(generated, theirs),
            (select(weights[0], ours), select(weights[1], theirs)),
        )
        for ours, theirs in zip(*pieces, strict=True)
    )
    fitted = fit(train, validation, view, detector, config, seed, device)
    ours, theirs = (fitted.logits(part).numpy() for part in (validation, test))
    return judge(
        ours,
        validation.labels.numpy(),
        theirs,
        test.labels.numpy(),
        config.clip,
        validation.weight,
        test.weight,
    )


def weight_histograms(verdicts: Sequence[Verdict]) -> dict[str, list[float]]:
    """Counts the weights of truth and generated over all verdicts, in the bins of `WEIGHT_EDGES`."""
    histograms: dict[str, list[float]] = {"edges": WEIGHT_EDGES.tolist()}
    for place, name in enumerate(("truth", "generated")):
        weights = np.concatenate([getattr(verdict, name) for verdict in verdicts])
        inside = np.clip(weights, WEIGHT_EDGES[0], WEIGHT_EDGES[-1])
        counts = [verdict.counts for verdict in verdicts if verdict.counts is not None]
        each = np.concatenate([pair[place] for pair in counts]) if counts else None
        histograms[name] = np.histogram(inside, WEIGHT_EDGES, weights=each)[0].tolist()
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
        `metrics`: entries of a file of scores by name, `auc_low`, `jsd_low`, `auc_raw_low`, `jsd_raw_low` and so on;
        `weights`: for each view the histograms of the weights; `note`: of a challenge's classifiers with too few rows.
    """
    detector = reference.primaries.detector
    order = np.random.default_rng([seed, 6]).permutation(len(reference))
    first, second = np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])
    metrics: dict[str, Any] = {}
    weights: dict[str, Any] = {}
    sources: dict[str, EventSource] = {"truth": reference, "generated": generated}
    if beside:
        sources["smeared"] = Selected(Smeared(reference, seed=seed), second)
    inputs: dict[str, Inputs] = {}
    counts = {name: weights_of(source.primaries) for name, source in sources.items()}
    read = ""
    views = views_of(config, detector)
    # `low` and `resnet` see the same, which is read once
    same = not directions(reference.primaries.select(slice(0, 1))).shape[1]
    for view in sorted(views, key=lambda view: "low" if view == "resnet" else view):
        seen = "low" if view == "resnet" and same else view
        if seen != read:
            inputs, read = {}, seen  # the last ones are let go first
            inputs = {name: inputs_of(source, view, folder) for name, source in sources.items()}
        truth = inputs["truth"]
        pairs: dict[str, tuple[Inputs, Inputs]] = {"scores": (truth, inputs["generated"])}
        of_truth = counts["truth"]
        of_pair = {"scores": (of_truth, counts["generated"])}
        if beside:
            half = SomeInputs(truth, first)
            pairs |= {"floor": (half, SomeInputs(truth, second)), "control": (half, inputs["smeared"])}
            of_halves = select(of_truth, first), select(of_truth, second)
            of_pair |= {"floor": of_halves, "control": of_halves}
        verdicts_of: dict[str, list[Verdict]] = {}
        for kind, (ours, theirs) in pairs.items():
            for number in range(config.seeds):
                report(f"classifier {view}, {kind} {number + 1}")
                verdicts_of.setdefault(kind, []).append(
                    classify(ours, theirs, view, detector, config, seed + number, device, of_pair[kind])
                )
        weights[view] = weight_histograms(verdicts_of["scores"])
        notes = {
            "floor": f"classifiers of {len(first)} against {len(second)} rows of the reference",
            "control": f"the same with layer energies of the second half smeared by {CONTROL:.0%}",
        }
        for name in ("auc", "jsd", "auc_raw", "jsd_raw"):
            values = {
                kind: [getattr(verdict, name) for verdict in verdicts]
                for kind, verdicts in verdicts_of.items()
            }
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
    rows = [sum(parts_of(config, detector, len(source))) for source in (reference, generated)]
    names = [f"{name}_{view}" for view in views for name in ("auc", "jsd", "auc_raw", "jsd_raw")]
    metrics = {name: metrics[name] for name in names}
    return {"metrics": metrics, "weights": weights, "note": _rows_note(config, detector, min(rows))}


def _rows_note(config: ClassifierConfig, detector: Detector, rows: int) -> str:
    """Says where the challenge's classifiers have fewer rows than the challenge; empty where they have not."""
    if config.parts != "challenge":
        return ""
    published = ROWS.get(data_set(detector) or "", ROWS["ds2"])
    if rows >= sum(published):
        return ""
    parts = parts_of(config, detector, rows)
    here, there = (" / ".join(f"{number:,}" for number in numbers) for numbers in (parts, published))
    return f"classifiers: {here} training, validation and test rows of each set, the challenge {there}"


def _mean_and_std(values: Sequence[float]) -> dict[str, float | None]:
    return {
        "mean": float(np.mean(values)),
        "std": float(np.std(values, ddof=1)) if len(values) > 1 else None,
    }
