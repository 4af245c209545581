"""Small parts of sentences."""

from __future__ import annotations

from collections.abc import Sequence


def joined(names: Sequence[str]) -> str:
    """Lists names as in a sentence: "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def plural(count: int, word: str) -> str:
    """Counts things: "1 row", "2 rows"."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"
