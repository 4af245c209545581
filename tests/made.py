"""Made-up events for tests: seconds to train on, with the structure of the real ones."""

import dataclasses

import numpy as np

from caloforge.detectors import ZN, ChannelMap
from caloforge.events import Events

FEW = dataclasses.replace(
    ZN,
    name="few fibres",
    axes={"x": 8, "y": 7},
    channels={
        "paper": ChannelMap(
            ("even", "odd"),
            np.array([np.arange(56) % 2 == 0, np.arange(56) % 2 == 1], np.float32),
            "made up",
        )
    },
)
"""A ZN of 56 fibres, for models that are slow with its 1,936."""


def made_events(detector=ZN, particles=12, repeats=4, seed=0) -> Events:
    """Events of a made-up detector response: a spot whose size and place depend on the particle."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(particles), repeats)
    momentum = rng.normal(0, [0.3, 0.3, 1000], (particles, 3))[group].astype(np.float64)
    mass = rng.choice([0.0, 0.93957], particles)[group]
    energy = np.sqrt((momentum**2).sum(1) + mass**2)
    conditions = np.column_stack([energy, np.zeros((len(group), 3)), momentum, mass, np.zeros(len(group))])
    indices = np.indices(detector.shape)
    centre = np.array(detector.shape)[:, None] / 2 + 3e3 * momentum[:, :2].T / np.abs(momentum[:, 2])
    low, high = (5, 25) if min(detector.shape) > 25 else (2, 5)
    squared = ((indices[:, None] - centre[:, :, None, None].clip(low, high)) ** 2).sum(0)
    photons = rng.poisson((energy / 20)[:, None, None] * np.exp(-squared / 8))
    photons[:, 0, 0] += 10
    return Events(
        detector,
        conditions.astype(np.float32),
        np.where(mass == 0, 22, 2112),
        group,
        (group % 10).astype(np.int8),
        photons.astype(np.uint16),
    )
