"""Zero responses: which primaries leave one, decided before a response is generated.

A classifier gives P(ZN), P(ZP) and P(any). One uniform u an event decides both modules at once,

    ZN responds where u < P(ZN),   ZP where P(any) - P(ZP) <= u < P(any),

so that each has its probability, and so has their coincidence, P(ZN) + P(ZP) - P(any). Bundles of the two modules
that are asked for the same event with the same seed decide alike. The uniform comes from a stream of the event's
noise of its own (`runtime.noise`): the generator's noise is the same with and without it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caloforge.runtime.noise import uniform_words

STREAM = 1
"""Stream of the uniforms; the generator's noise is stream 0."""

MODULES = ("zn", "zp")


def uniforms(seed: int, events: ArrayLike) -> NDArray[np.float64]:
    """Draws one uniform in (0, 1) for each event, (B,)."""
    words = uniform_words(seed, events, 1, STREAM)[:, 0]
    return np.asarray((words.astype(np.float64) + 0.5) * 2.0**-32)


def responds(module: str, probabilities: NDArray[np.floating], u: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Decides which events leave a response in a module.

    Args:
        module: one of `MODULES`.
        probabilities: of ZN, of ZP, of any, (B, 3).
        u: one uniform an event, (B,).

    Raises:
        ValueError: no such module.
    """
    first, second, either = probabilities.T
    if module == "zn":
        return np.asarray(u < first)
    if module == "zp":
        return np.asarray((either - second <= u) & (u < either))
    raise ValueError(f"no zero response of {module!r} is known; there are {', '.join(MODULES)}")
