"""A study of trainings, as `trials.json` has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caloforge.detectors import DETECTORS
from caloforge.io.files import read_json
from caloforge.report.tables import METRICS, column_of

FORMAT = 1
"""Format of `trials.json`."""

TRIALS, BEST = "trials.json", "best.toml"


@dataclass(frozen=True, eq=False)
class Study:
    """Holds what a study folder says.

    Attributes:
        path: the folder.
        name: name of the study.
        content: contents of `trials.json`.
    """

    path: Path
    name: str
    content: Mapping[str, Any]

    @property
    def trials(self) -> list[Mapping[str, Any]]:
        """Trials that have ended, by number."""
        return [trial for trial in self.content["trials"] if trial["state"] != "running"]

    @property
    def finished(self) -> list[Mapping[str, Any]]:
        """Trials that came to their last epoch, the best first."""
        done = [trial for trial in self.trials if trial["state"] == "finished"]
        return sorted(done, key=lambda trial: (trial["value"], trial["number"]))

    @property
    def label(self) -> str:
        """The objective with its unit."""
        name = self.content["objective"]
        detector = self.content["detector"]
        if detector in DETECTORS:
            return f"validation {column_of(name, detector).label}"
        # code outside the package is not run to learn a unit
        return f"validation {METRICS[name].title if name in METRICS else name}"


def is_study(path: Path) -> bool:
    """Says whether a folder holds a study."""
    return (path / TRIALS).is_file()


def read_study(path: Path) -> Study:
    """Reads a study folder.

    Raises:
        ValueError: another format.
    """
    content = read_json(path / TRIALS)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        got = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{path / TRIALS} must have format {FORMAT}, got {got!r}")
    return Study(path, str(content["study"]), content)


def reached(trial: Mapping[str, Any]) -> float | None:
    """Returns the value of a finished trial, of a stopped one the smallest objective until then, or None."""
    if trial["value"] is not None:
        return float(trial["value"])
    return min((float(value) for _, value in trial["validations"]), default=None)
