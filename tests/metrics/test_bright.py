import math

import numpy as np
import pytest

from caloforge.metrics import observe
from caloforge.metrics.bright import LEAST, bright_cells, bright_rate
from caloforge.metrics.spectrum import EDGES, bright_from, spectra


def test_spectra_count_each_cell_once():
    counts = spectra(np.array([[[0.0, 1.0], [1.1, 2.0]], [[3e6, 0.001], [0.0, 1.0]]]))
    assert counts.sum(axis=1).tolist() == [3, 2]  # 0.001 lies below the lowest edge
    one = int(np.flatnonzero(EDGES == 1.0)[0])
    assert counts[0, one] == 2
    assert counts[0, one + 4] == 1  # an octave has four bins
    assert counts[1, -1] == 1


def test_at_most_a_thousandth_is_bright():
    spectrum = np.zeros(len(EDGES), int)
    spectrum[[24, 30, 40]] = 99_900, 60, 40
    assert bright_from(spectrum) == 25  # the first edge above the 99,900
    spectrum[30] = 100  # 140 of 100,040 are too many
    assert bright_from(spectrum) == 31
    assert bright_from(np.zeros(len(EDGES), int)) is None


def made_events(events, dim, bright):
    """Events of 16 cells of one photon, and others of 16 or fewer of 100 photons: `dim` and `bright` cells in all."""
    responses = np.ones((dim // 16 + 1, 16), np.uint16)
    responses[-1] = np.where(np.arange(16) < bright, 100, 0)
    return events(responses.reshape(-1, 4, 4))


def test_the_ratio_of_rates_by_hand(events):
    reference, half, none = (observe(made_events(events, 16_000, bright)) for bright in (16, 8, 0))
    rate = bright_rate(reference, half)
    assert rate.ratio == pytest.approx(0.5)
    assert rate.threshold == pytest.approx(2**0.25)  # the first edge above one photon
    assert rate.reference == pytest.approx(16 / 1001)
    # only the last of 1001 events has bright cells: a relative error of sqrt(1000) / sqrt(1001) in either set
    assert rate.error == pytest.approx(0.5 * math.sqrt(2 * 1000 / 1001))
    assert bright_cells(reference, half).value == pytest.approx(0.5)
    assert bright_cells(reference, none).value == 1.0
    assert bright_cells(half, reference).value == pytest.approx(1.0)  # twice as many


def test_the_number_of_rows_does_not_matter(events):
    block = made_events(events, 16_000, 16).responses
    once, twice = observe(events(block)), observe(events(np.concatenate([block, block])))
    assert bright_rate(once, twice).ratio == pytest.approx(1.0)


def test_too_few_bright_cells_have_no_rate(events):
    few = observe(made_events(events, 16_000, LEAST - 1))
    result = bright_cells(few, few)
    assert math.isnan(result.value)
    assert result.reason == f"fewer than {LEAST} bright cells in the reference"


def test_sums_alone_have_no_spectra(observables):
    sums = observables([[1.0], [2.0]])
    assert bright_cells(sums, sums).reason == "the spectra of the cells were not read"
