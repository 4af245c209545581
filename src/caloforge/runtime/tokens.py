"""Models that draw an event token by token: three graphs, and the loop between them.

given.onnx       conditions (B, F) -> tokens of the particle (B, G)
step.onnx        the token at a place (B,), place (B,), one normal (B,), keys and values of every block at all places
                 -> the image token after that place (B,), key and value of the place, block by block
response.onnx    tokens of the image (B, L), one normal (B,) -> responses (B, *shape)

A model that is told more than tokens draws the photon sum first, with the last but one of its normals:

given.onnx       conditions (B, F), one normal (B,) -> tokens of the particle (B, G), what each place is told
                 (B, T, width), photon sum (B,)
step.onnx        takes what the place is told, (B, width), after the normal
response.onnx    takes the photon sum, (B,), after the normal

Keys and values of what has been drawn are kept here, in arrays that the graph reads where they lie: each step adds
those of one place. Places 0 to G - 1 hold the particle's tokens, the others those of the image but the last; the token
after place G - 1 is the image's first.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from caloforge.runtime.session import Runtime, open_graph

GIVEN, STEP, RESPONSE = "given.onnx", "step.onnx", "response.onnx"

TOLD = "told"
"""Input of step.onnx: what the place is told."""


class TokenSession:
    """The graphs ready to run: a function of conditions (B, F) and noise (B, D).

    Args:
        folder: where the three ONNX files are.
        threads: threads of one batch.
        runtime: what runs them.

    Attributes:
        features: number of conditions, F.
        noise_dim: standard normals an event, D: one a token of the image, one of the photon sum where it is drawn
            first, and one.
        shape: shape of the response.

    Raises:
        ValueError: no graphs that this version of ONNX Runtime can run, or such as do not fit together.
    """

    def __init__(self, folder: Path, threads: int = 1, runtime: Runtime = "onnxruntime") -> None:
        self._given, self._step, self._respond = (
            open_graph(folder / name, threads, runtime) for name in (GIVEN, STEP, RESPONSE)
        )
        prompt, step, respond = (
            {value.name: value.shape for value in graph.get_inputs()}
            for graph in (self._given, self._step, self._respond)
        )
        self._kept = {
            name: list(shape[1:]) for name, shape in step.items() if len(shape) > 1 and name != TOLD
        }
        self._told = TOLD in step
        wanted = (["conditions", "noise"], ["tokens", "noise", "photons"])
        wanted = wanted if self._told else (wanted[0][:1], wanted[1][:2])
        if (list(prompt), list(respond)) != wanted or not self._kept:
            raise ValueError(
                f"{folder} must have {GIVEN} of conditions, {STEP} of a token, keys and values, {RESPONSE} of tokens "
                f"and noise, or all three of a model that is told more; got inputs {', '.join(prompt)}; "
                f"{', '.join(step)}; {', '.join(respond)}"
            )
        self.features = int(prompt["conditions"][1])
        self._first = int(self._given.get_outputs()[0].shape[1])
        self._length = int(respond["tokens"][1])
        self._places = int(self._kept["key0"][2])
        if self._places != self._first + self._length - 1:
            raise ValueError(
                f"the graphs in {folder} do not fit together: {self._first} and {self._length} tokens have "
                f"{self._first + self._length - 1} places, {STEP} has {self._places}"
            )
        self.noise_dim = self._length + 1 + self._told
        self.shape = tuple(self._respond.get_outputs()[0].shape[1:])

    def __call__(self, conditions: NDArray[np.float32], noise: NDArray[np.float32]) -> NDArray[np.generic]:
        """Runs one batch; returns (B, *shape), integers or float32 as the graph has them."""
        given = self.given(conditions, noise)
        inputs = {"tokens": self._draw(given, noise), "noise": np.ascontiguousarray(noise[:, -1])}
        inputs |= {"photons": given[2]} if self._told else {}
        (result,) = self._respond.run(None, inputs)
        return np.asarray(result)

    def given(
        self, conditions: NDArray[np.float32], noise: NDArray[np.float32]
    ) -> Sequence[NDArray[np.generic]]:
        """Returns the tokens of the particle; and, where they are, what each place is told and the photon sums."""
        inputs = {"conditions": conditions}
        inputs |= {"noise": np.ascontiguousarray(noise[:, -2])} if self._told else {}
        known: Sequence[NDArray[np.generic]] = self._given.run(None, inputs)
        return known

    def tokens(self, conditions: NDArray[np.float32], noise: NDArray[np.float32]) -> NDArray[np.int64]:
        """Draws the tokens of the image, (B, L)."""
        return self._draw(self.given(conditions, noise), noise)

    def _draw(self, given: Sequence[NDArray[np.generic]], noise: NDArray[np.float32]) -> NDArray[np.int64]:
        rows = len(noise)
        cache = {name: np.zeros((rows, *shape), np.float32) for name, shape in self._kept.items()}
        tokens = np.zeros((rows, self._places + 1), np.int64)
        tokens[:, : self._first] = given[0]
        normals = np.zeros((rows, self._places), np.float32)
        normals[:, self._first - 1 :] = noise[:, : self._length]
        for place in range(self._places):
            told = {TOLD: np.ascontiguousarray(given[1][:, place])} if self._told else {}
            inputs = {
                "tokens": np.ascontiguousarray(tokens[:, place]),
                "place": np.full(rows, place),
                "noise": np.ascontiguousarray(normals[:, place]),
                **told,
                **cache,
            }
            drawn, *entries = self._step.run(None, inputs)
            if place >= self._first - 1:
                tokens[:, place + 1] = drawn
            for (name, room), entry in zip(cache.items(), entries, strict=True):
                here = (..., slice(place, place + 1))
                room[here if name.startswith("key") else (*here, slice(None))] = entry
        return np.ascontiguousarray(tokens[:, self._first :])
