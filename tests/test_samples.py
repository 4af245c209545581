"""What the shipped samples promise."""

import numpy as np
import pytest

from caloforge.events import Selected, load, split
from caloforge.io import open_events, provenance, summarize
from caloforge.io.files import read_json
from caloforge.runtime.domain import Domain
from caloforge.samples import SAMPLES, particles_for, sample, samples_of, weights

BUDGET = 6_000_000
ZDC = ("zn", "zn_wide", "zp", "zp_wide")


@pytest.mark.parametrize("name", ZDC)
def test_samples_open_and_hold_every_part(name):
    source = open_events(sample(name))
    assert source.primaries.detector.name == name.partition("_")[0]
    parts = split(source, "canonical")
    assert all(len(rows) > 0 for rows in parts.values())
    assert len(parts["train"]) >= len(parts["test"]) >= 1000
    assert provenance(sample(name))["cut_from"]["name"] == f"{name}.h5"


@pytest.mark.parametrize("detector", ["zn", "zp"])
def test_the_two_files_of_a_detector_keep_the_budget(detector):
    assert sum(sample(f"{detector}{kind}").stat().st_size for kind in ("", "_wide")) <= BUDGET


@pytest.mark.parametrize("name", ["zn", "zp"])
def test_repeated_sets_have_test_particles_for_conditional_metrics(name):
    source = open_events(sample(name))
    test = Selected(source, split(source, "canonical")["test"])
    _, repeats = np.unique(test.primaries.group, return_counts=True)
    assert (repeats >= 10).sum() >= 60


@pytest.mark.parametrize("name", ["zn", "zp"])
def test_the_files_of_a_detector_share_no_particle(name):
    groups = [set(open_events(sample(key)).primaries.group.tolist()) for key in (name, f"{name}_wide")]
    assert not groups[0] & groups[1]


@pytest.mark.parametrize("name", ZDC)
def test_groups_are_the_unique_particles(name):
    particles = open_events(sample(name)).primaries
    rows = np.column_stack([particles.conditions, particles.pdg])
    assert len(np.unique(rows, axis=0)) == len(np.unique(particles.group))


def test_every_cell_of_a_sample_is_a_count():
    responses = summarize(open_events(sample("zp"))).responses
    assert responses.whole
    assert responses.quantiles[0.0] >= 10
    assert load(open_events(sample("zp"))).responses.dtype == np.uint16


@pytest.mark.parametrize("name", sorted(weights()))
def test_weights_that_ship_know_their_domain(name):
    card = read_json(weights()[name] / "card.json")
    domain = Domain.from_card(card["domain"])
    assert domain.rows == sum(entry["rows"]["train"] for entry in card["data"])
    trained_on = {entry["name"] for entry in card["data"]}
    for path in (sample(name) for name in SAMPLES if name.partition("_")[0] == card["detector"]):
        if path.name not in trained_on:
            continue
        source = open_events(path)
        assert domain.inside(source.primaries.select(split(source, card["split"])["train"])).all()


@pytest.mark.parametrize("name", sorted(weights()))
def test_weights_that_ship_are_small(name):
    sizes = [path.stat().st_size for path in weights()[name].glob("*.safetensors")]
    assert max(sizes) < 2_000_000
    assert sum(sizes) < 4_000_000


def test_unknown_samples():
    with pytest.raises(
        ValueError, match=r"no sample 'zn_wid'; there are zn, .*primaries, did you mean 'zn_wide'\?"
    ):
        sample("zn_wid")


def test_showers_ship_in_the_layout_of_the_challenge():
    assert {*ZDC, "ds2"} == set(SAMPLES)
    assert samples_of("ds2") == [sample("ds2")]
    assert particles_for("ds2") == particles_for("ds3") == sample("ds2")
    assert sample("ds2").stat().st_size <= 1_500_000
    source = open_events(sample("ds2"))
    assert source.primaries.detector.name == "ds2"
    assert {name: len(rows) for name, rows in split(source, "ordered").items()} == {
        "train": 238, "validation": 34, "test": 68,
    }  # fmt: skip
    total = load(source).responses.sum((1, 2, 3)) / source.primaries.conditions[:, 0]
    assert 0.85 < total.mean() < 0.95
