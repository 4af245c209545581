"""Small events of ZN and ZP that every test of the formats uses."""

import numpy as np
import pytest

from caloforge.detectors import ZN
from caloforge.events import Events


def _events(detector=ZN, rows=8, seed=0, whole=True):
    rng = np.random.default_rng(seed)
    momentum = rng.normal(scale=[0.1, 0.1, 900.0], size=(rows, 3))
    mass = rng.choice([0.0, 0.93957], rows)
    conditions = np.column_stack(
        [
            np.sqrt((momentum**2).sum(1) + mass**2),
            rng.normal(size=(rows, 3)),
            momentum,
            mass,
            np.zeros(rows),
        ]
    ).astype(np.float32)
    responses = rng.poisson(0.3, (rows, *detector.shape)).astype(np.uint16)
    return Events(
        detector,
        conditions,
        np.where(mass == 0, 22, 2112),
        np.arange(rows) // 2 + 5,
        np.arange(rows) % 10,
        responses if whole else (responses * 0.37).astype(np.float32),
    )


@pytest.fixture
def make_events():
    """Builds events: `make_events(detector, rows, seed, whole)`."""
    return _events


@pytest.fixture
def events():
    """Eight events of ZN."""
    return _events()
