import sys
from pathlib import Path

import pytest

from caloforge import cli
from caloforge.detectors import ZN
from caloforge.events import Events
from caloforge.io import create
from made import made_events


@pytest.fixture
def events() -> Events:
    return made_events()


@pytest.fixture(scope="session")
def events_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "made.h5"
    with create(path, ZN) as writer:
        writer.append(made_events(particles=30, repeats=12))
    return path


@pytest.fixture
def caloforge(monkeypatch, capfd):
    """Runs the command line in this process; returns exit code, standard output and standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["caloforge", *map(str, arguments)])
        capfd.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return run
