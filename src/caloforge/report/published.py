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

SOURCE_SHOWERS = (
    "The CaloChallenge and CaloDREAM, arXiv 2405.09629: classifiers, FPD and KPD of the submitted showers against "
    "100,000 (data set 3: 50,000) of GEANT4, on the challenge's own data"
)
"""Where the rows of the challenge come from."""


@dataclass(frozen=True)
class PublishedShowers:
    """Holds one published result of the challenge.

    Attributes:
        model: name in the publication.
        kind: "floor" or "generator".
        auc_low: area under the curve of the classifier of voxels.
        auc_high: the same of the high-level features.
        fpd: Frechet distance of the features, times 1000.
        kpd: kernel distance of the features, times 1000.
        ms: milliseconds a shower on a CPU with batches of 1 and 100, and on a GPU; None where not given.
        parameters: of the network, in millions.
    """

    model: str
    kind: str
    auc_low: float
    auc_high: float
    fpd: float
    kpd: float
    ms: tuple[float | None, float | None, float | None, float | None] = (None, None, None, None)
    parameters: float | None = None


PUBLISHED_SHOWERS: Mapping[str, tuple[PublishedShowers, ...]] = MappingProxyType(
    {
        "ds2": (
            PublishedShowers("GEANT4", "floor", 0.4996, 0.4993, 10.8, -0.028),
            PublishedShowers(
                "CaloDREAM", "generator", 0.5308, 0.5208, 24.6, 0.023, (16_942, 5_052, 4_846, 74.3), 28.4
            ),
            PublishedShowers(
                "CaloDiffusion",
                "generator",
                0.5766,
                0.5910,
                146.9,
                0.174,
                (36_502, 23_317, 5_291, 99.5),
                0.52,
            ),
            PublishedShowers(
                "conv. L2LFlows", "generator", 0.7083, 0.7371, 157.4, 0.271, (1_969, 121, 1_409, 14.2), 158
            ),
            PublishedShowers("CaloINN", "generator", 0.7426, 0.8650, 733, 2.82, (388, 59.7, 53, 1.18), 271),
            PublishedShowers(
                "CaloVAE+INN", "generator", 0.9070, 0.9999, 5_443, 45.6, (64, 4.6, 42, 1.22), 48.4
            ),
            PublishedShowers("MDMA", "generator", 0.9416, 0.9867, 865, 4.96, (14.3, 19.9, 6.4, 1.18), 0.07),
            PublishedShowers(
                "Calo-VQ", "generator", 0.9858, 0.9941, 1_316, 8.52, (168, 26.1, 73, 1.12), 1.23
            ),
        ),
        "ds3": (
            PublishedShowers(
                "CaloDREAM", "generator", 0.6300, 0.5241, 20.7, 0.010, (33_292, 32_138, 5_003, 179.6), 8.25
            ),
            PublishedShowers(
                "CaloDiffusion",
                "generator",
                0.5613,
                0.6068,
                71.2,
                0.228,
                (205_240, 269_230, 6_171, 810),
                1.22,
            ),
            PublishedShowers(
                "conv. L2LFlows", "generator", 0.5876, 0.7331, 171.6, 0.325, (2_357, 340, 1_430, 16.0), 195
            ),
            PublishedShowers("Calo-VQ", "generator", 0.9960, 0.9980, 1_194, 5.68, (260, 68, 127, 1.83), 0.88),
        ),
    }
)
"""Published rows of the challenge by detector."""

SEPARATIONS: Mapping[str, Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "ds2": MappingProxyType(
            {
                "sep_layers": ("1.39e-3", "2.4e-4"),
                "sep_total": ("7.0e-4", "4.4e-4"),
                "sep_voxels": ("2.07e-3", "9e-7"),
                "sep_centre_eta": ("6.1 to 6.8e-4", "5e-4"),
                "sep_width_eta": ("5.5e-4", "4.8e-4"),
                "sep_sparsity": ("1.17e-4", "9.3e-5"),
            }
        )
    }
)
"""Separation powers of CaloDREAM and of GEANT4 against itself, by detector and metric, as they were published."""
