"""Metrics of generated events against simulated ones, each beside its floor; see docs/metrics.md."""

from __future__ import annotations

from caloforge.metrics.channels import wasserstein
from caloforge.metrics.conditional import bins, impact
from caloforge.metrics.diversity import Diversity, f_div, f_div_inv_w
from caloforge.metrics.observables import Observables, Result, centre_and_radius, observe
from caloforge.metrics.scores import METRICS, Metric, align, floors, score
from caloforge.metrics.showers import SHOWER_METRICS, Showers, observe_showers, score_showers
from caloforge.metrics.weights import effective_size, weights_of

__all__ = [
    "Diversity",
    "METRICS",
    "Metric",
    "Observables",
    "Result",
    "SHOWER_METRICS",
    "Showers",
    "align",
    "bins",
    "centre_and_radius",
    "effective_size",
    "f_div",
    "f_div_inv_w",
    "floors",
    "impact",
    "observe",
    "observe_showers",
    "score",
    "score_showers",
    "wasserstein",
    "weights_of",
]
