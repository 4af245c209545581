"""One stage in training: epochs, batches, validation, checkpoints, logs. It knows no loss and no model.

Every random number of a step is derived from (seed, stage, epoch, step), so a resumed training makes the very
steps that an uninterrupted one makes, and several processes make those of one.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from caloforge._lookup import require
from caloforge.events import Events, EventSource
from caloforge.io.run import Run
from caloforge.models.base import BatchRandom, Stage
from caloforge.recipe import TrainingConfig
from caloforge.training.checkpoint import load_weights, save_checkpoint, save_weights


@dataclass(frozen=True)
class Progress:
    """Where a training stands, for whoever shows it."""

    stage: str
    epoch: int
    epochs: int
    step: int
    steps: int
    values: Mapping[str, float]
    samples_per_second: float
    remaining: float


Reporter = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """Shows nothing."""


def unreported() -> Reporter:
    """Makes what shows nothing; functions of a module, unlike lambdas, reach worker processes."""
    return silent


@dataclass(frozen=True)
class Validation:
    """What one validation found.

    Attributes:
        stage: name of the stage.
        epoch: epochs of this stage that are done.
        values: what the stage's `validate` gave, `best_by` among it.
        best: whether these weights are the stage's best so far.
    """

    stage: str
    epoch: int
    values: Mapping[str, float]
    best: bool


Watcher = Callable[[Validation], None]
"""Called after each validation; what it raises ends the training; its last checkpoint stays."""


def unwatched(validation: Validation) -> None:
    """Lets the training go on."""


@dataclass
class History:
    """What a run has done so far: part of every checkpoint.

    Attributes:
        stage: number of the stage in hand.
        epoch: its epoch in hand, from 0.
        step: steps made in that epoch.
        sums: sums of the epoch's logged values.
        best: best validation score of the stage.
        best_epoch: the epoch it came from.
        seconds: time spent training.
        rows: rows of the log.
        data: hashes of the data files.
        given: numbers of stages whose weights were given; they are not trained.
    """

    data: list[str]
    stage: int = 0
    epoch: int = 0
    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    best: float = float("inf")
    best_epoch: int = -1
    seconds: float = 0.0
    rows: list[dict[str, Any]] = field(default_factory=list)
    given: list[int] = field(default_factory=list)

    def begin(self, stage: int) -> None:
        """Goes on to the first epoch of another stage."""
        self.stage, self.epoch, self.step = stage, 0, 0
        self.sums, self.best, self.best_epoch = {}, float("inf"), -1


def derived_seed(*parts: int | str) -> int:
    """Returns a 63-bit seed that depends on every part."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@dataclass
class Fitting:
    """One stage in training, from where `history` stands.

    Attributes:
        stage: what is trained.
        module: what the stage is a part of; its weights are saved when the validation improves.
        train: training events of an epoch, from 0.
        validation: events for the choice of the best weights; where there are none the last weights count.
        fabric: devices and precision.
        run: where weights, checkpoints and the log go.
        seed: of the run.
        settings: intervals of validations and checkpoints.
        history: changed in place.
        report: called after each step.
        watch: called after each validation.
    """

    stage: Stage
    module: nn.Module
    train: Callable[[int], EventSource]
    validation: EventSource
    fabric: Fabric
    run: Run
    seed: int
    settings: TrainingConfig
    history: History
    report: Reporter = silent
    watch: Watcher = unwatched
    _saved: float = field(default_factory=time.monotonic)

    def fit(self) -> None:
        """Trains to the stage's last epoch and leaves the module with the stage's best weights."""
        history, stage = self.history, self.stage
        while history.epoch < stage.epochs:
            row, scores = self._epoch(), {}
            last = history.epoch + 1 == stage.epochs
            if self.fabric.is_global_zero:
                scores = self._validate(last)
                row |= {f"validation_{key}": scores[key] for key in scores if key != stage.best_by}
                history.rows.append(row)
                self.run.write_log(history.rows)
                self._tensorboard(row)
            history.epoch, history.step, history.sums = history.epoch + 1, 0, {}
            self._checkpoint(now=last)
            if scores:
                best = history.best_epoch == history.epoch
                self.watch(Validation(stage.name, history.epoch, scores, best))
        self.fabric.barrier()
        load_weights(self.module, self.run.weights)

    def _epoch(self) -> dict[str, Any]:
        """Makes the steps of an epoch that are left and returns its row of the log."""
        history, stage = self.history, self.stage
        rng = np.random.default_rng(derived_seed(self.seed, history.stage, history.epoch))
        train = self.train(history.epoch)
        steps = max(len(train) // stage.batch_size, 1)
        started, first, before = time.monotonic(), history.step, history.seconds
        rate = 0.0
        self.module.train()
        for number, batch in enumerate(stage.batches(train, rng)):
            if number < history.step:
                continue
            values = self._step(number, batch)
            history.step = number + 1
            for key, value in values.items():
                history.sums[key] = history.sums.get(key, 0.0) + value
            seconds = time.monotonic() - started
            history.seconds = before + seconds
            rate = (history.step - first) * stage.batch_size / seconds
            left = ((stage.epochs - history.epoch) * steps - history.step) * stage.batch_size / rate
            epoch = history.epoch + 1
            self.report(Progress(stage.name, epoch, stage.epochs, history.step, steps, values, rate, left))
            self._checkpoint()
        return {
            "stage": stage.name,
            "epoch": history.epoch + 1,
            "step": (history.epoch + 1) * history.step,
            "seconds": round(history.seconds, 2),
            "samples_per_second": round(rate, 2),
            **{key: value / max(history.step, 1) for key, value in history.sums.items()},
        }

    def _step(self, number: int, batch: Events) -> dict[str, float]:
        """Makes one step, on this process's rows of the batch, and returns what to log."""
        fabric, history = self.fabric, self.history
        # equal shares, so that the mean of the gradients is the batch's
        each = len(batch) // fabric.world_size
        share = slice(fabric.global_rank * each, (fabric.global_rank + 1) * each)
        seed = derived_seed(self.seed, history.stage, history.epoch, number)
        random = BatchRandom(seed, share, len(batch), fabric.device)
        with fabric.autocast():
            values = dict(self.stage.step(batch.slices(share), random, self._backward))
        if fabric.world_size > 1:
            means = self._mean(torch.tensor(list(values.values())))
            values = dict(zip(values, means.tolist(), strict=True))
        if not np.isfinite(values["loss"]):
            raise FloatingPointError(
                f"the loss became {values['loss']} in stage {self.stage.name!r}, epoch {history.epoch + 1}, "
                f"step {number + 1}: lower the learning rate; the last checkpoint is {self.run.checkpoint}"
            )
        return values

    def _backward(self, loss: Tensor) -> None:
        self.fabric.backward(loss)
        if self.fabric.world_size > 1:
            for module in self.stage.modules().values():
                for parameter in module.parameters():
                    if parameter.grad is not None:
                        parameter.grad = self._mean(parameter.grad)

    def _mean(self, value: Tensor) -> Tensor:
        """Averages over the processes."""
        return cast(Tensor, self.fabric.all_reduce(value, reduce_op="mean"))

    def _validate(self, last: bool) -> dict[str, float]:
        """Saves the weights where they are the best so far and returns the scores, where it is time for them."""
        history = self.history
        if len(self.validation) == 0:
            save_weights(self.module, self.run.weights)
            return {}
        if not last and (history.epoch + 1) % self.settings.validate_every:
            return {}
        # plain numbers: a checkpoint holds nothing else
        scores = {key: float(value) for key, value in self.stage.validate(self.validation).items()}
        score = scores[self.stage.best_by]
        if score < history.best or history.best_epoch < 0:
            history.best, history.best_epoch = score, history.epoch + 1
            save_weights(self.module, self.run.weights)
        return scores

    def _checkpoint(self, now: bool = False) -> None:
        """Writes a checkpoint, now or where the last is old enough."""
        due = time.monotonic() - self._saved >= self.settings.checkpoint_every
        if (now or due) and self.fabric.is_global_zero:
            state = {
                "history": vars(self.history),
                "model": self.module.state_dict(),
                "stage": self.stage.state_dict(),
            }
            save_checkpoint(state, self.run.checkpoint)
            self._saved = time.monotonic()

    def _tensorboard(self, row: Mapping[str, Any]) -> None:
        if not self.settings.tensorboard:
            return
        require("tensorboard", "tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        with SummaryWriter(str(self.run.path / "tensorboard")) as writer:
            for key, value in row.items():
                if isinstance(value, float):
                    writer.add_scalar(f"{row['stage']}/{key}", value, row["step"])
