"""Channel regressors: readouts that predict the channel sums of a particle directly, without an image.

What to use when: as yardsticks of Wojnar (2025) that say what a surrogate must beat. All of them predict
nothing but means: the same particle always gives the same sums, so they score well in MAE, may look good in
W1 where the mean carries most of the spread, and have no diversity at all. A readout for use is
`channel_flow_matching`.

For the channel sums w (K,) of a particle with standardised features z, one estimator a channel learns

    f_i(z) ~ ln(1 + w_i),    what_i = max(exp(f_i(z)) - 1, 0),

a mean in the logarithm, hence below the mean of the counts. Sums are left unrounded, and the noise is not
looked at.

`linear` is least squares. `knn`, `tree` and `gradient_boosting` choose their settings channel by channel: one
eighth of the training particles, all rows of a particle together, is held out, each candidate is fitted to
the rest and scored on the held-out rows by the Wasserstein-1 distance of its channel, and the best is
refitted to all training rows. Candidates are the whole grid of neighbours, and a random subset of the other
two grids, of the size `candidates`. `channel_mlp` is a network trained by stages.

Trees are grown by scikit-learn and kept as plain arrays, so weights are tensors and never pickles.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from caloforge._lookup import require
from caloforge.detectors import Detector
from caloforge.events import Events, EventSource
from caloforge.metrics.channels import mean_wasserstein, wasserstein
from caloforge.models.base import BatchRandom, Readout, Stage
from caloforge.models.parts.images import channel_sums
from caloforge.models.parts.inference import generate_in_memory
from caloforge.models.parts.stage import LossStage
from caloforge.nn.residual_mlp import ResidualMLP
from caloforge.nn.stored import Stored
from caloforge.optim import AdamConfig
from caloforge.transforms import Standardize

HELD_OUT = 1 / 8
"""Share of the training particles on which settings are compared."""

_PAIRS = 2**21
"""Distances, or nodes, held at once while predicting."""

Candidate = TypeVar("Candidate")
Predict = Callable[[NDArray[np.float32]], NDArray[np.float64]]


# --- what the regressors share ------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Training:
    """Training rows as the estimators see them.

    Attributes:
        features: standardised, (N, F) float32.
        targets: ln(1 + channel sum), (N, K).
        held: rows of the held-out particles, (N,).
    """

    features: NDArray[np.float32]
    targets: NDArray[np.float64]
    held: NDArray[np.bool_]


def _training(train: EventSource, channels: str, standardize: Standardize) -> _Training:
    """Fits the standardisation and reads what the estimators need."""
    primaries = train.primaries
    conditions = torch.from_numpy(primaries.conditions).to(standardize.mean.device)
    standardize.refit(conditions)
    particles = np.unique(primaries.group)
    chosen = np.random.Generator(np.random.Philox(0)).permutation(particles)
    held_out = np.isin(primaries.group, chosen[: round(HELD_OUT * len(particles))])
    return _Training(standardize(conditions).cpu().numpy(), np.log1p(channel_sums(train, channels)), held_out)


def _best(
    candidates: Sequence[Candidate],
    training: _Training,
    channel: int,
    fit: Callable[[Candidate, _Training, int], Predict],
) -> Candidate:
    """Returns the candidate whose fit to the other rows is nearest to the held-out ones in W1 of the sums."""
    rest, held_out = _rows(training, ~training.held), _rows(training, training.held)
    if not len(held_out.features) or not len(rest.features):
        raise ValueError(
            "choosing settings needs training events of some ten particles, "
            f"got {len(training.features)} events with {len(held_out.features)} of them held out"
        )
    true = np.expm1(held_out.targets[:, channel])

    def score(candidate: Candidate) -> float:
        predicted = fit(candidate, rest, channel)(held_out.features)
        return wasserstein(true, np.maximum(np.expm1(predicted), 0.0))

    return min(candidates, key=score)


def _rows(training: _Training, rows: NDArray[np.bool_]) -> _Training:
    return _Training(training.features[rows], training.targets[rows], training.held[rows])


def _sums(logarithms: Tensor) -> Tensor:
    """Turns predicted ln(1 + w), (B, K), to sums, not negative, float32."""
    return torch.expm1(logarithms).clamp(min=0).float()


# --- linear -------------------------------------------------------------------------------------------------


class LinearConfig(BaseModel):
    """Linear regression.

    Attributes:
        channels: name of the channel map.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: str = "paper"


class Linear(Readout):
    """Least squares of ln(1 + w) on the standardised features, with an intercept."""

    config_class: ClassVar[type[BaseModel]] = LinearConfig

    def __init__(self, detector: Detector, config: LinearConfig) -> None:
        super().__init__()
        self.detector, self.config, self.channels, self.noise_dim = detector, config, config.channels, 1
        features, outputs = len(detector.conditions), len(detector.channel_map(config.channels).labels)
        self.standardize = Standardize(features)
        self.weight: Tensor
        self.intercept: Tensor
        self.register_buffer("weight", torch.zeros(features, outputs, dtype=torch.float64))
        self.register_buffer("intercept", torch.zeros(outputs, dtype=torch.float64))

    def forward(self, conditions: Tensor, noise: Tensor) -> Tensor:
        """Predicts channel sums, (B, K), from conditions (B, F); the noise (B, 1) is not looked at."""
        return _sums(self.standardize(conditions).double() @ self.weight + self.intercept)

    def stages(self, train: EventSource) -> Sequence[Stage]:
        """Fits the regression; there is nothing to train."""
        training = _training(train, self.channels, self.standardize)
        features = np.column_stack([training.features.astype(np.float64), np.ones(len(training.features))])
        solution = torch.from_numpy(np.linalg.lstsq(features, training.targets)[0])
        self.weight.copy_(solution[:-1])
        self.intercept.copy_(solution[-1])
        return []


# --- nearest neighbours -------------------------------------------------------------------------------------


class NearestNeighboursConfig(BaseModel):
    """Nearest neighbours.

    Attributes:
        channels: name of the channel map.
        fewest: smallest number of neighbours tried.
        most: largest number of neighbours tried.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: str = "paper"
    fewest: int = Field(3, ge=1)
    most: int = Field(25, ge=1)


class NearestNeighbours(Readout):
    """Averages ln(1 + w) over the k nearest training rows, k by channel.

    A row counts as often as it occurs, so of a particle simulated many times all k may be its own.
    """

    config_class: ClassVar[type[BaseModel]] = NearestNeighboursConfig

    def __init__(self, detector: Detector, config: NearestNeighboursConfig) -> None:
        super().__init__()
        if config.most < config.fewest:
            raise ValueError(f"most must be at least fewest = {config.fewest} neighbours, got {config.most}")
        self.detector, self.config, self.channels, self.noise_dim = detector, config, config.channels, 1
        features, outputs = len(detector.conditions), len(detector.channel_map(config.channels).labels)
        self.standardize = Standardize(features)
        self.stored = Stored(
            features=torch.empty(0, features), targets=torch.empty(0, outputs, dtype=torch.float64)
        )
        self.neighbours: Tensor
        self.register_buffer("neighbours", torch.full((outputs,), config.fewest))

    def forward(self, conditions: Tensor, noise: Tensor) -> Tensor:
        """Predicts channel sums, (B, K), from conditions (B, F); the noise (B, 1) is not looked at."""
        stored = self.stored
        means = _neighbour_means(
            self.standardize(conditions), stored["features"], stored["targets"], int(self.neighbours.max())
        )
        return _sums(means[:, self.neighbours - 1, torch.arange(means.shape[2], device=means.device)])

    def stages(self, train: EventSource) -> Sequence[Stage]:
        """Chooses the numbers of neighbours and stores the training rows; there is nothing to train."""
        training = _training(train, self.channels, self.standardize)
        rest = int((~training.held).sum())
        tried = range(self.config.fewest, self.config.most + 1)
        if rest < self.config.most:
            raise ValueError(f"{self.config.most} neighbours need as many training events, got {rest} to fit")
        # The means over 1 to `most` neighbours come from one search, which all candidates and channels share.
        features, targets = torch.from_numpy(training.features), torch.from_numpy(training.targets)
        held_out = torch.from_numpy(training.held)
        means = _neighbour_means(
            features[held_out], features[~held_out], targets[~held_out], self.config.most
        ).numpy()

        def fit(k: int, _: _Training, channel: int) -> Predict:
            return lambda _: means[:, k - 1, channel]

        best = [_best(tried, training, channel, fit) for channel in range(targets.shape[1])]
        self.neighbours.copy_(torch.tensor(best))
        self.stored.put(features=features, targets=targets)
        return []


def _neighbour_means(queries: Tensor, features: Tensor, targets: Tensor, most: int) -> Tensor:
    """Returns the mean targets of the nearest 1, 2, ... `most` rows, (B, most, K)."""
    counts = torch.arange(1, most + 1, device=targets.device, dtype=targets.dtype)[:, None]
    parts = []
    for chunk in torch.split(queries, max(_PAIRS // len(features), 1)):
        # By differences and not by a matrix product, whose rounding would depend on the batch.
        distance = torch.cdist(chunk, features, compute_mode="donot_use_mm_for_euclid_dist")
        nearest = distance.topk(most, dim=1, largest=False).indices
        parts.append(targets[nearest].cumsum(1) / counts)
    return torch.cat(parts)


# --- trees --------------------------------------------------------------------------------------------------


class DecisionTreeConfig(BaseModel):
    """Decision trees: one for each channel.

    Attributes:
        channels: name of the channel map.
        depth: smallest and largest depth tried.
        split: smallest and largest number of rows that a node must hold to be split.
        leaf: smallest and largest number of rows that a leaf must hold.
        candidates: random settings tried, of the whole grid.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: str = "paper"
    depth: tuple[int, int] = (5, 25)
    split: tuple[int, int] = (2, 32)
    leaf: tuple[int, int] = (1, 16)
    candidates: int = Field(32, ge=1)


class GradientBoostingConfig(BaseModel):
    """Gradient boosting: one sequence of trees for each channel.

    Attributes:
        channels: name of the channel map.
        trees: smallest and largest number of trees tried.
        depth: smallest and largest depth tried.
        learning_rate: smallest and largest shrinkage tried, drawn evenly in its logarithm.
        candidates: random settings tried, of the whole grid.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: str = "paper"
    trees: tuple[int, int] = (100, 400)
    depth: tuple[int, int] = (2, 6)
    learning_rate: tuple[float, float] = (0.01, 1.0)
    candidates: int = Field(12, ge=1)


class _Trees(Readout):
    """Predicts ln(1 + w) of each channel by trees that scikit-learn grows."""

    def __init__(self, detector: Detector, config: DecisionTreeConfig | GradientBoostingConfig) -> None:
        super().__init__()
        self.detector, self.channels, self.noise_dim = detector, config.channels, 1
        detector.channel_map(config.channels)
        self.standardize = Standardize(len(detector.conditions))
        self.trees = _no_trees()

    @abstractmethod
    def _settings(self, rng: np.random.Generator) -> list[dict[str, Any]]:
        """Draws the settings to try."""

    @abstractmethod
    def _grow(self, settings: Mapping[str, Any], rows: _Training, channel: int) -> Any:
        """Returns scikit-learn's estimator, fitted to some rows."""

    @abstractmethod
    def _forest(self, estimator: Any) -> _Forest:
        """Returns the trees of an estimator."""

    def forward(self, conditions: Tensor, noise: Tensor) -> Tensor:
        """Predicts channel sums, (B, K), from conditions (B, F); the noise (B, 1) is not looked at."""
        return _sums(evaluate_trees(self.trees, self.standardize(conditions)))

    def stages(self, train: EventSource) -> Sequence[Stage]:
        """Chooses the settings and grows the trees; there is nothing to train."""
        training = _training(train, self.channels, self.standardize)
        candidates = self._settings(np.random.Generator(np.random.Philox(0)))
        forests = []
        for channel in range(training.targets.shape[1]):
            best = _best(candidates, training, channel, lambda *given: self._grow(*given).predict)
            forests.append(self._forest(self._grow(best, training, channel)))
        self.trees.put(**_pack(forests))
        return []


class DecisionTree(_Trees):
    """Predicts the mean ln(1 + w) of a leaf of a regression tree.

    Args:
        detector: the detector.
        config: what is tried.
    """

    config_class: ClassVar[type[BaseModel]] = DecisionTreeConfig

    def __init__(self, detector: Detector, config: DecisionTreeConfig) -> None:
        super().__init__(detector, config)
        self.config = config

    def _settings(self, rng: np.random.Generator) -> list[dict[str, Any]]:
        config = self.config
        return [
            {
                "max_depth": int(rng.integers(*config.depth, endpoint=True)),
                "min_samples_split": int(rng.integers(*config.split, endpoint=True)),
                "min_samples_leaf": int(rng.integers(*config.leaf, endpoint=True)),
            }
            for _ in range(config.candidates)
        ]

    def _grow(self, settings: Mapping[str, Any], rows: _Training, channel: int) -> Any:
        sklearn = require("sklearn.tree", "train")
        estimator = sklearn.DecisionTreeRegressor(**settings, random_state=0)
        return estimator.fit(rows.features, rows.targets[:, channel])

    def _forest(self, estimator: Any) -> _Forest:
        return _Forest(0.0, [_nodes_of_tree(estimator)])


class GradientBoosting(_Trees):
    """Predicts ln(1 + w) as a sum of shrunken trees, each grown on the rest of those before.

    Splits are sought in histograms of 255 quantile bins a feature (scikit-learn's `HistGradientBoosting`),
    twenty times faster than among all values.

    Args:
        detector: the detector.
        config: what is tried.
    """

    config_class: ClassVar[type[BaseModel]] = GradientBoostingConfig

    def __init__(self, detector: Detector, config: GradientBoostingConfig) -> None:
        super().__init__(detector, config)
        self.config = config

    def _settings(self, rng: np.random.Generator) -> list[dict[str, Any]]:
        config = self.config
        return [
            {
                "max_iter": int(rng.integers(*config.trees, endpoint=True)),
                "max_depth": int(rng.integers(*config.depth, endpoint=True)),
                "learning_rate": float(np.exp(rng.uniform(*np.log(config.learning_rate)))),
            }
            for _ in range(config.candidates)
        ]

    def _grow(self, settings: Mapping[str, Any], rows: _Training, channel: int) -> Any:
        sklearn = require("sklearn.ensemble", "train")
        estimator = sklearn.HistGradientBoostingRegressor(
            **settings, max_leaf_nodes=None, early_stopping=False, random_state=0
        )
        return estimator.fit(rows.features, rows.targets[:, channel])

    def _forest(self, estimator: Any) -> _Forest:
        return _forest_of_boosting(estimator)


@dataclass(frozen=True, eq=False)
class _Nodes:
    """One tree; node 0 is its root, and a leaf is its own child.

    Attributes:
        feature: column that a node looks at, (M,).
        threshold: a row goes left where its value is at most this, (M,).
        left: child, (M,).
        right: child, (M,).
        value: what a leaf adds, (M,).
    """

    feature: NDArray[np.int64]
    threshold: NDArray[np.float64]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    value: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Forest:
    """The trees of one channel, and what their sum starts with."""

    start: float
    trees: list[_Nodes]


def _nodes(leaf: Any, feature: Any, threshold: Any, left: Any, right: Any, value: Any) -> _Nodes:
    own = np.arange(len(leaf))
    return _Nodes(
        np.where(leaf, 0, feature).astype(np.int64),
        np.where(leaf, np.inf, threshold).astype(np.float64),
        np.where(leaf, own, left).astype(np.int64),
        np.where(leaf, own, right).astype(np.int64),
        np.where(leaf, value, 0.0).astype(np.float64),
    )


def _nodes_of_tree(estimator: Any) -> _Nodes:
    """Reads the nodes of a fitted `DecisionTreeRegressor`."""
    tree = estimator.tree_
    leaf = tree.children_left < 0
    return _nodes(
        leaf, tree.feature, tree.threshold, tree.children_left, tree.children_right, tree.value[:, 0, 0]
    )


def _forest_of_boosting(estimator: Any) -> _Forest:
    """Reads the trees of a fitted `HistGradientBoostingRegressor`, whose leaf values are shrunken already."""
    trees = []
    for (predictor,) in estimator._predictors:
        nodes = predictor.nodes
        trees.append(
            _nodes(
                nodes["is_leaf"].astype(bool),
                nodes["feature_idx"],
                nodes["num_threshold"],
                nodes["left"],
                nodes["right"],
                nodes["value"],
            )
        )
    return _Forest(float(np.asarray(estimator._baseline_prediction).item()), trees)


def _no_trees() -> Stored:
    """Holds the trees of every channel, nodes end to end, children counted from the first node of all."""
    integers, numbers = torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.float64)
    return Stored(
        feature=integers,
        threshold=numbers,
        left=integers.clone(),
        right=integers.clone(),
        value=numbers.clone(),
        root=integers.clone(),
        channel=integers.clone(),
        start=numbers.clone(),
        levels=torch.zeros(1, dtype=torch.int64),
    )


def _pack(forests: Sequence[_Forest]) -> dict[str, Tensor]:
    trees = [tree for forest in forests for tree in forest.trees]
    root = np.cumsum([0, *(len(tree.value) for tree in trees)])[:-1]
    arrays = {
        "feature": np.concatenate([tree.feature for tree in trees]),
        "threshold": np.concatenate([tree.threshold for tree in trees]),
        "left": np.concatenate([tree.left + first for tree, first in zip(trees, root, strict=True)]),
        "right": np.concatenate([tree.right + first for tree, first in zip(trees, root, strict=True)]),
        "value": np.concatenate([tree.value for tree in trees]),
        "root": root.astype(np.int64),
        "channel": np.repeat(np.arange(len(forests)), [len(forest.trees) for forest in forests]),
        "start": np.array([forest.start for forest in forests]),
        "levels": np.array([max(_levels(tree) for tree in trees)]),
    }
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _levels(tree: _Nodes) -> int:
    """Counts the steps from the root to the deepest leaf."""
    nodes, levels = np.zeros(1, np.int64), 0
    while True:
        nodes = nodes[tree.left[nodes] != nodes]
        if not len(nodes):
            return levels
        nodes = np.concatenate([tree.left[nodes], tree.right[nodes]])
        levels += 1


def evaluate_trees(trees: Stored, features: Tensor) -> Tensor:
    """Sums the leaves that each row reaches, in all trees at once, level by level.

    Args:
        trees: as the tree regressors store them.
        features: standardised, (B, F).

    Returns:
        sums of the leaves, channel by channel, (B, K) float64.
    """
    parts = []
    for chunk in torch.split(features.double(), max(_PAIRS // len(trees["root"]), 1)):
        node = trees["root"].expand(len(chunk), -1)
        for _ in range(int(trees["levels"])):
            right = chunk.gather(1, trees["feature"][node]) > trees["threshold"][node]
            node = torch.where(right, trees["right"][node], trees["left"][node])
        start = trees["start"].expand(len(chunk), -1)
        parts.append(start.index_add(1, trees["channel"], trees["value"][node]))
    return torch.cat(parts)


# --- network ------------------------------------------------------------------------------------------------


class ChannelMLPConfig(BaseModel):
    """Network and training of the channel MLP; a `TrainingSection`.

    Attributes:
        channels: name of the channel map.
        width: of every hidden layer.
        layers: residual layers.
        dropout: share of a residual layer's outputs that is dropped in training.
        optimizer: rates tuned for the ZN in the publication.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: str = "paper"
    width: int = Field(64, ge=1)
    layers: int = Field(6, ge=1)
    dropout: float = Field(0.2, ge=0, lt=1)
    optimizer: AdamConfig = AdamConfig(learning_rate=3.7e-3, beta1=0.53, beta2=0.63)
    epochs: int = Field(50, ge=1)
    batch_size: int = Field(256, ge=1)


class ChannelMLP(Readout):
    """Predicts ln(1 + w) of all channels with one residual network, trained by the mean squared error."""

    config_class: ClassVar[type[BaseModel]] = ChannelMLPConfig

    def __init__(self, detector: Detector, config: ChannelMLPConfig) -> None:
        super().__init__()
        self.detector, self.config, self.channels, self.noise_dim = detector, config, config.channels, 1
        features, outputs = len(detector.conditions), len(detector.channel_map(config.channels).labels)
        self.standardize = Standardize(features)
        self.network = ResidualMLP(features, outputs, config.width, config.layers)

    def forward(self, conditions: Tensor, noise: Tensor) -> Tensor:
        """Predicts channel sums, (B, K), from conditions (B, F); the noise (B, 1) is not looked at."""
        return _sums(self.network(self.standardize(conditions)))

    def stages(self, train: EventSource) -> Sequence[Stage]:
        """Fits the standardisation and returns the one stage."""
        self.standardize.refit(torch.from_numpy(train.primaries.conditions))
        return [LossStage("regression", self.network, self._loss, self._scores, self.config, len(train))]

    def _loss(self, network: ResidualMLP, batch: Events, rng: BatchRandom) -> Tensor:
        config, device = self.config, self.standardize.mean.device
        sums = torch.from_numpy(self.detector.readout(batch.responses, self.channels)).float().to(device)
        features = self.standardize(torch.from_numpy(batch.conditions).to(device))
        masks = None
        if config.dropout:
            masks = (rng.uniform(config.layers, config.width) >= config.dropout) / (1 - config.dropout)
        predicted: Tensor = network(features, masks)
        return (predicted - torch.log1p(sums)).square().mean(1)

    def _scores(self, source: EventSource) -> Mapping[str, float]:
        predicted = generate_in_memory(self, source.primaries.conditions, seed=0)
        true = channel_sums(source, self.channels)
        return {
            "w1": mean_wasserstein(true, predicted.astype(np.float64)),
            "mae": float(np.abs(true - predicted).mean()),
        }
