"""Files of the house as typed values: frozen, checked when they are read, and refused by the key that is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

from caloforge.io.files import read_json, write_json
from caloforge.recipe import validated


class Section(BaseModel):
    """A section of a file; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TypedFile(Section):
    """A whole file.

    Attributes:
        format: version of what the keys mean.
    """

    format: int = 1

    def __repr__(self) -> str:
        values = ((name, getattr(self, name)) for name in type(self).model_fields if name != "format")
        plain = [
            f"{name}={value!r}"
            for name, value in values
            if isinstance(value, str | int | float) and value != ""
        ]
        return f"<{type(self).__name__}: {', '.join(plain)[:200]}>"

    def content(self) -> dict[str, Any]:
        """Returns what JSON holds: keys that were given, in the order of the fields."""
        return self.model_dump(mode="json", exclude_unset=True)


File = TypeVar("File", bound=TypedFile)
Checked = TypeVar("Checked", bound=Section)


def read_typed(kind: type[File], path: str | Path) -> File:
    """Reads a file.

    Raises:
        ValueError: no such file, not JSON, of another format, or a key that is missing, unknown or of another type; the
            message names file and key.
    """
    content = read_json(path)
    known = kind.model_fields["format"].default
    got = content.get("format") if isinstance(content, dict) else type(content).__name__
    if got != known or isinstance(got, bool):
        raise ValueError(f"{path} must have format {known}, got {got!r}")
    try:
        return checked(kind, content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def checked(kind: type[Checked], content: Mapping[str, Any]) -> Checked:
    """Returns plain values as a typed file, or a section of one.

    Raises:
        ValueError: a key that is missing, unknown or of another type.
    """
    return validated(kind, content, "")


def write_typed(path: str | Path, file: TypedFile) -> None:
    """Writes a file, whole or not at all."""
    write_json(path, file.content())
