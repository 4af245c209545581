"""What a search may change: keys of a recipe, each with its range, as strict TOML.

    objective = "w1"

    [parameters.model.optimizer]
    learning_rate = { type = "float", low = 1e-6, high = 1e-2, log = true }
    schedule = { type = "categorical", choices = ["constant", "cosine"] }

The sections below `parameters` are those of the recipe; "model.optimizer.beta1" in quotes is the same key. Ranges
hold both ends. A key that the model's configuration does not have, or an end that it refuses, is an error before
anything is trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from caloforge._lookup import nearest
from caloforge.io.study import Choices, FloatRange, IntRange, Parameter, Space
from caloforge.models import configuration
from caloforge.recipe import Recipe, parse, read, validated, with_values

FIXED = ("name", "detector", "data")
"""Keys of a recipe that no search may change: trials are compared on the same events."""


KINDS: Mapping[str, type[Parameter]] = {"float": FloatRange, "int": IntRange, "categorical": Choices}


def read_space(name: str | Path) -> Space:
    """Reads a search space from a file, or one that ships by its name.

    Raises:
        ValueError: neither a file nor one that ships, not valid TOML, an unknown key or a range that is none.
    """
    return parse_space(read(name, "spaces", "search space"))


def parse_space(values: Mapping[str, Any]) -> Space:
    """Validates the values of a search space.

    Raises:
        ValueError: as `read_space`.
    """
    parameters = values.get("parameters", {})
    if not isinstance(parameters, Mapping):
        raise ValueError(f"parameters must be a section, got {parameters!r}")
    ranges = {path: _parameter(path, values_of) for path, values_of in _by_path(parameters).items()}
    return validated(Space, {**values, "parameters": ranges}, "")


def _by_path(section: Mapping[str, Any], at: str = "") -> dict[str, Any]:
    """Returns what nested sections hold by its path; a section with a key of a range is a range."""
    by_path: dict[str, Any] = {}
    for key, inner_section in section.items():
        path = f"{at}.{key}" if at else key
        inner = isinstance(inner_section, Mapping) and not any(
            name in inner_section and not isinstance(inner_section[name], Mapping)
            for name in ("type", "low", "high", "choices")
        )
        by_path |= _by_path(inner_section, path) if inner else {path: inner_section}
    return by_path


def _parameter(path: str, values: Any) -> Parameter:
    where = f"parameters.{path}"
    if not isinstance(values, Mapping):
        raise ValueError(
            f'{where} must be a range such as {{ type = "float", low = 0.1, high = 0.9 }}, got {values!r}'
        )
    kind = str(values.get("type"))
    if kind not in KINDS:
        raise ValueError(f"{where}.type must be {', '.join(KINDS)}, got {kind}{nearest(kind, KINDS)}")
    parameter = validated(KINDS[kind], values, where)
    if not isinstance(parameter, Choices):
        if not parameter.low < parameter.high:
            raise ValueError(f"{where}: low must be less than high, got {parameter.low} and {parameter.high}")
        if parameter.log and parameter.low <= 0:
            raise ValueError(f"{where}: a logarithmic range must begin above 0, got {parameter.low}")
    return parameter


def check(space: Space, recipe: Recipe) -> None:
    """Tries the ends of every range in a recipe.

    Raises:
        ValueError: a key that may not be searched, that the recipe's model does not have, or whose ends it refuses.
    """
    for path, parameter in space.parameters.items():
        if path.partition(".")[0] in FIXED:
            raise ValueError(
                f"parameters.{path}: {', '.join(FIXED)} cannot be searched, since trials are compared on equal events"
            )
        for value in parameter.ends:
            configuration(with_parameters(recipe, {path: value}))


def with_parameters(recipe: Recipe, parameters: Mapping[str, Any]) -> Recipe:
    """Returns the recipe with values at paths.

    Raises:
        ValueError: a path or a value that no recipe has; those of the model's section are the model's to check.
    """
    return parse(with_values(recipe.model_dump(), parameters))
