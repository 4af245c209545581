"""The comparison: trains, scores and times every model of a plan and writes one page of results.

What an earlier call finished is kept, and an interrupted one goes on where it was:

    OUT/runs/NAME     run folders: copies of weights that ship, or trained here; with scores and generated events
    OUT/studies/NAME  searches of settings
    OUT/times.json    whose times were taken together
    OUT/results.md    the page, with images/results/; OUT/results.html is the same in one file

Times are taken in turns: every model of a detector makes one batch, then each the next, so that whatever else the
machine does falls on all of them alike.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from caloforge import recipe as recipes
from caloforge import samples
from caloforge._lookup import nearest, require
from caloforge.evaluation.classifier import ClassifierConfig, suite
from caloforge.evaluation.scoring import (
    Sweep,
    evaluate_run,
    evaluate_sweeps,
    parse_sweep,
    place,
    rows_to_score,
    spread,
)
from caloforge.events import EventSource
from caloforge.io import open_events, sha256
from caloforge.io.files import read_json, replacing, write_json
from caloforge.io.run import Run
from caloforge.io.scores import Scores, Timing, read_scores
from caloforge.io.study import is_study
from caloforge.io.typed import checked, write_typed
from caloforge.models import resolved
from caloforge.models.parts.inference import as_function
from caloforge.report.pages.results import Contents, Trained, map_rows, write_results
from caloforge.report.study import read_study
from caloforge.training.checkpoint import load_model
from caloforge.training.run import train
from caloforge.training.space import read_space
from caloforge.training.tune import tune

Say = Callable[[str], None]
"""Called with what happens next."""

ROUNDS = 5
"""Batches each model makes while times are taken."""

BATCHES = {"timing": 256, "timing_single": 1}
"""Events a batch, by the key of the scores."""

SINGLES = 2
"""Events that are timed one by one in each round."""


class ModelPlan(BaseModel):
    """One model of a plan.

    Attributes:
        recipe: its recipe, a file or the name of one that ships.
        settings: changes of the recipe for the training, as `--set` takes them; the weights that ship do not have them.
        sets: names of the reference sets it is scored on; empty for all of its detector.
        repeats: how often each event is generated; None for the plan's number.
        sweep: settings' values to score besides, as `--sweep` takes them: once each, on the first set.
        classifiers: of showers: a suite of classifiers to train too; of the sweep those of the features alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: str
    settings: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()
    repeats: int | None = Field(None, ge=1)
    sweep: tuple[str, ...] = ()
    classifiers: str | None = None


class StudyPlan(BaseModel):
    """A search of settings whose trials the page shows.

    Attributes:
        name: name of the study.
        recipe: what every trial starts from.
        space: the search space, a file or the name of one that ships.
        trials: their number.
        settings: changes of the recipe.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    recipe: str
    space: str
    trials: int = Field(20, ge=1)
    settings: tuple[str, ...] = ()


class Plan(BaseModel):
    """What is compared.

    Attributes:
        repeats: how often each event is generated.
        seed: the first seed of the generation.
        title: heading of the page.
        models: the models, in the order of the tables.
        studies: searches of settings.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    repeats: int = Field(5, ge=1)
    seed: int = Field(0, ge=0)
    title: str = "Results"
    models: tuple[ModelPlan, ...]
    studies: tuple[StudyPlan, ...] = ()

    def restricted(self, recipes: Sequence[str]) -> Plan:
        """Returns the plan of some of its models, without studies; itself where none is named.

        Raises:
            ValueError: a recipe that the plan does not have.
        """
        if not recipes:
            return self
        known = [model.recipe for model in self.models]
        for name in recipes:
            if name not in known:
                raise ValueError(f"the plan has no model {name!r}{nearest(name, known)}")
        models = tuple(model for model in self.models if model.recipe in recipes)
        return self.model_copy(update={"models": models, "studies": ()})


def read_plan(name: str) -> Plan:
    """Reads a plan from a TOML file, or from the package by name.

    Raises:
        ValueError: no such plan, unknown keys, wrong types, or a recipe that is named twice.
    """
    plan = recipes.validated(Plan, recipes.read(name, "comparisons", "plan"), "")
    names = [model.recipe for model in plan.models]
    for recipe in names:
        if names.count(recipe) > 1:
            raise ValueError(
                f"{name}: each recipe may be compared once, got {recipe} {names.count(recipe)} times"
            )
    return plan


def data_by_detector(files: Sequence[Path]) -> dict[str, list[Path]]:
    """Sorts events files by the detector they name.

    Raises:
        ValueError: a file that cannot be read or names no detector.
    """
    files_of: dict[str, list[Path]] = {}
    for file in files:
        files_of.setdefault(open_events(file, None).primaries.detector.name, []).append(file)
    return files_of


@dataclass
class Comparing:
    """A comparison at work.

    Attributes:
        plan: what is compared.
        out: the folder of the comparison.
        data: events files by detector; the samples that ship where there are none.
        train: whether models without weights are trained; otherwise they are left out.
        say: told what happens next.
        failed: models that came to nothing, and why.
    """

    plan: Plan
    out: Path
    data: Mapping[str, Sequence[Path]]
    train: bool = True
    say: Say = print
    failed: dict[str, str] = field(default_factory=dict)
    _scored: dict[str, list[tuple[str | None, Scores]]] = field(default_factory=dict)

    def run(self, page: Path | None = None, command: str = "caloforge compare") -> Path:
        """Does what is left to do and writes the page.

        Args:
            page: where the page goes; OUT/results.md if None.
            command: what the page says it was written by.

        Returns:
            the page.

        Raises:
            ValueError: not one model has a result.
        """
        (self.out / "runs").mkdir(parents=True, exist_ok=True)
        trained: list[Trained] = []
        for model in self.plan.models:
            try:
                model_run = self._obtained(model)
                if model_run is None:
                    continue
                self._score(model, model_run)
                trained.append(model_run)
            except (ValueError, FloatingPointError) as error:
                self.failed[model.recipe] = str(error)
                self.say(f"{model.recipe}: {error}")
        if not trained:
            raise ValueError(f"no model of the plan has a result: {self.failed or 'none ships'}")
        folders: dict[str, list[Path]] = {}
        for model_run in trained:
            folders.setdefault(Run(model_run.path).recipe().detector, []).append(model_run.path)
        for detector, paths in folders.items():
            self._time(detector, paths)
        studies = [folder for study in self.plan.studies if is_study(folder := self._study(study))]
        target = page or self.out / "results.md"
        contents = Contents(
            command,
            trained,
            [read_study(folder) for folder in studies],
            self.failed,
            self._maps(folders),
            self._references(),
            self.plan.title,
        )
        write_results(target, contents)
        return target

    def _files(self, detector: str) -> list[Path]:
        return list(self.data.get(detector) or samples.samples_of(detector))

    def _on_data(self, recipe: recipes.Recipe) -> recipes.Recipe:
        """Returns a recipe with the comparison's data; the samples that ship where there are none."""
        files = tuple(str(path.resolve()) for path in self.data.get(recipe.detector) or ())
        return recipe.model_copy(update={"data": recipe.data.model_copy(update={"files": files})})

    def _references(self) -> dict[str, Path]:
        names = dict.fromkeys(_recipe(model.recipe).detector for model in self.plan.models)
        return {path.stem: path for name in names for path in self._files(name)}

    def _obtained(self, model: ModelPlan) -> Trained | None:
        """Copies weights that ship, or trains; None where that is not wanted."""
        recipe = _recipe(model.recipe, model.settings)
        folder = self.out / "runs" / recipe.name
        shipped = samples.weights().get(recipe.name)
        ships = shipped is not None and not model.settings
        if not (folder / "card.json").is_file():
            if ships:
                assert shipped is not None
                self.say(f"{recipe.name}: taking the weights that ship")
                with replacing(folder) as temporary:
                    shutil.copytree(shipped, temporary, ignore=shutil.ignore_patterns("generated"))
            elif self.train:
                self.say(f"{recipe.name}: training")
                train(self._on_data(recipe), folder, resume=(folder / "checkpoint.pt").is_file())
            else:
                self.say(f"{recipe.name}: not trained and no weights ship, left out")
                return None
        return Trained(folder, command_of(Run(folder), model.recipe), ships)

    def _score(self, model: ModelPlan, made: Trained) -> None:
        """Scores a run on the sets it has no scores of yet, and adds what is missing of its sweeps."""
        run = Run(made.path)
        recipe = run.recipe()
        files = [path for path in self._files(recipe.detector) if not model.sets or path.stem in model.sets]
        if not files:
            raise ValueError(
                f"{model.recipe} is to be scored on {', '.join(model.sets)}, but there is no such file"
            )
        repeats = model.repeats or self.plan.repeats
        networks = suite(model.classifiers) if model.classifiers else None
        scores = read_scores(run.scores) if run.scores.is_file() else None
        if scores is None or not _covers(scores, files, repeats, networks):
            self.say(f"{recipe.name}: scoring on {', '.join(path.stem for path in files)}")
            scores = evaluate_run(
                made.path,
                files,
                repeats=repeats,
                seed=self.plan.seed,
                classifiers=networks,
                floors=self._floors(recipe.detector, model.classifiers),
            )
            write_typed(run.scores, scores)
        self._scored.setdefault(recipe.detector, []).append((model.classifiers, scores))
        missing = [
            replace(sweep, values=values)
            for sweep in map(parse_sweep, model.sweep)
            if (values := tuple(value for value in sweep.values if not _holds(scores, sweep, value)))
        ]
        if missing:
            self.say(f"{recipe.name}: scoring settings {', '.join(model.sweep)}")
            features = networks and networks.model_copy(update={"views": ("high",)})
            points = evaluate_sweeps(
                made.path, files[:1], missing, repeats=1, seed=self.plan.seed, classifiers=features
            )
            write_typed(run.scores, scores.model_copy(update={"sweep": scores.sweep + points}))

    def _floors(self, detector: str, classifiers: str | None) -> Scores | None:
        """Returns scores of an earlier model whose floors, of these classifiers too, are those of the next one."""
        scored = self._scored.get(detector, [])
        return next((scores for suite, scores in scored if classifiers in (None, suite)), None)

    def _time(self, detector: str, folders: Sequence[Path]) -> None:
        """Takes the times of all runs of a detector, unless they were taken together already."""
        file = self.out / "times.json"
        taken = read_json(file) if file.is_file() else {}
        names = sorted(folder.name for folder in folders)
        if taken.get(detector) == names:
            return
        self.say(f"{detector}: taking times of {len(names)} models in turns")
        source = open_events(self._files(detector)[0], None)
        times = time_in_turns(folders, source)
        for folder, timings in times.items():
            run = Run(folder)
            write_typed(run.scores, read_scores(run.scores).model_copy(update=timings))
        write_json(file, {**taken, detector: names})

    def _study(self, study: StudyPlan) -> Path:
        """Makes the trials of a study that are missing, and returns its folder."""
        folder = self.out / "studies" / study.name
        if not self.train:
            return folder
        recipe = _recipe(study.recipe, study.settings)
        self.say(f"study {study.name}: {study.trials} trials")
        folder.parent.mkdir(exist_ok=True)
        tune(self._on_data(recipe), read_space(study.space), folder, name=study.name, trials=study.trials)
        return folder

    def _maps(self, detectors: Iterable[str]) -> dict[str, NDArray[np.float64]]:
        """Maps the test particles of every set of images into the plane."""
        maps = {}
        for name in detectors:
            for path in self._files(name):
                source = open_events(path, None)
                if source.primaries.detector.layers:
                    continue
                canonical = {"run": "", "split": "canonical", "split_seed": 0, "particles": []}
                test = rows_to_score(source, canonical).primaries
                maps[path.stem] = embedded(test.conditions[map_rows(test)])
        return maps


def _recipe(name: str, settings: Sequence[str] = ()) -> recipes.Recipe:
    return recipes.parse(recipes.with_settings(recipes.read(name), settings))


def _covers(scores: Scores, wanted: Sequence[Path], repeats: int, networks: ClassifierConfig | None) -> bool:
    """Says whether scores are of these files, as many repeats and these classifiers."""
    sets = scores.sets
    same_files = all(
        path.stem in sets and sets[path.stem].reference.sha256 == sha256(path) for path in wanted
    )
    views = networks.views if networks else ()
    judged = all(f"auc_{view}" in sets[path.stem].all.metrics for path in wanted for view in views)
    return same_files and judged and scores.part == "test" and scores.repeats >= repeats


def _holds(scores: Scores, sweep: Sweep, value: str) -> bool:
    """Says whether scores hold a value of a sweep."""
    return any(
        (point.path, str(point.value), point.settings) == (sweep.path, value, sweep.held)
        for point in scores.sweep
    )


IGNORED = ("name", "detector", "data.files", "training.threads", "training.checkpoint_every")
"""Keys of a recipe that do not change what is trained."""


def command_of(run: Run, name: str) -> str:
    """Returns the command that trains a run: its recipe, its data, and what differs from the recipe that ships.

    Args:
        run: a run folder.
        name: the recipe, a file or the name of one that ships.
    """
    recipe = resolved(run.recipe())
    base, ours = (_flat(values.model_dump(mode="json")) for values in (resolved(_recipe(name)), recipe))
    changes = [
        f"--set {key}={_toml(value)}"
        for key, value in ours.items()
        if key not in IGNORED and base.get(key) != value
    ]
    data = [f"--data {Path(file).name}" for file in recipe.data.files]
    return " ".join(["caloforge train", name, *data, *changes])


def _flat(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        inner = f"{path}.{key}" if path else key
        flat |= _flat(value, inner) if isinstance(value, Mapping) else {inner: value}
    return flat


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value).replace("'", '"').replace(" ", "") if isinstance(value, list) else str(value)


def time_in_turns(
    folders: Sequence[Path], source: EventSource, rounds: int = ROUNDS
) -> dict[Path, dict[str, Timing]]:
    """Takes processor time of every run on the CPU in turns, by batches and one by one.

    Args:
        folders: run folders of one detector.
        source: events whose particles are generated.
        rounds: batches of each run.

    Returns:
        for each folder `timing` and `timing_single` as scores.json has them.
    """
    models = {folder: load_model(folder)[1] for folder in folders}
    forwards = {folder: as_function(model) for folder, model in models.items()}
    conditions = np.asarray(source.primaries.conditions, np.float32)
    random = np.random.default_rng(0)
    spent: dict[str, dict[Path, list[float]]] = {key: {folder: [] for folder in forwards} for key in BATCHES}
    for turn in range(rounds + 1):
        for folder, forward in forwards.items():
            for key, batch in BATCHES.items():
                number = SINGLES if batch == 1 else 1
                rows = random.integers(0, len(conditions), (number, batch))
                noise = random.standard_normal((number, batch, models[folder].noise_dim), np.float32)
                started = time.process_time()
                for batch_rows, drawn in zip(rows, noise, strict=True):
                    forward(conditions[batch_rows], drawn)
                if turn:  # the first is for warming up
                    spent[key][folder].append(1e3 * (time.process_time() - started) / (number * batch))
    return {
        folder: {
            key: checked(
                Timing, {"ms_per_event": spread(spent[key][folder]), "batch_size": batch, **place("cpu")}
            )
            for key, batch in BATCHES.items()
        }
        for folder in forwards
    }


def embedded(conditions: NDArray[np.float32]) -> NDArray[np.float64]:
    """Maps particles into the plane by t-SNE of their standardised features, (N, F) to (N, 2)."""
    manifold = require("sklearn.manifold", "train")
    values = np.asarray(conditions, np.float64)
    scale = values.std(0)
    scaled = (values - values.mean(0)) / np.where(scale > 0, scale, 1.0)
    perplexity = min(30.0, max(2.0, (len(values) - 1) / 3))
    points = manifold.TSNE(random_state=0, perplexity=perplexity, init="pca").fit_transform(scaled)
    return np.asarray(points, np.float64)
