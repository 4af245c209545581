"""Models as functions of arrays, responses generated in memory, and the scores of a validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from caloforge.events import Events, EventSource
from caloforge.metrics.channels import mean_wasserstein
from caloforge.models.base import Classifier, Generator, Readout, TakesPhotons
from caloforge.runtime.generate import Forward, generate_rows


def _device(model: Generator | Readout) -> torch.device | str:
    return next((tensor.device for tensor in (*model.parameters(), *model.buffers())), "cpu")


def as_function(model: Generator | Readout) -> Forward:
    """Returns the model as a function of arrays: conditions (B, F) and noise (B, D) to float32 (B, *)."""
    device = _device(model)

    @torch.no_grad()
    def forward(conditions: NDArray[np.float32], noise: NDArray[np.float32]) -> NDArray[np.float32]:
        output = model(torch.from_numpy(conditions).to(device), torch.from_numpy(noise).to(device))
        return np.asarray(output.float().cpu().numpy())

    return forward


def given_photons(model: Generator | Readout) -> Forward:
    """Returns a model that takes photon sums as a function: conditions and the sum, (B, F + 1), and noise (B, D)."""
    assert isinstance(model, TakesPhotons)
    device = _device(model)

    @torch.no_grad()
    def forward(conditions: NDArray[np.float32], noise: NDArray[np.float32]) -> NDArray[np.float32]:
        inputs = torch.from_numpy(conditions).to(device)
        output = model.with_photons(inputs[:, :-1], inputs[:, -1], torch.from_numpy(noise).to(device))
        return np.asarray(output.float().cpu().numpy())

    return forward


@torch.no_grad()
def probabilities_in_memory(
    model: Classifier, conditions: NDArray[np.float32], batch_size: int = 8192
) -> NDArray[np.float32]:
    """Returns the probabilities of a classifier for each row of conditions, (N, K)."""
    device = next(model.parameters()).device
    parts = [
        model(torch.from_numpy(conditions[start : start + batch_size]).to(device)).float().cpu().numpy()
        for start in range(0, len(conditions), batch_size)
    ]
    return np.concatenate(parts) if parts else np.empty((0, len(model.outcomes)), np.float32)


def generate_in_memory(
    model: Generator | Readout, conditions: NDArray[np.float32], seed: int, batch_size: int = 256
) -> NDArray[np.float32]:
    """Generates one response for each row of conditions, with the noise of events 0, 1, ...

    Args:
        model: a generator or a readout.
        conditions: physical units, (N, F).
        seed: 0 to 2^64 - 1.
        batch_size: events at once.

    Returns:
        responses (N, *shape) or channel sums (N, K).
    """
    training = model.training
    model.eval()
    try:
        return generate_rows(as_function(model), model.noise_dim, conditions, seed, batch_size=batch_size)
    finally:
        model.train(training)


def spread_rows(source: EventSource, rows: int) -> Events:
    """Returns at most so many events of a source, evenly spread over it."""
    chosen = np.linspace(0, len(source) - 1, min(rows, len(source)))
    return source.slices(chosen.astype(np.intp))


def generation_scores(model: Generator, events: int) -> Callable[[EventSource], Mapping[str, float]]:
    """Returns the scores of a generator: those of at most so many generated events of a source, `channel_scores`."""

    def scores(source: EventSource) -> Mapping[str, float]:
        reference = spread_rows(source, events)
        return channel_scores(reference, generate_in_memory(model, reference.conditions, seed=0))

    return scores


def channel_scores(reference: Events, generated: NDArray[np.float32]) -> Mapping[str, float]:
    """Compares responses with generated ones, (N, *shape): Wasserstein-1 of the channels, mean photon sum."""
    readout = reference.detector.readout
    sums = readout(reference.responses), readout(generated)
    return {"w1": mean_wasserstein(*sums), "photons": float(sums[1].sum(1).mean())}
