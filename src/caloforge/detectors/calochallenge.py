"""Calorimeters of the Fast Calorimeter Simulation Challenge: voxels around the axis of the shower, layer by layer.

The geometry comes from a binning file, `Bins/Bin(pid, name)/Layer(id, r_edges, n_bin_alpha)`; a layer with a
single edge records nothing and is left out. Voxels are stored with the radius fastest, then the angle, then the
layer.

- `DS2`, `DS3`: electrons in 45 layers of 16 x 9 and 50 x 18 voxels. Each layer is two sheets of 1.4 mm tungsten and
  0.3 mm silicon, 3.4 mm deep. Their binning files ship with the package.
- Data set 1, photons (368 voxels) and pions (533): layers differ, and the binning comes with the data:
  `from_xml(path)`, or the path itself in place of a detector's name, `binning.xml` or `binning.xml:photon`.

The only condition is the energy. `DS2_ANGLES` and `DS3_ANGLES` are the same calorimeters with two conditions more, the
angles `theta` to the axis and `phi` around it, of particles that enter at the middle of the front. One channel map,
`layers`: the energy of each layer.
"""

from __future__ import annotations

from dataclasses import replace
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from caloforge.detectors.base import ChannelMap, Detector, Feature, Layer

INCIDENT_ENERGY = Feature("incident_energy", "MeV", "energy of the primary, which enters along the axis")

ANGLES = (
    Feature("incident_energy", "MeV", "energy of the primary, which enters at the middle of the front"),
    Feature("theta", "rad", "angle of the primary to the axis"),
    Feature("phi", "rad", "azimuth of the primary; 0 is where eta grows"),
)
"""Conditions of primaries that come from any direction."""

LAYER_DEPTH = 3.4
"""Depth of a layer of DS2 and DS3 [mm]."""

THRESHOLD = 0.5e-3 / 0.033
"""Voxels of DS2 and DS3 below this are empty when showers are judged [MeV]: 0.5 keV over the sampling fraction."""

THRESHOLD_DS1 = 1.0
"""The same for data set 1 [MeV]; the authors of CaloDREAM take 1e-3."""


def _bin_of(text: str, particle: str | None) -> Any:
    try:
        root = ElementTree.fromstring(text)  # noqa: S314 (expat limits what entities may expand to)
    except ElementTree.ParseError as error:
        raise ValueError(f"not valid XML ({error})") from None
    bins = list(root.iter("Bin"))
    known = ", ".join(f"{entry.get('name')} ({entry.get('pid')})" for entry in bins) or "none"
    if particle is not None:
        bins = [entry for entry in bins if particle in (entry.get("name"), entry.get("pid"))]
    if len(bins) != 1:
        expected = "one Bin" if particle is None else f"one Bin of {particle!r}"
        raise ValueError(f"a binning needs {expected}, got {len(bins)}; the file has {known}")
    return bins[0]


def _layers(binning: Any) -> tuple[Layer, ...]:
    layers = []
    for element in binning.iter("Layer"):
        number, text, angles = element.get("id"), element.get("r_edges"), element.get("n_bin_alpha")
        try:
            edges = tuple(float(edge) for edge in text.split(","))
            layer = Layer(int(number), edges, int(angles))
        except (AttributeError, TypeError, ValueError):
            raise ValueError(
                f"layer {number} must have numbers in id, r_edges and n_bin_alpha, got {dict(element.attrib)}"
            ) from None
        if layer.radii == 0:
            continue
        if not all(low < high for low, high in pairwise(edges)) or edges[0] < 0 or layer.angles < 1:
            raise ValueError(
                f"layer {number} must have ascending edges from 0 and at least one angle, got {text!r}, {angles}"
            )
        layers.append(layer)
    if not layers or any(a.number >= b.number for a, b in pairwise(layers)):
        raise ValueError(
            f"a binning needs layers in ascending order, got {[element.number for element in layers]}"
        )
    return tuple(layers)


def _detector(text: str, particle: str | None, name: str, title: str, **known: Any) -> Detector:
    binning = _bin_of(text, particle)
    layers = _layers(binning)
    first = layers[0]
    dense = len(layers) > 1 and all(
        (other.edges, other.angles) == (first.edges, first.angles) for other in layers
    )
    cells = sum(layer.cells for layer in layers)
    channel = np.repeat(np.arange(len(layers)), [layer.cells for layer in layers])
    matrix = (channel == np.arange(len(layers))[:, None]).astype(np.float32)
    pid = str(binning.get("pid"))
    return Detector(
        name=name,
        axes={"layer": len(layers), "angle": first.angles, "radius": first.radii}
        if dense
        else {"voxel": cells},
        unit="MeV",
        conditions=(INCIDENT_ENERGY,),
        channels={
            "layers": ChannelMap(
                tuple(f"layer {layer.number}" for layer in layers), matrix, "sum of the voxels of a layer"
            )
        },
        title=title,
        layers=layers,
        pdg=int(pid) if pid.lstrip("-").isdigit() else None,
        **{"threshold": THRESHOLD if dense else THRESHOLD_DS1} | known,
    )


def from_xml(
    path: str | Path,
    particle: str | None = None,
    *,
    name: str | None = None,
    threshold: float | None = None,
) -> Detector:
    """Builds a detector from a binning file.

    Args:
        path: the XML file.
        particle: name or PDG id of the `Bin` wanted, where the file holds several.
        name: of the detector; what a recipe says to mean this detector, such as `path:particle`, if not given.
        threshold: voxels below it are empty when showers are judged [MeV]; that of DS2 and DS3 where all layers are
            alike, and else that of data set 1, if not given.

    Raises:
        ValueError: no such file, or not a binning; the message names the file.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read the binning {path}: {error}") from error
    suffix = "" if particle is None else f":{particle}"
    if threshold is not None:
        suffix = f":{particle or ''}:{threshold:g}"
    known = {} if threshold is None else {"threshold": threshold}
    title = f"{path.stem} {particle or ''}".strip()
    try:
        return _detector(text, particle, name or f"{path}{suffix}", title, **known)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _shipped(name: str, title: str) -> Detector:
    text = (resources.files("caloforge.detectors") / f"binning_{name}.xml").read_text(encoding="utf-8")
    return _detector(text, None, name, title, layer_depth=LAYER_DEPTH)


def with_angles(detector: Detector) -> Detector:
    """Returns the same voxels for primaries of any direction: its conditions are energy, `theta` and `phi`.

    Args:
        detector: of this module's kind, whose only condition is the energy.

    Raises:
        ValueError: it has other conditions.
    """
    if detector.features != ("incident_energy",):
        raise ValueError(
            f"angles are for a detector with the condition incident_energy, {detector.name} has "
            f"{', '.join(detector.features)}"
        )
    return replace(
        detector, name=f"{detector.name}-angles", conditions=ANGLES, title=f"{detector.title}, with angles"
    )


DS2 = _shipped("ds2", "CaloChallenge data set 2")

DS3 = _shipped("ds3", "CaloChallenge data set 3")

DS2_ANGLES, DS3_ANGLES = with_angles(DS2), with_angles(DS3)
