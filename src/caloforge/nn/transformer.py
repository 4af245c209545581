"""An encoder-decoder transformer whose decoder may also be run token by token, with what it has seen kept.

Post-norm, ReLU, no dropout, as in "Attention is all you need", with one more layer norm at the end of each stack. The
decoder is causal: its output for a token follows from the memory and from this and earlier tokens. `decode` computes
all tokens at once, as a training does; `start` and `step` compute the same one by one, with the keys and values of
earlier tokens at hand, so that n tokens cost n steps and not n^2 / 2.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn


class TransformerConfig(BaseModel):
    """Sizes of the transformer; the defaults are CaloDREAM's.

    Attributes:
        width: numbers a token, D.
        heads: attention heads.
        layers: of the encoder, and as many of the decoder.
        inner: width of the hidden layer of each.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = Field(64, ge=1)
    heads: int = Field(4, ge=1)
    layers: int = Field(4, ge=1)
    inner: int = Field(1024, ge=1)


class KeysValues(NamedTuple):
    """What attention looks at: keys and values of the tokens, both (B, heads, T, D / heads)."""

    keys: Tensor
    values: Tensor

    def with_next(self, other: KeysValues) -> KeysValues:
        """Appends further tokens."""
        return KeysValues(*(torch.cat(pair, 2) for pair in zip(self, other, strict=True)))


class Cache(NamedTuple):
    """What the decoder has seen, for each layer: the memory, and the tokens so far."""

    memory: tuple[KeysValues, ...]
    tokens: tuple[KeysValues | None, ...]


class Attention(nn.Module):
    """Attention of several heads; queries, keys and values share one matrix."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.inputs, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        nn.init.xavier_uniform_(self.inputs.weight)
        nn.init.zeros_(self.inputs.bias)
        nn.init.zeros_(self.out.bias)

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], self.heads, x.shape[2] // self.heads).transpose(1, 2)

    def seen(self, x: Tensor) -> KeysValues:
        """Returns keys and values of tokens, (B, T, D)."""
        width = x.shape[-1]
        both = F.linear(x, self.inputs.weight[width:], self.inputs.bias[width:])
        keys, values = both.chunk(2, -1)
        return KeysValues(self._heads(keys), self._heads(values))

    def forward(self, x: Tensor, seen: KeysValues, causal: bool = False) -> Tensor:
        """Lets tokens (B, T, D) look at `seen`; if causal each at those up to its own place."""
        width = x.shape[-1]
        queries = self._heads(F.linear(x, self.inputs.weight[:width], self.inputs.bias[:width]))
        attended = F.scaled_dot_product_attention(queries, seen.keys, seen.values, is_causal=causal)
        out: Tensor = self.out(attended.transpose(1, 2).reshape(x.shape))
        return out

    def among(self, x: Tensor, seen: KeysValues, filled: Tensor) -> Tensor:
        """Lets a token (B, 1, D) look at the filled places, (T,), of `seen`."""
        width = x.shape[-1]
        queries = self._heads(F.linear(x, self.inputs.weight[:width], self.inputs.bias[:width]))
        scores = (queries * seen.keys).sum(-1) / math.sqrt(width // self.heads) - 1e4 * (1 - filled)
        attended = (torch.softmax(scores, -1)[..., None] * seen.values).sum(2)
        out: Tensor = self.out(attended.flatten(1)[:, None])
        return out


def _hidden(config: TransformerConfig) -> nn.Sequential:
    layers = nn.Sequential(
        nn.Linear(config.width, config.inner), nn.ReLU(), nn.Linear(config.inner, config.width)
    )
    for number in (0, 2):
        nn.init.xavier_uniform_(layers[number].weight)  # type: ignore[arg-type]
    return layers


class EncoderLayer(nn.Module):
    """Attention and a hidden layer, each normalised after it is added."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention = Attention(config.width, config.heads)
        self.hidden = _hidden(config)
        self.norms = nn.ModuleList(nn.LayerNorm(config.width) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """Maps tokens, (B, T, D), to the same shape."""
        x = self.norms[0](x + self.attention(x, self.attention.seen(x)))
        y: Tensor = self.norms[1](x + self.hidden(x))
        return y


class DecoderLayer(nn.Module):
    """Attention among the tokens, attention to the memory, and a hidden layer."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention = Attention(config.width, config.heads)
        self.to_memory = Attention(config.width, config.heads)
        self.hidden = _hidden(config)
        self.norms = nn.ModuleList(nn.LayerNorm(config.width) for _ in range(3))

    def forward(self, x: Tensor, tokens: KeysValues, memory: KeysValues, causal: bool) -> Tensor:
        """Maps tokens (B, T, D), which look at `tokens` and `memory`, to the same shape."""
        x = self.norms[0](x + self.attention(x, tokens, causal))
        x = self.norms[1](x + self.to_memory(x, memory))
        y: Tensor = self.norms[2](x + self.hidden(x))
        return y

    def place(self, x: Tensor, tokens: KeysValues, memory: KeysValues, filled: Tensor) -> Tensor:
        """Does the same for one token, (B, 1, D), and places of which only the filled ones, (T,), are looked at."""
        x = self.norms[0](x + self.attention.among(x, tokens, filled))
        x = self.norms[1](x + self.to_memory(x, memory))
        y: Tensor = self.norms[2](x + self.hidden(x))
        return y


class Transformer(nn.Module):
    """The encoder and the causal decoder.

    Args:
        config: sizes.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.layers))
        self.decoder = nn.ModuleList(DecoderLayer(config) for _ in range(config.layers))
        self.norms = nn.ModuleList(nn.LayerNorm(config.width) for _ in range(2))

    def encode(self, x: Tensor) -> Tensor:
        """Turns condition tokens, (B, S, D), into the memory, (B, S, D)."""
        for layer in self.encoder:
            x = layer(x)
        memory: Tensor = self.norms[0](x)
        return memory

    def decode(self, memory: Tensor, x: Tensor) -> Tensor:
        """Decodes all tokens, (B, T, D), at once."""
        for layer in self._decoder():
            x = layer(x, layer.attention.seen(x), layer.to_memory.seen(memory), True)
        y: Tensor = self.norms[1](x)
        return y

    def start(self, memory: Tensor) -> Cache:
        """Returns the cache before the first token."""
        layers = self._decoder()
        return Cache(tuple(layer.to_memory.seen(memory) for layer in layers), (None,) * len(layers))

    def step(self, cache: Cache, x: Tensor) -> tuple[Tensor, Cache]:
        """Decodes the next token, (B, 1, D), and returns it with the cache that includes it."""
        caches = list[KeysValues]()
        for layer, memory, before in zip(self._decoder(), cache.memory, cache.tokens, strict=True):
            now = layer.attention.seen(x)
            caches.append(now if before is None else before.with_next(now))
            x = layer(x, caches[-1], memory, False)
        return self.norms[1](x), Cache(cache.memory, tuple(caches))

    def step_in_place(
        self, memory: tuple[KeysValues, ...], kept: Tensor, x: Tensor, now: Tensor, filled: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Does what `step` does with places for all tokens from the start, as a loop of an exported graph needs it.

        Args:
            memory: of `start`.
            kept: keys and values, 0 where there are none yet, (B, layers, 2, heads, T, D / heads).
            x: the token, (B, 1, D).
            now: 1 at its place, else 0, (T,).
            filled: 1 up to its place, else 0, (T,).
        """
        every = list[Tensor]()
        for number, (layer, seen) in enumerate(zip(self._decoder(), memory, strict=True)):
            both = torch.stack(layer.attention.seen(x), 1)
            every.append(kept[:, number] + both * now[:, None])
            x = layer.place(x, KeysValues(every[-1][:, 0], every[-1][:, 1]), seen, filled)
        return self.norms[1](x), torch.stack(every, 1)

    def _decoder(self) -> list[DecoderLayer]:
        return [layer for layer in self.decoder if isinstance(layer, DecoderLayer)]
