"""The file of a detector of one's own, and a test for it, as text: a start that loads and can be changed by hand."""

from __future__ import annotations

import json
import keyword
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

CHANNELS = ("sum", "quadrants")

_FILE = '''"""{title}: {cells} cells in {unit}."""

import numpy as np

from caloforge.detectors import ChannelMap, Detector, Feature

SHAPE = ({shape},)
{matrix}

{constant} = Detector(
    name="{name}:{constant}",
    axes={{{axes}}},
    unit={unit_text},
    conditions=(
{conditions}
    ),
    channels={{{channels_text}: ChannelMap({labels}, MATRIX, "this file")}},
    title={title_text},{further}
)
'''

_MATRICES = {
    "sum": "MATRIX = np.ones((1, np.prod(SHAPE)), np.float32)  # (channels, cells)",
    "quadrants": """i, j = np.indices(SHAPE)
quadrant = 2 * (i >= SHAPE[0] / 2) + (j >= SHAPE[1] / 2)
MATRIX = (quadrant.reshape(1, -1) == np.arange(4)[:, None]).astype(np.float32)  # (channels, cells)""",
}

_TEST = '''"""The detector {name} loads, its channels read every cell once, and its events survive a file."""

import numpy as np
import pytest

from caloforge.detectors import detector_named
from caloforge.events import Events
from caloforge.io import create, open_events
from {name} import {constant}


def events(rows=4):
    rng = np.random.default_rng(0)
    conditions = rng.uniform(1, 2, (rows, len({constant}.conditions)))
    responses = rng.poisson(3, (rows, *{constant}.shape)).astype(np.float32)
    return Events({constant}, conditions, np.full(rows, 22), np.arange(rows), np.arange(rows), responses)


def test_the_name_finds_the_detector():
    assert detector_named({constant}.name) is {constant}


@pytest.mark.parametrize("channels", {constant}.channels)
def test_every_cell_is_read_once(channels):
    np.testing.assert_array_equal({constant}.channel_map(channels).matrix.sum(0), 1)
    sums = {constant}.readout(events().responses, channels)
    np.testing.assert_allclose(sums.sum(1), events().responses.reshape(4, -1).sum(1))


def test_events_survive_a_file(tmp_path):
    with create(tmp_path / "events.h5", {constant}) as writer:
        writer.append(events())
    found = open_events(tmp_path / "events.h5", detector={constant}).slices(slice(None))
    np.testing.assert_array_equal(found.responses, events().responses)
    np.testing.assert_allclose(found.conditions, events().conditions)
'''


@dataclass(frozen=True)
class NewDetector:
    """What the file of a detector says.

    Attributes:
        name: of the module, such as ecal; the detector is NAME in capitals in it.
        cells: along each axis.
        unit: of a cell's content: photons, MeV, GeV, ...
        conditions: name and unit of each.
        channels: `sum`, or `quadrants` of two axes.
        title: for figures; the name where empty.
        pitch: edge of a cell in cm; None where it is unknown.
        threshold: content below which a cell reads 0.

    Raises:
        ValueError: a name that no module can have, no cells, no or doubled conditions, quadrants of other than two
            axes, or a pitch or threshold below 0.
    """

    name: str
    cells: tuple[int, ...]
    unit: str
    conditions: tuple[tuple[str, str], ...]
    channels: Literal["sum", "quadrants"] = "sum"
    title: str = ""
    pitch: float | None = None
    threshold: float = 0.0

    def __post_init__(self) -> None:
        name = self.name
        if not (name.isidentifier() and name.islower()) or keyword.iskeyword(name):
            raise ValueError(f"a detector's name must be lower-case letters, digits and _, got {name!r}")
        if not self.cells or min(self.cells) < 1:
            raise ValueError(f"cells must be a number of at least 1 for each axis, got {self.cells}")
        if not self.unit.strip():
            raise ValueError("the unit must be photons, MeV, GeV or another word, got nothing")
        names = [feature for feature, _ in self.conditions]
        if not names or len(set(names)) < len(names) or not all(text.isidentifier() for text in names):
            raise ValueError(f"conditions must have different names without spaces, got {', '.join(names)!r}")
        if self.channels not in CHANNELS or (self.channels == "quadrants" and len(self.cells) != 2):
            raise ValueError(
                f"channels must be sum, or quadrants of a detector with two axes, got {self.channels!r} of "
                f"{len(self.cells)} axes"
            )
        for what, value in (
            ("pitch", 1.0 if self.pitch is None else self.pitch),
            ("threshold", self.threshold),
        ):
            if not 0 <= value < math.inf or (what == "pitch" and value == 0):
                raise ValueError(f"the {what} must be a finite number, above 0, got {value}")

    @property
    def constant(self) -> str:
        """Name of the detector in its file."""
        return self.name.upper()

    def file(self) -> str:
        """Writes the file of the detector."""
        sizes = [str(size) for size in self.cells]
        letters = ("x", "y", "z") if len(self.cells) <= 3 else [f"axis{k}" for k in range(len(self.cells))]
        further = [f"    pitch={self.pitch:g},"] if self.pitch is not None else []
        further += [f"    threshold={self.threshold:g},"] if self.threshold else []
        title = " ".join(self.title.replace('"""', "").split()) or self.name
        labels = ("sum",) if self.channels == "sum" else ("-x -y", "-x +y", "+x -y", "+x +y")
        return _FILE.format(
            title=title.replace("\\", "/"),
            cells=" x ".join(sizes),
            unit=self.unit,
            unit_text=json.dumps(self.unit),
            shape=", ".join(sizes),
            matrix=_MATRICES[self.channels],
            constant=self.constant,
            name=self.name,
            axes=", ".join(f'"{axis}": {size}' for axis, size in zip(letters, sizes, strict=False)),
            conditions="\n".join(
                f"        Feature({json.dumps(name)}, {json.dumps(unit)}, {json.dumps(_described(name))}),"
                for name, unit in self.conditions
            ),
            channels_text=json.dumps(self.channels),
            labels="("
            + ", ".join(json.dumps(label) for label in labels)
            + ("," if len(labels) == 1 else "")
            + ")",
            title_text=json.dumps(title),
            further="".join(f"\n{line}" for line in further),
        )

    def test(self) -> str:
        """Writes the test of that file."""
        return _TEST.format(name=self.name, constant=self.constant)


def conditions_of(words: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Reads conditions, `energy:MeV`, each with its unit; a ValueError names one that has none."""
    pairs = []
    for word in words:
        name, colon, unit = word.strip().partition(":")
        if not colon or not unit:
            raise ValueError(f"a condition must be NAME:UNIT, such as energy:MeV, got {word.strip()!r}")
        pairs.append((name.strip(), unit.strip()))
    return tuple(pairs)


def _described(name: str) -> str:
    known = {
        "energy": "energy of the primary",
        "theta": "angle to the axis",
        "phi": "azimuth of the direction",
    }
    return known.get(name, f"{name} of the primary")
