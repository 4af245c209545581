import numpy as np
import pytest

from caloforge.detectors import ZN
from caloforge.report import drawing, figures, histograms
from caloforge.report.figures.curves import stage_rows
from caloforge.report.histograms import Bins, Mean
from made import made_events

EDGES = np.array([0.0, 1, 2, 3])


def bins(counts, variances=None):
    counts = np.asarray(counts, float)
    return Bins(EDGES, counts, counts if variances is None else np.asarray(variances, float))


def test_ratio_and_bands_by_hand():
    value, error, band = histograms.ratio(bins([50, 9, 3]), bins([100, 4, 0]))
    np.testing.assert_allclose(value, [0.5, 2.25, np.nan])
    np.testing.assert_allclose(error, [50**0.5 / 100, 3 / 4, np.nan])
    np.testing.assert_allclose(band, [0.1, 0.5, np.nan])


def test_fill_counts_left_closed_bins_and_leaves_out_the_rest():
    values = np.array([0, 0.5, 1, 2.9, 3.5, -1, np.nan])
    filled = histograms.fill(values, EDGES)
    np.testing.assert_array_equal(filled.counts, [2, 1, 1])
    np.testing.assert_array_equal(filled.variances, filled.counts)
    assert histograms.outside(values, EDGES) == 3


def test_entries_per_width_scale_variances_by_the_square():
    wide = Bins(np.array([0.0, 1, 5]), np.array([8.0, 8.0]), np.array([8.0, 8.0]))
    scaled = histograms.per_width(wide, 2.0)
    np.testing.assert_allclose(scaled.counts, [16, 4])
    np.testing.assert_allclose(scaled.variances, [32, 2])


@pytest.mark.parametrize(
    ("low", "high", "whole"), [(0, 2900, True), (0, 3, True), (0.2, 1.7, False), (5, 5, True)]
)
def test_nice_edges_cover_the_range_in_a_few_round_steps(low, high, whole):
    edges = histograms.nice_edges(low, high, whole)
    width = np.diff(edges)
    assert edges[0] <= low
    assert edges[-1] >= high
    assert len(width) <= 43
    np.testing.assert_allclose(width, width[0])
    assert f"{width[0]:.0e}"[0] in "125"
    if whole:
        np.testing.assert_allclose(edges % 1, 0.5)


def test_growing_edges_lie_between_integers_and_widen():
    edges = histograms.growing_edges(1000)
    np.testing.assert_array_equal(edges[:4], [-0.5, 0.5, 1.5, 2.5])
    np.testing.assert_allclose(edges % 1, 0.5)
    assert edges[-1] >= 1000
    assert (np.diff(edges, 2) >= 0).all()


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([9, 8, 20], [0, 1, 2, 3]),
        ([20, 3, 5], [0, 1, 3]),
        ([5, 20, 5], [0, 3]),
        ([7, 8, 9], [0, 2, 3]),
        ([1, 1, 1], [0, 3]),
        ([0, 9, 0], [0, 3]),
    ],
)
def test_merged_bins_hold_enough(counts, expected):
    np.testing.assert_array_equal(histograms.merged_edges(np.array(counts, float), EDGES), expected)


def events_of(responses):
    made = made_events(particles=len(responses), repeats=1)
    full = np.zeros((len(responses), *ZN.shape), np.uint16)
    for row, cells in enumerate(responses):
        full[row].flat[: len(cells)] = cells
    return type(made)(ZN, made.conditions, made.pdg, made.group, made.fold, full)


def test_cell_spectrum_by_hand():
    source = events_of([[1, 1, 1, 5], [1, 2]])
    spectrum = histograms.cell_spectrum(source, np.array([0.5, 1.5, 4.5]))
    np.testing.assert_array_equal(spectrum.counts, [4, 1])
    np.testing.assert_array_equal(spectrum.variances, [3**2 + 1**2, 1])
    assert histograms.largest_cell(source) == 5


def test_mean_response_and_its_error_by_hand():
    mean = histograms.mean_response(events_of([[2, 4], [6, 4]]))
    assert mean.mean.flat[:3].tolist() == [4, 4, 0]
    np.testing.assert_allclose(mean.error.flat[:3], [2 / 2**0.5, 0, 0])


def test_relative_difference_needs_a_known_reference():
    reference = Mean(np.array([2.0, 2.0, 0.0]), np.array([0.5, 0.6, 0.0]))
    model = Mean(np.array([3.0, 3.0, 1.0]), np.zeros(3))
    np.testing.assert_allclose(histograms.relative_difference(model, reference), [0.5, np.nan, np.nan])


def test_styles_differ_in_colour_or_dashes():
    styles = [drawing.style(number, "") for number in range(18)]
    assert len({(one.colour, one.dashes) for one in styles}) == 18


def test_a_figure_leaves_no_global_state():
    matplotlib = pytest.importorskip("matplotlib")
    before = dict(matplotlib.rcParams)
    look = drawing.style(0, "model")
    image = figures.compare(bins([1, 2, 3]), [(look, bins([0, 0, 9]))], "x", "events")
    assert image.startswith(b"<?xml")
    assert dict(matplotlib.rcParams) == before
    assert matplotlib.pyplot.get_fignums() == []
    assert image == figures.compare(bins([1, 2, 3]), [(look, bins([0, 0, 9]))], "x", "events")


def test_empty_responses_can_be_drawn():
    empty = np.zeros((44, 44))
    assert figures.gallery([[empty, empty]], ["GEANT", "model"], ["x", "y"], "photons").startswith(b"\x89PNG")
    mean = Mean(empty, empty)
    assert figures.mean_shower(mean, [("model", mean)], ["x", "y"], "photons").startswith(b"\x89PNG")


def test_further_axes_are_summed():
    response = np.arange(24.0).reshape(2, 3, 4)
    np.testing.assert_array_equal(figures.image_of(response), response.sum(2))


def test_the_names_of_stages_lie_over_each_other_where_they_would_touch():
    stages = (("sums", 1.0), ("sums_solver", 81.0), ("place", 93.0), ("image", 153.0))
    assert stage_rows(stages, 196.0, 3.78) == [0, 0, 1, 0]
    assert stage_rows((("one", 1.0), ("two", 2.0), ("three", 3.0)), 3.0, 3.0) == [0, 0, 0]
