"""The host's side of the ALICE O2 drop-in: what O2's C++ does around the models, in Python.

To validate exported models without O2: give it the primaries, compare its hits with full simulation. For each
primary:

1. Features in O2's order and units: E [GeV], vx, vy, vz [cm], px, py, pz [GeV], mass in MeV, charge in thirds of e,
   float32. Each model has a scales file; scaled = (x - mean) / scale.
2. The classifier takes one input (1, 9); its first value is rounded, and where that is 0 nothing more happens.
3. Each generator takes two inputs by position, ten normals (1, 10) and scaled features (1, 9). Every dimension of
   an input that is dynamic is set to the batch, 1. The output is read as a flat array of float32: the count of fibre
   (x, y) is int(expm1(flat[Nx y + x])).
4. The counts go to the five channels of the map `o2`; in the debug path of ZN, which is read as [i][j] =
   flat[44 i + j], to four quadrants (i and j both odd or both even) and the rest, without truncation, rounded at
   the end.

Vertices are smeared in O2 before all this (`smeared`), and the axes of full simulation are turned on the A side
(`turned`). One thread, one primary at a time.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.detectors import DETECTORS, Detector
from caloforge.events import Events, Primaries, with_responses
from caloforge.runtime.session import check_whole

FEATURES = 9
NOISE = 10
BATCH = 1

NAMES = {"zn": "neutron", "zp": "proton"}
"""Names of the generators' files, by detector."""

Floats = NDArray[np.float32]


def parse_scales(text: str) -> tuple[Floats, Floats]:
    """Reads means and scales of a scales file, (9,) each.

    Raises:
        ValueError: a marker that is missing, or not nine numbers after it.
    """
    lines = text.splitlines()
    return _block(lines, "#means"), _block(lines, "#scales")


def _block(lines: list[str], marker: str) -> Floats:
    if marker not in lines:
        raise ValueError(f"the scales file has no line {marker}")
    start = lines.index(marker) + 1
    try:
        return np.array([float(line) for line in lines[start : start + FEATURES]], np.float32).reshape(
            FEATURES
        )
    except ValueError:
        raise ValueError(f"{FEATURES} lines with one number each must follow {marker}") from None


def features_of(primaries: Primaries) -> Floats:
    """Returns the features as O2 passes them, (N, 9)."""
    names = ("energy", "vx", "vy", "vz", "px", "py", "pz", "mass", "charge")
    factors = np.array([1, 1, 1, 1, 1, 1, 1, 1000, 3], np.float32)
    return np.stack([primaries.feature(name) for name in names], 1) * factors


class Model:
    """A model as O2 holds it: a session of one thread and the scales of its inputs.

    Args:
        path: the ONNX file.
        scales: the scales file.

    Attributes:
        shapes: shape of each input, dynamic dimensions set to the batch.
    """

    def __init__(self, path: Path, scales: Path) -> None:
        check_whole(path)
        runtime: Any = importlib.import_module("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._inputs = [value.name for value in self._session.get_inputs()]
        self.shapes = [
            tuple(size if isinstance(size, int) and size >= 0 else BATCH for size in value.shape)
            for value in self._session.get_inputs()
        ]
        self.mean, self.scale = parse_scales(scales.read_text(encoding="ascii"))

    def __call__(self, *inputs: Floats) -> Floats:
        """Runs the model on flat inputs, given by position; returns output 0, flat.

        Raises:
            ValueError: not as many inputs as the model has, or of another size.
        """
        if len(inputs) != len(self.shapes) or any(
            value.size != math.prod(shape) for value, shape in zip(inputs, self.shapes, strict=False)
        ):
            raise ValueError(
                f"the model takes inputs of shape {self.shapes}, got {[x.shape for x in inputs]}"
            )
        values = {
            name: np.ascontiguousarray(value, np.float32).reshape(shape)
            for name, value, shape in zip(self._inputs, inputs, self.shapes, strict=True)
        }
        return np.asarray(self._session.run(None, values)[0], np.float32).ravel()

    def scaled(self, features: Floats) -> Floats:
        """Scales features, (9,), in float32."""
        return np.asarray((features - self.mean) / self.scale, np.float32)


def counts_of(flat: Floats, detector: Detector) -> NDArray[np.int64]:
    """Returns the counts of a flat output, (Nx, Ny): truncated, as C++ turns float32 into an integer."""
    width, height = detector.shape
    counts = np.trunc(np.expm1(flat.astype(np.float32))).astype(np.int64)
    return np.asarray(counts.reshape(height, width).T)


def turned(images: NDArray[Any], primaries: Primaries) -> NDArray[Any]:
    """Turns images, (N, Nx, Ny), to O2's local axes of full simulation: by 180 degrees on the A side, pz > 0.

    So it is since April 2024; before, the axes were those of the image on both sides.
    """
    a_side = primaries.feature("pz") > 0
    return np.where(a_side[:, None, None], images[:, ::-1, ::-1], images)


def smeared(
    primaries: Primaries, spot: Sequence[float], seed: int, event: NDArray[Any] | None = None
) -> Primaries:
    """Displaces vertices as O2 does with its diamond: all primaries of a collision together, directions unchanged.

    Args:
        primaries: N primaries as a generator of collisions gives them, from one point.
        spot: standard deviations in x, y and z in cm; O2's default is 0.01 each, real beams have 6 in z.
        seed: another seed, other vertices.
        event: number of the collision of each primary, (N,); each is one of its own where not given.
    """
    numbers = np.arange(len(primaries)) if event is None else event
    collisions, index = np.unique(numbers, return_inverse=True)
    shifts = np.random.default_rng(seed).standard_normal((len(collisions), 3)) * spot
    conditions = primaries.conditions.copy()
    columns = [primaries.detector.features.index(name) for name in ("vx", "vy", "vz")]
    conditions[:, columns] += shifts[index].astype(np.float32)
    return dataclasses.replace(primaries, conditions=conditions)


def channels_of(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sums the counts of (Nx, Ny) fibres as O2's hits: common, tower 1 to 4, (5,).

    Written out from the definition and not by way of `detectors.zdc`, so that each can be tested by the other.
    """
    sums = np.zeros(5, np.int64)
    width, height = counts.shape
    square = width == height  # ZN has quadrants, ZP strips in x
    for x, y in np.argwhere(counts):
        if (x + y) % 2 == 0:
            channel = 0
        elif square:
            channel = (1 if y < height / 2 else 3) if x < width / 2 else (2 if y < height / 2 else 4)
        else:
            channel = 1 + 4 * x // width
        sums[channel] += counts[x, y]
    return sums


def debug_channels(flat: Floats, size: int = 44) -> NDArray[np.int64]:
    """Sums a flat output of ZN as O2's debug path does, (5,): not truncated, rounded at the end."""
    photons = np.expm1(flat.astype(np.float32)).reshape(size, size)
    sums = np.zeros(5, np.float32)
    half = size // 2
    for i, j in np.argwhere(photons):
        channel = (0 if j < half else 1) if i < half else (2 if j < half else 3)
        sums[channel if i % 2 == j % 2 else 4] += photons[i, j]
    return np.asarray(np.floor(sums + 0.5).astype(np.int64))


Noise = Callable[[int, str], Floats]
"""Ten normals for a primary's row and a detector's name."""


@dataclass(frozen=True)
class Host:
    """O2 with a folder that `caloforge export --target o2` wrote.

    Attributes:
        classifier: says whether anything happens.
        generators: by detector.
    """

    classifier: Model
    generators: dict[str, Model]

    @classmethod
    def load(cls, folder: Path) -> Host:
        """Loads the models of a folder."""

        def model(name: str) -> Model:
            return Model(folder / f"{name}.onnx", folder / f"{name}_scales.txt")

        return cls(model("classifier"), {detector: model(name) for detector, name in NAMES.items()})

    def simulate(self, primaries: Primaries, noise: Noise) -> dict[str, Events]:
        """Simulates primaries one by one.

        Args:
            primaries: of either detector, both have the same features.
            noise: gives the normals of each call of a generator.

        Returns:
            the responses by detector, one for each primary, zero where nothing happened.
        """
        images = {name: np.zeros((len(primaries), *DETECTORS[name].shape), np.uint16) for name in NAMES}
        for row, features in enumerate(features_of(primaries)):
            if np.rint(self.classifier(self.classifier.scaled(features))[0]) == 0:
                continue
            for name, generator in self.generators.items():
                flat = generator(noise(row, name), generator.scaled(features))
                images[name][row] = counts_of(flat, DETECTORS[name])
        return {
            name: with_responses(
                Primaries(
                    DETECTORS[name], primaries.conditions, primaries.pdg, primaries.group, primaries.fold
                ),
                image,
            )
            for name, image in images.items()
        }


def shared_noise(seed: int) -> Noise:
    """Gives both generators the same normals for a primary."""

    def draw(row: int, detector: str) -> Floats:
        return np.random.default_rng((seed, row)).standard_normal(NOISE).astype(np.float32)

    return draw


def separate_noise(seed: int) -> Noise:
    """Gives each generator normals of its own."""

    def draw(row: int, detector: str) -> Floats:
        key = (seed, row, list(NAMES).index(detector))
        return np.random.default_rng(key).standard_normal(NOISE).astype(np.float32)

    return draw
