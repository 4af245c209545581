"""From a recipe to a run folder: data, model, stages one after the other, and the card."""

from __future__ import annotations

import os
import platform
import subprocess
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from pydantic import BaseModel

from caloforge.detectors import detector_named
from caloforge.events import (
    Displaced,
    EventSource,
    Joined,
    Part,
    Selected,
    can_displace,
    of_particles,
    split,
)
from caloforge.io import open_events, open_trials
from caloforge.io.card import Budget, Card, DataFile, Kind
from caloforge.io.columns import layout_of_recipe
from caloforge.io.files import sha256
from caloforge.io.run import Run
from caloforge.io.stored import stored
from caloforge.models import Classifier, Generator, Model, Readout, build, configuration, resolved
from caloforge.models.base import Stage
from caloforge.recipe import Recipe, TrainingConfig
from caloforge.runtime.domain import Domain
from caloforge.runtime.doubts import doubts
from caloforge.samples import TRIALS, sample, samples_of
from caloforge.training.checkpoint import load_checkpoint, save_weights
from caloforge.training.data import card_entries, check_references, content_entries, planned
from caloforge.training.devices import check_training
from caloforge.training.fit import (
    Fitting,
    History,
    Reporter,
    Watcher,
    derived_seed,
    silent,
    unreported,
    unwatched,
)
from caloforge.training.start import start_folder, start_from
from caloforge.trials import Trials, joined_trials


def training_data(recipe: Recipe, *, trials: bool = False) -> dict[str, EventSource]:
    """Opens the recipe's data, by file name; the sample that ships where it names none.

    Args:
        recipe: the whole run.
        trials: the files hold trials, as a classifier needs them, and not events.

    Raises:
        ValueError: a file that cannot be read, or of another detector.
    """
    detector = detector_named(recipe.detector)
    if trials:
        paths = [Path(file) for file in recipe.data.files] or [sample(TRIALS)]
        sources = {str(path): cast(EventSource, open_trials(path, detector)) for path in paths}
        return {path: of_particles(source, recipe.data.particles) for path, source in sources.items()}
    paths = [Path(file) for file in recipe.data.files] or samples_of(recipe.detector)
    layout = layout_of_recipe(recipe.data)
    return {
        str(path): of_particles(open_events(path, detector, layout), recipe.data.particles) for path in paths
    }


def joined(sources: Iterable[EventSource], *, trials: bool) -> EventSource:
    """Joins sources of events, or of trials, end to end."""
    if trials:
        return cast(
            EventSource, joined_trials([cast(Trials, source.slices(slice(None))) for source in sources])
        )
    return Joined(list(sources))


def in_beam_spot(source: EventSource, recipe: Recipe, *parts: int | str) -> EventSource:
    """Returns the source with vertices displaced as the recipe says, by the recipe's seed and `parts`."""
    spot = recipe.data.beam_spot
    if not any(spot) or not can_displace(source.primaries.detector):
        return source
    return Displaced(source, spot, derived_seed(recipe.seed, "beam spot", *parts))


def domain_of(train: EventSource, recipe: Recipe) -> Domain:
    """Returns the domain of the training events, those from within the beam spot among them."""
    displaced = in_beam_spot(train, recipe, "normalization")
    return Domain.fit(train.primaries, None if displaced is train else displaced.primaries)


def unsaid(line: str) -> None:
    """Says nothing."""


def train(
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    reporter: Callable[[], Reporter] = unreported,
    watch: Watcher = unwatched,
    say: Callable[[str], None] = unsaid,
) -> None:
    """Trains the model of a recipe and leaves a run folder.

    Args:
        recipe: the whole run.
        out: the run folder, made if need be.
        resume: go on from the folder's checkpoint.
        reporter: makes what shows the progress, in the process that shows it.
        watch: called after each validation, in that process; what it raises ends the training.
        say: called with what trains and what judges, empty but for the split `files`; and with what was taken of the
            weights that a recipe starts from, where one process trains (the card has it always).

    Raises:
        ValueError: a recipe or data that do not fit, a folder that holds another run, nothing to resume.
        FloatingPointError: the loss became infinite or NaN.
    """
    config = configuration(recipe)  # a bad model section is an error before any data are touched
    recipe = resolved(recipe, config)
    model = _untrained(recipe, config)
    if recipe.start:
        Run(start_folder(recipe.start)).card()  # an error before any data are touched
    run = Run(out)
    _check_folder(run, recipe, resume)
    fabric = _fabric(recipe.training)
    if not isinstance(model, Classifier):
        files = training_data(recipe)
        check_references(recipe, files)
        say(planned(recipe, files))
        for doubt in doubts(joined(files.values(), trials=False)):
            warnings.warn(doubt, stacklevel=2)
    # processes of their own build the model themselves: not every model can be sent to them
    alone = recipe.training.devices == 1
    here, told = (model, say) if alone else (None, unsaid)
    fabric.launch(_Training(recipe, config, here, run, resume, reporter, watch, told))


def train_committee(recipe: Recipe, out: Path, members: int, *, resume: bool = False, **shown: Any) -> None:
    """Trains several networks of one recipe, which differ in their first weights and batches.

    The first is the run of the recipe itself, in the folder `out`; the others are below it. Where the recipe says
    `data.bootstrap`, each also has particles of its own.

    Args:
        recipe: the whole run.
        out: the run folder.
        members: how many networks.
        resume: go on: members that have finished stay as they are, so that a committee may also be made larger.
        shown: `reporter`, `watch` and `say` of `train`.

    Raises:
        ValueError: as `train`.
    """
    whole, config = Run(out), configuration(recipe)
    for number in range(1, members + 1):
        run = whole.member(number)
        member = recipe if number == 1 else recipe.model_copy(update={"member": number})
        finished = (run.path / "card.json").is_file() and run.recipe() == resolved(member, config)
        if resume and number > 1 and not (run.path / "recipe.toml").is_file():
            train(member, run.path, **shown)
        elif members == 1 or not (resume and finished):
            train(member, run.path, resume=resume, **shown)


def _untrained(recipe: Recipe, config: BaseModel) -> Model:
    """Builds the model with the first weights of the recipe's seed."""
    torch.manual_seed(derived_seed(recipe.seed, "weights", *_member(recipe)))
    return build(recipe, config)


def _member(recipe: Recipe) -> tuple[int, ...]:
    """Returns what a member's random numbers depend on besides the seed; nothing for the first."""
    return () if recipe.member is None else (recipe.member,)


def bootstrapped(
    rows: NDArray[np.intp], groups: NDArray[np.integer[Any]], recipe: Recipe
) -> NDArray[np.intp]:
    """Draws as many particles as there are, with replacement, and returns their rows.

    Args:
        rows: rows that train.
        groups: the particle of each of these rows.
        recipe: the run, whose seed and member choose them; without `data.bootstrap` the rows stay as they are.
    """
    if not recipe.data.bootstrap:
        return rows
    order = np.argsort(groups, kind="stable")
    _, first, sizes = np.unique(groups[order], return_index=True, return_counts=True)
    rng = np.random.default_rng(derived_seed(recipe.seed, "bootstrap", *_member(recipe)))
    chosen = np.sort(rng.integers(0, len(first), len(first)))
    drawn = [order[start : start + size] for start, size in zip(first[chosen], sizes[chosen], strict=True)]
    return np.asarray(rows[np.sort(np.concatenate(drawn))])


def _check_folder(run: Run, recipe: Recipe, resume: bool) -> None:
    """Raises ValueError for a folder of another run, or of this one where it is not resumed."""
    if resume:
        if run.recipe() != recipe:
            raise ValueError(
                f"{run.path} was started with another recipe: resume with that one, or start in another folder"
            )
    elif run.weights.exists() or run.checkpoint.exists():
        raise ValueError(f"{run.path} already holds a run: choose another --out, or go on with --resume")


def _fabric(settings: TrainingConfig) -> Fabric:
    check_training(settings)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    return Fabric(
        accelerator=settings.accelerator,
        devices=settings.devices,
        precision=settings.precision,
        strategy="auto" if settings.devices == 1 else "ddp_spawn",
    )


@dataclass(frozen=True, eq=False)
class _Training:
    """A training, as each of its processes is given it.

    Attributes:
        recipe: the whole run, resolved.
        config: the model's configuration.
        model: untrained; None where the process builds it itself.
        run: the run folder.
        resume: go on from the folder's checkpoint.
        reporter: makes what shows the progress.
        watch: called after each validation.
        say: called with what was taken of the weights that the recipe starts from.
    """

    recipe: Recipe
    config: BaseModel
    model: Model | None
    run: Run
    resume: bool
    reporter: Callable[[], Reporter]
    watch: Watcher
    say: Callable[[str], None]

    def __call__(self, fabric: Fabric) -> None:
        """Trains the stages one after the other and writes the card."""
        recipe, run, resume = self.recipe, self.run, self.resume
        model = _untrained(recipe, self.config) if self.model is None else self.model
        model.to(fabric.device)
        trials = isinstance(model, Classifier)
        files = training_data(recipe, trials=trials)
        source = joined(files.values(), trials=trials)
        source = source if trials else stored(source, run.path)
        parts = _parts(recipe, files, source)
        drawn = bootstrapped(parts["train"], source.primaries.group[parts["train"]], recipe)
        train_part: EventSource = Selected(source, drawn)
        validation = in_beam_spot(Selected(source, parts["validation"]), recipe, "validation")
        hashes = {path: sha256(path) for path in files}
        state = _started(run, list(hashes.values())) if resume else {}
        history = History(**state["history"]) if resume else History(list(hashes.values()))
        if fabric.is_global_zero:
            _prepare_folder(run, recipe, resume)

        started = time.monotonic()
        stages = model.stages(in_beam_spot(train_part, recipe, "normalization"))
        prepared = time.monotonic() - started
        origin = None
        if recipe.start:
            begun = start_from(model, start_folder(recipe.start))
            origin = begun.origin
            if fabric.is_global_zero and not resume:
                self.say(str(begun))
        if resume:
            model.load_state_dict(state["model"])
            history.seconds += prepared
        self._fit(fabric, model, stages, train_part, validation, history, state)
        if fabric.is_global_zero:
            if not stages:
                save_weights(model, run.weights)
                history.seconds = prepared
            card = card_of(recipe, model, files, hashes, source, parts, history)
            further = {"start": origin} if origin else {}
            run.write_card(card.model_copy(update={**further, "weights": sha256(run.weights)}))

    def _fit(
        self,
        fabric: Fabric,
        model: Model,
        stages: Sequence[Stage],
        train_part: EventSource,
        validation: EventSource,
        history: History,
        state: Mapping[str, Any],
    ) -> None:
        """Trains the stages that are left, from where the history stands; `state` is the checkpoint's, or empty."""
        recipe = self.recipe
        report = self.reporter() if fabric.is_global_zero else silent
        for number, stage in enumerate(stages):
            if number < history.stage or number in history.given:
                continue
            if number > history.stage:
                history.begin(number)
            elif state:
                stage.load_state_dict(state["stage"])
            if recipe.training.compile:
                for module in stage.modules().values():
                    module.compile()
            epoch_events = partial(in_beam_spot, train_part, recipe, number)
            Fitting(
                stage,
                model,
                epoch_events,
                validation,
                fabric,
                self.run,
                derived_seed(recipe.seed, "member", recipe.member) if recipe.member else recipe.seed,
                recipe.training,
                history,
                report,
                self.watch,
            ).fit()


def _parts(
    recipe: Recipe, files: Mapping[str, EventSource], source: EventSource
) -> dict[Part, np.ndarray[Any, np.dtype[np.intp]]]:
    """Splits the rows as the recipe says; a ValueError where none are left to train on."""
    parts = split(source, recipe.data.split, recipe.seed, recipe.data.validation)
    if len(parts["train"]) == 0:
        raise ValueError(
            f"no training events: {len(source)} events in {', '.join(files)}, none of them in the training part"
        )
    return parts


def _started(run: Run, data: list[str]) -> dict[str, Any]:
    """Reads the checkpoint of a run; a ValueError where its data, by their hashes, are others."""
    state = load_checkpoint(run.checkpoint)
    if state["history"]["data"] != data:
        raise ValueError(f"{run.path} was started with other data: the files' content has changed")
    return state


def _prepare_folder(run: Run, recipe: Recipe, resume: bool) -> None:
    """Makes the run folder, or clears away what a killed process was writing."""
    if resume:
        for stale in run.path.glob(".*.partial-*"):
            stale.unlink()
    else:
        run.path.mkdir(parents=True, exist_ok=True)
        run.write_recipe(recipe)


def _rows(
    files: Mapping[str, EventSource], parts: Mapping[Part, np.ndarray[Any, np.dtype[np.intp]]]
) -> list[dict[str, int]]:
    """Counts each file's rows in each part."""
    edges = np.cumsum([0, *(len(source) for source in files.values())])
    counts = {
        part: np.histogram(rows, edges)[0] if len(rows) else np.zeros(len(files))
        for part, rows in parts.items()
    }
    return [{part: int(count[i]) for part, count in counts.items()} for i in range(len(files))]


def card_of(
    recipe: Recipe,
    model: Model,
    files: Mapping[str, EventSource],
    hashes: Mapping[str, str],
    source: EventSource,
    parts: Mapping[Part, np.ndarray[Any, np.dtype[np.intp]]],
    history: History,
) -> Card:
    """Returns the card of a run, but for the hash of its weights."""
    rows, contents = _rows(files, parts), content_entries(recipe, files)
    return Card(
        format=1,
        name=recipe.name,
        type=recipe.model["type"],
        kind=_kind(model),
        detector=recipe.detector,
        features=tuple(feature.name for feature in model.detector.conditions),
        units=tuple(feature.unit for feature in model.detector.conditions),
        channels=_channels(model),
        data=tuple(
            DataFile(name=Path(path).name, sha256=hashes[path], rows=rows[i], **contents[path])
            for i, path in enumerate(files)
        ),
        domain=domain_of(Selected(source, parts["train"]), recipe).to_card(),
        split=recipe.data.split,
        **card_entries(recipe, files),
        particles=recipe.data.particles,
        seed=recipe.seed,
        rounding=recipe.model.get("rounding", ""),
        made_with=dict(model.made_with) if isinstance(model, Generator) else {},
        parameters=sum(p.numel() for p in model.parameters()),
        version=version("caloforge"),
        git_revision=_revision(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        training=Budget(
            seconds=round(history.seconds, 1),
            machine=f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
            epochs=history.epoch,
            best_epoch=history.best_epoch,
        ),
    )


def _kind(model: Model) -> Kind:
    if isinstance(model, Classifier):
        return "classifier"
    return "readout" if isinstance(model, Readout) else "generator"


def _channels(model: Model) -> str:
    if isinstance(model, Classifier):
        return ""
    return model.channels if isinstance(model, Readout) else model.detector.default_channels


def _revision() -> str:
    """Returns the git revision of the package's source, or "" for an installed package."""
    here = Path(__file__)
    revision = ""
    try:
        # the first command fails where this file is not tracked: installed within some other repository
        for command in (
            ["ls-files", "--error-unmatch", here.name],
            ["describe", "--always", "--dirty", "--exclude=*"],
        ):
            revision = subprocess.run(  # noqa: S603
                ["git", "-C", str(here.parent), *command],  # noqa: S607
                capture_output=True,
                text=True,
                timeout=10,
                check=True,
            ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
    return revision
