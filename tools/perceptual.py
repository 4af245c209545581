"""Trains the perceptual network that ships: src/caloforge/samples/perceptual/zdc.safetensors and its card.

    python tools/perceptual.py [--epochs 6] [--out FOLDER]

A small convolutional network looks at GEANT's images of ZN and ZP, ln(1 + n), and tells what they show: the channel
sums, centre, radius and lit cells, brightest cell, the particle's energy, mass and charge, and where its straight line
meets the detector. Its features are then those of the perceptual distance and of the discriminator
(`caloforge.nn.perceptual`), with the weight 1 / C for each of a stage's C channels. Training folds only; the card has
the mean squared errors on the validation fold, of targets with variance 1 (1 is what guessing the mean would have).
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from caloforge import samples
from caloforge.detectors import ZN, ZP, Detector
from caloforge.events import Events, Joined, split
from caloforge.io import open_events
from caloforge.io.files import sha256, write_json
from caloforge.io.run import write_weights
from caloforge.metrics.observables import centre_and_radius
from caloforge.models.parts.particle_features import ImpactFeatures
from caloforge.nn.perceptual import Extractor

STAGES = [[8], [16], [32], [32]]
NAMES = (
    *(f"sum {k}" for k in range(5)),
    *("centre x", "centre y", "radius", "lit cells", "brightest", "energy", "mass", "charge", "x", "y"),
)


def targets(events: Events) -> np.ndarray:
    """Returns what an image shows, (N, 15)."""
    detector, conditions = events.detector, torch.from_numpy(events.conditions)
    centre, radius = centre_and_radius(events.responses)
    impact = ImpactFeatures(detector).impact(conditions).clamp(-20, 20).numpy()
    columns = [
        np.log1p(detector.readout(events.responses)),
        centre - (np.array(detector.shape) - 1) / 2,
        np.log(radius + 0.5)[:, None],
        np.log1p(np.count_nonzero(events.responses, axis=(1, 2)))[:, None],
        np.log1p(events.responses.max((1, 2)))[:, None],
        np.log(events.feature("energy"))[:, None],
        events.feature("mass")[:, None],
        events.feature("charge")[:, None],
        impact,
    ]
    return np.concatenate(columns, 1).astype(np.float32)


class Network(nn.Module):
    """The extractor with a head that sees its last stage, pooled."""

    def __init__(self) -> None:
        super().__init__()
        self.extractor = Extractor(1, STAGES)
        last = STAGES[-1][-1]
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(9 * last, 64), nn.ReLU(), nn.Linear(64, len(NAMES)))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Maps ln(1 + n), (B, H, W), to targets, (B, 15)."""
        found: torch.Tensor = self.head(nn.functional.adaptive_avg_pool2d(self.extractor(image)[-1], 3))
        return found


def parts(detector: Detector) -> dict[str, Events]:
    """Reads training and validation events of the samples."""
    source = Joined([open_events(path, detector) for path in samples.samples_of(detector.name)])
    rows = split(source, "canonical", 0)
    return {name: source.slices(rows[name]) for name in ("train", "validation")}


def main() -> None:
    """Trains and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--out", type=Path, default=Path(samples.__file__).parent / "perceptual")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    rng, batch_size = np.random.default_rng(0), 128
    data = {detector.name: parts(detector) for detector in (ZN, ZP)}
    known = {name: {part: targets(events) for part, events in one.items()} for name, one in data.items()}
    every = np.concatenate([one["train"] for one in known.values()])
    mean, scale = every.mean(0), every.std(0)
    network = Network()
    steps = arguments.epochs * sum(len(one["train"]) // batch_size for one in data.values())
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)

    def error(name: str, part: str, rows: np.ndarray) -> torch.Tensor:
        image = torch.from_numpy(np.log1p(data[name][part].responses[rows].astype(np.float32)))
        wanted = torch.from_numpy((known[name][part][rows] - mean) / scale)
        errors: torch.Tensor = (network(image) - wanted).square().mean(0)
        return errors

    started = time.process_time()
    for _ in range(arguments.epochs):
        batches = []
        for name, one in data.items():
            order = rng.permutation(len(one["train"]))
            batches += [(name, rows) for rows in np.split(order, range(batch_size, len(order), batch_size))]
        batches = [batch for batch in batches if len(batch[1]) == batch_size]
        for number in rng.permutation(len(batches)):
            optimizer.zero_grad()
            error(batches[number][0], "train", batches[number][1]).mean().backward()
            optimizer.step()
            schedule.step()
    seconds = time.process_time() - started
    errors = {}
    with torch.no_grad():
        for name, one in data.items():
            rows = np.arange(len(one["validation"]))
            errors[name] = dict(zip(NAMES, error(name, "validation", rows).tolist(), strict=True))
            print(name, {key: round(value, 3) for key, value in errors[name].items()})
    state = network.extractor.state_dict()
    tensors = {name: tensor.numpy() for name, tensor in state.items()}
    for number, channels in enumerate(network.extractor.channels):
        tensors[f"lin{number}.model.1.weight"] = np.full((1, channels, 1, 1), 1 / channels, np.float32)
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "zdc.safetensors"
    write_weights(path, tensors)
    files = [path for detector in (ZN, ZP) for path in samples.samples_of(detector.name)]
    card = {
        "name": "zdc",
        "what": "perceptual network of caloforge.nn.perceptual, trained on GEANT's images of ZN and ZP",
        "command": f"python tools/perceptual.py --epochs {arguments.epochs}",
        "data": [{"name": file.name, "sha256": sha256(file)} for file in files],
        "split": "canonical",
        "stages": STAGES,
        "parameters": sum(parameter.numel() for parameter in network.extractor.parameters()),
        "sha256": sha256(path),
        "validation_errors": errors,
        "seconds": round(seconds, 1),
    }
    write_json(arguments.out / "zdc.json", card)
    print(f"{steps} steps in {seconds:.0f} s of processor time: {path}, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
