import numpy as np
import pytest

from caloforge.metrics.showers import compare, separation
from caloforge.metrics.showers.features import spectrum_of


@pytest.mark.parametrize(
    ("counts", "others", "wanted"),
    [
        ([1, 1], [4, 0], 0.5 * (0.25 / 1.5 + 0.25 / 0.5)),
        ([3, 0, 1], [0, 2, 0], 1.0),
        ([2, 2, 4], [1, 1, 2], 0.0),
        ([1, 3], [3, 1], 0.5 * (0.25 + 0.25)),
    ],
)
def test_separation_by_hand(counts, others, wanted):
    assert separation(counts, others) == pytest.approx(wanted, abs=1e-12)
    assert separation(others, counts) == pytest.approx(wanted, abs=1e-12)


def test_entries_outside_the_bins_are_dropped_and_the_last_bin_is_closed():
    edges = np.array([1.0, 2.0, 4.0])
    voxels = np.array([[0.0, 0.5, 1.0, 1.5, 2.0, 4.0, 4.1]])
    np.testing.assert_array_equal(spectrum_of(voxels, edges), [[2, 2]])
    wanted, _ = np.histogram(voxels, edges)
    np.testing.assert_array_equal(spectrum_of(voxels, edges)[0], wanted)
    # normalised after dropping: 2 : 2 against 1 : 1
    assert separation(spectrum_of(voxels, edges)[0], [1, 1]) == 0


def test_separations_of_showers_by_their_histograms(sets):
    reference, others, _ = sets
    found = compare(reference, others, slow=False)

    def power(a, b, edges):
        h1, h2 = (np.histogram(x, edges)[0] / np.histogram(x, edges)[0].sum() for x in (a, b))
        return 0.5 * ((h1 - h2) ** 2 / (h1 + h2 + 1e-16)).sum()

    layers = [
        power(a, b, np.geomspace(0.5e-3 / 0.033, a.max() * (1 + 1e-12), 40))
        for a, b in zip(reference.layers.T, others.layers.T, strict=True)
        if a.max() > 0.5e-3 / 0.033
    ]
    wanted = {
        "sep_layers": np.mean(layers),
        "sep_total": power(reference.ratio, others.ratio, np.linspace(0.5, 1.5, 101)),
        "sep_voxels": separation(reference.spectrum.sum(0), others.spectrum.sum(0)),
        "sep_centre_phi": np.mean(
            [
                power(reference.centres[:, k, 1], others.centres[:, k, 1], np.linspace(-30, 30, 101))
                for k in range(45)
            ]
        ),
        "sep_width_r": np.mean(
            [
                power(reference.widths[:, k, 2], others.widths[:, k, 2], np.linspace(0, 20, 101))
                for k in range(45)
            ]
        ),
    }
    for name, value in wanted.items():
        assert found[name].value == pytest.approx(value, abs=1e-6), name
