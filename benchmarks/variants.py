"""Smaller or coarser versions of a bundle's graph, and a gate for them: physics first, speed second.

    python benchmarks/variants.py BUNDLE [--rows 2048] [--seeds 3] [--rounds 9]

fp16, bf16    weights stored in half, cast back when the session starts: half the file, the same arithmetic
fp16 compute, bf16 compute
              all matrix products and convolutions of float32 in float16 or bfloat16
int8          onnxruntime's dynamic quantisation of MatMul and Gemm, weights per channel
int8, wide    of those alone whose weights are 16,384 numbers or more

Before that, every version that runs takes turns with the graph as it is, in batches of 1 and of 32, on one thread: ms
of processor time an event, min / median / max over the rounds, and the median of the ratios of a round.

Each version gets the same particles and noise as the graph as it is, and is scored against GEANT on held-out rows
(folds 0 and 1 of the repeated sample, the particles with the most rows first). Rule: a version is accepted where no
metric's mean over the seeds is worse than that of the graph as it is by more than a tenth of GEANT's own
half-against-half floor, or by more than twice the standard deviation over the seeds, whichever is larger.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from caloforge.events import Events, Selected, as_counts, split, with_responses
from caloforge.export.onnx import graphs
from caloforge.io import open_events
from caloforge.metrics.channels import w1, wasserstein
from caloforge.metrics.conditional import mae_c
from caloforge.metrics.observables import Observables, Result, observe
from caloforge.runtime import Surrogate
from caloforge.runtime.bundle import GRAPH
from caloforge.runtime.generate import generate_rows
from caloforge.runtime.noise import standard_normals
from caloforge.runtime.session import Session
from caloforge.samples import samples_of

LARGE = 256
"""Weights with fewer numbers stay as they are."""

TIMED_EVENTS = 64
"""Events of a round."""


def stored_in(model: onnx.ModelProto, kind: int) -> onnx.ModelProto:
    """Stores large weights in half precision and casts them back where they are used."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for graph in graphs(changed.graph):
        casts = []
        for weight in graph.initializer:
            if weight.data_type == TensorProto.FLOAT and np.prod(weight.dims) >= LARGE:
                name, half = weight.name, _half(numpy_helper.to_array(weight), kind, f"{weight.name}_half")
                weight.CopyFrom(half)
                casts.append(helper.make_node("Cast", [half.name], [name], to=TensorProto.FLOAT))
        nodes = [*casts, *graph.node]
        del graph.node[:]
        graph.node.extend(nodes)
    return changed


def _half(values: np.ndarray, kind: int, name: str) -> onnx.TensorProto:
    if kind == TensorProto.FLOAT16:
        return numpy_helper.from_array(values.astype(np.float16), name)
    # the upper half of a float32, rounded to the nearest
    bits = ((values.view(np.uint32).astype(np.uint64) + 0x8000) >> 16).astype(np.uint16)
    return helper.make_tensor(name, TensorProto.BFLOAT16, values.shape, bits.tobytes(), raw=True)


def computed_in(model: onnx.ModelProto, kind: int) -> onnx.ModelProto:
    """Casts the inputs of matrix products and convolutions to half, and their outputs back."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    known = onnx.shape_inference.infer_shapes(model)
    floats = {
        value.name
        for graph in graphs(known.graph)
        for value in graph.value_info
        if value.type.tensor_type.elem_type == TensorProto.FLOAT
    }
    for graph in graphs(changed.graph):
        nodes = []
        for index, node in enumerate(graph.node):
            if node.op_type not in ("MatMul", "Gemm", "Conv") or node.output[0] not in floats:
                nodes.append(node)
                continue
            for place, name in enumerate(node.input):
                node.input[place] = f"{name}_{index}_half"
                nodes.append(helper.make_node("Cast", [name], [node.input[place]], to=kind))
            output = node.output[0]
            node.output[0] = f"{output}_half"
            nodes += [node, helper.make_node("Cast", [node.output[0]], [output], to=TensorProto.FLOAT)]
        del graph.node[:]
        graph.node.extend(nodes)
    return changed


def quantized(path: Path, out: Path, least: int = 0) -> None:
    """Quantises products dynamically whose weights are at least so many numbers."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    names = []
    for graph in graphs(onnx.load(path).graph):
        sizes = {weight.name: np.prod(weight.dims) for weight in graph.initializer}
        wide = [node.name for node in graph.node if any(sizes.get(name, 0) >= least for name in node.input)]
        names += [*wide, *(f"{name}_MatMul" for name in wide)]  # what a Gemm becomes on the way
    quantize_dynamic(
        str(path),
        str(out),
        op_types_to_quantize=["MatMul", "Gemm"],
        nodes_to_quantize=names if least else None,
        per_channel=True,
        weight_type=QuantType.QInt8,
        extra_options={"EnableSubgraph": True},
    )


def make_variants(graph: Path, folder: Path) -> dict[str, Path | str]:
    """Writes every version; a path, or the reason why ONNX Runtime cannot run it."""
    model = onnx.load(graph)
    made: dict[str, Callable[[Path], object]] = {
        "fp16 weights": lambda out: onnx.save(stored_in(model, TensorProto.FLOAT16), out),
        "bf16 weights": lambda out: onnx.save(stored_in(model, TensorProto.BFLOAT16), out),
        "fp16 compute": lambda out: onnx.save(computed_in(model, TensorProto.FLOAT16), out),
        "bf16 compute": lambda out: onnx.save(computed_in(model, TensorProto.BFLOAT16), out),
        "int8": lambda out: quantized(graph, out),
        "int8, wide": lambda out: quantized(graph, out, 16_384),
    }
    found: dict[str, Path | str] = {}
    for name, write in made.items():
        out = folder / f"{name.replace(',', '').replace(' ', '-')}.onnx"
        try:
            write(out)
            Session(out)
        except Exception as error:  # whatever it says is the result
            found[name] = " ".join(str(error).split())
        else:
            found[name] = out
    return found


def held_out(detector: str, rows: int) -> Events:
    """Returns rows of the test part of the repeated sample, of the particles shot most often."""
    source = open_events(samples_of(detector)[0])
    test = Selected(source, split(source, "canonical")["test"])
    _, kind, count = np.unique(test.primaries.group, return_inverse=True, return_counts=True)
    return test.slices(np.argsort(-count[kind], kind="stable")[:rows])


def scores(reference: Observables, generated: Observables) -> dict[str, float]:
    """Returns the metrics of the gate."""
    metrics: Mapping[str, Callable[[Observables, Observables], Result]] = {"W1": w1, "MAE_c": mae_c}
    found = {name: metric(reference, generated).value for name, metric in metrics.items()}
    if reference.lit is not None and generated.lit is not None:
        found["W1 of lit cells"] = wasserstein(reference.lit, generated.lit)
    if reference.radius is not None and generated.radius is not None:
        lit, lit_hat = (np.isfinite(radius) for radius in (reference.radius, generated.radius))
        found["W1 of the radius"] = wasserstein(reference.radius[lit], generated.radius[lit_hat])
    return found


def observables(surrogate: Surrogate, session: Session, events: Events, seed: int) -> Observables:
    """Generates one response a row."""
    rows = generate_rows(session, session.noise_dim, events.conditions, seed, batch_size=32)  # type: ignore[arg-type]
    if surrogate.card["kind"] == "readout":
        return Observables(events.primaries, rows.astype(np.float64))
    return observe(with_responses(events.primaries, as_counts(rows)))


def reference_of(surrogate: Surrogate, events: Events) -> Observables:
    """Returns GEANT's observables, channel sums alone for a readout."""
    found = observe(events)
    return Observables(found.primaries, found.channels) if surrogate.card["kind"] == "readout" else found


def floors(surrogate: Surrogate, events: Events, splits: int = 5) -> dict[str, float]:
    """Returns the metrics of GEANT against itself, halves of the rows, mean of some splits."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(splits):
        order = rng.permutation(len(events))
        halves = [reference_of(surrogate, events.slices(np.sort(part))) for part in np.array_split(order, 2)]
        found.append(scores(*halves))
    # halves may leave no particle with enough rows: no floor then
    return {name: float(np.mean([one[name] for one in found])) for name in found[0]}


def show_times(
    paths: Mapping[str, Path], conditions: np.ndarray[Any, Any], rounds: int, show: Callable[[str], object]
) -> None:
    """Prints what each version takes, in turns; conditions (64, number of features)."""
    sessions = {name: Session(path, 1) for name, path in paths.items()}
    times: dict[str, dict[int, list[float]]] = {name: {1: [], 32: []} for name in sessions}
    for number in range(rounds + 1):
        for batch in (1, 32):
            for name, session in sessions.items():
                noise = standard_normals(0, np.arange(len(conditions)), session.noise_dim)
                started = time.process_time()
                for row in range(0, len(conditions), batch):
                    session(conditions[row : row + batch], noise[row : row + batch])
                if number:  # the first is a warm-up
                    times[name][batch].append(1e3 * (time.process_time() - started) / len(conditions))
    show("| version | ms at batch 1 | as it is, over it | ms at batch 32 | as it is, over it |")
    show("|---|---|---|---|---|")
    base = next(iter(times.values()))
    for name, found in times.items():
        cells = [
            f"{np.min(used):.3f} / {np.median(used):.3f} / {np.max(used):.3f} | "
            f"{np.median(np.divide(base[batch], used)):.2f}"
            for batch, used in found.items()
        ]
        show(f"| {name} | {' | '.join(cells)} |")


def gate(
    bundle: Path, rows: int, seeds: int, rounds: int = 0, show: Callable[[str], object] = print
) -> dict[str, Path]:
    """Prints a table and returns the versions that are accepted."""
    surrogate = Surrogate.load(bundle)
    events = held_out(surrogate.detector.name, rows)
    reference, floor = reference_of(surrogate, events), floors(surrogate, events)

    def measured(path: Path) -> tuple[dict[str, np.ndarray[Any, Any]], list[Observables]]:
        session = Session(path)
        drawn = [observables(surrogate, session, events, seed) for seed in range(seeds)]
        found = [scores(reference, one) for one in drawn]
        return {name: np.array([one[name] for one in found]) for name in found[0]}, drawn

    if rounds:
        with tempfile.TemporaryDirectory() as folder:
            variants = make_variants(bundle / GRAPH, Path(folder))
            running = {name: path for name, path in variants.items() if isinstance(path, Path)}
            show(f"\n{surrogate.card['name']}: {rounds} rounds\n")
            show_times(
                {"as it is": bundle / GRAPH, **running}, events.conditions[:TIMED_EVENTS], rounds, show
            )
    base, base_drawn = measured(bundle / GRAPH)
    size = (bundle / GRAPH).stat().st_size
    show(
        f"\n{surrogate.card['name']}: {len(events)} held-out rows, {seeds} seeds, mean ± standard deviation\n"
    )
    show(f"| version | file, kB | sums that differ | W1 from it as it is | {' | '.join(base)} | verdict |")
    show("|---|---|---|---|" + "---|" * (len(base) + 1))
    show(f"| floor of GEANT | | | | {' | '.join(f'{floor[name]:.3g}' for name in base)} | |")
    shown = " | ".join(f"{values.mean():.3g} ± {values.std():.2g}" for values in base.values())
    show(f"| as it is | {size / 1000:.0f} | | | {shown} | |")
    accepted = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, made in make_variants(bundle / GRAPH, Path(folder)).items():
            if isinstance(made, str):
                show(
                    f"| {name} | | | | {' | '.join('–' for _ in base)} | rejected, does not run: {made[:160]} |"
                )
                continue
            found, drawn = measured(made)
            worse = [
                metric
                for metric, values in found.items()
                if not values.mean() - base[metric].mean()
                <= np.nanmax([floor[metric] / 10, 2 * base[metric].std()])
            ]
            shown = " | ".join(f"{values.mean():.3g} ± {values.std():.2g}" for values in found.values())
            verdict = f"rejected: {', '.join(worse)}" if worse else "accepted"
            differ = 100 * np.mean([a.channels != b.channels for a, b in zip(drawn, base_drawn, strict=True)])
            apart = np.mean([w1(a, b).value for a, b in zip(base_drawn, drawn, strict=True)])
            kilobytes = made.stat().st_size / 1000
            show(f"| {name} | {kilobytes:.0f} | {differ:.1f} % | {apart:.3g} | {shown} | {verdict} |")
            if not worse:
                accepted[name] = bundle.parent / f"{bundle.name}-{made.name}"
                accepted[name].write_bytes(made.read_bytes())
    return accepted


def main() -> None:
    """Gates the versions of each bundle."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=9, help="of the timing; 0: none")
    arguments = parser.parse_args()
    for bundle in arguments.bundles:
        gate(bundle, arguments.rows, arguments.seeds, arguments.rounds)


if __name__ == "__main__":
    main()
