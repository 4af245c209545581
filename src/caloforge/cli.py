"""The command line: verbs that meet through files only.

    simulate -> events file --train--> run folder --export--> bundle --sample--> events file --evaluate--> scores.json
    --report--> report.html, and `sample` takes the run folder as well

Every error of the user's making is one message on standard error and exit code 2.
"""

from __future__ import annotations

import shutil
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from caloforge import __version__, samples
from caloforge._errors import explained, one_line

if TYPE_CHECKING:
    from caloforge.detectors import Detector
    from caloforge.events import ParticleSource
    from caloforge.io import Summary
    from caloforge.recipe import Recipe
    from caloforge.runtime.production import Job
    from caloforge.training.loop import Progress as TrainingProgress

app = typer.Typer(
    name="caloforge",
    help="Fast generative surrogates of calorimeter simulation.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data = typer.Typer(
    help="Look at data files, convert and merge them.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(data, name="data")

output = Console(highlight=False, soft_wrap=True, markup=False)
messages = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)

Source = Annotated[
    str, typer.Argument(help="A data file, or sample:NAME for one that ships.", show_default=False)
]
RunArgument = Annotated[
    str, typer.Argument(help="A run folder, or the name of weights that ship.", show_default=False)
]
DetectorName = Annotated[
    str | None,
    typer.Option("--detector", help="The detector, where the file does not name it, as in a .csv."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH.TO.KEY=VALUE", help="Change a value of the recipe; may be repeated."),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Run code outside caloforge that a run or bundle names: if you trust its maker.",
    ),
]
Device = Annotated[str, typer.Option(help="PyTorch device: cpu, cuda, ...")]
Batch = Annotated[int, typer.Option("--batch-size", min=1, help="Events at once.")]
Seed = Annotated[int, typer.Option(min=0, max=2**64 - 1, help="Event k is a function of the seed and k.")]


def main() -> None:
    """Runs the command line; errors of the user's making exit with code 2, defects with code 1, each in one line."""
    # wherever it stands
    words = [word for word in sys.argv[1:] if word != "--traceback"]
    full = len(words) < len(sys.argv) - 1
    warnings.showwarning = _show
    try:
        code = app(words, prog_name="caloforge", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        messages.print("interrupted")
        sys.exit(130)
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            output.print(str(error))
            sys.exit(2)
        if full:
            traceback.print_exc()
        line, code = explained(error)
        messages.print(line)
    sys.exit(code)


def _version(wanted: bool) -> None:
    if wanted:
        output.print(f"caloforge {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    _: Annotated[
        bool, typer.Option("--traceback", help="Show where an error came from, for a report of a defect.")
    ] = False,
) -> None:
    """Fast generative surrogates of calorimeter simulation: train, sample, evaluate, report."""


def _warn(text: str) -> None:
    messages.print(f"warning: {one_line(text)}")


def _show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """Shows a warning as a line; those for programmers, of what libraries will drop, are none of the user's."""
    if issubclass(category, UserWarning) and not issubclass(category, DeprecationWarning):
        _warn(str(message))


def _data_path(name: str) -> Path:
    return samples.located(name)


def _run_path(name: str) -> Path:
    from caloforge.face import run_path

    return run_path(name)


@contextmanager
def _bar(unit: str) -> Iterator[Progress]:
    """Shows a progress bar on a terminal, and nothing elsewhere."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
    )
    bar = Progress(*columns, console=messages)
    with bar if messages.is_terminal else nullcontext():  # a bar that was never begun shows nothing
        yield bar


def _report_steps(bar: Progress) -> Callable[[str, int, int], None]:
    tasks: dict[str, Any] = {}

    def report(what: str, done: int, total: int) -> None:
        if what not in tasks:
            tasks[what] = bar.add_task(what, total=total, text="")
        bar.update(tasks[what], completed=done)

    return report


@data.command("inspect")
def inspect_command(file: Source, detector: DetectorName = None) -> None:
    """Show what a data file holds; every row is read and checked."""
    from caloforge.io import open_data, summarize
    from caloforge.runtime.doubts import doubts

    found = open_data(_data_path(file), _detector(detector))
    _print_summary(summarize(found), file)
    for doubt in doubts(found):
        _warn(doubt)


def _detector(name: str | None) -> Detector | None:
    from caloforge.detectors import detector_named

    return detector_named(name) if name else None


def _print_summary(summary: Summary, file: str) -> None:
    def show(title: str, rows: Sequence[tuple[str, ...]]) -> None:
        table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
        for row in rows:
            table.add_row(*row)
        output.print(table)
        output.print()

    least, median, greatest = summary.repeats
    rows = [
        ("detector", summary.detector),
        ("events", f"{summary.rows:,}"),
        ("unique particles", f"{summary.particles:,}, of which {summary.repeated:,} with at least 10 events"),
        ("events a particle", f"{least} to {greatest}, median {median:g}"),
    ]
    if summary.energy is not None:
        low, mean, high = summary.energy
        unit = summary.energy_unit
        rows.append(("energy", f"{low:.4g} to {high:.4g} {unit}, mean {mean:.4g} {unit}"))
    if summary.folds:
        rows.append(("folds", " ".join(f"{fold}:{count}" for fold, count in summary.folds.items())))
    show(file, rows)
    show("particles", [(name, f"{100 * share:.2f} %") for name, share in summary.mix.items()])
    if summary.responses is None:
        return
    found = summary.responses
    show(
        f"sum of {found.unit}, quantiles",
        [(f"{100 * probability:g} %", f"{value:g}") for probability, value in found.quantiles.items()],
    )
    show(
        "cells",
        [
            ("lit", f"{found.lit:.1f} on average, {100 * found.occupancy:.2f} % of all"),
            ("counts", "whole numbers" if found.whole else "not whole numbers"),
        ],
    )
    for name, means in found.channels.items():
        show(
            f"mean of each channel, map {name}",
            [(label, f"{value:.2f} {found.unit}") for label, value in means.items()],
        )


@data.command("convert")
def convert_command(
    source: Source,
    out: Annotated[
        Path, typer.Argument(help="The file to write; its suffix names the format.", show_default=False)
    ],
    particles: Annotated[
        Path | None,
        typer.Option(help="The particles of a pair of npz files, where not beside the responses."),
    ] = None,
    detector: DetectorName = None,
) -> None:
    """Convert a data file to another format: .h5, .npz, .parquet, .root, .csv."""
    from caloforge.io import convert

    path = _data_path(source)
    with _bar("events") as bar:
        task = bar.add_task("convert", total=None, text="")
        events = convert(
            path, out, _detector(detector), particles, lambda done: bar.update(task, completed=done)
        )
    output.print(f"wrote {events} events to {out}")


@data.command("merge")
def merge_command(
    sources: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="Files of one detector.", show_default=False)
    ],
    out: Annotated[Path, typer.Argument(help="The file to write.", show_default=False)],
) -> None:
    """Write the rows of several files into one; shards of one job in the order of their events."""
    from caloforge.io import merge

    with _bar("events") as bar:
        task = bar.add_task("merge", total=None, text="")
        events = merge(
            [_data_path(name) for name in sources], out, lambda done: bar.update(task, completed=done)
        )
    output.print(f"wrote {events} events to {out}")


@app.command("simulate")
def simulate_command(
    detector: Annotated[
        str,
        typer.Argument(
            help="ds2, ds3, ds2+ds3 (one file each, of the same showers), crystals, or package.module:FUNCTION.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Argument(help="The events file to write.", show_default=False)],
    events: Annotated[int, typer.Option(min=1, help="How many.", show_default=False)],
    energy: Annotated[
        tuple[float, float],
        typer.Option(
            metavar="LOW HIGH", help="Kinetic energies, in GeV; of crystals in MeV.", show_default=False
        ),
    ],
    particle: Annotated[
        str | None,
        typer.Option(help="In Geant4's words: e+, gamma, pi+ [default: the detector's].", show_default=False),
    ] = None,
    spectrum: Annotated[str, typer.Option(metavar="log|flat|fixed", help="How energies are spread.")] = "log",
    theta: Annotated[
        tuple[float, float] | None,
        typer.Option(
            metavar="LOW HIGH",
            help="Angles to the axis in rad [default: the detector's].",
            show_default=False,
        ),
    ] = None,
    phi: Annotated[
        tuple[float, float] | None,
        typer.Option(
            metavar="LOW HIGH", help="Azimuths in rad [default: the detector's].", show_default=False
        ),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes at once.")] = 1,
    seed: Seed = 0,
    cut: Annotated[float, typer.Option(help="Range cut of Geant4 in mm.")] = 0.7,
    physics: Annotated[
        str, typer.Option(help="G4EmStandardPhysics, the same with _option1 to 4, FTFP_BERT or QGSP_BERT.")
    ] = "G4EmStandardPhysics",
    scoring: Annotated[
        str | None,
        typer.Option(
            metavar="steps|replicas",
            help="Of ds2 and ds3: cells by the middle of a step, or cut into the silicon, in half the time "
            "[default: replicas; of ds2+ds3 steps].",
            show_default=False,
        ),
    ] = None,
    part: Annotated[int, typer.Option(min=1, help="Events of a part; other parts are other events.")] = 50,
    fast: Annotated[
        Path | None,
        typer.Option(
            metavar="BUNDLE",
            help="Of ds2 and ds3: a bundle draws the showers that it was trained on, in place of Geant4.",
            show_default=False,
        ),
    ] = None,
    g4data: Annotated[
        Path | None,
        typer.Option(
            help="The folder of Geant4's data sets [default: GEANT4_DATA_DIR, G4LEDATA and so on, geant4-config, "
            "~/.geant4_pybind].",
            show_default=False,
        ),
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Fetch the official data sets that are missing.")
    ] = False,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with what is there, up to as many events as are asked for."),
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the parts, to simulate more events later.")
    ] = False,
) -> None:
    """Simulate events with Geant4 (extra geant4); part k is a function of seed and k."""
    from caloforge.simulate import Job, simulate
    from caloforge.simulate.geometry import setup_named
    from caloforge.simulate.produce import wheel_version

    wheel_version()
    setup = setup_named(detector, scoring)
    job = Job(
        detector,
        particle or setup.particle,
        energy,
        spectrum,  # type: ignore[arg-type]
        setup.theta if theta is None else theta,
        setup.phi if phi is None else phi,
        seed,
        cut,
        physics,
        scoring,
        part,
        str(fast.resolve()) if fast else None,
    )
    job.check(setup)
    if download:
        _download_data(physics, g4data)
    with _bar("events") as bar:
        task = bar.add_task("simulate", total=events, text="")
        files = simulate(
            job,
            out,
            events,
            jobs=jobs,
            g4data=g4data,
            resume=resume,
            keep=keep,
            progress=lambda done, total: bar.update(task, completed=done),
        )
    for file in files:
        output.print(f"wrote {events} events to {file}")
    _warn_of_substitutes(files[0])


def _download_data(physics: str, g4data: Path | None) -> None:
    from caloforge.simulate.physics import download, download_folder

    folder = g4data or download_folder()
    with _bar("bytes") as bar:
        for name in download(physics, folder, progress=_report_steps(bar)):
            output.print(f"wrote {folder / name}")


def _warn_of_substitutes(file: Path) -> None:
    from caloforge.io import provenance

    if provenance(file)["data_sets"]["origin"] == "substitutes":
        messages.print("the data sets are substitutes, not Geant4's own: say so wherever these events go")


class TrainingBar:
    """Shows a training: a bar on a terminal, a line an epoch elsewhere."""

    def __init__(self) -> None:
        self._live = messages.is_terminal
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            console=messages,
            disable=not self._live,
        )
        self._bar.start()
        self._task: Any = None
        self._stage = ""

    def __call__(self, progress: TrainingProgress) -> None:
        """Shows one step."""
        values = " ".join(f"{key} {value:.4g}" for key, value in progress.values.items())
        minutes, seconds = divmod(int(progress.remaining), 60)
        text = f"{values}  {progress.samples_per_second:.0f} samples/s  {minutes}:{seconds:02d} left"
        done = (progress.epoch - 1) * progress.steps + progress.step
        total = progress.epochs * progress.steps
        if self._stage != progress.stage:
            self._task = self._bar.add_task(progress.stage, total=total, text="")
            self._stage = progress.stage
        label = f"{progress.stage} epoch {progress.epoch}/{progress.epochs}"
        self._bar.update(self._task, description=label, completed=done, text=text)
        if progress.step == progress.steps and not self._live:
            messages.print(f"{label}  {text}")
        if done == total:
            self._bar.stop_task(self._task)
            self._bar.refresh()


@app.command()
def train(
    recipe: Annotated[
        str, typer.Argument(help="A TOML file, or the name of a recipe that ships.", show_default=False)
    ],
    files: Annotated[
        list[str] | None,
        typer.Option(
            "--data", help="Training data in place of the recipe's; may be repeated.", show_default=False
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run folder [default: runs/NAME].", show_default=False)
    ] = None,
    settings: Settings = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
) -> None:
    """Train a model by a recipe; leaves a run folder."""
    parsed = _recipe(recipe, files, settings)
    folder = out or Path("runs") / parsed.name

    from caloforge.training.loop import train as run_training

    try:
        run_training(parsed, folder, resume=resume, reporter=TrainingBar)
    except KeyboardInterrupt:
        messages.print(
            f"interrupted; go on with: caloforge train {recipe} --out {folder} --resume (and the same options)"
        )
        sys.exit(130)
    output.print(f"wrote {folder}")


def _recipe(name: str, files: list[str] | None, settings: list[str] | None) -> Recipe:
    """Reads a recipe with the changes of the command line."""
    from caloforge.face import recipe_of

    return recipe_of(name, files or [], settings or [])


@app.command()
def tune(
    recipe: Annotated[
        str, typer.Argument(help="A TOML file, or the name of a recipe that ships.", show_default=False)
    ],
    space: Annotated[
        str,
        typer.Option(
            help="The search space: a TOML file, or the name of one that ships.", show_default=False
        ),
    ],
    trials: Annotated[
        int | None,
        typer.Option(
            min=1, help="Begin no trial when the study holds so many that have ended.", show_default=False
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(min=0, help="Begin no trial after so many seconds.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The study folder [default: studies/NAME].", show_default=False)
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.log|URL",
            help="What workers share: a journal file, or a database such as sqlite:///FILE "
            "[default: OUT/journal.log].",
            show_default=False,
        ),
    ] = None,
    study: Annotated[
        str | None,
        typer.Option(help="Name of the study in the storage [default: the recipe's].", show_default=False),
    ] = None,
    files: Annotated[
        list[str] | None,
        typer.Option(
            "--data", help="Training data in place of the recipe's; may be repeated.", show_default=False
        ),
    ] = None,
    settings: Settings = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the run folders of the trials.")] = False,
) -> None:
    """Search a recipe's settings as one worker of a study; the same command again goes on with it."""
    from caloforge.training.space import read_space

    parsed = _recipe(recipe, files, settings)
    found = read_space(space)
    folder = out or Path("studies") / (study or parsed.name)

    from caloforge.training.tune import BEST, best_of
    from caloforge.training.tune import tune as run_study

    def show(record: dict[str, Any]) -> None:
        seen = [value for _, value in record["validations"]]
        reached = record["value"] if record["value"] is not None else min(seen, default=None)
        text = record["reason"] or f"{found.objective} {reached:.4g}"
        keys = " ".join(f"{path}={_short(value)}" for path, value in record["parameters"].items())
        messages.print(f"trial {record['number']} {record['state']}: {text}  {keys}")

    try:
        result = run_study(
            parsed, found, folder, storage=storage, name=study, trials=trials, timeout=timeout, keep=keep,
            report=show,
        )  # fmt: skip
    except KeyboardInterrupt:
        messages.print("interrupted; the same command goes on with the study")
        sys.exit(130)
    best = best_of(result["trials"])
    ended = sum(record["state"] != "running" for record in result["trials"])
    if best is None:
        output.print(f"{ended} trials, none of them finished: see {folder}")
        return
    output.print(
        f"{ended} trials; the best is {best['number']}, {found.objective} {best['value']:.4g}: "
        f"wrote {folder / BEST}"
    )


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


@app.command()
def sample(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN|BUNDLE",
            help="A run folder, the name of weights that ship, or a bundle.",
            show_default=False,
        ),
    ],
    primaries: Annotated[str, typer.Argument(help="Particles: any data file, .csv too.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="The events file to write.", show_default=False)],
    seed: Seed = 0,
    first_event: Annotated[
        int, typer.Option(min=0, help="Number of the first particle's event, for a shard or a resumed job.")
    ] = 0,
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size", min=1, help="Events at once [default: 256; of a bundle 32].", show_default=False
        ),
    ] = None,
    device: Device = "cpu",
    settings: Settings = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of a bundle [default: 1].", show_default=False)
    ] = None,
    exact: Annotated[
        bool,
        typer.Option("--exact", help="Fill every batch of a bundle up, however few events are asked for."),
    ] = False,
    on_outside: Annotated[
        str,
        typer.Option(
            metavar="error|warn|flag",
            help="Particles unlike those of the training: refuse them, or generate and mark them "
            "in the column in_domain, with or without a warning.",
        ),
    ] = "error",
    trust: Trust = False,
) -> None:
    """Generate one response for each particle of a file, in constant memory."""
    from caloforge.runtime.bundle import is_bundle
    from caloforge.runtime.domain import check_choice

    path = _run_path(run)
    if is_bundle(path):
        if settings or device != "cpu":
            raise ValueError(
                "--set and --device are for a run: a bundle is exported with its settings, for the CPU"
            )
        numbers = {"seed": seed, "first_event": first_event, "batch_size": batch_size, "exact": exact}
        _sample_bundle(path, primaries, out, threads or 1, on_outside, numbers, trust)
        return
    if threads or exact:
        raise ValueError(f"--threads and --exact are for a bundle, and {run} is a run")
    check_choice(on_outside)
    batch_size = batch_size or 256

    from caloforge.evaluation.scoring import origin_of
    from caloforge.io import carried, create, open_particles
    from caloforge.io.run import Run
    from caloforge.models.base import Generator, as_function
    from caloforge.runtime.generate import Generated, generate
    from caloforge.training.checkpoint import load_model
    from caloforge.training.devices import check_device

    check_device(device)
    recipe, model = load_model(path, settings or [], trust=trust)
    if not isinstance(model, Generator):
        raise ValueError(f"{run} predicts channel sums only: sample needs a generator of responses")
    particles = open_particles(_data_path(primaries), model.detector)
    source = Generated(
        as_function(model.to(device)), model.noise_dim, particles, seed, first_event, batch_size
    )
    marks = _marks(Run(path).card(), particles, on_outside)
    origin = {
        **origin_of(recipe),
        "weights": Run(path).check_weights(),
        **_outside(marks),
        "seed": seed,
        "first_event": first_event,
        "batch_size": batch_size,
        "device": device,
        "settings": settings or [],
        "version": __version__,
    }
    columns = carried(_data_path(primaries)).read
    with create(out, model.detector, origin) as writer, _bar("events") as bar:
        task = bar.add_task("sample", total=len(particles), text="")
        generate(source, writer, lambda done: bar.update(task, completed=done), marks, columns)
    output.print(f"wrote {len(particles)} events to {out}")


def _sample_bundle(
    path: Path,
    primaries: str,
    out: Path,
    threads: int,
    on_outside: str,
    numbers: dict[str, Any],
    trust: bool,
) -> None:
    """Generates events with a bundle; PyTorch is not imported."""
    from caloforge.io import carried, create, open_particles
    from caloforge.runtime.bundle import Surrogate, origin_of_bundle
    from caloforge.runtime.domain import check_choice
    from caloforge.runtime.generate import generate

    check_choice(on_outside)
    surrogate = Surrogate.load(path, threads=threads, trust=trust)
    particles = open_particles(_data_path(primaries), surrogate.detector)
    source = surrogate.source(particles, **numbers)
    marks = _marks(surrogate.card, particles, on_outside)
    origin = {
        **origin_of_bundle(surrogate.card, path),
        **numbers,
        "batch_size": source.batch_size,
        **_outside(marks),
        "version": __version__,
    }
    columns = carried(_data_path(primaries)).read
    with create(out, surrogate.detector, origin) as writer, _bar("events") as bar:
        task = bar.add_task("sample", total=len(particles), text="")
        generate(source, writer, lambda done: bar.update(task, completed=done), marks, columns)
    output.print(f"wrote {len(particles)} events to {out}")


def _marks(card: Mapping[str, Any], particles: ParticleSource, on_outside: str) -> dict[str, Any]:
    """Returns the column that marks particles outside of the domain, where particles outside are allowed."""
    from caloforge.runtime.domain import Domain

    if "domain" not in card:
        _warn(f"the card of {card['name']}, of an older version, has no domain: no particle is checked")
        return {}
    inside = Domain.from_card(card["domain"]).check(particles, on_outside, _warn)
    return {} if on_outside == "error" else {"in_domain": inside}


def _outside(marks: dict[str, Any]) -> dict[str, int]:
    return {"outside_domain": int((~marks["in_domain"]).sum()) if marks else 0}


@app.command("generate")
def generate_command(
    primaries: Annotated[
        str, typer.Argument(help="Particles: any data file, .hepmc and .csv too.", show_default=False)
    ],
    out: Annotated[Path, typer.Argument(help="The file to write: .h5, .root, .parquet.", show_default=False)],
    bundle: Annotated[Path, typer.Option(help="The bundle.", show_default=False)],
    seed: Seed = 0,
    first_event: Annotated[int, typer.Option(min=0, help="Number of the first particle's event.")] = 0,
    readout: Annotated[
        str, typer.Option(metavar="responses|channels|both", help="What is written of each event.")
    ] = "responses",
    jobs: Annotated[int, typer.Option(min=1, help="Processes of this machine.")] = 1,
    shard: Annotated[
        str, typer.Option(metavar="I/N", help="Generate one of N shares, I from 0, into a file of its own.")
    ] = "0/1",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what a job has left, if any.")] = False,
    part: Annotated[int, typer.Option(min=1024, help="Rows that are lost at most with a worker.")] = 4096,
    on_outside: Annotated[
        str,
        typer.Option(
            metavar="error|warn|flag",
            help="Particles unlike those of the training: refuse them, or mark them in in_domain.",
        ),
    ] = "flag",
    dask: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Scheduler of a Dask cluster.", show_default=False)
    ] = None,
    write_submit: Annotated[
        str | None,
        typer.Option(
            metavar="htcondor|slurm",
            help="Write a submit file beside OUT that generates --shards shards, and do nothing else.",
            show_default=False,
        ),
    ] = None,
    shards: Annotated[int, typer.Option(min=1, help="Shards of a submit file.")] = 10,
    transfer: Annotated[
        bool,
        typer.Option(
            "--transfer", help="With --write-submit htcondor: copy the files, for sites that share no disk."
        ),
    ] = False,
    trust: Trust = False,
) -> None:
    """Generate a production: in parts, by many workers; what is killed is resumed, to the same bytes."""
    from caloforge.io import open_particles
    from caloforge.runtime import cluster
    from caloforge.runtime.bundle import Surrogate
    from caloforge.runtime.domain import check_choice
    from caloforge.runtime.production import Job, Shard, check_production, processes, produce

    check_choice(on_outside)
    if transfer and not write_submit:
        raise ValueError("--transfer is for a submit file: it goes with --write-submit htcondor")
    job = Job(bundle.absolute(), seed, first_event, readout, part, trust)  # type: ignore[arg-type]
    share, path = Shard.parse(shard), _data_path(primaries)
    if dask and jobs > 1:
        raise ValueError("--jobs is for processes of this machine, --dask for those of a cluster")
    if dask:
        cluster.check_address(dask)
    surrogate = Surrogate.load(bundle, trust=trust)
    particles = open_particles(path, surrogate.detector)
    check_production(job, particles, out.absolute(), shards if write_submit else 1)
    if write_submit:
        _write_submit(write_submit, job, path, out, shards, jobs, on_outside, transfer)
        return
    if on_outside != "flag":  # parts mark them as they are made
        surrogate.domain.check(particles, on_outside, _warn)
    workers = cluster.dask(dask) if dask else processes(jobs) if jobs > 1 else None
    with _bar("events") as bar:
        task = bar.add_task("generate", total=None, text="")
        written = produce(
            job,
            particles,
            path,
            out.absolute(),
            shard=share,
            workers=workers,
            resume=resume,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
            say=_warn,
        )
    output.print(f"wrote {written}")


def _write_submit(
    system: str,
    job: Job,
    primaries: Path,
    out: Path,
    shards: int,
    jobs: int,
    on_outside: str,
    transfer: bool,
) -> None:
    """Writes a submit file beside the output, and says what to do with it."""
    from caloforge.io.files import write_text
    from caloforge.runtime.cluster import Transfer, submit_file
    from caloforge.runtime.production import Shard

    inputs, target = (primaries.absolute(), job.bundle), out.absolute()
    copied = Transfer(inputs, target, shards) if transfer else None
    # what a transferred job sees are base names in its working folder
    events, bundle, result = (path.name if transfer else str(path) for path in (*inputs, target))
    # -P keeps the working folder, where anybody's files may lie, off the import path
    command = [sys.executable, "-P", "-m", "caloforge", "generate", events, result]
    settings = {
        "bundle": bundle,
        "seed": job.seed,
        "first-event": job.first_event,
        "readout": job.readout,
        "part": job.part,
        "jobs": jobs,
        "on-outside": on_outside,
    }
    command += [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    command += ["--trust"] if job.trust else []
    file = out.with_suffix(".sub" if system == "htcondor" else ".sh")
    write_text(file, submit_file(system, [*command, "--resume"], shards, cores=jobs, transfer=copied))
    last = Shard(shards - 1, shards).output(out)
    output.print(f"wrote {file}: {'condor_submit' if system == 'htcondor' else 'sbatch'} {file}")
    output.print(f"then caloforge data merge {Shard(0, shards).output(out)} ... {last} {out}")


@app.command("export")
def export_command(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="A run folder, or the name of weights that ship; for o2 one of ZN and one of ZP.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="The folder to write.", show_default=False)],
    target: Annotated[
        str,
        typer.Option(
            metavar="bundle|o2|geant4",
            help="A bundle for `sample`, what ALICE O2 takes, or a bundle that fits Geant4's Par04.",
        ),
    ] = "bundle",
    zero: Annotated[
        str | None,
        typer.Option(
            help="The run of a zero response: which primaries leave a response at all.", show_default=False
        ),
    ] = None,
    settings: Settings = None,
    files: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            help="The training data, where they are no longer where they were; may be repeated.",
            show_default=False,
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="For o2: probability of a response below which the classifier says none [default: 1e-4].",
            show_default=False,
        ),
    ] = None,
    trust: Trust = False,
    a_side: Annotated[
        str | None,
        typer.Option(
            metavar="full-simulation|image",
            help="For o2: towers of the A side as full simulation has them since April 2024, or as before "
            "[default: full-simulation].",
            show_default=False,
        ),
    ] = None,
    unknown: Annotated[
        str | None,
        typer.Option(
            metavar="dark|as-is",
            help="For o2: species that were never trained on, such as nuclei, leave no response, or what the "
            "models say [default: dark].",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write a trained model as ONNX: a bundle, which `sample` runs without PyTorch, or files for a host."""
    paths = [_run_path(run) for run in runs]
    classifier = _run_path(zero) if zero else None
    if target not in ("bundle", "o2", "geant4"):
        raise ValueError(f"--target must be one of bundle, o2, geant4, got {target!r}")
    only_o2 = {"threshold": threshold, "a_side": a_side, "unknown": unknown}
    chosen: dict[str, Any] = {name: value for name, value in only_o2.items() if value is not None}
    if chosen and target != "o2":
        option = next(iter(chosen)).replace("_", "-")
        raise ValueError(f"--{option} is for --target o2, not for {target}")
    if target == "o2" and (settings or files):
        raise ValueError("--set and --data are for a bundle, not for --target o2")
    if target == "o2":
        from caloforge.export.o2 import export_o2

        if classifier is None:
            raise ValueError("--target o2 needs the zero response: --zero RUN")
        export_o2(paths, classifier, out, **chosen)
        output.print(f"wrote {out}: classifier, neutron and proton, each with its scales")
        return
    if len(paths) != 1:
        raise ValueError(f"--target {target} takes one run, got {len(paths)}")
    from caloforge.export import export

    data = [_data_path(file) for file in files or []]
    card = export(
        paths[0],
        out,
        settings=settings or [],
        data=data,
        zero=classifier,
        trust=trust,
        geant4=target == "geant4",
    )
    found = card["agreement"]
    output.print(
        f"wrote {out}: ONNX Runtime and PyTorch agree to {found['log1p_difference']:.1e} in ln(1 + count), "
        f"{found['flipped_counts']} of {found['cells']} counts differ"
    )


@app.command()
def evaluate(
    target: Annotated[
        str,
        typer.Argument(
            metavar="RUN|EVENTS",
            help="A run folder, the name of weights that ship, or an events file.",
            show_default=False,
        ),
    ],
    reference: Annotated[
        list[str], typer.Option(help="GEANT events to compare with; may be repeated.", show_default=False)
    ],
    repeats: Annotated[int, typer.Option(min=1, help="How often every event is generated.")] = 5,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The scores [default: scores.json in the run folder; of weights that ship NAME.scores.json here].",
            show_default=False,
        ),
    ] = None,
    seed: Seed = 0,
    batch_size: Batch = 256,
    device: Device = "cpu",
    settings: Settings = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH=V1,V2,...",
            help="Repeat over a setting, the others as they are: solver.steps=1,2,4,8, or, with one that goes along, "
            "'solver.method=midpoint solver.steps=1,2'; may be repeated.",
        ),
    ] = None,
    detector: DetectorName = None,
    classifiers: Annotated[
        str | None,
        typer.Option(
            metavar="small|full|paper",
            help="Of showers: also train classifiers of generated against simulated ones.",
            show_default=False,
        ),
    ] = None,
    true_sums: Annotated[
        bool, typer.Option(help="Give the generator the photon sum of each test response; flows can take it.")
    ] = False,
    trust: Trust = False,
) -> None:
    """Score a model on rows it was not trained on, or a file of generated events against a reference."""
    from caloforge.evaluation.classifier import suite
    from caloforge.evaluation.scoring import evaluate_events, evaluate_run, parse_sweep
    from caloforge.io.files import write_json
    from caloforge.training.devices import check_device

    check_device(device)
    networks = suite(classifiers) if classifiers else None

    references = [_data_path(name) for name in reference]
    if Path(target).is_file():
        path = Path(target)
        if settings or sweep or true_sums:
            raise ValueError(f"--set, --sweep and --true-sums need a model, but {path} is an events file")
        with _bar("repeats") as bar:
            scores = evaluate_events(
                path,
                references,
                detector=_detector(detector),
                seed=seed,
                classifiers=networks,
                device=device,
                report=_report_steps(bar),
            )
        out = out or path.with_suffix(".scores.json")
    else:
        path = _run_path(target)
        shipped = path == samples.weights().get(target)
        name = "true_sums" if true_sums else "scores"
        out = out or (Path(f"{target}.{name}.json") if shipped else path / f"{name}.json")
        if _is_classifier(path):
            _evaluate_classifier(path, references, out, trust)
            return
        events_folder = _events_folder(out) if shipped else None
        changes = [parse_sweep(one) for one in sweep or []]
        with _bar("repeats") as bar:
            scores = evaluate_run(
                path,
                references,
                repeats=repeats,
                seed=seed,
                batch_size=batch_size,
                device=device,
                settings=settings or [],
                sweeps=changes,
                report=_report_steps(bar),
                classifiers=networks,
                true_sums=true_sums,
                events_folder=events_folder,
                trust=trust,
            )
    write_json(out, scores)
    _print_scores(scores, trust)
    output.print(f"wrote {out}")


def _is_classifier(path: Path) -> bool:
    from caloforge.io.run import Run

    return bool(Run(path).card()["kind"] == "classifier")


def _evaluate_classifier(path: Path, references: list[Path], out: Path, trust: bool) -> None:
    """Scores a zero response, whose references are files of trials."""
    from caloforge.evaluation.zero_response import evaluate_classifier
    from caloforge.io.files import write_json

    scores = evaluate_classifier(path, references, trust=trust)
    write_json(out, scores)
    header = ("outcome", "trials", "observed", "predicted", "Brier", "repeated: Brier", "floor", "ROC AUC")
    for stem, entry in scores["sets"].items():
        table = Table(*header, title=f"{stem}: {scores['split']} split, test rows", title_justify="left")
        for name, found in entry["outcomes"].items():
            every, repeated = found["all"], found["repeated"]
            values = (every["observed"], every["predicted"], found["brier"], *repeated.values(), found["auc"])
            cells = ["-" if value is None else f"{value:.4f}" for value in values]
            table.add_row(name, f"{every['trials']:,}", *cells)
        Console(width=max(output.width, 120), highlight=False, markup=False).print(table)
    output.print(f"wrote {out}")


def _events_folder(scores: Path) -> Path:
    """Returns the folder beside a file of scores that keeps the events that were scored.

    Raises:
        ValueError: a folder of that name is there, and no scores beside it that it could belong to.
    """
    folder = scores.with_name(f"{scores.stem}.events")
    if folder.exists() and not scores.is_file():
        raise ValueError(
            f"{folder} is there already, and no {scores.name} that it belongs to: choose another --out"
        )
    return folder


def _print_scores(scores: dict[str, Any], trust: bool) -> None:
    from caloforge.detectors import detector_named
    from caloforge.report.tables import console, scores_table, showers_table

    showers = detector_named(scores["detector"], trust=trust).layers and scores["kind"] != "readout"
    for stem in scores["sets"]:
        table_of = showers_table([scores], stem) if showers else scores_table([scores], stem)
        header, *rows = console(table_of)
        table = Table(
            *header, title=f"{stem}: {scores['split']} split, {scores['part']} rows", title_justify="left"
        )
        for row in rows:
            table.add_row(*row)
        Console(width=max(output.width, 40 + 12 * len(header)), highlight=False, markup=False).print(table)
        for note in table_of.notes if showers else ():
            output.print(note)


@app.command()
def report(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="Evaluated run folders, scores of events files, and studies of `tune`.", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
    reference: Annotated[
        list[str] | None,
        typer.Option(help="Where a reference now lies, if not where it was.", show_default=False),
    ] = None,
    pdf: Annotated[
        bool, typer.Option("--pdf", help="Also print the page as a PDF (needs Chromium).")
    ] = False,
    trust: Trust = False,
) -> None:
    """Write one self-contained page: runs side by side with floors, figures and published results; studies."""
    from caloforge.report import write_report

    paths = [Path(run) if Path(run).is_file() else _run_path(run) for run in runs]
    for path in paths:
        if (path / "card.json").is_file() and _is_classifier(path):
            raise ValueError(f"{path} is a classifier: a report compares generators and readouts")
    references = {path.stem: path for path in map(_data_path, reference or [])}
    write_report(paths, out, references, trust, pdf)
    output.print(f"wrote {out}{' and ' + str(out.with_suffix('.pdf')) if pdf else ''}")


@app.command()
def compare(
    out: Annotated[Path, typer.Argument(help="The folder of the comparison.", show_default=False)],
    plan: Annotated[
        str, typer.Option(help="What is compared: a TOML file, or the name of a plan that ships.")
    ] = "papers",
    files: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            help="Events to train on and to compare with, in place of its detector's sample; may be repeated.",
            show_default=False,
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Of the plan's models only this one; may be repeated.", show_default=False),
    ] = None,
    shipped: Annotated[
        bool,
        typer.Option(
            "--shipped", help="Train nothing: only models whose weights ship, or that were trained."
        ),
    ] = False,
    page: Annotated[
        Path | None, typer.Option(help="The page to write [default: OUT/results.md].", show_default=False)
    ] = None,
) -> None:
    """Train, score and time every model of a plan and write one page; the same command again goes on."""
    from caloforge.comparison import Comparing, data_by_detector, read_plan

    found = read_plan(plan).restricted(only or [])
    data = data_by_detector([_data_path(name) for name in files or []])
    command = ["caloforge compare", out.name, f"--plan {Path(plan).name}" if plan != "papers" else ""]
    command += [f"--data {Path(name).name}" for name in files or []]
    command += [f"--only {name}" for name in only or []] + (["--shipped"] if shipped else [])

    def say(text: str) -> None:
        messages.print(text)

    comparing = Comparing(found, out, data, train=not shipped, say=say)
    written = comparing.run(page, " ".join(filter(None, command)))
    output.print(f"wrote {written} and {written.with_suffix('.html')}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where runs, events and the report go.")] = Path("caloforge-demo"),
    detector: Annotated[str, typer.Option(help="zp, or zn, which takes three times as long.")] = "zp",
) -> None:
    """Run every verb on the sample and the weights that ship: under five minutes on two cores."""
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty: choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    shipped = f"{detector}-factorized_flow_matching"
    references = [f"sample:{detector}_wide", f"sample:{detector}"]
    runs = {name: str(out / name) for name in (shipped, "miniature", "resample", "nearest")}

    output.rule("1. look at the data")
    inspect_command(references[0])
    output.rule("2. train a miniature and two yardsticks")
    miniature = [
        "name=miniature",
        "model.epochs=1",
        "model.validation_events=256",
        "training.validate_every=1",
    ]
    train(f"{detector}-flow_matching", out=Path(runs["miniature"]), settings=miniature)
    for yardstick in ("resample", "nearest"):
        train(f"{detector}-{yardstick}", out=Path(runs[yardstick]))
    output.rule("3. generate events with the weights that ship")
    shutil.copytree(_run_path(shipped), runs[shipped])
    sample(runs[shipped], references[1], out / "events.h5")
    output.rule("4. evaluate")
    for name, run in runs.items():
        sweep = ["image.solver.steps=1,2"] if name == shipped else []
        evaluate(run, references, repeats=2, sweep=sweep)
    output.rule("5. report")
    report(list(runs.values()), out=out / "report.html")
    output.print(f"open {(out / 'report.html').resolve()}")


@app.command()
def info() -> None:
    """Show versions, devices, and what there is: detectors, models, recipes, samples, weights."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    from caloforge.detectors import DETECTORS
    from caloforge.recipe import packaged

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("caloforge", __version__)
    table.add_row("python", platform.python_version())
    for package in (
        "numpy",
        "h5py",
        "onnxruntime",
        "torch",
        "lightning-fabric",
        "matplotlib",
        "optuna",
        "pyarrow",
        "uproot",
    ):
        try:
            table.add_row(package, version(package))
        except PackageNotFoundError:
            table.add_row(package, "not installed")
    table.add_row("detectors", ", ".join(DETECTORS))
    try:
        from caloforge.models import CLASSIFIERS, MODELS, READOUTS
    except ImportError:
        pass
    else:
        import torch

        cuda = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        table.add_row("devices", ", ".join(["cpu", *cuda]))
        table.add_row("models", ", ".join(MODELS))
        table.add_row("readouts", ", ".join(READOUTS))
        table.add_row("classifiers", ", ".join(CLASSIFIERS))
    table.add_row("recipes", ", ".join(packaged()))
    table.add_row("samples", ", ".join((*samples.SAMPLES, samples.TRIALS)))
    table.add_row("weights", ", ".join(samples.weights()) or "none")
    output.print(table)
