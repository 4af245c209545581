import dataclasses

import numpy as np
import pytest
import torch

from caloforge import samples
from caloforge.detectors import DS2, ZN, ZP
from caloforge.events import load
from caloforge.io import open_events
from caloforge.models.parts.particle_features import (
    BendingFeatures,
    GrooveFeatures,
    ImpactFeatures,
    ParticleFeatures,
    SpeciesFeatures,
    TransportFeatures,
)


def test_the_derived_features_are_those_worked_by_hand():
    derive = ImpactFeatures(ZN)
    # backwards, from vz = 60 cm: 11,320 cm to the face at -11,260 cm; 1e-4 rad in x make 1.132 cm
    neutron = [1000.0, 0.5, 0.0, 60.0, 0.1, 0.0, -1000.0, 0.9396, 0.0]
    columns = derive(torch.tensor([neutron, [*neutron[:8], 1.0]], dtype=torch.float64)).numpy()
    assert columns.shape == (2, 9 + 17)
    assert np.allclose(columns[0, :9], neutron)
    x = 0.5 + 1.132
    a = np.pi * x / 0.16
    assert columns[0, 9:] == pytest.approx(
        [
            *(x, 0, np.arcsinh(x / 0.1), 0, np.log(1000), np.arcsinh(6000)),
            *(0, np.sin(a), 0, np.cos(a), np.sin(2 * a), np.cos(2 * a), 0, 1),
            *(np.cos(2 * a), np.cos(4 * a), 1),
        ],
        abs=1e-6,
    )
    assert np.allclose(columns[1, 9:15], columns[0, 9:15])
    assert (columns[1, 15:] == 0).all()


def test_features_of_bending_by_hand():
    bend = BendingFeatures(ZN)
    columns = {name: ZN.features.index(name) for name in ("energy", "vx", "px", "pz", "charge")}
    conditions = torch.zeros(3, 9)
    conditions[:, columns["energy"]] = torch.tensor([2000.0, 2000, 500])
    conditions[:, columns["pz"]] = torch.tensor([2000.0, 2000, -500])
    conditions[:, columns["vx"]] = 5  # cm, along the beam: half a decimetre at the face
    conditions[:, columns["charge"]] = torch.tensor([0.0, 1, -1])
    expected = [[0.0] * 7, [0.5, 0.25, 0, 0.25, 0.5, 0.25, 0], [-2, -1, 0, 4, 2, 1, 0]]
    torch.testing.assert_close(bend(conditions), torch.tensor(expected))


def particles(charge, momentum=3000.0, slope=(1e-4, -5e-5), side=1):
    """One particle from the origin for each charge."""
    px, py = (value * momentum for value in slope)
    energy = np.sqrt(px**2 + py**2 + momentum**2)
    return torch.tensor(
        [[energy, 0, 0, 0, px, py, side * momentum, 0.0, q] for q in charge], dtype=torch.float64
    )


@pytest.mark.parametrize("side", [1, -1])
def test_magnets_bend_positive_particles_kick_others_and_leave_neutral_ones_alone(side):
    transport, straight = TransportFeatures(ZP), ParticleFeatures(ZP)
    conditions = particles([0, 1, -1], side=side)
    place, positive = transport.place(conditions)
    momentum = np.linalg.norm(conditions[0, 4:7].numpy())
    x, y = np.array([1.126]), np.array([-0.563])
    terms = ZP.transport.terms(np.array([1 / momentum]), x, y)
    expected = terms @ np.array(ZP.transport.maps[0 if side > 0 else 1]).reshape(2, 15).T - [24.34, 0]
    assert np.allclose(place[1], expected)
    assert np.allclose(positive, expected.repeat(3, 0))
    assert np.allclose(place[0], [1.126 - 24.34, -0.563])
    kick = ZP.transport.kick[0 if side > 0 else 1] / momentum
    assert np.allclose(place[2], [1.126 - 24.34, -0.563 - kick])
    assert np.allclose(transport.cell(conditions)[0], straight.cell(conditions)[0])
    far = particles([1], slope=(2e-3, 0), side=side)
    assert np.allclose(
        transport.place(far)[0][0], [22.52 - 24.34, ZP.transport.kick[0 if side > 0 else 1] / 3000]
    )


def test_protons_leave_their_light_where_the_map_says():
    events = load(open_events(samples.sample("zp_wide")))
    light = events.responses.astype(float)
    photons, energy, charge = light.sum((1, 2)), events.conditions[:, 0], events.conditions[:, 8]
    features = TransportFeatures(ZP)
    conditions = torch.from_numpy(events.conditions)
    # test particles, which the map has not seen, with most of their shower in the detector
    rows = (events.fold < 2) & (charge > 0) & (photons > 0.2 * energy) & (energy > 1500)
    centre = np.stack([light.sum(2) @ np.arange(56), light.sum(1) @ np.arange(30)], 1) / photons[:, None]
    assert rows.sum() > 200
    off = np.median(np.abs(features.cell(conditions).numpy() - centre)[rows], 0)
    straight = np.median(np.abs(ParticleFeatures(ZP).cell(conditions).numpy() - centre)[rows], 0)
    assert off[0] < 0.35
    assert off[1] < 0.2
    assert (straight > [30, 3]).all()


def test_features_of_transport_are_finite_whatever_the_particle():
    features = TransportFeatures(ZN)
    strange = particles([1, 1, 1], momentum=0.0, slope=(0, 0))
    strange[1, 4:7] = torch.tensor([1.0, 0, 0])
    strange[2, 4:7] = torch.tensor([0.0, 0, 1e-3])
    found = features(strange)
    assert found.shape == (3, features.size)
    assert torch.isfinite(found).all()


def test_only_wanted_transport_adds_to_features_and_weights():
    without, among = ParticleFeatures(ZP), ParticleFeatures(ZP, transport=True)
    assert not without.state_dict()
    assert {name: tuple(value.shape) for name, value in among.state_dict().items()} == {
        "transport.maps": (2, 2, 15),
        "transport.kick": (2,),
    }
    conditions = particles([0, 1])
    assert torch.equal(among(conditions)[:, : without.size], without(conditions))
    with pytest.raises(ValueError, match=r"zp has face .* no transport"):
        ParticleFeatures(dataclasses.replace(ZP, transport=None), transport=True)


def test_each_neutral_species_has_a_number_of_its_own():
    of = SpeciesFeatures(ZP)
    # gamma, K0, n, Lambda, Xi0, and a Delta0, which is none of them; then a proton
    masses = [0.0, 0.49761, 0.93957, 1.11568, 1.31486, 1.232, 0.93827]
    conditions = torch.zeros(len(masses), 9)
    conditions[:, ZP.features.index("mass")] = torch.tensor(masses)
    conditions[-1, ZP.features.index("charge")] = 1
    found = of(conditions)
    torch.testing.assert_close(found[:5], torch.eye(5), rtol=0, atol=1e-3)
    assert (found[5] < 0.01).all()
    assert (found[6] == 0).all()
    without, among = ParticleFeatures(ZP, transport=True), ParticleFeatures(ZP, transport=True, species=True)
    assert torch.equal(among(conditions), torch.cat([without(conditions), found], 1))
    with pytest.raises(
        ValueError, match="species need the conditions mass and charge; ds2 has incident_energy"
    ):
        SpeciesFeatures(DS2)


def along_grooves(rows=400, charge=0.0):
    """Particles from beside the axis that meet the ZN's face anywhere, steeper than primaries are."""
    rng = np.random.default_rng(0)
    conditions = np.zeros((rows, 9))
    pz = rng.uniform(300, 3000, rows) * rng.choice([-1, 1], rows)
    slope = rng.normal(0, 5e-4, (rows, 2))
    place = rng.uniform(-3.6, 3.6, (rows, 2))
    conditions[:, 1:3] = place - slope * ZN.face.z
    conditions[:, 4:6], conditions[:, 6] = slope * np.abs(pz)[:, None], pz
    conditions[:, 0] = np.linalg.norm(conditions[:, 4:7], axis=1)
    conditions[:, 8] = charge
    return torch.from_numpy(conditions), place, slope


def test_a_line_is_followed_along_its_groove_until_it_meets_the_absorber():
    conditions, place, slope = along_grooves()
    depths = np.arange(0, ZN.grooves.length, 0.05)
    on_face = (np.abs(place) < 3.52).all(1)
    # step by step; a groove is within half a side of the middle of its cell
    way = place[:, None] + depths[:, None] * slope[:, None]
    cell = np.floor(place / ZN.pitch) * ZN.pitch + ZN.pitch / 2
    hollow = (np.abs(way - cell[:, None]) < ZN.grooves.side / 2).all(2)
    expected = np.where(on_face, hollow.cumprod(1).sum(1) * 0.05 / ZN.grooves.length, 0)
    found = GrooveFeatures(ZN)(conditions).numpy()
    assert np.allclose(found[:, 0], expected, atol=6e-4)
    assert np.array_equal(found[:, 1], found[:, 0] == 1)
    assert (found[:, 0] == 0).sum() > 200
    assert (found[:, 1] == 1).sum() > 5
    assert ((found[:, 0] > 0) & (found[:, 0] < 1)).sum() > 20
    charged, *_ = along_grooves(charge=1.0)
    assert (GrooveFeatures(ZN)(charged) == 0).all()
    mirrored = conditions.clone()
    mirrored[:, [2, 5]] *= -1
    torch.testing.assert_close(GrooveFeatures(ZN)(mirrored), GrooveFeatures(ZN)(conditions))


def test_parallel_lines_pass_where_the_absorber_is_hollow():
    rng = np.random.default_rng(0)
    conditions = torch.zeros(4000, 9, dtype=torch.float64)
    conditions[:, 1:3] = torch.from_numpy(rng.uniform(-3.5, 3.5, (4000, 2)))
    conditions[:, 0] = conditions[:, 6] = 1000
    depth, passes = GrooveFeatures(ZN)(conditions).unbind(1)
    assert torch.equal(depth, passes)
    assert float(passes.mean()) == pytest.approx(0.0036 / 0.0256, abs=0.02)
    strange = torch.zeros(2, 9)
    strange[1, 4] = 1
    assert torch.isfinite(GrooveFeatures(ZN)(strange)).all()


def test_only_wanted_grooves_add_to_features_and_only_where_they_are_known():
    conditions, *_ = along_grooves()
    without = ParticleFeatures(ZN, transport=True, species=True)(conditions)
    among = ParticleFeatures(ZN, transport=True, grooves=True, species=True)(conditions)
    both = GrooveFeatures(ZN)(conditions)
    assert torch.equal(among, torch.cat([without[:, :-5], both, without[:, -5:]], 1))
    with pytest.raises(ValueError, match=r"zp has face .* no grooves"):
        ParticleFeatures(ZP, grooves=True)


@pytest.mark.slow
def test_photons_along_grooves_leave_less_light_in_geant():
    events = load(open_events(samples.sample("zn_wide")))
    light = events.responses.sum((1, 2)) / events.conditions[:, 0]
    conditions = torch.from_numpy(events.conditions)
    depth = GrooveFeatures(ZN)(conditions)[:, 0].numpy()
    inside = (np.abs(ImpactFeatures(ZN).impact(conditions).numpy()) < 2.5).all(1) & (events.pdg == 22)
    assert (inside & (depth == 1)).sum() >= 5
    assert light[inside & (depth == 1)].mean() < 0.7 * light[inside & (depth == 0)].mean()


def test_features_are_of_the_device_of_the_conditions():
    features = ParticleFeatures(ZN, transport=True, grooves=True, species=True).to("meta")
    found = features(torch.zeros(4, 9, device="meta"))
    assert found.device.type == "meta"
    assert found.shape == (4, features.size)
