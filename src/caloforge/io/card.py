"""`card.json` of a run and of a bundle: what a model is, what it was trained on, and by which program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from caloforge.io.typed import Section, TypedFile

Kind = Literal["generator", "readout", "classifier"]


class DataFile(Section):
    """A file of training events.

    Attributes:
        name: of the file, without its folder.
        sha256: hash of its content.
        rows: how many went to each part of the split.
        content: `content_hash` of its events; of the split `files`.
    """

    name: str
    sha256: str
    rows: Mapping[str, int]
    content: str | None = None


class JudgingFile(Section):
    """A file that a run of the split `files` is judged with.

    Attributes:
        name: of the file, without its folder.
        sha256: hash of its content.
        rows: how many events it has.
        content: `content_hash` of its events.
    """

    name: str
    sha256: str
    rows: int
    content: str


class StartedFrom(Section):
    """The weights that a training began with.

    Attributes:
        name: of their run.
        weights: SHA-256 of them.
        taken: arrays that fitted.
        arrays: arrays of the model.
    """

    name: str
    weights: str
    taken: int
    arrays: int


class Budget(Section):
    """What a training took.

    Attributes:
        seconds: wall time, of all sittings.
        machine: architecture, cores and version of PyTorch.
        epochs: epochs of all stages.
        best_epoch: the epoch whose weights were kept.
    """

    seconds: float
    machine: str
    epochs: int
    best_epoch: int


class Card(TypedFile):
    """What a training leaves.

    Attributes:
        name: of the run.
        type: of the model.
        kind: what it gives: responses, channel sums, or probabilities.
        detector: its name.
        features: names of the conditions.
        units: their units; None of an older version.
        channels: name of the channel map; empty for a classifier.
        data: the training files.
        domain: what the training events cover (`caloforge.runtime.domain`); None of an older version.
        split: by which rows were parted.
        validation: share of the training rows that chose the weights; of the split `files`.
        reference: the files that judge; of the split `files`.
        particles: PDG names it keeps to; empty for all.
        seed: of the split, the weights and the batches.
        start: the trained weights that it began with; None where there were none.
        rounding: how counts become whole.
        made_with: what the training used besides events; empty where it was nothing.
        parameters: trained parameters.
        version: of caloforge.
        git_revision: of its source; empty for an installed package.
        created: time, UTC.
        training: what it took.
        storage: number format of the weights that ship, where it is not that of the training.
        weights: SHA-256 of the weights; None of an older version.
    """

    name: str
    type: str
    kind: Kind
    detector: str
    features: tuple[str, ...]
    units: tuple[str, ...] | None = None
    channels: str
    data: tuple[DataFile, ...]
    domain: Mapping[str, Any] | None = None
    split: str
    validation: float | None = None
    reference: tuple[JudgingFile, ...] | None = None
    particles: tuple[str, ...]
    seed: int
    start: StartedFrom | None = None
    rounding: str = ""
    made_with: Mapping[str, Any] | None = None
    parameters: int
    version: str
    git_revision: str = ""
    created: str = ""
    training: Budget
    storage: str = ""
    weights: str | None = None
