from dataclasses import replace

import numpy as np
import pytest

from caloforge.detectors import DS2, DS3
from caloforge.events import Events
from caloforge.io import open_events
from caloforge.metrics import SHOWER_METRICS
from caloforge.metrics.scores import halves
from caloforge.metrics.showers import Smeared, compare, data_set, observe_showers, score_showers
from caloforge.metrics.showers.challenge import unit_doubt
from caloforge.metrics.showers.scores import CHALLENGE, SLOW
from caloforge.samples import sample
from made_showers import QUICK, TINY, ds1, made_flat_showers, made_showers


def test_every_metric_is_perfect_on_itself(sets):
    reference, _, _ = sets
    found = compare(reference, reference, sizes=QUICK)
    assert set(found) == set(SHOWER_METRICS)
    for name, result in found.items():
        if name.startswith("sep"):
            assert result.value == 0, name
        elif name in ("precision", "recall", "coverage"):
            assert result.value == 1, name
    # rows of a set against the same rows: less than nothing, since the distances are free of bias
    assert found["kpd"].value <= 0
    assert found["density"].value >= 1


@pytest.mark.parametrize("name", [name for name, metric in SHOWER_METRICS.items() if metric.symmetric])
def test_symmetric_metrics_are_symmetric(name, sets):
    reference, others, _ = sets
    there = compare(reference, others, slow=False)[name].value
    assert compare(others, reference, slow=False)[name].value == pytest.approx(there, rel=1e-12)
    assert there > 0


def test_smearing_multiplies_layers_whatever_is_read():
    events = made_showers(rows=6)
    smeared = Smeared(events, 0.05)
    whole = smeared.slices(slice(None))
    np.testing.assert_array_equal(smeared.slices(np.array([4, 1])).responses, whole.responses[[4, 1]])
    factor = DS2.readout(whole.responses) / np.maximum(DS2.readout(events.responses), 1e-9)
    lit = DS2.readout(events.responses) > 1
    assert 0.03 < factor[lit].std() < 0.07
    np.testing.assert_array_equal(whole.responses > 0, events.responses > 0)


def test_scores_hold_floor_control_and_a_note():
    source = made_showers(TINY, rows=120)
    reference = observe_showers(source, sizes=QUICK)
    others = observe_showers(made_showers(TINY, rows=120, seed=1), reference.edges, QUICK)
    control = observe_showers(Smeared(source), reference.edges, QUICK)
    sizes = replace(QUICK, slow_splits=2)
    scores = score_showers(reference, [others, reference], control, sizes=sizes)["all"]
    assert scores["n"] == 120
    assert "not comparable with published numbers" in scores["note"]
    assert list(scores["metrics"]) == list(SHOWER_METRICS)
    for name, entry in scores["metrics"].items():
        splits = 1 if name in CHALLENGE else 2 if name in SLOW else 3
        assert len(entry["values"]) == 2
        for kind in ("floor", "matched_floor", "control"):
            assert entry[kind]["splits"] == splits
            assert np.isfinite(entry[kind]["mean"])
    again = score_showers(reference, [others, reference], control, sizes=sizes)["all"]
    assert again == scores


def test_the_challenges_numbers_go_with_the_scores(tmp_path):
    detector = ds1(tmp_path, "photon")
    source = made_flat_showers(detector, rows=40)
    reference = observe_showers(source, sizes=QUICK)
    others = observe_showers(made_flat_showers(detector, rows=30, seed=1), reference.edges, QUICK)
    scores = score_showers(reference, [others], sizes=QUICK)["all"]
    numbers = scores["challenge"]
    assert (numbers["data_set"], numbers["threshold"]) == ("ds1-photons", 1.0)
    assert numbers["rows"] == {"reference": 40, "generated": 30}
    responses = source.responses[source.responses < 1]
    assert numbers["below"]["reference"] == np.count_nonzero(responses) > 0
    assert numbers["separations"]["E_tot/E_inc"] == scores["metrics"]["sep_total"]["mean"]
    for name in ("fpd", "kpd"):
        assert numbers[name]["value"] == scores["metrics"][name]["mean"]
        assert numbers[name]["error"] > 0
    assert f"set to 0: {numbers['below']['reference']:,} of the reference's showers" in scores["note"]
    assert "30 showers: FPD, KPD and classifiers are not comparable" in scores["note"]
    assert "GeV" not in scores["note"]


@pytest.mark.parametrize(
    ("energies", "voxels", "doubt"),
    [(1, 1, ""), (1e-3, 1e-3, "is the file in GeV?"), (1, 1e-3, "both in MeV?"), (1e-3, 1, "in GeV?")],
)
def test_files_in_gev_are_doubted(energies, voxels, doubt):
    events = made_showers(TINY, rows=20)
    scaled = Events(
        TINY,
        events.conditions * np.float32(energies),
        events.pdg,
        responses=events.responses * np.float32(voxels),
    )
    found = unit_doubt(observe_showers(scaled, np.array([0.01, 1e5])))
    assert doubt in found
    assert bool(found) == bool(doubt)


def test_data_sets_are_known_by_their_voxels(tmp_path):
    assert [data_set(one) for one in (DS2, DS3, TINY)] == ["ds2", "ds3", None]
    assert data_set(ds1(tmp_path, "pion")) == "ds1-pions"


def test_too_few_showers_give_reasons():
    few = observe_showers(made_showers(rows=4))
    metrics = score_showers(few, [few], sizes=QUICK)["all"]["metrics"]
    assert metrics["fpd"]["mean"] is None
    assert metrics["fpd"]["reason"] == "fewer than 10 showers"
    assert "more than 5 showers" in metrics["coverage"]["reason"]


def test_other_edges_are_refused(sets):
    reference, _, _ = sets
    with pytest.raises(ValueError, match="must have the reference's edges"):
        compare(reference, observe_showers(made_showers(rows=12, seed=5)))


def test_the_positive_control_is_found_in_real_showers():
    source = open_events(sample("ds2"))
    reference = observe_showers(source, sizes=QUICK)
    smeared = observe_showers(Smeared(source), reference.edges, QUICK)
    splits = [halves(len(source), np.random.default_rng(number)) for number in range(10)]
    floor, control = (
        [compare(reference.select(a), other.select(b), slow=False)["sep_voxels"].value for a, b in splits]
        for other in (reference, smeared)
    )
    # blurs the sharp lines that single particles leave in the spectrum of voxels
    assert np.mean(control) > np.mean(floor) + np.std(floor)
    assert all(blurred > sharp for blurred, sharp in zip(control, floor, strict=True))
