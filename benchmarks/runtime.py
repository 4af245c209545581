"""Speed and memory of generation on CPU cores: PyTorch eager, torch.compile and ONNX Runtime.

    python benchmarks/runtime.py RUN|BUNDLE ... [--batches 1 8 32 256] [--threads 1 2] [--compile]

Each run is exported first; of a bundle only ONNX Runtime is measured. Every row is measured in a process of its own,
so that its peak memory is its own; "first event" is the time from the start of that process to its first event. Times
are wall time with the noise and without files, min / median / max of 5; `--processor-time` counts the process's own
time, for a busy machine, whose load is in the first line. Smaller versions of a graph: `benchmarks/variants.py`.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from caloforge.io.files import read_json

STARTED = time.time()
ENGINES = ("eager", "compile", "onnxruntime")


def forward_of(engine: str, run: str, bundle: str, threads: int) -> tuple[Any, int]:
    """Returns the model as a function of arrays, and its noise dimension."""
    if engine == "onnxruntime":
        from caloforge.runtime.bundle import open_bundle

        session = open_bundle(Path(bundle), threads)
        return session, session.noise_dim
    import torch

    from caloforge.models.parts.inference import as_function
    from caloforge.training.checkpoint import load_model

    torch.set_num_threads(threads)
    _, model = load_model(Path(run))
    if engine == "compile":
        model.compile()
    return as_function(model), model.noise_dim


def measure(arguments: argparse.Namespace) -> None:
    """Measures one row and prints it as JSON."""
    from caloforge.io import open_primaries
    from caloforge.runtime.generate import generate_rows

    clock = time.process_time if arguments.processor_time else time.perf_counter
    engine, threads, batch = arguments.row[0], int(arguments.row[1]), int(arguments.row[2])
    (run,) = arguments.runs
    card = read_json(Path(run) / "card.json")
    forward, noise_dim = forward_of(engine, run, arguments.bundle, threads)
    events = max(batch, 32)
    from caloforge.samples import particles_for

    conditions = open_primaries(particles_for(card["detector"])).conditions[:events]
    generate_rows(forward, noise_dim, conditions[:batch], 0, batch_size=batch)
    first = time.process_time() if arguments.processor_time else time.time() - arguments.started
    times = []
    for repeat in range(arguments.repeats + 1):
        started = clock()
        generate_rows(forward, noise_dim, conditions, repeat, batch_size=batch)
        times.append(1e3 * (clock() - started) / events)
    # not ru_maxrss, which a process inherits from the one that started it
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
    print(json.dumps({"times": times[1:], "peak": peak, "first": first}))


def bundle_of(run: Path, folder: Path, data: list[Path]) -> tuple[Path, tuple[str, ...]]:
    """Returns a bundle, exported where it is none yet, and the engines to measure."""
    from caloforge.runtime.bundle import is_bundle

    if is_bundle(run):
        return run, ("onnxruntime",)
    from caloforge.export import export

    export(run, folder / "bundle", data=data)
    return folder / "bundle", ENGINES


def main() -> None:
    """Prints one row an engine, batch size and number of threads."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32, 256])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--compile", action="store_true", help="also torch.compile, which needs a C++ compiler"
    )
    parser.add_argument("--processor-time", action="store_true")
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="training data, as for `export`")
    parser.add_argument("--row", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--bundle", default="", help=argparse.SUPPRESS)
    parser.add_argument("--started", type=float, default=STARTED, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row:
        measure(arguments)
        return
    from importlib.metadata import version

    what = "processor time" if arguments.processor_time else "wall time"
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, torch {version('torch')}, "
        f"onnxruntime {version('onnxruntime')}, {what}, min / median / max of {arguments.repeats}\n"
    )
    print("| model | engine | threads | batch | ms an event | peak memory, MB | first event, s |")
    print("|---|---|---|---|---|---|---|")
    for run in arguments.runs:
        with tempfile.TemporaryDirectory() as folder:
            bundle, engines = bundle_of(Path(run), Path(folder), arguments.data)
            name = read_json(bundle / "card.json")["name"]
            for engine in engines:
                if engine == "compile" and not arguments.compile:
                    continue
                for threads in arguments.threads:
                    for batch in arguments.batches:
                        command = [sys.executable, __file__, run, "--bundle", str(bundle)]
                        command += ["--repeats", str(arguments.repeats), "--started", str(time.time())]
                        command += ["--row", engine, str(threads), str(batch)]
                        command += ["--processor-time"] if arguments.processor_time else []
                        done = subprocess.run(command, check=True, capture_output=True, text=True)
                        row = json.loads(done.stdout.splitlines()[-1])
                        times = sorted(row["times"])
                        spread = " / ".join(f"{times[i]:.3g}" for i in (0, len(times) // 2, -1))
                        print(
                            f"| {name} | {engine} | {threads} | {batch} | {spread} | "
                            f"{row['peak']:.0f} | {row['first']:.2f} |",
                            flush=True,
                        )


if __name__ == "__main__":
    main()
