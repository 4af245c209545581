"""Detectors as values, and the table that resolves their names."""

from __future__ import annotations

from caloforge.detectors.base import ChannelMap, Detector, Feature
from caloforge.detectors.zdc import ZN, ZP

__all__ = ["DETECTORS", "ChannelMap", "Detector", "Feature", "ZN", "ZP", "detector_named"]

DETECTORS: dict[str, Detector] = {detector.name: detector for detector in (ZN, ZP)}


def detector_named(name: str) -> Detector:
    """Returns the detector of that name, or the value behind `package.module:VALUE` of outside code.

    Raises:
        ValueError: no such detector; the message lists those there are.
    """
    if name in DETECTORS:
        return DETECTORS[name]
    if ":" in name:
        from caloforge._lookup import outside

        return outside(name, Detector)
    raise ValueError(f"no detector {name!r}; there are {', '.join(DETECTORS)}, or package.module:VALUE")
