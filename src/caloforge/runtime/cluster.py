"""Several machines: Dask workers, and what batch systems are given."""

from __future__ import annotations

import logging
import re
import shlex
import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Executor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from caloforge._lookup import require
from caloforge.runtime.production import Workers

System = Literal["htcondor", "slurm"]


_ADDRESS = re.compile(r"(?P<scheme>tcp|tls)://(?P<host>\[[0-9a-fA-F:.]+\]|[\w.-]+):(?P<port>\d{1,5})")

ANSWER = 10.0
"""Seconds in which a scheduler must answer."""


def check_address(address: str) -> None:
    """Checks that a Dask scheduler's address has the right form and that somebody listens there.

    Raises:
        ValueError: it is no `tcp://host:port` or `tls://host:port`.
        OSError: nobody answers.
    """
    parts = _ADDRESS.fullmatch(address)
    if parts is None or not 0 < int(parts["port"]) < 2**16:
        raise ValueError(f"a Dask scheduler's address is tcp://host:port or tls://host:port, got {address!r}")
    try:
        socket.create_connection((parts["host"].strip("[]"), int(parts["port"])), ANSWER).close()
    except OSError as error:
        raise OSError(f"no Dask scheduler answers at {address}: {error.strerror or error}") from error


def dask(address: str) -> Workers:
    """Returns the workers of a Dask cluster.

    They have caloforge installed and see the same files under the same names.

    Args:
        address: of the scheduler, `tcp://host:8786`.

    Raises:
        ValueError: on use, the address has another form.
        ImportError: on use, `distributed` is not installed.
        OSError: on use, nobody answers; later, the scheduler or the workers are gone.
    """

    @contextmanager
    def cluster() -> Iterator[Executor]:
        distributed = require("distributed", "dask")
        check_address(address)
        lost = (CancelledError, TimeoutError, require("distributed.comm.core", "dask").CommClosedError)
        # a lost scheduler is told once, by the error below; each of its loggers has a level of its own
        loggers = [
            logging.getLogger(name)
            for name in [*logging.root.manager.loggerDict]
            if name.split(".")[0] == "distributed"
        ]
        levels, client = [logger.level for logger in loggers], None
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        try:
            client = distributed.Client(address, timeout=ANSWER, set_as_default=False)
            yield client.get_executor(pure=False)
        except lost as error:
            raise OSError(
                f"the Dask scheduler at {address} is gone or does not answer; --resume goes on"
            ) from error
        except distributed.KilledWorker as error:
            raise OSError(f"the Dask workers of {address} die at one part again and again") from error
        finally:
            if client is not None:
                with suppress(Exception):  # of a scheduler that is gone
                    client.close(timeout=1)
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)

    return cluster


@dataclass(frozen=True)
class Transfer:
    """The files that HTCondor copies to a job and back, where the machines share no file system.

    In the job they all lie in its working folder under their base names.

    Attributes:
        inputs: absolute paths, files and folders.
        out: the output of the whole job, absolute.
        shards: number of jobs.

    Raises:
        ValueError: names that are the same, or that a submit file would read as something else.
    """

    inputs: tuple[Path, ...]
    out: Path
    shards: int

    def __post_init__(self) -> None:
        names = [path.name for path in (*self.inputs, self.out)]
        if len(set(names)) != len(names):
            raise ValueError(f"files to transfer need names that differ, got {', '.join(names)}")
        for text in (*map(str, self.inputs), self.out.name):
            _check_word(text, "a path to transfer", "$,\"'\\ ")
        if any(name.startswith("-") for name in names):
            raise ValueError(f"files to transfer cannot begin with '-', got {', '.join(names)}")
        folder = str(self.out.parent)
        _check_word(folder, "the folder of the output", "$")
        if folder != folder.strip() or folder.endswith("\\"):
            raise ValueError(f"the folder of the output does not fit a submit file: {folder!r}")

    def lines(self) -> str:
        """Returns the lines of the submit file; HTCondor puts in the number of the shard."""
        width = len(str(self.shards - 1))
        output = self.out
        if self.shards > 1:
            output = output.with_stem(f"{output.stem}-$INT(Process,%0{width}d)-of-{self.shards}")
        return (
            "transfer_executable = False\n"
            "should_transfer_files = YES\n"
            "when_to_transfer_output = ON_EXIT\n"
            f"initialdir = {output.parent}\n"
            f"transfer_input_files = {', '.join(map(str, self.inputs))}\n"
            f"transfer_output_files = {output.name}\n"
        )


def _check_word(text: str, what: str, forbidden: str) -> None:
    """Raises ValueError where a text holds what a submit file gives a meaning of its own."""
    for letter in text:
        if letter in forbidden or not letter.isprintable():
            raise ValueError(f"{what} cannot hold {letter!r} in a submit file, got {text!r}")


def submit_file(
    system: str,
    command: Sequence[str],
    shards: int,
    memory: int = 2000,
    cores: int = 1,
    transfer: Transfer | None = None,
) -> str:
    """Returns what a batch system takes to run every shard of a job.

    Args:
        system: `htcondor` or `slurm`.
        command: program and arguments of the job, without its shard.
        shards: number of jobs.
        memory: of each, in MB.
        cores: of each.
        transfer: the files to copy, for HTCondor without a shared file system.

    Raises:
        ValueError: another system, a transfer with Slurm, or words that would be read as commands or macros.
    """
    if system not in get_args(System):
        raise ValueError(f"a submit file is for {' or '.join(get_args(System))}, got {system!r}")
    if transfer is not None and system != "htcondor":
        raise ValueError("files are transferred by htcondor only: slurm needs a shared file system")
    # a `$` starts a macro in HTCondor wherever it stands; in a shell it is quoted
    for word in command:
        _check_word(word, "a path or an option", "$" if system == "htcondor" else "")
    if system == "htcondor":
        if command[0] != command[0].strip() or command[0].endswith("\\") or '"' in command[0]:
            raise ValueError(f"the program's path does not fit a submit file: {command[0]!r}")
        program, *arguments = [*command, "--shard", f"$(Process)/{shards}"]
        return (
            f"executable = {program}\n"
            f"{transfer.lines() if transfer else ''}"
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
