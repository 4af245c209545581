"""Draws the figures of the documentation: the first one, quality against time, studies, the gallery.

    python tools/pictures.py events zn-factorized_flow_matching --reference sample:zn --out docs/images/events.png
    python tools/pictures.py time RUN... --panels zn_wide:w1 zn_wide:conditional_w1 zn:mae_c --out time.svg
    python tools/pictures.py study STUDY --out docs/images/study.svg
    python tools/pictures.py gallery --out docs/images/gallery
    python tools/pictures.py evaluations TEXT:SCORE... --out docs/images/evaluations.svg

`events` draws test particles of several types, one shot of the simulation above one of the surrogate, and the photon
sums of all test rows; of each type it takes the particle that was simulated most often. The runs of `time` are
evaluated run folders, on the sets that the panels name; every setting of their sweeps is drawn too. `gallery` runs the
Python of docs/gallery.md in a folder and keeps there the pictures that the page shows. `evaluations` draws a score of
what `benchmarks/solvers.py`, or `reading` of `benchmarks/calodream.py`, has printed against the evaluations of the
network.
"""

from __future__ import annotations

import argparse
import contextlib
import re
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm

import caloforge as cf
from caloforge import samples
from caloforge.events import split
from caloforge.io import open_events
from caloforge.metrics import METRICS
from caloforge.particles import particle_name
from caloforge.report import drawing, figures, pareto
from caloforge.report.runs import read_runs
from caloforge.report.study import read_study
from caloforge.report.tables import floor_of

TYPES = (22, 2112, 310)
"""Particles of the first figure: photon, neutron, K0S."""

SHOTS = 2


def events(name: str, reference: str) -> bytes:
    """Draws shots of some test particles, simulated and generated, and the sums of all."""
    source = open_events(samples.located(reference))
    test = source.slices(split(source, "canonical")["test"])
    generated = cf.load(name).sample(test.primaries, seed=1, on_outside="flag")
    columns = []
    for pdg in TYPES:
        particles, count = np.unique(test.group[test.pdg == pdg], return_counts=True)
        rows = np.flatnonzero(test.group == particles[np.argmax(count)])[:SHOTS]
        columns += [(f"{particle_name(pdg)}, {test.feature('energy')[row]:,.0f} GeV", row) for row in rows]
    rows_of = {"GEANT": test, "caloforge": generated}
    size, gap, wide = 1.05, 0.06, 2.6
    with drawing.settings():
        figure = drawing.figure(1.0 + len(columns) * (size + gap) + 0.12 + wide, 2 * (size + gap) + 0.75)
        norm = LogNorm(
            1, max(float(one.responses[row].max()) for one in rows_of.values() for _, row in columns)
        )
        for i, (label, one) in enumerate(rows_of.items()):
            for j, (title, row) in enumerate(columns):
                bottom = 0.5 + (1 - i) * (size + gap)
                panel = drawing.axes(figure, 0.35 + j * (size + gap), bottom, size, size)
                image = np.ma.masked_equal(one.responses[row].T, 0)
                panel.imshow(image, origin="lower", norm=norm, cmap=drawing.ink_map())
                panel.set_facecolor("black")
                panel.set_xticks([])
                panel.set_yticks([])
                if i == 0 and j % SHOTS == 0:
                    panel.set_title(title, fontsize=9, loc="left", pad=3)
                if j == 0:
                    panel.set_ylabel(label, fontsize=9)
        left = 1.0 + len(columns) * (size + gap)
        sums = drawing.axes(figure, left, 0.5, wide, 2 * size + gap)
        edges = np.geomspace(10, 4000, 40)
        for number, (label, one) in enumerate(rows_of.items()):
            photons = one.responses.reshape(len(one), -1).sum(1, dtype=np.int64)
            look = drawing.style(number, label)
            heights = np.histogram(photons, edges)[0].astype(np.float64)
            drawing.step(sums, heights, edges, label=label, color=look.colour)
        sums.set_xscale("log")
        sums.set_xlabel("photons of a response", fontsize=9)
        sums.set_ylabel("test rows", fontsize=9)
        sums.legend(fontsize=9, frameon=False)
        return drawing.png(figure)


def time(runs: list[Path], panels: list[str]) -> bytes:
    """Draws one panel for each SET:METRIC."""
    found = read_runs(runs)
    drawn = []
    for panel in panels:
        stem, _, metric = panel.partition(":")
        points = pareto.priced(found, stem, metric)
        label = f"{METRICS[metric].title} on {stem} [{METRICS[metric].unit}]"
        floor = floor_of([run.scores for run in found], stem, metric)
        drawn.append(pareto.PricePanel(tuple(points), floor, label))
        best = [
            f"{point.look.label} {point.setting}".strip()
            for point in pareto.frontier(one for one in points if one.kind == "generator")
        ]
        print(f"{panel}: {len(points)} points, best generators by time: {', '.join(best)}")
    return figures.quality_against_time(drawn)


def study(folder: Path) -> bytes:
    """Draws the cumulative share of trials."""
    study = read_study(folder)
    ended = study.content.ended
    values = [trial.reached for trial in ended if trial.reached is not None]
    finished = [trial.value for trial in study.content.finished if trial.value is not None]
    print(f"{len(ended)} trials, {len(finished)} finished, best {min(finished):.4g}")
    return figures.cumulative(values, len(ended), finished, study.label)


def evaluations(panels: list[str]) -> bytes:
    """Draws one panel for each FILE:SCORE; bars reach from the least to the greatest of the seeds."""
    names: list[str] = []
    side, gap = 2.5, 0.75
    with drawing.settings():
        figure = drawing.figure(gap + len(panels) * (side + gap) - 0.4, side + 1.25)
        for number, panel in enumerate(panels):
            path, _, score = panel.partition(":")
            title, *table = (line for line in Path(path).read_text().splitlines() if line.strip())
            heads, _, *rows = ([cell.strip() for cell in line.strip("| ").split("|")] for line in table)
            axes = drawing.axes(figure, gap + number * (side + gap), 0.5, side, side)
            points: dict[str, list[tuple[float, ...]]] = {}
            place, least = heads.index("evaluations"), 1
            for row in sorted(rows, key=lambda row: int(row[place])):
                if row[0].startswith("simulation"):
                    axes.axhline(
                        float(row[heads.index(score)]), label=row[0], color=drawing.GREY, linewidth=0.8
                    )
                    continue
                least = min(least, int(row[place]))
                values = [float(value) for value in row[heads.index(score)].split(" / ")]
                low, middle, high = values[0], values[len(values) // 2], values[-1]
                each = points.setdefault(row[0].removesuffix(", of the run"), [])
                each.append((int(row[place]), middle, middle - low, high - middle))
            for name, several in points.items():
                names += [] if name in names else [name]
                look = drawing.style(names.index(name), name)
                counts, middles, *bars = zip(*several, strict=True)
                axes.errorbar(
                    counts, middles, bars, label=name, color=look.colour, marker="o", markersize=3.5
                )
            if least:
                axes.set_xscale("log", base=2)
            else:
                axes.set_xscale("symlog", base=2, linthresh=1)
            axes.set_yscale("log")
            drawing.plain_ticks(axes.yaxis)
            axes.xaxis.set_major_formatter(lambda value, _: drawing.plainly(value))
            axes.set_title(", ".join(title.split(", ")[:2]), fontsize=9)
            axes.set_xlabel("evaluations of the network")
            axes.set_ylabel(score)
        handles: dict[str, Any] = {}
        for axes in figure.axes:
            handles |= {
                label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
            }
        columns = max(3, -(-len(handles) // 2))
        figure.legend(handles.values(), handles, loc="upper center", ncols=columns, fontsize=8.5)
        return drawing.svg(figure)


GALLERY = Path(__file__).parents[1] / "docs" / "gallery.md"


def gallery(folder: Path) -> None:
    """Runs the Python blocks of the gallery in one namespace; pictures that the page does not show are removed."""
    text = GALLERY.read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    shown = {Path(name).name for name in re.findall(r"\]\((images/gallery/[^)]+)\)", text)}
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    names: dict[str, Any] = {"__name__": "__main__"}
    with contextlib.chdir(folder):
        for number, block in enumerate(blocks):
            exec(compile(block, f"{GALLERY.name}, block {number}", "exec"), names)
    for picture in folder.iterdir():
        if picture.name not in shown:
            picture.unlink()


def main() -> None:
    """Reads the arguments and writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    kinds = parser.add_subparsers(dest="kind", required=True)
    of_events = kinds.add_parser("events")
    of_events.add_argument("surrogate")
    of_events.add_argument("--reference", default="sample:zn")
    of_runs = kinds.add_parser("time")
    of_runs.add_argument("runs", nargs="+", type=Path)
    of_runs.add_argument("--panels", nargs="+", required=True)
    of_study = kinds.add_parser("study")
    of_study.add_argument("study", type=Path)
    of_gallery = kinds.add_parser("gallery")
    of_evaluations = kinds.add_parser("evaluations")
    of_evaluations.add_argument("panels", nargs="+")
    for kind in (of_events, of_runs, of_study, of_gallery, of_evaluations):
        kind.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.kind == "events":
        arguments.out.write_bytes(events(arguments.surrogate, arguments.reference))
    elif arguments.kind == "time":
        arguments.out.write_bytes(time(arguments.runs, arguments.panels))
    elif arguments.kind == "evaluations":
        arguments.out.write_bytes(evaluations(arguments.panels))
    elif arguments.kind == "study":
        arguments.out.write_bytes(study(arguments.study))
    else:
        gallery(arguments.out)


if __name__ == "__main__":
    main()
