"""Checks of devices before any work: what a machine does not have is refused by name."""

from __future__ import annotations

import os

import torch

from caloforge._lookup import nearest
from caloforge.recipe import TrainingConfig

ACCELERATORS = ("auto", "cpu", "cuda", "gpu", "mps")


def check_device(name: str) -> torch.device:
    """Returns the PyTorch device of a name, such as cpu, cuda or cuda:1.

    Raises:
        ValueError: no device, or one that this machine does not have.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"no device {name!r}: wanted cpu, cuda, cuda:N or mps") from None
    counts = {
        "cpu": 1,
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }
    if device.type not in counts:
        raise ValueError(f"no device {name!r}: wanted cpu, cuda, cuda:N or mps")
    if (device.index or 0) >= counts[device.type]:
        there = ", ".join(f"{count} of {kind}" for kind, count in counts.items() if count)
        raise ValueError(f"this machine has no device {name!r}: PyTorch finds {there}")
    return device


def check_training(config: TrainingConfig) -> None:
    """Checks that the machine has what a training asks for.

    Raises:
        ValueError: an accelerator or a number of devices that it does not have.
    """
    accelerator = config.accelerator
    if accelerator not in ACCELERATORS:
        raise ValueError(
            f"training.accelerator must be one of {', '.join(ACCELERATORS)}, got {accelerator!r}"
            f"{nearest(accelerator, ACCELERATORS)}"
        )
    gpus, cores = torch.cuda.device_count(), os.cpu_count() or 1
    if accelerator == "mps" and not torch.backends.mps.is_available():
        raise ValueError("training.accelerator is 'mps', which PyTorch does not find on this machine")
    if accelerator in ("cuda", "gpu") and not gpus:
        raise ValueError(
            f"training.accelerator is {accelerator!r}, and PyTorch finds no CUDA device on this machine"
        )
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not gpus)
    there = cores if on_cpu else max(gpus, 1)
    if config.devices > there:
        what = "processor cores" if on_cpu else "devices"
        raise ValueError(
            f"training.devices must be at most the {there} {what} there are, got {config.devices}"
        )
