"""Torch-free generation: noise, events in constant memory, and bundles, which run with ONNX Runtime.

`Surrogate.load("bundle").sample(primaries, seed=1)` is all a program needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from caloforge.runtime.bundle import Surrogate

__all__ = ["Surrogate"]


def __getattr__(name: str) -> Any:
    # on demand, since the torch world takes noise and files from here and needs no ONNX Runtime
    if name == "Surrogate":
        from caloforge.runtime.bundle import Surrogate

        return Surrogate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
