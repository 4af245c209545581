"""Stages that several models share: one loss, the moving average of the weights, bespoke solvers, average velocities.

`LossStage` is enough for one network and one loss. It trains a network that the model hands over and owns the moving
average of its weights: the loss is given the network in training, and what generates stays the model's own.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from caloforge.events import Events, EventSource, Selected
from caloforge.models.base import BatchRandom
from caloforge.nn.fewer_blocks import start_from
from caloforge.ode.average_velocity import Average, AverageVelocityConfig, average_loss
from caloforge.ode.bespoke import BespokeConfig, BespokeSolver, frozen
from caloforge.ode.path import Velocity
from caloforge.optim import Adam, AdamConfig, update_average

Network = TypeVar("Network", bound=nn.Module)

Scores = Callable[[EventSource], Mapping[str, float]]
"""Scores of the current weights on held-out events, lower is better; the first entry chooses the best."""

Batches = Callable[[EventSource, int, np.random.Generator], Iterator[Any]]
"""Source, events a batch and random numbers -> the batches of one epoch: events, or what a stage made of them.

A batch has a length and gives its rows by `slices`.
"""

BUFFER_CELLS = 2**28
"""Cells that are shuffled at once at most."""


class TrainingSection(Protocol):
    """The part of a configuration that says how one stage trains.

    Attributes:
        optimizer: rates and schedule.
        epochs: passes through the training events.
        batch_size: events a step, over all processes.
    """

    @property
    def optimizer(self) -> AdamConfig:
        """Rates and schedule."""

    @property
    def epochs(self) -> int:
        """Passes through the training events."""

    @property
    def batch_size(self) -> int:
        """Events a step."""


def shuffled_batches(
    source: EventSource, batch_size: int, rng: np.random.Generator, buffer: int = 65_536
) -> Iterator[Events]:
    """Yields one epoch in random order; the last, incomplete batch is dropped unless it is the only one.

    A source larger than `buffer` is read in blocks of neighbouring rows, blocks in random order, and shuffled
    within the buffer, so that a compressed file is not read once for every row. Large responses come in smaller
    buffers.
    """
    block = 512
    buffer = min(buffer, max(BUFFER_CELLS // source.primaries.detector.cells, block) // block * block)
    starts = rng.permutation(-(-len(source) // block)) * block
    pending = np.empty(0, np.intp)
    for first in range(0, len(starts), buffer // block):
        chosen = np.sort(starts[first : first + buffer // block])
        rows = np.concatenate([np.arange(start, min(start + block, len(source))) for start in chosen])
        events = source.slices(np.concatenate([pending, rows]))
        order = rng.permutation(len(events))
        last = first + buffer // block >= len(starts)
        full = max(len(order) // batch_size, 1 if last and first == 0 else 0) * batch_size
        for start in range(0, full, batch_size):
            yield events.slices(order[start : start + batch_size])
        pending = np.concatenate([pending, rows])[order[full:]]


def updates(config: TrainingSection, events: int) -> int:
    """Returns the number of updates of a training with so many events, for the schedules."""
    return config.epochs * max(events // config.batch_size, 1)


def with_score(scores: Mapping[str, float]) -> Mapping[str, float]:
    """Returns scores with the first of them again as `score`, which chooses the best weights."""
    return {"score": next(iter(scores.values()))} | dict(scores)


class Averaged(Generic[Network]):
    """A network in training and the moving average of its weights; one and the same where there is no average.

    Args:
        network: what generates: the average.
        decay: of the average; 0 keeps none.

    Attributes:
        network: as given.
        trained: what an optimizer changes.
        updates: how many there were.
    """

    def __init__(self, network: Network, decay: float) -> None:
        self.network, self.updates, self._decay = network, 0, decay
        self.trained = copy.deepcopy(network) if decay else network

    def modules(self) -> dict[str, nn.Module]:
        """Both, by the names that checkpoints have for them."""
        average = {"average": self.network} if self._decay else {}
        return {"module": self.trained, **average}

    def start(self) -> None:
        """Starts from the weights that the stages before have left."""
        if self._decay:
            self.trained.load_state_dict(self.network.state_dict())

    def follow(self) -> None:
        """Moves the average after an update."""
        self.updates += 1
        if self._decay:
            update_average(self.network, self.trained, self._decay, self.updates)


class LossStage(Generic[Network]):
    """A stage that lowers one loss of one network with Adam.

    Args:
        name: for logs.
        network: the model's network that is trained.
        loss: network in training, batch and random numbers -> the loss of each event of the batch, (B,).
        scores: what chooses the best weights.
        config: rates and schedule, epochs, batch size.
        events: number of training events, for the schedule.
        average: decay of the moving average of the weights, which is what generates; 0 keeps none.
        prepare: called with the training events before the first epoch, for what depends on the stages before.
        batches: yields an epoch's batches, for a loss that needs less than whole events, or what was made of them.
        beside: modules that the loss needs and nothing trains, for checkpoints: a teacher.
    """

    def __init__(
        self,
        name: str,
        network: Network,
        loss: Callable[[Network, Any, BatchRandom], Tensor],
        scores: Scores,
        config: TrainingSection,
        events: int,
        *,
        average: float = 0.0,
        prepare: Callable[[EventSource], None] | None = None,
        batches: Batches = shuffled_batches,
        beside: Mapping[str, nn.Module] = MappingProxyType({}),
    ) -> None:
        self.name, self.epochs, self.batch_size, self.best_by = (
            name,
            config.epochs,
            config.batch_size,
            "score",
        )
        self._loss, self._scores, self._prepare, self._batches = loss, scores, prepare, batches
        self._averaged, self._beside = Averaged(network, average), beside
        self._adam = Adam(self._averaged.trained, config.optimizer, updates(config, events))

    def modules(self) -> Mapping[str, nn.Module]:
        """The network in training, its average, and those beside it."""
        return {**self._averaged.modules(), **self._beside}

    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """The one optimizer."""
        return {"optimizer": self._adam.optimizer}

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimizer, schedule and number of updates."""
        return {
            "modules": {name: module.state_dict() for name, module in self.modules().items()},
            "optimizer": self._adam.optimizer.state_dict(),
            "schedule": self._adam.schedule.state_dict(),
            "updates": self._averaged.updates,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave."""
        for name, module in self.modules().items():
            module.load_state_dict(state["modules"][name])
        self._adam.optimizer.load_state_dict(state["optimizer"])
        self._adam.schedule.load_state_dict(state["schedule"])
        self._averaged.updates = state["updates"]

    def batches(self, source: EventSource, rng: np.random.Generator) -> Iterator[Any]:
        """Shuffled batches, of the events themselves unless another function was given."""
        if self._averaged.updates == 0:
            if self._prepare is not None:
                self._prepare(source)
            self._averaged.start()
        return self._batches(source, self.batch_size, rng)

    def loss(self, batch: Any, rng: BatchRandom) -> Tensor:
        """Returns the loss of each event of a batch, (B,), by the network in training."""
        return self._loss(self._averaged.trained, batch, rng)

    def step(self, batch: Any, rng: BatchRandom, backward: Callable[[Tensor], None]) -> Mapping[str, float]:
        """One update of the weights and their average."""
        loss = self.loss(batch, rng).mean()
        self._adam.step(loss, backward)
        self._averaged.follow()
        return {"loss": float(loss.detach())}

    def validate(self, source: EventSource) -> Mapping[str, float]:
        """The scores, with the first again as `score`."""
        return with_score(self._scores(source))


def solver_stage(
    name: str,
    solver: BespokeSolver,
    network: nn.Module,
    problem: Callable[[Events, BatchRandom], tuple[Velocity, Tensor]],
    scores: Scores,
    config: BespokeConfig,
    events: int,
) -> LossStage[BespokeSolver]:
    """Returns the stage that fits a bespoke solver to a trained network.

    Args:
        name: for logs.
        solver: what is trained.
        network: what the velocity is made of; stays as it is.
        problem: velocity and starting points of a batch. The velocity is asked at any multiple of the batch, its
            events repeated in order.
        scores: what chooses the best weights.
        config: loss, reference and training.
        events: number of training events.
    """
    some = min(config.events or events, events)

    def loss(solver: BespokeSolver, batch: Events, rng: BatchRandom) -> Tensor:
        with frozen(network):
            return solver.loss(*problem(batch, rng), config)

    def batches(source: EventSource, batch_size: int, rng: np.random.Generator) -> Iterator[Events]:
        rows = np.linspace(0, len(source) - 1, min(some, len(source))).astype(np.intp)
        return shuffled_batches(Selected(source, rows) if config.events else source, batch_size, rng)

    return LossStage(name, solver, loss, scores, config, some, batches=batches)


@contextmanager
def aside(model: nn.Module, name: str) -> Iterator[None]:
    """Leaves a module out of a model for a while, which then does as if it had none; nothing where it has none."""
    module = getattr(model, name)
    setattr(model, name, None)
    try:
        yield
    finally:
        setattr(model, name, module)


def scores_without(model: nn.Module, name: str, scores: Scores) -> Scores:
    """Returns scores of a model that leaves a module `aside`, for stages before the one that trains it."""

    def scored(source: EventSource) -> Mapping[str, float]:
        with aside(model, name):
            return scores(source)

    return scored


def average_stage(
    name: str,
    student: Network,
    teacher: nn.Module,
    problem: Callable[[Network, Events, BatchRandom], tuple[Average, Velocity, Tensor]],
    scores: Scores,
    config: AverageVelocityConfig,
    events: int,
    *,
    end: float = 1.0,
    shares: bool = False,
    batches: Batches = shuffled_batches,
) -> LossStage[Network]:
    """Returns the stage in which a student learns the average velocities of a trained network.

    Args:
        name: for logs.
        student: what is trained; starts from the teacher's weights, where it has the same, and may have fewer blocks.
        teacher: what the velocity is made of; stays as it is.
        problem: student in training, batch and random numbers -> average velocities, velocity and starting points.
            Both are asked at any multiple of the batch, its events repeated in order.
        scores: what chooses the best weights.
        config: steps, target and training.
        events: number of training events.
        end: the last time.
        shares: as in `ode.solvers.step_times`.
        batches: as for a `LossStage`.
    """

    def prepare(_: EventSource) -> None:
        start_from(student, teacher)

    def loss(student: Network, batch: Events, rng: BatchRandom) -> Tensor:
        with frozen(teacher):
            average, velocity, x0 = problem(student, batch, rng)
            return average_loss(average, velocity, x0, rng.uniform(3), config, end, shares=shares)

    return LossStage(
        name,
        student,
        loss,
        scores,
        config,
        events,
        average=config.average,
        prepare=prepare,
        batches=batches,
    )
