"""`caloforge detector new` writes a detector that loads and a test that passes."""

import importlib
import io

import pytest

from caloforge.cli import detector as verb
from caloforge.detectors.template import NewDetector, conditions_of

CONDITIONS = "energy:MeV,theta:rad,phi:rad"


def defined(text, constant):
    names = {}
    exec(compile(text, "detector", "exec"), names)
    return names[constant]


def test_the_file_says_what_was_asked_for():
    plan = NewDetector(
        "ecal", (20, 20), "MeV", conditions_of(CONDITIONS.split(",")), "quadrants", 'a "box"', 2.0, 0.5
    )
    ecal = defined(plan.file(), "ECAL")
    assert ecal.shape == (20, 20)
    assert (ecal.unit, ecal.pitch, ecal.threshold, ecal.title) == ("MeV", 2.0, 0.5, 'a "box"')
    assert ecal.features == ("energy", "theta", "phi")
    assert (ecal.channel_map("quadrants").matrix.sum(1) == 100).all()
    strip = defined(NewDetector("strip", (7,), "photons", (("x", "cm"),)).file(), "STRIP")
    assert strip.shape == (7,)
    assert strip.counts
    assert strip.pitch is None


def test_both_files_are_written_once_and_their_tests_pass(caloforge, tmp_path, monkeypatch):
    words = ("detector", "new", "wall_9", "--cells", "6,5", "--unit", "GeV", "--conditions", "energy:GeV")
    code, out, err = caloforge(*words, "--out", tmp_path)
    assert code == 0, err
    assert "wall_9:WALL_9" in out
    monkeypatch.syspath_prepend(tmp_path)
    checks = importlib.import_module("test_wall_9")
    checks.test_the_name_finds_the_detector()
    checks.test_every_cell_is_read_once("sum")
    checks.test_events_survive_a_file(tmp_path)
    code, _, err = caloforge(*words, "--out", tmp_path)
    assert code == 2
    assert "is there already" in err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--cells": "20;20"}, "--cells must be whole numbers with commas, such as 20,20, got '20;20'"),
        ({"--cells": "0,4"}, "at least 1 for each axis"),
        ({"--conditions": "energy"}, "a condition must be NAME:UNIT, such as energy:MeV, got 'energy'"),
        ({"--conditions": "energy:MeV,energy:GeV"}, "different names"),
        ({"--channels": "rings"}, "channels must be sum, or quadrants"),
        ({"--cells": "20", "--channels": "quadrants"}, "quadrants of a detector with two axes"),
        ({"--pitch": "-1"}, "the pitch must be"),
        ({"--unit": None}, "--unit is missing, such as --unit MeV"),
    ],
)
def test_what_makes_no_detector_is_refused(caloforge, tmp_path, monkeypatch, changes, message):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    options = {"--cells": "4,4", "--unit": "MeV", "--conditions": "energy:MeV"} | changes
    words = [word for name, value in options.items() if value for word in (name, value)]
    code, _, err = caloforge("detector", "new", "wall", "--out", tmp_path, *words)
    assert code == 2
    assert message in " ".join(err.split())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["class", "3cells", "Ecal", "my-cal"])
def test_a_name_that_no_module_can_have_is_refused(name):
    with pytest.raises(ValueError, match="lower-case letters, digits and _"):
        NewDetector(name, (4, 4), "MeV", (("energy", "MeV"),))


def test_a_terminal_is_asked(tmp_path, monkeypatch):
    answers = {"Cells along each axis": "8,9"}
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr(verb.typer, "prompt", lambda question, default: answers.get(question, default))
    verb.new("asked", out=tmp_path)
    asked = defined((tmp_path / "asked.py").read_text(), "ASKED")
    assert (asked.shape, asked.unit, asked.features) == ((8, 9), "MeV", ("energy", "theta", "phi"))
