"""Submit files and Dask."""

import filecmp
import shlex

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
