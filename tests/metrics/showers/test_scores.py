import numpy as np
import pytest

from caloforge.detectors import DS2
from caloforge.io import open_events
from caloforge.metrics import SHOWER_METRICS
from caloforge.metrics.scores import halves
from caloforge.metrics.showers import Smeared, compare, observe_showers, score_showers
from caloforge.metrics.showers.scores import SLOW
from caloforge.samples import sample
from made_showers import QUICK, made_showers


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


def test_scores_hold_floor_control_and_a_note(sets):
    reference, others, control = sets
    scores = score_showers(reference, [others, reference], control, sizes=QUICK)["all"]
    assert scores["n"] == 120
    assert "not comparable with published numbers" in scores["note"]
    assert list(scores["metrics"]) == list(SHOWER_METRICS)
    for name, entry in scores["metrics"].items():
        slow = name in SLOW
        assert len(entry["values"]) == 2
        for kind in ("floor", "matched_floor", "control"):
            assert entry[kind]["splits"] == (QUICK.slow_splits if slow else QUICK.splits)
            assert np.isfinite(entry[kind]["mean"])
    again = score_showers(reference, [others, reference], control, sizes=QUICK)["all"]
    assert again == scores


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
