import dataclasses
import math

import numpy as np
import pytest

from caloforge.detectors import Feature
from caloforge.events import Primaries
from caloforge.metrics import Observables, bins, impact
from caloforge.metrics.channels import w1
from caloforge.metrics.conditional import BIN_MINIMUM, conditional_w1, mae_c, mae_cw


def test_impact_worked_by_hand(tiny):
    conditions = np.zeros((2, 9))
    #                   E, vx, vy, vz, px, py, pz: the face is at 1000 cm
    conditions[0, :7] = 9.0, 0.5, -1.0, 10.0, 0.02, -0.04, 4.0  # 990 cm to go
    conditions[1, :7] = 9.0, 0.5, -1.0, 10.0, 0.02, -0.04, -4.0  # to the other side: 1010 cm
    found = impact(Primaries(tiny, conditions, np.array([22, 22])))
    np.testing.assert_allclose(found, [[0.5 + 4.95, -1 - 9.9], [0.5 + 5.05, -1 - 10.1]], rtol=1e-5)


def test_a_particle_along_the_plane_falls_in_some_bin(tiny):
    conditions = np.zeros((1, 9))
    conditions[0, 0] = 9.0
    assert bins(Primaries(tiny, conditions, np.array([22]))).shape == (1,)


def test_bins_part_type_energy_and_position(primaries):
    energies = [399.0, 400.0, 999.0, 1000.0, 2500.0]  # an edge belongs to the upper bin
    np.testing.assert_array_equal(np.diff(bins(primaries(np.zeros(5), energy=energies))) > 0, [1, 0, 1, 1])
    slopes = np.array([-1.5, -0.9, 0.9, 1.1, 11.0, 13.0, 25.0, 27.0]) / 1000
    np.testing.assert_array_equal(
        np.diff(bins(primaries(np.zeros(8), slope=slopes))) > 0, [1, 0, 1, 0, 1, 0, 1]
    )
    assert len(np.unique(bins(primaries(np.zeros(4), pdg=[22, 23, -22, 2112])))) == 4
    one, two = primaries(np.zeros(1), energy=500.0), primaries(np.zeros(3), energy=[100.0, 600.0, 700.0])
    assert bins(one)[0] == bins(two)[1] == bins(two)[2]


def test_conditional_w1_worked_by_hand(observables):
    pdg = [22, 22, 22, 2112, 2112, 211]
    reference = observables([[0], [1], [2], [10], [20], [99]], group=[1, 1, 2, 3, 3, 4], pdg=pdg)
    generated = observables([[1], [2], [3], [14], [20], [0]], group=[1, 1, 2, 3, 3, 4], pdg=pdg)
    result = conditional_w1(reference, generated, minimum=2)  # the lone pion does not count
    assert result.value == pytest.approx((3 * 1.0 + 2 * 2.0) / 5)
    assert result.particles == 3


def test_conditional_w1_takes_sets_of_different_rows(observables):
    reference = observables([[0], [1], [7], [7]], pdg=[22, 22, 2112, 2112])
    generated = observables([[9], [9], [9], [0], [1], [2]], pdg=[211, 211, 211, 22, 22, 22])
    assert conditional_w1(reference, generated, minimum=2).value == pytest.approx(0.5)  # gammas only


def test_a_response_of_another_particle_keeps_w1_and_fails_the_conditional_one(observables):
    channels = np.repeat([[0.0], [100.0]], 50, axis=0)
    pdg = np.repeat([22, 2112], 50)
    reference, shuffled = observables(channels, pdg=pdg), observables(channels[::-1], pdg=pdg)
    assert w1(reference, shuffled).value == 0.0
    assert conditional_w1(reference, shuffled).value == 100.0


def test_bins_need_enough_events(observables):
    def gammas(n):
        return observables(np.zeros((n, 1)))

    assert conditional_w1(gammas(BIN_MINIMUM), gammas(BIN_MINIMUM)).value == 0.0
    few = conditional_w1(gammas(BIN_MINIMUM), gammas(BIN_MINIMUM - 1))
    assert math.isnan(few.value)
    assert few.particles == 0
    assert few.reason == "no bin of PDG id x energy x position has 30 events in both sets"


def test_a_detector_without_positions_has_bins_of_thirds(tiny):
    beam = dataclasses.replace(
        tiny, name="beam", conditions=(Feature("incident_energy", "MeV", ""),), face=None
    )
    primaries = Primaries(beam, np.arange(1.0, 91.0)[:, None], np.full(90, 22))
    seen = Observables(primaries, np.repeat([[0.0], [10.0], [20.0]], 30, axis=0))
    assert conditional_w1(seen, seen).value == 0
    # the same sums, of other particles: 20 apart in the outer thirds, 0 in the middle
    other = Observables(primaries, seen.channels[::-1])
    assert conditional_w1(seen, other).value == pytest.approx(40 / 3)
    reason = "no bin of PDG id x thirds of incident_energy has 31 events in both sets"
    assert conditional_w1(seen, seen, minimum=31).reason == reason
    with pytest.raises(ValueError, match="an impact position needs a face"):
        impact(primaries)


def test_mae_c_and_mae_cw_worked_by_hand(observables):
    # Particle 7: means (1, 10) and (2, 14), d = (1 + 4) / 2; particle 9: means (5, 5) and (5, 6), d = 1 / 2.
    reference = observables([[0, 10], [2, 10], [5, 5], [4, 4], [6, 6], [5, 5]], group=[7, 7, 9, 9, 9, 9])
    generated = observables([[2, 13], [2, 15], [5, 6], [5, 6], [5, 6], [5, 6]], group=[7, 7, 9, 9, 9, 9])
    assert mae_c(reference, generated, minimum=2).value == pytest.approx((2.5 + 0.5) / 2)
    assert mae_cw(reference, generated, minimum=2).value == pytest.approx((2 * 2.5 + 4 * 0.5) / 6)
    assert mae_c(reference, generated, minimum=2).particles == 2


@pytest.mark.parametrize("metric", [mae_c, mae_cw])
def test_particles_need_ten_responses_in_both_sets(metric, observables):
    group = np.repeat([1, 2], [10, 9])
    reference = observables(np.zeros((19, 1)), group=group)
    generated = observables(np.where(group == 1, 3.0, 50.0)[:, None], group=group)
    result = metric(reference, generated)
    assert (result.value, result.particles) == (3.0, 1)
    for pair in (
        (reference, generated.select(slice(1, None))),
        (reference.select(slice(1, None)), generated),
    ):
        few = metric(*pair)
        assert math.isnan(few.value)
        assert few.particles == 0
        assert few.reason == "no particle has at least 10 responses in both sets"
