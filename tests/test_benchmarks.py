"""The benchmarks: scripts that start, and say so where they cannot run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


def run(name, *arguments, **environment):
    return subprocess.run(
        [sys.executable, FOLDER / name, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "calodream.py",
        "challenge.py",
        "gpu.py",
        "latents.py",
        "layouts.py",
        "runtime.py",
        "sampling_memory.py",
        "solvers.py",
    ],
)
def test_help(name):
    done = run(name, "--help")
    assert (done.returncode, "usage" in done.stdout) == (0, True), done.stderr


@pytest.mark.slow
def test_the_gpu_benchmark_without_a_gpu():
    done = run("gpu.py", CUDA_VISIBLE_DEVICES="")
    assert (done.returncode, done.stdout) == (1, "")
    assert "needs a CUDA device, and PyTorch sees none" in done.stderr
