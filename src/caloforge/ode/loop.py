"""Loops of an exported graph: the step is traced once and marked, `export.loops` repeats what lies between the marks.

Unrolled, the eleven steps of the flow matching took ten times as long to trace and half a minute to load; PyTorch's
own `scan` traces its step eight times over, with every size a symbol.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

DOMAIN = "caloforge"
BEGIN, END = "LoopBegin", "LoopEnd"


def repeated(step: Callable[[Tensor, Tensor], Tensor], x: Tensor, values: Tensor) -> Tensor:
    """Applies a step once for each row of `values`, x <- step(x, values[i]); while exporting only.

    Args:
        step: maps x and one row of the values, (*,), to the next x.
        x: the start, (B, *).
        values: what differs from step to step, such as times, (steps, *).

    Returns:
        x after the last step, (B, *).
    """
    dtypes, shapes = (x.dtype, values.dtype), (x.shape, values.shape[1:])
    start, row = torch.onnx.ops.symbolic_multi_out(
        f"{DOMAIN}::{BEGIN}", (x, values), dtypes=dtypes, shapes=shapes, version=1
    )
    end: Tensor = torch.onnx.ops.symbolic(
        f"{DOMAIN}::{END}", (step(start, row), row), dtype=x.dtype, shape=x.shape, version=1
    )
    return end
