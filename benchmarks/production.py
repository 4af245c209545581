"""Rate and memory of a production: raw primaries through a bundle, by `caloforge generate`.

    python benchmarks/production.py BUNDLE [--rows 100000 1000000] [--jobs 1 2] [--readout channels]
        [--rounds 1] [--part 4096]

The primaries are those of `sample:primaries` again and again. The numbers of processes take turns. Printed for each
number of rows and processes, as medians over the rounds: wall time, processor time of all processes, primaries a
second, the wall time of the first number of processes over this one's in the same round, the greatest resident memory
of the main process and of a worker, and the size of the output. Fewer parts than processes leave some idle.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import onnxruntime

from caloforge.detectors import Detector
from caloforge.io import create, open_trials
from caloforge.runtime import Surrogate
from caloforge.runtime.production import PART
from caloforge.samples import sample


def write_primaries(path: Path, detector: Detector, rows: int) -> None:
    """Writes the primaries that ship, repeated up to a number of rows."""
    primaries = open_trials(sample("primaries")).primaries
    with create(path, detector) as writer:
        for start in range(0, rows, 4096):
            index = np.arange(start, min(start + 4096, rows)) % len(primaries)
            writer.append(primaries.select(index))


def resident(pid: int) -> float:
    """Returns the greatest resident memory of a process so far, MB; 0 where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((float(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def children(pid: int) -> list[int]:
    """Returns the children of a process."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def measured(command: list[str]) -> tuple[float, float, float, float]:
    """Runs a command: wall time, processor time, memory of the main process and of the largest child."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    process = subprocess.Popen(command)
    most = [0.0, 0.0]

    def watch() -> None:
        while process.poll() is None:
            most[0] = max(most[0], resident(process.pid))
            most[1] = max([most[1], *(resident(child) for child in children(process.pid))])
            time.sleep(0.1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    if process.wait():
        raise SystemExit(process.returncode)
    watcher.join()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - started, used, most[0], most[1]


def main() -> None:
    """Prints one row a number of rows and of processes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--readout", default="channels")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--part", type=int, default=PART)
    arguments = parser.parse_args()
    surrogate = Surrogate.load(arguments.bundle)
    print(
        f"{surrogate.card['name']}, {arguments.readout}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, "
        f"onnxruntime {onnxruntime.__version__}\n"
    )
    print(
        "| primaries | processes | wall, s | processor, s | a second | gain in wall time | main, MB | worker, MB "
        "| output, MB |"
    )
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        primaries, out = Path(folder) / "primaries.h5", Path(folder) / "out.h5"
        for rows in arguments.rows:
            write_primaries(primaries, surrogate.detector, rows)
            runs: dict[int, list[tuple[float, ...]]] = {jobs: [] for jobs in arguments.jobs}
            for _ in range(arguments.rounds):
                for jobs in arguments.jobs:
                    command = [sys.executable, "-m", "caloforge", "generate", str(primaries), str(out)]
                    command += ["--bundle", str(arguments.bundle), "--readout", arguments.readout]
                    command += ["--part", str(arguments.part)]
                    figures = measured([*command, "--jobs", str(jobs)])
                    runs[jobs].append((*figures, out.stat().st_size / 1e6))
                    out.unlink()
            first = np.array(runs[arguments.jobs[0]])[:, 0]
            for jobs, measurements in runs.items():
                walls = np.array(measurements)[:, 0]
                wall, used, main_memory, worker, size = np.median(measurements, axis=0)
                print(
                    f"| {rows:,} | {jobs} | {wall:.1f} ({walls.min():.1f} to {walls.max():.1f}) | {used:.1f} | "
                    f"{rows / wall:,.0f} | {np.median(first / walls):.2f} | {main_memory:.0f} | {worker:.0f} | "
                    f"{size:.1f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
