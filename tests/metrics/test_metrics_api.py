import caloforge.metrics as metrics


def test_public_names():
    assert sorted(metrics.__all__) == [
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
    assert all(hasattr(metrics, name) for name in metrics.__all__)
