"""Adam with the learning-rate schedules of the papers, and the moving average of weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn


class AdamConfig(BaseModel):
    """Adam or AdamW and its schedule.

    Attributes:
        learning_rate: the peak.
        weight_decay: decoupled (AdamW); 0 is plain Adam.
        schedule: `constant`, or `cosine`: one cycle that starts at peak / 25, peaks after `warmup` of the steps
            and ends at peak / 25,000.
        gradient_clip: largest gradient norm; None does not clip.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: float = Field(1e-3, gt=0)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.999, ge=0, lt=1)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: float = Field(0.2, ge=0, lt=1)
    gradient_clip: float | None = Field(None, gt=0)


def cosine_factor(step: int, total: int, warmup: float) -> float:
    """Returns the learning rate of one cosine cycle as a fraction of its peak."""
    peak = warmup * total
    low, high, done = (
        (1 / 25, 1.0, step / peak) if step < peak else (1 / 25_000, 1.0, (total - step) / (total - peak))
    )
    return low + (high - low) * 0.5 * (1 - math.cos(math.pi * max(done, 0.0)))


def build(
    parameters: Iterable[nn.Parameter], config: AdamConfig, total_steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Builds the optimizer and its schedule, which is stepped once an update for `total_steps` updates."""
    optimizer = torch.optim.AdamW(
        parameters,
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=True,
    )

    def factor(step: int) -> float:
        return 1.0 if config.schedule == "constant" else cosine_factor(step, total_steps, config.warmup)

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


class Adam:
    """Lowers a loss of one module, update by update.

    Args:
        module: whose weights are changed.
        config: rates, schedule and largest gradient.
        steps: updates of the whole training.

    Attributes:
        optimizer: PyTorch's, for checkpoints.
        schedule: of its learning rate, likewise.
    """

    def __init__(self, module: nn.Module, config: AdamConfig, steps: int) -> None:
        self._module, self._clip = module, config.gradient_clip
        self.optimizer, self.schedule = build(module.parameters(), config, steps)

    def step(self, loss: Tensor, backward: Callable[[Tensor], None]) -> None:
        """Makes one update; `backward` fills in the gradients of the loss."""
        self.optimizer.zero_grad()
        backward(loss)
        if self._clip is not None:
            nn.utils.clip_grad_norm_(self._module.parameters(), self._clip)
        self.optimizer.step()
        self.schedule.step()


@torch.no_grad()
def update_average(average: nn.Module, module: nn.Module, decay: float, step: int) -> None:
    """Moves the weights of `average` towards those of `module`.

    The decay rises from 0 to its value, min(decay, (1 + step) / (10 + step)), so that a short training is not
    held at its random start.
    """
    weight = 1 - min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average.parameters()), list(module.parameters()), weight)
    for ours, theirs in zip(average.buffers(), module.buffers(), strict=True):
        ours.copy_(theirs)
