"""Generated responses: what is none is refused by the number of its event."""

import numpy as np
import pytest

from caloforge.detectors import ZN
from caloforge.events import as_counts
from caloforge.runtime.generate import Generated
from made import made_events


def spoiled(value, dtype=np.float32):
    responses = np.zeros((3, *ZN.shape), dtype)
    responses[1, 4, 5] = value
    return responses


@pytest.mark.parametrize("value", [-3, np.nan, np.inf, -np.inf, -0.5])
def test_what_is_no_response_is_refused(value):
    with pytest.raises(ValueError, match=r"the model gave .* for event 11"):
        as_counts(spoiled(value), np.array([10, 11, 12]))


@pytest.mark.parametrize(("value", "dtype"), [(-3, np.int32), (2**24 + 1, np.int64), (2**40, np.uint64)])
def test_integers_do_not_wrap(value, dtype):
    with pytest.raises(ValueError, match=f"the model gave {value} for event 1"):
        as_counts(spoiled(value, dtype))


def test_a_model_that_rounds_gives_whole_counts():
    with pytest.raises(ValueError, match=r"a whole count in every cell, the model gave 1\.5"):
        as_counts(spoiled(1.5), whole=True)
    np.testing.assert_array_equal(as_counts(spoiled(1.5)), spoiled(1.5))


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint16, np.float32])
@pytest.mark.parametrize("value", [0, 1, 65_535])
def test_counts_that_fit_are_narrow(value, dtype):
    counts = as_counts(spoiled(value, dtype))
    assert counts.dtype == np.uint16
    np.testing.assert_array_equal(counts, spoiled(value, np.uint16))


def test_counts_beyond_keep_their_value():
    np.testing.assert_array_equal(as_counts(spoiled(65_536, np.int32)), spoiled(65_536, np.int32))


def test_the_event_is_named_by_its_number():
    primaries = made_events(particles=4, repeats=1).primaries

    def forward(conditions, noise):
        responses = np.zeros((len(conditions), *ZN.shape), np.int32)
        responses[2, 0, 0] = -3
        return responses

    source = Generated(forward, 4, primaries, first_event=100)
    with pytest.raises(ValueError, match="gave -3 for event 102"):
        source.slices(slice(None))
