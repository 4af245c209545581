"""What the command line says of an error: one line, and the exit code.

Code 2 is for what the user can mend: an input, an option, a package that is missing, a disk. Code 1 is a defect of
caloforge.
"""

from __future__ import annotations

import csv
from typing import Any

USERS = (
    ValueError,
    OSError,
    ImportError,
    FloatingPointError,
    OverflowError,
    MemoryError,
    RecursionError,
    csv.Error,
)
"""Errors of inputs and of the machine; libraries raise the last four on broken files."""

EXTRAS = {
    "awkward": "root",
    "distributed": "dask",
    "geant4_pybind": "geant4",
    "hist": "report",
    "jinja2": "report",
    "lightning_fabric": "train",
    "matplotlib": "report",
    "mplhep": "report",
    "onnx": "export",
    "onnxscript": "export",
    "openvino": "openvino",
    "optuna": "tune",
    "pandas": "frames",
    "polars": "frames",
    "pyarrow": "parquet",
    "safetensors": "train",
    "sklearn": "train",
    "tensorboard": "tensorboard",
    "torch": "train",
    "uproot": "root",
    "zuko": "train",
}
"""Optional packages, as they are imported, and the extras that bring them."""


def explained(error: BaseException) -> tuple[str, int]:
    """Returns what is said of an error, in one line, and the exit code."""
    usage: Any = getattr(error, "format_message", None)  # of the library of the command line
    if usage is not None:
        context: Any = getattr(error, "ctx", None)
        path = context.command_path if context else "caloforge"
        return one_line(f"error: {str(usage()).rstrip('.')}; see {path} --help"), 2
    package = ((error.name or "") if isinstance(error, ModuleNotFoundError) else "").partition(".")[0]
    if package in EXTRAS:
        return f"error: this needs the package {package}: pip install 'caloforge[{EXTRAS[package]}]'", 2
    text = one_line(str(error))
    if isinstance(error, USERS):
        return f"error: {text or type(error).__name__}", 2
    return (
        f"error: a defect of caloforge, {type(error).__name__}: {text}; caloforge --traceback ... shows more, "
        "please report it",
        1,
    )


def one_line(text: str) -> str:
    """Returns a text as one line that a terminal can show: breaks and control characters are written out."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text.replace("\n\t", " ")
    )
