"""Exports a run as a bundle, after comparing it with PyTorch.

The comparison. For batches of 1, 3, 17 and 256 particles, real ones and random ones, both ways of computing get the
same conditions and noise. Before rounding, ln(1 + count) may differ by 1e-4 at most, and by 1e-3 where a layout is
drawn before the image. After rounding, counts differ where a sum lay within that of a whole number: their share is in
the card. A model that draws whole channel sums inside, decides from which density a voxel is drawn or whether it is
empty, or draws tokens may flip one of those, and then the event differs before rounding too: such events are counted,
and more than one in a hundred is refused (three where an event is drawn token by token).
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from caloforge._lookup import require
from caloforge.detectors import Detector, detector_named
from caloforge.events import EventSource, Joined, Primaries, Selected, of_particles, split
from caloforge.export.geant4 import check_voxels, mesh, par04_graph
from caloforge.export.kernels import LOWEST
from caloforge.export.onnx import (
    OPSET,
    check_exportable,
    check_single_graph,
    graph_of,
    graph_of_classifier,
    graphs_of,
    graphs_of_tokens,
)
from caloforge.io import open_events
from caloforge.io.card import Card
from caloforge.io.columns import layout_of_recipe
from caloforge.io.files import check_new_folder, new_folder, sha256
from caloforge.io.run import Run
from caloforge.io.scores import read_scores
from caloforge.models import Classifier, Generator, Readout
from caloforge.models.base import DrawsTokens
from caloforge.models.parts.inference import as_function, probabilities_in_memory
from caloforge.recipe import Recipe
from caloforge.runtime.bundle import GRAPH, PAR04, ZERO, channel_maps, open_bundle, write_card
from caloforge.runtime.domain import Domain
from caloforge.runtime.hits import MODULES
from caloforge.runtime.noise import standard_normals
from caloforge.runtime.session import TOGETHER, Probabilities, Session
from caloforge.runtime.tokens import TokenSession
from caloforge.samples import SAMPLES, particles_for, sample
from caloforge.training.checkpoint import load_classifier, load_model
from caloforge.training.run import domain_of
from caloforge.trials import OUTCOMES

BATCHES = (1, 3, 17, 256)
TOLERANCE = 1e-4
"""Largest difference of ln(1 + count) before rounding; from the model in float64 where float32 is farther off."""

LAYOUT_TOLERANCE = 1e-3
"""The same of a model that draws a layout before its image: places far off are exponentials of what a flow in float32
gives, and light falls off around them, so that PyTorch in float32 is up to 7e-4 from itself in float64."""

ANOTHER = 0.01
"""Difference of ln(1 + energy) from which on a voxel was drawn from another density: rounding alone is far below."""

PROBABILITY_TOLERANCE = 1e-4
"""Largest difference of a probability of the zero response."""

FLIPPED_EVENTS = 0.01
"""Largest share of events in which a whole sum, or whether a voxel is empty, may flip inside the model."""

FLIPPED_TOKENS = 0.03
"""The same of models that draw an event by more than a hundred tokens, each of which may flip: PyTorch in float32 and
in float64 draws other tokens in about one event of a hundred itself."""

FLIPPED_COUNTS = 0.01
"""Largest number of counts that differ after rounding, over the number of lit cells."""

CONTINUOUS = {"rounding": "none", "photons": "expected"}
"""Settings that take the jumps out of a model: where it has them, they hold in the comparison before rounding."""

ROUNDING = {
    "systematic": "systematic sampling, unbiased in every cell, sums of channels kept to less than one",
    "floor": "floor of a sum to which training had added a uniform number, exact where the flow is",
    "nearest": "nearest whole number, biased",
    "none": "none: expected counts",
    "": "none: expected counts",
}


def export(
    run: Path,
    out: Path,
    *,
    settings: Sequence[str] = (),
    data: Sequence[Path] = (),
    zero: Path | None = None,
    trust: bool = False,
    geant4: bool = False,
    replica: int = 0,
) -> dict[str, Any]:
    """Exports a run.

    Args:
        run: the run folder.
        out: the bundle folder, which must not exist.
        settings: changes of the model section that keep the weights, such as "solver.steps=4".
        data: the files it was trained on, to fit the domain to them again; needed where the run's card has none
            and they are no longer where they were.
        zero: the run folder of a zero response, for a bundle that takes any primary.
        trust: run code outside the package that the run names.
        geant4: also write the graph that Geant4's Par04 example reads.
        replica: which weights of a Bayesian network, or member of a committee, as in `load_model`.

    Returns:
        the bundle's card.

    Raises:
        ValueError: no finished run, a model that is no network, training data that are needed and missing, a graph
            that does not agree with PyTorch. Nothing is left then.
    """
    check_new_folder(out)
    recipe, model = load_model(run, settings, trust=trust, replica=replica)
    weights, _ = Run(run).replica(replica)
    card = weights.card()
    check_exportable(model, recipe.name)
    if geant4:
        check_voxels(model.detector, recipe.name)
        check_single_graph(model, recipe.name)
    domain, particles = _domain_and_particles(recipe, card, data)

    classifier = _classifier(model, zero) if zero else None

    rounding = recipe.model.get("rounding", "")
    whole = model.detector.counts and rounding not in ("", "none")
    with new_folder(out) as temporary:
        graph, expected = graphs_of(model, whole=whole)
        _save({GRAPH: graph, **graphs_of_tokens(model)}, temporary)
        agreement = _compare(recipe, run, settings, replica, model, temporary, particles, expected)
        full = {
            **{key: value for key, value in card.content().items() if key != "format"},
            "shape": list(model.detector.shape),
            "unit": model.detector.unit,
            "channel_maps": channel_maps(model.detector),
            "recipe": recipe.model_dump(mode="json", exclude_none=True),
            "settings": list(settings),
            "noise_dim": model.noise_dim,
            "rounding": rounding,
            "rounding_rule": ROUNDING[rounding],
            "opset": OPSET,
            "onnxruntime": f">={LOWEST}",
            "agreement": agreement,
            "domain": domain.to_card(),
            "weights": sha256(weights.weights),
            **({"replica": replica} if replica else {}),
            "scores": {} if replica else _scores(Run(run), settings),
            "exported_by": {name: version(name) for name in ("caloforge", "torch", "onnx", "onnxscript")},
        }
        if zero and classifier:
            _save({ZERO: graph_of_classifier(classifier)}, temporary)
            full |= _zero_response(zero, classifier, temporary, particles, full["domain"])
        if geant4:
            full["geant4"] = mesh(model.detector, model.noise_dim)
            graph = require("onnx", "export").load(temporary / GRAPH)
            _save({PAR04: par04_graph(graph, model.detector, model.noise_dim)}, temporary)
        write_card(temporary, full)
    return full


def _classifier(model: Generator | Readout, zero: Path) -> Classifier:
    """Loads a zero response and checks that it is one for the model's detector.

    Raises:
        ValueError: it is not.
    """
    recipe, classifier = load_classifier(zero)
    check_same_features(classifier.detector, model.detector)
    if model.detector.name not in MODULES or tuple(classifier.outcomes) != OUTCOMES:
        raise ValueError(
            f"{recipe.name} knows nothing of {model.detector.name}: it is for {', '.join(MODULES)}"
        )
    return classifier


def _zero_response(
    zero: Path, classifier: Classifier, folder: Path, particles: Primaries, responses: Mapping[str, Any]
) -> dict[str, Any]:
    """Compares the graph of a zero response with PyTorch and returns what the card says of it.

    Raises:
        ValueError: they do not agree.
    """
    session, run = Probabilities(folder / ZERO), Run(zero)
    card, rng, difference = run.card(), np.random.default_rng(0), 0.0
    for batch in BATCHES:
        for conditions in _conditions(particles, batch, rng):
            expected = probabilities_in_memory(classifier, conditions)
            difference = max(difference, float(np.abs(expected - session(conditions)).max()))
    if not difference <= PROBABILITY_TOLERANCE:
        raise ValueError(
            f"the graph of {card.name} does not agree with PyTorch: probabilities differ by {difference:.3g}, "
            f"wanted at most {PROBABILITY_TOLERANCE:g}"
        )
    return {
        "domain": card.content()["domain"],
        "zero": {
            **{key: card.content()[key] for key in ("name", "type", "data", "split", "seed", "version")},
            "outcomes": list(classifier.outcomes),
            "weights": sha256(run.weights),
            "rule": "ZN responds where u < P(ZN), ZP where P(any) - P(ZP) <= u < P(any); u from noise stream 1",
            "probability_difference": difference,
            "domain": "of the card: primaries of any kind, those the zero response was trained on",
            "domain_of_responses": responses,
        },
    }


def check_same_features(classifier: Detector, generator: Detector) -> None:
    """Raises ValueError where a classifier and a generator do not take the same conditions."""
    first, second = (
        [f"{feature.name} [{feature.unit}]" for feature in detector.conditions]
        for detector in (classifier, generator)
    )
    distances = [detector.face.z if detector.face else None for detector in (classifier, generator)]
    if first != second or distances[0] != distances[1]:
        raise ValueError(
            f"the zero response was trained for primaries with {', '.join(first)} and a face at "
            f"{distances[0]} cm; {generator.name} has {', '.join(second)} and {distances[1]} cm"
        )


def _training_rows(recipe: Recipe, card: Card, data: Sequence[Path]) -> EventSource | None:
    """Returns the training rows; None where the files are missing or have changed since.

    Files are known by their hash: those given, else the recipe's and the samples that ship.
    """
    places = list(data)
    if not data:
        places = [Path(file) for file in recipe.data.files]
        places += [sample(name) for name in SAMPLES]
    hashes = {sha256(path): path for path in reversed(places) if path.is_file()}
    if not all(file.sha256 in hashes for file in card.data):
        return None
    detector = detector_named(recipe.detector)
    paths = [hashes[file.sha256] for file in card.data]
    layout = layout_of_recipe(recipe.data)
    source = Joined(
        [of_particles(open_events(path, detector, layout), recipe.data.particles) for path in paths]
    )
    return Selected(source, split(source, recipe.data.split, recipe.seed, recipe.data.validation)["train"])


def _domain_and_particles(recipe: Recipe, card: Card, data: Sequence[Path]) -> tuple[Domain, Primaries]:
    """Returns the domain, from the card or fitted to the training rows, and real particles to compare with.

    Raises:
        ValueError: the training files are needed and are not there.
    """
    training = _training_rows(recipe, card, data)
    if training is not None and (data or card.domain is None):
        return domain_of(training, recipe), training.primaries
    if card.domain is None or data:
        names = ", ".join(file.name for file in card.data)
        raise ValueError(
            f"the domain is fitted to the training data, and {names} of {recipe.name} are not all there as they "
            "were: say with --data where they are"
        )
    known = open_events(particles_for(recipe.detector)) if training is None else training
    return Domain.from_card(card.domain), known.primaries


def _scores(run: Run, settings: Sequence[str]) -> dict[str, Any]:
    """Returns the scores over all particles of each reference; empty where they are of other settings."""
    if not run.scores.is_file():
        return {}
    scores = read_scores(run.scores)
    if scores.settings != dict(setting.split("=", 1) for setting in settings):
        return {}
    return {
        name: {"sha256": scored.reference.sha256, **scored.all.model_dump(mode="json", exclude_unset=True)}
        for name, scored in scores.sets.items()
    }


def _compare(
    recipe: Recipe,
    run: Path,
    settings: Sequence[str],
    replica: int,
    model: Generator | Readout,
    folder: Path,
    particles: Primaries,
    expected: Any,
) -> dict[str, Any]:
    """Compares the graph with PyTorch, before and after rounding.

    Args:
        recipe: of the run.
        run: the run folder, for the model without its jumps.
        settings: of the export.
        replica: of the export.
        model: the model.
        folder: its graphs.
        particles: to compare with.
        expected: the graph of what is rounded, where rounding is the last that the model does; else None.

    Raises:
        ValueError: they do not agree.
    """
    after = open_bundle(folder)
    smooth = [
        f"{key}={value}"
        for key, value in CONTINUOUS.items()
        if key in type(model).sampling and recipe.model.get(key) != value
    ]
    if smooth:
        _, unrounded = load_model(run, [*settings, *smooth], trust=True, replica=replica)  # as its twin was
        other = folder / "unrounded"
        shutil.copytree(folder, other)
        _save({GRAPH: graph_of(unrounded, whole=False) if expected is None else expected}, other)
        before = open_bundle(other)
        shutil.rmtree(other)
    else:
        unrounded, before = model, after

    difference, flipped_events, events = 0.0, 0, 0
    flipped, lit, cells = 0, 0, 0
    rng = np.random.default_rng(0)
    smoothly, wholly = as_function(unrounded), as_function(model)
    for batch in BATCHES:
        noise = standard_normals(batch, np.arange(batch), model.noise_dim)
        for conditions in _conditions(particles, batch, rng):
            others = _other_tokens(model, after, conditions, noise)
            graph = np.asarray(before(conditions, noise))
            wanted = in_pieces(smoothly, conditions, noise)
            worst, flips = disagreement(wanted, graph, unrounded, others)
            if TOLERANCE < worst < np.inf:
                # float32 is no truth: the graph may be the one that is nearer to it
                far = _far(wanted, graph)
                wanted = wanted.astype(np.float64)
                wanted[far] = in_pieces(partial(_exact, unrounded), conditions[far], noise[far])
                worst = min(worst, disagreement(wanted, graph, unrounded, others)[0])
            difference = max(difference, worst)
            flipped_events, events = flipped_events + flips, events + batch
            if after is not before:
                reference, got = in_pieces(wholly, conditions, noise), after(conditions, noise)
                same = slice(None) if others is None else ~others  # other tokens are counted as such
                flipped += int(np.count_nonzero(reference[same] != got[same]))
                lit += int(np.count_nonzero(reference[same]))
                cells += reference[same].size
    allowed = TOLERANCE if getattr(model, "layout", None) is None else LAYOUT_TOLERANCE
    if (
        not difference <= allowed
        or flipped_events > (FLIPPED_TOKENS if isinstance(model, DrawsTokens) else FLIPPED_EVENTS) * events
        or flipped > FLIPPED_COUNTS * lit
    ):
        raise ValueError(
            f"the graph of {recipe.name} does not agree with PyTorch: ln(1 + count) differs by {difference:.3g} "
            f"before rounding, wanted at most {allowed:g}; a whole sum, an empty voxel or a token flipped in "
            f"{flipped_events} of {events} events; after rounding {flipped} counts differ, with {lit} cells lit"
        )
    return {
        "events": events,
        "log1p_difference": difference,
        "flipped_events": flipped_events,
        "flipped_counts": flipped,
        "lit_cells": lit,
        "cells": cells,
        "flipped_share": flipped / cells if cells else 0.0,
        "batches": list(BATCHES),
    }


def in_pieces(
    function: Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[Any]],
    conditions: NDArray[np.float32],
    noise: NDArray[np.float32],
) -> NDArray[Any]:
    """Runs a function of rows, some at a time: of a large layout 256 events at once take gigabytes.

    Args:
        function: of conditions (n, F) and noise (n, D), gives (n, *).
        conditions: physical units, (B, F), B at least 1.
        noise: standard normals, (B, D).

    Returns:
        what it gives, (B, *).
    """
    starts = range(0, len(conditions), TOGETHER)
    parts = [function(*(rows[start : start + TOGETHER] for rows in (conditions, noise))) for start in starts]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _far(wanted: NDArray[np.generic], got: NDArray[np.generic]) -> NDArray[np.intp]:
    """Returns the events with a ln(1 + count) farther off than the tolerance."""
    return np.array(
        [
            row
            for row, (first, second) in enumerate(zip(wanted, got, strict=True))
            if np.abs(np.log1p(first.astype(np.float64)) - np.log1p(second.astype(np.float64))).max()
            > TOLERANCE
        ],
        np.intp,
    )


def _exact(
    model: Generator | Readout, conditions: NDArray[np.float32], noise: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Returns what the model gives in float64, (B, *)."""
    with torch.no_grad():
        double = copy.deepcopy(model).double()
        return np.asarray(
            double(torch.from_numpy(conditions).double(), torch.from_numpy(noise).double()).numpy()
        )


def _save(graphs: Mapping[str, Any], folder: Path) -> None:
    onnx = require("onnx", "export")
    for name, graph in graphs.items():
        onnx.save(graph, folder / name)


def _other_tokens(
    model: Generator | Readout,
    session: Session | TokenSession,
    conditions: NDArray[np.float32],
    noise: NDArray[np.float32],
) -> NDArray[np.bool_] | None:
    """Tells of which events PyTorch and the graphs draw different tokens or sums, (B,); None where there are none."""
    if not (isinstance(model, DrawsTokens) and isinstance(session, TokenSession)):
        return None
    inputs = torch.from_numpy(conditions), torch.from_numpy(noise)
    with torch.no_grad():
        reference = model.tokens(*inputs).numpy()
        sums = model.given(inputs[0], inputs[1][:, -2])[2:]
    other = (reference != session.tokens(conditions, noise)).any(1)
    for wanted, got in zip(sums, session.given(conditions, noise)[2:], strict=True):
        other |= wanted.numpy() != got
    return np.asarray(other)


def disagreement(
    wanted: NDArray[np.generic],
    got: NDArray[np.generic],
    model: Generator | Readout,
    tokens: NDArray[np.bool_] | None = None,
) -> tuple[float, int]:
    """Compares unrounded outputs.

    Args:
        wanted: of PyTorch, (B, *).
        got: of ONNX Runtime, (B, *).
        model: what they come from.
        tokens: events of which another token was drawn, (B,).

    Returns:
        the largest difference of ln(1 + count), infinite where a value is not finite; and the number of events
        left out of it because a channel sum that is drawn as a whole number came out as another one, a voxel
        that holds energy came out empty or was drawn from another density, or another token was drawn.
    """
    first, second = wanted.astype(np.float64), got.astype(np.float64)
    if first.shape != second.shape or not (np.isfinite(first).all() and np.isfinite(second).all()):
        return float("inf"), 0
    flipped = np.zeros(len(first), np.bool_) if tokens is None else tokens.copy()
    if isinstance(model, Generator):
        detector = model.detector
        sums = [detector.readout(values, next(iter(detector.channels))) for values in (first, second)]
        # only where every sum of every event is whole, to float32, are sums drawn as whole numbers
        if all((np.abs(values - np.rint(values)) <= 1e-6 * values + 1e-3).all() for values in sums):
            flipped = (np.rint(sums[0]) != np.rint(sums[1])).any(1)
        if not detector.counts:
            other = (first > 0) != (second > 0)
            other |= np.abs(np.log1p(first) - np.log1p(second)) > ANOTHER
            flipped |= other.reshape(len(first), -1).any(1)
    same = ~flipped
    difference = np.abs(np.log1p(first[same]) - np.log1p(second[same]))
    return float(difference.max(initial=0.0)), int(np.count_nonzero(flipped))


def _conditions(
    particles: Primaries, batch: int, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Returns conditions of real particles, and of others with every feature up to a tenth off, (batch, F)."""
    x = particles.conditions
    real = x[np.linspace(0, len(x) - 1, batch).astype(np.intp)]
    random = x[rng.integers(0, len(x), batch)] * rng.uniform(0.9, 1.1, (batch, x.shape[1]))
    return np.ascontiguousarray(real), random.astype(np.float32)
