"""`caloforge sample`: one response for each particle of a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from caloforge import __version__
from caloforge.cli.bars import counting, output, warn
from caloforge.cli.options import Columns, Device, Seed, Settings, Tree, Trust, layout_given, run_path
from caloforge.samples import located

if TYPE_CHECKING:
    from caloforge.events import ParticleSource
    from caloforge.io import Layout


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
    columns: Columns = None,
    tree: Tree = None,
) -> None:
    """Generate one response for each particle of a file, in constant memory."""
    from caloforge.runtime.bundle import is_bundle
    from caloforge.runtime.domain import check_choice

    path, layout = run_path(run), layout_given(columns, tree)
    if is_bundle(path):
        if settings or device != "cpu":
            raise ValueError(
                "--set and --device are for a run: a bundle is exported with its settings, for the CPU"
            )
        numbers = {"seed": seed, "first_event": first_event, "batch_size": batch_size, "exact": exact}
        _sample_bundle(path, primaries, out, threads or 1, on_outside, numbers, trust, layout)
        return
    if threads or exact:
        raise ValueError(f"--threads and --exact are for a bundle, and {run} is a run")
    check_choice(on_outside)
    batch_size = batch_size or 256

    from caloforge.evaluation.scoring import origin_of
    from caloforge.io import carried, create, open_particles
    from caloforge.io.content import trained_on
    from caloforge.io.run import Run
    from caloforge.models.base import Generator
    from caloforge.models.parts.inference import as_function
    from caloforge.runtime.generate import Generated, generate
    from caloforge.training.checkpoint import load_model
    from caloforge.training.devices import check_device

    check_device(device)
    recipe, model = load_model(path, settings or [], trust=trust)
    if not isinstance(model, Generator):
        raise ValueError(f"{run} predicts channel sums only: sample needs a generator of responses")
    particles = open_particles(located(primaries), model.detector, layout)
    source = Generated(
        as_function(model.to(device)), model.noise_dim, particles, seed, first_event, batch_size
    )
    card = Run(path).card()
    marks = _marks(card.name, card.domain, particles, on_outside)
    origin = {
        **origin_of(recipe),
        **trained_on(card.data),
        "weights": Run(path).check_weights(),
        **_outside(marks),
        "seed": seed,
        "first_event": first_event,
        "batch_size": batch_size,
        "device": device,
        "settings": settings or [],
        "version": __version__,
    }
    further = carried(located(primaries), model.detector, layout).read
    with create(out, model.detector, origin) as writer, counting("sample", len(particles)) as count:
        generate(source, writer, count, marks, further)
    output.print(f"wrote {len(particles)} events to {out}")


def _sample_bundle(
    path: Path,
    primaries: str,
    out: Path,
    threads: int,
    on_outside: str,
    numbers: dict[str, Any],
    trust: bool,
    layout: Layout | None,
) -> None:
    """Generates events with a bundle; PyTorch is not imported."""
    from caloforge.io import carried, create, open_particles
    from caloforge.runtime.bundle import Surrogate, origin_of_bundle
    from caloforge.runtime.domain import check_choice
    from caloforge.runtime.generate import generate

    check_choice(on_outside)
    surrogate = Surrogate.load(path, threads=threads, trust=trust)
    particles = open_particles(located(primaries), surrogate.detector, layout)
    source = surrogate.source(particles, **numbers)
    marks = _marks(surrogate.card["name"], surrogate.card["domain"], particles, on_outside)
    origin = {
        **origin_of_bundle(surrogate.card, path),
        **numbers,
        "batch_size": source.batch_size,
        **_outside(marks),
        "version": __version__,
    }
    further = carried(located(primaries), surrogate.detector, layout).read
    with create(out, surrogate.detector, origin) as writer, counting("sample", len(particles)) as count:
        generate(source, writer, count, marks, further)
    output.print(f"wrote {len(particles)} events to {out}")


def _marks(
    name: str, domain: Mapping[str, Any] | None, particles: ParticleSource, on_outside: str
) -> dict[str, Any]:
    """Returns the column that marks particles outside of the domain, where particles outside are allowed."""
    from caloforge.runtime.domain import Domain

    if domain is None:
        warn(f"the card of {name}, of an older version, has no domain: no particle is checked")
        return {}
    inside = Domain.from_card(domain).check(particles, on_outside, warn)
    return {} if on_outside == "error" else {"in_domain": inside}


def _outside(marks: dict[str, Any]) -> dict[str, int]:
    return {"outside_domain": int((~marks["in_domain"]).sum()) if marks else 0}
