"""Trials: counts that cannot contradict each other."""

import numpy as np
import pytest

from caloforge.detectors import ZN, ZP
from caloforge.events import Selected, split
from caloforge.trials import Trials, joined_trials
from made_o2 import made_trials


def changed(made, **values):
    """Returns the first rows of trials with other counts."""
    first = made.slices(slice(0, 3))
    columns = {"trials": first.trials, "hits": first.hits} | {k: np.array(v) for k, v in values.items()}
    return Trials(ZN, first.conditions, first.pdg, first.group, first.fold, **columns)


@pytest.mark.parametrize(
    ("problem", "hits"),
    [
        (r"hits must not be negative, got 5 trials and hits zn -1, zp 0, any 0 in row 1", [-1, 0, 0]),
        (r"hits in any must not exceed the trials, got .* any 6 in row 1", [6, 0, 6]),
        (r"hits of a module must not exceed the hits in any, .* in row 1", [2, 3, 2]),
        (r"hits in any must not exceed those of both modules together, .* in row 1", [1, 1, 3]),
    ],
)
def test_counts_that_contradict_each_other(problem, hits):
    with pytest.raises(ValueError, match=problem):
        changed(made_trials(), hits=[[0, 0, 0], hits, [0, 0, 0]])


def test_a_primary_that_was_never_shot():
    with pytest.raises(ValueError, match=r"trials must be at least 1, got 0 trials .* in row 2"):
        changed(made_trials(), trials=[5, 5, 0], hits=np.zeros((3, 3)))


def test_shapes():
    with pytest.raises(
        ValueError, match=r"trials must have shape \(3,\) and hits \(3, 3\): zn, zp, any; got"
    ):
        changed(made_trials(), hits=np.zeros((3, 2)))


def test_outcomes_add_up():
    trials = made_trials()
    nothing, first, second, both = trials.outcomes().T
    assert (trials.outcomes() >= 0).all()
    np.testing.assert_array_equal(nothing + first + second + both, trials.trials)
    np.testing.assert_array_equal(
        np.stack([first + both, second + both, first + second + both], 1), trials.hits
    )
    assert both.any()


def test_slices_and_splits_keep_rows_together():
    trials = made_trials()
    parts = split(trials, "canonical")
    assert sum(map(len, parts.values())) == len(trials)
    test = Selected(trials, parts["test"]).slices(slice(None))
    assert isinstance(test, Trials)
    np.testing.assert_array_equal(test.hits, trials.hits[trials.fold < 2])
    np.testing.assert_array_equal(test.primaries.conditions, trials.conditions[trials.fold < 2])


def test_joining():
    parts = [made_trials(seed=1), made_trials(seed=2)]
    both = joined_trials(parts)
    np.testing.assert_array_equal(both.hits, np.concatenate([part.hits for part in parts]))
    assert len(np.unique(both.group)) == 400
    other = Trials(
        ZP, *(getattr(parts[0], name) for name in ("conditions", "pdg", "group", "fold", "trials", "hits"))
    )
    with pytest.raises(ValueError, match="of one detector, got zn, zp"):
        joined_trials([parts[0], other])
