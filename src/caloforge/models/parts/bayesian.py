r"""Networks that know how sure they are: Gaussian weights, and Laplace's approximation of the last layer.

`mean_field`. Every weight of a layer is an independent Gaussian,

$$ w \sim N(\mu, \sigma^2), \qquad \text{a priori } N(0, p^2), \quad p = \texttt{prior} / \sqrt{n}, $$

n the inputs of the layer; biases are numbers. Training lowers the loss of drawn weights and, over the number N of
training rows, the Kullback-Leibler divergence (Blundell et al. 2015, arXiv:1505.05424)

$$ \mathrm{KL} = \sum_w \tfrac12 \left( \sigma^2 / p^2 + \mu^2 / p^2 - 1 \right) - \ln (\sigma / p), \qquad
   \text{loss} + \texttt{weight} \; \mathrm{KL} / N. $$

The loss of flow matching is no likelihood, so the factor of its divergence is free (Butter et al. 2023,
arXiv:2305.10475); `weight` is chosen by the pulls of rows that validate.

A dense layer of one vector an event draws its outputs, not its weights: local reparametrisation (Kingma et al. 2015,
arXiv:1506.02557),

$$ y = \mu x + b + \sqrt{\sigma^2 x^2} \, \epsilon, \qquad \epsilon \sim N(0, 1) \text{ for each event and output}. $$

Tokens and pixels of an event share its weights, so that their outputs are not independent. There the weights are drawn
once a step and the signs of inputs and outputs once an event: flipout (Wen et al. 2018, arXiv:1803.04386),
y = mu x + b + s' (sigma E) (s x).

`last_layer`. Nothing changes in the training. With the inputs phi of the last layer (and 1, for its bias), the mean
squared loss has the Gauss-Newton matrix A = sum phi phi^T over the training rows, each counted once; residuals of the
variance s^2, the loss itself, make the posterior of each row of weights a Gaussian with the covariance (MacKay 1992)

$$ \Sigma = s^2 \left( A + s^2 / p^2 \right)^{-1} . $$

Replicas. Weights of replica k = 1, 2, ... are mu + sigma times normals that follow from (seed, k) and the layer's name
(`runtime.noise`), and then are numbers: a replica is generated, exported and timed like any other model. Replica 0 has
the means.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from caloforge.events import Events, EventSource
from caloforge.models.base import BatchRandom, Stage
from caloforge.models.parts.stage import LossStage, Scores, TrainingSection, shuffled_batches, with_score
from caloforge.runtime.noise import standard_normals

Network = TypeVar("Network", bound=nn.Module)

Loss = Callable[[Network, Any, BatchRandom], Tensor]
"""Network in training, batch and random numbers -> the loss of each event, (B,)."""

TINY = 1e-12
"""Smallest variance of an output, so that the root has a slope."""


class BayesianConfig(BaseModel):
    """What is Gaussian, and how wide.

    Attributes:
        method: `mean_field`, all weights; or `last_layer`, Laplace's approximation after the training.
        prior: standard deviation of weights a priori, times the root of a layer's inputs.
        initial: the same when the training starts; of `mean_field`.
        weight: factor of the divergence in the loss; of `mean_field`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["mean_field", "last_layer"] = "mean_field"
    prior: float = Field(1.0, gt=0)
    initial: float = Field(0.05, gt=0)
    weight: float = Field(0.1, gt=0)


def check_bayesian(bayesian: BayesianConfig | None, method: str) -> None:
    """Raises ValueError for Gaussian weights with a solver that is a network of its own and has none."""
    if bayesian is not None and method == "average_velocity":
        raise ValueError(
            "solver.method = 'average_velocity' has a network of its own, without Gaussian weights: choose another "
            "solver, or leave bayesian out"
        )


class _Gaussian(nn.Module):
    """What layers of Gaussian weights share.

    Attributes:
        weight: means.
        log_spread: logarithm of the standard deviations over the prior's.
        prior: standard deviation a priori.
        random: where random numbers come from while a loss is computed; None: the means are used.
    """

    weight: Tensor
    log_spread: nn.Parameter
    prior: float
    random: BatchRandom | None
    _ratios: Tensor | None

    def _begin(self, config: BayesianConfig) -> None:
        self.prior = config.prior / math.sqrt(self.weight[0].numel())
        start = math.log(config.initial / config.prior)
        self.log_spread = nn.Parameter(torch.full_like(self.weight, start))
        self.end()

    def end(self) -> None:
        """Lets the layer use its means again."""
        self.random, self._ratios = None, None

    def spread(self) -> Tensor:
        """Returns the standard deviations of the weights."""
        return self.prior * self.log_spread.exp()

    def ratios(self) -> Tensor:
        """Returns the variances of the weights over the prior's; kept while a loss is computed."""
        if self.random is None:
            return torch.exp(2 * self.log_spread)
        if self._ratios is None:
            self._ratios = torch.exp(2 * self.log_spread)
        return self._ratios

    def divergence(self) -> Tensor:
        """Returns the Kullback-Leibler divergence from the prior, a number."""
        weight = self.weight.flatten()
        squares = self.ratios().sum() + weight.dot(weight) / self.prior**2 - len(weight)
        return 0.5 * squares - self.log_spread.sum()

    @torch.no_grad()
    def take(self, normal: Callable[[int], Tensor]) -> None:
        """Replaces the means by drawn weights; `normal` gives so many normals."""
        noise = normal(self.weight.numel()).view(self.weight.shape)
        self.weight.add_(self.spread() * noise)


class BayesianLinear(nn.Linear, _Gaussian):
    """A dense layer of Gaussian weights that starts from a plain one.

    Args:
        layer: the plain layer, whose weights become the means.
        config: widths.
    """

    def __init__(self, layer: nn.Linear, config: BayesianConfig) -> None:
        super().__init__(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        self._begin(config)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, *, inputs) to (B, *, outputs)."""
        mean = super().forward(x)
        if self.random is None:
            return mean
        if x.ndim == 2:
            variance = F.linear(x.square(), self.ratios())
            spread = self.prior * (variance + TINY).sqrt()
            return torch.addcmul(mean, spread, _for_rows(self.random, mean))
        signs = [_signs(self.random, tensor, -1) for tensor in (x, mean)]
        drawn = self.spread() * self.random.shared(*self.weight.shape)
        return mean + F.linear(x * signs[0], drawn) * signs[1]


class BayesianConv2d(nn.Conv2d, _Gaussian):
    """A convolution of Gaussian weights that starts from a plain one.

    Args:
        layer: the plain layer, whose weights become the means.
        config: widths.
    """

    def __init__(self, layer: nn.Conv2d, config: BayesianConfig) -> None:
        super().__init__(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,  # type: ignore[arg-type]
            layer.stride,  # type: ignore[arg-type]
            layer.padding,  # type: ignore[arg-type]
            layer.dilation,  # type: ignore[arg-type]
            layer.groups,
            layer.bias is not None,
            device="meta",
        )
        self.weight, self.bias = layer.weight, layer.bias
        self._begin(config)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C', H', W')."""
        mean = super().forward(x)
        if self.random is None:
            return mean
        signs = [_signs(self.random, tensor, 1) for tensor in (x, mean)]
        drawn = self.spread() * self.random.shared(*self.weight.shape)
        change: Tensor = self._conv_forward(x * signs[0], drawn, None) * signs[1]
        return mean + change


class LaplaceLinear(nn.Linear):
    """A last layer whose posterior is fitted after the training; see the module's docstring.

    Attributes:
        prior: standard deviation of a weight a priori.
        root: R of the covariance R R^T of a row of weights and its bias, (inputs + 1, inputs + 1); 0 until fitted.
        seen: where inputs are kept while the posterior is fitted.
    """

    def __init__(self, layer: nn.Linear, config: BayesianConfig) -> None:
        super().__init__(layer.in_features, layer.out_features, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        self.prior = config.prior / math.sqrt(layer.in_features)
        self.seen: list[Tensor] | None = None
        self.root: Tensor
        self.register_buffer("root", torch.zeros(2 * (layer.in_features + 1,)))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, inputs) to (B, outputs)."""
        if self.seen is not None:
            self.seen.append(x.detach())
        outputs: Tensor = super().forward(x)
        return outputs

    @torch.no_grad()
    def fit(self, gram: Tensor, variance: float) -> None:
        """Fits the posterior to A, (inputs + 1, inputs + 1) float64, and the variance of the residuals."""
        ridge = max(variance, TINY) / self.prior**2
        precision = (gram + ridge * torch.eye(len(gram), dtype=gram.dtype)) / max(variance, TINY)
        # Sigma = L^-T L^-1 of precision = L L^T
        inverse = torch.linalg.solve_triangular(
            torch.linalg.cholesky(precision), torch.eye(len(gram), dtype=gram.dtype), upper=False
        )
        self.root.copy_(inverse.T)

    @torch.no_grad()
    def take(self, normal: Callable[[int], Tensor]) -> None:
        """Replaces the weights by drawn ones; `normal` gives so many normals."""
        noise = normal(self.out_features * len(self.root)).view(self.out_features, -1)
        change = noise.double() @ self.root.double().T
        self.weight.add_(change[:, :-1].to(self.weight.dtype))
        self.bias.add_(change[:, -1].to(self.bias.dtype))


def _for_rows(random: BatchRandom, like: Tensor) -> Tensor:
    """Draws normals of the shape of a tensor whose first axis is a multiple of the batch's rows."""
    return random.normal(like.numel() // random.rows).view(like.shape).to(like.dtype)


def _signs(random: BatchRandom, like: Tensor, axis: int) -> Tensor:
    """Draws +-1 for each row of a tensor and each place along an axis; they are the same along all others."""
    shape = [1] * like.ndim
    shape[0], shape[axis] = like.shape[0], like.shape[axis]
    uniform = random.uniform(shape[0] * shape[axis] // random.rows).view(shape)
    return torch.where(uniform < 0.5, -1.0, 1.0).to(like.dtype)


def make_bayesian(module: nn.Module, config: BayesianConfig | None, leave: tuple[str, ...] = ()) -> None:
    """Replaces dense layers and convolutions within a module by Bayesian ones; without a configuration nothing.

    Args:
        module: changed in place; names of arrays stay.
        config: of `mean_field`, or None.
        leave: names of layers that stay as they are, since others read their weights.

    Raises:
        ValueError: another method: the loss of this network is no mean square of one last layer.
    """
    if config is None:
        return
    if config.method != "mean_field":
        raise ValueError(
            f"bayesian.method = {config.method!r} is for channel sums: wanted 'mean_field' for this network"
        )
    for name, child in list(module.named_children()):
        if name in leave:
            continue
        if isinstance(child, nn.Linear):
            setattr(module, name, BayesianLinear(child, config))
        elif isinstance(child, nn.Conv2d):
            setattr(module, name, BayesianConv2d(child, config))
        else:
            make_bayesian(child, config, leave)


def make_sums_bayesian(network: nn.Module, config: BayesianConfig | None) -> None:
    """Makes a network with a dense layer `last` Bayesian by either method; without a configuration nothing."""
    if config is None or config.method == "mean_field":
        make_bayesian(network, config)
        return
    last = network.last
    assert isinstance(last, nn.Linear)
    network.last = LaplaceLinear(last, config)


def _gaussians(module: nn.Module) -> Iterator[_Gaussian]:
    return (layer for layer in module.modules() if isinstance(layer, _Gaussian))


def divergence(module: nn.Module) -> Tensor:
    """Returns the Kullback-Leibler divergence of all Gaussian weights from their priors, a number."""
    return torch.stack([layer.divergence() for layer in _gaussians(module)]).sum()


@contextmanager
def drawing(module: nn.Module, random: BatchRandom) -> Iterator[None]:
    """Lets a module's Gaussian layers draw from these random numbers."""
    for layer in _gaussians(module):
        layer.random = random
    try:
        yield
    finally:
        for layer in _gaussians(module):
            layer.end()


def variational(loss: Loss[Network], config: BayesianConfig | None, events: int) -> Loss[Network]:
    """Returns a loss with drawn weights and the divergence over the number of training events.

    A loss without Gaussian weights is returned as it is.
    """
    if config is None or config.method != "mean_field":
        return loss

    def free_energy(network: Network, batch: Any, rng: BatchRandom) -> Tensor:
        with drawing(network, rng):
            each = loss(network, batch, rng)
            return each + config.weight / events * divergence(network)

    return free_energy


class LaplaceStage:
    """Fits the posterior of a trained network's last layer in one pass through the training events.

    Args:
        network: with a `LaplaceLinear` called `last`.
        loss: its mean squared loss, of each event, (B,).
        scores: for the log.
        events: number of training events.
        batch_size: events a step.
    """

    def __init__(
        self, network: nn.Module, loss: Loss[Any], scores: Scores, events: int, batch_size: int
    ) -> None:
        self.name, self.epochs, self.batch_size, self.best_by = "laplace", 1, batch_size, "score"
        self._network, self._loss, self._scores, self._events = network, loss, scores, events
        last = network.last
        assert isinstance(last, LaplaceLinear)
        self._last = last
        self._gram, self._sum, self._rows = torch.zeros(last.root.shape, dtype=torch.float64), 0.0, 0

    def modules(self) -> Mapping[str, nn.Module]:
        """The network."""
        return {"network": self._network}

    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """None."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """The matrix and the residuals so far."""
        return {"gram": self._gram, "sum": self._sum, "rows": self._rows}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave."""
        self._gram, self._sum, self._rows = state["gram"], state["sum"], state["rows"]

    def batches(self, source: EventSource, rng: np.random.Generator) -> Iterator[Events]:
        """Shuffled batches."""
        return shuffled_batches(source, self.batch_size, rng)

    def step(
        self, batch: Events, rng: BatchRandom, backward: Callable[[Tensor], None]
    ) -> Mapping[str, float]:
        """Adds a batch and fits the posterior to those so far, as if they were all."""
        self._last.seen = []
        with torch.no_grad():
            loss = self._loss(self._network, batch, rng)
            inputs = torch.cat(self._last.seen).double().cpu()
        self._last.seen = None
        inputs = torch.cat([inputs, torch.ones_like(inputs[:, :1])], 1)
        self._gram += inputs.T @ inputs
        self._sum, self._rows = self._sum + float(loss.double().sum()), self._rows + len(loss)
        self._last.fit(self._gram * (self._events / self._rows), self._sum / self._rows)
        return {"loss": float(loss.mean())}

    def validate(self, source: EventSource) -> Mapping[str, float]:
        """The scores, of the means."""
        return with_score(self._scores(source))


def sums_stages(
    name: str,
    network: Network,
    loss: Loss[Network],
    scores: Scores,
    config: TrainingSection,
    bayesian: BayesianConfig | None,
    events: int,
    average: float,
) -> list[Stage]:
    """Returns the stages of a network of channel sums: its own, and that of `last_layer` where it is wanted.

    Args:
        name: for logs.
        network: what is trained.
        loss: its mean squared loss.
        scores: what chooses the best weights.
        config: rates and schedule, epochs, batch size.
        bayesian: what is Gaussian.
        events: number of training events.
        average: decay of the moving average of the weights.
    """
    each = variational(loss, bayesian, events)
    stages: list[Stage] = [LossStage(name, network, each, scores, config, events, average=average)]
    if bayesian is not None and bayesian.method == "last_layer":
        stages.append(LaplaceStage(network, loss, scores, events, config.batch_size))
    return stages


def has_replicas(model: nn.Module) -> bool:
    """Tells whether a model has Gaussian weights."""
    return any(isinstance(layer, _Gaussian | LaplaceLinear) for layer in model.modules())


def take_replica(model: nn.Module, seed: int, replica: int) -> None:
    """Gives every Gaussian layer of a model the weights of a replica.

    Args:
        model: with the means; changed in place.
        seed: 0 to 2^64 - 1.
        replica: 1, 2, ...; 0 keeps the means.

    Raises:
        ValueError: a negative number, or a model without Gaussian weights.
    """
    if replica < 0:
        raise ValueError(f"replica must be 0 or more, got {replica}")
    if not has_replicas(model):
        raise ValueError(
            f"replica {replica} was asked for, but the model has none: it is neither Bayesian (a section bayesian in "
            "its recipe) nor a committee (train --members)"
        )
    if replica == 0:
        return
    for name, layer in model.named_modules():
        if isinstance(layer, _Gaussian | LaplaceLinear):
            stream = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "little")

            def normal(size: int, stream: int = stream) -> Tensor:
                return torch.from_numpy(standard_normals(seed, [replica], size, stream)[0])

            layer.take(normal)
