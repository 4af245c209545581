"""What a generator and a stage of its training must give.

A generator is a deterministic function of conditions and noise. Physical units in, physical units out: the
normalization lives inside. No network draws random numbers of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel
from torch import Tensor, nn

from caloforge.detectors import Detector, Feature
from caloforge.events import Events, EventSource, in_slices
from caloforge.metrics.channels import mean_wasserstein
from caloforge.runtime.generate import Forward, generate_rows


class BatchRandom:
    """Draws the random numbers of one training step, row by row the same on any number of processes.

    Every process draws for the whole batch and keeps its own rows; the batch's seed is derived from the run's
    seed and the step, so that a resumed run draws the same numbers.

    Args:
        seed: seed of this step.
        rows: this process's rows of the batch.
        total: rows of the whole batch.
        device: where the numbers are wanted.
    """

    def __init__(self, seed: int, rows: slice, total: int, device: torch.device | str = "cpu") -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._rows, self._total, self._device = rows, total, device

    def normal(self, *shape: int) -> Tensor:
        """Draws standard normals, (rows, *shape)."""
        return torch.randn(self._total, *shape, generator=self._generator)[self._rows].to(self._device)

    def uniform(self, *shape: int) -> Tensor:
        """Draws uniforms in [0, 1), (rows, *shape)."""
        return torch.rand(self._total, *shape, generator=self._generator)[self._rows].to(self._device)


class Stage(Protocol):
    """One phase of a training: owns its modules, its optimizers and its step.

    Attributes:
        name: short name for logs and checkpoints.
        epochs: passes through the training events.
        batch_size: events a step, over all processes.
        best_by: the entry of `validate` that chooses the best weights, lower is better.
    """

    name: str
    epochs: int
    batch_size: int
    best_by: str

    def modules(self) -> Mapping[str, nn.Module]:
        """Modules this stage trains."""

    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """Optimizers of this stage."""

    def state_dict(self) -> dict[str, Any]:
        """Everything besides the generator's weights that a resumed run needs."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave."""

    def batches(self, source: EventSource, rng: np.random.Generator) -> Iterator[Events]:
        """Yields one epoch's batches of `batch_size` events."""

    def step(
        self, batch: Events, rng: BatchRandom, backward: Callable[[Tensor], None]
    ) -> Mapping[str, float]:
        """Makes one update and returns what to log; `loss` is shown."""

    def validate(self, source: EventSource) -> Mapping[str, float]:
        """Scores the generator's current weights on events it was not trained on."""


class Generator(nn.Module, ABC):
    """Turns conditions and noise into responses.

    Attributes:
        detector: the detector it imitates.
        noise_dim: standard normals an event, D.
        config_class: the model's configuration; the constructor takes a detector and one of these.
        sampling: keys and sections of the configuration that may be changed after the training.
        made_with: what `stages` used besides events, such as the network of a perceptual loss, for the card.
        training_only: modules that generation does without, by name; weights that ship may lack them.
    """

    detector: Detector
    noise_dim: int
    config_class: ClassVar[type[BaseModel]]
    sampling: ClassVar[tuple[str, ...]] = ()
    made_with: Mapping[str, Any] = {}
    training_only: ClassVar[tuple[str, ...]] = ()

    @property
    def conditions(self) -> tuple[Feature, ...]:
        """The features that `forward` expects, in order: the detector's."""
        return self.detector.conditions

    @abstractmethod
    def forward(self, conditions: Tensor, noise: Tensor) -> Tensor:
        """Generates responses.

        Args:
            conditions: physical units, (B, F).
            noise: standard normals, (B, D).

        Returns:
            responses in the detector's unit, (B, *shape), float32.
        """

    @abstractmethod
    def stages(self, train: EventSource) -> Sequence[Stage]:
        """Fits the normalization to the training events and returns the stages of the training, in order."""


@runtime_checkable
class DrawsTokens(Protocol):
    """A generator that draws an event token by token, each after those before.

    Its `forward` is `respond(tokens(conditions, noise[:, :-1]), noise[:, -1])`. It is exported as three graphs, and the
    loop is the runtime's (`runtime.tokens`); `nothing_seen` tells the shapes of what the loop keeps.
    """

    def given(self, conditions: Tensor) -> Tensor:
        """Returns the tokens of the particle, (B, G), of conditions (B, F)."""

    def next_token(
        self,
        tokens: Tensor,
        place: Tensor,
        noise: Tensor,
        past: Sequence[tuple[Tensor, Tensor]],
        seen: Tensor | None,
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Draws the token of the image after one place, (B,).

        Args:
            tokens: the token at the place, (B,), first those of the particle.
            place: its number, (B,).
            noise: one normal an event, (B,).
            past: keys and values of each block, (B, heads, size, T) and (B, heads, T, size).
            seen: which of them there are, (B, T); None: all.

        Returns:
            the token, and key and value of this place, (B, heads, size, 1) and (B, heads, 1, size).
        """

    def nothing_seen(self, events: int) -> list[tuple[Tensor, Tensor]]:
        """Returns room for keys and values of all places, zeros, for so many events."""

    def tokens(self, conditions: Tensor, noise: Tensor) -> Tensor:
        """Draws the tokens of the image, (B, L), from conditions (B, F) and noise (B, L or more)."""

    def respond(self, tokens: Tensor, noise: Tensor) -> Tensor:
        """Turns tokens of the image, (B, L), and one normal an event, (B,), into responses, (B, *shape)."""


class Readout(nn.Module, ABC):
    """Turns conditions and noise into channel sums, without an image.

    Attributes:
        detector: the detector it imitates.
        channels: name of the channel map it predicts.
        noise_dim: standard normals an event, D.
        config_class: the model's configuration; the constructor takes a detector and one of these.
        sampling: keys and sections of the configuration that may be changed after the training.
    """

    detector: Detector
    channels: str
    noise_dim: int
    config_class: ClassVar[type[BaseModel]]
    sampling: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def forward(self, conditions: Tensor, noise: Tensor) -> Tensor:
        """Predicts channel sums in the detector's unit, (B, K), from conditions (B, F) and noise (B, D)."""

    @abstractmethod
    def stages(self, train: EventSource) -> Sequence[Stage]:
        """Fits what is fitted at once and returns the stages of the training, in order (often none)."""


class Classifier(nn.Module, ABC):
    """Gives the probabilities that a primary leaves a response, without an event.

    Attributes:
        detector: whose features the primaries are described by.
        outcomes: names of the probabilities, K.
        config_class: the model's configuration; the constructor takes a detector and one of these.
        sampling: keys and sections of the configuration that may be changed after the training.
    """

    detector: Detector
    outcomes: ClassVar[tuple[str, ...]]
    config_class: ClassVar[type[BaseModel]]
    sampling: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def forward(self, conditions: Tensor) -> Tensor:
        """Returns probabilities, (B, K) float32, from conditions in physical units, (B, F)."""

    @abstractmethod
    def stages(self, train: EventSource) -> Sequence[Stage]:
        """Fits the normalization to training primaries, a `Trials`, and returns the stages of the training."""


Model = Generator | Readout | Classifier


def _device(model: Generator | Readout) -> torch.device | str:
    return next((tensor.device for tensor in (*model.parameters(), *model.buffers())), "cpu")


def as_function(model: Generator | Readout) -> Forward:
    """Returns the model as a function of arrays: conditions (B, F) and noise (B, D) to float32 (B, *)."""
    device = _device(model)

    @torch.no_grad()
    def forward(conditions: NDArray[np.float32], noise: NDArray[np.float32]) -> NDArray[np.float32]:
        output = model(torch.from_numpy(conditions).to(device), torch.from_numpy(noise).to(device))
        return np.asarray(output.float().cpu().numpy())

    return forward


@runtime_checkable
class TakesPhotons(Protocol):
    """A generator that can be given the sum of each response instead of drawing it."""

    def with_photons(self, conditions: Tensor, photons: Tensor, noise: Tensor) -> Tensor:
        """Generates responses, (B, *shape), from conditions (B, F), sums (B,) and noise (B, D)."""


def given_photons(model: Generator | Readout) -> Forward:
    """Returns a model that takes photon sums as a function: conditions and the sum, (B, F + 1), and noise (B, D)."""
    assert isinstance(model, TakesPhotons)
    device = _device(model)

    @torch.no_grad()
    def forward(conditions: NDArray[np.float32], noise: NDArray[np.float32]) -> NDArray[np.float32]:
        given = torch.from_numpy(conditions).to(device)
        output = model.with_photons(given[:, :-1], given[:, -1], torch.from_numpy(noise).to(device))
        return np.asarray(output.float().cpu().numpy())

    return forward


@torch.no_grad()
def probabilities_in_memory(
    model: Classifier, conditions: NDArray[np.float32], batch_size: int = 8192
) -> NDArray[np.float32]:
    """Returns the probabilities of a classifier for each row of conditions, (N, K)."""
    device = next(model.parameters()).device
    parts = [
        model(torch.from_numpy(conditions[start : start + batch_size]).to(device)).float().cpu().numpy()
        for start in range(0, len(conditions), batch_size)
    ]
    return np.concatenate(parts) if parts else np.empty((0, len(model.outcomes)), np.float32)


def generate_in_memory(
    model: Generator | Readout, conditions: NDArray[np.float32], seed: int, batch_size: int = 256
) -> NDArray[np.float32]:
    """Generates one response for each row of conditions, with the noise of events 0, 1, ...

    Args:
        model: a generator or a readout.
        conditions: physical units, (N, F).
        seed: 0 to 2^64 - 1.
        batch_size: events at once.

    Returns:
        responses (N, *shape) or channel sums (N, K).
    """
    training = model.training
    model.eval()
    try:
        return generate_rows(as_function(model), model.noise_dim, conditions, seed, batch_size=batch_size)
    finally:
        model.train(training)


def cell_order(detector: Detector, channels: str) -> NDArray[np.intp]:
    """Returns the cells channel by channel, shuffled within each by a fixed permutation, (cells,).

    The order in which counts are rounded: see `nn.rounding`.
    """
    channel = detector.channel_map(channels).matrix.argmax(0)
    shuffled = np.random.Generator(np.random.Philox(0)).permutation(detector.cells)
    return shuffled[np.argsort(channel[shuffled], kind="stable")].astype(np.intp)


def mirrored(
    detector: Detector,
    conditions: NDArray[np.float32],
    responses: NDArray[np.generic],
    rows: NDArray[np.bool_],
) -> tuple[NDArray[np.float32], NDArray[np.generic]]:
    """Mirrors some events, y -> -y.

    Args:
        detector: a detector with an axis y and the features vy, py.
        conditions: (N, F).
        responses: (N, *shape).
        rows: the events to mirror, (N,).

    Returns:
        conditions and responses, as new arrays.
    """
    columns = np.array([detector.features.index(name) for name in ("vy", "py")])
    conditions, responses = conditions.copy(), responses.copy()
    conditions[np.ix_(rows, columns)] *= -1
    responses[rows] = np.flip(responses[rows], 1 + list(detector.axes).index("y"))
    return conditions, responses


def channel_sums(source: EventSource, channels: str) -> NDArray[np.float64]:
    """Reads the channel sums of a source slice by slice, (N, K)."""
    detector = source.primaries.detector
    return np.concatenate([detector.readout(events.responses, channels) for events in in_slices(source)])


def channel_matrix(detector: Detector) -> Tensor:
    """Returns the matrix of the default channels, (K, cells), of zeros and ones."""
    return torch.tensor(detector.channel_map(detector.default_channels).matrix)


def channel_loss(found: Tensor, wanted: Tensor, readout: Tensor) -> Tensor:
    """Returns how far the channel sums of images are apart, (B,): the mean over channels of (sqrt w - sqrt w^)^2.

    The root gives a channel of many photons the weight of one of few, as their Poisson errors would.

    Args:
        found: ln(1 + n) of one set of images, (B, H, W).
        wanted: the same of the other.
        readout: matrix of the channels, (K, cells).
    """
    sums = [torch.expm1(image.clamp(max=12)).flatten(1) @ readout.T for image in (found, wanted)]
    # the root's derivative has no bound at 0, and the sum of an image below 0 may be negative
    roots = [(one.clamp(min=0) + 0.1).sqrt() for one in sums]
    return (roots[0] - roots[1]).square().mean(1)


def spread_rows(source: EventSource, rows: int) -> Events:
    """Returns at most so many events of a source, evenly spread over it."""
    chosen = np.linspace(0, len(source) - 1, min(rows, len(source)))
    return source.slices(chosen.astype(np.intp))


def generation_scores(model: Generator, events: int) -> Callable[[EventSource], Mapping[str, float]]:
    """Returns the scores of a generator: those of at most so many generated events of a source, `channel_scores`."""

    def scores(source: EventSource) -> Mapping[str, float]:
        reference = spread_rows(source, events)
        return channel_scores(reference, generate_in_memory(model, reference.conditions, seed=0))

    return scores


def channel_scores(reference: Events, generated: NDArray[np.float32]) -> Mapping[str, float]:
    """Compares responses with generated ones, (N, *shape): Wasserstein-1 of the channels, mean photon sum."""
    readout = reference.detector.readout
    sums = readout(reference.responses), readout(generated)
    return {"w1": mean_wasserstein(*sums), "photons": float(sums[1].sum(1).mean())}


def image_shape(detector: Detector, model: str) -> tuple[int, int]:
    """Returns height and width of a detector's images; a ValueError names the model that needs two axes."""
    if len(detector.shape) != 2:
        raise ValueError(f"{model} needs a detector with two axes, {detector.name} has {len(detector.shape)}")
    height, width = detector.shape
    return height, width
