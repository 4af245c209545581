"""Computes every number of the CaloChallenge two ways, by its definitions word by word and by caloforge.

    python benchmarks/challenge_two_ways.py GENERATED REFERENCE BINNING.xml [--particle photon] [--epochs 3]
        [--views low high] [--draws 20]
    python benchmarks/challenge_two_ways.py --made photon|pion [--rows 2000]
    python benchmarks/challenge_two_ways.py --gaussians

The definitions are written down here once more, shower by shower and layer by layer, with SciPy's matrix root and
bounded fit, NumPy's histograms, gathered rows and whole kernel matrices; nothing but files, the order of rows and
the seeds of networks is shared with caloforge. Where jetnet is installed FPD and KPD are its own. `--made` writes files
of data set 1's numbers of voxels, at its energies, with radii of our own and a few negative voxels. Classifiers have
the challenge's layers, and as many epochs as are asked for. `--gaussians`: FPD and KPD, with and without
replacement, of two sets of 20,000 from one Gaussian of 60 numbers.

One row a number: the largest difference of all histograms or features, where there are several.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
import warnings
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import h5py
import numpy as np
from numpy.typing import NDArray
from scipy import linalg, optimize, special

Array = NDArray[np.float64]

DS1 = {
    "photon": (22, {0: (8, 1), 1: (16, 10), 2: (19, 10), 3: (5, 1), 12: (5, 1)}),
    "pion": (211, {0: (8, 1), 1: (10, 10), 2: (10, 10), 3: (5, 1), 12: (15, 10), 13: (16, 10), 14: (10, 1)}),
}
"""PDG id, and radii and angles of each layer, of data set 1."""


# The definitions


class Definition:
    """A data set as the definitions see it.

    Args:
        binning: the XML file.
        particle: name of its Bin; the only one where not given.
    """

    def __init__(self, binning: Path, particle: str | None) -> None:
        (found,) = (
            one
            for one in ElementTree.parse(binning).getroot().iter("Bin")
            if particle in (None, one.get("name"))
        )
        self.photons = found.get("pid") == "22"
        self.layers: list[tuple[int, Array, Array, Array]] = []
        self.angles: list[int] = []
        for layer in found.iter("Layer"):
            edges = [float(edge) for edge in str(layer.get("r_edges")).split(",")]
            if len(edges) < 2:
                continue
            angles = int(str(layer.get("n_bin_alpha")))
            eta, phi, radius = [], [], []
            for k in range(angles):
                alpha = -math.pi + 2 * math.pi * (k + 0.5) / angles
                for low, high in pairwise(edges):
                    r = (low + high) / 2
                    eta.append(r * math.cos(alpha))
                    phi.append(r * math.sin(alpha))
                    radius.append(r)
            self.layers.append((int(str(layer.get("id"))), np.array(eta), np.array(phi), np.array(radius)))
            self.angles.append(angles)
        shapes = {(len(layer[1]), angles) for layer, angles in zip(self.layers, self.angles, strict=True)}
        self.first_set = len(shapes) > 1
        self.minimum = 1.0 if self.first_set else 0.5e-3 / 0.033

    def read(self, path: Path) -> dict[Any, Any]:
        """Reads a file and returns energies, voxels and observables."""
        with h5py.File(path) as file:
            energy = file["incident_energies"][:].astype(np.float64).reshape(-1)
            uncut = file["showers"][:].astype(np.float64)
        voxels = np.where(uncut < self.minimum, 0, uncut)
        found: dict[Any, Any] = {"energy": energy, "uncut": uncut, "voxels": voxels}
        start = 0
        for (number, *places), angles in zip(self.layers, self.angles, strict=True):
            part = voxels[:, start : start + len(places[0])]
            start += part.shape[1]
            total = part.sum(1)
            found["E", number] = total
            found["sparsity", number] = 1 - (part > 0).sum(1) / part.shape[1]
            for name, z in zip(("eta", "phi", "r"), places, strict=True):
                if angles == 1 and name != "r":
                    continue
                mean = (part * z).sum(1) / (total + 1e-16)
                square = (part * z * z).sum(1) / (total + 1e-16)
                found[f"EC_{name}", number] = mean
                found[f"width_{name}", number] = np.sqrt(np.clip(square - mean**2, 0, None))
        found["E_tot"] = voxels.sum(1)
        return found

    def features(self, found: Mapping[Any, Any]) -> Array:
        """Returns the high-level features, (N, F)."""
        numbers = [layer[0] for layer in self.layers]
        columns = [np.log10(found["energy"])]
        columns += [np.log10(found["E", n] + 1e-8) for n in numbers]
        for name in ("EC_eta", "EC_phi", "width_eta", "width_phi"):
            columns += [found[name, n] / 100 for n in numbers if (name, n) in found]
        columns.append(np.log10(found["E_tot"] + 1e-8))
        columns += [found["sparsity", n] for n in numbers]
        columns += [found[name, n] / 100 for name in ("EC_r", "width_r") for n in numbers]
        return np.stack(columns, 1)

    def edges(self, name: str, number: int) -> Array:
        """Returns the edges of a histogram of centres or widths."""
        what, z = name.split("_")
        if not self.first_set:
            window = (
                {"EC": (-30, 30), "width": (0, 30)}[what]
                if z != "r"
                else {"EC": (0, 42), "width": (0, 20)}[what]
            )
        elif z == "r":
            window = (0, 1500) if number in (12, 13, 14) else (0, 500)
        elif what == "EC":
            window = (-500, 500) if number in (12, 13) else (-100, 100)
        else:
            window = (0, 400) if number in (12, 13) else (0, 100)
        return np.linspace(*window, 101)

    def separations(self, real: Mapping[Any, Any], fake: Mapping[Any, Any]) -> dict[str, float]:
        """Returns the separation power of every histogram."""
        ratio, other = (found["E_tot"] / found["energy"] for found in (real, fake))
        powers = {"E_tot/E_inc": power(ratio, other, np.linspace(0.5, 1.5, 101))}
        if self.first_set:
            for k in range(15):
                low = 2.0 ** (8 + k)
                here, there = (
                    values[(found["energy"] >= low) & (found["energy"] < 2 * low)]
                    for values, found in ((ratio, real), (other, fake))
                )
                narrow = self.photons and k >= 4
                edges = np.linspace(0.9, 1.1, 21) if narrow else np.linspace(0.4, 1.4, 21)
                powers[f"E_tot/E_inc {low:.0f} MeV"] = power(here, there, edges)
        for number, *_ in self.layers:
            top = real["E", number].max()
            if top > self.minimum:
                edges = np.logspace(np.log10(self.minimum), np.log10(top), 40)
                edges[-1] = top
                powers[f"E_layer {number}"] = power(real["E", number], fake["E", number], edges)
            powers[f"sparsity {number}"] = power(
                real["sparsity", number], fake["sparsity", number], np.linspace(0, 1, 21)
            )
            for name in ("EC_eta", "EC_phi", "EC_r", "width_eta", "width_phi", "width_r"):
                if (name, number) in real:
                    powers[f"{name} {number}"] = power(
                        real[name, number], fake[name, number], self.edges(name, number)
                    )
        edges = np.logspace(np.log10(self.minimum), np.log10(real["voxels"].max()), 50)
        edges[-1] = real["voxels"].max()
        powers["voxels"] = power(real["voxels"].ravel(), fake["voxels"].ravel(), edges)
        return powers


def power(real: Array, fake: Array, edges: Array) -> float:
    """Returns the separation power; NaN where the reference has nothing within the edges."""
    h1, h2 = np.histogram(real, edges)[0], np.histogram(fake, edges)[0]
    if not h1.sum():
        return math.nan
    p = h1 / h1.sum()
    q = h2 / h2.sum() if h2.sum() else np.zeros(len(h2))
    if not h2.sum():
        return 1.0
    return float(0.5 * ((p - q) ** 2 / (p + q + 1e-16)).sum())


def frechet_physics(real: Array, fake: Array, draws: int) -> tuple[float, float]:
    """Returns FPD and its error."""
    top = np.abs(real).max(0)
    top[top == 0] = 1
    real, fake = real / top, fake / top
    sizes = (1 / np.linspace(1 / 10_000, 1 / 50_000, 10)).astype("int32")
    rng = np.random.default_rng(42)
    means = []
    for size in sizes:
        distances = []
        for _ in range(draws):
            a, b = real[rng.choice(len(real), size)], fake[rng.choice(len(fake), size)]
            s1, s2 = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
            root = np.trace(np.real(linalg.sqrtm(s1 @ s2)))
            distances.append(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(s1) + np.trace(s2) - 2 * root)
        means.append(np.mean(distances))
    fit, covariance = optimize.curve_fit(
        lambda x, a, b: a + b * x, 1 / sizes, means, bounds=([0, 0], [np.inf, np.inf])
    )
    return float(fit[0]), float(covariance[0, 0] ** 0.5)


def kernel_physics(real: Array, fake: Array) -> tuple[float, float]:
    """Returns KPD and its error."""
    top = np.abs(real).max(0)
    top[top == 0] = 1
    real, fake = real / top, fake / top
    values = []
    for number in range(10):
        rng = np.random.default_rng(42 + 1000 * number)
        a, b = real[rng.choice(len(real), 10_000)], fake[rng.choice(len(fake), 10_000)]
        means = []
        for x in (a, b):
            kernel = (x @ x.T / x.shape[1] + 1) ** 4
            means.append((kernel.sum() - np.trace(kernel)) / (len(x) * (len(x) - 1)))
        values.append(sum(means) - 2 * ((a @ b.T / a.shape[1] + 1) ** 4).mean())
    low, high = np.percentile(values, [16.275, 83.725])
    return float(np.median(values)), float(high - low) / 2


def neighbourhoods(real: Array, fake: Array) -> dict[str, float]:
    """Returns precision, recall, density and coverage of voxels, k = 5."""
    x, y = (np.log10(np.where(voxels > 0, voxels, 0.1)).astype(np.float32) for voxels in (real, fake))

    def distances(a: Any, b: Any) -> Array:
        return np.stack([np.sqrt(((a - point) ** 2).sum(1, dtype=np.float64)) for point in b], 1)

    radius = np.sort(distances(x, x), axis=1)[:, 5]
    radius_fake = np.sort(distances(y, y), axis=1)[:, 5]
    across = distances(x, y)
    return {
        "precision": float((across < radius[:, None]).any(0).mean()),
        "recall": float((across < radius_fake).any(1).mean()),
        "density": float((across < radius[:, None]).sum(0).mean() / 5),
        "coverage": float((across.min(1) < radius).mean()),
    }


def classifier_input(definition: Definition, found: Mapping[Any, Any], view: str) -> Array:
    """Returns what a classifier sees."""
    energy = np.log10(found["energy"])[:, None]
    if view in ("low", "resnet"):
        return np.hstack([energy, found["voxels"] / found["energy"][:, None]])
    if view == "high":
        return definition.features(found)
    columns, start, uncut = [energy], 0, np.maximum(found["uncut"], 0)
    for number, eta, *_ in definition.layers:
        part = uncut[:, start : start + len(eta)]
        start += len(eta)
        columns.append(part / (found["E", number][:, None] + 1e-16))
    columns += [np.log10(found["E", number] + 1e-8)[:, None] for number, *_ in definition.layers]
    return np.hstack(columns)


def network_of(view: str, inputs: int, shape: tuple[int, ...]) -> Any:
    """Builds a classifier; layers are made in the order of caloforge, so that equal seeds give equal weights."""
    import torch
    from torch import nn

    if view != "resnet":
        return nn.Sequential(
            nn.Linear(inputs, 2048), nn.LeakyReLU(), nn.Linear(2048, 2048), nn.LeakyReLU(),
            nn.Linear(2048, 2048), nn.LeakyReLU(), nn.Linear(2048, 1),
        )  # fmt: skip

    class Block(nn.Module):
        def __init__(self, before: int, after: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv3d(before, after, 3, stride=stride, padding=1, bias=False)
            self.bn1 = nn.BatchNorm3d(after)
            self.conv2 = nn.Conv3d(after, after, 3, padding=1, bias=False)
            self.bn2 = nn.BatchNorm3d(after)
            down = nn.Conv3d(before, after, 1, stride=stride, bias=False)
            self.down = nn.Sequential(down, nn.BatchNorm3d(after)) if stride != 1 or before != after else None

        def forward(self, x: Any) -> Any:
            y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
            return torch.relu(y + (x if self.down is None else self.down(x)))

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv3d(1, 32, kernel_size=7, stride=2, padding=3, bias=False)
            self.bn = nn.BatchNorm3d(32)
            self.pool = nn.MaxPool3d(kernel_size=3, stride=2, padding=1)
            blocks: list[Any] = []
            for before, after, stride in ((32, 32, 1), (32, 64, 2), (64, 64, 2), (64, 128, 2)):
                blocks += [Block(before, after, stride), Block(after, after, 1)]
            self.blocks = nn.Sequential(*blocks)
            self.energy = nn.BatchNorm1d(1)
            self.last = nn.Linear(129, 1)
            for module in self.modules():
                if isinstance(module, nn.Conv3d):
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

        def forward(self, x: Any) -> Any:
            y = x[:, 1:].reshape(len(x), 1, *shape)
            y = self.blocks(self.pool(torch.relu(self.bn(self.stem(y)))))
            y = nn.functional.adaptive_avg_pool3d(y, 1).flatten(1)
            return self.last(torch.cat([y, self.energy(x[:, :1])], 1))

    return Network()


def classified(
    real: Array, fake: Array, view: str, shape: tuple[int, ...], parts: tuple[int, int, int], epochs: int
) -> dict[str, float]:
    """Trains and judges a classifier; rows and weights are drawn as caloforge draws them with the seed 0."""
    import torch
    from sklearn.isotonic import IsotonicRegression
    from sklearn.metrics import log_loss, roc_auc_score

    rng = np.random.default_rng([0, 5])
    # single precision is what files hold and caloforge keeps of inputs
    sets = [one.astype(np.float32).astype(np.float64)[rng.permutation(len(one))] for one in (real, fake)]
    first, second, third = parts
    ends = [(0, first), (first, first + second), (first + second, first + second + third)]
    rows, labels = [], []
    for low, high in ends:
        rows.append(torch.from_numpy(np.concatenate([one[low:high] for one in sets])))
        labels.append(torch.from_numpy(np.repeat([1.0, 0.0], high - low)))
    torch.manual_seed(0)
    network = network_of(view, rows[0].shape[1], shape).double()
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-4)
    order = torch.Generator().manual_seed(0)
    best, state = -1.0, None
    loss_of = torch.nn.BCEWithLogitsLoss()

    def outputs(x: Any) -> Array:
        network.eval()
        with torch.no_grad():
            found: Array = torch.cat([network(part)[:, 0] for part in x.split(1000)]).numpy()
        return found

    for _ in range(epochs):
        network.train()
        for index in torch.randperm(len(rows[0]), generator=order).split(1000):
            optimizer.zero_grad()
            loss_of(network(rows[0][index])[:, 0], labels[0][index]).backward()
            optimizer.step()
        accuracy = float(((outputs(rows[1]) > 0) == labels[1].numpy().astype(bool)).mean())
        if accuracy > best:
            best, state = accuracy, {key: value.clone() for key, value in network.state_dict().items()}
        if accuracy == 1:
            break
    assert state is not None
    network.load_state_dict(state)
    logits = outputs(rows[2])
    chosen, scored = special.expit(outputs(rows[1])), special.expit(logits)
    truth = labels[2].numpy()
    calibration = IsotonicRegression(out_of_bounds="clip", y_min=1e-6, y_max=1 - 1e-6).fit(
        chosen, labels[1].numpy()
    )
    calibrated = calibration.predict(scored)
    losses = {
        "": log_loss(truth, calibrated),
        "raw_": float(loss_of(torch.from_numpy(logits), labels[2])),
    }
    results = {f"jsd_{kind}{view}": (math.log(2) - loss) / math.log(2) for kind, loss in losses.items()}
    results[f"auc_{view}"] = float(roc_auc_score(truth, calibrated))
    results[f"auc_raw_{view}"] = float(roc_auc_score(truth, scored))
    return results


# Both ways


class Table:
    """One row a number: by the definitions, by caloforge, and their difference."""

    def __init__(self) -> None:
        print("| number | definition | caloforge | difference |\n|---|---|---|---|")

    def add(self, name: str, definition: float, ours: float) -> None:
        """Prints a row."""
        print(f"| {name} | {definition:.6g} | {ours:.6g} | {abs(definition - ours):.1e} |", flush=True)

    def add_all(self, name: str, definition: Mapping[str, float], ours: Mapping[str, float]) -> None:
        """Prints a row for several numbers: their means, and the largest difference."""
        same = definition.keys() == ours.keys()
        finite = [key for key in definition if not math.isnan(definition[key])]
        if not same or any(math.isnan(ours[key]) == (key in finite) for key in ours):
            print(
                f"| {name} | {len(definition)} numbers | {len(ours)} numbers, not the same ones | |",
                flush=True,
            )
            return
        means = (np.mean([values[key] for key in finite]) for values in (definition, ours))
        worst = max(abs(definition[key] - ours[key]) for key in finite)
        mean, other = means
        print(f"| {name}, {len(finite)}, mean | {mean:.6g} | {other:.6g} | {worst:.1e} |", flush=True)


def jetnet_distances(real: Array, fake: Array, draws: int) -> dict[str, tuple[float, float]] | None:
    """Returns FPD and KPD of jetnet with the challenge's sizes; None where it is not installed."""
    try:
        from jetnet import evaluation  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return None
    fpd = evaluation.fpd(real, fake, min_samples=10_000, max_samples=50_000, num_batches=draws)
    return {"fpd": fpd, "kpd": evaluation.kpd(real, fake, num_batches=10, batch_size=10_000)}


def both(
    generated: Path, reference: Path, binning: Path, particle: str | None, arguments: argparse.Namespace
) -> None:
    """Prints every number both ways."""
    from caloforge.detectors import detector_named
    from caloforge.io import open_to_judge
    from caloforge.metrics.showers import Sizes, compare, data_set, observe_showers, separations

    definition = Definition(binning, particle)
    real, fake = definition.read(reference), definition.read(generated)
    detector = detector_named(f"{binning}:{particle}" if particle else str(binning))
    sources = {"real": open_to_judge(reference, detector), "fake": open_to_judge(generated, detector)}
    sizes = Sizes(fpd_draws=arguments.draws)
    ours = observe_showers(sources["real"], sizes=sizes)
    theirs = observe_showers(sources["fake"], ours.edges, sizes)
    name = data_set(detector) or "another data set"
    print(f"{name}, {len(theirs):,} showers against {len(ours):,}\n")
    table = Table()
    features = definition.features(real), definition.features(fake)
    worst = max(np.abs(a - b).max() for a, b in zip(features, (ours.features, theirs.features), strict=True))
    means = (float(np.mean(values)) for values in (features[0], ours.features))
    print(f"| features, {features[0].shape[1]}, mean | {next(means):.6g} | {next(means):.6g} | {worst:.1e} |")
    powers = {"definition": definition.separations(real, fake), "ours": separations(ours, theirs)}
    kinds = dict.fromkeys(
        key.split()[0] + (" at each energy" if key.endswith("MeV") else "") for key in powers["definition"]
    )
    for kind in kinds:
        parts = [
            {
                key: value
                for key, value in found.items()
                if key.split()[0] + (" at each energy" if key.endswith("MeV") else "") == kind
            }
            for found in powers.values()
        ]
        table.add_all(f"separation, {kind}", *parts)
    results = compare(ours, theirs, sizes=sizes)
    started = time.process_time()
    distances = jetnet_distances(*features, arguments.draws)
    source = "jetnet" if distances else "definition"
    if distances is None:
        distances = {"fpd": frechet_physics(*features, arguments.draws), "kpd": kernel_physics(*features)}
    for key, (value, error) in distances.items():
        table.add(f"{key.upper()} x 1000, {source}", 1e3 * value, results[key].value)
        table.add(f"error of {key.upper()} x 1000", 1e3 * error, float(results[key].error or math.nan))
    print(f"<!-- {source}: {time.process_time() - started:.0f} s -->")
    for key, value in neighbourhoods(real["voxels"], fake["voxels"]).items():
        table.add(key, value, results[key].value)
    for view in arguments.views:
        if view == "resnet" and len(detector.shape) != 3:
            continue
        classify_both(definition, (real, fake), sources, detector, view, arguments, table)


def classify_both(
    definition: Definition,
    found: tuple[Mapping[Any, Any], Mapping[Any, Any]],
    sources: Mapping[str, Any],
    detector: Any,
    view: Any,
    arguments: argparse.Namespace,
    table: Table,
) -> None:
    """Prints what one classifier says both ways."""
    from caloforge.evaluation.classifier import classify, inputs_of, parts_of, suite

    config = suite("challenge").model_copy(update={"epochs": arguments.epochs})
    inputs, others = (inputs_of(sources[name], view) for name in ("real", "fake"))
    verdict = classify(inputs, others, view, detector, config)
    rows = len(inputs)
    if len(others) != rows:
        raise SystemExit("classifiers both ways need as many showers in both files")
    parts = parts_of(config, detector, rows)
    real, fake = (classifier_input(definition, one, view) for one in found)
    results = classified(real, fake, view, detector.shape, parts, arguments.epochs)
    for what in ("auc", "jsd"):
        for kind, attribute in (("", what), ("raw_", f"{what}_raw")):
            label = f"{what.upper()} {view}{', raw' if kind else ''}"
            table.add(label, results[f"{what}_{kind}{view}"], getattr(verdict, attribute))


def made(particle: str, rows: int, folder: Path) -> tuple[Path, Path, Path]:
    """Writes two files of showers and a binning with data set 1's numbers of voxels."""
    pdg, layers = DS1[particle]
    lines = (
        f'<Layer id="{number}" r_edges="{",".join(str(8 * k) for k in range(radii + 1))}" n_bin_alpha="{angles}"/>'
        for number, (radii, angles) in layers.items()
    )
    binning = folder / "binning.xml"
    binning.write_text(f'<Bins><Bin pid="{pdg}" name="{particle}">{"".join(lines)}</Bin></Bins>')
    cells = sum(radii * angles for radii, angles in layers.values())
    paths = []
    for seed, name in enumerate(("generated", "reference")):
        rng = np.random.default_rng(seed)
        energy = 2.0 ** rng.integers(8, 23, rows)
        voxels = rng.gamma(0.2 + 0.02 * seed, 1, (rows, cells)) * rng.gamma(2, 1, cells)
        voxels *= (energy / voxels.sum(1) * rng.normal(0.98, 0.05, rows))[:, None]
        voxels[:: rows // 20, 3] = -1e-6
        path = folder / f"{name}.hdf5"
        with h5py.File(path, "w") as file:
            file["incident_energies"] = energy[:, None]
            file["showers"] = voxels.astype(np.float32)
        paths.append(path)
    return paths[0], paths[1], binning


def gaussians() -> None:
    """Prints the distances of two sets from one Gaussian, with and without replacement."""
    from caloforge.metrics.showers import fpd, frechet_population, kernel_population, kpd

    real, fake = np.random.default_rng(0).standard_normal((2, 20_000, 60))
    print("| | Frechet x 1000 | kernel x 1000 |\n|---|---|---|")
    print(
        f"| with replacement | {1e3 * fpd(real, fake).value:.3f} | {1e3 * kpd(real, fake).value:.4f} |",
        flush=True,
    )
    distances = (1e3 * of(real, fake) for of in (frechet_population, kernel_population))
    print("| without | {:.3f} | {:.4f} |".format(*distances))


def main() -> None:
    """Reads the arguments, computes, prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path, help="generated, reference, binning.xml")
    parser.add_argument("--particle")
    parser.add_argument("--made", choices=list(DS1))
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--views", nargs="*", default=["low", "low-normed", "high", "resnet"])
    parser.add_argument("--gaussians", action="store_true")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", RuntimeWarning)
    if arguments.gaussians:
        gaussians()
    if arguments.made:
        with tempfile.TemporaryDirectory() as folder:
            generated, reference, binning = made(arguments.made, arguments.rows, Path(folder))
            both(generated, reference, binning, arguments.made, arguments)
    if arguments.files:
        if len(arguments.files) != 3:
            parser.error(f"wanted GENERATED REFERENCE BINNING.xml, got {len(arguments.files)} files")
        generated, reference, binning = arguments.files
        both(generated, reference, binning, arguments.particle, arguments)


if __name__ == "__main__":
    main()
