"""Fast generative surrogates of calorimeter simulation: train, validate, export, deploy.

A generator is a deterministic function of conditions and noise: physical units in, physical units out.

The names below are what most users need; they are imported when they are first used.
"""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from caloforge.detectors import DETECTORS as DETECTORS
    from caloforge.detectors import Detector as Detector
    from caloforge.events import Events as Events
    from caloforge.events import Primaries as Primaries
    from caloforge.face import Model as Model
    from caloforge.face import evaluate as evaluate
    from caloforge.face import load as load
    from caloforge.face import primaries as primaries
    from caloforge.face import read as read
    from caloforge.face import sample as sample
    from caloforge.face import train as train
    from caloforge.face import write as write
    from caloforge.report import write_report as write_report
    from caloforge.runtime.bundle import Surrogate as Surrogate

__version__ = version("caloforge")

_PLACES = {
    "DETECTORS": "caloforge.detectors",
    "Detector": "caloforge.detectors",
    "Events": "caloforge.events",
    "Model": "caloforge.face",
    "Primaries": "caloforge.events",
    "Surrogate": "caloforge.runtime.bundle",
    "evaluate": "caloforge.face",
    "load": "caloforge.face",
    "primaries": "caloforge.face",
    "read": "caloforge.face",
    "sample": "caloforge.face",
    "train": "caloforge.face",
    "write": "caloforge.face",
    "write_report": "caloforge.report",
}

__all__ = ["__version__", *_PLACES]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'caloforge' has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
