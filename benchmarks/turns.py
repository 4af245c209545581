"""Bundles of an older commit against those of today, in turns in one process: processor time of one thread.

    python benchmarks/turns.py [NAME ...] [--commit 7993d78] [--batches 1 32 256] [--rounds 9] [--eager] [--openvino]
        [--bundles FOLDER] [--set SETTING ...] [--profile]

Of each of the weights that ship, the commit's own code exports the commit's own weights, from a work tree of its own,
and today's code those of today. Then the graphs take turns, each run by its own session, with the same particles and
noise; so do noise and domain check, as the commit has them and as they are now: the noise as `generate` draws it, which
today is that of several small batches at once, the domain check batch by batch. "All" is domain check, noise and graph.
Printed are min / median / max over the rounds in ms of processor time an event, and the medians of the ratios of a
round. `--eager` runs PyTorch beside them, `--openvino` today's graphs with OpenVINO, and says how many counts differ
from ONNX Runtime's. `--profile` counts, for a batch of one, what ONNX Runtime runs: kernel calls an event by operator
and by stage, a stage being the part of the model whose weights were last used. `--bundles` keeps the bundles, and takes
those that are there.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.events import Primaries

ROOT = Path(__file__).parents[1]
NAMES = ("zn-factorized_flow_matching", "zn-factorized_latent_flow_matching", "zn-latent_flow_matching")
EVENTS = 64
"""Events of a round, and at least one batch."""

Run = Callable[[int], object]
"""Generates the batch that starts at a row."""


def git(*arguments: str) -> str:
    """Runs git in this checkout and returns what it prints."""
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout


@contextmanager
def tree_of(commit: str) -> Iterator[Path]:
    """Gives a work tree of a commit, and takes it away again."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tree"
        git("worktree", "add", "--detach", str(path), commit)
        try:
            yield path
        finally:
            git("worktree", "remove", "--force", str(path))


def export_there(tree: Path, name: str, out: Path, settings: Sequence[str] = ()) -> None:
    """Exports shipped weights with the code of a work tree."""
    weights = tree / "src" / "caloforge" / "samples" / "weights" / name
    command = [sys.executable, "-m", "caloforge", "export", str(weights), "--out", str(out)]
    command += [word for setting in settings for word in ("--set", setting)]
    environment = {**os.environ, "PYTHONPATH": str(tree / "src")}
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, cwd=tree)


def bundles_of(names: list[str], commit: str, folder: Path, settings: Sequence[str]) -> None:
    """Writes the bundles that are missing: FOLDER/before/NAME and FOLDER/now/NAME."""
    before = [name for name in names if not (folder / "before" / name).exists()]
    if before:
        with tree_of(commit) as tree:
            for name in before:
                (folder / "before").mkdir(parents=True, exist_ok=True)
                export_there(tree, name, folder / "before" / name)
    for name in names:
        if not (folder / "now" / name).exists():
            (folder / "now").mkdir(parents=True, exist_ok=True)
            export_there(ROOT, name, folder / "now" / name, settings)


def module_of(commit: str, path: str) -> Any:
    """Loads one module as it was at a commit, in the package as it is."""
    name = "before_" + Path(path).stem
    spec = importlib.util.spec_from_loader(name, loader=None)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    exec(compile(git("show", f"{commit}:src/caloforge/{path}"), path, "exec"), module.__dict__)
    return module


@dataclass
class Way:
    """One way to generate: what is timed for each batch."""

    label: str
    parts: dict[str, Run]
    times: dict[str, list[float]] = field(default_factory=dict)

    def measure(self, batch: int, events: int) -> None:
        """Adds one round: ms an event of each part."""
        for part, run in self.parts.items():
            started = time.process_time()
            for row in range(0, events, batch):
                run(row)
            self.times.setdefault(part, []).append(1e3 * (time.process_time() - started) / events)

    def total(self) -> NDArray[np.float64]:
        """Returns the sum of the parts of each round."""
        total: NDArray[np.float64] = np.array([self.times[part] for part in self.parts]).sum(0)
        return total


class _Sized(SimpleNamespace):
    """The attributes of a namespace, and a length."""

    def __init__(self, values: SimpleNamespace, size: int) -> None:
        super().__init__(**vars(values))
        self._size = size

    def __len__(self) -> int:
        return self._size


def ways(name: str, batch: int, events: int, arguments: argparse.Namespace, folder: Path) -> list[Way]:
    """Returns what takes turns for one model and batch size."""
    from caloforge import samples
    from caloforge.io import open_primaries
    from caloforge.runtime import noise
    from caloforge.runtime.bundle import open_bundle
    from caloforge.runtime.domain import Domain

    commit = arguments.commit
    card = json.loads((folder / "now" / name / "card.json").read_text())
    particles = open_primaries(samples.samples_of(card["detector"])[0]).select(slice(0, events))
    batches = {row: particles.select(slice(row, row + batch)) for row in range(0, events, batch)}
    old_session = module_of(commit, "runtime/session.py").Session(
        folder / "before" / name / "response.onnx", 1
    )
    new_session = open_bundle(folder / "now" / name, 1)
    old_noise = module_of(commit, "runtime/noise.py")
    old_domain = module_of(commit, "runtime/domain.py").Domain.from_card(card["domain"])
    new_domain = Domain.from_card(card["domain"])

    flat = SimpleNamespace(**{name: getattr(particles.detector, name) for name in ("features", "face")})
    if particles.detector.face is not None and "detector.face.z" not in git(
        "show", f"{commit}:src/caloforge/runtime/domain.py"
    ):
        flat.face = particles.detector.face.z  # a number then

    def then(part: Primaries) -> Any:
        """Returns particles as the commit knew them."""
        names = ("conditions", "pdg", "feature")
        shown = SimpleNamespace(detector=flat, **{name: getattr(part, name) for name in names})
        shown.select = lambda rows: shown
        shown.primaries = shown
        return _Sized(shown, len(part))

    def way(label: str, check: Any, draw: Any, run: Any, size: int) -> Way:
        looked_at = {row: then(part) if label == "before" else part for row, part in batches.items()}
        drawn = {row: draw(0, np.arange(row, row + batch), size) for row in batches}
        coming: list[Iterator[Any]] = []

        def follow(row: int) -> None:
            if not row:
                coming[:] = [noise.normals_in_batches(0, np.arange(batch * len(batches)), size, batch)]
            next(coming[0])

        return Way(
            label,
            {
                "graph": lambda row: run(batches[row].conditions, drawn[row]),
                "noise": (lambda row: draw(0, np.arange(row, row + batch), size))
                if label == "before"
                else follow,
                "check": lambda row: check.inspect(looked_at[row]),
            },
        )

    chosen = [
        way("before", old_domain, old_noise.standard_normals, old_session, old_session.noise_dim),
        way("now", new_domain, noise.standard_normals, new_session, new_session.noise_dim),
    ]
    if arguments.openvino:
        other = open_bundle(folder / "now" / name, 1, "openvino")
        counts = [
            np.concatenate(
                [
                    run(
                        part.conditions,
                        noise.standard_normals(0, np.arange(row, row + batch), other.noise_dim),
                    )
                    for row, part in batches.items()
                ]
            )
            for run in (new_session, other)
        ]
        different = (
            f"{np.count_nonzero(counts[0] != counts[1])} of {np.count_nonzero(counts[0])} lit counts differ"
        )
        label = f"OpenVINO, {different}"
        chosen.append(way(label, new_domain, noise.standard_normals, other, other.noise_dim))
    if arguments.eager:
        import torch

        from caloforge.models.parts.inference import as_function
        from caloforge.training.checkpoint import load_model

        torch.set_num_threads(1)
        _, model = load_model(samples.weights()[name])
        chosen.append(way("eager", new_domain, noise.standard_normals, as_function(model), model.noise_dim))
    return chosen


def spread(values: Any) -> str:
    """Returns min / median / max."""
    return f"{np.min(values):.3f} / {np.median(values):.3f} / {np.max(values):.3f}"


def compare(arguments: argparse.Namespace, folder: Path) -> None:
    """Prints one row a model, batch size and way."""
    print(
        "| weights | batch | way | graph | noise | domain check | all | graph: before over it | all: before over it |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for name in arguments.names:
        for batch in arguments.batches:
            events = max(EVENTS, batch)
            taking_turns = ways(name, batch, events, arguments, folder)
            for number in range(arguments.rounds + 1):
                for way in taking_turns:
                    way.measure(batch, events)
                    if not number:  # a warm-up
                        way.times.clear()
            before = taking_turns[0]
            for way in taking_turns:
                graph = np.median(np.divide(before.times["graph"], way.times["graph"]))
                every = np.median(before.total() / way.total())
                columns = [spread(way.times[part]) for part in way.parts] + [spread(way.total())]
                print(
                    f"| {name} | {batch} | {way.label} | {' | '.join(columns)} | {graph:.2f} | {every:.2f} |",
                    flush=True,
                )


def profile(
    path: Path, batch: int, repeats: int = 60
) -> tuple[Counter[str], dict[str, float], dict[str, float]]:
    """Profiles a graph.

    Returns:
        calls of each operator a batch, its time in us, and that of each stage. Medians over the repeats; the body of a
        loop counts each time, the loop itself not.
    """
    import onnx
    import onnxruntime

    from caloforge import samples
    from caloforge.io import open_primaries
    from caloforge.runtime.noise import standard_normals

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        features, size = (int(value.shape[1]) for value in session.get_inputs())
        detector = "zn" if features == 9 else "ds2"
        conditions = open_primaries(samples.samples_of(detector)[0]).conditions[:batch]
        noise = standard_normals(0, np.arange(batch), size)
        for _ in range(repeats):
            session.run(None, {"conditions": conditions, "noise": noise})
        events = json.loads(Path(session.end_profiling()).read_text())
    stages = stages_of(onnx.load(path).graph)
    kernels = [
        (event["args"]["op_name"], event["name"].removesuffix("_kernel_time"), event["dur"])
        for event in events
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
    ]
    calls = len(kernels) // repeats
    medians = np.median(np.array([dur for *_, dur in kernels]).reshape(repeats, calls), 0)
    counts, times, of_stages = Counter[str](), defaultdict[str, float](float), defaultdict[str, float](float)
    stage = "features"
    for (operator, name, _), median in zip(kernels[:calls], medians, strict=True):
        stage = stages.get(name, stage)
        if operator not in ("Scan", "If"):
            counts[operator] += 1
            times[operator] += float(median)
            of_stages[stage] += float(median)
    return counts, times, of_stages


def stages_of(graph: Any) -> dict[str, str]:
    """Returns the stage of each node that uses weights with the name of a module: its first name after `model`."""
    stages: dict[str, str] = {}
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                stages |= stages_of(attribute.g)
        names = [name.split(".") for name in node.input if name.startswith("model.")]
        if names:
            stages[node.name] = names[0][1]
    return stages


def show_profiles(arguments: argparse.Namespace, folder: Path) -> None:
    """Prints kernel calls and their time before and now, by operator and by stage."""
    for name in arguments.names:
        both = [profile(folder / when / name / "response.onnx", 1) for when in ("before", "now")]
        print(
            f"\n{name}, batch 1: {' and '.join(str(sum(counts.values())) for counts, *_ in both)} kernel calls\n"
        )
        print("| operator | calls before | now | us before | now |\n|---|---|---|---|---|")
        spent = {name: both[0][1][name] + both[1][1][name] for _, times, _ in both for name in times}
        for operator in sorted(spent, key=lambda name: -spent[name])[:16]:
            cells = [f"{counts[operator]}" for counts, *_ in both] + [
                f"{times[operator]:.0f}" for _, times, _ in both
            ]
            print(f"| {operator} | {' | '.join(cells)} |")
        print("\n| stage | us before | now |\n|---|---|---|")
        for stage in {**both[0][2], **both[1][2]}:
            print(f"| {stage} | {' | '.join(f'{stages[stage]:.0f}' for *_, stages in both)} |")


def main() -> None:
    """Exports what is missing and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(NAMES))
    parser.add_argument("--commit", default="7993d78")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32, 256])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--eager", action="store_true")
    parser.add_argument("--openvino", action="store_true")
    parser.add_argument("--bundles", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="settings", help="of today's export")
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.bundles or Path(temporary)
        bundles_of(arguments.names, arguments.commit, folder.resolve(), arguments.settings)
        print(
            f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, onnxruntime "
            f"{version('onnxruntime')}, one thread, processor time, ms an event, {arguments.rounds} rounds\n"
        )
        compare(arguments, folder)
        if arguments.profile:
            show_profiles(arguments, folder)


if __name__ == "__main__":
    main()
