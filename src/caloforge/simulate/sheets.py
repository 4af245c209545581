"""Layers written as text: which sheets of which materials, how deep.

    W:1.4mm,Si:0.3mm                   every layer: 1.4 mm of tungsten, then 0.3 mm of silicon
    W:1.4mm,Si:0.3mm,W:1.4mm,Si:0.3mm  two pairs a layer, as in data sets 2 and 3
    PbWO4:20mm                         a homogeneous calorimeter
    0-3=Pb:2mm,lAr:4mm                 layers 0 to 3 only; `12=...` is one layer

The material of the last sheet is the active one: all its sheets are counted, and the others absorb. Materials are
names of Geant4's data base (NIST) with or without `G4_`; depths are in mm, cm or um.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

MILLIMETRES = {"mm": 1.0, "cm": 10.0, "um": 1e-3}

EXAMPLE = "W:1.4mm,Si:0.3mm"

_LAYERS = re.compile(r"(?:(\d+)(?:-(\d+))?=)?([^=]*)")
_SHEET = re.compile(r"(?:G4_)?([A-Za-z][\w-]*):([\d.]+(?:[eE]-?\d+)?)(mm|cm|um)")


@dataclass(frozen=True)
class Sheet:
    """A sheet across the axis.

    Attributes:
        material: a name of Geant4's data base.
        depth: along the axis [mm].
        active: whether what is deposited in it counts.
    """

    material: str
    depth: float
    active: bool


def sheets_of(text: str) -> tuple[Sheet, ...]:
    """Reads the sheets of a layer, in the order in which a shower meets them.

    Raises:
        ValueError: not MATERIAL:DEPTH, separated by commas.
    """
    sheets = []
    for piece in text.split(","):
        match = _SHEET.fullmatch(piece.strip())
        try:
            depth = float(match[2]) * MILLIMETRES[match[3]] if match else 0.0
        except ValueError:  # two points
            depth = 0.0
        if match is None or not 0 < depth < math.inf:
            raise ValueError(
                f"a sheet is MATERIAL:DEPTH with a depth above 0 in {', '.join(MILLIMETRES)}, as in {EXAMPLE}, "
                f"got {piece.strip()!r}"
            )
        sheets.append((f"G4_{match[1]}", round(depth, 9)))
    active = sheets[-1][0]
    return tuple(Sheet(material, depth, material == active) for material, depth in sheets)


def sheets_by_layer(texts: Sequence[str], numbers: Sequence[int]) -> tuple[tuple[Sheet, ...], ...]:
    """Returns the sheets of each layer of a detector.

    Args:
        texts: as the head of this module says; a text without numbers is for the layers that no other names.
        numbers: of the detector's layers.

    Raises:
        ValueError: a layer has no sheets, or twice; a number that the detector does not have; text that cannot be read.
    """
    by_number: dict[int, tuple[Sheet, ...]] = {}
    others: tuple[Sheet, ...] | None = None
    for text in texts:
        match = _LAYERS.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"layers are given as {EXAMPLE} or 0-3={EXAMPLE}, got {text!r}")
        sheets = sheets_of(match[3])
        if match[1] is None:
            if others is not None:
                raise ValueError(f"two texts are for all layers, the second is {text!r}: begin one with 0-3=")
            others = sheets
            continue
        for number in range(int(match[1]), int(match[2] or match[1]) + 1):
            if number in by_number:
                raise ValueError(f"layer {number} is given twice, the second time by {text!r}")
            by_number[number] = sheets
    unknown = sorted(set(by_number) - set(numbers))
    if unknown:
        raise ValueError(f"there is no layer {unknown[0]}: layers are {', '.join(map(str, numbers))}")
    missing = [number for number in numbers if number not in by_number]
    if missing and others is None:
        raise ValueError(f"layer {missing[0]} has no sheets: give them as {missing[0]}={EXAMPLE}")
    return tuple(by_number.get(number, others or ()) for number in numbers)
