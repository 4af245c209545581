"""Metrics of showers of voxels: features, and distances made of them; see docs/calochallenge.md."""

from __future__ import annotations

from caloforge.metrics.showers.features import (
    CONTROL,
    Showers,
    Sizes,
    Smeared,
    cut,
    feature_names,
    observe_showers,
)
from caloforge.metrics.showers.frechet import fpd, frechet, kpd
from caloforge.metrics.showers.neighbours import prdc
from caloforge.metrics.showers.scores import CLASSIFIER_METRICS, SHOWER_METRICS, compare, score_showers
from caloforge.metrics.showers.separation import separation

__all__ = [
    "CLASSIFIER_METRICS",
    "CONTROL",
    "SHOWER_METRICS",
    "Showers",
    "Sizes",
    "Smeared",
    "compare",
    "cut",
    "feature_names",
    "fpd",
    "frechet",
    "kpd",
    "observe_showers",
    "prdc",
    "score_showers",
    "separation",
]
