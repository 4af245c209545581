"""A residual network of a few numbers, with dropout whose masks are given from outside."""

from __future__ import annotations

from torch import Tensor, nn


class ResidualMLP(nn.Module):
    """A linear layer, residual layers h + dropout(gelu(linear(h))), a linear layer."""

    def __init__(self, inputs: int, outputs: int, width: int, layers: int) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, width)
        self.layers = nn.ModuleList([nn.Linear(width, width) for _ in range(layers)])
        self.last = nn.Linear(width, outputs)

    def forward(self, x: Tensor, kept: Tensor | None = None) -> Tensor:
        """Maps features, (B, F), to (B, K).

        Args:
            x: features.
            kept: what each residual layer's outputs are multiplied by, 0 or 1 / (1 - dropout) in training,
                (B, layers, width); None keeps everything.
        """
        h = self.first(x)
        for i, layer in enumerate(self.layers):
            change = nn.functional.gelu(layer(h))
            h = h + (change if kept is None else change * kept[:, i])
        out: Tensor = self.last(h)
        return out
