"""`caloforge sample`: one response for each particle of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from caloforge.cli import commands
from caloforge.cli.bars import counting, output, warn
from caloforge.cli.options import Columns, Device, Replica, Seed, Settings, Tree, Trust, layout_given


def sample(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN|BUNDLE",
            help="A run folder, the name of weights that ship, or a bundle.",
            autocompletion=commands.runs,
            show_default=False,
        ),
    ],
    primaries: Annotated[
        str,
        typer.Argument(
            help="Particles: any data file, .csv too.", autocompletion=commands.data, show_default=False
        ),
    ],
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
    replica: Replica = 0,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of a bundle [default: 1].", show_default=False)
    ] = None,
    runtime: Annotated[
        str | None,
        typer.Option(
            metavar="onnxruntime|openvino",
            help="What runs a bundle [default: onnxruntime]; openvino is faster for large batches.",
            show_default=False,
        ),
    ] = None,
    exact: Annotated[
        bool,
        typer.Option("--exact", help="Fill every batch of a bundle up, however few events are asked for."),
    ] = False,
    readout: Annotated[
        str, typer.Option(metavar="responses|channels|both", help="What is written of each event.")
    ] = "responses",
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
    from caloforge import face

    model = face.load(
        run,
        settings=settings or (),
        device=device,
        threads=threads,
        trust=trust,
        replica=replica,
        runtime=runtime,  # type: ignore[arg-type]
    )
    with counting("sample") as count:
        events = model.sample_to(
            out,
            primaries,
            seed=seed,
            first_event=first_event,
            batch_size=batch_size,
            exact=exact,
            readout=readout,  # type: ignore[arg-type]
            on_outside=on_outside,
            layout=layout_given(columns, tree),
            report=count,
            warn=warn,
        )
    output.print(f"wrote {events} events to {out}")
