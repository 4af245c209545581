"""Masked autoencoders for distribution estimation (MADE, arXiv:1502.03509) of images.

Each turns an image x of D numbers, taken in the order of its rows, into P parameters a cell; those of cell i depend on
x_0 ... x_(i-1) and on the event alone. One pass gives all of them where x is known. Where x comes about cell by cell,
`begin`, `at` and `put` do the same without repeating what is known already.

- `DenseMADE`, as published: every hidden unit has a degree, and sees what lies before it. D P weights for every
  hidden unit: 10^7 for a calorimeter image.
- `LocalMADE` shares its weights among cells, as an image allows. With C channels, * a convolution that looks at a cell
  and what comes before it, > one that looks only at what comes before, and c, c' images that the event alone gives,

      h = silu(w * x + c),   a = silu(v > h + u sum over earlier cells of (p h) / sqrt D + c'),   parameters = o a + b.

  The sum tells how much light has been placed; c and c' are a table of cells plus functions of the place relative to
  where light is expected, with weights that a small network gives for each event.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

Context = tuple[Tensor, Tensor]
"""What a network is told of the events, as `MADE.context` gives it."""

FUNCTIONS = 16
"""Functions of the place that `place_functions` gives."""

NEAR = tuple((i, j) for i in range(3) for j in range(5))[:13]
"""Row and column, in a kernel of 3 x 5 whose cell of interest is (2, 2), of that cell and those before it."""

FAR = tuple((i, j) for i in range(2) for j in range(3))[:4]
"""Row and column, in a kernel of 2 x 3 whose cell of interest is (1, 1), of the neighbours before it."""


class MADEConfig(BaseModel):
    """Kind and sizes.

    Attributes:
        kind: `local` or `dense`.
        width: channels of the local kind, hidden units of the dense one.
        layers: hidden layers of the dense kind.
        shared: numbers that the local kind sums over earlier cells.
        hidden: width of the network that gives an event's images, local kind.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["local", "dense"] = "local"
    width: int = Field(24, ge=1)
    layers: int = Field(1, ge=1)
    shared: int = Field(8, ge=1)
    hidden: int = Field(64, ge=1)


def place_functions(shape: tuple[int, int], place: Tensor) -> Tensor:
    """Returns functions of the cells' places relative to a place of each event, (B, FUNCTIONS, D).

    With d the distance in cells, e_s = exp(-d^2 / (2 s^2)), and +-1 for the two colours of a chessboard: a constant,
    e_s for s = 1, 2, 4, 8, 16, these but the last with the sign of the colour, first order in both directions for
    s = 2 and 8, saturating differences, and ln(1 + d^2).

    Args:
        shape: height and width of the image.
        place: row and column in cells from the first, (B, 2).
    """
    rows = torch.arange(shape[0], device=place.device, dtype=place.dtype)
    columns = torch.arange(shape[1], device=place.device, dtype=place.dtype)
    y = (rows[:, None] - place[:, 0, None, None]).expand(-1, -1, shape[1])
    x = (columns[None, :] - place[:, 1, None, None]).expand(-1, shape[0], -1)
    squared = y.square() + x.square()
    near = [torch.exp(squared * (-0.5 / s**2)) for s in (1.0, 2.0, 4.0, 8.0, 16.0)]
    colour = 1 - 2 * torch.remainder(rows[:, None] + columns[None, :], 2)
    functions = [
        *near,
        *(function * colour for function in near[:4]),
        near[1] * y / 2,
        near[1] * x / 2,
        near[3] * y / 8,
        near[3] * x / 8,
        y / (y.abs() + 8),
        x / (x.abs() + 8),
        torch.log1p(squared) / 4,
    ]
    return torch.stack(functions, 1).flatten(2)


@dataclass
class State:
    """What a cell-by-cell pass knows so far: tensors that `put` changes in place.

    Attributes:
        context: as `MADE.context` gave it.
        image: what has been put.
        hidden: what follows from it.
        total: sums over it.
    """

    context: Context
    image: Tensor
    hidden: Tensor
    total: Tensor


class MADE(nn.Module, ABC):
    """Gives the parameters of each cell from the cells before it and the event."""

    @abstractmethod
    def context(self, features: Tensor, functions: Tensor) -> Context:
        """Returns what follows from the event alone, from features (B, F) and `place_functions` (B, *, D)."""

    @abstractmethod
    def forward(self, x: Tensor, context: Context) -> Tensor:
        """Returns the parameters of every cell, (B, D, P), from an image (B, D)."""

    @abstractmethod
    def begin(self, context: Context) -> State:
        """Returns the state before the first cell."""

    @abstractmethod
    def at(self, state: State, cell: int) -> Tensor:
        """Returns the parameters of a cell, (B, P), once the cells before it have been put."""

    @abstractmethod
    def put(self, state: State, cell: int, x: Tensor) -> None:
        """Adds a cell's number, (B,)."""


class LocalMADE(MADE):
    """MADE with weights shared among cells.

    Args:
        shape: height and width of the image.
        features: numbers that describe the event, F.
        parameters: numbers a cell, P.
        config: sizes.
    """

    def __init__(self, shape: tuple[int, int], features: int, parameters: int, config: MADEConfig) -> None:
        super().__init__()
        self.shape, self.width = shape, config.width
        cells, width = shape[0] * shape[1], config.width
        self.event = nn.Sequential(
            nn.Linear(features, config.hidden),
            nn.SiLU(),
            nn.Linear(config.hidden, config.hidden),
            nn.SiLU(),
            nn.Linear(config.hidden, 2 * width * (FUNCTIONS + 1)),
        )
        self.table = nn.Parameter(torch.zeros(2, width, cells))
        # kernels in full, of which the first 13 and 4 cells are used
        self.near = nn.Parameter(torch.empty(width, 1, 3, 5))
        self.far = nn.Parameter(torch.empty(width, width, 2, 3))
        self.share = nn.Linear(width, config.shared, bias=False)
        self.shared = nn.Linear(config.shared, width, bias=False)
        self.last = nn.Linear(width, parameters)
        nn.init.normal_(self.near, std=13**-0.5)
        nn.init.normal_(self.far, std=(4 * width) ** -0.5)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def context(self, features: Tensor, functions: Tensor) -> Context:
        """Returns c and c', both (B, D, C)."""
        weights = self.event(features).view(-1, 2 * self.width, FUNCTIONS + 1)
        images = torch.bmm(functions.transpose(1, 2), weights[:, :, 1:].transpose(1, 2))
        images = images + weights[:, :, 0].unsqueeze(1)
        first, second = images.chunk(2, 2)
        return first + self.table[0].t(), second + self.table[1].t()

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """Returns the parameters of every cell, (B, D, P), from an image (B, D)."""
        # convolutions as matrix products of neighbours side by side: with few channels faster
        rows, columns = self.shape
        image = nn.functional.pad(x.view(-1, rows, columns), (2, 2, 2, 0))
        patches = [image[:, i : i + rows, j : j + columns] for i, j in NEAR]
        near = nn.functional.linear(torch.stack(patches, 3).flatten(1, 2), self._near())
        h = nn.functional.silu(near + context[0])
        around = nn.functional.pad(h.view(-1, rows, columns, self.width), (0, 0, 1, 1, 1, 0))
        neighbours = [around[:, i : i + rows, j : j + columns] for i, j in FAR]
        before = nn.functional.linear(torch.cat(neighbours, 3).flatten(1, 2), self._far())
        shares = self.share(h)
        shares = shares.double()  # over thousands of cells a sum of singles depends on who adds it up
        earlier = (torch.cumsum(shares, 1) - shares).to(before.dtype)
        before = before + self.shared(earlier * self._scale)
        parameters: Tensor = self.last(nn.functional.silu(before + context[1]))
        return parameters

    def _near(self) -> Tensor:
        """Returns the weights of the cells of `NEAR`, (C, 13)."""
        return self.near.flatten(1)[:, : len(NEAR)]

    def _far(self) -> Tensor:
        """Returns the weights of the cells of `FAR`, (C, 4 C)."""
        return self.far.flatten(2)[:, :, : len(FAR)].transpose(1, 2).flatten(1)

    @property
    def _scale(self) -> float:
        return 1 / math.sqrt(self.shape[0] * self.shape[1])

    def begin(self, context: Context) -> State:
        """Returns the state before the first cell."""
        rows, columns = self.shape
        first = context[0]
        batch = len(first)
        # a place's numbers side by side, as matrix products want them
        events = tuple(part.transpose(0, 1).contiguous() for part in context)
        return State(
            (events[0], events[1]),
            first.new_zeros(batch, rows + 2, columns + 4),
            first.new_zeros(batch, rows + 1, columns + 2, self.width),
            first.new_zeros(batch, self.share.out_features),
        )

    def at(self, state: State, cell: int) -> Tensor:
        """Returns the parameters of a cell, (B, P)."""
        row, column = divmod(cell, self.shape[1])
        around = state.hidden[:, row : row + 2, column : column + 3].flatten(1, 2)[:, : len(FAR)]
        before = nn.functional.linear(around.flatten(1), self._far()) + self.shared(state.total)
        parameters: Tensor = self.last(nn.functional.silu(before + state.context[1][cell]))
        return parameters

    def put(self, state: State, cell: int, x: Tensor) -> None:
        """Adds a cell's number, (B,)."""
        row, column = divmod(cell, self.shape[1])
        state.image[:, row + 2, column + 2] = x
        patch = state.image[:, row : row + 3, column : column + 5].flatten(1)[:, : len(NEAR)]
        h = nn.functional.silu(nn.functional.linear(patch, self._near()) + state.context[0][cell])
        state.hidden[:, row + 1, column + 1] = h
        state.total += self.share(h) * self._scale


class DenseMADE(MADE):
    """MADE of fully connected layers whose units see what lies before their degree.

    The units of a hidden layer have degrees that are spread evenly over the cells; the event enters the first layer.

    Args:
        shape: height and width of the image.
        features: numbers that describe the event, F.
        parameters: numbers a cell, P.
        config: sizes.
    """

    def __init__(self, shape: tuple[int, int], features: int, parameters: int, config: MADEConfig) -> None:
        super().__init__()
        cells = shape[0] * shape[1]
        self.parameters_a_cell = parameters
        self.event = nn.Linear(features, config.width)
        self.first = nn.Linear(cells, config.width, bias=False)
        self.layers = nn.ModuleList([nn.Linear(config.width, config.width) for _ in range(config.layers - 1)])
        self.last = nn.Linear(config.width, cells * parameters)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        # a unit of degree d sees cells 0 ... d - 1, and cell i the units of degree up to i
        degree = torch.linspace(0, cells - 1, config.width).round()
        cell = torch.arange(cells)
        self.sees: Tensor
        self.feeds: Tensor
        self.passes: Tensor
        self.register_buffer("sees", (cell < degree[:, None]).float(), persistent=False)
        self.register_buffer("passes", (degree <= degree[:, None]).float(), persistent=False)
        self.register_buffer("feeds", (degree <= cell[:, None]).float(), persistent=False)

    def context(self, features: Tensor, functions: Tensor) -> Context:
        """Returns what the event adds to the first layer, (B, width), twice."""
        context = self.event(features)
        return context, context

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """Returns the parameters of every cell, (B, D, P), from an image (B, D)."""
        hidden = self._hidden(nn.functional.linear(x, self.first.weight * self.sees) + context[0])
        mask = self.feeds.repeat_interleave(self.parameters_a_cell, 0)
        flat = nn.functional.linear(hidden, self.last.weight * mask, self.last.bias)
        return flat.view(len(x), -1, self.parameters_a_cell)

    def _hidden(self, before: Tensor) -> Tensor:
        h = nn.functional.silu(before)
        for layer in self.layers:
            assert isinstance(layer, nn.Linear)
            h = nn.functional.silu(nn.functional.linear(h, layer.weight * self.passes, layer.bias))
        return h

    def begin(self, context: Context) -> State:
        """Returns the state before the first cell."""
        before = context[0]
        return State(context, before[:, :0], before[:, :0], before.clone())

    def at(self, state: State, cell: int) -> Tensor:
        """Returns the parameters of a cell, (B, P)."""
        part = slice(cell * self.parameters_a_cell, (cell + 1) * self.parameters_a_cell)
        weight = self.last.weight[part] * self.feeds[cell]
        return nn.functional.linear(self._hidden(state.total), weight, self.last.bias[part])

    def put(self, state: State, cell: int, x: Tensor) -> None:
        """Adds a cell's number, (B,)."""
        state.total += x[:, None] * (self.first.weight * self.sees)[:, cell]


def made(shape: tuple[int, int], features: int, parameters: int, config: MADEConfig) -> MADE:
    """Builds the network of a configuration; arguments as those of the networks."""
    kind = LocalMADE if config.kind == "local" else DenseMADE
    return kind(shape, features, parameters, config)
