"""A small GPT: a prior of image tokens after a few tokens of the particle (Radford et al. 2019; Wojnar 2025).

Layer norms before attention and feed-forward layers, no biases, learned positions. Condition and image tokens have an
embedding each, which is also the output layer of their kind, behind a final norm of their own. With a vocabulary of 512
of either kind, width 128, hidden layers of 256, 6 layers, 4 heads and 122 positions it has the paper's 934,912
parameters.

The last condition token predicts the first image token, so that 2 + 121 tokens are 122 inputs and 122 targets: the
second condition token and the image tokens.

Tokens are drawn one after the other, with keys and values of the past kept. A token is drawn by inversion: the `top_k`
most likely in order, their probabilities at a temperature, and the first at which the cumulative sum exceeds a uniform
that is given from outside.

`ToldPlaces` is not of the publication: it tells the network at each place what a few tokens cannot hold, numbers that
describe the particle and where the next token's cells are, seen from where the light is expected. What it gives is
added to the embedding of the place; it is computed once an event, so that a step costs what it did.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

Past = tuple[Tensor, Tensor]
"""Keys, (B, heads, size, T), and values, (B, heads, T, size), of the tokens before, in one block."""


class GPTConfig(BaseModel):
    """Sizes of the GPT.

    Attributes:
        width: numbers a token.
        hidden: of the feed-forward layers.
        layers: blocks.
        heads: attention heads.
        dropout: share of numbers dropped after the embedding and after each attention and feed-forward layer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = Field(128, ge=1)
    hidden: int = Field(256, ge=1)
    layers: int = Field(6, ge=1)
    heads: int = Field(4, ge=1)
    dropout: float = Field(0.1, ge=0, lt=1)


class Block(nn.Module):
    """Causal attention and a feed-forward layer."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.norm1, self.norm2 = (nn.LayerNorm(width, bias=False) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = (
            nn.Linear(width, config.hidden, bias=False),
            nn.Linear(config.hidden, width, bias=False),
        )
        for layer in (self.qkv, self.up):
            nn.init.normal_(layer.weight, std=0.02)
        for layer in (self.out, self.down):
            nn.init.normal_(layer.weight, std=0.02 / (2 * config.layers) ** 0.5)

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns queries, keys and values, (B, heads, T, size) each."""
        b, tokens, _ = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        return q, k, v

    def forward(self, x: Tensor, kept: tuple[Tensor, Tensor] | None) -> Tensor:
        """Maps all tokens at once, (B, T, width).

        Args:
            x: tokens.
            kept: what the outputs of attention and feed-forward layer are multiplied by, as x; None keeps all.
        """
        q, k, v = self._split(x)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        change = self.out(attended.transpose(1, 2).reshape(x.shape))
        x = x + (change if kept is None else change * kept[0])
        change = self.down(F.gelu(self.up(self.norm2(x))))
        changed: Tensor = x + (change if kept is None else change * kept[1])
        return changed

    def step(self, x: Tensor, past: Past, seen: Tensor | None) -> tuple[Tensor, Past]:
        """Maps one token, (B, 1, width), after those whose keys and values are kept.

        Args:
            x: the token.
            past: keys, (B, heads, size, T), and values, (B, heads, T, size).
            seen: which of them there are, (B, T); None: all.

        Returns:
            the token, and its own key (B, heads, size, 1) and value (B, heads, 1, size).
        """
        q, k, v = self._split(x)
        keys, values = past
        before = q @ keys
        if seen is not None:
            before = before.masked_fill(~seen[:, None, None], -torch.inf)
        scores = torch.cat([before, (q * k).sum(-1, keepdim=True)], -1) * q.shape[-1] ** -0.5
        weights = torch.softmax(scores, -1)
        attended = weights[..., :-1] @ values + weights[..., -1:] * v
        x = x + self.out(attended.transpose(1, 2).reshape(x.shape))
        change: Tensor = self.down(F.gelu(self.up(self.norm2(x))))
        return x + change, (k.transpose(2, 3), v)


class GPT(nn.Module):
    """Probabilities of the next token.

    Args:
        conditions: vocabulary of the condition tokens.
        images: vocabulary of the image tokens.
        given: condition tokens an event.
        length: image tokens an event.
        config: sizes.
    """

    def __init__(self, conditions: int, images: int, given: int, length: int, config: GPTConfig) -> None:
        super().__init__()
        self.config, self.given, self.length = config, given, length
        width = config.width
        self.conditions, self.images = nn.Embedding(conditions, width), nn.Embedding(images, width)
        self.positions = nn.Parameter(0.02 * torch.randn(given + length - 1, width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.condition_norm, self.image_norm = (nn.LayerNorm(width, bias=False) for _ in range(2))
        for embedding in (self.conditions, self.images):
            nn.init.normal_(embedding.weight, std=0.02)

    @property
    def masks(self) -> int:
        """Masks of dropout that `forward` takes."""
        return 1 + 2 * self.config.layers

    def forward(
        self, given: Tensor, tokens: Tensor, kept: Tensor | None = None, told: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns logits of the condition tokens after the first, and of all image tokens.

        Args:
            given: condition tokens, (B, G).
            tokens: image tokens, (B, L); the last is only predicted.
            kept: masks of dropout, 0 or 1 / (1 - dropout), (B, masks, G + L - 1, width); None keeps all.
            told: added to the embedding of each place, (B, G + L - 1, width); None adds nothing.

        Returns:
            logits, (B, G - 1, conditions) and (B, L, images).
        """
        x = torch.cat([self.conditions(given), self.images(tokens[:, :-1])], 1) + self.positions
        x = x if told is None else x + told
        x = x if kept is None else x * kept[:, 0]
        for number, block in enumerate(self.blocks):
            x = block(x, None if kept is None else (kept[:, 1 + 2 * number], kept[:, 2 + 2 * number]))
        first = self.condition_norm(x[:, : self.given - 1]) @ self.conditions.weight.T
        return first, self.image_norm(x[:, self.given - 1 :]) @ self.images.weight.T

    def step(
        self,
        tokens: Tensor,
        place: Tensor,
        past: Sequence[Past],
        seen: Tensor | None,
        told: Tensor | None = None,
    ) -> tuple[Tensor, list[Past]]:
        """Gives the logits of the image token after one place, (B, images), with what is kept of the places before.

        Args:
            tokens: the token at the place, (B,): of the particle at the first places, of the image at the others.
            place: its number, (B,).
            past: keys and values of each block.
            seen: which of them there are, (B, T); None: all.
            told: added to the embedding of the place, (B, width); None adds nothing.

        Returns:
            the logits, which mean nothing before the last condition token; and key and value of this place.
        """
        table = torch.cat([self.conditions.weight, self.images.weight])
        row = tokens + (place >= self.given).to(tokens.dtype) * self.conditions.num_embeddings
        x = F.embedding(row, table) + self.positions[place]
        x = (x if told is None else x + told)[:, None]
        entries = []
        for block, before in zip(self.blocks, past, strict=True):
            assert isinstance(block, Block)
            x, own = block.step(x, before, seen)
            entries.append(own)
        return self.image_norm(x[:, 0]) @ self.images.weight.T, entries

    def nothing(self, events: int) -> list[Past]:
        """Returns room for keys and values of all places, zeros, for so many events."""
        places, heads = len(self.positions), self.config.heads
        size = self.config.width // heads
        shapes = ((events, heads, size, places), (events, heads, places, size))
        return [
            (self.positions.new_zeros(shapes[0]), self.positions.new_zeros(shapes[1])) for _ in self.blocks
        ]

    def draw(
        self, given: Tensor, uniforms: Tensor, temperature: float, top_k: int, told: Tensor | None = None
    ) -> Tensor:
        """Draws image tokens one after the other, (B, L).

        Args:
            given: condition tokens, (B, G).
            uniforms: in [0, 1), one a token, (B, L).
            temperature: what logits are divided by.
            top_k: only so many most likely tokens are drawn.
            told: added to the embedding of each place, (B, G + L - 1, width); None adds nothing.
        """
        past = self.nothing(len(given))
        drawn: list[Tensor] = []
        for number in range(len(self.positions)):
            tokens = given[:, number] if number < self.given else drawn[-1]
            place = torch.full((len(given),), number, device=given.device)
            before = [(keys[..., :number], values[:, :, :number]) for keys, values in past]
            here = None if told is None else told[:, number]
            logits, entries = self.step(tokens, place, before, None, here)
            for (keys, values), (key, value) in zip(past, entries, strict=True):
                keys[..., number : number + 1], values[:, :, number : number + 1] = key, value
            if number >= self.given - 1:
                drawn.append(invert(logits, uniforms[:, len(drawn)], temperature, top_k))
        return torch.stack(drawn, 1)


class ToldPlaces(nn.Module):
    """What the network is told at each place of an event, of the particle and of the image token that comes next.

    With d the vector from where the light is expected to the middle of the next token's cells, r its length, and e a
    layer of the particle's features,

        h = SiLU(A [d / 16, sign(d) ln(1 + |d| / 2), ln(1 + r^2) / 2, exp(-r^2 / 2 s^2)] + e),   told = C SiLU(B h),

    s = 1, 2, 4, 8, 16 cells; C begins at 0. Places before the last condition token are told nothing.

    Args:
        features: numbers that describe the event.
        grid: image tokens in each direction; they come row by row.
        cells: cells of the image in each direction.
        given: condition tokens an event.
        width: numbers a token.
        hidden: of the layers.
    """

    REACH = (1.0, 2.0, 4.0, 8.0, 16.0)

    def __init__(
        self,
        features: int,
        grid: tuple[int, int],
        cells: tuple[int, int],
        given: int,
        width: int,
        hidden: int,
    ) -> None:
        super().__init__()
        self.before = given - 1
        self.event = nn.Sequential(nn.Linear(features, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        self.local = nn.Linear(5 + len(self.REACH), hidden, bias=False)
        self.inner, self.outer = nn.Linear(hidden, hidden), nn.Linear(hidden, width, bias=False)
        nn.init.zeros_(self.outer.weight)
        middles = [
            (torch.arange(tokens) + 0.5) * (size / tokens) - 0.5
            for tokens, size in zip(grid, cells, strict=True)
        ]
        self.middles: Tensor
        self.register_buffer(
            "middles", torch.cartesian_prod(*middles).view(grid[0] * grid[1], 2), persistent=False
        )

    def forward(self, features: Tensor, expected: Tensor) -> Tensor:
        """Returns what is told, (B, G + L - 1, width).

        Args:
            features: of the event, (B, features).
            expected: where the light is expected, in cells from the first, (B, 2).
        """
        d = self.middles - expected[:, None]
        square = d.square().sum(2, keepdim=True)
        reach = torch.cat([torch.exp(-square / (2 * s * s)) for s in self.REACH], 2)
        near = torch.sign(d) * torch.log1p(d.abs() / 2)
        local = torch.cat([d / 16, near, torch.log1p(square) / 2, reach], 2)
        hidden = F.silu(self.local(local) + self.event(features)[:, None])
        told: Tensor = self.outer(F.silu(self.inner(hidden)))
        return F.pad(told, (0, 0, self.before, 0))


def invert(logits: Tensor, u: Tensor, temperature: float, top_k: int) -> Tensor:
    """Draws a token by inversion of its cumulative distribution, (B,).

    Args:
        logits: (B, V).
        u: uniforms in [0, 1), (B,).
        temperature: what logits are divided by.
        top_k: only so many most likely tokens are drawn.
    """
    likely, tokens = torch.topk(logits, min(top_k, logits.shape[-1]))
    cumulative = torch.cumsum(torch.softmax((likely / temperature).double(), 1), 1)
    place = (u.double()[:, None] > cumulative[:, :-1]).sum(1)
    return tokens.gather(1, place[:, None])[:, 0]
