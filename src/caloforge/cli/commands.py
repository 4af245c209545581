"""How verbs show themselves: numbers by a letter, summaries whole, and what completes a word."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from typer.core import TyperCommand, TyperGroup


class Verb(TyperCommand):
    """A command whose numbers are shown as N and whose summary is not cut off in lists."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        for parameter in self.params:
            kind: Any = getattr(parameter, "type_descriptor", None)
            if parameter.metavar is None and getattr(kind, "is_ranged", False):
                parameter.metavar = "N" if kind.ranged_type_name == "int" else "X"

    def get_short_help_str(self, limit: int = 0) -> str:
        """Returns the first paragraph of the help, however long."""
        return _summary(self.help)


class Verbs(TyperGroup):
    """A group of commands whose summary is not cut off either."""

    def get_short_help_str(self, limit: int = 0) -> str:
        """Returns the first paragraph of the help, however long."""
        return _summary(self.help)


def _summary(text: str | None) -> str:
    return " ".join((text or "").partition("\n\n")[0].split())


def runs(incomplete: str) -> list[str]:
    """Completes the name of weights that ship."""
    from caloforge import samples

    return _starting(samples.weights(), incomplete)


def recipes(incomplete: str) -> list[str]:
    """Completes the name of a recipe that ships."""
    from caloforge.recipe import packaged

    return _starting(packaged(), incomplete)


def data(incomplete: str) -> list[str]:
    """Completes `sample:NAME`."""
    from caloforge import samples

    names = [f"sample:{name}" for name in (*samples.SAMPLES, samples.TRIALS)]
    return _starting(names, incomplete)


def detectors(incomplete: str) -> list[str]:
    """Completes the name of a detector."""
    from caloforge.detectors import DETECTORS

    return _starting(DETECTORS, incomplete)


def _starting(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
