"""The domain: every training particle is inside, and each rule has its boundary."""

import dataclasses
import json

import numpy as np
import pytest

from caloforge.detectors import ZN, Detector
from caloforge.events import Primaries, load, split
from caloforge.io import open_events
from caloforge.runtime.domain import Domain, check_choice, coordinates
from caloforge.samples import sample
from made import made_events


@pytest.fixture(scope="module")
def training():
    return made_events(particles=400, repeats=1).primaries


@pytest.fixture(scope="module")
def domain(training):
    return Domain.fit(training)


def changed(primaries, pdg=None, **features):
    """The particles with some features replaced, and the energy that belongs to them."""
    conditions = primaries.conditions.astype(np.float64)
    for name, values in features.items():
        conditions[:, ZN.features.index(name)] = values
    if "energy" not in features:
        conditions[:, 0] = np.sqrt((conditions[:, 4:8] ** 2).sum(1))
    return Primaries(ZN, conditions.astype(np.float32), primaries.pdg if pdg is None else pdg)


def broken(domain, primaries):
    return {name for name, rows in domain.problems(primaries).items() if rows.any()}


def test_every_training_particle_is_inside(domain, training):
    assert domain.inside(training).all()
    assert domain.explain(training) == ""


def test_few_held_out_particles_of_the_sample_are_outside():
    events = open_events(sample("zn"))
    rows = split(events, "canonical")
    particles = events.primaries
    domain = Domain.fit(particles.select(rows["train"]))
    assert domain.inside(particles.select(rows["train"])).all()
    assert domain.inside(particles.select(rows["test"])).mean() > 0.97


def test_inside_is_what_breaks_no_rule(domain, training):
    rng = np.random.default_rng(0)
    conditions = training.conditions.copy()
    rows = rng.integers(0, len(training), 300)
    columns = rng.integers(0, conditions.shape[1], 300)
    conditions[rows, columns] *= 1 + rng.normal(size=300) ** 3
    conditions[:, 0] = np.maximum(np.abs(conditions[:, 0]), np.linalg.norm(conditions[:, 4:7], axis=1))
    pdg = np.where(rng.random(len(training)) < 0.1, rng.choice([11, 13, 2212, 99999999]), training.pdg)
    others = Primaries(ZN, conditions, pdg.astype(training.pdg.dtype))
    expected = ~np.any(list(domain.problems(others).values()), 0)
    assert 0.1 < expected.mean() < 0.9
    np.testing.assert_array_equal(domain.inside(others), expected)
    for row in range(40):
        assert domain.inside(others.select(slice(row, row + 1)))[0] == expected[row]


def test_the_card_keeps_every_digit(domain, training):
    again = Domain.from_card(json.loads(json.dumps(domain.to_card())))
    np.testing.assert_array_equal(again.distances(training), domain.distances(training))
    assert again.to_card() == domain.to_card()


@pytest.mark.parametrize("name", ZN.features)
def test_the_boundary_of_each_feature(domain, training, name):
    column = ZN.features.index(name)
    rule = next(rule for rule in domain.problems(training) if rule.startswith(f"{name} outside"))
    for extreme, beyond in ((np.min, -np.inf), (np.max, np.inf)):
        edge = np.float32(extreme(training.conditions[:, column]))
        for value, outside in ((edge, False), (np.nextafter(edge, np.float32(beyond)), True)):
            conditions = training.conditions[:1].copy()
            conditions[:, 0] = 1e6  # never below |p|: the other rules are not looked at here
            conditions[:, column] = value
            if name == "energy" and value < 1e3:
                conditions[:, 4:7] = 0.0
            found = domain.problems(Primaries(ZN, conditions, training.pdg[:1]))
            assert found[rule][0] == outside


def test_the_boundary_of_the_distance(domain, training):
    furthest = int(np.argmax(domain.distances(training)))
    nearer = dataclasses.replace(domain, distance=domain.distance * 0.999)
    rule = "an unusual combination of features"
    assert not domain.problems(training)[rule].any()
    assert np.flatnonzero(nearer.problems(training)[rule]).tolist() == [furthest]


def test_every_feature_in_range_but_not_together():
    rng = np.random.default_rng(0)
    energy = rng.uniform(100, 1000, 500)
    conditions = np.zeros((500, 9))
    conditions[:, 0] = conditions[:, 6] = energy
    conditions[:, 3] = energy / 1000 + rng.normal(0, 0.01, 500)  # a vertex that goes with the energy
    domain = Domain.fit(Primaries(ZN, conditions, np.full(500, 22)))
    strange = np.zeros((1, 9))
    strange[:, 0] = strange[:, 6] = 150
    strange[:, 3] = 0.9
    assert broken(domain, Primaries(ZN, strange, np.array([22]))) == {"an unusual combination of features"}


def test_a_particle_that_flies_past_the_detector(domain, training):
    aside = changed(training.select(slice(0, 1)), pz=1e-3, px=0.3, py=0.0)
    assert any(name.startswith("impact x outside") for name in broken(domain, aside))


def test_the_point_of_impact_by_hand():
    conditions = np.array([[100, 1.0, 2.0, 10.0, 0.1, -0.2, -100.0, 0, 0]])
    names, values = coordinates(Primaries(ZN, conditions, np.array([22])))
    assert names[-2:] == ("impact x", "impact y")
    # 11260 cm and the 10 cm of a vertex on the other side, with slopes 0.001 and -0.002
    np.testing.assert_allclose(values[0, -2:], [1 + 11.27, 2 - 22.54], rtol=1e-6)


def test_mass_and_charge_belong_to_the_pdg_id(domain, training):
    neutron = changed(training.select(training.pdg == 2112).select(slice(0, 1)), energy=1e4)
    assert "a mass that is not the PDG id's" in broken(domain, changed(neutron, pdg=np.array([22])))
    assert "a mass that is not the PDG id's" not in broken(domain, changed(neutron, mass=0.9396))
    assert "a charge that is not the PDG id's" in broken(domain, changed(neutron, charge=1.0))
    assert "a PDG id that is not in the tables" in broken(
        domain, changed(neutron, pdg=np.array([99_999_999]))
    )


def test_a_particle_the_training_has_not_seen(domain, training):
    kaon = changed(training.select(slice(0, 1)), pdg=np.array([130]), mass=0.497611)
    assert "a PDG id that is not among the training events" in broken(domain, kaon)


def test_energy_and_momentum_belong_to_the_mass(domain, training):
    row = training.select(training.pdg == 2112).select(slice(0, 1))
    energy = float(row.conditions[0, 0])
    rule = "an energy that is not sqrt(p^2 + m^2)"
    assert rule not in broken(domain, changed(row, energy=energy * (1 + 9e-5)))
    assert rule in broken(domain, changed(row, energy=energy * (1 + 1.2e-4)))


def test_a_detector_of_other_features():
    detector = Detector("block", {"x": 2, "y": 2}, "photons", ZN.conditions[1:3], {}, "a block")
    rng = np.random.default_rng(0)
    training = Primaries(detector, rng.normal(0, 1, (200, 2)), np.full(200, 22))
    domain = Domain.fit(training)
    assert domain.inside(training).all()
    assert domain.coordinates == ("vx", "vy")
    assert not domain.inside(Primaries(detector, np.array([[99.0, 0.0]]), np.array([22]))).any()


def test_the_explanation_counts_and_names(domain, training):
    strange = changed(training, vz=np.where(np.arange(len(training)) == 7, 1e3, 0.0))
    text = domain.explain(strange)
    assert text.startswith("1 of 400 particles are outside the domain")
    assert "1 with vz outside 0 to 0" in text
    assert "the first in row 7, " in text


def test_many_particles_are_inspected_slice_by_slice(domain, training, monkeypatch):
    strange = changed(training, vz=np.where(np.isin(np.arange(len(training)), [57, 300]), 1e3, 0.0))
    whole = domain.inspect(strange)
    monkeypatch.setattr("caloforge.runtime.domain.SLICE", 50)
    inside, text = domain.inspect(strange)
    assert np.flatnonzero(~inside).tolist() == [57, 300]
    assert (inside.tolist(), text) == (whole[0].tolist(), whole[1])
    assert "2 of 400 particles are outside" in text
    assert "the first in row 57, " in text


def test_one_training_event_is_a_domain():
    one = load(made_events(particles=1, repeats=1)).primaries
    assert Domain.fit(one).inside(one).all()


def test_an_unknown_choice():
    with pytest.raises(ValueError, match="error, warn, flag, got 'warm'"):
        check_choice("warm")
