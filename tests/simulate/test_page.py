"""The commands of the page on simulation, from nothing to a report."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from simulate_data import G4DATA, SUBSTITUTED

PAGE = Path(__file__).parents[2] / "docs" / "simulate.md"


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("geant4_pybind") is None, reason="needs the package geant4-pybind"
)
@pytest.mark.skipif(G4DATA is None, reason="no Geant4 data sets")
def test_from_nothing_to_a_report(caloforge, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GEANT4_DATA_DIR", str(G4DATA))
    lines = re.findall(r"^\$ caloforge (.*)$", PAGE.read_text(), re.MULTILINE)
    assert [line.split()[0] for line in lines] == ["simulate", "train", "evaluate", "report"]
    for line in lines:
        code, _, err = caloforge(*shlex.split(line))
        assert code == 0, err
    page = (tmp_path / "report.html").read_text()
    assert "<html" in page
    assert ("substitutes for Geant4" in page) == SUBSTITUTED
