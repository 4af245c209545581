"""Metrics of showers of voxels: features, and distances made of them; see docs/calochallenge.md."""

from __future__ import annotations

from caloforge.metrics.showers.challenge import data_set
from caloforge.metrics.showers.features import (
    CONTROL,
    Showers,
    Sizes,
    Smeared,
    cut,
    directions,
    feature_names,
    observe_showers,
    wide_layers,
)
from caloforge.metrics.showers.frechet import fpd, frechet, frechet_population, kernel_population, kpd
from caloforge.metrics.showers.neighbours import prdc
from caloforge.metrics.showers.scores import CLASSIFIER_METRICS, SHOWER_METRICS, compare, score_showers
from caloforge.metrics.showers.separation import separation, separations

__all__ = [
    "CLASSIFIER_METRICS",
    "CONTROL",
    "SHOWER_METRICS",
    "Showers",
    "Sizes",
    "Smeared",
    "compare",
    "cut",
    "data_set",
    "directions",
    "feature_names",
    "fpd",
    "frechet",
    "frechet_population",
    "kernel_population",
    "kpd",
    "observe_showers",
    "prdc",
    "score_showers",
    "separation",
    "separations",
    "wide_layers",
]
