"""`trials.json`: the trials of a study, what `tune` writes after each and a report reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from caloforge.io.typed import Section, TypedFile, read_typed

TRIALS, BEST, JOURNAL = "trials.json", "best.toml", "journal.log"


class FloatRange(Section):
    """A real number from `low` to `high`, on a logarithmic scale with `log`."""

    type: Literal["float"] = "float"
    low: float
    high: float
    log: bool = False

    @property
    def ends(self) -> tuple[Any, ...]:
        """Values that stand for all: the two ends."""
        return self.low, self.high


class IntRange(Section):
    """An integer from `low` to `high`, on a logarithmic scale with `log`."""

    type: Literal["int"] = "int"
    low: int
    high: int
    log: bool = False

    @property
    def ends(self) -> tuple[Any, ...]:
        """Values that stand for all: the two ends."""
        return self.low, self.high


class Choices(Section):
    """One of several values, lists among them."""

    type: Literal["categorical"] = "categorical"
    choices: tuple[Any, ...] = Field(min_length=2)

    @property
    def ends(self) -> tuple[Any, ...]:
        """Values that stand for all: all."""
        return self.choices


Parameter = FloatRange | IntRange | Choices


State = Literal["running", "finished", "pruned", "failed"]


class PruningConfig(Section):
    """When a trial is stopped early: its best value is worse than the median of others at the same epoch.

    Attributes:
        startup_trials: finished trials before any is stopped.
        warmup_epochs: epochs, through all stages, before a trial may be stopped.
    """

    startup_trials: int = Field(5, ge=0)
    warmup_epochs: int = Field(0, ge=0)


class Space(Section):
    """What a search may change.

    Attributes:
        objective: entry of the stage's validation that is made small.
        pruning: when a trial is stopped early.
        parameters: ranges by the path of the key in the recipe.
    """

    objective: str = "w1"
    pruning: PruningConfig = PruningConfig()
    parameters: dict[str, Parameter] = Field(min_length=1)


class Trial(Section):
    """One training of a study.

    Attributes:
        number: in the order of their beginnings.
        state: how it stands; `pruned` was stopped as worse than others.
        value: the objective of a finished trial.
        best_epoch: the epoch of the weights that were kept.
        seconds: how long it took.
        reason: why it failed.
        parameters: what it was given, by the path of the key in the recipe.
        validations: epoch and objective of each validation.
    """

    number: int
    state: State
    value: float | None
    best_epoch: int | None
    seconds: float | None
    reason: str
    parameters: Mapping[str, Any]
    validations: tuple[tuple[int, float], ...]

    @property
    def reached(self) -> float | None:
        """The value of a finished trial, of a stopped one the smallest objective until then, or None."""
        if self.value is not None:
            return self.value
        return min((value for _, value in self.validations), default=None)


class Study(TypedFile):
    """All trials of a study.

    Attributes:
        study: its name.
        recipe: name of the recipe that every trial starts from.
        detector: its detector.
        type: of its model.
        objective: what is made small.
        space: what differs between trials.
        importance: share of the objective's variance by parameter; empty where there are few trials.
        trials: by number.
    """

    study: str
    recipe: str
    detector: str
    type: str
    objective: str
    space: Space
    importance: Mapping[str, float]
    trials: tuple[Trial, ...]

    @property
    def ended(self) -> list[Trial]:
        """Trials that have ended, by number."""
        return [trial for trial in self.trials if trial.state != "running"]

    @property
    def finished(self) -> list[Trial]:
        """Trials that came to their last epoch, the best first."""
        finished = [trial for trial in self.trials if trial.state == "finished"]
        return sorted(finished, key=lambda trial: (trial.value, trial.number))


def is_study(folder: Path) -> bool:
    """Tells whether a folder holds a study."""
    return (folder / TRIALS).is_file()


def read_study(folder: Path) -> Study:
    """Reads the trials of a study folder.

    Raises:
        ValueError: as `read_typed`.
    """
    return read_typed(Study, folder / TRIALS)
