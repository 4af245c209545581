"""Pictures for notebooks."""

import numpy as np
import pytest

import caloforge as cf
from caloforge import plot
from caloforge.particles import particle_name
from caloforge.report import drawing
from made import made_events
from made_showers import made_showers

PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def events():
    return made_events(particles=10, repeats=3)


@pytest.mark.parametrize("made", [made_events, made_showers])
def test_displays_of_images_and_of_showers(made, tmp_path):
    events = made()
    drawn = events.plot([0, 2])
    assert drawn.panels[0].content.startswith(PNG)
    assert drawn._repr_html_().count("<img") == 1
    (path,) = drawn.save(tmp_path / "a.png")
    assert path.read_bytes().startswith(PNG)
    with pytest.raises(ValueError, match="rows must be within"):
        events.plot([len(events)])
    with pytest.raises(ValueError, match="1 to 12 events, got 13"):
        events.plot(range(13))
    with pytest.raises(ValueError, match=r"the images are \.png, got \.svg"):
        drawn.save(tmp_path / "a.svg")


def test_mean_responses(events):
    for others in ((), (events,), (events, events)):
        assert plot.mean_shower(events, *others).panels[0].content.startswith(PNG)
    with pytest.raises(ValueError, match="has layers and no image"):
        plot.mean_shower(made_showers())


def test_every_set_has_its_name_in_the_picture(events):
    for draw in (plot.mean_shower, plot.channels):
        first, other = (draw(events, names=[name]) for name in ("a", "c"))
        assert all(a.content != c.content for a, c in zip(first.panels, other.panels, strict=True))
    first, other = (plot.mean_shower(events, events, names=[name, "b"]) for name in ("a", "c"))
    assert first.panels[0].content != other.panels[0].content


def test_titles_have_particle_and_energy(events):
    particle = particle_name(int(events.pdg[0]))
    assert plot._title(events, 0).startswith(f"event 0\n{particle}, ")
    assert plot._title(events, 0).endswith((" GeV", " TeV"))
    assert drawing.wrapped(f"event 0\n{'a' * 9} {'b' * 10}") == f"event 0\n{'a' * 9} \n{'b' * 10}"


def test_channels_have_a_panel_each_and_equal_sets_a_ratio_of_one(events, tmp_path):
    drawn = cf.plot.channels(events, events.slices(slice(0, 15)), names=["all", "half"], channels="paper")
    assert [panel.label for panel in drawn.panels] == list(events.detector.channel_map("paper").labels)
    assert all(b"<svg" in panel.content for panel in drawn.panels)
    paths = drawn.save(tmp_path / "a.svg")
    assert [path.name for path in paths] == [f"a-{number}.svg" for number in range(1, len(drawn.panels) + 1)]
    assert all(path.stat().st_size for path in paths)


def test_sets_that_do_not_fit_are_refused(events):
    with pytest.raises(ValueError, match="of one detector, got zn and ds2"):
        plot.channels(events, made_showers())
    with pytest.raises(ValueError, match="a name for each of the 2 sets, got 1"):
        plot.channels(events, events, names=["a"])
    with pytest.raises(ValueError, match="no event to draw"):
        plot.mean_shower(events.slices(np.array([], np.intp)))
