"""A run folder: what a training leaves and every later step reads.

recipe.toml          the resolved recipe
weights.safetensors  the best weights by validation; weights that ship may go on in weights-2.safetensors, ...
card.json            data and their hashes, split, seed, version, budget, number of parameters
log.csv              one row an epoch
checkpoint.pt        the last state, for --resume; not needed afterwards
scores.json          what `evaluate` wrote, with generated/<reference>.h5, the events of its first repeat
members/2, ...       of a committee, the run folders of its further members; the folder itself is the first
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge._lookup import require
from caloforge.io.card import Card
from caloforge.io.files import replacing, sha256, write_text
from caloforge.io.typed import read_typed, write_typed
from caloforge.recipe import Recipe, parse, read, to_toml

PARTS = "parts"
"""Key in the metadata of weights: a JSON object, the further files by name, with their hashes."""


@dataclass(frozen=True)
class Run:
    """A run folder by its path; the folder need not exist yet."""

    path: Path

    @property
    def weights(self) -> Path:
        """The best weights."""
        return self.path / "weights.safetensors"

    @property
    def checkpoint(self) -> Path:
        """The last state of the training."""
        return self.path / "checkpoint.pt"

    @property
    def scores(self) -> Path:
        """What `evaluate` wrote."""
        return self.path / "scores.json"

    def generated(self, reference: str) -> Path:
        """The events of the first repeat for the reference of that name."""
        return self.path / "generated" / f"{reference}.h5"

    def member(self, number: int) -> Run:
        """The run of a member of the committee, from 1; the first is this run."""
        return self if number == 1 else Run(self.path / "members" / str(number))

    @property
    def members(self) -> int:
        """How many members have finished, with none missing before them; 1 where there is no committee."""
        number = 1
        while (self.member(number + 1).path / "card.json").is_file():
            number += 1
        return number

    def replica(self, number: int) -> tuple[Run, int]:
        """Returns the run that has the weights of a replica, and the number by which it knows them.

        Of a committee that is a member, 0 of it; of any other run the run itself, and the number.

        Raises:
            ValueError: a committee without a member of that number.
        """
        members = self.members
        if members == 1 or number == 0:
            return self, number
        if not 1 <= number <= members:
            raise ValueError(
                f"{self.path} is a committee of {members}: wanted a replica from 1 to {members}, got {number}"
            )
        return self.member(number), 0

    def write_recipe(self, recipe: Recipe) -> None:
        """Writes the resolved recipe."""
        write_text(self.path / "recipe.toml", to_toml(recipe))

    def recipe(self) -> Recipe:
        """Reads the resolved recipe.

        Raises:
            ValueError: not a run folder.
        """
        if not (self.path / "recipe.toml").is_file():
            raise ValueError(f"{self.path} is not a run folder: it has no recipe.toml")
        return parse(read(self.path / "recipe.toml"))

    def write_card(self, card: Card) -> None:
        """Writes the card."""
        write_typed(self.path / "card.json", card)

    def card(self) -> Card:
        """Reads the card.

        Raises:
            ValueError: no card (the training has not finished), or one that is none; the message names the key.
        """
        if not (self.path / "card.json").is_file():
            raise ValueError(
                f"{self.path} has no card.json: not a run folder, or its training has not finished"
            )
        return read_typed(Card, self.path / "card.json")

    def check_weights(self) -> str:
        """Returns the hash of the weights, after a look whether they are those of the card.

        The first file's hash stands for all: it names those of its further files.

        Raises:
            ValueError: no weights, or others than the training left. A card of an older version does not tell.
        """
        if not self.weights.is_file():
            raise ValueError(f"there are no weights {self.weights}")
        expected, digest = self.card().weights, sha256(self.weights)
        if expected is not None and digest != expected:
            raise ValueError(
                f"{self.weights} is not what the training left: card.json has its sha256 as {expected}, it is {digest}"
            )
        return digest

    def write_log(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes the log, one row an epoch; columns are those of any row, in order of appearance."""
        columns = list(dict.fromkeys(key for row in rows for key in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.path / "log.csv", text.getvalue())

    def log(self) -> list[dict[str, str]]:
        """Reads the log; empty where there is none."""
        path = self.path / "log.csv"
        if not path.is_file():
            return []
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))


def write_weights(path: Path, tensors: Mapping[str, NDArray[np.generic]], limit: int | None = None) -> None:
    """Writes named arrays as safetensors, whole or not at all.

    Args:
        path: the file.
        tensors: named arrays.
        limit: bytes of arrays a file may have. What is beyond goes, array by array, to further files beside it, NAME-2,
            NAME-3, ...; the first file has their names and hashes in its metadata, under `parts`, so that its own hash
            stands for all.
    """
    save = require("safetensors.numpy", "train").save
    parts: list[dict[str, NDArray[np.generic]]] = [{}]
    for name, tensor in tensors.items():
        size = sum(tensor_there.nbytes for tensor_there in parts[-1].values())
        if limit is not None and parts[-1] and size + tensor.nbytes > limit:
            parts.append({})
        parts[-1][name] = np.ascontiguousarray(tensor)
    others = {f"{path.stem}-{number}{path.suffix}": save(part) for number, part in enumerate(parts[1:], 2)}
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in others.items()}
    first = save(parts[0], metadata={PARTS: json.dumps(hashes)} if hashes else None)
    for name, content in (*others.items(), (path.name, first)):
        with replacing(path.with_name(name)) as temporary:
            temporary.write_bytes(content)  # save_file would leave a file that only its owner may read


def read_weights(path: Path) -> dict[str, NDArray[np.generic]]:
    """Reads named arrays from safetensors, with those of its further files.

    Raises:
        ValueError: no such file, or another format; pickles are never loaded. Or a further file is not the one that
            was written with the first.
    """
    tensors, metadata = _read_file(path)
    for name, expected in json.loads(metadata.get(PARTS, "{}")).items():
        other = path.with_name(Path(name).name)
        more, _ = _read_file(other)
        if (digest := sha256(other)) != expected:
            raise ValueError(
                f"{other} must have the sha256 {expected}, which {path.name} names, got {digest}"
            )
        tensors |= more
    return tensors


def _read_file(path: Path) -> tuple[dict[str, NDArray[np.generic]], dict[str, str]]:
    """Reads one file: its arrays and its metadata."""
    safetensors = require("safetensors", "train")
    try:
        with safetensors.safe_open(path, framework="np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except FileNotFoundError:
        raise ValueError(f"there are no weights {path}") from None
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} is not a safetensors file ({error}); pickled weights are never loaded"
        ) from None
