import numpy as np
import pytest
from matplotlib.colors import to_hex

from caloforge.detectors import DS2, from_xml
from caloforge.metrics.showers import observe_showers
from caloforge.report import drawing, figures
from caloforge.report.document import Section, walk
from caloforge.report.drawing import style
from caloforge.report.histograms import Points, mean_of
from caloforge.report.pages.showers import _bands, _profiles, along_direction, bands, layer_numbers
from made_showers import made_showers, made_showers_with_angles

RAGGED = """<Bins><Bin pid="22" name="photon"><Layer id="0" r_edges="0,1,2" n_bin_alpha="1"/>
<Layer id="3" r_edges="0,5,9,12" n_bin_alpha="4"/></Bin></Bins>"""


def test_mean_and_its_error_by_hand():
    points = mean_of(np.array([[1.0, 4.0], [3.0, 4.0]]))
    assert points.mean.tolist() == [2, 4]
    np.testing.assert_allclose(points.error, [1 / np.sqrt(2), 0])


def test_layers_are_chosen_along_the_shower():
    shower = np.zeros(DS2.shape)
    shower[10:20] = 1
    assert layer_numbers(DS2, shower.reshape(-1)) == [10, 12, 14, 17, 19]
    assert layer_numbers(DS2, np.zeros(DS2.cells)) == [44]


@pytest.mark.parametrize(
    ("energies", "edges"),
    [
        ([1e3, 2e4, 9e5], [1e3, 1e4, 1e5, 1e6]),
        ([1e3, 9.99e4], [1e3, 1e4, 1e5]),
        ([300, 5e3, 7e4], [1e2, 1e3, 1e4, 1e5]),
        ([2e3, 4e3, 1.6e4], [2e3, 4e3, 8e3, 1.6e4]),
        ([5e4, 5e4], [5e4, 5e4]),
    ],
)
def test_bands_of_the_energy_are_decades_or_thirds(energies, edges):
    np.testing.assert_allclose(bands(np.array(energies)), edges, rtol=1e-6)


def test_every_shower_is_in_one_band():
    incident = np.random.default_rng(0).uniform(1e3, 1e6, 1000)
    place = np.digitize(incident, bands(incident)) - 1
    assert set(place) <= set(range(len(bands(incident)) - 1))


def test_a_band_has_profiles_spectrum_centre_width_and_sparsity():
    showers = observe_showers(made_showers(rows=140))
    blocks = _bands(showers, [])
    drawn = [block for block in blocks if isinstance(block, Section)]
    assert drawn
    titles = {block.title for block in walk(drawn[0].blocks) if hasattr(block, "title")}
    assert {"Longitudinal profile", "Sparsity", "Width in eta", "Mean radius", "Voxel energies"} <= titles
    assert {title.split(", layer")[0] for title in titles} >= {"Centre in eta", "Width in eta"}


def test_the_centre_is_drawn_along_the_direction_where_there_are_angles():
    showers = observe_showers(made_showers_with_angles(rows=6))
    phi = showers.primaries.feature("phi")[:, None]
    by_hand = showers.centres[:, :, 0] * np.cos(phi) + showers.centres[:, :, 1] * np.sin(phi)
    np.testing.assert_allclose(along_direction(showers), by_hand, atol=1e-5)
    titles = [figure.title for figure in _profiles(showers, [])]
    assert "Centre along the direction" in titles
    plain = [figure.title for figure in _profiles(observe_showers(made_showers(rows=6)), [])]
    assert plain == titles[:-1]


def test_weights_of_a_classifier_are_shares_in_the_look_of_their_model(monkeypatch):
    monkeypatch.setattr(drawing, "svg", lambda figure: figure)
    histograms = {"edges": [0.1, 0.5, 2.0, 10.0], "truth": [1, 2, 5], "generated": [6, 3, 1]}
    look = style(1, "a model")
    (axes,) = figures.classifier_weights(histograms, look, "w").axes
    *_, truth, generated = axes.patches
    np.testing.assert_allclose(truth.get_data().values, [0.125, 0.25, 0.625])
    np.testing.assert_allclose(generated.get_data().values, [0.6, 0.3, 0.1])
    np.testing.assert_allclose(generated.get_data().edges, histograms["edges"])
    assert (truth.get_label(), generated.get_label()) == ("GEANT", "a model")
    assert to_hex(generated.get_edgecolor()) == look.colour.lower() != to_hex(truth.get_edgecolor())
    (line,) = axes.lines
    assert set(line.get_xdata()) == {1}


@pytest.mark.slow
def test_displays_of_dense_and_ragged_showers(tmp_path):
    (tmp_path / "binning.xml").write_text(RAGGED)
    ragged = from_xml(tmp_path / "binning.xml")
    dense = made_showers(rows=2).responses.reshape(2, -1).astype(float)
    for detector, showers in ((DS2, dense), (ragged, np.arange(2 * ragged.cells).reshape(2, -1) + 1.0)):
        named = [("GEANT", showers[0]), ("a model with a long name", showers[1])]
        assert figures.displays(detector, named).startswith(b"\x89PNG")
        assert figures.layer_maps(detector, named, [0, 1]).startswith(b"\x89PNG")
    points = Points(np.array([1.0, 2.0]), np.array([0.1, 0.1]))
    drawn = figures.profile(np.array([0.0, 1, 2]), points, [(style(0, "m"), points)], "x", "y")
    assert b"<svg" in drawn
