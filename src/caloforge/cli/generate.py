"""`caloforge generate`: productions, in parts, by many workers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from caloforge.cli.bars import counting, output, warn
from caloforge.cli.options import Seed, Trust
from caloforge.samples import located

if TYPE_CHECKING:
    from caloforge.runtime.production import Job


def generate(
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
    share, path = Shard.parse(shard), located(primaries)
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
        surrogate.domain.check(particles, on_outside, warn)
    workers = cluster.dask(dask) if dask else processes(jobs) if jobs > 1 else None
    with counting("generate") as count:
        written = produce(
            job,
            particles,
            path,
            out.absolute(),
            shard=share,
            workers=workers,
            resume=resume,
            progress=count,
            say=warn,
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
