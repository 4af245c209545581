"""The training loop: epochs, batches, validation, checkpoints, logs. It knows no loss and no model.

Every random number of a step is derived from (seed, stage, epoch, step), so a resumed training makes the very
steps that an uninterrupted one makes, and several processes make those of one.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from caloforge._lookup import require
from caloforge.detectors import detector_named
from caloforge.events import (
    Displaced,
    Events,
    EventSource,
    Joined,
    Part,
    Selected,
    can_displace,
    of_particles,
    split,
)
from caloforge.io import open_events, open_trials
from caloforge.io.card import Budget, Card, DataFile, Kind
from caloforge.io.columns import layout_of_recipe
from caloforge.io.files import sha256
from caloforge.io.run import Run
from caloforge.io.stored import stored
from caloforge.models import Classifier, Generator, Model, Readout, build, resolved
from caloforge.models.base import BatchRandom, Stage
from caloforge.recipe import Recipe
from caloforge.runtime.domain import Domain
from caloforge.runtime.doubts import doubts
from caloforge.samples import TRIALS, sample, samples_of
from caloforge.training.checkpoint import load_checkpoint, load_weights, save_checkpoint, save_weights
from caloforge.training.data import card_entries, check_references, content_entries, planned
from caloforge.training.devices import check_training
from caloforge.trials import Trials, joined_trials


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


def derived_seed(*parts: int | str) -> int:
    """Returns a 63-bit seed that depends on every part."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def training_data(recipe: Recipe, *, trials: bool = False) -> dict[str, EventSource]:
    """Opens the recipe's data, by file name; the sample that ships where it names none.

    Args:
        recipe: the whole run.
        trials: the files hold trials, as a classifier needs them, and not events.

    Raises:
        ValueError: a file that cannot be read, or of another detector.
    """
    detector = detector_named(recipe.detector)
    if trials:
        paths = [Path(file) for file in recipe.data.files] or [sample(TRIALS)]
        found = {str(path): cast(EventSource, open_trials(path, detector)) for path in paths}
        return {path: of_particles(source, recipe.data.particles) for path, source in found.items()}
    paths = [Path(file) for file in recipe.data.files] or samples_of(recipe.detector)
    layout = layout_of_recipe(recipe.data)
    return {
        str(path): of_particles(open_events(path, detector, layout), recipe.data.particles) for path in paths
    }


def joined(sources: Iterable[EventSource], *, trials: bool) -> EventSource:
    """Joins sources of events, or of trials, end to end."""
    if trials:
        return cast(EventSource, joined_trials([cast(Trials, one.slices(slice(None))) for one in sources]))
    return Joined(list(sources))


def in_beam_spot(source: EventSource, recipe: Recipe, *parts: int | str) -> EventSource:
    """Returns the source with vertices displaced as the recipe says, by the recipe's seed and `parts`."""
    spot = recipe.data.beam_spot
    if not any(spot) or not can_displace(source.primaries.detector):
        return source
    return Displaced(source, spot, derived_seed(recipe.seed, "beam spot", *parts))


def domain_of(train: EventSource, recipe: Recipe) -> Domain:
    """Returns the domain of the training events, those from within the beam spot among them."""
    displaced = in_beam_spot(train, recipe, "normalization")
    return Domain.fit(train.primaries, None if displaced is train else displaced.primaries)


@dataclass
class Fitting:
    """One stage in training, from where `history` stands.

    Attributes:
        model: the model the stage belongs to; its weights are saved when the validation improves.
        stage: what is trained.
        train: training events.
        validation: events for the choice of the best weights; where there are none the last weights count.
        fabric: devices and precision.
        run: where weights, checkpoints and the log go.
        recipe: for the seed and the intervals.
        history: changed in place.
        report: called after each step.
        watch: called after each validation.
    """

    model: Model
    stage: Stage
    train: EventSource
    validation: EventSource
    fabric: Fabric
    run: Run
    recipe: Recipe
    history: History
    report: Reporter = silent
    watch: Watcher = unwatched
    _saved: float = field(default_factory=time.monotonic)

    def fit(self) -> None:
        """Trains to the stage's last epoch and leaves the model with the stage's best weights."""
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
        load_weights(self.model, self.run.weights)

    def _epoch(self) -> dict[str, Any]:
        """Makes the steps of an epoch that are left and returns its row of the log."""
        history, stage = self.history, self.stage
        rng = np.random.default_rng(derived_seed(self.recipe.seed, history.stage, history.epoch))
        steps = max(len(self.train) // stage.batch_size, 1)
        started, first, before = time.monotonic(), history.step, history.seconds
        rate = 0.0
        self.model.train()
        train = in_beam_spot(self.train, self.recipe, history.stage, history.epoch)
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
        each = (
            len(batch) // fabric.world_size
        )  # equal shares, so that the mean of the gradients is the batch's
        share = slice(fabric.global_rank * each, (fabric.global_rank + 1) * each)
        seed = derived_seed(self.recipe.seed, history.stage, history.epoch, number)
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
            save_weights(self.model, self.run.weights)
            return {}
        if not last and (history.epoch + 1) % self.recipe.training.validate_every:
            return {}
        # plain numbers: a checkpoint holds nothing else
        scores = {key: float(value) for key, value in self.stage.validate(self.validation).items()}
        score = scores[self.stage.best_by]
        if score < history.best or history.best_epoch < 0:
            history.best, history.best_epoch = score, history.epoch + 1
            save_weights(self.model, self.run.weights)
        return scores

    def _checkpoint(self, now: bool = False) -> None:
        """Writes a checkpoint, now or where the last is old enough."""
        due = time.monotonic() - self._saved >= self.recipe.training.checkpoint_every
        if (now or due) and self.fabric.is_global_zero:
            state = {
                "history": vars(self.history),
                "model": self.model.state_dict(),
                "stage": self.stage.state_dict(),
            }
            save_checkpoint(state, self.run.checkpoint)
            self._saved = time.monotonic()

    def _tensorboard(self, row: Mapping[str, Any]) -> None:
        if not self.recipe.training.tensorboard:
            return
        require("tensorboard", "tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        with SummaryWriter(str(self.run.path / "tensorboard")) as writer:
            for key, value in row.items():
                if isinstance(value, float):
                    writer.add_scalar(f"{row['stage']}/{key}", value, row["step"])


def train(
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    reporter: Callable[[], Reporter] = unreported,
    watch: Watcher = unwatched,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Trains the model of a recipe and leaves a run folder.

    Args:
        recipe: the whole run.
        out: the run folder, made if need be.
        resume: go on from the folder's checkpoint.
        reporter: makes what shows the progress, in the process that shows it.
        watch: called after each validation, in that process; what it raises ends the training.
        say: called once with what trains and what judges; empty but for the split `files`.

    Raises:
        ValueError: a recipe or data that do not fit, a folder that holds another run, nothing to resume.
        FloatingPointError: the loss became infinite or NaN.
    """
    recipe = resolved(recipe)
    model = build(recipe)  # a bad model section is an error before any data are touched
    run = Run(out)
    if resume:
        if run.recipe() != recipe:
            raise ValueError(
                f"{out} was started with another recipe: resume with that one, or start in another folder"
            )
    elif run.weights.exists() or run.checkpoint.exists():
        raise ValueError(f"{out} already holds a run: choose another --out, or go on with --resume")
    settings = recipe.training
    check_training(settings)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    fabric = Fabric(
        accelerator=settings.accelerator,
        devices=settings.devices,
        precision=settings.precision,
        strategy="auto" if settings.devices == 1 else "ddp_spawn",
    )
    if not isinstance(model, Classifier):
        files = training_data(recipe)
        check_references(recipe, files)
        say(planned(recipe, files))
        for doubt in doubts(joined(files.values(), trials=False)):
            warnings.warn(doubt, stacklevel=2)
    launched = partial(_train, recipe=recipe, run=run, resume=resume, reporter=reporter, watch=watch)
    fabric.launch(launched)


def _train(
    fabric: Fabric, recipe: Recipe, run: Run, resume: bool, reporter: Callable[[], Reporter], watch: Watcher
) -> None:
    torch.manual_seed(derived_seed(recipe.seed, "weights"))
    model = build(recipe)
    model.to(fabric.device)
    trials = isinstance(model, Classifier)
    files = training_data(recipe, trials=trials)
    source = joined(files.values(), trials=trials)
    source = source if trials else stored(source, run.path)
    parts = split(source, recipe.data.split, recipe.seed, recipe.data.validation)
    if len(parts["train"]) == 0:
        raise ValueError(
            f"no training events: {len(source)} events in {', '.join(files)}, none of them in the training part"
        )
    train_part: EventSource = Selected(source, parts["train"])
    validation = in_beam_spot(Selected(source, parts["validation"]), recipe, "validation")
    hashes = {path: sha256(path) for path in files}
    history = History(list(hashes.values()))
    state: dict[str, Any] = {}
    if resume:
        state = load_checkpoint(run.checkpoint)
        if state["history"]["data"] != history.data:
            raise ValueError(f"{run.path} was started with other data: the files' content has changed")
        history = History(**state["history"])
        if fabric.is_global_zero:
            for stale in run.path.glob(".*.partial-*"):  # what a killed process was writing
                stale.unlink()
    elif fabric.is_global_zero:
        run.path.mkdir(parents=True, exist_ok=True)
        run.write_recipe(recipe)
    report = reporter() if fabric.is_global_zero else silent

    started = time.monotonic()
    stages = model.stages(in_beam_spot(train_part, recipe, "normalization"))
    prepared = time.monotonic() - started
    if resume:
        model.load_state_dict(state["model"])
        history.seconds += prepared
    for number, stage in enumerate(stages):
        if number < history.stage:
            continue
        if number > history.stage:
            history.stage, history.epoch, history.step = number, 0, 0
            history.sums, history.best, history.best_epoch = {}, float("inf"), -1
        elif resume:
            stage.load_state_dict(state["stage"])
        if recipe.training.compile:
            for module in stage.modules().values():
                module.compile()
        Fitting(model, stage, train_part, validation, fabric, run, recipe, history, report, watch).fit()
    if fabric.is_global_zero:
        if not stages:
            save_weights(model, run.weights)
            history.seconds = prepared
        card = card_of(recipe, model, files, hashes, source, parts, history)
        run.write_card(card.model_copy(update={"weights": sha256(run.weights)}))


def _rows(
    files: Mapping[str, EventSource], parts: Mapping[Part, np.ndarray[Any, np.dtype[np.intp]]]
) -> list[dict[str, int]]:
    """Counts each file's rows in each part."""
    edges = np.cumsum([0, *(len(source) for source in files.values())])
    counts = {
        part: np.histogram(rows, edges)[0] if len(rows) else np.zeros(len(files))
        for part, rows in parts.items()
    }
    return [{part: int(count[i]) for part, count in counts.items()} for i in range(len(files))]


def card_of(
    recipe: Recipe,
    model: Model,
    files: Mapping[str, EventSource],
    hashes: Mapping[str, str],
    source: EventSource,
    parts: Mapping[Part, np.ndarray[Any, np.dtype[np.intp]]],
    history: History,
) -> Card:
    """Returns the card of a run, but for the hash of its weights."""
    rows, contents = _rows(files, parts), content_entries(recipe, files)
    return Card(
        format=1,
        name=recipe.name,
        type=recipe.model["type"],
        kind=_kind(model),
        detector=recipe.detector,
        features=tuple(feature.name for feature in model.detector.conditions),
        units=tuple(feature.unit for feature in model.detector.conditions),
        channels=_channels(model),
        data=tuple(
            DataFile(name=Path(path).name, sha256=hashes[path], rows=rows[i], **contents[path])
            for i, path in enumerate(files)
        ),
        domain=domain_of(Selected(source, parts["train"]), recipe).to_card(),
        split=recipe.data.split,
        **card_entries(recipe, files),
        particles=recipe.data.particles,
        seed=recipe.seed,
        rounding=recipe.model.get("rounding", ""),
        made_with=dict(model.made_with) if isinstance(model, Generator) else {},
        parameters=sum(p.numel() for p in model.parameters()),
        version=version("caloforge"),
        git_revision=_revision(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        training=Budget(
            seconds=round(history.seconds, 1),
            machine=f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
            epochs=history.epoch,
            best_epoch=history.best_epoch,
        ),
    )


def _kind(model: Model) -> Kind:
    if isinstance(model, Classifier):
        return "classifier"
    return "readout" if isinstance(model, Readout) else "generator"


def _channels(model: Model) -> str:
    if isinstance(model, Classifier):
        return ""
    return model.channels if isinstance(model, Readout) else model.detector.default_channels


def _revision() -> str:
    """Returns the git revision of the package's source, or "" for an installed package."""
    here = Path(__file__)
    revision = ""
    try:
        # the first command fails where this file is not tracked: installed within some other repository
        for command in (
            ["ls-files", "--error-unmatch", here.name],
            ["describe", "--always", "--dirty", "--exclude=*"],
        ):
            revision = subprocess.run(  # noqa: S603
                ["git", "-C", str(here.parent), *command],  # noqa: S607
                capture_output=True,
                text=True,
                timeout=10,
                check=True,
            ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
    return revision
