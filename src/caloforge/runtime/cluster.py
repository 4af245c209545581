"""Several machines: Dask workers, and what batch systems are given."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Literal, get_args

from caloforge._lookup import require
from caloforge.runtime.production import Workers

System = Literal["htcondor", "slurm"]


def dask(address: str) -> Workers:
    """Returns the workers of a Dask cluster.

    They have caloforge installed and see the same files under the same names.

    Args:
        address: of the scheduler, `tcp://host:8786`.

    Raises:
        ImportError: on use, `distributed` is not installed.
        OSError: on use, nobody answers.
    """

    @contextmanager
    def cluster() -> Iterator[Executor]:
        distributed = require("distributed", "dask")
        with distributed.Client(address) as client:
            yield client.get_executor(pure=False)

    return cluster


def submit_file(system: str, command: Sequence[str], shards: int, memory: int = 2000, cores: int = 1) -> str:
    """Returns what a batch system takes to run every shard of a job.

    Args:
        system: `htcondor` or `slurm`.
        command: program and arguments of the job, without its shard.
        shards: number of jobs.
        memory: of each, in MB.
        cores: of each.

    Raises:
        ValueError: another system.
    """
    if system not in get_args(System):
        raise ValueError(f"a submit file is for {' or '.join(get_args(System))}, got {system!r}")
    if system == "htcondor":
        program, *arguments = [*command, "--shard", f"$(Process)/{shards}"]
        return (
            f"executable = {program}\n"
            f"arguments = {_condor(arguments)}\n"
            "getenv = True\n"
            "output = shard-$(Process).out\n"
            "error = shard-$(Process).err\n"
            "log = shards.log\n"
            f"request_cpus = {cores}\n"
            f"request_memory = {memory}MB\n"
            "max_retries = 3\n"
            f"queue {shards}\n"
        )
    return (
        "#!/bin/sh\n"
        f"#SBATCH --array=0-{shards - 1}\n"
        f"#SBATCH --cpus-per-task={cores}\n"
        f"#SBATCH --mem={memory}M\n"
        "#SBATCH --requeue\n"
        "#SBATCH --output=shard-%a.out\n"
        f'exec {shlex.join(command)} --shard "$SLURM_ARRAY_TASK_ID/{shards}"\n'
    )


def _condor(arguments: Sequence[str]) -> str:
    """Returns arguments in HTCondor's new syntax: double quotes around all, single ones where there is space."""
    quoted = []
    for argument in arguments:
        text = argument.replace('"', '""')
        quoted.append("'" + text.replace("'", "''") + "'" if set(text) & set(" \t'") or not text else text)
    return '"' + " ".join(quoted) + '"'
