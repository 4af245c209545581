import numpy as np
import pytest

from caloforge.metrics.showers import compare, observe_showers, separation, separations
from caloforge.metrics.showers.features import spectrum_of
from caloforge.metrics.showers.separation import Z, separation_of
from made_showers import QUICK, ds1, made_flat_showers


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


def power(a, b, edges):
    """The separation power by NumPy's histograms."""
    h1, h2 = (np.histogram(x, edges)[0] / np.histogram(x, edges)[0].sum() for x in (a, b))
    return 0.5 * ((h1 - h2) ** 2 / (h1 + h2 + 1e-16)).sum()


def test_separations_of_showers_by_their_histograms(sets):
    reference, others, _ = sets
    found = compare(reference, others, slow=False)

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


def test_a_reference_without_entries_within_the_bins_has_no_separation_and_other_sets_a_full_one():
    inside, outside, edges = np.array([0.5, 0.6]), np.array([7.0]), np.linspace(0, 1, 11)
    assert np.isnan(separation_of(outside, inside, edges))
    assert separation_of(inside, outside, edges) == 1


@pytest.mark.parametrize(
    ("particle", "histograms"),
    [
        # ratios, layers, EC and width in eta and phi of wide layers and in r of all, sparsities, voxels
        ("photon", 16 + 5 + 2 * (2 + 2 + 5) + 5 + 1),
        ("pion", 16 + 7 + 2 * (4 + 4 + 7) + 7 + 1),
    ],
)
def test_histograms_of_data_set_1(particle, histograms, tmp_path):
    detector = ds1(tmp_path, particle)
    reference = observe_showers(made_flat_showers(detector, rows=600), sizes=QUICK)
    others = observe_showers(made_flat_showers(detector, rows=500, seed=1), reference.edges, QUICK)
    values = separations(reference, others)
    assert len(values) == histograms
    edges = {
        name: np.linspace(*window, 101)
        for name, window in {
            "EC_eta 1": (-100, 100), "width_phi 2": (0, 100), "EC_r 0": (0, 500), "width_r 3": (0, 500),
            "EC_r 12": (0, 1500), "width_r 12": (0, 1500),
        }.items()
    }  # fmt: skip
    if particle == "pion":
        for name, window in {
            "EC_phi 12": (-500, 500), "width_eta 13": (0, 400), "EC_r 14": (0, 1500)
        }.items():  # fmt: skip
            edges[name] = np.linspace(*window, 101)
    place = {layer.number: k for k, layer in enumerate(detector.layers)}
    for name, borders in edges.items():
        moment, number = name.split()
        what, z = moment.split("_")
        ours, theirs = (
            getattr(one, {"EC": "centres", "width": "widths"}[what])[:, place[int(number)], Z.index(z)]
            for one in (reference, others)
        )
        assert values[name] == pytest.approx(power(ours, theirs, borders), abs=1e-12), name
    for number in range(15):
        energy = 256 * 2**number
        narrow = particle == "photon" and number >= 4
        borders = np.linspace(0.9, 1.1, 21) if narrow else np.linspace(0.4, 1.4, 21)
        ours, theirs = (one.ratio[one.incident == energy] for one in (reference, others))
        assert values[f"E_tot/E_inc {energy} MeV"] == pytest.approx(power(ours, theirs, borders), abs=1e-12)


def test_detectors_whose_layers_are_alike_have_the_histograms_of_data_sets_2_and_3(sets):
    reference, others, _ = sets
    values = separations(reference, others)
    assert "E_tot/E_inc 256 MeV" not in values
    ours, theirs = (one.widths[:, 7, 1] for one in (reference, others))
    assert values["width_phi 7"] == pytest.approx(power(ours, theirs, np.linspace(0, 30, 101)), abs=1e-12)
    means = compare(reference, others, slow=False)
    for metric, name in {"sep_layers": "E_layer", "sep_centre_r": "EC_r", "sep_sparsity": "sparsity"}.items():
        mean = np.mean([value for key, value in values.items() if key.split()[0] == name])
        assert means[metric].value == pytest.approx(mean, rel=1e-12)
