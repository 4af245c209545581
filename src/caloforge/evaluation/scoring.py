"""Scores of a run or of generated events against GEANT, on rows the model was not trained on."""

from __future__ import annotations

import math
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from caloforge.detectors import Detector
from caloforge.evaluation.classifier import ClassifierConfig, classifier_scores, views_of
from caloforge.events import EventSource, Joined, Selected, as_counts, judged, of_particles, with_responses
from caloforge.io import create, negative_cells, open_events, open_to_judge, provenance
from caloforge.io.content import check_other_content, content_hash, contents_of
from caloforge.io.files import sha256
from caloforge.io.run import Run
from caloforge.io.scores import Scores, SweepPoint
from caloforge.io.stored import stored
from caloforge.io.typed import checked
from caloforge.metrics import Observables, align, observe, observe_showers, score, score_showers, wasserstein
from caloforge.metrics.showers import Showers, Sizes, Smeared
from caloforge.models.base import Generator, Readout, TakesPhotons
from caloforge.models.parts.images import channel_sums
from caloforge.models.parts.inference import as_function, given_photons
from caloforge.recipe import Recipe
from caloforge.runtime.generate import Forward, Generated, generate, generate_rows
from caloforge.training.checkpoint import load_model

Reporter = Callable[[str, int, int], None]
"""Called with what is done, how much of it, out of how much."""


def silent(what: str, done: int, total: int) -> None:
    """Shows nothing."""


def origin_of(recipe: Recipe) -> dict[str, Any]:
    """Returns what a file of generated events says of the model it came from: enough to find its test rows."""
    return {
        "run": recipe.name,
        "split": recipe.data.split,
        "split_seed": recipe.seed,
        "particles": list(recipe.data.particles),
    }


def rows_to_score(source: EventSource, origin: dict[str, Any]) -> Selected:
    """Returns the rows of a source that are in the test part of a model's split: of the split `files` all.

    Args:
        source: reference events.
        origin: as `origin_of` gives it.

    Raises:
        ValueError: there are none.
    """
    chosen = of_particles(source, origin["particles"])
    rows = judged(chosen, origin["split"], origin["split_seed"])
    if len(rows) == 0:
        raise ValueError(
            f"the reference has {len(chosen)} events, none of them in the test part of the {origin['split']} split"
        )
    return Selected(source, chosen.rows[rows] if isinstance(chosen, Selected) else rows)


@dataclass
class _Timed:
    """A generator that counts the time it takes, without the noise and the files around it.

    On the CPU it is processor time, of all threads together: other programs hardly change it.
    """

    forward: Forward
    device: str = "cpu"
    milliseconds: list[float] = field(default_factory=list)

    def __call__(self, conditions: NDArray[np.float32], noise: NDArray[np.float32]) -> NDArray[np.float32]:
        clock = time.process_time if self.device == "cpu" else time.perf_counter
        started = clock()
        result = self.forward(conditions, noise)
        self.milliseconds.append(1e3 * (clock() - started) / len(conditions))
        return result

    def summary(self) -> dict[str, float]:
        return spread(self.milliseconds)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Returns the smallest, the median and the greatest of some times."""
    return {name: float(getattr(np, name)(values)) for name in ("min", "median", "max")}


def place(device: str) -> dict[str, Any]:
    """Returns where times on a PyTorch device are taken, as scores.json says it."""
    return {
        "threads": torch.get_num_threads(),
        "device": device if device == "cpu" else torch.cuda.get_device_name(device),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }


_Levels: TypeAlias = "Mapping[str, Mapping[str, Any]]"
"""`floor` and `control` of each metric, as scores.json has them."""


class _Images:
    """Judges channel sums and images of two axes.

    Args:
        test: the rows of the reference.
        channels: name of the channel map.
        seed: of the splits behind the floors.
    """

    def __init__(self, test: EventSource, channels: str, seed: int) -> None:
        self._channels, self._seed = channels, seed
        self._reference = observe(test, channels)

    def observe(self, source: EventSource) -> Observables:
        """Reads what the metrics need."""
        return observe(source, self._channels)

    def score(
        self, generated: Sequence[Any], report: Callable[[str], None], known: _Levels | None = None
    ) -> dict[str, Any]:
        """Returns the groups of scores.json; floors take no time and are computed whatever is known."""
        return score(self._reference, generated, seed=self._seed)


class _Voxels:
    """Judges showers of a detector with layers.

    Args:
        test: the rows of the reference.
        seed: of splits and draws.
        sizes: of the metrics that take long.
    """

    def __init__(self, test: EventSource, seed: int, sizes: Sizes | None) -> None:
        self._seed, self._sizes = seed, sizes
        self._reference = observe_showers(test, None, sizes, seed)
        self._control = self.observe(Smeared(test, seed=seed))

    def observe(self, source: EventSource) -> Showers:
        """Reads what the metrics need."""
        return observe_showers(source, self._reference.edges, self._sizes, self._seed)

    def score(
        self, generated: Sequence[Any], report: Callable[[str], None], known: _Levels | None = None
    ) -> dict[str, Any]:
        """Returns the groups of scores.json, with the floors and controls that are known."""
        groups = score_showers(
            self._reference, generated, self._control, self._seed, self._sizes, report, known
        )
        apart = wasserstein(*(np.log10(showers.incident) for showers in (self._reference, generated[0])))
        if apart > ENERGIES_APART + 1 / math.sqrt(min(len(self._reference), len(generated[0]))):
            note = "the incident energies of the two sets differ, and with them everything else"
            groups["all"]["note"] = "; ".join(filter(None, [groups["all"]["note"], note]))
        return groups


ENERGIES_APART = 0.05
"""W1 of log10 E_inc of two sets of N showers beyond 1 / sqrt N, from which scores say that their energies differ."""


def _judge(
    test: EventSource, channels: str, seed: int, sizes: Sizes | None, sums_only: bool = False
) -> _Images | _Voxels:
    layers = test.primaries.detector.layers
    return _Voxels(test, seed, sizes) if layers and not sums_only else _Images(test, channels, seed)


_Test: TypeAlias = "tuple[Mapping[Path, EventSource], EventSource, _Images | _Voxels]"


@dataclass(frozen=True)
class _Task:
    """What every repeat of every setting shares.

    Attributes:
        tests: for each reference its files, its test rows and what judges them.
        repeats: how often each event is generated.
        seed: the first seed.
        batch_size: events at once.
        device: PyTorch device.
        true_sums: the generator is given the sum of each response of the reference.
        known: for each reference floors and controls that were computed before.
    """

    tests: dict[str, _Test]
    repeats: int
    seed: int
    batch_size: int
    device: str
    true_sums: bool = False
    known: Mapping[str, _Levels] = field(default_factory=dict)

    def sets(
        self, model: Generator | Readout, label: str, report: Reporter, keep: Callable[[str], Path | None]
    ) -> tuple[dict[str, Any], dict[str, float]]:
        """Generates and scores every reference; returns the sets of scores.json and ms an event."""
        model.to(self.device)
        function = given_photons(model) if self.true_sums and isinstance(model, TakesPhotons) else None
        forward = _Timed(function or as_function(model), self.device)
        sets = {}
        for stem, (files, test, judge) in self.tests.items():
            generated = []
            for repeat in range(self.repeats):
                target = keep(stem) if repeat == 0 else None
                generated.append(self._generate(model, forward, test, self.seed + repeat, target, judge))
                report(f"{label}{stem}", repeat + 1, self.repeats)
            groups = judge.score(generated, lambda what: report(what, 0, 1), self.known.get(stem))
            _say_negative(groups, {path.name: file for path, file in files.items()})
            sets[stem] = _entry(files, test, groups)
        return sets, forward.summary()

    def _generate(
        self,
        model: Generator | Readout,
        forward: Forward,
        test: EventSource,
        seed: int,
        kept: Path | None,
        judge: _Images | _Voxels,
    ) -> Observables | Showers:
        primaries = test.primaries
        if isinstance(model, Readout):
            sums = generate_rows(
                forward, model.noise_dim, primaries.conditions, seed, batch_size=self.batch_size
            )
            return Observables(primaries, sums.astype(np.float64))
        if self.true_sums:
            sums = channel_sums(test, primaries.detector.default_channels).sum(1, keepdims=True)
            both = np.concatenate([primaries.conditions, sums.astype(np.float32)], 1)
            rows = generate_rows(forward, model.noise_dim, both, seed, batch_size=self.batch_size)
            return judge.observe(with_responses(primaries, as_counts(rows)))
        source = Generated(forward, model.noise_dim, primaries, seed, batch_size=self.batch_size)
        if kept is None:
            return judge.observe(source)
        kept.parent.mkdir(exist_ok=True)
        with create(kept, primaries.detector, {"seed": seed, "part": "test"}) as writer:
            generate(source, writer)
        return judge.observe(open_events(kept, primaries.detector))


def _entry(files: Iterable[Path], test: EventSource, groups: dict[str, Any]) -> dict[str, Any]:
    """Starts an entry of the sets of scores.json; further files of one reference are listed behind its first."""
    first, *others = ({"path": str(path.resolve()), "sha256": sha256(path)} for path in files)
    reference = {**first, "rows": len(test), **({"further": others} if others else {})}
    return {"reference": reference, "generated": None, "groups": groups}


def folder_of_events(scores: Path) -> Path:
    """Returns the folder beside a file of scores that keeps the events that were scored.

    Raises:
        ValueError: a folder of that name is there, and no scores beside it that it could belong to.
    """
    folder = scores.with_name(f"{scores.stem}.events")
    if folder.exists() and not scores.is_file():
        raise ValueError(
            f"{folder} is there already, and no {scores.name} that it belongs to: choose another file for the scores"
        )
    return folder


def evaluate_run(
    path: Path,
    references: Sequence[Path],
    *,
    repeats: int = 5,
    seed: int = 0,
    batch_size: int = 256,
    device: str = "cpu",
    settings: Sequence[str] = (),
    sweeps: Sequence[Sweep] = (),
    report: Reporter = silent,
    sizes: Sizes | None = None,
    classifiers: ClassifierConfig | None = None,
    true_sums: bool = False,
    events_folder: Path | None = None,
    trust: bool = False,
    training: Sequence[Path] = (),
    replicas: int = 0,
    floors: Scores | None = None,
) -> Scores:
    """Generates the test part of each reference several times and scores it.

    The events of the first repeat are kept, in the run folder or where told. The split is the run's own, so that rows
    it was trained on cannot be scored.

    Args:
        path: the run folder.
        references: events files; those for a run of the split `files` make one set.
        repeats: how often each event is generated, with seeds seed, seed + 1, ...
        seed: the first seed.
        batch_size: events at once.
        device: PyTorch device.
        settings: changes of the model section that keep the weights, such as "solver.steps=4".
        sweeps: settings and the values each takes in turn, the others as they are, with as many repeats.
        report: shows the progress.
        sizes: of the metrics of showers that take long; those of the publications where not given.
        classifiers: also train these on the showers of the first repeat, of the sweeps too.
        true_sums: give the generator the sum of each response of the reference, as some publications do, which
            judges the placing of the photons alone; no events are kept.
        events_folder: where the events of the first repeat are kept, beside the scores; `generated` of the run folder
            where not given.
        trust: run code outside the package that the run names.
        training: files that the model was trained on, besides those that its card has: no reference may have their
            content.
        replicas: also generate and keep the events of the first repeat with the weights of replicas 1, 2, ..., this
            many, from which a report shows how sure the model is.
        floors: scores of another model with the same seed and sizes: floors and controls of showers are taken from
            these, for the references of the same content.

    Returns:
        what `scores.json` holds.

    Raises:
        ValueError: not a finished run, a reference of another detector or without test rows, or true sums for a model
            that cannot be given them.
    """
    run = Run(path)
    card = run.card()
    recipe, model = load_model(path, settings, trust=trust)
    changed = _changed(path, settings, sweeps, trust)
    if true_sums and not isinstance(model, TakesPhotons):
        raise ValueError(f"{recipe.name} cannot be given photon sums; what can are the autoregressive flows")
    with_events = isinstance(model, Generator) and not true_sums
    if replicas and not with_events:
        raise ValueError(
            f"replicas are of generated events, which are not kept of "
            f"{'true sums' if true_sums else 'a model of channel sums alone'}: {recipe.name}"
        )
    if replicas == 1:
        raise ValueError("replicas must be 2 or more, since it is how they differ that is shown, got 1")
    for number in range(1, replicas + 1):  # an error before anything is generated
        load_model(path, settings, trust=trust, replica=number)
    tests = _tests(run, model, references, seed, sizes, training, events_folder or path)
    known: Mapping[str, _Levels] = {} if floors is None else _known(floors, tests, origin_of(recipe), seed)
    task = _Task(tests, repeats, seed, batch_size, device, true_sums, known)

    folder = events_folder or run.generated("").parent

    def keep(stem: str) -> Path | None:
        return folder / f"{stem}.h5" if with_events else None

    sets, milliseconds = task.sets(model, "", report, keep)
    if with_events:
        for stem, entry in sets.items():
            entry["generated"] = f"{folder.name}/{stem}.h5"
            if classifiers is not None:
                events = _at_hand(open_events(folder / f"{stem}.h5", model.detector), folder)
                _classify(
                    entry, tests[stem][1], events, classifiers, seed, device, report, known.get(stem), folder
                )
    if replicas:
        _keep_replicas(task, path, settings, trust, replicas, sets, folder, report)
    swept = _swept(task, changed, classifiers, report)
    return checked(
        Scores,
        {
            "format": 1,
            "name": card.name + (", true sums" if true_sums else ""),
            "type": card.type,
            "kind": card.kind,
            "detector": card.detector,
            "channels": card.channels,
            "parameters": card.parameters,
            **{key: value for key, value in origin_of(recipe).items() if key != "run"},
            "part": "test",
            "seed": seed,
            "repeats": repeats,
            "settings": _as_mapping(settings) | ({"sums": "true"} if true_sums else {}),
            "sets": sets,
            "timing": {"ms_per_event": milliseconds, "batch_size": batch_size, **place(device)},
            "sweep": swept,
        },
    )


def _known(
    floors: Scores, tests: Mapping[str, _Test], origin: Mapping[str, Any], seed: int
) -> Mapping[str, _Levels]:
    """Returns floors and controls of the references of which scores with the same seed have seen the same rows."""
    known = {}
    split = {"split": floors.split, "split_seed": floors.split_seed, "particles": list(floors.particles)}
    if floors.seed != seed or any(origin[key] != value for key, value in split.items()):
        return {}
    for stem, (files, test, _) in tests.items():
        scored = floors.sets.get(stem)
        if scored is None or scored.reference.rows != len(test):
            continue
        seen = [scored.reference.sha256, *(file.sha256 for file in scored.reference.further)]
        if seen == [sha256(path) for path in files]:
            known[stem] = {
                name: score.model_dump(include={"floor", "control"})
                for name, score in scored.all.metrics.items()
            }
    return known


def _keep_replicas(
    task: _Task,
    path: Path,
    settings: Sequence[str],
    trust: bool,
    replicas: int,
    sets: dict[str, Any],
    folder: Path,
    report: Reporter,
) -> None:
    """Generates the events of the first repeat with the weights of each replica, and names their files in the sets."""
    for stem, (_, test, _) in task.tests.items():
        files = []
        for number in range(1, replicas + 1):
            _, model = load_model(path, settings, trust=trust, replica=number)
            forward = as_function(model.to(task.device))
            source = Generated(
                forward, model.noise_dim, test.primaries, task.seed, batch_size=task.batch_size
            )
            file = folder / f"{stem}.replica-{number}.h5"
            origin = {"seed": task.seed, "part": "test", "replica": number}
            with create(file, test.primaries.detector, origin) as writer:
                generate(source, writer)
            files.append(f"{folder.name}/{file.name}")
            report(f"{stem}, replicas", number, replicas)
        sets[stem]["replicas"] = files


def evaluate_sweeps(
    path: Path,
    references: Sequence[Path],
    sweeps: Sequence[Sweep],
    *,
    repeats: int = 5,
    seed: int = 0,
    batch_size: int = 256,
    device: str = "cpu",
    report: Reporter = silent,
    classifiers: ClassifierConfig | None = None,
) -> tuple[SweepPoint, ...]:
    """Scores settings of a run and not the run itself: what `scores.json` holds under `sweep`.

    Arguments and errors are those of `evaluate_run`.
    """
    changed = _changed(path, (), sweeps)
    tests = _tests(Run(path), load_model(path)[1], references, seed, None)
    swept = _swept(_Task(tests, repeats, seed, batch_size, device), changed, classifiers, report)
    return tuple(checked(SweepPoint, point) for point in swept)


def _changed(
    path: Path, settings: Sequence[str], sweeps: Sequence[Sweep], trust: bool = False
) -> list[tuple[Sweep, str, Generator | Readout]]:
    """Returns every value of the sweeps, and the model with it."""
    return [
        (
            sweep,
            value,
            load_model(path, [*settings, *sweep.settings, f"{sweep.path}={value}"], trust=trust)[1],
        )
        for sweep in sweeps
        for value in sweep.values
    ]


def _tests(
    run: Run,
    model: Generator | Readout,
    references: Sequence[Path],
    seed: int,
    sizes: Sizes | None,
    training: Sequence[Path] = (),
    folder: Path | None = None,
) -> dict[str, _Test]:
    """Returns for each reference its files, the rows a run may be scored on and what judges them."""
    card, origin = run.card(), origin_of(run.recipe())
    tests: dict[str, _Test] = {}
    for reference in references:
        if [path.stem for path in references].count(reference.stem) > 1:
            raise ValueError(
                f"two references are called {reference.stem!r}: rename one, since scores are kept by name"
            )
    files = {path: open_to_judge(path, model.detector) for path in references}
    known = {content_hash(open_to_judge(path, model.detector)): path.name for path in training}
    check_other_content(files, contents_of(card.data) | known)
    together = [list(files)] if origin["split"] == "files" else [[path] for path in files]
    for paths in together:
        source = Joined([files[path] for path in paths]) if len(paths) > 1 else files[paths[0]]
        test = _at_hand(rows_to_score(source, origin), folder)
        judge = _judge(test, card.channels, seed, sizes, isinstance(model, Readout))
        tests["+".join(path.stem for path in paths)] = ({path: files[path] for path in paths}, test, judge)
    return tests


def _at_hand(source: EventSource, folder: Path | None) -> EventSource:
    """Returns showers that will be read several times from a temporary file, if there are many."""
    return stored(source, folder) if folder and source.primaries.detector.layers else source


def _swept(
    task: _Task,
    changed: Sequence[tuple[Sweep, str, Generator | Readout]],
    classifiers: ClassifierConfig | None,
    report: Reporter,
) -> list[dict[str, Any]]:
    """Scores every setting."""
    swept = []
    for sweep, value, model in changed:
        with tempfile.TemporaryDirectory() as folder:

            def keep(stem: str, folder: str = folder) -> Path | None:
                return Path(folder) / f"{stem}.h5" if classifiers else None

            label = " ".join((*sweep.settings, f"{sweep.path}={value} "))
            sets, times = task.sets(model, label, report, keep)
            if classifiers is not None:
                for stem, entry in sets.items():
                    events = open_events(Path(folder) / f"{stem}.h5", model.detector)
                    test = task.tests[stem][1]
                    _classify(
                        entry, test, events, classifiers, task.seed, task.device, report, {}, Path(folder)
                    )
        scored = {"path": sweep.path, "value": _number(value), "settings": sweep.held}
        swept.append({**scored, "ms_per_event": times, "sets": sets})
    return swept


def _as_mapping(settings: Sequence[str]) -> dict[str, str]:
    return dict(setting.split("=", 1) for setting in settings)


def _say_negative(groups: dict[str, Any], files: Mapping[str, EventSource]) -> None:
    """Adds to the note of scores how many negative cells of files, by their names, were read as 0."""
    counts = [f"{count:,} of {name}" for name, file in files.items() if (count := negative_cells(file))]
    if counts:
        note = f"negative voxels, set to 0: {', '.join(counts)}"
        groups["all"]["note"] = "; ".join(filter(None, [groups["all"].get("note"), note]))


def _classify(
    entry: dict[str, Any],
    reference: EventSource,
    generated: EventSource,
    classifiers: ClassifierConfig,
    seed: int,
    device: str,
    report: Reporter,
    known: _Levels | None = None,
    folder: Path | None = None,
) -> None:
    """Adds what classifiers find to the scores of a set.

    They are trained on floor and control too, unless these are known, or not wanted where `known` is empty.
    """
    detector = reference.primaries.detector
    if not detector.layers:
        raise ValueError(f"classifiers are for detectors of voxels, and {detector.name} has no layers")
    floors = [(known or {}).get(f"auc_{view}", {}).get("floor") for view in views_of(classifiers, detector)]
    repeated = all(floor and floor["splits"] == classifiers.seeds for floor in floors)
    beside = known is None or (bool(known) and not repeated)
    judged_by = classifier_scores(
        reference, generated, classifiers, seed, device, lambda what: report(what, 0, 1), beside, folder
    )
    entry["groups"]["all"]["metrics"] |= {
        name: score if beside else score | (known or {}).get(name, {})
        for name, score in judged_by["metrics"].items()
    }
    entry["groups"]["all"]["weights"] = judged_by["weights"]
    entry["groups"]["all"]["note"] = "; ".join(
        filter(None, [entry["groups"]["all"]["note"], judged_by["note"]])
    )


@dataclass(frozen=True)
class Sweep:
    """Values that one setting takes in turn.

    Attributes:
        path: the setting, such as "solver.steps".
        values: what it is set to.
        settings: others that go with it all along, such as "solver.method=euler".
    """

    path: str
    values: tuple[str, ...]
    settings: tuple[str, ...] = ()

    @property
    def held(self) -> dict[str, str]:
        """The settings that go along, by their paths."""
        return _as_mapping(self.settings)


def parse_sweep(text: str) -> Sweep:
    """Reads "solver.steps=1,2,4", or "solver.method=euler solver.steps=4,8", whose last setting is swept.

    Raises:
        ValueError: no path, or an empty value.
    """
    *settings, swept = text.split() or [""]
    path, _, values = swept.partition("=")
    swept_values = Sweep(path, tuple(values.split(",")), tuple(settings))
    if (
        not path
        or not all(swept_values.values)
        or not all(all(setting.partition("=")) for setting in settings)
    ):
        raise ValueError(
            f"a sweep must read path.to.key=value,value,..., before it other settings and spaces, got {text!r}"
        )
    return swept_values


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _check_weights(files: Mapping[Path, EventSource], origin: Mapping[str, Any], path: Path) -> None:
    """Raises ValueError where weights of events were learned from every row of a file that would judge them."""
    weighed = origin.get("weighed")
    if not isinstance(weighed, dict) or weighed.get("rows") != "all":
        return
    for reference, source in files.items():
        if content_hash(source) == weighed.get("content"):
            raise ValueError(
                f"the weights of {path} were learned from the reference {reference}: judge with a file that they were "
                "not learned from"
            )


def evaluate_events(
    path: Path,
    references: Sequence[Path],
    *,
    channels: str | None = None,
    detector: Detector | None = None,
    seed: int = 0,
    sizes: Sizes | None = None,
    classifiers: ClassifierConfig | None = None,
    device: str = "cpu",
    report: Reporter = silent,
    folder: Path | None = None,
    training: Sequence[Path] = (),
) -> Scores:
    """Scores a file of generated events against a reference.

    A file that `caloforge sample` wrote names the split of its model, and only the test rows are scored. A file
    without provenance is scored on all rows, and the scores say that its split is unknown, or `files` where the files
    that its model was trained on are given. Rows must be those of the
    reference, in its order; but showers without provenance may be any number of others. Rows that have weights count by
    them (`caloforge.metrics.weights`).

    Args:
        path: generated events.
        references: one events file; several make one set, but for a file that names another split than `files`.
        channels: name of the channel map; the default one where not given.
        detector: where the files do not tell it.
        seed: of the splits behind the floors, and of draws.
        sizes: of the metrics of showers that take long; those of the publications where not given.
        classifiers: also train these.
        device: PyTorch device of the classifiers.
        report: shows the progress.
        folder: where temporary files of many showers lie; none are made where not given, but for the classifiers, in
            the system's folder.
        training: files that the model was trained on: no reference may have their content.

    Returns:
        what scores.json holds.

    Raises:
        ValueError: rows that do not belong to each other, a reference that was trained on, or more than one reference
            where the split allows one.
    """
    origin = provenance(path)
    if len(references) != 1 and origin.get("split", "files") != "files":
        raise ValueError(
            f"events of a model of the {origin['split']} split are scored against one reference, got {len(references)}"
        )
    files = {reference_path: open_to_judge(reference_path, detector) for reference_path in references}
    source: EventSource = Joined(list(files.values())) if len(files) > 1 else next(iter(files.values()))
    known_content = {
        content_hash(open_to_judge(reference_path, source.primaries.detector)): reference_path.name
        for reference_path in training
    }
    check_other_content(files, {**origin.get("trained_on", {}), **known_content})
    _check_weights(files, origin, path)
    opened = open_to_judge(path, source.primaries.detector)
    generated = opened
    detector = source.primaries.detector
    channels = channels or detector.default_channels
    known = "split" in origin
    if known or not detector.layers:
        align(source.primaries, generated.primaries)
    if known:
        test = rows_to_score(source, origin)
        source, generated = test, Selected(generated, test.rows)
    source, generated = _at_hand(source, folder), _at_hand(generated, folder)
    report(path.name, 0, 1)
    judge = _judge(source, channels, seed, sizes)
    groups = judge.score([judge.observe(generated)], lambda what: report(what, 0, 1))
    report(path.name, 1, 1)
    entry = _entry(files, source, groups)
    entry["generated"] = str(path.resolve())
    _say_negative(
        groups, {**{reference_path.name: file for reference_path, file in files.items()}, path.name: opened}
    )
    if classifiers is not None:
        del judge  # and the voxels that it keeps
        _classify(entry, source, generated, classifiers, seed, device, report, folder=folder)
    return checked(
        Scores,
        {
            "format": 1,
            "name": origin.get("run", path.stem),
            "type": "events",
            "kind": "generator",
            "detector": detector.name,
            "channels": channels,
            "parameters": None,
            "split": origin.get("split", "files" if training else "unknown"),
            "split_seed": origin.get("split_seed", 0),
            "particles": origin.get("particles", []),
            "part": "test" if known else "all",
            "seed": origin.get("seed"),
            "repeats": 1,
            "settings": {},
            "sets": {"+".join(reference_path.stem for reference_path in files): entry},
            "timing": None,
            "sweep": [],
        },
    )
