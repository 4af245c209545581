"""Recognises data by what they hold: a copy, a converted or a renamed file has the same content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from caloforge.events import Events, EventSource
from caloforge.io.card import DataFile

RESPONSES = 64
"""Responses that go into a hash, evenly spaced: reading all of a large file would take minutes."""


def content_hash(source: EventSource) -> str:
    """Returns a hash of all particles of a source, and of some responses as float32, whatever the file format."""
    particles = source.primaries
    digest = hashlib.sha256(str(particles.conditions.shape).encode())
    digest.update(np.ascontiguousarray(particles.conditions, "<f4").tobytes())
    digest.update(np.ascontiguousarray(particles.pdg, "<i4").tobytes())
    rows = np.unique(np.linspace(0, len(source) - 1, min(RESPONSES, len(source))).astype(np.intp))
    some = source.slices(rows)
    if isinstance(some, Events):
        digest.update(np.ascontiguousarray(some.responses, "<f4").tobytes())
    return digest.hexdigest()


def check_other_content(
    references: Mapping[Path, EventSource], training: Mapping[str, str], what: str = "the training file"
) -> None:
    """Compares the content of references with that of training files.

    Args:
        references: opened files to judge with.
        training: names of training files by their `content_hash`.
        what: the training files' name in the message.

    Raises:
        ValueError: a reference that was trained on.
    """
    for path, source in references.items() if training else ():
        name = training.get(content_hash(source))
        if name is not None:
            raise ValueError(
                f"the reference {path} has the content of {what} {name}: judge with a file that nothing was trained on"
            )


def contents_of(data: Iterable[DataFile]) -> dict[str, str]:
    """Returns the names of a run's training files by their content, where its card has it: of the split `files`."""
    return {file.content: file.name for file in data if file.content is not None}


def trained_on(data: Iterable[DataFile]) -> dict[str, Any]:
    """Returns what a file of generated events says of its model's training files: nothing of other splits."""
    contents = contents_of(data)
    return {"trained_on": contents} if contents else {}
