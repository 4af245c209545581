"""Weights and checkpoints: safetensors to keep and to ship, a PyTorch file to resume from."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from caloforge.io.files import replacing
from caloforge.io.run import Run, read_weights, write_weights
from caloforge.models import Classifier, Generator, Model, Readout, build, model_class
from caloforge.models.parts.bayesian import take_replica
from caloforge.recipe import Recipe, parse, with_settings


def save_weights(model: nn.Module, path: Path) -> None:
    """Writes the model's parameters and buffers."""
    write_weights(path, {name: tensor.detach().cpu().numpy() for name, tensor in model.state_dict().items()})


def load_weights(model: nn.Module, path: Path) -> None:
    """Reads the model's parameters and buffers; modules that only a training needs may be missing.

    Raises:
        ValueError: no safetensors file, or the weights of another model.
    """
    tensors = {name: torch.from_numpy(array) for name, array in read_weights(path).items()}
    own = model.state_dict()
    if isinstance(model, Generator):
        for name in own.keys() - tensors.keys():
            if name.startswith(tuple(f"{module}." for module in model.training_only)):
                tensors[name] = own[name]
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(
            f"{path} holds the weights of another model: {' '.join(str(error).split())}"
        ) from None


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Writes the state of a training, whole or not at all."""
    with replacing(path) as temporary:
        torch.save(state, temporary)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads the state of a training; nothing but tensors and plain values is unpickled.

    Raises:
        ValueError: no such file, or not a checkpoint.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"there is no checkpoint {path} to resume from") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise ValueError(f"{path} is not a checkpoint: {error}") from None
    return state


def load_model(
    path: Path, settings: Sequence[str] = (), *, trust: bool = False, replica: int = 0
) -> tuple[Recipe, Generator | Readout]:
    """Builds the generator or readout of a run folder with its best weights, ready to generate.

    Args:
        path: the run folder.
        settings: changes of the model section that may be made after the training, such as "solver.steps=4".
        trust: run code outside the package that the run names.
        replica: which weights of a Bayesian network, or which member of a committee, from 1; 0: the mean weights, or
            the first member.

    Raises:
        ValueError: not a finished run, a setting that only a new training can change, a classifier, or a replica of a
            run that has none.
    """
    run, number = Run(path).replica(replica)
    recipe, model = load_any(run.path, settings, trust=trust)
    if isinstance(model, Classifier):
        raise ValueError(
            f"{recipe.name} is a classifier, which tells whether there is a response and makes none"
        )
    if number:
        try:
            take_replica(model, recipe.seed, number)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    return recipe, model


def load_classifier(path: Path, *, trust: bool = False) -> tuple[Recipe, Classifier]:
    """Builds the classifier of a run folder with its best weights.

    Raises:
        ValueError: not a finished run, or one of another model.
    """
    recipe, model = load_any(path, trust=trust)
    if not isinstance(model, Classifier):
        raise ValueError(f"{recipe.name} is no classifier: wanted a run of zero_response")
    return recipe, model


def load_any(path: Path, settings: Sequence[str] = (), *, trust: bool = False) -> tuple[Recipe, Model]:
    """Builds the model of a run folder, whatever it is.

    Args:
        path: the run folder.
        settings: changes of the model section that may be made after the training, such as "solver.steps=4".
        trust: run code outside the package that the run names.

    Raises:
        ValueError: not a finished run, or a setting that only a new training can change or that changes nothing.
    """
    run = Run(path)
    run.card()
    recipe = run.recipe()
    free = model_class(recipe, trust=trust).sampling
    for setting in settings:
        key = setting.partition("=")[0].strip()
        if not any(_below(key, name) for name in free):
            raise ValueError(
                f"{key!r} cannot be changed after the training of {recipe.name}; "
                f"what can be is {', '.join(free) or 'nothing'}"
            )
        section, dot, _ = key.partition(".")
        if dot and section not in recipe.model:
            raise ValueError(
                f"{key!r} cannot be changed: {recipe.name} was trained without [model.{section}]"
            )
    changed = parse(with_settings(recipe.model_dump(), [f"model.{setting}" for setting in settings]))
    model = build(changed, trust=trust)
    idle = model.idle if isinstance(model, Generator) else {}
    for setting in settings:
        key = setting.partition("=")[0].strip()
        for name, why in idle.items():
            if _below(key, name):
                raise ValueError(f"{key!r} would change nothing: of {recipe.name} {why}")
    load_weights(model, run.weights)
    run.check_weights()
    return changed, model.eval()


def _below(key: str, section: str) -> bool:
    return key == section or key.startswith(f"{section}.")
