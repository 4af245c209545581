"""Finds things by name: the nearest known name for an error message, and values of outside code."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType
from typing import TypeVar

T = TypeVar("T")


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns ", did you mean 'x'?" for the closest known name, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f", did you mean {close[0]!r}?" if close else ""


def outside(path: str, kind: type[T]) -> T:
    """Imports `package.module:name` and checks that it is a `kind` (or a subclass, for classes).

    Raises:
        ValueError: the path cannot be imported or names something else.
    """
    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"cannot import {path!r}: {error}") from error
    if not isinstance(found, kind):
        raise ValueError(f"{path!r} must be a {kind.__name__}, got {type(found).__name__}")
    return found


def require(module: str, extra: str) -> ModuleType:
    """Imports an optional package.

    Raises:
        ImportError: the package is missing; the message says what to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ImportError(f"this needs the package {package}: pip install 'caloforge[{extra}]'") from error
