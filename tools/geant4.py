"""What Geant4 makes of the layouts of data sets 2 and 3: scales, profiles and times, beside another simulation.

    python tools/geant4.py runs/g4check --g4data FOLDER --other ds2_1_100GeV.h5 --page docs/geant4.md

Simulates positrons of 1 to 100 GeV under several physics options, range cuts and ways of scoring, and of fixed energies
for the times (each kept in the folder, so that the same command goes on), and writes a page with tables and figures.
Times are processor seconds of an event, the building of Geant4's tables aside.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import NullFormatter

from caloforge.detectors import DS2, ChannelMap, Detector
from caloforge.io import open_events
from caloforge.simulate import Job, Scorer, Setup, Tube, Volume, sampling_calorimeter, simulate

STANDARD = "G4EmStandardPhysics"
VARIANTS: dict[str, dict[str, Any]] = {
    "standard": {},
    "option 1": {"physics": f"{STANDARD}_option1"},
    "option 2": {"physics": f"{STANDARD}_option2"},
    "option 3": {"physics": f"{STANDARD}_option3"},
    "option 4": {"physics": f"{STANDARD}_option4"},
    "cut 0.05 mm": {"cut": 0.05},
    "cut 2 mm": {"cut": 2.0},
    "option 1, cut 0.05 mm": {"physics": f"{STANDARD}_option1", "cut": 0.05},
    "option 1, cut 0.02 mm": {"physics": f"{STANDARD}_option1", "cut": 0.02},
    "cut into the silicon": {"scoring": "replicas"},
    "option 1, cut into the silicon": {"physics": f"{STANDARD}_option1", "scoring": "replicas"},
}
TIMED = {1.0: 100, 10.0: 40, 100.0: 8}
"""Energies in GeV, and how many showers of each."""

KINDS = {"none": "geant4:uncounted", "steps": "ds2", "replicas": "ds2"}


def uncounted() -> Setup:
    """Builds the stack with nothing counted but a pin behind it."""
    stack = sampling_calorimeter(DS2)
    dark = tuple(Volume(one.shape, one.material, one.centre) for one in stack.volumes)
    pin = Volume(Tube(0.0, 0.1, 0.1), "G4_Si", (0.0, 0.0, 500.0), 0)
    one = Detector(
        name="pin",
        axes={"pin": 1},
        unit="MeV",
        conditions=DS2.conditions,
        channels={"sum": ChannelMap(("sum",), np.ones((1, 1), np.float32), "")},
        title="a pin",
    )
    return Setup((one,), (*dark, pin), Scorer("volumes"), particle="e+", origin=(0.0, 0.0, 0.0))


def made(folder: Path, name: str, job: Job, events: int, g4data: Path | None) -> Path:
    """Simulates what is not there yet."""
    path = folder / f"{name.replace(' ', '_').replace(',', '')}.h5"
    if not path.exists() or not seconds(path).size:
        simulate(job, path, events, g4data=g4data, resume=True, keep=True)
    return path


def seconds(path: Path) -> np.ndarray:
    """Returns processor seconds of each event, from the parts."""
    parts = sorted(path.with_name(f"{path.name}.parts").glob("part-*.npz"))
    return np.concatenate([np.load(part)["seconds"] for part in parts]) if parts else np.empty(0)


def numbers(path: Path) -> dict[str, np.ndarray]:
    """Returns what is compared: energy in GeV, scale, resolution, profiles, lit voxels."""
    events = open_events(path, DS2).slices(slice(None))
    energy = events.feature("incident_energy").astype(float)
    showers = np.asarray(events.responses, float)
    layers, total = showers.sum((2, 3)), showers.sum((1, 2, 3))
    return {
        "energy": energy / 1e3,
        "scale": total / energy,
        "layer": (layers * np.arange(45)).sum(1) / total,
        "profile": layers / total[:, None],
        "rings": showers.sum((1, 2)) / total[:, None],
        "lit": (showers > 0).mean((1, 2, 3)),
    }


def spread(values: np.ndarray) -> str:
    """Writes a mean and its error."""
    return f"{values.mean():.3f} ± {values.std() / np.sqrt(len(values)):.3f}"


def row(name: str, found: dict[str, np.ndarray]) -> str:
    """Writes a row of the table."""
    high = found["energy"] > 10
    relative = found["scale"][high] / found["scale"][high].mean()
    return (
        f"| {name} | {len(found['energy'])} | {spread(found['scale'])} | {100 * relative.std():.1f} | "
        f"{found['layer'][~high].mean():.2f} | {found['layer'][high].mean():.2f} | {found['rings'][:, 0].mean():.3f} | "
        f"{100 * found['lit'][~high].mean():.2f} | {100 * found['lit'][high].mean():.2f} |"
    )


def figure(page: Path, sets: dict[str, dict[str, np.ndarray]]) -> str:
    """Draws profiles along and across, scale and lit voxels against energy."""
    figure, axes = plt.subplots(2, 2, figsize=(9, 6.4), layout="constrained")
    edges = np.geomspace(1, 100, 9)
    for name, found in sets.items():
        axes[0, 0].plot(np.arange(45), found["profile"].mean(0), label=name)
        axes[0, 1].semilogy(np.arange(9) + 1, found["rings"].mean(0), "o-", ms=3, label=name)
        which = np.digitize(found["energy"], edges)
        for axis, key, factor in ((axes[1, 0], "scale", 1), (axes[1, 1], "lit", 100)):
            means = [
                factor * found[key][which == k].mean() if (which == k).any() else np.nan for k in range(1, 9)
            ]
            axis.semilogx(np.sqrt(edges[1:] * edges[:-1]), means, "o-", ms=3, label=name)
    for axis, x, y in zip(
        axes.flat,
        ("layer", "ring", "energy [GeV]", "energy [GeV]"),
        ("share of the energy", "share of the energy", "E_tot / E_inc", "lit voxels [%]"),
        strict=True,
    ):
        axis.set_xlabel(x)
        axis.set_ylabel(y)
    for axis in axes[1]:
        axis.xaxis.set_minor_formatter(NullFormatter())  # labels of a decade and a half would overlap
    axes[0, 0].legend(fontsize=8)
    target = page.parent / "images" / f"{page.stem}.svg"
    figure.savefig(target)
    plt.close(figure)
    return f"images/{target.name}"


def write_page(page: Path, folder: Path, g4data: Path | None, other: Path | None, events: int) -> None:
    """Simulates, compares and writes the page."""
    sets: dict[str, dict[str, np.ndarray]] = {}
    failed = []
    for name, changes in VARIANTS.items():
        settings = {"scoring": "steps", **changes}
        job = Job("ds2", "e+", (1.0, 100.0), seed=sum(name.encode()), part=50, **settings)
        try:
            sets[name] = numbers(made(folder, name, job, events, g4data))
        except (ValueError, OSError) as error:
            failed.append(name)
            print(f"{name}: {error}", file=sys.stderr)
    lines = [
        "| | showers | E_tot / E_inc | its spread above 10 GeV [%] | mean layer, 1 to 10 GeV | 10 to 100 GeV | "
        "first ring | lit [%], 1 to 10 GeV | 10 to 100 GeV |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    if other:
        lines.append(row("another simulation (GEANT 3.21)", numbers(other)))
    lines += [row(name, found) for name, found in sets.items()]
    shown = {"GEANT 3.21": numbers(other)} if other else {}
    shown |= {name: sets[name] for name in ("standard", "option 1", "cut into the silicon") if name in sets}
    picture = figure(page, shown)
    times = ["| energy [GeV] | nothing counted | by steps | cut into the silicon |", "|---|---|---|---|"]
    for energy, count in TIMED.items():
        cells = []
        for kind, detector in KINDS.items():
            scoring = kind if detector == "ds2" else None
            job = Job(detector, "e+", (energy, energy), "fixed", seed=1, scoring=scoring, part=count)
            cost = seconds(made(folder, f"time {kind} {energy:g}", job, count, g4data))[1:]
            cells.append((cost.mean(), cost.std() / np.sqrt(len(cost))))
        base = cells[0][0]
        times.append(
            f"| {energy:g} | {base:.4f} ± {cells[0][1]:.4f} | "
            + " | ".join(f"{mean:.4f} ± {error:.4f} ({mean / base:.2f} times)" for mean, error in cells[1:])
            + " |"
        )
    text = "\n".join(
        [
            "# Showers of Geant4 against others",
            "",
            "Made by `tools/geant4.py`: positrons, log-uniform from 1 to 100 GeV, in 90 sheets of 1.4 mm tungsten",
            "and 0.3 mm silicon, the energy divided by 0.033, voxels of data set 2 above its threshold. Errors",
            "are those of means.",
            "",
            *lines,
            "",
            f"![Profiles, scale and lit voxels]({picture})",
            "",
            *(
                [f"Not simulated, since the data sets at hand lack their tables: {', '.join(failed)}.", ""]
                if failed
                else []
            ),
            "Processor seconds an event, mean and its error, the first event (which builds the tables) left out:",
            "",
            *times,
            "",
        ]
    )
    notes = page.with_suffix(".notes.txt")
    page.write_text(text + (notes.read_text() if notes.exists() else ""), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--g4data", type=Path)
    parser.add_argument("--other", type=Path)
    parser.add_argument("--page", type=Path, required=True)
    parser.add_argument("--events", type=int, default=200)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    write_page(given.page, given.folder, given.g4data, given.other, given.events)
