"""Made-up showers for tests: sparse voxels with a depth and a width that depend on the energy."""

from dataclasses import replace

import numpy as np

from caloforge.detectors import DS2, DS2_ANGLES, ChannelMap, Detector, Layer, from_xml
from caloforge.events import Events
from caloforge.metrics.showers import Sizes

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


def made_showers_with_angles(detector=DS2_ANGLES, rows=24, seed=0) -> Events:
    """The same showers, said to come from all directions within 0.2 rad of the axis."""
    made = made_showers(replace(detector, conditions=DS2.conditions), rows, seed)
    angles = np.random.default_rng([seed, 1]).uniform((0, -np.pi), (0.2, np.pi), (rows, 2))
    conditions = np.concatenate([made.conditions, angles], 1).astype(np.float32)
    return Events(detector, conditions, made.pdg, responses=made.responses)


SMALL = """<Bins><Bin pid="11" name="electron">
<Layer id="0" r_edges="0,2,6" n_bin_alpha="2"/><Layer id="1" r_edges="0,2,6" n_bin_alpha="2"/></Bin></Bins>"""

RAGGED = """<Bins><Bin pid="22" name="photon"><Layer id="0" r_edges="0,1,2" n_bin_alpha="1"/>
<Layer id="3" r_edges="0,5,9,12" n_bin_alpha="4"/><Layer id="12" r_edges="0,4" n_bin_alpha="1"/></Bin></Bins>"""

QUICK = Sizes(fpd_draws=1, kpd_batches=2, prdc_rows=60, splits=3, slow_splits=1)
"""Sizes for quick tests."""


def detector_of(tmp_path, text):
    (tmp_path / "binning.xml").write_text(text)
    return from_xml(tmp_path / "binning.xml")


DS1 = {
    "photon": (22, {0: (8, 1), 1: (16, 10), 2: (19, 10), 3: (5, 1), 12: (5, 1)}),
    "pion": (211, {0: (8, 1), 1: (10, 10), 2: (10, 10), 3: (5, 1), 12: (15, 10), 13: (16, 10), 14: (10, 1)}),
}
"""PDG id, and radii and angles of each layer, of data set 1."""


def ds1(tmp_path, particle) -> Detector:
    """A detector with as many voxels as data set 1, and radii of our own."""
    pdg, layers = DS1[particle]
    text = "".join(
        f'<Layer id="{number}" r_edges="{",".join(str(5 * k) for k in range(radii + 1))}" n_bin_alpha="{angles}"/>'
        for number, (radii, angles) in layers.items()
    )
    return detector_of(tmp_path, f'<Bins><Bin pid="{pdg}" name="{particle}">{text}</Bin></Bins>')


def made_flat_showers(detector, rows=24, seed=0) -> Events:
    """Showers of any detector of voxels, at the energies of data set 1, every voxel alike."""
    rng = np.random.default_rng(seed)
    energy = 2.0 ** rng.integers(8, 23, rows)
    voxels = rng.gamma(0.2, 1, (rows, detector.cells)) * rng.gamma(20, 1 / 20, (rows, 1))
    voxels *= (energy / voxels.sum(1) * rng.normal(0.95, 0.03, rows))[:, None]
    return Events(
        detector,
        energy[:, None].astype(np.float32),
        np.full(rows, detector.pdg),
        responses=voxels.reshape(rows, *detector.shape).astype(np.float32),
    )
