"""`caloforge export`: trained models as ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from caloforge.cli import commands
from caloforge.cli.bars import output
from caloforge.cli.options import Replica, Settings, Trust, run_path
from caloforge.samples import located


def export(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="A run folder, or the name of weights that ship; for o2 one of ZN and one of ZP.",
            autocompletion=commands.runs,
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
    replica: Replica = 0,
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
    paths = [run_path(run) for run in runs]
    classifier = run_path(zero) if zero else None
    if target not in ("bundle", "o2", "geant4"):
        raise ValueError(f"--target must be one of bundle, o2, geant4, got {target!r}")
    only_o2 = {"threshold": threshold, "a_side": a_side, "unknown": unknown}
    chosen: dict[str, Any] = {name: value for name, value in only_o2.items() if value is not None}
    if chosen and target != "o2":
        option = next(iter(chosen)).replace("_", "-")
        raise ValueError(f"--{option} is for --target o2, not for {target}")
    if target == "o2" and (settings or files or replica):
        raise ValueError("--set, --replica and --data are for a bundle, not for --target o2")
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

    data = [located(file) for file in files or []]
    card = export(
        paths[0],
        out,
        settings=settings or [],
        data=data,
        zero=classifier,
        trust=trust,
        geant4=target == "geant4",
        replica=replica,
    )
    agreement = card["agreement"]
    output.print(
        f"wrote {out}: ONNX Runtime and PyTorch agree to {agreement['log1p_difference']:.1e} in ln(1 + count), "
        f"{agreement['flipped_counts']} of {agreement['cells']} counts differ"
    )
