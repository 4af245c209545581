"""Runs as a report sees them: what their folders say, and which of them can stand side by side.

Two runs can be compared where they were scored on the same rows of the same file with the same channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caloforge.detectors import Detector, detector_named
from caloforge.events import EventSource, Joined, Selected, judged, of_particles
from caloforge.io import open_to_judge, sha256
from caloforge.io.card import Card
from caloforge.io.run import Run as Folder
from caloforge.io.scores import FurtherFile, ReferenceFile, Scores, read_scores
from caloforge.metrics import align
from caloforge.report.drawing import Style, style
from caloforge.samples import SAMPLES, sample


@dataclass(frozen=True, eq=False)
class Run:
    """Holds what a run folder says.

    Attributes:
        path: the folder.
        name: unique on the page.
        scores: what `scores.json` holds.
        card: what `card.json` holds; None where there is none.
        look: how the run is drawn.
    """

    path: Path
    name: str
    scores: Scores
    card: Card | None
    look: Style

    @property
    def split_seed(self) -> int:
        """The seed of the split."""
        return self.scores.split_seed

    @property
    def particles(self) -> tuple[str, ...]:
        """PDG names the run keeps to; empty for all."""
        return self.scores.particles


@dataclass(frozen=True, eq=False)
class Comparison:
    """Holds runs that were scored on the same rows of the same file.

    Attributes:
        detector: the detector.
        stem: name of the set in the scores.
        reference: the test rows of the reference, in order.
        file: the reference file.
        sha256: its hash.
        runs: the runs, as on the whole page.
        generated: for each run the events of its first repeat, row by row; None where none were kept.
        replicas: for each run the same events by each of its replicas; mostly none.
    """

    detector: Detector
    stem: str
    reference: EventSource
    file: Path
    sha256: str
    runs: tuple[Run, ...]
    generated: tuple[EventSource | None, ...]
    replicas: tuple[tuple[EventSource, ...], ...] = ()

    @property
    def shown(self) -> list[tuple[Run, EventSource]]:
        """Runs with generated events."""
        return [
            (run, source) for run, source in zip(self.runs, self.generated, strict=True) if source is not None
        ]

    def replicas_of(self, run: Run) -> tuple[EventSource, ...]:
        """Returns the events by each replica of one of the runs; none where it has none."""
        return self.replicas[self.runs.index(run)] if self.replicas else ()

    @property
    def scores(self) -> list[Scores]:
        """Scores of the runs."""
        return [run.scores for run in self.runs]

    @property
    def names(self) -> list[str]:
        """Names of the runs."""
        return [run.name for run in self.runs]


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """Reads run folders and files of scores; two of the same name are told apart by their folders.

    Raises:
        ValueError: no runs, the same folder twice, or no readable scores.
    """
    folders = [Path(path) for path in paths]
    if not folders:
        raise ValueError("a report needs at least one run")
    for folder in folders:
        if folders.count(folder) > 1:
            raise ValueError(f"each run may be given once, got {folder} {folders.count(folder)} times")
        if not folder.is_file() and not (folder / "scores.json").is_file():
            raise ValueError(f"{folder} has no scores.json: caloforge evaluate writes it")
    files = [folder if folder.is_file() else folder / "scores.json" for folder in folders]
    every = [read_scores(file) for file in files]
    names = [scores.name for scores in every]
    runs = []
    for number, (folder, scores, name) in enumerate(zip(folders, every, names, strict=True)):
        unique = f"{name} ({folder.name})" if names.count(name) > 1 else name
        card = Folder(folder).card() if (folder / "card.json").is_file() else None
        path = folder.parent if folder.is_file() else folder
        runs.append(Run(path, unique, scores, card, style(number, unique)))
    return runs


def comparisons(runs: Sequence[Run], references: Mapping[str, Path]) -> list[Comparison]:
    """Opens the reference of every set and the events generated for it, and puts runs of equal rows together.

    Raises:
        ValueError: as `write_report`.
    """
    unknown = sorted(set(references) - {stem for run in runs for stem in run.scores.sets})
    if unknown:
        raise ValueError(
            f"no run was scored on a set {unknown[0]!r}, so it cannot be a --reference; "
            f"there are {', '.join(sorted({stem for run in runs for stem in run.scores.sets}))}"
        )
    together: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        scores = run.scores
        for stem, scored in scores.sets.items():
            seed = None if scores.split == "canonical" else run.split_seed
            key = (
                scores.detector, stem, scored.reference.sha256, scored.reference.rows, scores.channels,
                scores.split, scores.part, seed, run.particles,
            )  # fmt: skip
            together.setdefault(key, []).append(run)
    return [_comparison(stem, alike, references) for (_, stem, *_), alike in together.items()]


def _comparison(stem: str, runs: Sequence[Run], references: Mapping[str, Path]) -> Comparison:
    first = runs[0]
    detector = detector_named(first.scores.detector, trust=False)
    judging = first.scores.sets[stem].reference
    file = references.get(stem) or _where(stem, judging)
    if not file.is_file():
        raise ValueError(
            f"the reference {stem} of {first.path} is not at {file}: "
            f"say where it is with --reference FOLDER/{file.name}"
        )
    digest = sha256(file)
    if digest != judging.sha256:
        raise ValueError(
            f"{file} is not the file {first.path} was scored on: its sha256 must be {judging.sha256[:12]}..., "
            f"got {digest[:12]}...; say where that file is with --reference"
        )
    source = open_to_judge(file, detector)
    if judging.further:
        source = Joined([source, *(_further(entry, file, first, detector) for entry in judging.further)])
    reference = _scored_rows(source, first)
    if len(reference) != judging.rows:
        raise ValueError(
            f"{file} must have the {judging.rows} {first.scores.part} rows that {first.path} was scored on, "
            f"got {len(reference)}"
        )
    generated: list[EventSource | None] = []
    for run in runs:
        name = run.scores.sets[stem].generated
        if not name:
            generated.append(None)
            continue
        events: EventSource = open_to_judge(run.path / name, detector)
        if run.scores.type == "events" and run.scores.part == "test" and isinstance(reference, Selected):
            events = Selected(events, reference.rows)
        if not _any_rows(run, detector):
            try:
                align(reference.primaries, events.primaries)
            except ValueError as error:
                raise ValueError(f"{run.path / name}: {error}") from error
        generated.append(events)
    replicas = tuple(
        tuple(open_to_judge(run.path / name, detector) for name in run.scores.sets[stem].replicas)
        for run in runs
    )
    return Comparison(
        detector, stem, reference, file, judging.sha256, tuple(runs), tuple(generated), replicas
    )


def _further(entry: FurtherFile, beside: Path, run: Run, detector: Detector) -> EventSource:
    """Opens a further file of a reference, where it was or beside the first."""
    places = (Path(entry.path), beside.with_name(Path(entry.path).name))
    path = next(filter(Path.is_file, places), None)
    if path is None or sha256(path) != entry.sha256:
        raise ValueError(
            f"{run.path} was scored on {entry.path} too, which is not there, nor beside {beside}, or has changed"
        )
    return open_to_judge(path, detector)


def _where(stem: str, judging: ReferenceFile) -> Path:
    """Returns where a reference lies: where it was, or the sample of that name and content that ships."""
    file = Path(judging.path)
    if stem in SAMPLES and not (file.is_file() and sha256(file) == judging.sha256):
        shipped = sample(stem)
        return shipped if sha256(shipped) == judging.sha256 else file
    return file


def _any_rows(run: Run, detector: Detector) -> bool:
    """Says whether generated showers need not be those of the reference row by row: they came from elsewhere."""
    return bool(detector.layers) and run.scores.type == "events" and run.scores.part == "all"


def _scored_rows(source: EventSource, run: Run) -> EventSource:
    """Selects the rows of a reference that a run was scored on, in their order."""
    chosen = of_particles(source, run.particles)
    if run.scores.part == "all":
        return chosen
    rows = judged(chosen, run.scores.split, run.split_seed)  # type: ignore[arg-type]
    return Selected(source, chosen.rows[rows] if isinstance(chosen, Selected) else rows)
