"""Exports a generator of ZN, one of ZP and a classifier as the files of ALICE O2's ZDC fast simulation.

What O2 does with them is written down in `runtime.o2_host`, which emulates it. The folder holds

classifier.onnx  features (B, 9) -> 1 where a response in any module is possible, else 0, (B, 1)
neutron.onnx     noise (B, 10), features (B, 9) -> ln(1 + n) of ZN, (B, 44, 44): y before x
proton.onnx      the same of ZP, (B, 30, 56)
*_scales.txt     means and scales of the features, one file a model
card.json        what they are, with the hashes of the files

Features come as O2 passes them: GeV and cm, the mass in MeV, the charge in thirds of e. Their scales are means 0
and scales 1, so that they arrive as they are: the graphs normalise by themselves, in float64 where it matters. The
place at which the particle's straight line meets the detector, within a fibre of 1.6 mm, comes from px / pz.

A generator's graph. The ten normals are hashed (`runtime.expansion`) to a uniform, which decides by the
classifier's probabilities whether this module responds (`runtime.hits`), and to the normals of the generator. Where
nothing responds the generator's branch is not computed at all, and the output is 0. Equal normals given to both
graphs decide both modules together, as in a bundle.

Sides. Since April 2024 full simulation turns x and y of a module around on the A side (pz > 0), and the fast path does
not: with `a_side = "full-simulation"` the image is rotated by 180 degrees there, so that towers agree with it, with
`"image"` it is left as it is, for versions before. The rotation keeps the chessboard of the two kinds of fibre.

Species. What was never trained on, nuclei for one, is known by mass and charge; with `unknown = "dark"` the classifier
says that it leaves no response, with `"as-is"` the models answer as if they knew it.

Counts n > 0 are written as ln(1 + n + 0.01): O2 takes int(exp(.) - 1) in float32, which would often give n - 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from caloforge._lookup import require
from caloforge.detectors import Detector
from caloforge.export.bundle import check_same_features
from caloforge.export.kernels import LOWEST, check_kernels
from caloforge.export.onnx import (
    OPSET,
    check_exportable,
    check_single_graph,
    graph_of,
    graph_of_classifier,
    lower,
)
from caloforge.io import open_events
from caloforge.io.card import Card
from caloforge.io.files import check_new_folder, new_folder, sha256, write_json, write_text
from caloforge.io.run import Run
from caloforge.models import Classifier, Generator
from caloforge.models.parts.inference import as_function, probabilities_in_memory
from caloforge.particles import mass_and_charge
from caloforge.runtime import expansion
from caloforge.runtime.domain import MASS_TOLERANCE, SMALL_MASS
from caloforge.runtime.hits import MODULES, responds
from caloforge.runtime.noise import standard_normals
from caloforge.runtime.o2_host import NAMES, Model, counts_of, features_of, turned
from caloforge.samples import samples_of
from caloforge.training.checkpoint import load_classifier, load_model

FORMAT = 1
CLASSIFIER, CARD, SUMS = "classifier", "card.json", "SHA256SUMS"

UNITS = {"mass": 1e-3, "charge": 1 / 3}
"""What O2's features are multiplied by: MeV to GeV, thirds of e to e."""

MARGIN = 0.01
"""Added to counts above 0, so that float32 and truncation give them back."""

EVENTS = 32
"""Particles with which each graph is compared with PyTorch."""

DIFFERENT = 0.01
"""Largest number of counts that may differ, over the number of lit cells."""

THRESHOLD = 1e-4
"""Probability of a response in any module below which the classifier says that there is none."""


ASide = Literal["full-simulation", "image"]
"""What towers of the A side agree with: full simulation since April 2024, or the image as it was trained."""

Unknown = Literal["dark", "as-is"]
"""What to make of species that were never trained on: no response, or what the models say."""


def export_o2(
    runs: Sequence[Path],
    zero: Path,
    out: Path,
    *,
    threshold: float = THRESHOLD,
    a_side: ASide = "full-simulation",
    unknown: Unknown = "dark",
) -> dict[str, Any]:
    """Exports runs for O2.

    Args:
        runs: the run folders of a generator of ZN and of one of ZP, in any order.
        zero: the run folder of a zero-response classifier.
        out: the folder to write, which must not exist.
        threshold: the classifier's; primaries less likely to respond are not simulated.
        a_side: whether images are rotated by 180 degrees for pz > 0, as full simulation does.
        unknown: what the classifier says of species that it was not trained on.

    Returns:
        the card.

    Raises:
        ValueError: runs that are not these three, or that do not give whole photons. Nothing is left then.
    """
    check_new_folder(out)
    if not 0 <= threshold < 1:
        raise ValueError(f"the threshold must be a probability below 1, got {threshold}")
    for option, value, choices in (
        ("a_side", a_side, get_args(ASide)),
        ("unknown", unknown, get_args(Unknown)),
    ):
        if value not in choices:
            raise ValueError(f"{option} must be one of {', '.join(choices)}, got {value!r}")
    onnx = require("onnx", "export")
    generators = _generators(runs)
    _, classifier = load_classifier(zero)
    check_same_features(classifier.detector, next(iter(generators.values()))[1].detector)
    probabilities = graph_of_classifier(classifier)
    species = known_species(Run(zero).card()) if unknown == "dark" else None

    with new_folder(out) as temporary:
        onnx.save(
            _classifier_graph(probabilities, classifier.detector, threshold, species),
            temporary / "classifier.onnx",
        )
        agreement = {}
        for module, (_, model) in generators.items():
            graph = _generator_graph(graph_of(model, whole=True), probabilities, module, model, a_side)
            onnx.save(graph, temporary / f"{NAMES[module]}.onnx")
            agreement[module] = _compare(temporary / f"{NAMES[module]}.onnx", model, classifier, a_side)
        for name in (CLASSIFIER, *NAMES.values()):
            write_text(temporary / f"{name}_scales.txt", scales_text(len(classifier.detector.features)))
        files = sorted(path.name for path in temporary.iterdir())
        card = {
            "format": FORMAT,
            "target": "o2",
            "models": {
                NAMES[module]: {**_origin(path), "agreement": agreement[module]}
                for module, (path, _) in generators.items()
            }
            | {CLASSIFIER: _origin(zero)},
            "threshold": threshold,
            "margin": MARGIN,
            "a_side": a_side,
            "unknown": unknown,
            "noise_dim": expansion.SIZE,
            "features": list(classifier.detector.features),
            "units": ["GeV", "cm", "cm", "cm", "GeV", "GeV", "GeV", "MeV", "e/3"],
            "opset": OPSET,
            "onnxruntime": f">={LOWEST}",
            "exported_by": {name: version(name) for name in ("caloforge", "torch", "onnx", "onnxscript")},
            "files": {name: sha256(temporary / name) for name in files},
        }
        write_json(temporary / CARD, card)
        sums = [f"{sha256(temporary / name)}  {name}\n" for name in (CARD, *files)]
        write_text(temporary / SUMS, "".join(sums))
    return card


def _generators(runs: Sequence[Path]) -> dict[str, tuple[Path, Generator]]:
    by_module: dict[str, tuple[Path, Generator]] = {}
    for run in runs:
        recipe, model = load_model(run)
        if not isinstance(model, Generator):
            raise ValueError(f"{recipe.name} predicts channel sums only: O2 needs images")
        check_exportable(model, recipe.name)
        check_single_graph(model, recipe.name)
        if recipe.model.get("rounding", "none") == "none":
            raise ValueError(f"{recipe.name} gives unrounded counts: O2 would truncate them")
        by_module[model.detector.name] = run, model
    if len(runs) != len(MODULES) or set(by_module) != set(MODULES):
        raise ValueError(
            f"O2 needs one run of each of {', '.join(MODULES)}, got {', '.join(by_module) or 'none'} "
            f"in {len(runs)} runs"
        )
    return {module: by_module[module] for module in MODULES}


def known_species(card: Card) -> NDArray[np.float64]:
    """Returns mass in GeV and charge in e of the species that a run was trained on, by its card, (S, 2).

    Raises:
        ValueError: a card of an older version, which does not tell.
    """
    if card.domain is None:
        raise ValueError(f"the card of {card.name} has no domain: train it again with this version")
    return np.unique([mass_and_charge(int(pdg)) for pdg in card.domain["particles"]], axis=0)


def _compare(
    path: Path, model: Generator, classifier: Classifier, a_side: ASide = "full-simulation"
) -> dict[str, int]:
    """Compares a generator's graph, as the host reads it, with PyTorch.

    Raises:
        ValueError: they do not agree.
    """
    detector = model.detector
    scales = path.with_name("check_scales.txt")
    write_text(scales, scales_text(len(detector.features)))
    host = Model(path, scales)
    scales.unlink()
    particles = open_events(samples_of(detector.name)[-1]).primaries
    particles = particles.select(np.linspace(0, len(particles) - 1, EVENTS).astype(np.intp))
    noise = standard_normals(0, np.arange(EVENTS), expansion.SIZE)
    u, normals = expansion.expand(noise, model.noise_dim)
    hit = responds(detector.name, probabilities_in_memory(classifier, particles.conditions), u)
    reference = as_function(model)(particles.conditions, normals)
    reference[~hit] = 0
    if a_side == "full-simulation":
        reference = turned(reference, particles)
    got = np.stack(
        [
            counts_of(host(ten, particle), detector)
            for ten, particle in zip(noise, features_of(particles), strict=True)
        ]
    )
    agreement = {
        "events": EVENTS,
        "responses": int(hit.sum()),
        "lit_cells": int(np.count_nonzero(reference)),
        "different_counts": int(np.count_nonzero(got != reference)),
    }
    if not agreement["different_counts"] <= DIFFERENT * agreement["lit_cells"]:
        raise ValueError(f"the graph of {detector.name} does not agree with PyTorch: {agreement}")
    return agreement


def _origin(run: Path) -> dict[str, Any]:
    card = Run(run).card()
    keys = ("name", "type", "detector", "data", "split", "seed", "rounding", "version")
    return {key: card.content().get(key) for key in keys} | {"weights": sha256(Run(run).weights)}


def scales_text(features: int) -> str:
    """Returns a scales file in O2's format that leaves the features as they are."""
    return "\n".join(["#means", *["0.0"] * features, "", "#scales", *["1.0"] * features, ""])


class _Nodes:
    """Collects the nodes and constants of a graph; a call adds a node and returns its output's name."""

    def __init__(self, prefix: str) -> None:
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.onnx = require("onnx", "export")
        self._prefix = prefix

    def _name(self) -> str:
        return f"{self._prefix}{len(self.nodes) + len(self.initializers)}"

    def __call__(self, operator: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        output = name or self._name()
        self.nodes.append(self.onnx.helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def constant(self, value: NDArray[np.generic]) -> str:
        name = self._name()
        self.initializers.append(self.onnx.numpy_helper.from_array(np.asarray(value), name))
        return name

    def include(self, proto: Any, prefix: str, **inputs: str) -> str:
        """Adds all of another graph, its inputs taken from values of this one; returns its output's name."""
        copy = self.onnx.ModelProto()
        copy.CopyFrom(proto)
        graph = self.onnx.compose.add_prefix(copy, prefix).graph
        for name, value in inputs.items():
            self("Identity", value, name=prefix + name)
        self.nodes.extend(graph.node)
        self.initializers.extend(graph.initializer)
        return str(graph.output[0].name)


def _conditions(nodes: _Nodes, features: str, detector: Detector) -> str:
    """Turns O2's features, (B, 9), into conditions in the detector's units."""
    factors = np.array([UNITS.get(name, 1.0) for name in detector.features])
    double = nodes("Cast", features, to=nodes.onnx.TensorProto.DOUBLE)
    return nodes("Cast", nodes("Mul", double, nodes.constant(factors)), to=nodes.onnx.TensorProto.FLOAT)


def _model(nodes: _Nodes, inputs: Sequence[tuple[str, int]], output: str, shape: Sequence[int]) -> Any:
    onnx = require("onnx", "export")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes.nodes,
        "caloforge",
        [helper.make_tensor_value_info(name, kind, ["batch", size]) for name, size in inputs],
        [helper.make_tensor_value_info(output, kind, ["batch", *shape])],
        nodes.initializers,
    )
    proto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="caloforge"
    )
    lower(proto)
    check_kernels(proto)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def _classifier_graph(
    probabilities: Any, detector: Detector, threshold: float, species: NDArray[np.float64] | None = None
) -> Any:
    """Says 1 where P(any) reaches the threshold and mass and charge are of a known species, (S, 2), else 0."""
    nodes = _Nodes("n")
    conditions = _conditions(nodes, "features", detector)
    outcomes = nodes.include(probabilities, "zero/", conditions=conditions)
    either = nodes("Gather", outcomes, nodes.constant(np.array([2])), axis=1)
    possible = nodes("GreaterOrEqual", either, nodes.constant(np.array(threshold, np.float32)))
    if species is not None:
        possible = nodes("And", possible, _is_known(nodes, conditions, detector, species))
    nodes("Cast", possible, name="trace", to=nodes.onnx.TensorProto.FLOAT)
    return _model(nodes, [("features", len(detector.features))], "trace", [1])


def _is_known(nodes: _Nodes, conditions: str, detector: Detector, species: NDArray[np.float64]) -> str:
    """Returns whether mass and charge are those of a species, (B, 1), by the tolerances of the domain guard."""
    mass, charge = (
        nodes("Gather", conditions, nodes.constant(np.array([detector.features.index(name)])), axis=1)
        for name in ("mass", "charge")
    )
    masses, charges = species.T.astype(np.float32)
    allowed = np.maximum(MASS_TOLERANCE * masses, SMALL_MASS)

    def near(value: str, expected: NDArray[np.float32], tolerance: NDArray[np.float32]) -> str:
        distance = nodes("Abs", nodes("Sub", value, nodes.constant(expected[None])))
        return nodes("Less", distance, nodes.constant(tolerance[None]))

    alike = nodes("And", near(mass, masses, allowed), near(charge, charges, np.full_like(charges, 0.1)))
    count = nodes(
        "ReduceMax", nodes("Cast", alike, to=nodes.onnx.TensorProto.FLOAT), nodes.constant(np.array([1]))
    )
    return nodes("Cast", count, to=nodes.onnx.TensorProto.BOOL)


def _generator_graph(
    generator: Any, probabilities: Any, module: str, model: Generator, a_side: ASide = "image"
) -> Any:
    """Puts hash, zero response, generator and O2's way of writing counts together."""
    onnx = require("onnx", "export")
    helper, kinds = onnx.helper, onnx.TensorProto
    detector = model.detector
    width, height = detector.shape
    nodes = _Nodes("n")
    conditions = _conditions(nodes, "features", detector)
    high, low = _halves(nodes, "noise", 1 + -(-model.noise_dim // 2))
    # u, and P(ZN), P(ZP), P(any)
    first = nodes.constant(np.array([0]))
    u = _scaled(nodes, nodes("Gather", high, first, axis=1), 0.5)
    outcomes = nodes.include(probabilities, "zero/", conditions=conditions)
    neutron, proton, either = (
        nodes("Gather", outcomes, nodes.constant(np.array([i])), axis=1) for i in range(3)
    )
    if module == "zn":
        hit = nodes("Less", u, neutron)
    else:
        above = nodes("GreaterOrEqual", u, nodes("Sub", either, proton))
        hit = nodes("And", above, nodes("Less", u, either))
    hit = nodes("Cast", hit, to=kinds.FLOAT)
    some = nodes("Cast", nodes("ReduceMax", hit, keepdims=0), to=kinds.BOOL)

    lit = _Nodes("lit/")
    noise = _normals(lit, high, low, model.noise_dim)
    counts = lit.include(generator, "generator/", conditions=conditions, noise=noise)
    counts = lit("Transpose", lit("Cast", counts, to=kinds.DOUBLE), perm=[0, 2, 1])
    if a_side == "full-simulation":
        counts = _turned(lit, counts, conditions, detector)
    written = lit("Log", lit("Add", counts, lit.constant(np.array(1 + MARGIN))))
    zero = lit.constant(np.array(0.0))
    written = lit("Where", lit("Greater", counts, zero), written, zero)
    mask = lit("Unsqueeze", hit, lit.constant(np.array([2])))
    lit("Mul", lit("Cast", written, to=kinds.FLOAT), mask, name="lit")

    dark = _Nodes("dark/")
    batch = dark("Shape", "features", start=0, end=1)
    shape = dark("Concat", batch, dark.constant(np.array([height, width])), axis=0)
    dark("Expand", dark.constant(np.zeros((1, 1, 1), np.float32)), shape, name="dark")

    def branch(name: str, part: _Nodes) -> Any:
        value = helper.make_tensor_value_info(name, kinds.FLOAT, ["batch", height, width])
        return helper.make_graph(part.nodes, name, [], [value], part.initializers)

    nodes("If", some, name="image", then_branch=branch("lit", lit), else_branch=branch("dark", dark))
    inputs = [("noise", expansion.SIZE), ("features", len(detector.features))]
    return _model(nodes, inputs, "image", [height, width])


def _turned(nodes: _Nodes, counts: str, conditions: str, detector: Detector) -> str:
    """Rotates the images, (B, ny, nx), of particles with pz > 0 by 180 degrees."""
    starts, ends, steps = (
        nodes.constant(np.array([value] * 2)) for value in (-1, np.iinfo(np.int64).min, -1)
    )
    rotated = nodes("Slice", counts, starts, ends, nodes.constant(np.array([1, 2])), steps)
    pz = nodes("Gather", conditions, nodes.constant(np.array([[detector.features.index("pz")]])), axis=1)
    return nodes("Where", nodes("Greater", pz, nodes.constant(np.array(0, np.float32))), rotated, counts)


def _halves(nodes: _Nodes, noise: str, count: int) -> tuple[str, str]:
    """Hashes the normals, (B, 10), to words and returns their high and low halves as float32, (B, count)."""
    kinds = nodes.onnx.TensorProto

    def number(value: int) -> str:
        return nodes.constant(np.array(value, np.uint64))

    def wrapping(operator: str, first: str, second: str) -> str:
        """Adds or multiplies words: as signed numbers, which have the same bits and for which kernels are older."""
        signed = (nodes("Cast", value, to=kinds.INT64) for value in (first, second))
        return nodes("Cast", nodes(operator, *signed), to=kinds.UINT64)

    def mix(z: str) -> str:
        for shift, factor in zip(expansion.SHIFTS, (expansion.FIRST, expansion.SECOND, None), strict=True):
            z = nodes("BitwiseXor", z, nodes("BitShift", z, number(shift), direction="RIGHT"))
            if factor is not None:
                z = wrapping("Mul", z, number(factor))
        return z

    largest = expansion.LARGEST
    cut = nodes("Clip", noise, *(nodes.constant(np.array(x, np.float32)) for x in (-largest, largest)))
    scaled = nodes(
        "Mul", nodes("Cast", cut, to=kinds.DOUBLE), nodes.constant(np.array(expansion.GRAIN, np.float64))
    )
    shifted = nodes("Add", nodes("Floor", scaled), nodes.constant(np.array(expansion.OFFSET, np.float64)))
    table = expansion.constants()
    mixed = mix(
        nodes("BitwiseXor", nodes("Cast", shifted, to=kinds.UINT64), nodes.constant(table[: expansion.SIZE]))
    )
    # sums of 64-bit words exist in no standard operator: those of the halves, then carried
    upper, lower = (
        nodes(
            "Cast",
            nodes("ReduceSum", nodes("Cast", half, to=kinds.INT64), nodes.constant(np.array([1]))),
            to=kinds.UINT64,
        )
        for half in (
            nodes("BitShift", mixed, number(32), direction="RIGHT"),
            nodes("BitwiseAnd", mixed, number(0xFFFFFFFF)),
        )
    )
    key = mix(wrapping("Add", nodes("BitShift", upper, number(32), direction="LEFT"), lower))
    increment = nodes(
        "BitwiseOr", mix(nodes("BitwiseXor", key, nodes.constant(table[expansion.SIZE :]))), number(1)
    )
    counter = nodes.constant(np.arange(count, dtype=np.uint64))
    drawn = mix(wrapping("Add", key, wrapping("Mul", counter, increment)))
    high = nodes("BitShift", drawn, number(32), direction="RIGHT")
    low = nodes("BitwiseAnd", drawn, number(0xFFFFFFFF))
    return nodes("Cast", high, to=kinds.FLOAT), nodes("Cast", low, to=kinds.FLOAT)


def _scaled(nodes: _Nodes, words: str, shift: float) -> str:
    """Returns (words + shift) / 2^32."""
    moved = nodes("Add", words, nodes.constant(np.array(shift, np.float32))) if shift else words
    return nodes("Mul", moved, nodes.constant(np.array(2.0**-32, np.float32)))


def _normals(nodes: _Nodes, high: str, low: str, size: int) -> str:
    """Makes standard normals, (B, size), of the halves of all words but the first."""
    begin, end, axis = (nodes.constant(np.array([x])) for x in (1, np.iinfo(np.int64).max, 1))
    u1, u2 = (nodes("Slice", half, begin, end, axis) for half in (high, low))
    logarithm = nodes("Log", _scaled(nodes, u1, 0.5))
    radius = nodes("Sqrt", nodes("Mul", logarithm, nodes.constant(np.array(-2, np.float32))))
    angle = nodes("Mul", _scaled(nodes, u2, 0.0), nodes.constant(np.array(2 * np.pi, np.float32)))
    both = nodes(
        "Concat", nodes("Mul", radius, nodes("Cos", angle)), nodes("Mul", radius, nodes("Sin", angle)), axis=1
    )
    start, stop = nodes.constant(np.array([0])), nodes.constant(np.array([size]))
    return nodes("Slice", both, start, stop, axis)
