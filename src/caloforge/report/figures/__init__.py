"""Figures of events and scores, each returned as the bytes of one image; none computes what it shows."""

from __future__ import annotations

from caloforge.report.figures.curves import Reliability, Training, reliability, sweep, training_curves
from caloforge.report.figures.data import Quantity, embedding, histograms, particle_mix
from caloforge.report.figures.images import gallery, image_of, mean_shower
from caloforge.report.figures.price import quality_against_time
from caloforge.report.figures.showers import classifier_weights, displays, layer_maps, profile
from caloforge.report.figures.spectra import compare
from caloforge.report.figures.trials import cumulative, parameter
from caloforge.report.figures.uncertainty import uncertainty_map

__all__ = [
    "Quantity",
    "Reliability",
    "Training",
    "classifier_weights",
    "compare",
    "cumulative",
    "displays",
    "embedding",
    "gallery",
    "histograms",
    "image_of",
    "layer_maps",
    "mean_shower",
    "parameter",
    "particle_mix",
    "profile",
    "quality_against_time",
    "reliability",
    "sweep",
    "training_curves",
    "uncertainty_map",
]
