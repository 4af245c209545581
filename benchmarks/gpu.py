"""Speed of generation and training on one GPU.

    python benchmarks/gpu.py [RECIPE ...] [--batches 256 4096] [--repeats 5]

Weights are untrained, which changes no time. Generation: conditions and noise lie on the device, events stay there.
CUDA graphs are recorded for one batch size. bf16 is autocast; whether it is good enough is for `evaluate` to say.
Training: whole steps with reading, mirroring and transfer, at the recipe's batch size. min / median / max.

The targets are 0.03 ms an event for the flow matching that ships and 0.1 ms for the paper's; the paper has 0.46 ms on
an A100 at batch 256. No device has been measured yet.
"""

import argparse
import sys
from collections.abc import Callable

import numpy as np
import torch

from caloforge import recipe as recipes
from caloforge import samples
from caloforge.events import Events
from caloforge.io import open_events
from caloforge.models import Generator, Readout, build
from caloforge.models.base import BatchRandom, Stage


def milliseconds(action: Callable[[], object], repeats: int) -> list[float]:
    """Times an action on the device, after three warm-ups."""
    for _ in range(3):
        action()
    times = []
    for _ in range(repeats):
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        action()
        last.record()
        torch.cuda.synchronize()
        times.append(first.elapsed_time(last))
    return times


def recorded(
    model: Generator | Readout, conditions: torch.Tensor, noise: torch.Tensor
) -> Callable[[], object]:
    """Records one batch as a CUDA graph and returns what replays it."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            model(conditions, noise)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        model(conditions, noise)
    return graph.replay


def generation(model: Generator | Readout, conditions: torch.Tensor) -> dict[str, Callable[[], object]]:
    """Returns the ways to generate one batch."""
    noise = torch.randn(len(conditions), model.noise_dim, device=conditions.device)
    compiled = torch.compile(model)

    def half(chosen: Callable[..., object]) -> object:
        with torch.autocast("cuda", torch.bfloat16):
            return chosen(conditions, noise)

    return {
        "eager": lambda: model(conditions, noise),
        "eager, bf16": lambda: half(model),
        "compile": lambda: compiled(conditions, noise),
        "compile, bf16": lambda: half(compiled),
        "CUDA graph": recorded(model, conditions, noise),
    }


def show(name: str, what: str, batch: int, times: list[float]) -> None:
    """Prints a row."""
    each = np.array(times) / batch
    print(
        f"| {name} | {what} | {batch} | {each.min():.4g} / {np.median(each):.4g} / {each.max():.4g} |",
        flush=True,
    )


def main() -> None:
    """Prints one row a recipe, way and batch size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "recipes",
        nargs="*",
        default=[
            "zn-factorized_flow_matching",
            "zn-factorized_latent_flow_matching",
            "zn-flow_matching-paper",
        ],
    )
    parser.add_argument("--batches", type=int, nargs="+", default=[256, 4096])
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("benchmarks/gpu.py needs a CUDA device, and PyTorch sees none")
    torch.backends.cudnn.benchmark = True
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {arguments.repeats} repeats\n")
    print("| recipe | what | batch | ms an event |\n|---|---|---|---|")
    for name in arguments.recipes:
        recipe = recipes.parse(recipes.read(name))
        torch.manual_seed(0)
        model = build(recipe).cuda()
        assert isinstance(model, Generator | Readout)
        events = open_events(samples.sample(f"{recipe.detector}_wide")).slices(slice(0, 8192))
        stages = model.stages(events)
        model.eval()
        for batch in arguments.batches:
            rows = np.arange(batch) % len(events)
            conditions = torch.from_numpy(events.conditions[rows]).cuda()
            with torch.no_grad():
                for way, action in generation(model, conditions).items():
                    show(name, f"generation, {way}", batch, milliseconds(action, arguments.repeats))
        model.train()
        for stage in stages:
            chosen = events.slices(slice(0, stage.batch_size))

            def step(stage: Stage = stage, chosen: Events = chosen) -> None:
                random = BatchRandom(0, slice(0, len(chosen)), len(chosen), "cuda")
                stage.step(chosen, random, lambda loss: loss.backward())

            show(name, f"training, {stage.name}", len(chosen), milliseconds(step, arguments.repeats))


if __name__ == "__main__":
    main()
