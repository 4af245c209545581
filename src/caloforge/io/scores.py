"""`scores.json`: what `evaluate` found, and what a report, a comparison and an export read."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from caloforge.io.typed import Section, TypedFile, read_typed
from caloforge.metrics.probability import Fraction

ALL = "all"
"""The group of all particles."""


class Spread(Section):
    """The smallest, the median and the greatest of some times, in ms."""

    min: float
    median: float
    max: float


class Timing(Section):
    """How long an event took, without files and noise.

    Attributes:
        ms_per_event: milliseconds; on the CPU processor time of all threads.
        batch_size: events at once.
        threads: threads of a batch.
        device: cpu, or the name of an accelerator.
        machine: architecture and number of cores.
    """

    ms_per_event: Spread
    batch_size: int
    threads: int
    device: str
    machine: str


class Level(Section):
    """What a metric gives for other pairs of sets, over several splits: a floor or a control.

    Attributes:
        mean: over the splits; None where it is not finite.
        std: sample standard deviation; None of one split.
        splits: how many.
        note: which rows against which.
    """

    mean: float | None
    std: float | None
    splits: int
    note: str = ""


class Score(Section):
    """A metric of one group of particles.

    Attributes:
        values: one a repeat; None where not finite.
        mean: over the repeats.
        std: sample standard deviation over the repeats.
        floor: simulated against simulated events.
        matched_floor: generated against simulated events of as many rows as the floor's.
        control: simulated events against others that were smeared.
        particles: unique particles behind the value, of metrics that need several rows of each.
        reason: why there is no value.
    """

    values: tuple[float | None, ...]
    mean: float | None
    std: float | None
    floor: Level | None
    matched_floor: Level | None
    control: Level | None = None
    particles: int | None = None
    reason: str = ""

    @property
    def over_floor(self) -> tuple[float | None, float | None]:
        """The mean and the matched floor, each divided by the floor; None where there is no floor above 0."""
        floor = self.floor.mean if self.floor else None
        if floor is None or floor <= 0:
            return None, None
        matched = self.matched_floor.mean if self.matched_floor else None
        return (
            None if self.mean is None else self.mean / floor,
            None if matched is None else matched / floor,
        )


class Group(Section):
    """Scores of all particles or of one type.

    Attributes:
        n: rows of the reference.
        particles: unique particles of the reference.
        effective: of generated events with weights, how many without they are worth; None without weights.
        note: what limits the scores.
        metrics: by name.
        reason: why there are no metrics.
        weights: histograms of classifier weights, by what the classifier saw.
        challenge: what the CaloChallenge's evaluation prints, of showers.
    """

    n: int
    particles: int
    effective: float | None = None
    note: str = ""
    metrics: Mapping[str, Score]
    reason: str = ""
    weights: Mapping[str, Any] = Field(default_factory=dict)
    challenge: Mapping[str, Any] = Field(default_factory=dict)


class FurtherFile(Section):
    """A further file of one reference.

    Attributes:
        path: where it lay.
        sha256: hash of its content.
    """

    path: str
    sha256: str


class ReferenceFile(Section):
    """The file that was compared with.

    Attributes:
        path: where it lay.
        sha256: hash of its content.
        rows: how many rows were scored, of all files.
        further: files that make one set with it.
    """

    path: str
    sha256: str
    rows: int
    further: tuple[FurtherFile, ...] = ()


class ScoredSet(Section):
    """Scores on one reference.

    Attributes:
        reference: the file.
        generated: events of the first repeat, relative to the scores; None where none were kept.
        replicas: the same events of each replica, likewise; none where not asked for.
        groups: `all`, then the types of particle by frequency.
    """

    reference: ReferenceFile
    generated: str | None
    replicas: tuple[str, ...] = ()
    groups: Mapping[str, Group]

    @property
    def all(self) -> Group:
        """Scores of all particles."""
        return self.groups[ALL]


class SweepPoint(Section):
    """Scores with one setting changed.

    Attributes:
        path: the setting.
        value: what it was set to.
        settings: others that went with it.
        ms_per_event: times, in ms.
        sets: as those of the whole.
    """

    path: str
    value: int | float | str
    settings: Mapping[str, str] = Field(default_factory=dict)
    ms_per_event: Spread
    sets: Mapping[str, ScoredSet]


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


class Scores(TypedFile):
    """Scores of a run, or of a file of events.

    Attributes:
        name: of the run.
        type: of the model; `events` for a file.
        kind: `generator` or `readout`.
        detector: its name.
        channels: name of the channel map; empty where there is none.
        parameters: trained parameters; None for a file.
        split: by which the rows were chosen; `unknown` for a file that does not tell.
        split_seed: its seed.
        particles: PDG names the run keeps to; empty for all.
        part: `test`, or `all` where the split is unknown.
        seed: of the first repeat; None where a file does not tell.
        repeats: how often every event was generated.
        settings: what was changed after training, by path.
        sets: by the reference's name.
        timing: by batches.
        timing_single: event by event.
        sweep: one entry a setting.
    """

    type: str
    kind: Literal["generator", "readout"]
    detector: str
    channels: str
    parameters: int | None
    name: str
    split: str
    split_seed: int
    particles: tuple[str, ...]
    part: Literal["test", "all"]
    seed: int | None
    repeats: int
    settings: Mapping[str, str]
    sets: Mapping[str, ScoredSet]
    timing: Timing | None
    timing_single: Timing | None = None
    sweep: tuple[SweepPoint, ...]

    def _repr_html_(self) -> str:
        """Shows in a notebook the metrics of all particles beside their floors, a table a reference."""
        tables = []
        for name, scored in self.sets.items():
            rows = "".join(
                f"<tr><td>{escape(metric)}</td><td>{_text(score.mean)}</td><td>{_text(score.std)}</td>"
                f"<td>{_text(score.floor.mean if score.floor else None)}</td></tr>"
                for metric, score in scored.all.metrics.items()
            )
            head = f"<tr><th>{escape(name)}</th><th>{escape(self.name)}</th><th>±</th><th>floor</th></tr>"
            tables.append(f"<table>{head}{rows}</table>")
        return "".join(tables)


class Repeated(Section):
    """Brier score of primaries that were tried more than once.

    Attributes:
        brier: of the probabilities; None where there are no such primaries.
        floor: what the true probabilities would have, estimated without bias.
    """

    brier: float | None
    floor: float | None


class Outcome(Section):
    """Scores of the probabilities of one outcome.

    Attributes:
        brier: mean squared difference of probability and outcome.
        auc: area under the ROC curve; None where all outcomes are the same.
        repeated: of primaries that were tried more than once.
        reliability: fractions in bins of the probability.
        all: fractions of all rows.
        particles: fractions by type of particle.
    """

    brier: float
    auc: float | None
    repeated: Repeated
    reliability: tuple[Fraction, ...]
    all: Fraction
    particles: Mapping[str, Fraction]


class ClassifiedSet(Section):
    """Scores of a zero response on one file of shots."""

    reference: ReferenceFile
    outcomes: Mapping[str, Outcome]


class ClassifierScores(TypedFile):
    """Scores of a zero response; attributes as those of `Scores`."""

    name: str
    type: str
    kind: Literal["classifier"]
    detector: str
    parameters: int
    split: str
    part: Literal["test"]
    sets: Mapping[str, ClassifiedSet]


def read_scores(path: str | Path) -> Scores:
    """Reads scores of a run or of a file of events.

    Raises:
        ValueError: as `read_typed`.
    """
    return read_typed(Scores, path)
