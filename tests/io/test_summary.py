"""Summaries, worked by hand."""

import numpy as np
import pytest

from caloforge.detectors import ChannelMap, Detector, Feature
from caloforge.events import Events, Primaries
from caloforge.io import summarize, summary

TOY = Detector(
    name="toy",
    axes={"x": 2, "y": 2},
    unit="photons",
    conditions=(Feature("energy", "GeV", "energy"),),
    channels={
        "rows": ChannelMap(("upper", "lower"), np.array([[1, 1, 0, 0], [0, 0, 1, 1]], np.float32), "by hand")
    },
    title="Toy",
)


@pytest.fixture
def toy():
    return Events(
        TOY,
        np.array([[1], [1], [3], [3], [7]]),
        np.array([22, 22, 2112, 2112, 22]),
        fold=np.array([0, 0, 3, 3, 0]),
        responses=np.array(
            [[[1, 2], [0, 0]], [[0, 0], [3, 0]], [[4, 4], [4, 4]], [[0, 0], [0, 0]], [[0, 1], [0, 0]]]
        ),
    )


@pytest.mark.parametrize("size", [1, 2, 5, 4096])
def test_a_summary_is_that_of_all_slices(toy, size, monkeypatch):
    monkeypatch.setattr(summary, "SLICE", size)
    got = summarize(toy)
    assert (got.detector, got.rows, got.particles, got.repeats, got.repeated) == ("toy", 5, 3, (1, 2.0, 2), 0)
    assert got.mix == {"gamma": 0.6, "n": 0.4}
    assert list(got.mix) == ["gamma", "n"]
    assert got.energy == (1.0, 3.0, 7.0)
    assert got.folds == {0: 3, 3: 2}
    assert got.responses is not None
    assert got.responses.unit == "photons"
    assert got.responses.quantiles[0.0] == 0
    assert got.responses.quantiles[0.5] == 3  # of 3, 3, 16, 0, 1
    assert got.responses.quantiles[1.0] == 16
    assert got.responses.channels == {"rows": {"upper": 12 / 5, "lower": 11 / 5}}
    assert got.responses.lit == 8 / 5
    assert got.responses.occupancy == 2 / 5
    assert got.responses.whole


def test_particles_alone_have_no_responses(toy):
    got = summarize(toy.primaries)
    assert got.responses is None
    assert got.mix == {"gamma": 0.6, "n": 0.4}


def test_fractions_are_seen_and_folds_may_be_absent(toy):
    got = summarize(Events(TOY, toy.conditions, toy.pdg, responses=toy.responses * 0.5))
    assert got.folds == {}
    assert got.responses is not None
    assert not got.responses.whole


def test_nothing_is_no_summary():
    with pytest.raises(ValueError, match="no rows"):
        summarize(Primaries(TOY, np.empty((0, 1)), np.empty(0)))


def test_particles_with_ten_repeats_are_counted():
    got = summarize(Primaries(TOY, np.repeat([[1.0], [2.0]], [10, 9], axis=0), np.full(19, 22)))
    assert (got.particles, got.repeats, got.repeated) == (2, (9, 9.5, 10), 1)
