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
from caloforge.events import Events, EventSource


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

    @property
    def rows(self) -> int:
        """How many rows of the batch are this process's."""
        return len(range(*self._rows.indices(self._total)))

    def normal(self, *shape: int) -> Tensor:
        """Draws standard normals, (rows, *shape)."""
        return torch.randn(self._total, *shape, generator=self._generator)[self._rows].to(self._device)

    def uniform(self, *shape: int) -> Tensor:
        """Draws uniforms in [0, 1), (rows, *shape)."""
        return torch.rand(self._total, *shape, generator=self._generator)[self._rows].to(self._device)

    def shared(self, *shape: int) -> Tensor:
        """Draws standard normals that are the same for all rows and processes, (*shape)."""
        return torch.randn(*shape, generator=self._generator).to(self._device)


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
        no_graph: why it cannot be exported, to follow the name of its run; empty where it can.
    """

    detector: Detector
    noise_dim: int
    config_class: ClassVar[type[BaseModel]]
    sampling: ClassVar[tuple[str, ...]] = ()
    made_with: Mapping[str, Any] = {}
    training_only: tuple[str, ...] = ()
    no_graph: ClassVar[str] = ""

    @property
    def conditions(self) -> tuple[Feature, ...]:
        """The features that `forward` expects, in order: the detector's."""
        return self.detector.conditions

    @property
    def idle(self) -> Mapping[str, str]:
        """Keys of `sampling` that change nothing as this model was trained, and why."""
        return {}

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

    Its `forward` is `respond(tokens(conditions, noise), noise[:, -1])`. It is exported as three graphs, and the loop is
    the runtime's (`runtime.tokens`); `nothing_seen` tells the shapes of what the loop keeps.

    A model that `tells` its network at each place more than the tokens draws the photon sum first: then there is one
    normal more, the last but one, and `respond` is given the sum as well.
    """

    @property
    def tells(self) -> bool:
        """Whether each place is told something, and the photon sum is drawn first."""

    def given(self, conditions: Tensor, noise: Tensor | None = None) -> tuple[Tensor, ...]:
        """Returns what is known before the first image token.

        Args:
            conditions: physical units, (B, F).
            noise: one normal an event, (B,), of a model that `tells`.

        Returns:
            the tokens of the particle, (B, G); and of a model that `tells` what each place is told,
            (B, G + L - 1, width), and the photon sum, (B,).
        """

    def next_token(
        self,
        tokens: Tensor,
        place: Tensor,
        noise: Tensor,
        past: Sequence[tuple[Tensor, Tensor]],
        seen: Tensor | None,
        told: Tensor | None = None,
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Draws the token of the image after one place, (B,).

        Args:
            tokens: the token at the place, (B,), first those of the particle.
            place: its number, (B,).
            noise: one normal an event, (B,).
            past: keys and values of each block, (B, heads, size, T) and (B, heads, T, size).
            seen: which of them there are, (B, T); None: all.
            told: what the place is told, (B, width); None of a model that does not.

        Returns:
            the token, and key and value of this place, (B, heads, size, 1) and (B, heads, 1, size).
        """

    def nothing_seen(self, events: int) -> list[tuple[Tensor, Tensor]]:
        """Returns room for keys and values of all places, zeros, for so many events."""

    def tokens(self, conditions: Tensor, noise: Tensor) -> Tensor:
        """Draws the tokens of the image, (B, L), from conditions (B, F) and noise (B, D)."""

    def respond(self, tokens: Tensor, noise: Tensor, photons: Tensor | None = None) -> Tensor:
        """Turns tokens of the image into responses, (B, *shape).

        Args:
            tokens: of the image, (B, L).
            noise: one normal an event, (B,).
            photons: photon sums, (B,), of a model that `tells`.
        """


@runtime_checkable
class TakesPhotons(Protocol):
    """A generator that can be given the sum of each response instead of drawing it."""

    def with_photons(self, conditions: Tensor, photons: Tensor, noise: Tensor) -> Tensor:
        """Generates responses, (B, *shape), from conditions (B, F), sums (B,) and noise (B, D)."""


@runtime_checkable
class HasLikelihood(Protocol):
    """A generator that tells how likely given responses are."""

    def log_likelihoods(self, source: EventSource) -> NDArray[np.float64]:
        """Returns the logarithm of the probability density of each response, given its particle, in nats, (N,)."""


class Readout(nn.Module, ABC):
    """Turns conditions and noise into channel sums, without an image.

    Attributes:
        detector: the detector it imitates.
        channels: name of the channel map it predicts.
        noise_dim: standard normals an event, D.
        config_class: the model's configuration; the constructor takes a detector and one of these.
        sampling: keys and sections of the configuration that may be changed after the training.
        no_graph: why it cannot be exported, to follow the name of its run; empty where it can.
    """

    detector: Detector
    channels: str
    noise_dim: int
    config_class: ClassVar[type[BaseModel]]
    sampling: ClassVar[tuple[str, ...]] = ()
    no_graph: ClassVar[str] = ""

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
