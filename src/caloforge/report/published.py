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
        recipe: name of the recipe of this model without the detector; empty where there is none.
    """

    model: str
    kind: str
    w1: float
    mae: float | None = None
    ms: float | None = None
    recipe: str = ""


PUBLISHED: Mapping[str, tuple[PublishedRow, ...]] = MappingProxyType(
    {
        "zn": (
            PublishedRow("original data", "floor", 0.53, 16.41),
            PublishedRow("GAN", "generator", 5.70, 24.71, 0.023, recipe="gan"),
            PublishedRow("NF (MAF)", "generator", 4.11, 19.36, 160.0, recipe="maf"),
            PublishedRow("diffusion", "generator", 3.15, 20.10, 11.8, recipe="diffusion"),
            PublishedRow("VQ-GAN", "generator", 2.01, 20.33, 0.45, recipe="vqgan"),
            PublishedRow("diffusion (Kita)", "generator", 1.20, None, 109.0),
            PublishedRow("latent FM", "generator", 2.11, 22.32, 0.026, recipe="latent_flow_matching"),
            PublishedRow("FM", "generator", 1.27, 16.99, 0.46, recipe="flow_matching"),
            PublishedRow("linear", "readout", 60.06, recipe="linear"),
            PublishedRow("gradient boosting", "readout", 3.86, recipe="gradient_boosting"),
            PublishedRow("tree", "readout", 3.86, recipe="tree"),
            PublishedRow("kNN", "readout", 2.98, recipe="knn"),
            PublishedRow("MLP", "readout", 2.48, recipe="channel_mlp"),
        ),
        "zp": (
            PublishedRow("original data", "floor", 0.56, 13.00),
            PublishedRow("GAN", "generator", 2.48, None, 0.023, recipe="gan"),
            PublishedRow("SDI-GAN", "generator", 2.08, None, 0.023, recipe="sdi_gan"),
            PublishedRow("latent FM", "generator", 2.87, 15.64, 0.026, recipe="latent_flow_matching"),
            PublishedRow("FM", "generator", 1.30, 13.69, 0.46, recipe="flow_matching"),
            PublishedRow("linear", "readout", 34.65, recipe="linear"),
            PublishedRow("gradient boosting", "readout", 3.83, recipe="gradient_boosting"),
            PublishedRow("tree", "readout", 3.76, recipe="tree"),
            PublishedRow("kNN", "readout", 3.48, recipe="knn"),
            PublishedRow("MLP", "readout", 3.22, recipe="channel_mlp"),
        ),
    }
)
"""Published rows by detector."""

SOURCE_FLOWS = (
    "E. Majerz et al., Inverse autoregressive flows for ZDC fast simulation (2025); true photon sums, paper split, "
    "five generations"
)
"""Where the rows of the flows come from."""

FLOW_METRICS = ("w1", "mae_c", "mae_cw")
"""Metrics of `PUBLISHED_FLOWS`, in their order."""

PUBLISHED_FLOWS: Mapping[str, Mapping[str, tuple[float, float, float]]] = MappingProxyType(
    {
        "all": {
            "maf": (1.74, 8.89, 5.17),
            "iaf-bs": (1.73, 9.16, 5.57),
            "iaf-bs-div": (1.62, 9.05, 5.40),
            "iaf-bs-ch": (2.00, 8.89, 5.17),
            "iaf-bs-ch-div": (1.71, 8.77, 5.00),
        },
        "n": {
            "maf": (3.56, 7.41, 6.11),
            "iaf-bs": (3.37, 7.65, 6.45),
            "iaf-bs-ch-div": (4.19, 7.46, 6.20),
        },
        "Lambda": {
            "maf": (16.00, 8.88, 9.39),
            "iaf-bs": (16.42, 9.57, 11.00),
            "iaf-bs-ch-div": (16.49, 8.18, 8.88),
        },
        "K(S)0": {
            "maf": (10.94, 9.26, 11.41),
            "iaf-bs": (10.55, 9.40, 11.87),
            "iaf-bs-ch-div": (10.49, 9.03, 10.75),
        },
        "Sigma+": {
            "maf": (31.52, 12.93, 23.83),
            "iaf-bs": (33.53, 13.84, 25.38),
            "iaf-bs-ch-div": (31.64, 11.98, 19.14),
        },
    }
)
"""Published flows (ZN) by particle type and recipe, in photons: the values of `FLOW_METRICS`."""

SHAPE_METRICS = tuple(
    f"{quantity}_{error}"
    for quantity in ("centre", "centre_variance", "radius", "radius_variance")
    for error in ("mae", "rmse")
)
"""Metrics of `PUBLISHED_SHAPES`, in their order."""

PUBLISHED_SHAPES: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {
        "maf": (1.60, 5.84, 11.25, 45.68, 2.22, 6.62, 11.29, 52.66),
        "iaf-bs": (1.64, 5.86, 11.16, 46.90, 2.34, 6.69, 11.27, 55.09),
        "iaf-bs-ch-div": (1.63, 5.83, 10.86, 45.26, 2.26, 6.65, 11.22, 52.77),
    }
)
"""Centre and radius of the published flows (ZN, all particles) by recipe: the values of `SHAPE_METRICS`."""

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
