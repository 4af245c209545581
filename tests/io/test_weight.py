"""The column `weight` goes with its rows into every format and every set."""

import dataclasses

import h5py
import numpy as np
import pytest

from caloforge.detectors import DS2, ZN
from caloforge.events import Displaced, Joined, Selected, with_responses
from caloforge.io import convert, create, open_events, open_primaries
from caloforge.io.formats import FORMATS
from made import made_events
from made_showers import made_showers

WRITTEN = [
    suffix for suffix, kind in FORMATS.items() if kind.output is not None and kind.open_events is not None
]


def with_weights(events):
    return dataclasses.replace(events, weight=np.random.default_rng(0).gamma(1, size=len(events)))


def write(path, events):
    with create(path, events.detector) as writer:
        writer.append(events.slices(slice(0, 5)))
        writer.append(events.slices(slice(5, None)))
    return path


@pytest.mark.parametrize("suffix", WRITTEN)
@pytest.mark.parametrize("made", [made_events, made_showers])
def test_weights_are_read_back_from_every_format(tmp_path, suffix, made):
    events = with_weights(made())
    source = open_events(write(tmp_path / f"events{suffix}", events), events.detector)
    np.testing.assert_array_equal(source.primaries.weight, events.weight)
    np.testing.assert_array_equal(source.slices(np.array([3, 1])).weight, events.weight[[3, 1]])
    convert(tmp_path / f"events{suffix}", tmp_path / "other.h5", events.detector)
    np.testing.assert_array_equal(open_events(tmp_path / "other.h5").primaries.weight, events.weight)


def test_particles_alone_have_weights_too(tmp_path):
    particles = with_weights(made_events()).primaries
    with create(tmp_path / "particles.h5", ZN) as writer:
        writer.append(particles)
    np.testing.assert_array_equal(open_primaries(tmp_path / "particles.h5").weight, particles.weight)


def test_a_table_of_sums_has_the_column(tmp_path):
    events = with_weights(made_events())
    lines = write(tmp_path / "sums.csv", events).read_text().splitlines()
    place = lines[0].split(",").index("weight")
    np.testing.assert_allclose([float(line.split(",")[place]) for line in lines[1:]], events.weight)


def test_files_without_weights_have_none(tmp_path):
    assert open_events(write(tmp_path / "events.h5", made_events())).primaries.weight is None


def test_weights_go_along(tmp_path):
    events = with_weights(made_events())
    rows = np.array([4, 0])
    assert events.slices(rows).weight.tolist() == events.weight[rows].tolist()
    assert events.primaries.select(rows).weight.tolist() == events.weight[rows].tolist()
    assert Selected(events, rows).primaries.weight.tolist() == events.weight[rows].tolist()
    assert with_responses(events.primaries, events.responses).weight is events.weight
    assert Displaced(events, (0.1, 0.1, 5), 0).slices(rows).weight.tolist() == events.weight[rows].tolist()
    joined = Joined([events, made_events(seed=1)])
    assert joined.primaries.weight.tolist() == [*events.weight, *np.ones(len(events))]
    assert Joined([made_events(), made_events(seed=1)]).primaries.weight is None
    assert "weight" in events.to_dict()
    assert "weight" not in made_events().to_dict()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full(48, np.nan), "weight must be finite, got nan in row 0"),
        (np.array([b"a"] * 48), "weight must be numbers"),
    ],
)
def test_broken_weights_are_refused_in_one_line(tmp_path, values, message):
    path = write(tmp_path / "events.h5", made_events())
    with h5py.File(path, "a") as file:
        file["weight"] = values
    with pytest.raises(ValueError, match=message) as error:
        open_events(path)
    assert "events.h5" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_weight_for_each_row():
    with pytest.raises(ValueError, match=r"weight must have shape \(48,\)"):
        dataclasses.replace(made_events(), weight=np.ones(3))


def test_showers_are_those_of_the_challenge_with_one_column_more(tmp_path):
    write(tmp_path / "showers.h5", with_weights(made_showers()))
    with h5py.File(tmp_path / "showers.h5") as file:
        assert set(file) == {"incident_energies", "showers", "weight"}
    assert open_events(tmp_path / "showers.h5").primaries.detector is DS2
