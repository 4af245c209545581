"""The split `files`: one set of files trains, another one judges."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from caloforge.detectors import detector_named
from caloforge.events import VALIDATION, EventSource, Joined, split
from caloforge.io import open_events
from caloforge.io.columns import layout_of_recipe
from caloforge.io.content import check_other_content, content_hash
from caloforge.io.files import sha256
from caloforge.recipe import Recipe


def references(recipe: Recipe) -> dict[Path, EventSource]:
    """Opens the files that will judge, where the recipe names some."""
    detector = detector_named(recipe.detector)
    return {
        Path(file): open_events(file, detector, layout_of_recipe(recipe.data))
        for file in recipe.data.reference or ()
    }


def check_references(recipe: Recipe, files: Mapping[str, EventSource]) -> None:
    """Checks that the files that will judge are not those that train.

    Raises:
        ValueError: a file of the same content, or one that cannot be read.
    """
    opened = references(recipe)
    if opened:
        contents = {content_hash(source): Path(path).name for path, source in files.items()}
        check_other_content(opened, contents)


def share_of(recipe: Recipe) -> float:
    """Returns the share of the training files' rows that choose the best weights."""
    share = recipe.data.validation
    return VALIDATION if share is None else share


def card_entries(recipe: Recipe, files: Mapping[str, EventSource]) -> dict[str, Any]:
    """Returns what the card of a run of the split `files` has besides: nothing of other splits."""
    if recipe.data.split != "files":
        return {}
    return {
        "validation": share_of(recipe),
        "reference": [
            {"name": path.name, "sha256": sha256(path), "rows": len(source), "content": content_hash(source)}
            for path, source in references(recipe).items()
        ],
    }


def content_entries(recipe: Recipe, files: Mapping[str, EventSource]) -> dict[str, dict[str, str]]:
    """Returns what the card says of each training file's content: nothing of other splits."""
    if recipe.data.split != "files":
        return {path: {} for path in files}
    return {path: {"content": content_hash(source)} for path, source in files.items()}


def planned(recipe: Recipe, files: Mapping[str, EventSource]) -> str:
    """Says in a line what trains, what chooses the weights and what judges; empty of other splits than `files`."""
    if recipe.data.split != "files":
        return ""
    share = share_of(recipe)
    rows = [len(part) for part in split(Joined(list(files.values())), "files", validation=share).values()]
    trains = ", ".join(Path(path).name for path in files)
    judges = ", ".join(Path(path).name for path in recipe.data.reference or ()) or "a file of other content"
    return (
        f"{rows[0]:,} rows of {trains} train, {rows[1]:,} ({100 * share:g} %) choose the weights; "
        f"every row of {judges} judges"
    )
