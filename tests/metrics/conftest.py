"""A tiny detector, and events and observables written down by hand for it."""

from collections.abc import Callable

import numpy as np
import pytest

from caloforge.detectors import ZN, ChannelMap, Detector, Face
from caloforge.events import Events, Primaries
from caloforge.metrics import Observables
from caloforge.metrics.spectrum import spectra as spectra_of

LEFT = np.repeat([1, 1, 0, 0], 4).astype(np.float32)

TINY = Detector(
    name="tiny",
    axes={"x": 4, "y": 4},
    unit="photons",
    conditions=ZN.conditions,
    channels={"paper": ChannelMap(("left", "right"), np.stack([LEFT, 1 - LEFT]), "test")},
    title="Tiny",
    face=Face(1000.0),
)


def _primaries(group, pdg=22, energy=100.0, slope=0.0, detector=TINY) -> Primaries:
    """Particles flying along +z, with |p| = energy / 2 or so; `slope` is px / pz."""
    group = np.asarray(group, np.int32)
    conditions = np.zeros((len(group), 9))
    conditions[:, 0] = energy
    conditions[:, 6] = conditions[:, 0] / 2
    conditions[:, 4] = np.asarray(slope) * conditions[:, 6]
    return Primaries(detector, conditions, np.broadcast_to(pdg, len(group)), group)


def _observables(
    channels, group=None, centre=None, radius=None, lit=None, spectra=None, **particle
) -> Observables:
    channels = np.asarray(channels, float)
    rows = len(channels)
    images = {"centre": (rows, 2), "radius": (rows,), "lit": (rows,)}
    given = {"centre": centre, "radius": radius, "lit": lit}
    if any(value is not None for value in given.values()):
        given = {
            name: np.ones(shape) if given[name] is None else np.asarray(given[name], float)
            for name, shape in images.items()
        }
    particles = _primaries(np.zeros(rows) if group is None else group, **particle)
    return Observables(particles, channels, **given, spectra=spectra)


def _events(responses, group=None) -> Events:
    responses = np.asarray(responses)
    particles = _primaries(np.zeros(len(responses)) if group is None else group)
    return Events(TINY, particles.conditions, particles.pdg, particles.group, particles.fold, responses)


@pytest.fixture
def tiny() -> Detector:
    return TINY


@pytest.fixture
def primaries() -> Callable[..., Primaries]:
    return _primaries


@pytest.fixture
def observables() -> Callable[..., Observables]:
    """Makes observables from numbers; `group` is the particle of each row, 0 for all by default."""
    return _observables


@pytest.fixture
def events() -> Callable[..., Events]:
    return _events


@pytest.fixture
def random_observables() -> Callable[..., Observables]:
    """Makes random observables of `particles` particles with `repeats` responses each, of two types."""

    def make(seed=0, particles=4, repeats=40) -> Observables:
        rng = np.random.default_rng(seed)
        group = np.repeat(np.arange(particles), repeats)
        rows = len(group)
        return _observables(
            rng.poisson(20 + 10 * group[:, None], (rows, 5)),
            group,
            centre=rng.normal(20 + group[:, None], 2, (rows, 2)),
            radius=rng.gamma(4 + group),
            lit=rng.poisson(50, rows),
            spectra=spectra_of(rng.geometric(0.1, (rows, 600))),
            pdg=np.where(group % 2 == 0, 22, 2112),
            energy=100.0 + group,
        )

    return make
