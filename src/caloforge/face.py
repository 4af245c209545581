"""What most users need, in a few names: `import caloforge as cf`.

    surrogate = cf.load("zn-factorized_flow_matching")   # weights that ship, a run folder or a bundle
    events = surrogate.sample(particles, seed=1)         # a data frame, a dictionary, Primaries, or a file
    events.channels()                                    # sums of each channel, by label

PyTorch is imported where a run or weights that ship are loaded, and not for a bundle.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from caloforge import recipe as recipes
from caloforge import samples
from caloforge.detectors import Detector
from caloforge.events import Events, ParticleSource, Primaries
from caloforge.io import Layout, carried, create, open_events, open_particles, open_primaries
from caloforge.io.content import trained_on
from caloforge.io.run import Run
from caloforge.io.scores import Scores
from caloforge.io.source import named_primaries
from caloforge.runtime.bundle import Surrogate, is_bundle, origin_of_bundle
from caloforge.runtime.domain import Domain, check_choice
from caloforge.runtime.folders import run_path
from caloforge.runtime.generate import Generated, Readout, check_readout, generate
from caloforge.runtime.generate import Particles as ParticlesInFile
from caloforge.runtime.session import Runtime

if TYPE_CHECKING:
    from caloforge.evaluation.refinement import Refined

Particles = Primaries | Mapping[str, Any] | str | Path
"""Primaries, a dictionary or data frame with a column a feature and `pdg`, or a file of any format."""


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=5)  # where the user called


class _Source(Protocol):
    """Gives events of a model that are generated when they are read."""

    def __call__(
        self, particles: ParticlesInFile, seed: int, first_event: int, batch_size: int | None, exact: bool
    ) -> Generated[ParticlesInFile]:
        """Arguments as those of `Model.sample`."""


@dataclass(frozen=True, eq=False)
class Model:
    """A trained model, ready to sample: weights that ship, a run or a bundle.

    Attributes:
        name: of the run or bundle.
        detector: the detector it imitates.
        domain: what it was trained on; None of a run of an older version.
        parameters: number of trained parameters; 0 where the card does not tell.
        origin: what a file of its events says of it.
    """

    name: str
    detector: Detector
    domain: Domain | None
    parameters: int
    origin: Mapping[str, Any]
    _source: _Source
    _exact: bool
    _other: Callable[[int], Model] | None = None

    def __repr__(self) -> str:
        size = f", {self.parameters:,} parameters" if self.parameters else ""
        return f"<{self.name}: {self.detector.title}, {' x '.join(map(str, self.detector.shape))}{size}>"

    def _repr_html_(self) -> str:
        """Shows in a notebook what it is and what it was trained on."""
        rows = {
            "detector": self.detector.title,
            "response": f"{' x '.join(map(str, self.detector.shape))}, {self.detector.unit}",
            "conditions": ", ".join(self.detector.features),
            "parameters": f"{self.parameters:,}",
        }
        body = "".join(f"<tr><th>{name}</th><td>{escape(value)}</td></tr>" for name, value in rows.items())
        return f"<p>{escape(self.name)}</p><table>{body}</table>"

    def replica(self, number: int) -> Model:
        """Returns the same model with the weights of a replica, from 1, or of a committee's member; see `load`.

        Raises:
            ValueError: a model without replicas, or a bundle.
        """
        if self._other is None:
            raise ValueError(f"a replica is chosen when a bundle is exported, and {self.name} is a bundle")
        return self._other(number)

    def primaries(self, particles: Particles) -> Primaries:
        """Returns particles in whatever form as primaries of the model's detector.

        Args:
            particles: see `Particles`; columns that are no features are left out.

        Raises:
            ValueError: a column is missing, a value is not finite, particles of another detector.
        """
        return primaries(particles, self.detector)

    def sample(
        self,
        particles: Particles,
        *,
        seed: int = 0,
        first_event: int = 0,
        batch_size: int | None = None,
        exact: bool = False,
        on_outside: str = "error",
    ) -> Events:
        """Generates one response for each particle.

        Args:
            particles: see `Particles`.
            seed: 0 to 2^64 - 1; event k is a function of the seed and k.
            first_event: number of the first particle's event.
            batch_size: events at once; 256, and of a bundle 32, where not given.
            exact: of a bundle, fill every batch up, however few events are asked for.
            on_outside: `error`, `warn` or `flag`: what to do about particles unlike those of the training.

        Raises:
            ValueError: particles that are none, of another detector, or (`error`) outside of the domain; or a model of
                channel sums alone.
        """
        entering = self.primaries(particles)
        source = self._generated(entering, seed, first_event, batch_size, exact)
        check_readout("responses", source)
        self._check(entering, on_outside)
        return source.slices(slice(None))

    def channels(
        self,
        particles: Particles,
        *,
        seed: int = 0,
        first_event: int = 0,
        batch_size: int | None = None,
        exact: bool = False,
        on_outside: str = "error",
    ) -> dict[str, NDArray[np.float64]]:
        """Generates the sums of each channel in the detector's unit, (N,) by label, also of models that give no more.

        Arguments and errors are those of `sample`.
        """
        entering = self.primaries(particles)
        source = self._generated(entering, seed, first_event, batch_size, exact)
        self._check(entering, on_outside)
        labels = self.detector.channel_map(source.channel_map).labels
        return dict(zip(labels, source.sums(slice(None))[1].T, strict=True))

    def sample_to(
        self,
        out: str | Path,
        particles: str | Path | Primaries,
        *,
        seed: int = 0,
        first_event: int = 0,
        batch_size: int | None = None,
        exact: bool = False,
        readout: Readout = "responses",
        on_outside: str = "error",
        layout: Layout | None = None,
        report: Callable[[int, int], None] = lambda done, total: None,
        warn: Callable[[str], None] = _warn,
    ) -> int:
        """Generates one response for each particle into a file, in constant memory.

        Args:
            out: the file, which appears whole or not at all; its suffix names the format.
            particles: a file of any format, or primaries.
            seed: 0 to 2^64 - 1; event k is a function of the seed and k.
            first_event: number of the first particle's event.
            batch_size: events at once; 256, and of a bundle 32, where not given.
            exact: of a bundle, fill every batch up, however few events are asked for.
            readout: `responses`, `channels` or `both`: what is written of each event.
            on_outside: `error` refuses particles outside of the domain; `warn` and `flag` mark them in the column
                `in_domain`.
            layout: how columns and tree of a file are called, where they have other names.
            report: called with the number of events written so far and of all.
            warn: takes a warning.

        Returns:
            how many events were written.

        Raises:
            ValueError: as `sample`, or a file that cannot be written.
        """
        file = None if isinstance(particles, Primaries) else samples.located(particles)
        if file is None:
            entering: ParticleSource = self.primaries(particles)
        else:
            entering = open_particles(file, self.detector, layout)
        source = self._generated(entering, seed, first_event, batch_size, exact)
        check_readout(readout, source)
        inside = self._check(entering, on_outside, warn)
        marks = {} if inside is None or on_outside == "error" else {"in_domain": inside}
        origin = {
            **self.origin,
            "seed": seed,
            "first_event": first_event,
            "batch_size": source.batch_size,
            **({"exact": exact} if self._exact else {}),
            **({} if readout == "responses" else {"readout": readout}),
            "outside_domain": int(np.count_nonzero(~marks["in_domain"])) if marks else 0,
            "version": version("caloforge"),
        }
        columns = carried(file, self.detector, layout).read if file is not None else lambda start, stop: {}
        with create(out, self.detector, origin) as writer:
            generate(source, writer, lambda done: report(done, len(entering)), marks, columns, readout)
        return len(entering)

    def _generated(
        self, particles: ParticlesInFile, seed: int, first_event: int, batch_size: int | None, exact: bool
    ) -> Generated[ParticlesInFile]:
        if exact and not self._exact:
            raise ValueError(f"exact is for a bundle, and {self.name} is a run")
        return self._source(particles, seed, first_event, batch_size, exact)

    def _check(
        self, particles: ParticleSource, on_outside: str, warn: Callable[[str], None] = _warn
    ) -> NDArray[np.bool_] | None:
        """Looks at every particle; returns whether each is inside the domain, None where that is not known."""
        if self.domain is None:
            check_choice(on_outside)
            warn(f"the card of {self.name}, of an older version, has no domain: no particle is checked")
            return None
        return self.domain.check(particles, on_outside, warn)


def primaries(particles: Particles, detector: Detector | None = None) -> Primaries:
    """Returns particles in whatever form as primaries.

    Args:
        particles: see `Particles`.
        detector: the detector they enter; needed but for primaries and for files that say it.

    Raises:
        ValueError: no detector, a column that is missing, or values that are none.
    """
    if isinstance(particles, Primaries):
        if detector is not None and particles.detector.name != detector.name:
            raise ValueError(f"wanted particles of {detector.name}, got those of {particles.detector.name}")
        return particles.primaries if isinstance(particles, Events) else particles
    if isinstance(particles, str | Path):
        return open_primaries(samples.located(particles), detector)
    if detector is None:
        raise ValueError("columns of particles do not say their detector: give one")
    # of a data frame its columns, of awkward arrays their fields
    known = getattr(particles, "columns", None)
    known = getattr(particles, "fields", None) if known is None else known
    names = [str(name) for name in (particles.keys() if known is None else known)]

    def column(name: str) -> NDArray[np.generic]:
        values = np.asarray(particles[name])
        if values.ndim != 1 or values.dtype.kind not in "iufb":
            raise ValueError(f"column {name} must hold one number a row, got {values.dtype} {values.shape}")
        return values

    return named_primaries(detector, names, column)


def load(
    name: str | Path,
    *,
    settings: Sequence[str] = (),
    device: str = "cpu",
    threads: int | None = None,
    trust: bool = False,
    replica: int = 0,
    runtime: Runtime | None = None,
) -> Model:
    """Loads a trained model.

    Args:
        name: weights that ship, a run folder or a bundle.
        settings: of a run, what may be changed after the training, such as "solver.steps=4".
        device: of a run, a PyTorch device.
        threads: of a bundle, threads of one batch; 1 where not given.
        trust: run code outside the package that the run or bundle names.
        replica: of a run with Gaussian weights or a committee, which weights, from 1; 0: the mean weights, or the
            first member.
        runtime: of a bundle, `onnxruntime` or `openvino`, which is faster for batches of 32 and slower for single
            events; the former where not given.

    Raises:
        ValueError: nothing of that name, damaged, a classifier, or a replica of a run that has none.
        ImportError: a run without PyTorch; the message says what to install.
    """
    path = run_path(name)
    if is_bundle(path):
        if settings or device != "cpu":
            raise ValueError(
                "settings and device are for a run: a bundle is exported with its settings, for the CPU"
            )
        if replica:
            raise ValueError(f"a replica is chosen when a bundle is exported, and {name} is a bundle")
        return _of_bundle(path, threads or 1, trust, runtime or "onnxruntime")
    for option, value in (("threads are", threads), ("a runtime is", runtime)):
        if value is not None:
            raise ValueError(f"{option} for a bundle, and {name} is a run")
    return _of_run(path, settings, device, trust, replica)


def _of_bundle(path: Path, threads: int, trust: bool, runtime: Runtime) -> Model:
    bundle = Surrogate.load(path, threads=threads, trust=trust, runtime=runtime)

    def source(
        particles: ParticlesInFile, seed: int, first_event: int, batch_size: int | None, exact: bool
    ) -> Generated[ParticlesInFile]:
        return bundle.source(
            particles, seed=seed, first_event=first_event, batch_size=batch_size, exact=exact
        )

    card, origin = bundle.card, origin_of_bundle(bundle.card, path)
    size = int(card.get("parameters", 0))
    return Model(card["name"], bundle.detector, bundle.domain, size, origin, source, True)


def _of_run(path: Path, settings: Sequence[str], device: str, trust: bool, replica: int) -> Model:
    from caloforge.evaluation.scoring import origin_of
    from caloforge.models.base import Readout as PredictsSums
    from caloforge.models.parts.inference import as_function
    from caloforge.training.checkpoint import load_model
    from caloforge.training.devices import check_device

    check_device(device)
    recipe, model = load_model(path, list(settings), trust=trust, replica=replica)
    run, _ = Run(path).replica(replica)
    forward, noise, card = as_function(model.to(device)), model.noise_dim, run.card()

    def source(
        particles: ParticlesInFile, seed: int, first_event: int, batch_size: int | None, exact: bool
    ) -> Generated[ParticlesInFile]:
        sums = isinstance(model, PredictsSums)
        return Generated(
            forward, noise, particles, seed, first_event, batch_size or 256, None, False, card.channels, sums
        )

    origin = {
        **origin_of(recipe),
        **trained_on(card.data),
        "weights": run.check_weights(),
        **({"replica": replica} if replica else {}),
        "device": device,
        "settings": list(settings),
    }
    domain = Domain.from_card(card.domain) if card.domain else None

    def other(number: int) -> Model:
        return _of_run(path, settings, device, trust, number)

    return Model(recipe.name, model.detector, domain, card.parameters, origin, source, False, other)


def sample(
    model: str | Path | Model,
    particles: str | Path | Primaries,
    out: str | Path,
    **options: Any,
) -> int:
    """Generates one response for each particle into a file, and returns how many.

    Args:
        model: weights that ship, a run folder or a bundle; or one that `load` gave.
        particles: a file of any format, or primaries.
        out: the file, which appears whole or not at all; its suffix names the format.
        options: of `load` (settings, device, threads, trust, replica, runtime) and of `Model.sample_to` (seed,
            readout, ...), by name.

    Raises:
        ValueError: as `load` and `Model.sample_to`.
    """
    loading = {
        name: options.pop(name)
        for name in ("settings", "device", "threads", "trust", "replica", "runtime")
        if name in options
    }
    loaded = model if isinstance(model, Model) else load(model, **loading)
    return loaded.sample_to(out, particles, **options)


def read(path: str | Path, detector: Detector | None = None) -> Events:
    """Reads the events of a file, all at once.

    Args:
        path: a file of any format, or `sample:NAME` for one that ships.
        detector: where the file does not say it.
    """
    return open_events(samples.located(path), detector).slices(slice(None))


def write(events: Primaries, path: str | Path, origin: Mapping[str, Any] | None = None) -> None:
    """Writes events, or particles alone, to a file; its suffix names the format.

    Args:
        events: they.
        path: the file, which appears whole or not at all.
        origin: what the file says of where they come from.
    """
    with create(path, events.detector, dict(origin or {})) as writer:
        writer.append(events)


def recipe_of(
    recipe: str | Path | recipes.Recipe,
    data: Sequence[str | Path],
    settings: Sequence[str],
    reference: Sequence[str | Path] = (),
    start: str | Path | None = None,
) -> recipes.Recipe:
    """Returns a recipe, its file's or that which ships by its name, with other data and settings.

    Files that judge, `reference`, make it one of the split `files`; `start` are trained weights to begin with.
    """
    values: Mapping[str, Any] = (
        recipe.model_dump() if isinstance(recipe, recipes.Recipe) else recipes.read(recipe)
    )
    values = recipes.with_settings(values, settings)
    if data:
        files = [str(samples.located(file).resolve()) for file in data]
        values = {**values, "data": {**values.get("data", {}), "files": files}}
    if reference:
        files = [str(samples.located(file).resolve()) for file in reference]
        values = {**values, "data": {**values.get("data", {}), "reference": files, "split": "files"}}
    if start is not None:
        folder = Path(start)
        values = {**values, "start": str(folder.resolve()) if folder.is_dir() else str(start)}
    return recipes.parse(values)


def train(
    recipe: str | Path | recipes.Recipe,
    out: str | Path,
    *,
    data: Sequence[str | Path] = (),
    reference: Sequence[str | Path] = (),
    settings: Sequence[str] = (),
    start: str | Path | None = None,
    members: int = 1,
    resume: bool = False,
    **shown: Any,
) -> Path:
    """Trains a model and leaves a run folder, which is returned.

    Args:
        recipe: a recipe, a TOML file, or the name of a recipe that ships.
        out: the run folder.
        data: training data in place of the recipe's.
        reference: files that judge: then every row of the training data trains, but for a small share that chooses the
            weights.
        settings: changes, such as "model.epochs=3".
        start: trained weights to begin with: the name of weights that ship, or a run folder; what fits is taken.
        members: networks of a committee, which differ in their first weights and batches.
        resume: go on from the folder's checkpoint.
        shown: what shows the training, `reporter` and `say` of `training.run.train`.

    Raises:
        ValueError: a recipe or data that do not fit, a folder that holds another run.
    """
    from caloforge.training.run import train_committee

    parsed = recipe_of(recipe, data, settings, reference, start)
    train_committee(parsed, Path(out), members, resume=resume, **shown)
    return Path(out)


def weigh(
    events: str | Path,
    out: str | Path,
    reference: str | Path,
    *,
    generated: str | Path | None = None,
    view: str = "high",
    classifier: str = "small",
    folds: int = 5,
    clip: float = 10.0,
    seed: int = 0,
    device: str = "cpu",
    detector: Detector | None = None,
    report: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Refined:
    """Weighs generated events by a classifier, so that histograms of them come nearer to the simulation's.

    Args:
        events: a file of generated events.
        out: the same events with the column `weight`; the suffix names the format.
        reference: simulated events to learn from, or `sample:NAME`.
        generated: generated events to learn from; `events` where not given, by folds.
        view: what the classifier sees: high, low, and of showers low-normed or resnet.
        classifier: its settings: small, paper, full or challenge.
        folds: parts of the particles; no classifier weighs what it learned from.
        clip: largest weight, and one over the smallest.
        seed: of folds and networks.
        device: PyTorch device.
        detector: where the files do not tell it.
        report: called with what is done, how much of it, out of how much.

    Returns:
        the weights, the effective sample size and the area under the classifiers' curves.

    Raises:
        ValueError: files or settings that do not fit, or too few events.
    """
    from caloforge.evaluation.classifier import suite
    from caloforge.evaluation.refinement import RefinementConfig, weigh_events
    from caloforge.recipe import validated
    from caloforge.training.devices import check_device

    check_device(device)
    config = validated(
        RefinementConfig, {"view": view, "classifier": suite(classifier), "folds": folds, "clip": clip}, ""
    )
    return weigh_events(
        samples.located(events),
        Path(out),
        samples.located(reference),
        None if generated is None else samples.located(generated),
        config=config,
        detector=detector,
        seed=seed,
        device=device,
        report=report,
    )


def evaluate(
    target: str | Path,
    reference: str | Path | Sequence[str | Path],
    *,
    data: Sequence[str | Path] = (),
    repeats: int = 5,
    seed: int = 0,
    batch_size: int = 256,
    device: str = "cpu",
    settings: Sequence[str] = (),
    sweeps: Sequence[str] = (),
    detector: Detector | None = None,
    classifiers: str | None = None,
    true_sums: bool = False,
    trust: bool = False,
    replicas: int = 0,
    out: str | Path | None = None,
    events_folder: str | Path | None = None,
    report: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Scores:
    """Scores a model on rows that it was not trained on, or a file of generated events.

    Args:
        target: weights that ship, a run folder, or a file of events.
        reference: files of simulated events, or `sample:NAME`.
        data: files that the model was trained on; a reference of their content is refused.
        repeats: how often a model generates every event.
        seed: of the first repeat.
        batch_size: of a model, events at once.
        device: PyTorch device.
        settings: of a model, what may be changed after the training.
        sweeps: of a model, settings and the values each takes in turn, such as "solver.steps=1,2,4".
        detector: of a file of events, where it does not say it.
        classifiers: of showers, which classifiers to train: small, paper, full or challenge.
        true_sums: give the generator the sum of each response of the reference; flows can take it.
        trust: run code outside the package that the run names.
        replicas: of a run with Gaussian weights or a committee, how many replicas also generate the events, for the
            bands of a report; their events are kept.
        out: a file for the scores, such as `scores.json` of the run folder, which `write_report` reads; nothing is
            written where not given.
        events_folder: where the events of a model's first repeat are kept; beside `out` where not given.
        report: called with what is done, how much of it, out of how much.

    Returns:
        what `scores.json` holds.

    Raises:
        ValueError: a target or references that do not fit, or options that are for a model with a file of events.
    """
    import tempfile

    from caloforge.evaluation.classifier import suite
    from caloforge.evaluation.scoring import evaluate_events, evaluate_run, folder_of_events, parse_sweep
    from caloforge.io.typed import write_typed
    from caloforge.training.devices import check_device

    check_device(device)
    files = [reference] if isinstance(reference, str | Path) else reference
    shared: dict[str, Any] = {
        "seed": seed,
        "device": device,
        "classifiers": suite(classifiers) if classifiers else None,
        "training": [samples.located(file) for file in data],
        "report": report,
    }
    references, path = [samples.located(file) for file in files], Path(target)
    if path.is_file() and (settings or sweeps or true_sums or replicas):
        raise ValueError(
            f"--set, --sweep, --true-sums and --replicas need a model, but {path} is an events file"
        )
    with tempfile.TemporaryDirectory() as temporary:
        if path.is_file():
            folder = Path(temporary) if out is None else Path(out).absolute().parent
            scores = evaluate_events(path, references, detector=detector, folder=folder, **shared)
        else:
            if events_folder is None:
                events_folder = temporary if out is None else folder_of_events(Path(out))
            scores = evaluate_run(
                run_path(target),
                references,
                repeats=repeats,
                batch_size=batch_size,
                settings=settings,
                sweeps=[parse_sweep(text) for text in sweeps],
                true_sums=true_sums,
                events_folder=Path(events_folder),
                trust=trust,
                replicas=replicas,
                **shared,
            )
    if out is not None:
        write_typed(out, scores)
    return scores
