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
from collections.abc import Callable, Mapping
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
from caloforge.events import EventSource, Joined, Part, Selected, of_particles, split
from caloforge.io import open_events
from caloforge.io.files import sha256
from caloforge.io.run import Run
from caloforge.models import Generator, Readout, build, resolved
from caloforge.models.base import BatchRandom, Stage
from caloforge.recipe import Recipe
from caloforge.samples import samples_of
from caloforge.training.checkpoint import load_checkpoint, load_weights, save_checkpoint, save_weights


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


def training_data(recipe: Recipe) -> dict[str, EventSource]:
    """Opens the recipe's data, by file name; the sample that ships where it names none.

    Raises:
        ValueError: a file that cannot be read, or of another detector.
    """
    detector = detector_named(recipe.detector)
    paths = [Path(file) for file in recipe.data.files] or samples_of(recipe.detector)
    return {str(path): of_particles(open_events(path, detector), recipe.data.particles) for path in paths}


def fit(
    model: Generator | Readout,
    stage: Stage,
    train: EventSource,
    validation: EventSource,
    *,
    fabric: Fabric,
    run: Run,
    recipe: Recipe,
    history: History,
    report: Reporter = silent,
) -> None:
    """Trains one stage, from where `history` stands, and leaves the model with the stage's best weights.

    Args:
        model: the model the stage belongs to; its weights are saved when the validation improves.
        stage: what is trained.
        train: training events.
        validation: events for the choice of the best weights; where there are none the last weights count.
        fabric: devices and precision.
        run: where weights, checkpoints and the log go.
        recipe: for the seed and the intervals.
        history: changed in place.
        report: called after each step.
    """
    settings = recipe.training
    parameters = [p for module in stage.modules().values() for p in module.parameters()]
    steps = max(len(train) // stage.batch_size, 1)
    loggers = _tensorboard(run) if settings.tensorboard and fabric.is_global_zero else None
    saved = time.monotonic()

    def backward(loss: Tensor) -> None:
        fabric.backward(loss)
        if fabric.world_size > 1:
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad = cast(Tensor, fabric.all_reduce(parameter.grad, reduce_op="mean"))

    def checkpoint() -> None:
        if fabric.is_global_zero:
            state = {"history": vars(history), "model": model.state_dict(), "stage": stage.state_dict()}
            save_checkpoint(state, run.checkpoint)

    while history.epoch < stage.epochs:
        rng = np.random.default_rng(derived_seed(recipe.seed, history.stage, history.epoch))
        started, first, before = time.monotonic(), history.step, history.seconds
        model.train()
        for number, batch in enumerate(stage.batches(train, rng)):
            if number < history.step:
                continue
            share = _share(len(batch), fabric.global_rank, fabric.world_size)
            seed = derived_seed(recipe.seed, history.stage, history.epoch, number)
            random = BatchRandom(seed, share, len(batch), fabric.device)
            with fabric.autocast():
                values = dict(stage.step(batch.slices(share), random, backward))
            if fabric.world_size > 1:
                reduced = cast(
                    Tensor, fabric.all_reduce(torch.tensor(list(values.values())), reduce_op="mean")
                )
                values = dict(zip(values, reduced.tolist(), strict=True))
            if not np.isfinite(values["loss"]):
                raise FloatingPointError(
                    f"the loss became {values['loss']} in stage {stage.name!r}, epoch {history.epoch + 1}, "
                    f"step {number + 1}: lower the learning rate; the last checkpoint is {run.checkpoint}"
                )
            history.step = number + 1
            for key, value in values.items():
                history.sums[key] = history.sums.get(key, 0.0) + value
            now = time.monotonic()
            rate = (history.step - first) * stage.batch_size / (now - started)
            left = (stage.epochs - history.epoch) * steps - history.step
            report(
                Progress(
                    stage.name,
                    history.epoch + 1,
                    stage.epochs,
                    history.step,
                    steps,
                    values,
                    rate,
                    left * stage.batch_size / rate,
                )
            )
            if now - saved >= settings.checkpoint_every:
                history.seconds = before + now - started
                checkpoint()
                saved = time.monotonic()
        duration = time.monotonic() - started
        history.seconds = before + duration
        row: dict[str, Any] = {
            "stage": stage.name,
            "epoch": history.epoch + 1,
            "step": (history.epoch + 1) * steps,
            "seconds": round(history.seconds, 2),
            "samples_per_second": round((history.step - first) * stage.batch_size / duration, 2),
            **{key: value / max(history.step, 1) for key, value in history.sums.items()},
        }
        last = history.epoch + 1 == stage.epochs
        if fabric.is_global_zero:
            if len(validation) == 0:
                save_weights(model, run.weights)
            elif last or (history.epoch + 1) % settings.validate_every == 0:
                scores = stage.validate(validation)
                row |= {f"validation_{key}": value for key, value in scores.items() if key != stage.best_by}
                if scores[stage.best_by] < history.best or history.best_epoch < 0:
                    history.best, history.best_epoch = scores[stage.best_by], history.epoch + 1
                    save_weights(model, run.weights)
            history.rows.append(row)
            run.write_log(history.rows)
            if loggers is not None:
                for key, value in row.items():
                    if isinstance(value, float):
                        loggers.add_scalar(f"{stage.name}/{key}", value, row["step"])
        history.epoch, history.step, history.sums = history.epoch + 1, 0, {}
        if last or time.monotonic() - saved >= settings.checkpoint_every:
            checkpoint()
            saved = time.monotonic()
    fabric.barrier()
    load_weights(model, run.weights)


def _share(rows: int, rank: int, world: int) -> slice:
    """Returns a process's rows of a batch: equal shares, so that the mean of gradients is the batch's."""
    each = rows // world
    return slice(rank * each, (rank + 1) * each)


def _tensorboard(run: Run) -> Any:
    require("tensorboard", "tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(run.path / "tensorboard"))


def train(
    recipe: Recipe, out: Path, *, resume: bool = False, reporter: Callable[[], Reporter] = unreported
) -> None:
    """Trains the model of a recipe and leaves a run folder.

    Args:
        recipe: the whole run.
        out: the run folder, made if need be.
        resume: go on from the folder's checkpoint.
        reporter: makes what shows the progress, in the process that shows it.

    Raises:
        ValueError: a recipe or data that do not fit, a folder that holds another run, nothing to resume.
        FloatingPointError: the loss became infinite or NaN.
    """
    recipe = resolved(recipe)
    build(recipe)  # a bad model section is an error before any data are touched
    run = Run(out)
    if resume:
        if run.recipe() != recipe:
            raise ValueError(
                f"{out} was started with another recipe: resume with that one, or start in another folder"
            )
    elif run.weights.exists() or run.checkpoint.exists():
        raise ValueError(f"{out} already holds a run: choose another --out, or go on with --resume")
    settings = recipe.training
    if settings.threads:
        torch.set_num_threads(settings.threads)
    fabric = Fabric(
        accelerator=settings.accelerator,
        devices=settings.devices,
        precision=settings.precision,
        strategy="auto" if settings.devices == 1 else "ddp_spawn",
    )
    fabric.launch(partial(_train, recipe=recipe, run=run, resume=resume, reporter=reporter))


def _train(fabric: Fabric, recipe: Recipe, run: Run, resume: bool, reporter: Callable[[], Reporter]) -> None:
    torch.manual_seed(derived_seed(recipe.seed, "weights"))
    model = build(recipe)
    model.to(fabric.device)
    files = training_data(recipe)
    source = Joined(list(files.values()))
    parts = split(source, recipe.data.split, recipe.seed)
    if len(parts["train"]) == 0:
        raise ValueError(
            f"no training events: {len(source)} events in {', '.join(files)}, none of them in the training part"
        )
    train_part, validation = Selected(source, parts["train"]), Selected(source, parts["validation"])
    hashes = {path: sha256(path) for path in files}
    history = History(list(hashes.values()))
    state: dict[str, Any] = {}
    if resume:
        state = load_checkpoint(run.checkpoint)
        if state["history"]["data"] != history.data:
            raise ValueError(f"{run.path} was started with other data: the files' content has changed")
        history = History(**state["history"])
    elif fabric.is_global_zero:
        run.path.mkdir(parents=True, exist_ok=True)
        run.write_recipe(recipe)
    report = reporter() if fabric.is_global_zero else silent

    started = time.monotonic()
    stages = model.stages(train_part)
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
        fit(
            model,
            stage,
            train_part,
            validation,
            fabric=fabric,
            run=run,
            recipe=recipe,
            history=history,
            report=report,
        )
    if fabric.is_global_zero:
        if not stages:
            save_weights(model, run.weights)
            history.seconds = prepared
        run.write_card(_card(recipe, model, files, hashes, source, parts, history))


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


def _card(
    recipe: Recipe,
    model: Generator | Readout,
    files: Mapping[str, EventSource],
    hashes: Mapping[str, str],
    source: EventSource,
    parts: Mapping[Part, np.ndarray[Any, np.dtype[np.intp]]],
    history: History,
) -> dict[str, Any]:
    rows = _rows(files, parts)
    return {
        "name": recipe.name,
        "type": recipe.model["type"],
        "kind": "readout" if isinstance(model, Readout) else "generator",
        "detector": recipe.detector,
        "features": [feature.name for feature in model.detector.conditions],
        "units": [feature.unit for feature in model.detector.conditions],
        "channels": model.channels if isinstance(model, Readout) else "paper",
        "data": [
            {"name": Path(path).name, "sha256": hashes[path], "rows": rows[i]} for i, path in enumerate(files)
        ],
        "split": recipe.data.split,
        "particles": list(recipe.data.particles),
        "seed": recipe.seed,
        "rounding": recipe.model.get("rounding", ""),
        "parameters": sum(p.numel() for p in model.parameters()),
        "version": version("caloforge"),
        "git_revision": _revision(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "training": {
            "seconds": round(history.seconds, 1),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
            "epochs": history.epoch,
            "best_epoch": history.best_epoch,
        },
    }


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
