"""Scores of a run or of generated events against GEANT, on rows the model was not trained on."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from caloforge.events import EventSource, Primaries, Selected, Split, of_particles, split
from caloforge.io import create, open_events, provenance
from caloforge.io.files import sha256
from caloforge.io.run import Run
from caloforge.metrics import Observables, observe, score
from caloforge.metrics.scores import align
from caloforge.models.base import Generator, Readout, as_function
from caloforge.runtime.generate import Forward, Generated, generate, generate_rows
from caloforge.training.checkpoint import load_model

FORMAT = 1

Reporter = Callable[[str, int, int], None]
"""Called with what is done, how much of it, out of how much."""


def silent(what: str, done: int, total: int) -> None:
    """Shows nothing."""


def rows_to_score(source: EventSource, kind: Split, seed: int, particles: Sequence[str] = ()) -> Selected:
    """Returns the rows of a source that are in the test part of a run's split.

    Raises:
        ValueError: there are none.
    """
    wanted = of_particles(source, particles)
    rows = split(wanted, kind, seed)["test"]
    if len(rows) == 0:
        raise ValueError(
            f"the reference has {len(wanted)} events, none of them in the test part of the {kind} split"
        )
    return Selected(wanted, rows)


class _Timed:
    """Counts the time a generator takes, without the noise and the files around it."""

    def __init__(self, forward: Forward) -> None:
        self._forward = forward
        self.seconds = 0.0

    def __call__(self, conditions: NDArray[np.float32], noise: NDArray[np.float32]) -> NDArray[np.float32]:
        started = time.perf_counter()
        result = self._forward(conditions, noise)
        self.seconds += time.perf_counter() - started
        return result


def evaluate_run(
    path: Path,
    references: Sequence[Path],
    *,
    repeats: int = 5,
    seed: int = 0,
    batch_size: int = 256,
    device: str = "cpu",
    settings: Sequence[str] = (),
    sweep: tuple[str, Sequence[str]] | None = None,
    report: Reporter = silent,
) -> dict[str, Any]:
    """Generates the test part of each reference several times and scores it.

    The events of the first repeat are kept in the run folder. The split is the run's own, so that rows it was
    trained on cannot be scored.

    Args:
        path: the run folder.
        references: events files.
        repeats: how often each event is generated, with seeds seed, seed + 1, ...
        seed: the first seed.
        batch_size: events at once.
        device: PyTorch device.
        settings: changes of the model section that keep the weights, such as "solver.steps=4".
        sweep: a setting's path and the values it takes in turn; a value's scores are of as many repeats.
        report: shows the progress.

    Returns:
        what scores.json holds.

    Raises:
        ValueError: not a finished run, a reference of another detector or without test rows.
    """
    run = Run(path)
    card = run.card()
    recipe, model = load_model(path, settings)
    detector = model.detector
    tests: dict[str, tuple[Path, Selected]] = {}
    for reference in references:
        source = open_events(reference, detector)
        test = rows_to_score(source, recipe.data.split, recipe.seed, recipe.data.particles)
        if reference.stem in tests:
            raise ValueError(
                f"two references are called {reference.stem!r}: rename one, since scores are kept by name"
            )
        tests[reference.stem] = (reference, test)
    observed = {stem: observe(test, card["channels"]) for stem, (_, test) in tests.items()}

    scores: dict[str, Any] = {
        "format": FORMAT,
        **{key: card[key] for key in ("name", "type", "kind", "detector", "channels", "split", "parameters")},
        "part": "test",
        "seed": seed,
        "repeats": repeats,
        "settings": dict(setting.split("=", 1) for setting in settings),
        "sets": {},
        "sweep": [],
    }

    def sets_of(model: Generator | Readout, keep: bool, label: str) -> tuple[dict[str, Any], dict[str, Any]]:
        model.to(device)
        sets, times = {}, []
        for stem, (reference, test) in tests.items():
            generated = []
            for repeat in range(repeats):
                timed = _Timed(as_function(model))
                kept = run.generated(stem) if keep and repeat == 0 and isinstance(model, Generator) else None
                generated.append(
                    _observables(
                        timed,
                        model,
                        test.primaries,
                        seed + repeat,
                        batch_size,
                        card["channels"],
                        kept,
                        {
                            "run": card["name"],
                            "seed": seed,
                            "split": recipe.data.split,
                            "split_seed": recipe.seed,
                            "part": "test",
                        },
                    )
                )
                times.append(1e3 * timed.seconds / (-(-len(test) // batch_size) * batch_size))
                report(f"{label}{stem}", repeat + 1, repeats)
            sets[stem] = {
                "reference": {
                    "path": str(reference.resolve()),
                    "sha256": sha256(reference),
                    "rows": len(test),
                },
                "generated": f"generated/{stem}.h5" if keep and isinstance(model, Generator) else None,
                "groups": score(observed[stem], generated, seed=seed),
            }
        timing = {
            "ms_per_event": {
                "min": float(np.min(times)),
                "median": float(np.median(times)),
                "max": float(np.max(times)),
            },
            "batch_size": batch_size,
            "threads": torch.get_num_threads(),
            "device": device if device == "cpu" else torch.cuda.get_device_name(device),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        }
        return sets, timing

    scores["sets"], scores["timing"] = sets_of(model, True, "")
    if sweep is not None:
        name, values = sweep
        for value in values:
            _, changed = load_model(path, [*settings, f"{name}={value}"])
            sets, timing = sets_of(changed, False, f"{name}={value} ")
            scores["sweep"].append(
                {
                    "path": name,
                    "value": _number(value),
                    "ms_per_event": timing["ms_per_event"],
                    "sets": {
                        stem: {k: v for k, v in entry.items() if k != "generated"}
                        for stem, entry in sets.items()
                    },
                }
            )
    return scores


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _observables(
    forward: Forward,
    model: Generator | Readout,
    primaries: Primaries,
    seed: int,
    batch_size: int,
    channels: str,
    kept: Path | None,
    origin: dict[str, Any],
) -> Observables:
    if isinstance(model, Readout):
        sums = generate_rows(forward, model.noise_dim, primaries.conditions, seed, batch_size=batch_size)
        return Observables(primaries, sums.astype(np.float64))
    source = Generated(forward, model.noise_dim, primaries, seed, batch_size=batch_size)
    if kept is None:
        return observe(source, channels)
    kept.parent.mkdir(exist_ok=True)
    with create(kept, primaries.detector, origin) as writer:
        generate(source, writer)
    return observe(open_events(kept, primaries.detector), channels)


def evaluate_events(
    path: Path, references: Sequence[Path], *, channels: str = "paper", report: Reporter = silent
) -> dict[str, Any]:
    """Scores a file of generated events against the reference it was generated for, row by row.

    A file that `caloforge sample` wrote names the split of its model, and only the test rows are scored. A file
    without provenance is scored on all rows, and the scores say that its split is unknown.

    Args:
        path: generated events, one for each row of the reference, in its order.
        references: one events file.
        channels: name of the channel map.
        report: shows the progress.

    Returns:
        what scores.json holds.

    Raises:
        ValueError: rows that do not belong to each other, or more than one reference.
    """
    if len(references) != 1:
        raise ValueError(f"an events file is scored against one reference, got {len(references)}")
    (reference,) = references
    source = open_events(reference)
    generated = open_events(path, source.primaries.detector)
    origin = provenance(path)
    kind = origin.get("split", "unknown")
    if origin.get("part") == "test":
        source = rows_to_score(source, cast(Split, kind), origin["split_seed"], origin.get("particles", ()))
    align(source.primaries, generated.primaries)
    if kind != "unknown" and origin.get("part") != "test":
        rows = rows_to_score(source, cast(Split, kind), origin["split_seed"]).rows
        source, generated = Selected(source, rows), Selected(generated, rows)
    report(path.name, 0, 1)
    groups = score(observe(source, channels), [observe(generated, channels)])
    report(path.name, 1, 1)
    return {
        "format": FORMAT,
        "name": origin.get("run", path.stem),
        "type": "events",
        "kind": "generator",
        "detector": source.primaries.detector.name,
        "channels": channels,
        "split": kind,
        "part": "all" if kind == "unknown" else "test",
        "seed": origin.get("seed"),
        "repeats": 1,
        "settings": {},
        "parameters": None,
        "sets": {
            reference.stem: {
                "reference": {
                    "path": str(reference.resolve()),
                    "sha256": sha256(reference),
                    "rows": len(source),
                },
                "generated": None,
                "groups": groups,
            }
        },
        "timing": None,
        "sweep": [],
    }
