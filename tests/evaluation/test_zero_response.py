"""Scores of a zero response by the command line."""

import numpy as np
import pytest

from caloforge.evaluation.zero_response import by_particle, evaluate_classifier, with_both
from caloforge.io import open_trials, write_trials
from caloforge.io.files import read_json
from caloforge.samples import TRIALS, sample, weights
from made_o2 import made_trials


def test_evaluate_scores_test_rows_and_report_refuses(caloforge, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = caloforge("evaluate", "zdc-zero_response", "--reference", "sample:primaries")
    assert code == 0
    assert "ROC AUC" in out
    scores = read_json(tmp_path / "zdc-zero_response.scores.json")
    trials = open_trials(sample(TRIALS))
    test = trials.slices(np.flatnonzero(trials.fold < 2))
    entry = scores["sets"]["primaries"]
    assert entry["reference"]["rows"] == len(test)
    for name, k in zip(("zn", "zp", "any", "both"), with_both(test.hits).T, strict=True):
        found = entry["outcomes"][name]
        assert found["all"]["trials"] == test.trials.sum()
        assert found["all"]["observed"] == pytest.approx(k.sum() / test.trials.sum())
        assert sum(part["trials"] for part in found["reliability"]) == test.trials.sum()
        assert sum(part["trials"] for part in found["particles"].values()) == test.trials.sum()
    code, _, err = caloforge("report", "zdc-zero_response")
    assert (code, "is a classifier: a report compares" in err) == (2, True)
    code, _, err = caloforge("sample", "zdc-zero_response", "sample:zn", "events.h5")
    assert (code, "makes none" in err) == (2, True)


def test_rows_it_was_trained_on_are_not_scored(tmp_path):
    trials = made_trials()
    write_trials(tmp_path / "train.h5", trials.slices(np.flatnonzero(trials.fold >= 3)))
    with pytest.raises(ValueError, match="none of them in the test part"):
        evaluate_classifier(weights()["zdc-zero_response"], [tmp_path / "train.h5"])


def test_types_of_particle_are_in_order_of_their_trials():
    trials = open_trials(sample(TRIALS))
    sums = [int(trials.trials[rows].sum()) for _, rows in by_particle(trials)]
    assert sums == sorted(sums, reverse=True)
    assert sum(sums) == trials.trials.sum()
