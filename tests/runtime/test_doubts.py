"""Mistakes of units and logarithms are said, and right files raise no doubt."""

import dataclasses

import numpy as np
import pytest

from caloforge.detectors import ZN, ZP
from caloforge.io import create, open_events
from caloforge.runtime.doubts import doubts
from caloforge.samples import SAMPLES, sample
from made import made_events
from made_showers import made_showers


def scaled(events, factor=1.0, energy=1.0):
    responses = (events.responses * np.float32(factor)).astype(np.float32)
    return dataclasses.replace(events, responses=responses, conditions=events.conditions * np.float32(energy))


@pytest.mark.parametrize("name", SAMPLES)
def test_what_ships_is_beyond_doubt(name):
    assert doubts(open_events(sample(name))) == []


@pytest.mark.parametrize(
    "events", [made_events(ZN), made_events(ZP), made_showers()], ids=["zn", "zp", "ds2"]
)
def test_right_events_and_particles_are_beyond_doubt(events):
    assert doubts(events) == []
    assert doubts(events.primaries) == []


def test_energies_in_another_unit():
    showers = made_showers()
    (found,) = doubts(scaled(showers, 1e-3))
    assert "are they in GeV" in found
    (found,) = doubts(scaled(showers, energy=1e-3))
    assert "are the incident energies in MeV" in found
    (found,) = doubts(dataclasses.replace(showers, responses=np.log10(1 + showers.responses / 1e3)))
    assert "logarithms" in found


def test_logarithms_of_counts():
    events = made_events()
    responses = np.log1p(events.responses.astype(np.float32))
    (found,) = doubts(dataclasses.replace(events, responses=responses))
    assert "ln(1 + n)" in found
    (found,) = doubts(scaled(events, 0.3))
    assert "not whole" in found


def test_particles_in_mev():
    events = made_events(particles=40)
    conditions = events.conditions.copy()
    conditions[:, [0, 4, 5, 6, 7]] *= 1000
    (found,) = doubts(dataclasses.replace(events, conditions=conditions))
    assert "a mass that is not the PDG id's" in found
    assert "GeV" in found


def test_inspect_and_train_say_so(caloforge, tmp_path, monkeypatch, recwarn):
    monkeypatch.chdir(tmp_path)
    events = made_events(particles=60)
    with create(tmp_path / "logs.h5", ZN) as writer:
        writer.append(dataclasses.replace(events, responses=np.log1p(events.responses.astype(np.float32))))
    code, _, err = caloforge("data", "inspect", tmp_path / "logs.h5")
    assert (code, err.count("\n"), "ln(1 + n)" in err) == (0, 1, True)
    monkeypatch.setattr("warnings.filters", [])
    code, _, err = caloforge("train", "zn-linear", "--data", tmp_path / "logs.h5")
    assert (code, "ln(1 + n)" in err) == (0, True)
