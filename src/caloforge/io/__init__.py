"""Reads and writes events: HDF5, NumPy archives, Parquet, ROOT, and CSV for particles."""

from caloforge.io.columns import Layout, NoResponsesError
from caloforge.io.files import sha256
from caloforge.io.formats import (
    FORMATS,
    EventWriter,
    carried,
    convert,
    create,
    negative_cells,
    open_data,
    open_events,
    open_particles,
    open_primaries,
    open_to_judge,
    provenance,
)
from caloforge.io.merging import merge
from caloforge.io.source import FileParticles, FileSource
from caloforge.io.summary import ResponseSummary, Summary, summarize
from caloforge.io.trials import open_trials, write_trials

__all__ = [
    "FORMATS",
    "EventWriter",
    "FileParticles",
    "FileSource",
    "Layout",
    "NoResponsesError",
    "ResponseSummary",
    "Summary",
    "carried",
    "convert",
    "create",
    "merge",
    "negative_cells",
    "open_data",
    "open_events",
    "open_particles",
    "open_primaries",
    "open_to_judge",
    "open_trials",
    "provenance",
    "sha256",
    "summarize",
    "write_trials",
]
