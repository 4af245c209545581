"""Trained weights as the beginning of another training: what fits is taken, what does not is said."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from caloforge.io.card import StartedFrom
from caloforge.io.run import Run, read_weights
from caloforge.models import Model
from caloforge.runtime.folders import run_path

MENTIONED = 4
"""Arrays that a message names."""


@dataclass(frozen=True)
class Start:
    """What of a run's weights a model has taken.

    Attributes:
        origin: which weights, for the card.
        left: the model's arrays that keep their first values, and why.
    """

    origin: StartedFrom
    left: tuple[str, ...]

    def __str__(self) -> str:
        text = f"start from {self.origin.name}: {self.origin.taken} of {self.origin.arrays} arrays"
        if not self.left:
            return text
        more = f" and {len(self.left) - MENTIONED} more" if len(self.left) > MENTIONED else ""
        return f"{text}; not {', '.join(self.left[:MENTIONED])}{more}"


def start_folder(name: str) -> Path:
    """Returns the folder of the weights that a recipe starts from.

    Raises:
        ValueError: neither a run folder nor weights that ship.
    """
    try:
        return run_path(name)
    except ValueError as error:
        raise ValueError(f"start: {error}") from None


def start_from(model: Model, folder: Path) -> Start:
    """Gives a model the weights of a run where names and shapes are the same.

    Constants that were fitted to data, such as means and spreads, are taken for the same detector with the same
    conditions alone: for another one they are those of the new data.

    Args:
        model: after its stages were made, which fit the constants.
        folder: the run.

    Raises:
        ValueError: no finished run, damaged weights, or not one array that fits.
    """
    run = Run(folder)
    card, digest = run.card(), run.check_weights()
    theirs = read_weights(run.weights)
    parameters = {name for name, _ in model.named_parameters()}
    same = (card.detector, card.features) == (model.detector.name, model.detector.features)
    taken, left = [], []
    own: dict[str, torch.Tensor] = {
        name: value for name, value in model.state_dict().items() if isinstance(value, torch.Tensor)
    }
    with torch.no_grad():
        for name, tensor in own.items():
            if name not in theirs:
                left.append(f"{name} (not there)")
            elif name not in parameters and not same:
                left.append(f"{name} (of other conditions)")
            elif theirs[name].shape != tuple(tensor.shape):
                shapes = (" x ".join(map(str, shape)) for shape in (theirs[name].shape, tuple(tensor.shape)))
                left.append(f"{name} ({' for '.join(shapes)})")
            else:
                tensor.copy_(torch.from_numpy(theirs[name]))
                taken.append(name)
    if not parameters & set(taken):
        raise ValueError(f"start: no weights of {card.name} fit: {', '.join(left[:MENTIONED])}")
    origin = StartedFrom(name=card.name, weights=digest, taken=len(taken), arrays=len(own))
    return Start(origin, tuple(left))
