from pathlib import Path

import pytest

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
