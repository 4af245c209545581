"""Trials: primaries that were shot at the detectors, and how often they left a response in which of them.

Events hold primaries that did leave a response; what decides whether a primary does is learned from trials. The
modules are the two calorimeters of a side, which one primary may both reach.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from caloforge.events import Primaries, Rows

OUTCOMES = ("zn", "zp", "any")
"""What is counted: hits of either module, and of any of them."""


@dataclass(frozen=True, eq=False)
class Trials(Primaries):
    """Primaries, how often each was shot, and how often it left a response.

    Attributes:
        trials: complete passes of each primary, (N,) int32, at least 1.
        hits: how many of them left a response in ZN, in ZP, in any, (N, 3) int32.

    Raises:
        ValueError: wrong shapes, or counts that contradict each other; the message names the row.
    """

    trials: NDArray[np.int32] = None  # type: ignore[assignment]
    hits: NDArray[np.int32] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        super().__post_init__()
        rows = len(self.conditions)
        trials, hits = np.asarray(self.trials, np.int32), np.asarray(self.hits, np.int32)
        if trials.shape != (rows,) or hits.shape != (rows, len(OUTCOMES)):
            raise ValueError(
                f"trials must have shape ({rows},) and hits ({rows}, {len(OUTCOMES)}): {', '.join(OUTCOMES)}; "
                f"got {trials.shape} and {hits.shape}"
            )
        first, second, either = hits.T
        for problem, bad in (
            ("trials must be at least 1", trials < 1),
            ("hits must not be negative", (hits < 0).any(1)),
            ("hits in any must not exceed the trials", either > trials),
            ("hits of a module must not exceed the hits in any", np.maximum(first, second) > either),
            ("hits in any must not exceed those of both modules together", either > first + second),
        ):
            if bad.any():
                row = int(np.argmax(bad))
                raise ValueError(
                    f"{problem}, got {trials[row]} trials and hits "
                    f"{', '.join(f'{name} {n}' for name, n in zip(OUTCOMES, hits[row], strict=True))} in row {row}"
                )
        object.__setattr__(self, "trials", trials)
        object.__setattr__(self, "hits", hits)

    @property
    def primaries(self) -> Primaries:
        """The particles alone."""
        return Primaries(self.detector, self.conditions, self.pdg, self.group, self.fold)

    def slices(self, rows: Rows) -> Trials:
        """Returns some of the primaries."""
        return Trials(
            self.detector,
            self.conditions[rows],
            self.pdg[rows],
            self.group[rows],
            self.fold[rows],
            self.trials[rows],
            self.hits[rows],
        )

    def outcomes(self) -> NDArray[np.int32]:
        """Returns how many trials gave nothing, ZN alone, ZP alone, both, (N, 4)."""
        first, second, either = self.hits.T
        return np.stack([self.trials - either, either - second, either - first, first + second - either], 1)


def joined_trials(parts: Sequence[Trials]) -> Trials:
    """Joins trials end to end; groups are derived again from the features.

    Raises:
        ValueError: no trials, or of different detectors.
    """
    names = {part.detector.name for part in parts}
    if len(names) != 1:
        raise ValueError(
            f"the trials must be of one detector, got {', '.join(sorted(names)) or 'none at all'}"
        )
    return Trials(
        parts[0].detector,
        np.concatenate([part.conditions for part in parts]),
        np.concatenate([part.pdg for part in parts]),
        fold=np.concatenate([part.fold for part in parts]),
        trials=np.concatenate([part.trials for part in parts]),
        hits=np.concatenate([part.hits for part in parts]),
    )
