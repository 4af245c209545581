"""Named tensors whose sizes are known only once they are fitted: trees, neighbours, stored responses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Stored(nn.Module):
    """Holds named tensors of any size; a freshly built one takes the sizes of the state it loads.

    `stored.put(name=tensor)` fills it, `stored[name]` reads it. Type and number of axes are fixed by the
    constructor, so that a foreign state is refused rather than taken.

    Args:
        tensors: an empty tensor for each name, which gives its dtype and its number of axes.
    """

    def __init__(self, **tensors: Tensor) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)
        self.register_load_state_dict_pre_hook(_take_sizes)  # type: ignore[no-untyped-call]

    def __getitem__(self, name: str) -> Tensor:
        return self.get_buffer(name)

    def put(self, **tensors: Tensor) -> None:
        """Replaces tensors by name.

        Raises:
            ValueError: another dtype or number of axes than the constructor was given.
        """
        for name, tensor in tensors.items():
            buffer = self[name]
            if tensor.dtype != buffer.dtype or tensor.ndim != buffer.ndim:
                raise ValueError(
                    f"{name} must be {buffer.dtype} with {buffer.ndim} axes, "
                    f"got {tensor.dtype} of shape {tuple(tensor.shape)}"
                )
            setattr(self, name, tensor.to(buffer.device))


def _take_sizes(module: nn.Module, state: Mapping[str, Any], prefix: str, *_: object) -> None:
    # A tensor of another type or number of axes stays as it is: the loading itself then refuses the state.
    for name, buffer in dict(module.named_buffers(recurse=False)).items():
        coming = state.get(prefix + name)
        if isinstance(coming, Tensor) and coming.ndim == buffer.ndim and coming.dtype == buffer.dtype:
            setattr(module, name, torch.empty_like(coming, device=buffer.device))
