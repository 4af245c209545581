"""Finds things by name: the nearest known name for an error message, and values of outside code."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType
from typing import TypeVar

T = TypeVar("T")

SHORTEST_BEGINNING = 4
"""Letters of what may be the beginning of a longer name."""

_TRUSTED: set[str] = set()
"""Names of outside code that the user gave to this process, so that files may repeat them."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns ", did you mean 'x'?" for the closest known name, also for the beginning of one, or an empty string."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if len(name) >= SHORTEST_BEGINNING:
        beginnings = {
            other[: len(name)]: other
            for other in sorted(known, key=len, reverse=True)
            if len(other) > len(name)
        }
        begun = difflib.get_close_matches(name, beginnings, n=1, cutoff=0.8)
        if begun and (not close or difflib.SequenceMatcher(None, close[0], name).ratio() < 0.8):
            close = [beginnings[begun[0]]]
    return f", did you mean {close[0]!r}?" if close else ""


def outside(path: str, kind: type[T], *, trust: bool) -> T:
    """Imports `package.module:name` and checks that it is a `kind` (or a subclass, for classes).

    Args:
        path: the name.
        kind: what it must be.
        trust: whether the user named it, or trusts the file that does. Code that a file names is not run otherwise.

    Raises:
        ValueError: not to be trusted, the path cannot be imported, or it names something else.
    """
    if not trust and path not in _TRUSTED:
        raise ValueError(
            f"a file names {path!r}, code outside caloforge, which is not run because a file says so: name it "
            "yourself (a detector by --detector), or give --trust (Python: trust=True) where you trust its maker"
        )
    module, _, name = path.partition(":")
    try:
        value = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"cannot import {path!r}: {error}") from error
    _TRUSTED.add(path)
    if not isinstance(value, kind):
        raise ValueError(f"{path!r} must be a {kind.__name__}, got {type(value).__name__}")
    return value


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
