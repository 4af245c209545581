"""Trials in HDF5: primaries with how often each was shot and left a response.

| key | shape, type | meaning |
|---|---|---|
| `conditions`, `pdg`, `group`, `fold` | as in `io.hdf5` | the primary |
| `trials` | (N,) int | complete passes; rows with 0 are left out |
| `zn_hits`, `zp_hits`, `any_hits` | (N,) int | how many of them left a response in ZN, in ZP, in any |
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from caloforge.detectors import Detector
from caloforge.io import hdf5
from caloforge.io.files import replacing
from caloforge.io.source import check_file, check_lengths, columns_of, reading, whole_numbers
from caloforge.trials import OUTCOMES, Trials

_KEYS = ("trials", *(f"{outcome}_hits" for outcome in OUTCOMES))


def open_trials(path: str | Path, detector: Detector | None = None) -> Trials:
    """Reads a file of trials.

    Args:
        path: an .h5 or .hdf5 file.
        detector: whose features the primaries have; needed where the file does not tell it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is broken, lacks a key, or its counts contradict each other; the message names the
            file and, for a value, the row.
    """
    path = Path(path)
    if path.suffix.lower() not in (".h5", ".hdf5"):
        raise ValueError(f"{path}: trials are kept in .h5 or .hdf5 files")
    check_file(path)
    with reading(path):
        primaries, columns = hdf5.open_columns(path, _KEYS, detector)
        check_lengths({"conditions": len(primaries), **{key: len(column) for key, column in columns.items()}})
        counts = {key: whole_numbers(column, key, np.int32) for key, column in columns.items()}
        if (counts["trials"] < 0).any():
            row = int(np.argmax(counts["trials"] < 0))
            raise ValueError(f"trials must not be negative, got {counts['trials'][row]} in row {row}")
        shot = counts["trials"] > 0
        if not shot.any():
            raise ValueError("no primary was shot: every row has 0 trials")
        tried = primaries.select(np.flatnonzero(shot))
        return Trials(
            tried.detector,
            tried.conditions,
            tried.pdg,
            tried.group,
            tried.fold,
            counts["trials"][shot],
            np.stack([counts[f"{outcome}_hits"][shot] for outcome in OUTCOMES], 1),
        )


def write_trials(path: str | Path, trials: Trials, provenance: Mapping[str, Any] | None = None) -> None:
    """Writes a file of trials, whole or not at all.

    Args:
        path: an .h5 file; an existing one is replaced.
        trials: what to write.
        provenance: where they come from; anything JSON can hold.
    """
    extra = {"trials": trials.trials}
    extra |= {f"{name}_hits": column for name, column in zip(OUTCOMES, trials.hits.T, strict=True)}
    with replacing(path) as temporary:
        text = json.dumps(dict(provenance or {}))
        output = hdf5.output(temporary, trials.detector, text, None, level=9)
        try:
            output.append(columns_of(trials))
            for name, column in extra.items():
                output.column(name, column)
        finally:
            output.finish()
