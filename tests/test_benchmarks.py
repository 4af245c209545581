"""The scripts of `benchmarks/` and `tools/`: they start, and say so where they cannot run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(path for folder in ("benchmarks", "tools") for path in (ROOT / folder).glob("*.py"))


def run(path, *arguments, **environment):
    return subprocess.run(
        [sys.executable, path, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_script_says_how_it_is_called(script):
    assert f"python {script.relative_to(ROOT)}" in script.read_text().split('"""')[1]


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_help(script):
    done = run(script, "--help")
    assert (done.returncode, "usage" in done.stdout) == (0, True), done.stderr


@pytest.mark.slow
def test_the_gpu_benchmark_without_a_gpu():
    done = run(ROOT / "benchmarks" / "gpu.py", CUDA_VISIBLE_DEVICES="")
    assert (done.returncode, done.stdout) == (1, "")
    assert "needs a CUDA device, and PyTorch sees none" in done.stderr


@pytest.mark.slow
def test_the_tables_of_weights_that_ship():
    weights = ROOT / "src" / "caloforge" / "samples" / "weights" / "zn-vqgan"
    done = run(ROOT / "tools" / "tables.py", weights, "--metrics", "w1", "--sets", "zn")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("### zn\n\n| model | W1 [photons] |")
    assert "| zn-vqgan |" in done.stdout
