"""Submit files and Dask."""

import filecmp
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from caloforge.detectors import ZN
from caloforge.io import create, open_particles
from caloforge.runtime import cluster
from caloforge.runtime.production import Job, produce
from made import made_events


def test_slurm_runs_every_shard():
    text = cluster.submit_file("slurm", ["python", "-m", "caloforge", "a file.h5"], 12, memory=3000, cores=2)
    assert "#SBATCH --array=0-11\n" in text
    assert "#SBATCH --mem=3000M\n" in text
    words = shlex.split(text.splitlines()[-1])
    assert words == ["exec", "python", "-m", "caloforge", "a file.h5", "--shard", "$SLURM_ARRAY_TASK_ID/12"]


def test_htcondor_runs_every_shard():
    text = cluster.submit_file("htcondor", ["python", "-m", "caloforge", "a file.h5", "it's", 'say "so"'], 12)
    lines = dict(line.split(" = ", 1) for line in text.splitlines() if " = " in line)
    assert lines["executable"] == "python"
    assert lines["arguments"] == "\"-m caloforge 'a file.h5' 'it''s' 'say \"\"so\"\"' --shard $(Process)/12\""
    assert text.endswith("queue 12\n")


def test_other_systems_are_refused():
    with pytest.raises(ValueError, match="htcondor or slurm, got 'pbs'"):
        cluster.submit_file("pbs", [], 1)


@pytest.mark.slow
def test_dask_gives_the_same_bytes(bundle, tmp_path):
    distributed = pytest.importorskip("distributed")
    primaries = tmp_path / "primaries.h5"
    with create(primaries, ZN) as writer:
        writer.append(made_events(ZN, particles=600, repeats=4).primaries)
    job, particles = Job(bundle, part=1024), open_particles(primaries, ZN)
    alone = produce(job, particles, primaries, tmp_path / "alone.h5")
    with distributed.LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=None) as local:
        workers = cluster.dask(local.scheduler_address)
        out = produce(job, particles, primaries, tmp_path / "out.h5", workers=workers)
    assert filecmp.cmp(out, alone, shallow=False)


EVIL = ["a\nqueue 99", "a\rb", "tab\tb", "null\0", "a\u2028b"]


@pytest.mark.parametrize("system", ["htcondor", "slurm"])
@pytest.mark.parametrize("name", EVIL)
def test_lines_cannot_be_added(system, name):
    with pytest.raises(ValueError, match="in a submit file") as refused:
        cluster.submit_file(system, ["python", "generate", name], 2)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["$(cluster)", "$$(Arch)", "$ENV(HOME)", "a$"])
def test_macros_are_refused_or_quoted(name):
    with pytest.raises(ValueError, match=r"cannot hold '\$'"):
        cluster.submit_file("htcondor", ["python", name], 2)
    line = cluster.submit_file("slurm", ["python", name], 2).splitlines()[-1]
    assert shlex.split(line)[:3] == ["exec", "python", name]


@pytest.mark.parametrize("name", ["a b", "it's", 'say "so"', "back\\slash", "`id`", "; id", "# no"])
def test_a_shell_reads_the_word_back(name):
    line = cluster.submit_file("slurm", ["python", name], 2).splitlines()[-1]
    assert shlex.split(line)[2] == name


def test_transfer_names_what_is_copied():
    files = cluster.Transfer((Path("/data/primaries.h5"), Path("/data/bundle")), Path("/home/me/out.h5"), 12)
    text = cluster.submit_file("htcondor", ["python", "primaries.h5"], 12, transfer=files)
    lines = dict(line.split(" = ", 1) for line in text.splitlines() if " = " in line)
    assert lines["should_transfer_files"] == "YES"
    assert lines["transfer_input_files"] == "/data/primaries.h5, /data/bundle"
    assert lines["transfer_output_files"] == "out-$INT(Process,%02d)-of-12.h5"
    assert lines["initialdir"] == "/home/me"
    with pytest.raises(ValueError, match="slurm needs a shared file system"):
        cluster.submit_file("slurm", ["python"], 12, transfer=files)


@pytest.mark.parametrize("name", ["a,b.h5", "a b.h5", "$(x).h5", "-rf.h5", "a\nb.h5"])
def test_a_transfer_refuses_names_with_a_meaning(name):
    with pytest.raises(ValueError, match=r"submit file|cannot begin"):
        cluster.Transfer((Path("/data") / name, Path("/data/bundle")), Path("/home/out.h5"), 2)
    with pytest.raises(ValueError, match=r"submit file|cannot begin"):
        cluster.Transfer((Path("/data/a.h5"), Path("/data/bundle")), Path("/home") / name, 2)


def test_files_to_transfer_have_names_of_their_own():
    with pytest.raises(ValueError, match="names that differ"):
        cluster.Transfer((Path("/a/x.h5"), Path("/b/bundle")), Path("/c/x.h5"), 2)


@pytest.mark.parametrize(
    "address", ["here", "tcp://a", "tcp://a:0", "tcp://a:99999", "http://a:1", "tcp://a:1\n"]
)
def test_an_address_of_another_form_is_refused(address):
    with pytest.raises(ValueError, match="address is tcp://host:port"):
        cluster.check_address(address)


def test_an_address_where_nobody_answers_is_refused():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening
        with pytest.raises(OSError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1"):
            cluster.check_address(f"tcp://127.0.0.1:{unused.getsockname()[1]}")


@pytest.mark.slow
def test_a_scheduler_that_dies_is_one_error_and_the_job_goes_on(bundle, tmp_path, caplog):
    """The scheduler is killed when the first part is there."""
    pytest.importorskip("distributed")
    primaries = tmp_path / "primaries.h5"
    with create(primaries, ZN) as writer:
        writer.append(made_events(ZN, particles=2000, repeats=4).primaries)
    job, particles = Job(bundle, part=1024), open_particles(primaries, ZN)
    alone = produce(job, particles, primaries, tmp_path / "alone.h5")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    port = address.rpartition(":")[2]
    start = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", port, "--no-dashboard"]
    start += ["--host", "127.0.0.1"]
    worker = [
        sys.executable,
        "-m",
        "distributed.cli.dask_worker",
        address,
        "--nthreads",
        "1",
        "--no-dashboard",
    ]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    scheduler = subprocess.Popen(start, **quiet)
    helper = subprocess.Popen([*worker, "--no-nanny", "--death-timeout", "5"], **quiet)
    try:
        for _ in range(100):
            try:
                cluster.check_address(address)
                break
            except OSError:
                time.sleep(0.2)

        def kill(done, total):
            if done:
                scheduler.kill()

        with pytest.raises(OSError, match="is gone or does not answer; --resume goes on"):
            produce(
                job,
                particles,
                primaries,
                tmp_path / "out.h5",
                workers=cluster.dask(address),
                progress=kill,
            )
    finally:
        for process in (scheduler, helper):
            process.kill()
            process.wait()
    assert [record for record in caplog.records if record.name.startswith("distributed")] == []
    out = produce(job, particles, primaries, tmp_path / "out.h5", resume=True)
    assert filecmp.cmp(out, alone, shallow=False)
