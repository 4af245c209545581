"""Draws the figures of the documentation as SVG: quality against time, and what the trials of a study reach.

    python tools/pictures.py time RUN... --panels zn_wide:w1 zn_wide:conditional_w1 zn:mae_c --out time.svg
    python tools/pictures.py study STUDY --out docs/images/study.svg

Runs are evaluated run folders, on the sets that the panels name; every setting of their sweeps is drawn too.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from caloforge.metrics import METRICS
from caloforge.report import figures, pareto
from caloforge.report.runs import read_runs
from caloforge.report.study import reached, read_study
from caloforge.report.tables import floor_of


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
    found = read_study(folder)
    values = [value for trial in found.trials if (value := reached(trial)) is not None]
    finished = [float(trial["value"]) for trial in found.finished]
    print(f"{len(found.trials)} trials, {len(finished)} finished, best {min(finished):.4g}")
    return figures.cumulative(values, len(found.trials), finished, found.label)


def main() -> None:
    """Reads the arguments and writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    kinds = parser.add_subparsers(dest="kind", required=True)
    of_runs = kinds.add_parser("time")
    of_runs.add_argument("runs", nargs="+", type=Path)
    of_runs.add_argument("--panels", nargs="+", required=True)
    of_study = kinds.add_parser("study")
    of_study.add_argument("study", type=Path)
    for kind in (of_runs, of_study):
        kind.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.kind == "time":
        arguments.out.write_bytes(time(arguments.runs, arguments.panels))
    else:
        arguments.out.write_bytes(study(arguments.study))


if __name__ == "__main__":
    main()
