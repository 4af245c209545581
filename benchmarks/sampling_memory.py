"""Peak memory of `caloforge sample` against the number of events: it must not grow.

    python benchmarks/sampling_memory.py [RUN|BUNDLE] [--events 10000 200000] [--suffix .h5]

Each size runs in a process of its own; the primaries are those of `zn_wide`, repeated, in a file of the format given.
Peak memory is that of the whole process, its libraries included.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from caloforge import samples
from caloforge.events import Primaries
from caloforge.io import create, open_primaries
from caloforge.runtime.bundle import is_bundle

CHILD = """
import sys
from caloforge import cli
sys.argv = ["caloforge", "sample", *sys.argv[1:]]
cli.app(standalone_mode=False)
lines = open("/proc/self/status").read().splitlines()
print(int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) / 1024)
"""


def main() -> None:
    """Prints one row a size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", nargs="?", default="zn-factorized_flow_matching")
    parser.add_argument("--events", nargs="+", type=int, default=[10_000, 200_000])
    parser.add_argument("--suffix", default=".h5", help="format of the particles")
    parser.add_argument("--set", dest="settings", nargs="*", default=[])
    arguments = parser.parse_args()
    particles = open_primaries(samples.sample("zn_wide"))
    print("| events | peak memory, MB |\n|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for events in arguments.events:
            rows = np.arange(events) % len(particles)
            path = Path(folder) / f"{events}{arguments.suffix}"
            with create(path, particles.detector) as writer:
                for start in range(0, events, 4096):
                    part: Primaries = particles.select(rows[start : start + 4096])
                    writer.append(part)
            command = [sys.executable, "-c", CHILD, arguments.run, str(path), str(Path(folder) / "out.h5")]
            command += [part for one in arguments.settings for part in ("--set", one)]
            if is_bundle(Path(arguments.run)):
                command += ["--on-outside", "warn"]  # the rows that were held out are among the particles
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            print(f"| {events:,} | {float(done.stdout.splitlines()[-1]):.0f} |", flush=True)


if __name__ == "__main__":
    main()
