"""HepMC3: the final particles of generated events."""

import numpy as np
import pytest

from caloforge.detectors import DS2_ANGLES, ZN
from caloforge.io import create, open_particles, open_primaries

hepmc = pytest.importorskip("pyhepmc")


def event(number, length, energy=1.0):
    """A neutron and a photon from a displaced vertex, a Lambda that decayed, and the beam."""
    made = hepmc.GenEvent(hepmc.Units.MEV if energy == 1e3 else hepmc.Units.GEV, length)
    made.event_number = number
    z = 1000.0 + number
    beam = hepmc.GenParticle((0, 0, 6800 * energy, 6800 * energy), 2212, 4)
    decayed = hepmc.GenParticle((0.1 * energy, 0, z * energy, np.hypot(z, 1.115683) * energy), 3122, 2)
    neutron = hepmc.GenParticle(
        (0.1 * energy, 0.2 * energy, z * energy, np.sqrt(z**2 + 0.05 + 0.93957**2) * energy), 2112, 1
    )
    photon = hepmc.GenParticle((0, 0, -50 * energy, 50 * energy), 22, 1)
    neutron.generated_mass = 0.93957 * energy
    scale = 10.0 if length == hepmc.Units.MM else 1.0
    first = hepmc.GenVertex((0, 0, 0, 0))
    second = hepmc.GenVertex((0.1 * scale, 0, 12 * scale, 0))
    first.add_particle_in(beam)
    first.add_particle_out(decayed)
    second.add_particle_in(decayed)
    second.add_particle_out(neutron)
    second.add_particle_out(photon)
    for vertex in (first, second):
        made.add_vertex(vertex)
    return made


def written(path, length=None, energy=1.0):
    with hepmc.open(str(path), "w") as file:
        for number in range(5):
            file.write(event(number, length or hepmc.Units.MM, energy))
    return path


def test_final_particles_in_our_units(tmp_path):
    primaries = open_primaries(written(tmp_path / "events.hepmc"), ZN)
    assert len(primaries) == 10
    assert sorted(set(primaries.pdg.tolist())) == [22, 2112]
    neutrons = primaries.select(np.flatnonzero(primaries.pdg == 2112))
    np.testing.assert_allclose(neutrons.feature("pz"), 1000 + np.arange(5))
    np.testing.assert_allclose(neutrons.feature("vx"), 0.1, rtol=1e-6)
    np.testing.assert_allclose(neutrons.feature("vz"), 12, rtol=1e-6)
    np.testing.assert_allclose(neutrons.feature("mass"), 0.93957, rtol=1e-6)
    np.testing.assert_allclose(neutrons.feature("energy"), np.hypot(1000 + np.arange(5), 0.93957), rtol=1e-6)
    assert set(primaries.feature("charge").tolist()) == {0.0}


def test_units_of_the_file_do_not_matter(tmp_path):
    first = open_primaries(written(tmp_path / "a.hepmc"), ZN)
    other = open_primaries(written(tmp_path / "b.hepmc3", hepmc.Units.CM, 1e3), ZN)
    np.testing.assert_allclose(other.conditions, first.conditions, rtol=1e-6)


def test_rows_in_any_order(tmp_path):
    path = written(tmp_path / "events.hepmc")
    every, particles = open_primaries(path, ZN), open_particles(path, ZN)
    for rows in (slice(0, 3), slice(3, 7), slice(1, 4), slice(9, 10)):
        np.testing.assert_array_equal(particles.select(rows).conditions, every.select(rows).conditions)


def test_what_does_not_fit(tmp_path):
    path = tmp_path / "events.hepmc"
    path.write_text("no such thing\n")
    with pytest.raises(ValueError, match=r"events\.hepmc: "):
        open_primaries(path, ZN)
    with pytest.raises(ValueError, match="HepMC3 files are only read"):
        create(path, ZN)


def test_angles_follow_from_the_momentum(tmp_path):
    primaries = open_primaries(written(tmp_path / "events.hepmc"), DS2_ANGLES)
    neutrons = primaries.select(np.flatnonzero(primaries.pdg == 2112))
    np.testing.assert_allclose(
        neutrons.feature("theta"), np.hypot(0.1, 0.2) / (1000 + np.arange(5)), rtol=1e-4
    )
    np.testing.assert_allclose(neutrons.feature("phi"), np.arctan2(0.2, 0.1), rtol=1e-5)
    photons = primaries.select(np.flatnonzero(primaries.pdg == 22))
    np.testing.assert_allclose(photons.feature("theta"), np.pi, rtol=1e-6)
