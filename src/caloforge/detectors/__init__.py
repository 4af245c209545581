"""Detectors as values, and the table that resolves their names."""

from __future__ import annotations

import math

from caloforge._lookup import nearest, outside
from caloforge.detectors.base import ChannelMap, Detector, Face, Feature, Grooves, Layer, Transport
from caloforge.detectors.calochallenge import DS2, DS2_ANGLES, DS3, DS3_ANGLES, from_xml, with_angles
from caloforge.detectors.crystals import CRYSTALS
from caloforge.detectors.zdc import ZN, ZP

__all__ = [
    "CRYSTALS",
    "DETECTORS",
    "ChannelMap",
    "DS2",
    "DS2_ANGLES",
    "DS3",
    "DS3_ANGLES",
    "Detector",
    "Face",
    "Feature",
    "Grooves",
    "Layer",
    "Transport",
    "ZN",
    "ZP",
    "detector_named",
    "from_xml",
    "with_angles",
]

DETECTORS: dict[str, Detector] = {
    detector.name: detector for detector in (ZN, ZP, DS2, DS3, CRYSTALS, DS2_ANGLES, DS3_ANGLES)
}


def detector_named(name: str, *, trust: bool = True) -> Detector:
    """Returns the detector of that name, or what the name of outside code stands for.

    Args:
        name: a key of `DETECTORS`, a binning file `binning.xml` or `binning.xml:particle`, with a threshold in MeV
            `binning.xml:particle:0.001` or `binning.xml::0.001`, or `package.module:VALUE`.
        trust: whether the user gave the name, or trusts the file that does; outside code is not imported otherwise.

    Raises:
        ValueError: no such detector; the message lists those there are. Or outside code that is not trusted.
    """
    if name in DETECTORS:
        return DETECTORS[name]
    path, xml, rest = name.partition(".xml")
    if xml and (rest == "" or rest.startswith(":")):
        particle, _, threshold = rest.removeprefix(":").partition(":")
        return from_xml(
            f"{path}.xml", particle or None, threshold=_threshold(name, threshold) if threshold else None
        )
    if ":" in name:
        return outside(name, Detector, trust=trust)
    raise ValueError(
        f"no detector {name!r}; there are {', '.join(DETECTORS)}, a binning file .xml, or package.module:VALUE"
        f"{nearest(name, DETECTORS)}"
    )


def _threshold(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise ValueError(f"the threshold of {name!r} must be a number of MeV above 0, got {text!r}")
    return value
