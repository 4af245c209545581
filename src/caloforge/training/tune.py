"""Tuning: trainings of one recipe that differ in a few keys, chosen by Optuna from the trainings before.

One process is one worker. Several workers, on one machine or many, share a study by its name and storage: a
journal file, which a network file system may hold, or a database. Trial number k is sampled with a seed derived
from the recipe's seed and k, from what the study holds by then; so a study of one worker can be repeated.

The value of a trial is the objective at the validation whose weights were kept. A trial whose validations are worse
than the median of finished trials is stopped (Golovin et al. 2017, "median stopping rule"). A training that
diverges, or whose keys do not fit together, is a failed trial; the study goes on.

The study folder holds

    trials.json  all trials of the study, rewritten after each; what a report reads
    best.toml    the recipe of the best finished trial
    journal.log  the study itself, where no other storage is named
    trial-K/     run folders, where they are kept
"""

from __future__ import annotations

import json
import math
import os
import shutil
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from caloforge._lookup import nearest, require
from caloforge.events import Joined, Selected, split
from caloforge.io.files import sha256, write_text
from caloforge.io.study import (
    BEST,
    JOURNAL,
    TRIALS,
    Choices,
    FloatRange,
    Parameter,
    Space,
    State,
    Study,
    Trial,
    read_study,
)
from caloforge.io.typed import write_typed
from caloforge.models import Classifier, Generator, build, resolved
from caloforge.recipe import Recipe, to_toml
from caloforge.training.fit import Validation, derived_seed
from caloforge.training.run import train, training_data
from caloforge.training.space import check, with_parameters

if TYPE_CHECKING:
    import optuna

IMPORTANCE = 10
"""Finished trials from which the importance of parameters is estimated."""

NAMELESS = timedelta(minutes=1)
"""Age at which a running trial that names no worker belongs to none: a worker writes its name at once."""

Reporter = Callable[[Trial], None]
"""Called with each trial this worker has ended."""


def silent(trial: Trial) -> None:
    """Shows nothing."""


class FailedTrialError(Exception):
    """A training that gave no value, for a reason that is the trial's own."""


@dataclass
class _Watch:
    """Hands the validations of one training to the study.

    Attributes:
        trial: the trial.
        objective: entry of the validations.
        epochs: epochs of each stage, in order.
        value: the objective at the validation whose weights are kept.
        epoch: its epoch, counted through all stages.
    """

    trial: optuna.Trial
    objective: str
    epochs: Mapping[str, int]
    value: float = math.nan
    epoch: int = -1

    def __call__(self, validation: Validation) -> None:
        """Reports the objective, where the stage has it, and stops the training if it is of no use."""
        if self.objective not in validation.values:
            return
        value = float(validation.values[self.objective])
        stages = list(self.epochs)
        before = sum(self.epochs[name] for name in stages[: stages.index(validation.stage)])
        epoch = before + validation.epoch
        if not math.isfinite(value):
            raise FloatingPointError(f"validation {self.objective} became {value} after epoch {epoch}")
        if validation.best:
            self.value, self.epoch = value, epoch
        self.trial.report(value, epoch)
        if self.trial.should_prune():
            raise require("optuna", "tune").TrialPruned


class _NumberedSampler:
    """Samples as TPE does, each trial with a seed of its own number: an `optuna.samplers.BaseSampler` by its methods.

    Args:
        seed: seed of the study.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._of_trial(0)

    def _of_trial(self, number: int) -> None:
        seed = derived_seed(self._seed, "trial", number) % 2**32
        self._sampler: Any = require("optuna", "tune").samplers.TPESampler(seed=seed)

    def before_trial(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        """Takes the trial's own seed."""
        self._of_trial(trial.number)

    def infer_relative_search_space(self, *arguments: Any) -> Any:
        """As TPE."""
        return self._sampler.infer_relative_search_space(*arguments)

    def sample_relative(self, *arguments: Any) -> Any:
        """As TPE."""
        return self._sampler.sample_relative(*arguments)

    def sample_independent(self, *arguments: Any) -> Any:
        """As TPE."""
        return self._sampler.sample_independent(*arguments)

    def after_trial(self, *arguments: Any) -> None:
        """As TPE."""
        self._sampler.after_trial(*arguments)


@dataclass
class _Worker:
    """One worker of a study.

    Attributes:
        study: the study.
        recipe: what every trial starts from.
        space: what differs.
        epochs: epochs of each stage with a validation, in order.
        out: the study folder.
        keep: whether run folders are kept.
    """

    study: optuna.Study
    recipe: Recipe
    space: Space
    epochs: Mapping[str, int]
    out: Path
    keep: bool
    importance: dict[str, float] = field(default_factory=dict)
    _number: int = -1

    def run(self) -> Trial:
        """Makes one trial and returns what is written of it."""
        self.study.optimize(self._train, n_trials=1, catch=(FailedTrialError,))
        (trial,) = (trial for trial in self.export().trials if trial.number == self._number)
        return trial

    def _train(self, trial: optuna.Trial) -> float:
        self._number = trial.number
        trial.set_user_attr("worker", _this_worker())
        parameters = {
            path: _suggested(trial, path, parameter) for path, parameter in self.space.parameters.items()
        }
        folder = self.out / f"trial-{trial.number}"
        if folder.exists():  # of another study: not to be removed below
            raise ValueError(f"{folder} is already there: choose another --out")
        watch = _Watch(trial, self.space.objective, self.epochs)
        try:
            recipe = _trial_recipe(self.recipe, parameters)
            train(recipe, folder, watch=watch)
        except (FloatingPointError, torch.OutOfMemoryError, _UnfitError) as error:
            trial.set_user_attr("reason", (str(error).splitlines() or [type(error).__name__])[0])
            raise FailedTrialError(str(error)) from error
        finally:
            if watch.epoch >= 0:
                trial.set_user_attr("best_epoch", watch.epoch)
            if not self.keep:
                shutil.rmtree(folder, ignore_errors=True)
        return watch.value

    def export(self) -> Study:
        """Writes `trials.json` and `best.toml` and returns the former."""
        study = Study(
            format=1,
            study=self.study.study_name,
            recipe=self.recipe.name,
            detector=self.recipe.detector,
            type=self.recipe.model["type"],
            objective=self.space.objective,
            space=Space.model_validate(self.space.model_dump()),  # with its defaults
            importance=self.importance,
            trials=tuple(self._ended(trial) for trial in self.study.get_trials(deepcopy=False)),
        )
        write_typed(self.out / TRIALS, study)
        if study.finished:
            recipe = resolved(with_parameters(self.recipe, study.finished[0].parameters))
            write_text(
                self.out / BEST, to_toml(recipe.model_copy(update={"name": f"{self.recipe.name}-tuned"}))
            )
        return study

    def weigh(self) -> None:
        """Estimates how much of the objective's variance each parameter explains, given enough trials."""
        optuna = require("optuna", "tune")
        done = self.study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
        if len(done) < IMPORTANCE or len({trial.value for trial in done}) < 2:
            return
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        shares = optuna.importance.get_param_importances(self.study, evaluator=evaluator)
        self.importance = {path: round(float(value), 4) for path, value in shares.items()}

    def fail_orphans(self) -> None:
        """Ends the trials of workers that are gone from this machine; those of other machines are left.

        A worker killed before it wrote its name into its trial leaves one that names nobody: that is ended
        when it is older than NAMELESS.
        """
        states = require("optuna", "tune").trial.TrialState
        for trial in self.study.get_trials(deepcopy=False, states=(states.RUNNING,)):
            if "worker" in trial.user_attrs:
                host, process = trial.user_attrs["worker"]
                gone = host == socket.gethostname() and not _alive(process)
            else:
                gone = trial.datetime_start is None or datetime.now() - trial.datetime_start > NAMELESS
            if gone:
                self.study.tell(trial.number, state=states.FAIL, skip_if_finished=True)
                if not self.keep:
                    shutil.rmtree(self.out / f"trial-{trial.number}", ignore_errors=True)

    def _ended(self, trial: optuna.trial.FrozenTrial) -> Trial:
        states: dict[str, State] = {
            "COMPLETE": "finished",
            "PRUNED": "pruned",
            "FAIL": "failed",
        }
        started, ended = trial.datetime_start, trial.datetime_complete
        state: State = states.get(trial.state.name, "running")
        parameters = self.space.parameters
        return Trial(
            number=trial.number,
            state=state,
            value=trial.value if state == "finished" else None,
            best_epoch=trial.user_attrs.get("best_epoch"),
            seconds=round((ended - started).total_seconds(), 1) if started and ended else None,
            reason=trial.user_attrs.get("reason", "its worker was stopped" if state == "failed" else ""),
            parameters={path: _value(parameters[path], value) for path, value in trial.params.items()},
            validations=tuple(sorted(trial.intermediate_values.items())),
        )


class _UnfitError(ValueError):
    """Keys that are right one by one but do not fit together."""


def _trial_recipe(recipe: Recipe, parameters: Mapping[str, Any]) -> Recipe:
    """Returns the recipe of a trial, after its model has generated two events.

    Raises:
        _UnfitError: the model cannot be built or does not generate.
    """
    try:
        of_trial = resolved(with_parameters(recipe, parameters))
        model = build(of_trial)
        features = model.conditions if isinstance(model, Generator) else model.detector.conditions
        with torch.no_grad():
            if isinstance(model, Classifier):
                model(torch.ones(2, len(features)))
            else:
                model(torch.ones(2, len(features)), torch.zeros(2, model.noise_dim))
    except (ValueError, RuntimeError) as error:
        raise _UnfitError(str(error)) from error
    return of_trial


def tune(
    recipe: Recipe,
    space: Space,
    out: Path,
    *,
    storage: str | None = None,
    name: str | None = None,
    trials: int | None = None,
    timeout: float | None = None,
    keep: bool = False,
    report: Reporter = silent,
) -> Study:
    """Makes trials of a study as one worker, beginning it or going on with it.

    Args:
        recipe: what every trial starts from.
        space: the keys that differ and their ranges.
        out: the study folder, made if need be.
        storage: a journal file (.log), or the URL of a database; a journal in the study folder if None.
        name: name of the study within the storage; that of the recipe if None.
        trials: no trial is begun when the study holds so many that have ended, by whichever worker.
        timeout: seconds after which no trial is begun.
        keep: keep the run folders of the trials.
        report: shows each trial that has ended.

    Returns:
        all trials of the study, as `trials.json` has them.

    Raises:
        ValueError: a recipe, space or storage that do not fit, or a study of another recipe or space.
    """
    if trials is None and timeout is None:
        raise ValueError("a study must be told when to stop: give a number of trials or a time")
    recipe = resolved(recipe)
    if recipe.training.devices != 1:
        raise ValueError(
            f"training.devices must be 1, got {recipe.training.devices}: start a worker for each device"
        )
    check(space, recipe)
    epochs = _stages(recipe, space.objective)
    study = _open(storage or str(out / JOURNAL), name or recipe.name, recipe, space, out)
    worker = _Worker(study, recipe, space, epochs, out, keep)
    worker.fail_orphans()
    started = time.monotonic()
    try:
        while not (
            (trials is not None and _ended(study) >= trials)
            or (timeout is not None and time.monotonic() - started >= timeout)
        ):
            report(worker.run())
        worker.weigh()
    finally:
        study_file = worker.export()
    return study_file


def _stages(recipe: Recipe, objective: str) -> dict[str, int]:
    """Returns the epochs of each stage, in order, after one look at the data and at what is validated.

    Raises:
        ValueError: no events for validation, no stages, or no stage that has the objective.
    """
    source = Joined(list(training_data(recipe).values()))
    parts = split(source, recipe.data.split, recipe.seed, recipe.data.validation)
    for part in ("train", "validation"):
        if len(parts[part]) == 0:
            raise ValueError(f"no {part} events among {len(source)}: trials cannot be compared")
    chosen = np.unique(np.linspace(0, len(parts["validation"]) - 1, 64).astype(np.intp))
    few = Selected(source, parts["validation"][chosen])
    stages = build(recipe).stages(Selected(source, parts["train"]))
    if not stages:
        raise ValueError(f"{recipe.model['type']} has no training to tune")
    with np.errstate(all="ignore"):  # of untrained weights
        entries = [name for stage in stages for name in stage.validate(few)]
    if objective not in entries:
        raise ValueError(
            f"objective: no entry {objective!r} in the validation of {recipe.model['type']}"
            f"{nearest(objective, entries)} (there are {', '.join(dict.fromkeys(entries))})"
        )
    return {stage.name: stage.epochs for stage in stages}


def _definition(recipe: Recipe, space: Space) -> dict[str, Any]:
    """Returns what workers of one study must agree in: not where the data lie, nor on what the training runs."""
    values = recipe.model_dump(mode="json")
    training = recipe.training
    return {
        "detector": recipe.detector,
        "seed": recipe.seed,
        "data": {**values["data"], "files": [sha256(path) for path in training_data(recipe)]},
        "model": values["model"],
        "training": {"precision": training.precision, "validate_every": training.validate_every},
        "space": space.model_dump(mode="json"),
    }


def _open(storage: str, name: str, recipe: Recipe, space: Space, out: Path) -> optuna.Study:
    """Opens or begins a study.

    Raises:
        ValueError: the storage cannot be opened, or holds a study of that name with another definition.
    """
    library = require("optuna", "tune")
    library.logging.set_verbosity(library.logging.CRITICAL)  # trials are reported, failures with their reason
    if (out / TRIALS).is_file() and (other := read_study(out).study) != name:
        raise ValueError(f"{out} already holds the study {other!r}, not {name!r}: choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    pruning = space.pruning
    pruner = library.pruners.MedianPruner(pruning.startup_trials, pruning.warmup_epochs)
    try:
        study: optuna.Study = library.create_study(
            storage=_database(storage) if "://" in storage else _journal(Path(storage)),
            study_name=name,
            sampler=cast(Any, _NumberedSampler(recipe.seed)),
            pruner=pruner,
            load_if_exists=True,
        )
        definition = _definition(recipe, space)
        agreed = study.user_attrs.get("definition")
        if agreed is None:
            study.set_user_attr("definition", json.dumps(definition))
            return study
    except ValueError:
        raise
    except Exception as error:  # what the drivers of databases raise has no common class
        kind = storage.partition("://")[0] if "://" in storage else storage  # a URL may hold a password
        raise ValueError(f"cannot open the storage {kind}: {error}".splitlines()[0]) from error
    differing = _differences(json.loads(agreed), definition)
    if differing:
        raise ValueError(
            f"the study {name!r} was begun with another {', '.join(differing)}: "
            "go on with the same recipe, data and space, or choose another --study"
        )
    return study


def _journal(path: Path) -> Any:
    """Opens a journal file, without what a killed worker left of a line.

    Raises:
        ValueError: no place for it, or not a journal.
    """
    journal = require("optuna.storages.journal", "tune")
    if not path.parent.is_dir():
        raise ValueError(f"cannot open the storage {path}: there is no folder {path.parent}")
    if path.suffix != ".log":
        raise ValueError(f"a storage must be a journal file FILE.log or the URL of a database, got {path}")
    lock = journal.JournalFileSymlinkLock(str(path.resolve()))
    if path.is_file():
        lock.acquire()
        try:
            with path.open("r+b") as file:
                content = file.read()
                whole = content.rfind(b"\n") + 1
                if content[:1] not in (b"{", b""):
                    raise ValueError(f"{path} is not the journal of a study")
                if whole < len(content):
                    file.truncate(whole)
        finally:
            lock.release()
    backend = journal.JournalFileBackend(str(path), lock_obj=lock)
    return require("optuna", "tune").storages.JournalStorage(backend)


def _database(url: str) -> Any:
    wait = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
    return require("optuna", "tune").storages.RDBStorage(url, engine_kwargs=wait)


def _differences(held: Mapping[str, Any], wanted: Mapping[str, Any], at: str = "") -> list[str]:
    """Lists the paths in which two definitions differ."""
    paths = []
    for key in dict.fromkeys([*held, *wanted]):
        place, other, path = held.get(key), wanted.get(key), f"{at}.{key}" if at else key
        if isinstance(place, Mapping) and isinstance(other, Mapping):
            paths += _differences(place, other, path)
        elif place != other:
            paths.append(path)
    return paths


def _ended(study: optuna.Study) -> int:
    return sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False))


def _this_worker() -> list[Any]:
    return [socket.gethostname(), os.getpid()]


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _suggested(trial: optuna.Trial, path: str, parameter: Parameter) -> Any:
    if isinstance(parameter, Choices):
        labels = [_label(choice) for choice in parameter.choices]
        return _value(parameter, trial.suggest_categorical(path, labels))
    if isinstance(parameter, FloatRange):
        return trial.suggest_float(path, parameter.low, parameter.high, log=parameter.log)
    return trial.suggest_int(path, parameter.low, parameter.high, log=parameter.log)


def _label(choice: Any) -> Any:
    """Returns what a storage can hold for a choice: lists become text."""
    return choice if isinstance(choice, str | int | float | bool) else json.dumps(choice)


def _value(parameter: Parameter, held: Any) -> Any:
    """Returns the value of what a storage holds."""
    if not isinstance(parameter, Choices):
        return held
    return next(choice for choice in parameter.choices if _label(choice) == held)
