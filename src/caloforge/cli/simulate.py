"""`caloforge simulate`: events from Geant4."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from caloforge.cli.bars import counting, counting_each, messages, output
from caloforge.cli.options import Seed


def simulate(
    detector: Annotated[
        str,
        typer.Argument(
            help="ds2, ds3, ds2+ds3 (one file each, of the same showers), crystals, zn, zp, a binning file .xml with "
            "--layers, or package.module:FUNCTION.",
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
            help="Of ds2, ds3 and binning files: cells by the middle of a step, or cut into the active sheets, in half "
            "the time [default: replicas; of ds2+ds3 and rings unlike each other steps].",
            show_default=False,
        ),
    ] = None,
    layers: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SHEETS",
            help="What the layers of a binning file are made of, in depth: W:1.4mm,Si:0.3mm; the last material is the "
            "active one. 0-3=Pb:2mm,lAr:4mm is for layers 0 to 3 only; give the option several times.",
            show_default=False,
        ),
    ] = None,
    sampling_fraction: Annotated[
        float | None,
        typer.Option(
            help="What the energy in active sheets of a binning file is divided by [default: 1].",
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
    setup = setup_named(detector, scoring, layers or (), sampling_fraction)
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
        tuple(layers or ()),
        sampling_fraction,
    )
    job.check(setup)
    if download:
        _download_data(physics, g4data)
    with counting("simulate", events) as count:
        files = simulate(
            job,
            out,
            events,
            jobs=jobs,
            g4data=g4data,
            resume=resume,
            keep=keep,
            progress=count,
        )
    for file in files:
        output.print(f"wrote {events} events to {file}")
    _warn_of_substitutes(files[0])


def _download_data(physics: str, g4data: Path | None) -> None:
    from caloforge.simulate.physics import download, download_folder

    folder = g4data or download_folder()
    with counting_each("bytes") as count:
        for name in download(physics, folder, progress=count):
            output.print(f"wrote {folder / name}")


def _warn_of_substitutes(file: Path) -> None:
    from caloforge.io import provenance

    if provenance(file)["data_sets"]["origin"] == "substitutes":
        messages.print("the data sets are substitutes, not Geant4's own: say so wherever these events go")
