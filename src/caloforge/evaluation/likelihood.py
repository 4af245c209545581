"""Likelihoods of responses by a normalizing flow: how usual is a response for its particle?

A score for responses, where `runtime.domain` judges particles. It is weak one by one: what is usual depends on the
photon sum, which is given, more than on the particle. docs/choose.md says what was measured.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from caloforge.events import EventSource
from caloforge.models.base import HasLikelihood
from caloforge.samples import weights
from caloforge.training.checkpoint import load_model


def response_likelihoods(run: str | Path, source: EventSource) -> NDArray[np.float64]:
    """Returns ln p(v | particle, N) of each response, v = n + u, in nats, (N,).

    Its mean over the dequantizing noise u is a lower bound on ln P of the photons n given the particle and their sum
    N. The noise is that of events 0, 1, ..., so that a source has the same numbers each time.

    Args:
        run: run folder of an `autoregressive_flow`, or the name of weights that ship.
        source: events of the run's detector; read in slices.

    Raises:
        ValueError: not a finished run, another model, or events of another detector.
    """
    recipe, model = load_model(weights().get(str(run), Path(run)))
    if not isinstance(model, HasLikelihood):
        raise ValueError(
            f"{recipe.name} has no likelihood; models of type autoregressive_flow have, such as zn-maf"
        )
    name = source.primaries.detector.name
    if name != model.detector.name:
        raise ValueError(f"{recipe.name} needs events of {model.detector.name}, got {name}")
    return model.log_likelihoods(source)
