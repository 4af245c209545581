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
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge import recipe as recipes
from caloforge import samples
from caloforge._lookup import nearest
from caloforge.detectors import Detector
from caloforge.events import Events, Primaries
from caloforge.io import open_events, open_primaries
from caloforge.io.run import Run
from caloforge.io.scores import Scores
from caloforge.io.source import named_primaries
from caloforge.runtime.bundle import Surrogate, is_bundle
from caloforge.runtime.domain import Domain
from caloforge.runtime.generate import Generated

Particles = Primaries | Mapping[str, Any] | str | Path
"""Primaries, a dictionary or data frame with a column a feature and `pdg`, or a file of any format."""


@dataclass(frozen=True, eq=False)
class Model:
    """A trained generator, ready to sample.

    Attributes:
        name: of the run or bundle.
        detector: the detector it imitates.
        domain: what it was trained on; None of a run of an older version.
        parameters: number of trained parameters; 0 where the card does not tell.
    """

    name: str
    detector: Detector
    domain: Domain | None
    parameters: int
    _generated: Callable[[Primaries, int, int, int | None], Generated[Primaries]]

    def __repr__(self) -> str:
        size = f", {self.parameters:,} parameters" if self.parameters else ""
        return f"<{self.name}: {self.detector.title}, {' x '.join(map(str, self.detector.shape))}{size}>"

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
        on_outside: str = "error",
    ) -> Events:
        """Generates one response for each particle.

        Args:
            particles: see `Particles`.
            seed: 0 to 2^64 - 1; event k is a function of the seed and k.
            first_event: number of the first particle's event.
            batch_size: events at once; 256, and of a bundle 32, where not given.
            on_outside: `error`, `warn` or `flag`: what to do about particles unlike those of the training.

        Raises:
            ValueError: particles that are none, of another detector, or (`error`) outside of the domain.
        """
        found = self.primaries(particles)
        source = self._generated(found, seed, first_event, batch_size)
        if self.domain is not None:
            self.domain.check(found, on_outside, lambda problem: warnings.warn(problem, stacklevel=4))
        return source.slices(slice(None))


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
    names = [str(name) for name in particles.keys()]  # noqa: SIM118 (of a data frame, its columns)

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
    threads: int = 1,
    trust: bool = False,
) -> Model:
    """Loads a trained generator.

    Args:
        name: weights that ship, a run folder or a bundle.
        settings: of a run, what may be changed after the training, such as "solver.steps=4".
        device: of a run, a PyTorch device.
        threads: of a bundle, threads of one batch.
        trust: run code outside the package that the run or bundle names.

    Raises:
        ValueError: nothing of that name, damaged, or no generator of responses.
        ImportError: a run without PyTorch; the message says what to install.
    """
    path = run_path(name)
    if is_bundle(path):
        if settings or device != "cpu":
            raise ValueError(
                "settings and device are for a run: a bundle is exported with its settings, for the CPU"
            )
        bundle = Surrogate.load(path, threads=threads, trust=trust)

        def of_bundle(found: Primaries, seed: int, first: int, batch: int | None) -> Generated[Primaries]:
            return bundle.source(found, seed=seed, first_event=first, batch_size=batch)

        size = int(bundle.card.get("parameters", 0))
        return Model(bundle.card["name"], bundle.detector, bundle.domain, size, of_bundle)
    from caloforge.models.base import Generator
    from caloforge.models.parts.inference import as_function
    from caloforge.training.checkpoint import load_model
    from caloforge.training.devices import check_device

    check_device(device)
    recipe, model = load_model(path, list(settings), trust=trust)
    if not isinstance(model, Generator):
        raise ValueError(f"{recipe.name} predicts channel sums only: wanted a generator of responses")
    forward, noise, card = as_function(model.to(device)), model.noise_dim, Run(path).card()

    def of_run(found: Primaries, seed: int, first: int, batch: int | None) -> Generated[Primaries]:
        return Generated(forward, noise, found, seed, first, batch or 256)

    domain = Domain.from_card(card.domain) if card.domain else None
    return Model(recipe.name, model.detector, domain, card.parameters, of_run)


def run_path(name: str | Path) -> Path:
    """Returns the folder of a run or bundle, or of weights that ship by their name.

    Raises:
        ValueError: neither; the message gives the nearest name.
    """
    shipped, path = samples.weights(), Path(name)
    if path.is_dir():
        return path
    if str(name) not in shipped or path.exists():
        raise ValueError(
            f"no run folder {name}, nor weights of that name that ship ({', '.join(shipped)})"
            f"{nearest(str(name), shipped)}"
        )
    return shipped[str(name)]


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
    from caloforge.io import create

    with create(path, events.detector, dict(origin or {})) as writer:
        writer.append(events)


def recipe_of(
    recipe: str | Path | recipes.Recipe,
    data: Sequence[str | Path],
    settings: Sequence[str],
    reference: Sequence[str | Path] = (),
) -> recipes.Recipe:
    """Returns a recipe, its file's or that which ships by its name, with other data and settings.

    Files that judge, `reference`, make it one of the split `files`.
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
    return recipes.parse(values)


def train(
    recipe: str | Path | recipes.Recipe,
    out: str | Path,
    *,
    data: Sequence[str | Path] = (),
    reference: Sequence[str | Path] = (),
    settings: Sequence[str] = (),
    resume: bool = False,
) -> Path:
    """Trains a model and leaves a run folder, which is returned.

    Args:
        recipe: a recipe, a TOML file, or the name of a recipe that ships.
        out: the run folder.
        data: training data in place of the recipe's.
        reference: files that judge: then every row of the training data trains, but for a small share that chooses the
            weights.
        settings: changes, such as "model.epochs=3".
        resume: go on from the folder's checkpoint.

    Raises:
        ValueError: a recipe or data that do not fit, a folder that holds another run.
    """
    from caloforge.training.loop import train as run_training

    run_training(recipe_of(recipe, data, settings, reference), Path(out), resume=resume)
    return Path(out)


def evaluate(
    target: str | Path,
    reference: str | Path | Sequence[str | Path],
    *,
    repeats: int = 5,
    seed: int = 0,
    settings: Sequence[str] = (),
    trust: bool = False,
) -> Scores:
    """Scores a model on rows that it was not trained on, or a file of generated events.

    Args:
        target: weights that ship, a run folder, or a file of events.
        reference: files of simulated events, or `sample:NAME`.
        repeats: how often a model generates every event.
        seed: of the first repeat.
        settings: of a model, what may be changed after the training.
        trust: run code outside the package that the run names.

    Returns:
        what `scores.json` holds.
    """
    import tempfile

    from caloforge.evaluation.scoring import evaluate_events, evaluate_run

    given = [reference] if isinstance(reference, str | Path) else reference
    references = [samples.located(one) for one in given]
    if Path(target).is_file():
        return evaluate_events(Path(target), references, seed=seed)
    with tempfile.TemporaryDirectory() as folder:  # nothing is left where the run lies
        return evaluate_run(
            run_path(target),
            references,
            repeats=repeats,
            seed=seed,
            settings=settings,
            events_folder=Path(folder),
            trust=trust,
        )
