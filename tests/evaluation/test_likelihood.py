import dataclasses

import numpy as np
import pytest

from caloforge.detectors import ZN, ZP
from caloforge.evaluation.likelihood import response_likelihoods
from caloforge.io import open_events
from caloforge.models.parts.inference import spread_rows
from caloforge.samples import sample
from made import made_events


def test_responses_turned_upside_down_are_less_likely():
    events = spread_rows(open_events(sample("zn")), 24)
    turned = dataclasses.replace(events, responses=np.ascontiguousarray(events.responses[:, ::-1, ::-1]))
    found = response_likelihoods("zn-maf", events)
    assert found.shape == (24,)
    np.testing.assert_array_equal(found, response_likelihoods("zn-maf", events))
    assert np.median(found) > np.median(response_likelihoods("zn-maf", turned))


def test_what_has_no_likelihood_is_refused():
    events = made_events(ZN, particles=1, repeats=1)
    with pytest.raises(ValueError, match="zn-iaf-bs-ch-div has no likelihood"):
        response_likelihoods("zn-iaf-bs-ch-div", events)
    with pytest.raises(ValueError, match="needs events of zn, got zp"):
        response_likelihoods("zn-maf", made_events(ZP, particles=1, repeats=1))
