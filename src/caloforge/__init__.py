"""Fast generative surrogates of calorimeter simulation: train, validate, export, deploy.

A generator is a deterministic function of conditions and noise: physical units in, physical units out.

The names below are what most users need; they are imported when they are first used.
"""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from caloforge import plot as plot
    from caloforge.detectors import DETECTORS as DETECTORS
    from caloforge.detectors import Detector as Detector
    from caloforge.events import Events as Events
    from caloforge.events import Primaries as Primaries
    from caloforge.export.bundle import export as export_bundle  # noqa: F401
    from caloforge.export.o2 import export_o2 as export_o2
    from caloforge.face import Model as Model
    from caloforge.face import evaluate as evaluate
    from caloforge.face import load as load
    from caloforge.face import primaries as primaries
    from caloforge.face import read as read
    from caloforge.face import sample as sample
    from caloforge.face import train as train
    from caloforge.face import weigh as weigh
    from caloforge.face import write as write
    from caloforge.report import write_report as write_report
    from caloforge.runtime.bundle import Surrogate as Surrogate
    from caloforge.simulate import simulate as simulate_events  # noqa: F401

__version__ = version("caloforge")

# name: module, and what it is called there; subpackages have the plain names of some verbs
_PLACES = {
    "DETECTORS": ("caloforge.detectors", "DETECTORS"),
    "Detector": ("caloforge.detectors", "Detector"),
    "Events": ("caloforge.events", "Events"),
    "Model": ("caloforge.face", "Model"),
    "Primaries": ("caloforge.events", "Primaries"),
    "Surrogate": ("caloforge.runtime.bundle", "Surrogate"),
    "evaluate": ("caloforge.face", "evaluate"),
    "export_bundle": ("caloforge.export.bundle", "export"),
    "export_o2": ("caloforge.export.o2", "export_o2"),
    "load": ("caloforge.face", "load"),
    "plot": ("caloforge.plot", ""),
    "primaries": ("caloforge.face", "primaries"),
    "read": ("caloforge.face", "read"),
    "sample": ("caloforge.face", "sample"),
    "simulate_events": ("caloforge.simulate", "simulate"),
    "train": ("caloforge.face", "train"),
    "weigh": ("caloforge.face", "weigh"),
    "write": ("caloforge.face", "write"),
    "write_report": ("caloforge.report", "write_report"),
}

__all__ = ["__version__", *_PLACES]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'caloforge' has no attribute {name!r}")
    place, inner = _PLACES[name]
    module = importlib.import_module(place)
    return getattr(module, inner) if inner else module


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
