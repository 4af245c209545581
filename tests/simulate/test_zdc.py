"""The modules of the zero degree calorimeters in Geant4: their light, where particles enter, what is seen."""

import importlib.util

import numpy as np
import pytest

from caloforge.detectors import ZN, ZP
from caloforge.io import open_events
from caloforge.runtime.domain import coordinates, inconsistencies
from caloforge.simulate import Job, setup_named, simulate
from caloforge.simulate.geometry import Light
from caloforge.simulate.produce import shots_of
from simulate_data import G4DATA

PHOTON = Job("zn", "gamma", (10.0, 500.0), seed=2)


def trapped(light, cosine, beta=1.0, rays=400_000):
    """The part of a cone within the aperture, by drawing rays."""
    cone = 1 / (light.index * beta)
    turn = np.random.default_rng(0).uniform(0, 2 * np.pi, rays)
    along = cosine * cone + np.sqrt(1 - cosine**2) * np.sqrt(1 - cone**2) * np.cos(turn)
    return (along > np.sqrt(1 - (light.aperture / light.index) ** 2)).mean() * (1 - cone**2)


@pytest.mark.parametrize("degrees", [0, 30, 40, 46.8, 50, 54, 60, 90, 140])
@pytest.mark.parametrize("beta", [0.75, 1.0])
def test_light_is_the_part_of_the_cone_within_the_aperture(degrees, beta):
    light, cosine = Light(per_mm=2.0), np.cos(np.radians(degrees))
    (got,) = light.expected(np.array([beta]), np.array([3.0]), np.array([cosine]))
    assert got == pytest.approx(6.0 * trapped(light, cosine, beta), abs=6e-3)


def test_light_needs_speed_and_an_angle_towards_the_end():
    light = Light()
    slow, along, backwards = light.expected(
        np.array([0.6, 1.0, 1.0]), np.ones(3), np.array([0.68, 1.0, -0.68])
    )
    assert (slow, along, backwards) == (0, 0, 0)
    assert light.expected(np.array([1.0]), np.ones(1), np.array([0.685]))[0] > 0.3


@pytest.mark.parametrize(("name", "detector"), [("zn", ZN), ("zp", ZP)])
def test_particles_come_from_the_interaction_point_and_meet_the_face_evenly(name, detector):
    job = Job(name, "e-", (10.0, 500.0), seed=2)
    setup = setup_named(name)
    shots = shots_of(job, setup, 0, 2000)
    conditions = shots.conditions(detector)
    primaries = open_as(detector, conditions, 11)
    names, values = coordinates(primaries)
    impact = values[:, [names.index("impact x"), names.index("impact y")]]
    wanted = shots.entry / 10 + [detector.face.x, detector.face.y]
    np.testing.assert_allclose(impact, wanted, atol=1e-3)
    half = np.array(detector.shape) * detector.pitch / 2
    assert (np.abs(shots.entry / 10) < half).all()
    np.testing.assert_allclose(shots.entry.std(0) / 10, half / np.sqrt(3), rtol=0.05)
    assert not any(wrong.any() for _, wrong in inconsistencies(primaries))
    np.testing.assert_allclose(np.linalg.norm(shots.directions_to(detector), axis=1), 1)


def open_as(detector, conditions, pdg):
    from caloforge.events import Primaries

    return Primaries(detector, conditions, np.full(len(conditions), pdg))


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("geant4_pybind") is None, reason="needs the package geant4-pybind"
)
@pytest.mark.skipif(G4DATA is None, reason="no Geant4 data sets")
def test_light_lies_where_a_photon_enters(tmp_path):
    job = Job("zn", "gamma", (60.0, 60.0), "fixed", seed=3, part=4)
    (path,) = simulate(job, tmp_path / "zn.h5", 8, jobs=2, g4data=G4DATA)
    (again,) = simulate(job, tmp_path / "again.h5", 8, g4data=G4DATA)
    events, same = (open_events(one).slices(slice(None)) for one in (path, again))
    np.testing.assert_array_equal(events.responses, same.responses)
    assert events.responses.dtype == np.uint16
    sums = events.responses.sum((1, 2))
    # GEANT 3.21 with the detector's own tables of light has 0.53 a GeV on average
    assert 0.3 < sums.mean() / 60 < 0.8
    names, values = coordinates(events.primaries)
    for axis, name in ((1, "impact x"), (2, "impact y")):
        centre = (events.responses.sum(3 - axis) * (np.arange(44) - 21.5)).sum(1) / sums * ZN.pitch
        inner = np.abs(values[:, names.index(name)]) < 3
        assert np.abs(centre - values[:, names.index(name)])[inner].max() < 0.6


@pytest.mark.parametrize("particle", ["neutron", "proton"])
def test_hadrons_need_their_own_physics(particle):
    with pytest.raises(ValueError, match="FTFP_BERT"):
        Job("zn", particle, (10.0, 500.0))
