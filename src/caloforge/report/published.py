"""Results of the publications, kept for context beside one's own.

They were measured on the ALICE data of the papers, which is not public, with other particles, other rows and
other floors: a number here and a number of one's own differ by the data before they differ by the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

SOURCE = (
    "M. Wojnar, Even faster simulations with flow matching (2025) and works cited there; "
    "times on an A100 GPU at batch 256; 61,356 (ZN) and 25,936 (ZP) test rows, split by row"
)
"""Where the generators' rows come from."""

SOURCE_READOUTS = "the same; direct estimation of the five channel sums, no image"
"""Where the readouts' rows come from."""


@dataclass(frozen=True)
class PublishedRow:
    """Holds one published result.

    Attributes:
        model: name in the publication.
        kind: "floor" (the original data against themselves), "generator" or "readout".
        w1: mean Wasserstein-1 distance of the five `paper` channels, in photons.
        mae: mean absolute error of the channels, averaged over the five, in photons; None where not given.
        ms: milliseconds an event; None where not given.
    """

    model: str
    kind: str
    w1: float
    mae: float | None = None
    ms: float | None = None


PUBLISHED: Mapping[str, tuple[PublishedRow, ...]] = MappingProxyType(
    {
        "zn": (
            PublishedRow("original data", "floor", 0.53, 16.41),
            PublishedRow("GAN", "generator", 5.70, 24.71, 0.023),
            PublishedRow("NF (MAF)", "generator", 4.11, 19.36, 160.0),
            PublishedRow("diffusion", "generator", 3.15, 20.10, 11.8),
            PublishedRow("VQ-GAN", "generator", 2.01, 20.33, 0.45),
            PublishedRow("diffusion (Kita)", "generator", 1.20, None, 109.0),
            PublishedRow("latent FM", "generator", 2.11, 22.32, 0.026),
            PublishedRow("FM", "generator", 1.27, 16.99, 0.46),
            PublishedRow("linear", "readout", 60.06),
            PublishedRow("gradient boosting", "readout", 3.86),
            PublishedRow("tree", "readout", 3.86),
            PublishedRow("kNN", "readout", 2.98),
            PublishedRow("MLP", "readout", 2.48),
        ),
        "zp": (
            PublishedRow("original data", "floor", 0.56, 13.00),
            PublishedRow("GAN", "generator", 2.48, None, 0.023),
            PublishedRow("SDI-GAN", "generator", 2.08, None, 0.023),
            PublishedRow("latent FM", "generator", 2.87, 15.64, 0.026),
            PublishedRow("FM", "generator", 1.30, 13.69, 0.46),
            PublishedRow("linear", "readout", 34.65),
            PublishedRow("gradient boosting", "readout", 3.83),
            PublishedRow("tree", "readout", 3.76),
            PublishedRow("kNN", "readout", 3.48),
            PublishedRow("MLP", "readout", 3.22),
        ),
    }
)
"""Published rows by detector."""
