"""A study of trainings as a report sees it: its folder, and what its `trials.json` holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from caloforge.detectors import DETECTORS
from caloforge.io import study as files
from caloforge.report.tables import METRICS, column_of


@dataclass(frozen=True, eq=False)
class Study:
    """Holds what a study folder says.

    Attributes:
        path: the folder.
        content: what `trials.json` holds.
    """

    path: Path
    content: files.Study

    @property
    def name(self) -> str:
        """Name of the study."""
        return self.content.study

    @property
    def label(self) -> str:
        """The objective with its unit."""
        name, detector = self.content.objective, self.content.detector
        if detector in DETECTORS:
            return f"validation {column_of(name, detector).label}"
        # code outside the package is not run to learn a unit
        return f"validation {METRICS[name].title if name in METRICS else name}"


def read_study(path: Path) -> Study:
    """Reads a study folder.

    Raises:
        ValueError: a `trials.json` that is none; the message names the key.
    """
    return Study(path, files.read_study(path))
