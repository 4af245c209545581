"""Peak memory of `caloforge sample` against the number of events: it must not grow.

    python benchmarks/sampling_memory.py [RUN] [--events 10000 200000]

Each size runs in a process of its own; the primaries are those of the sample, repeated.
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

CHILD = """
import resource, sys
from caloforge import cli
sys.argv = ["caloforge", "sample", *sys.argv[1:]]
cli.app(standalone_mode=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def main() -> None:
    """Prints one row a size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", nargs="?", default="zn-factorized_flow_matching")
    parser.add_argument("--events", nargs="+", type=int, default=[10_000, 200_000])
    parser.add_argument("--set", dest="settings", nargs="*", default=[])
    arguments = parser.parse_args()
    particles = open_primaries(samples.sample("zn_wide"))
    print("| events | peak memory, MB |\n|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for events in arguments.events:
            rows = np.arange(events) % len(particles)
            path = Path(folder) / f"{events}.h5"
            with create(path, particles.detector) as writer:
                for start in range(0, events, 4096):
                    part: Primaries = particles.select(rows[start : start + 4096])
                    writer.append(part)
            command = [sys.executable, "-c", CHILD, arguments.run, str(path), str(Path(folder) / "out.h5")]
            done = subprocess.run(
                [*command, *(part for one in arguments.settings for part in ("--set", one))],
                check=True,
                capture_output=True,
                text=True,
            )
            print(f"| {events:,} | {float(done.stdout.splitlines()[-1]):.0f} |", flush=True)


if __name__ == "__main__":
    main()
