"""A recipe is a whole run: detector, data, model, training and seed, as strict TOML.

Unknown keys and wrong types are errors that name the key's full path and the nearest known one. The `model`
section is a plain mapping here; `caloforge.models.build` validates it against the model's own configuration.
A resolved recipe is saved beside the weights it led to.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import tomli_w
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from caloforge._lookup import nearest
from caloforge.events import Split

Config = TypeVar("Config", bound=BaseModel)


_Length = Annotated[float, Field(ge=0)]


class DataConfig(BaseModel):
    """Training data.

    Attributes:
        files: events files; empty means the sample that ships with the package.
        split: `canonical`, `grouped`, `paper`, `ordered` or `files` (see `caloforge.events`).
        reference: of `files`, files that judge; a file of the content of a training file is refused.
        validation: of `files`, the share of the rows that choose the best weights; 0.02 where not given.
        particles: PDG names to keep, such as ["n", "Lambda"]; empty keeps all.
        beam_spot: standard deviations in cm, in x, y and z, by which vertices are displaced in the training of a
            detector with a face; each ray still meets the face where it did (`events.displaced`). Zeros: not at all.
        columns: names of the files' columns by ours, such as {energy = "E", pdg = 22}; a number stands in every row.
        tree: of ROOT files, where it is not the only one and not called `events`.
        bootstrap: train on as many particles as there are, drawn with replacement, others for each member of a
            committee; rows of one particle stay together.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    files: tuple[str, ...] = ()
    split: Split = "canonical"
    reference: tuple[str, ...] | None = None
    validation: float | None = Field(None, ge=0, lt=1)
    particles: tuple[str, ...] = ()
    beam_spot: tuple[_Length, _Length, _Length] = (0.01, 0.01, 6.0)
    columns: dict[str, str | float] | None = None
    tree: str | None = None
    bootstrap: bool | None = None

    @model_validator(mode="after")
    def _files(self) -> Self:
        if self.split != "files" and (self.reference is not None or self.validation is not None):
            raise ValueError(f"reference and validation go with split = 'files', got split = {self.split!r}")
        return self


class TrainingConfig(BaseModel):
    """How the training runs; what is trained is the model's matter.

    Attributes:
        accelerator: `auto`, `cpu`, `cuda` or another of Lightning Fabric's.
        devices: number of devices or CPU processes; batches are divided among them.
        precision: `32-true` or `bf16-mixed`, which pays where the device has bf16 units.
        threads: CPU threads; 0 leaves PyTorch's choice.
        compile: compile the trained modules (torch.compile); needs a C++ compiler.
        validate_every: epochs between validations; the last epoch is always validated.
        checkpoint_every: seconds between checkpoints.
        tensorboard: also log for TensorBoard, under the run folder.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    accelerator: str = "auto"
    devices: int = Field(1, ge=1)
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    threads: int = Field(0, ge=0, le=1024)
    compile: bool = False
    validate_every: int = Field(1, ge=1)
    checkpoint_every: float = Field(60.0, ge=0)
    tensorboard: bool = False


def _folder_name(name: str) -> str:
    """Checks that a name can be that of a folder, here and not elsewhere."""
    if not re.fullmatch(r"(?![.-])[^/\\\x00-\x1f\x7f]{1,200}", name):
        raise ValueError(
            "the name of a recipe is that of its folder: 1 to 200 characters, none of them / or \\ or a line break, "
            "and no . or - in front"
        )
    return name


class Recipe(BaseModel):
    """A whole run.

    Attributes:
        name: of the run, and of its folder where no other is given.
        detector: its name.
        seed: of weights, batches, noise and splits.
        start: trained weights to begin with: the name of weights that ship, or a run folder.
        member: of a committee, which of its members this is, from 2; its weights and batches follow from the seed and
            this number, its split from the seed alone.
        data: what it is trained on.
        model: the model's section.
        training: how.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, AfterValidator(_folder_name)]
    detector: str
    seed: int = Field(0, ge=0, lt=2**63)
    start: str | None = None
    member: int | None = Field(None, ge=2)
    data: DataConfig = DataConfig()
    model: dict[str, Any]
    training: TrainingConfig = TrainingConfig()


SHOWN = 120
"""Characters of a wrong value that a message shows."""


def validated(kind: type[Config], values: Mapping[str, Any], where: str) -> Config:
    """Builds a configuration from plain values.

    Args:
        kind: the pydantic model.
        values: what TOML gave.
        where: prefix of the keys in messages, such as "model".

    Raises:
        ValueError: names each offending key by its full path, and the nearest known key for an unknown one.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problems = []
        for problem in error.errors():
            location = [str(part) for part in problem["loc"]]
            path = ".".join([where, *location] if where else location)
            if problem["type"] == "extra_forbidden":
                known = _fields(kind, location[:-1])
                problems.append(
                    f"unknown key {path!r}{nearest(location[-1], known)} (known: {', '.join(known)})"
                )
            else:
                got = repr(problem["input"])
                shown = got if len(got) <= SHOWN else f"{got[:SHOWN]}..."
                problems.append(f"{path}: {problem['msg']}, got {shown}")
        raise ValueError("; ".join(problems)) from None


def _fields(kind: type[BaseModel], location: Iterable[str]) -> list[str]:
    for part in location:
        inner = kind.model_fields[part].annotation if part in kind.model_fields else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        kind = inner
    return list(kind.model_fields)


def packaged(kind: str = "") -> dict[str, Path]:
    """Returns the recipes that ship, by name; of `kind` "spaces" search spaces, "comparisons" plans."""
    folder = Path(str(resources.files("caloforge.recipes"))) / kind
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def read(name: str | Path, kind: str = "", what: str = "recipe") -> dict[str, Any]:
    """Reads the values of a recipe, or of what else `packaged` has, from a file or from the package by name.

    Args:
        name: a file, or the name of one that ships.
        kind: as `packaged` takes it.
        what: its name in messages.

    Raises:
        ValueError: neither a file nor one that ships, or not valid TOML.
    """
    ship = packaged(kind)
    path = ship.get(str(name), Path(name))
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        names = nearest(str(name), ship) or f" (there are {', '.join(ship)})"
        raise ValueError(f"no {what} {str(name)!r}: neither a file nor one that ships{names}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ValueError(f"cannot read the {what} {path}: {error}") from error


def with_settings(values: Mapping[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """Returns the values changed by "path.to.key=value" settings; values are TOML, or strings as they are.

    Raises:
        ValueError: a setting without "=" or through a key that is no section.
    """
    changes: dict[str, Any] = {}
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or not path.strip():
            raise ValueError(f"a setting must read path.to.key=value, got {setting!r}")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text.strip()
        changes[path.strip()] = value
    return with_values(values, changes)


def with_values(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values changed at paths, such as {"model.optimizer.beta1": 0.8}.

    Raises:
        ValueError: a path through a key that is no section.
    """
    changed = _copy(values)
    for path, value in changes.items():
        *sections, key = path.split(".")
        section = changed
        for part in sections:
            section = section.setdefault(part, {})
            if not isinstance(section, dict):
                raise ValueError(f"{path!r}: {part!r} is a value, not a section")
        section[key] = value
    return changed


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `base` with `changes` over it, section by section."""
    result = dict(base)
    for key, value in changes.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


def _copy(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, Mapping) else value for key, value in values.items()}


def parse(values: Mapping[str, Any]) -> Recipe:
    """Validates a recipe's values, the `model` section aside.

    Raises:
        ValueError: as `validated`.
    """
    return validated(Recipe, values, "")


def to_toml(recipe: Recipe) -> str:
    """Returns the recipe as TOML."""
    return tomli_w.dumps(recipe.model_dump(mode="json", exclude_none=True))
