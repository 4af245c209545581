"""The sections of a report about showers of voxels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.detectors import Detector
from caloforge.events import EventSource
from caloforge.metrics import showers as challenge
from caloforge.metrics.showers import Showers, cut, directions, observe_showers, wide_layers
from caloforge.metrics.weights import effective_size, select
from caloforge.report import figures, histograms
from caloforge.report.document import Block, Figure, Grid, Image, Section, missing, note
from caloforge.report.histograms import Bins, Points, mean_of, points_with_replicas
from caloforge.report.pages.events import weighted
from caloforge.report.pages.uncertainty import hatched, uncertainty
from caloforge.report.runs import Comparison, Run

ENERGY_BINS = 8
"""Bins of the incident energy in which response and resolution are shown."""

BAND_ROWS = 50
"""Showers of every set that a band of the energy needs to be drawn."""

SHOWN = 3
"""Showers in the displays."""

MAPS = 5
"""Layers in the maps of a shower."""

_FEW = challenge.Sizes(prdc_rows=1)

Observed = list[tuple[Run, Showers, list[Showers]]]
"""Runs, their showers, and those of their replicas."""


def observed(part: Comparison) -> tuple[Showers, Observed]:
    """Reads the showers of the reference and of every model that kept some."""
    reference = observe_showers(part.reference, sizes=_FEW)

    def seen(source: EventSource) -> Showers:
        return observe_showers(source, reference.edges, _FEW)

    return reference, [
        (run, seen(source), [seen(replica) for replica in part.replicas_of(run)])
        for run, source in part.shown
    ]


def sections(part: Comparison) -> list[tuple[str, list[Block]]]:
    """Returns short titles and contents of the sections of one set."""
    if not part.shown:
        return [("distributions", [missing("No generated showers were kept, so there are none to show.")])]
    reference, models = observed(part)
    return [
        ("distributions", _distributions(part, reference, models)),
        ("layers", [Grid(tuple(_profiles(reference, models)))]),
        ("response", _response(reference, models)),
        ("energy bands", _bands(reference, models)),
        *([("uncertainty", blocks)] if (blocks := uncertainty(part)) else []),
        ("showers", _displays(part)),
        ("classifiers", _weights(part)),
    ]


def _compare(
    reference: Showers,
    models: Observed,
    of: Callable[[Showers], NDArray[np.float64]],
    edges: NDArray[np.float64],
    title: str,
    label: str,
    **options: Any,
) -> Figure:
    """Draws the histogram of one number a shower, models scaled to as many showers as the reference has."""
    bins = histograms.fill(of(reference), edges, reference.weights)

    def filled(showers: Showers) -> Bins:
        entries = histograms.fill(of(showers), edges, showers.weights)
        return histograms.scaled(entries, len(reference) / len(showers))

    others = [
        (run.look, histograms.with_replicas(filled(showers), [filled(replica) for replica in replicas]))
        for run, showers, replicas in models
    ]
    drawn = figures.compare(bins, others, label, "showers / bin", **options)
    beyond = [
        f"{run.name} {count:,}"
        for run, showers, _ in models
        if (count := histograms.outside(of(showers), edges))
    ]
    caption = f"Outside the axis: {', '.join(beyond)}." if beyond else ""
    return _half(drawn, f"{title}, with ratios", title, caption)


def _half(drawn: bytes, alt: str, title: str, caption: str = "") -> Figure:
    return Figure((Image(drawn, alt),), title, caption, half=True)


def _distributions(part: Comparison, reference: Showers, models: Observed) -> list[Block]:
    ratio_low, ratio_high = np.quantile(reference.ratio, [0.001, 0.999])
    margin = 0.3 * (ratio_high - ratio_low)
    brightest = int(np.argmax(reference.layers.mean(0)))
    numbers = [layer.number for layer in reference.primaries.detector.layers]
    wide = wide_layers(reference.primaries.detector)
    low, unit = reference.primaries.detector.threshold, reference.primaries.detector.unit
    blocks = [
        _compare(
            reference, models, lambda one: one.ratio,
            np.linspace(max(ratio_low - margin, 0), ratio_high + margin, 51), "Response", "E_tot / E_inc",
        ),
        _spectrum(reference, models),
    ]  # fmt: skip
    for k in sorted({0, brightest, min(2 * brightest, len(numbers) - 1), len(numbers) - 1}):
        top = float(reference.layers[:, k].max())
        if top > low:
            blocks.append(
                _compare(
                    reference, models, lambda one, k=k: one.layers[:, k],  # type: ignore[misc]
                    np.geomspace(low, top, 31), f"Energy of layer {numbers[k]}", f"E_{numbers[k]} [{unit}]",
                    x="log",
                )
            )  # fmt: skip
    if brightest in wide:
        c = brightest
        number = numbers[brightest]
        for z, name in enumerate(("eta", "phi", "r")):
            for what in ("centres", "widths"):
                values = getattr(reference, what)[:, c, z]
                blocks.append(
                    _compare(
                        reference, models,
                        lambda one, what=what, c=c, z=z: getattr(one, what)[:, c, z],  # type: ignore[misc]
                        _edges(values), f"{what[:-1].capitalize()} in {name}, layer {number}",
                        f"{what[:-1]} {name} [mm]",
                    )
                )  # fmt: skip
    blocks.append(
        _compare(
            reference, models, lambda one, k=brightest: one.sparsity[:, k],  # type: ignore[misc]
            np.linspace(0, 1, 21), f"Sparsity of layer {numbers[brightest]}", "share of empty voxels",
        )
    )  # fmt: skip
    rings = reference.depth.shape[1]
    for k in sorted({0, rings // 2, rings - 1}) if rings else ():
        blocks.append(
            _compare(
                reference, models, lambda one, k=k: one.depth[:, k],  # type: ignore[misc]
                _edges(reference.depth[:, k]), f"Mean depth of ring {k}", "layer",
            )
        )  # fmt: skip
    about = (
        "Model over GEANT below each histogram; bands are statistical. Voxels below the threshold are empty in all "
        "sets; models are scaled to as many showers as GEANT has. The layer of the centres and widths is the brightest."
    )
    told = weighted([(run.name, showers.weights) for run, showers, _ in models])
    return [*told, note(about, *hatched(part)), Grid(tuple(blocks))]


def _edges(values: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = np.quantile(values, [0.005, 0.995])
    return np.linspace(low, high if high > low else low + 1, 41)


def _spectrum(reference: Showers, models: Observed) -> Figure:
    unit = reference.primaries.detector.unit

    def bins(showers: Showers) -> Bins:
        counts, weight = showers.spectrum.astype(np.float64), showers.weights
        sums = (
            (counts.sum(0), (counts**2).sum(0))
            if weight is None
            else (weight @ counts, weight**2 @ counts**2)
        )
        return histograms.scaled(Bins(showers.edges, *sums), len(reference) / len(showers))

    others = [
        (run.look, histograms.with_replicas(bins(showers), [bins(replica) for replica in replicas]))
        for run, showers, replicas in models
    ]
    drawn = figures.compare(bins(reference), others, f"voxel [{unit}]", "voxels / bin", x="log", y="log")
    return _half(drawn, "Voxel spectrum, with ratios", "Voxel energies")


def _profiles(reference: Showers, models: Observed) -> list[Figure]:
    detector = reference.primaries.detector
    edges = np.arange(len(detector.layers) + 1) - 0.5
    wide = np.arange(len(wide_layers(detector)) + 1) - 0.5
    incident = "E_l / E_inc"
    quantities: list[tuple[str, str, Callable[[Showers], NDArray[np.float64]], Any, Any]] = [
        (
            "Longitudinal profile",
            incident,
            lambda showers: showers.layers / showers.incident[:, None],
            edges,
            "log",
        ),
        ("Sparsity", "share of empty voxels", lambda showers: showers.sparsity, edges, "linear"),
    ]
    if len(wide) > 1:
        quantities += [
            (
                "Width in eta",
                "width [mm]",
                lambda showers: showers.widths[:, wide_layers(detector), 0],
                wide,
                "linear",
            ),
            ("Mean radius", "centre r [mm]", lambda showers: showers.centres[:, :, 2], edges, "linear"),
        ]
    if len(wide) > 1 and directions(reference.primaries).shape[1]:
        quantities.append(("Centre along the direction", "centre [mm]", along_direction, wide, "linear"))
    blocks = []
    for title, label, of, borders, scale in quantities:

        def points(showers: Showers, of: Callable[[Showers], NDArray[np.float64]] = of) -> Points:
            return mean_of(of(showers), showers.weights)

        drawn = figures.profile(
            borders,
            points(reference),
            [
                (run.look, points_with_replicas(points(showers), [points(replica) for replica in replicas]))
                for run, showers, replicas in models
            ],
            "layer",
            label,
            y=scale,
        )
        blocks.append(_half(drawn, f"{title} by layer", title, "Mean by layer."))
    return blocks


def along_direction(showers: Showers) -> NDArray[np.float64]:
    """Returns the centre of each layer with angles along the particle's azimuth [mm], (N, W): about z tan(theta)."""
    across = directions(showers.primaries)
    across /= np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-12)
    centres = showers.centres[:, wide_layers(showers.primaries.detector), :2]
    return np.asarray((centres * across[:, None]).sum(2))


def bands(incident: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the edges of bands of the incident energy, (B + 1,): decades, or thirds of a factor of 10 or less."""
    low, high = float(incident.min()), float(incident.max()) * (1 + 1e-9)
    if high > 10 * low * (1 + 1e-6):
        first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-6)
        return np.asarray(10.0 ** np.arange(first, last + 1))
    return np.geomspace(low, high, 4) if high > low * 1.01 else np.array([low, high])


def _bands(reference: Showers, models: Observed) -> list[Block]:
    """Shows spectrum, profiles, centre, width and sparsity of the brightest layer in bands of the energy."""
    scale, unit = _energy_unit(reference.primaries.detector)
    edges = bands(reference.incident)
    blocks: list[Block] = []
    for low, high in pairwise(edges):
        name = f"{low * scale:.3g} to {high * scale:.3g} {unit}"
        chosen = [
            np.flatnonzero((showers.incident >= low) & (showers.incident < high))
            for showers in (reference, *(showers for _, showers, _ in models))
        ]
        rows, *others = chosen
        if min(map(len, chosen)) < BAND_ROWS:
            blocks.append(missing(f"{name}: fewer than {BAND_ROWS} showers in some set."))
            continue
        ours = reference.select(rows)
        # replicas answered the same energies
        theirs = [
            (run, showers.select(part), [replica.select(part) for replica in replicas])
            for (run, showers, replicas), part in zip(models, others, strict=True)
        ]
        drawn = (_spectrum(ours, theirs), *_profiles(ours, theirs), *_brightest(ours, theirs))
        blocks.append(
            Section(f"E_inc {name}", (note(f"{len(rows):,} showers of GEANT."), Grid(drawn)), listed=False)
        )
    return blocks


def _brightest(reference: Showers, models: Observed) -> list[Block]:
    """Draws the sparsity of the layer with most energy, and its centre and width in eta where it has some."""
    place = int(np.argmax(reference.layers.mean(0)))
    layer = reference.primaries.detector.layers[place]
    drawn: list[Block] = [
        _compare(
            reference, models, lambda one: one.sparsity[:, place],
            np.linspace(0, 1, 21), f"Sparsity of layer {layer.number}", "share of empty voxels",
        )
    ]  # fmt: skip
    for what in ("centres", "widths") if layer.angles > 1 else ():
        drawn.append(
            _compare(
                reference, models, lambda one, what=what: getattr(one, what)[:, place, 0],  # type: ignore[misc]
                _edges(getattr(reference, what)[:, place, 0]),
                f"{what[:-1].capitalize()} in eta, layer {layer.number}", f"{what[:-1]} eta [mm]",
            )
        )  # fmt: skip
    return drawn


def _response(reference: Showers, models: Observed) -> list[Block]:
    """Shows the mean and the relative spread of E_tot / E_inc in bins of the energy."""
    incident = reference.incident
    scale, unit = _energy_unit(reference.primaries.detector)
    edges = np.geomspace(incident.min(), incident.max() * (1 + 1e-9), ENERGY_BINS + 1)
    if np.unique(incident).size < 2 or any(
        np.histogram(showers.incident, edges)[0].min() < 5
        for showers in (reference, *(showers for _, showers, _ in models))
    ):
        return [missing("Too few showers in some bin of the energy: no response against energy.")]

    def of(showers: Showers, spread: bool) -> Points:
        place = np.digitize(showers.incident, edges[1:-1])
        rows = [np.flatnonzero(place == k) for k in range(ENERGY_BINS)]
        parts = [mean_of(showers.ratio[part, None], select(showers.weights, part)) for part in rows]
        mean, error = (np.array([getattr(part, name)[0] for part in parts]) for name in ("mean", "error"))
        count = np.array(
            [
                len(part) if (weight := select(showers.weights, part)) is None else effective_size(weight)
                for part in rows
            ]
        )
        std = error * np.sqrt(count)
        if spread:
            return Points(std / mean, std / mean / np.sqrt(2 * count))
        return Points(mean, error)

    blocks = []
    for spread, title, label in (
        (False, "Linearity", "mean E_tot / E_inc"),
        (True, "Resolution", "std / mean"),
    ):
        drawn = figures.profile(
            edges * scale,
            of(reference, spread),
            [
                (
                    run.look,
                    points_with_replicas(of(showers, spread), [of(replica, spread) for replica in replicas]),
                )
                for run, showers, replicas in models
            ],
            f"E_inc [{unit}]",
            label,
            x="log",
            window=(0.5, 1.5) if spread else (0.95, 1.05),
        )
        blocks.append(_half(drawn, f"{title} against energy", title))
    return [Grid(tuple(blocks))]


def _energy_unit(detector: Detector) -> tuple[float, str]:
    """Returns the unit in which incident energies are shown, and what they are multiplied by."""
    unit = next(feature.unit for feature in detector.conditions if feature.name == "incident_energy")
    return (1e-3, "GeV") if unit == "MeV" else (1.0, unit)


def _displays(part: Comparison) -> list[Block]:
    """Shows single showers: the reference's at some energies, and each model's of the nearest energy."""
    detector = part.detector
    energy = part.reference.primaries.feature("incident_energy")
    scale, unit = _energy_unit(detector)
    order = np.argsort(energy, kind="stable")
    blocks = []
    for share in np.linspace(0.15, 0.95, SHOWN):
        row = int(order[int(share * (len(order) - 1))])
        showers = [("GEANT", _voxels(part.reference, row))]
        for run, source in part.shown:
            others = source.primaries.feature("incident_energy")
            # row by row where the model answered the reference's own energies
            same = len(others) == len(energy) and others[row] == energy[row]
            nearest = row if same else int(np.argmin(np.abs(np.log(others / energy[row]))))
            showers.append((run.name, _voxels(source, nearest)))
        layers = layer_numbers(detector, showers[0][1])
        name = f"E_inc {energy[row] * scale:.3g} {unit}"
        space = Image(figures.displays(detector, showers), f"Showers in space, {name}", 11.0 * len(showers))
        maps = Image(figures.layer_maps(detector, showers, layers), f"Layers of showers, {name}", 30.0)
        about = "Above: voxels in space. Below: layers, seen along the axis."
        blocks.append(Figure((space, maps), name, about))
    about = "Showers were chosen by energy alone; models show that of the same, or the nearest, energy."
    return [note(about), *blocks]


def layer_numbers(detector: Detector, shower: NDArray[np.float64], count: int = MAPS) -> list[int]:
    """Chooses layers to show by the places where the mean of showers, (cells,), has given 2, 25, 50, 75 and 95 %."""
    sizes = [layer.cells for layer in detector.layers]
    energies = np.array([part.sum() for part in np.split(shower, np.cumsum(sizes)[:-1])])
    share_before = np.cumsum(energies) / max(energies.sum(), 1e-12)
    numbers = [int(np.searchsorted(share_before, share)) for share in np.linspace(0.02, 0.95, count)]
    return list(dict.fromkeys(min(number, len(sizes) - 1) for number in numbers))


def _voxels(source: Any, row: int) -> NDArray[np.float64]:
    events = source.slices(np.array([row]))
    return np.asarray(cut(events.detector, events.responses)[0])


def _weights(part: Comparison) -> list[Block]:
    blocks: list[Block] = []
    for run in part.runs:
        for view, weights in run.scores.sets[part.stem].all.weights.items():
            label = "w = C / (1 - C), about p_truth / p_generated"
            drawn = figures.classifier_weights(weights, run.look, label)
            title = f"{run.name}, classifier {view}"
            blocks.append(_half(drawn, f"Weights: {title}", title))
    if not blocks:
        return [missing("No classifiers were trained: caloforge evaluate --classifiers small does.")]
    about = (
        "Test showers of all seeds, after calibration, which is by steps. A tail of generated showers on the left: "
        "showers that GEANT does not make; of true ones on the right: showers that the model misses."
    )
    return [note(about), Grid(tuple(blocks))]


def runs_with_showers(runs: Sequence[Run]) -> bool:
    """Says whether any of the runs gives whole showers and not layer sums alone."""
    return any(run.scores.kind != "readout" for run in runs)
