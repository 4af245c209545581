"""Runs every export in several versions of ONNX Runtime and compares it with PyTorch.

    python tools/runtime_matrix.py FOLDER [--version 1.17.3]... [--weights NAME]... [--page TABLE.md]

Exports weights that ship, as bundles and for O2, into FOLDER (kept between calls), writes inputs and PyTorch's answers
beside the graphs, makes an environment with NumPy and one version of ONNX Runtime for each version, runs the graphs
there and prints a table. Exits with 1 where an export does not load or does not agree.

Agreement is what an export asks for (`caloforge.export.bundle`): of whole counts at most one in a hundred lit cells
differs; of other values, an event in a hundred aside, ln(1 + |x|) differs by at most 1e-3.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import subprocess
import sys
import venv
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

VERSIONS = ("1.15.1", "1.17.3", "1.20.1", "1.22.0", "newest")
"""ALICE builds with 1.22.0; 1.15 is the oldest with a wheel for Python 3.11, whose graphs 1.14 reads too."""

WEIGHTS = (
    "ds3-calodream-drawn",
    "ds2-calodream-drawn",
    "ds2-calodream",
    "zp-flow_matching",
    "zn-latent_flow_matching",
    "zn-factorized_flow_matching",
    "zp-factorized_latent_flow_matching",
    "zn-iaf-bs-ch-div",
    "zn-vqgan",
    "zp-channel_flow_matching",
)

O2 = ("zn-factorized_flow_matching", "zp-factorized_flow_matching")
ZERO = "zdc-zero_response"
ROWS, CASES = 16, "cases"


def make(folder: Path, names: list[str]) -> None:
    """Makes every export that is not there yet, two at a time, the largest first."""
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        jobs = [
            pool.submit(make_bundle, folder / name, name) for name in names if not (folder / name).exists()
        ]
        if not (folder / "o2").exists():
            jobs.append(pool.submit(make_o2, folder / "o2"))
        for job in jobs:
            job.result()


def write(graph: Path, **arrays: Any) -> None:
    """Writes inputs and the answer of a graph beside it: GRAPH.cases.npz."""
    import numpy as np

    np.savez(graph.with_suffix(f".{CASES}.npz"), **arrays)


def make_bundle(out: Path, name: str) -> None:
    """Exports weights, and writes inputs and PyTorch's answers of each graph."""
    import numpy as np
    import torch

    from caloforge import samples
    from caloforge.export import export
    from caloforge.io import open_events
    from caloforge.models.base import DrawsTokens
    from caloforge.models.parts.inference import as_function, probabilities_in_memory
    from caloforge.runtime.noise import standard_normals
    from caloforge.runtime.tokens import GIVEN, STEP
    from caloforge.training.checkpoint import load_classifier, load_model

    torch.set_num_threads(1)
    shipped = samples.weights()
    zdc = name.startswith("z")
    export(shipped[name], out, zero=shipped[ZERO] if zdc and "latent" in name else None)
    _, model = load_model(shipped[name])
    particles = open_events(samples.particles_for(model.detector.name)).primaries
    particles = particles.select(np.linspace(0, len(particles) - 1, ROWS).astype(np.intp))
    noise = standard_normals(0, np.arange(ROWS), model.noise_dim)
    if isinstance(model, DrawsTokens):
        conditions, normals = torch.from_numpy(particles.conditions), torch.from_numpy(noise)
        with torch.no_grad():
            given = model.given(conditions, normals[:, -2])
            tokens = model.tokens(conditions, normals)
            answer = model.respond(tokens, normals[:, -1], *given[2:]).numpy()
        sums = {"noise": noise[:, -2]} if model.tells else {}
        write(out / GIVEN, conditions=particles.conditions, **sums, answer=given[0].numpy())
        write(out / STEP, **first_step(model, given))
        sums = {"photons": given[2].numpy()} if model.tells else {}
        write(out / "response.onnx", tokens=tokens.numpy(), noise=noise[:, -1], **sums, answer=answer)
    else:
        answer = as_function(model)(particles.conditions, noise)
        write(out / "response.onnx", conditions=particles.conditions, noise=noise, answer=answer)
    if (out / "zero.onnx").is_file():
        _, classifier = load_classifier(shipped[ZERO])
        answer = probabilities_in_memory(classifier, particles.conditions)
        write(out / "zero.onnx", conditions=particles.conditions, answer=answer)


def make_o2(out: Path) -> None:
    """Exports for O2, and writes inputs and answers of the newest ONNX Runtime."""
    import numpy as np

    from caloforge import samples
    from caloforge.export.o2 import export_o2
    from caloforge.io import open_trials
    from caloforge.runtime.noise import standard_normals
    from caloforge.runtime.o2_host import Host, features_of

    shipped = samples.weights()
    export_o2([shipped[name] for name in O2], shipped[ZERO], out)
    trials = open_trials(samples.sample(samples.TRIALS)).primaries
    features = features_of(trials.select(np.linspace(0, len(trials) - 1, 20 * ROWS).astype(np.intp)))
    noise = standard_normals(0, np.arange(len(features)), 10)
    host = Host.load(out)
    inputs = {"features": features, "noise": noise}
    for session, graph in (
        (host.classifier, "classifier"),
        *zip(host.generators.values(), ("neutron", "proton"), strict=True),
    ):
        used = ["features"] if graph == "classifier" else ["noise", "features"]
        answer = np.stack([session(*(inputs[name][row] for name in used)) for row in range(len(features))])
        write(out / f"{graph}.onnx", **{name: inputs[name] for name in used}, answer=answer)


def first_step(model: Any, given: Any) -> dict[str, Any]:
    """Returns inputs and the answer of the first step of a model of tokens: nothing is seen before it."""
    import numpy as np
    import torch

    rows = len(given[0])
    pairs = model.nothing_seen(rows)
    inputs = {"tokens": given[0][:, 0], "place": torch.zeros(rows, dtype=torch.int64)}
    inputs["noise"] = torch.from_numpy(np.linspace(-2, 2, rows, dtype=np.float32))
    seen = torch.zeros(rows, pairs[0][0].shape[-1], dtype=torch.bool)
    told = {"told": given[1][:, 0]} if model.tells else {}
    with torch.no_grad():
        answer, _ = model.next_token(*inputs.values(), pairs, seen, *told.values())
    inputs |= told
    past = {
        f"{kind}{block}": value
        for block, pair in enumerate(pairs)
        for kind, value in zip(("key", "value"), pair, strict=True)
    }
    return {name: value.numpy() for name, value in {**inputs, **past, "answer": answer}.items()}


def run(folder: Path) -> list[dict[str, Any]]:
    """Runs every graph that has cases with the ONNX Runtime of this environment, at once and one by one."""
    import time

    import numpy as np
    import onnxruntime

    rows = []
    for cases in sorted(folder.rglob(f"*.{CASES}.npz")):
        graph = cases.with_name(cases.name.replace(f".{CASES}.npz", ".onnx"))
        row: dict[str, Any] = {
            "graph": f"{graph.parent.name}/{graph.stem}",
            "version": onnxruntime.__version__,
        }
        values = dict(np.load(cases))
        answer = values.pop("answer").astype(np.float64)
        try:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads, options.log_severity_level = 1, 3
            session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
            got = session.run(None, values)[0].astype(np.float64).reshape(answer.shape)
            started = time.process_time()
            for number in range(len(answer)):
                session.run(None, {key: value[number : number + 1] for key, value in values.items()})
            row["ms"] = 1e3 * (time.process_time() - started) / len(answer)
        except Exception as error:  # its errors have no class of their own
            row["error"] = str(error).splitlines()[0][:200]
        else:
            row |= agreement(answer, got)
        rows.append(row)
    return rows


def agreement(answer: Any, got: Any) -> dict[str, Any]:
    """Compares a graph's values with PyTorch's."""
    import numpy as np

    difference = np.abs(np.log1p(np.abs(answer)) - np.log1p(np.abs(got))).reshape(len(answer), -1)
    differ, lit = int((difference > 1e-3).sum()), int(np.count_nonzero(answer))
    whole = bool((answer == np.rint(answer)).all())
    events = int((difference > 1e-3).any(1).sum())
    agrees = differ <= 0.01 * lit if whole else events <= max(0.01 * len(answer), 1)
    return {"differ": differ, "lit": lit, "events": events, "agrees": bool(agrees and np.isfinite(got).all())}


def environment(folder: Path, version: str) -> Path:
    """Makes an environment with one version of ONNX Runtime and a NumPy that fits; returns its Python."""
    python = folder / f"env-{version}" / "bin" / "python"
    if not python.exists():
        venv.create(folder / f"env-{version}", with_pip=True)
        runtime = "onnxruntime" if version == "newest" else f"onnxruntime=={version}"
        numpy = "numpy<2" if version.startswith(("1.15", "1.16", "1.17", "1.18")) else "numpy>=2"
        subprocess.run([python, "-m", "pip", "install", "-q", runtime, numpy], check=True)
    return python


def run_in(folder: Path, version: str) -> list[dict[str, Any]]:
    """Runs every graph with a version of ONNX Runtime."""
    command: list[str | Path] = [environment(folder, version), __file__, str(folder), "--run"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the results as a Markdown table: counts that differ of those lit, and ms of processor time at batch 1."""
    versions = list(dict.fromkeys(row["version"] for row in rows))
    lines = ["| export | " + " | ".join(versions) + " |", "|---|" + "---|" * len(versions)]
    for graph in dict.fromkeys(row["graph"] for row in rows):
        found = {row["version"]: row for row in rows if row["graph"] == graph}
        cells = [
            found[version].get("error")
            or f"{found[version]['differ']} of {found[version]['lit']}, {found[version]['ms']:.2f} ms"
            for version in versions
        ]
        lines.append(f"| {graph} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Prints the table; returns 1 where an export does not load or agree."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--version", action="append", dest="versions")
    parser.add_argument("--weights", action="append")
    parser.add_argument("--page", type=Path)
    parser.add_argument(
        "--run", action="store_true", help=argparse.SUPPRESS
    )  # within one of the environments
    arguments = parser.parse_args()
    if arguments.run:
        sys.stdout.write(json.dumps(run(arguments.folder)))
        return 0
    arguments.folder.mkdir(parents=True, exist_ok=True)
    make(arguments.folder, arguments.weights or list(WEIGHTS))
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(partial(run_in, arguments.folder), arguments.versions or VERSIONS)
        rows = [row for rows in found for row in rows]
    text = table(rows)
    sys.stdout.write(text)
    if arguments.page:
        arguments.page.write_text(text, encoding="utf-8")
    bad = [row for row in rows if not row.get("agrees")]
    for row in bad:
        sys.stderr.write(
            f"{row['graph']} in {row['version']}: {row.get('error') or 'does not agree with PyTorch'}\n"
        )
    sys.stdout.write(f"{len(rows) - len(bad)} passed, {len(bad)} failed\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
