"""Made-up showers for tests: sparse voxels with a depth and a width that depend on the energy."""

import numpy as np

from caloforge.detectors import DS2, ChannelMap, Detector, Layer
from caloforge.events import Events

TINY = Detector(
    name="tiny",
    axes={"layer": 9, "angle": 8, "radius": 3},
    unit="MeV",
    conditions=DS2.conditions,
    channels={
        "layers": ChannelMap(tuple("012345678"), np.kron(np.eye(9, dtype=np.float32), np.ones(24, "f4")), "")
    },
    title="nine layers",
    layers=tuple(Layer(number, (0.0, 5.0, 10.0, 15.0), 8) for number in range(9)),
    pdg=11,
    threshold=DS2.threshold,
)
"""A detector of voxels for quick tests."""


def made_showers(detector=DS2, rows=24, seed=0) -> Events:
    """Showers of a dense detector of voxels, 1 to 100 GeV."""
    rng = np.random.default_rng(seed)
    energy = 10 ** rng.uniform(3, 5, rows)
    layers, angles, radii = detector.shape
    layer, radius = np.arange(layers), np.arange(radii)
    depth = 4 + np.log(energy / 1e3)[:, None]
    along = layer**2 * np.exp(-2.5 * layer / depth)
    along *= rng.gamma(8, 1 / 8, along.shape)
    across = np.exp(-radius) * (radius + 0.5)
    shape = along[:, :, None, None] * across * rng.gamma(0.3, 1, (rows, layers, angles, radii))
    shape *= (0.8 * energy * rng.normal(1, 0.03, rows) / shape.sum((1, 2, 3)))[:, None, None, None]
    shape[shape < 0.016] = 0
    return Events(
        detector,
        energy[:, None].astype(np.float32),
        np.full(rows, detector.pdg),
        responses=shape.astype(np.float32),
    )
