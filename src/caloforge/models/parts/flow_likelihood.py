"""Training of a masked autoregressive flow by its likelihood: of a model of its own, or of a student's teacher."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from caloforge.events import Events, EventSource, in_slices
from caloforge.models.base import BatchRandom, Stage
from caloforge.models.parts.flow_images import FlowImages
from caloforge.models.parts.inference import spread_rows
from caloforge.models.parts.stage import LossStage
from caloforge.nn.autoregressive import AutoregressiveFlow, log_normal
from caloforge.nn.rounding import normal_to_uniform
from caloforge.optim import AdamConfig
from caloforge.runtime.noise import standard_normals


class FlowTrainingConfig(BaseModel):
    """Training of the chain; a `TrainingSection`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    optimizer: AdamConfig = AdamConfig(
        learning_rate=3e-3, beta2=0.99, schedule="cosine", warmup=0.05, gradient_clip=1.0
    )
    epochs: int = Field(4, ge=1)
    batch_size: int = Field(32, ge=1)


def log_likelihood(
    images: FlowImages, flow: AutoregressiveFlow, conditions: Tensor, counts: Tensor, u: Tensor
) -> Tensor:
    """Returns ln p(v | particle, N) for v = counts + u, in nats, (B,).

    Its mean over u is a lower bound on ln P(counts | particle, N).

    Args:
        images: the preprocessing.
        flow: of prepared images.
        conditions: physical units, (B, F).
        counts: photons, (B, cells).
        u: dequantizing noise, uniforms, (B, cells).
    """
    contexts = flow.contexts(*images.given(conditions, counts.sum(1)))
    image, jacobian = images.prepare(counts, u)
    chain = flow.to_noise(image, contexts)
    return log_normal(chain.points[-1]) + chain.log_det + jacobian


@torch.no_grad()
def log_likelihoods(images: FlowImages, flow: AutoregressiveFlow, source: EventSource) -> NDArray[np.float64]:
    """Returns `log_likelihood` of events in nats, (N,), with the noise of events 0, 1, ... for u."""
    parts = [np.empty(0)]
    first = 0
    for events in in_slices(source, 128):
        conditions, counts = images.tensors(events)
        rows = np.arange(first, first + len(events))
        u = normal_to_uniform(torch.from_numpy(standard_normals(0, rows, counts.shape[1])).to(counts.device))
        parts.append(log_likelihood(images, flow, conditions, counts, u).double().cpu().numpy())
        first += len(events)
    return np.concatenate(parts)


def flow_stage(
    name: str, images: FlowImages, flow: AutoregressiveFlow, config: FlowTrainingConfig, events: int
) -> Stage:
    """Returns the stage that raises the likelihood of training events; its score is -ln p in nats an event."""
    cells = images.detector.cells

    def loss(flow: AutoregressiveFlow, batch: Events, rng: BatchRandom) -> Tensor:
        conditions, counts = images.batch(batch, rng)
        return -log_likelihood(images, flow, conditions, counts, rng.uniform(cells)) / cells

    def scores(source: EventSource) -> Mapping[str, float]:
        reference = spread_rows(source, images.validation_events)
        return {"nll": -float(log_likelihoods(images, flow, reference).mean())}

    return LossStage(name, flow, loss, scores, config, events)
