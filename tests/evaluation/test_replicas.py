"""Events of replicas, for the bands of a report."""

import numpy as np
import pytest

from caloforge.evaluation.scoring import evaluate_run
from caloforge.io import open_events, provenance
from made_run import made_run


def test_replicas_give_other_events_with_the_same_noise(tmp_path):
    run = made_run(tmp_path / "run", "flow_matching", bayesian={"initial": 0.3})
    scores = evaluate_run(run, [run / "made.h5"], repeats=1, replicas=2)
    scored = scores.sets["made"]
    assert scored.replicas == ("generated/made.replica-1.h5", "generated/made.replica-2.h5")
    first, second, mean = (
        open_events(run / name).slices(slice(None)) for name in (*scored.replicas, scored.generated)
    )
    assert np.array_equal(first.conditions, mean.conditions)
    assert not np.array_equal(first.responses, second.responses)
    assert not np.array_equal(first.responses, mean.responses)
    assert provenance(run / scored.replicas[1])["replica"] == 2


def test_replicas_are_of_generators_that_have_some(tmp_path):
    readout = made_run(tmp_path / "sums", "channel_flow_matching", bayesian={})
    with pytest.raises(ValueError, match="a model of channel sums alone"):
        evaluate_run(readout, [readout / "made.h5"], repeats=1, replicas=2)
    plain = made_run(tmp_path / "plain", "flow_matching")
    with pytest.raises(ValueError, match="has none"):
        evaluate_run(plain, [plain / "made.h5"], repeats=1, replicas=2)
    with pytest.raises(ValueError, match="2 or more"):
        evaluate_run(plain, [plain / "made.h5"], repeats=1, replicas=1)
