"""Prints the floors of data sets: what simulated events score against simulated events of as many rows.

    python benchmarks/floors.py zn.h5 zn_wide.h5 zp.h5 zp_wide.h5 [--splits 20] [--channels paper]

A folder stands for the four sets of those names in it. Floors are of the test part of the canonical split;
the last column of the first table is the W1 of all training rows against the test rows. A spread of 0 means
that every split is the same: no particle there has more than two responses.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np

from caloforge.events import Selected, split
from caloforge.io import open_events
from caloforge.metrics import METRICS, Observables, Result, floors, observe

SETS = ("zn.h5", "zn_wide.h5", "zp.h5", "zp_wide.h5")


def files(paths: list[Path]) -> list[Path]:
    """Replaces folders by the data sets in them."""
    return [file for path in paths for file in ([path / name for name in SETS] if path.is_dir() else [path])]


def formatted(results: list[Result]) -> str:
    """Writes mean +- standard deviation over the splits, or the reason why there is none."""
    values = [result.value for result in results]
    if any(math.isnan(value) for value in values):
        return "-"
    return f"{np.mean(values):.3g} +- {round(np.std(values, ddof=1), 9):.2g}"


def table(rows: list[list[str]]) -> None:
    """Prints a Markdown table, the first row its head."""
    head, *body = rows
    for row in (head, ["---"] * len(head), *body):
        print("| " + " | ".join(row) + " |")
    print()


def main() -> None:
    """Reads the arguments, computes, prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--channels", default="paper")
    arguments = parser.parse_args()

    sets: list[list[str]] = [["set", "test rows", "particles", "W1 floor", "MAE floor", "W1 train / test"]]
    columns: dict[str, dict[str, list[Result]]] = {}
    for path in files(arguments.paths):
        source = open_events(path)
        parts = split(source, "canonical")
        test, train = (
            observe(Selected(source, parts[part]), arguments.channels) for part in ("test", "train")
        )
        floor = floors(test, splits=arguments.splits)
        sets.append([path.stem, *counts(test), *(formatted(floor[name]) for name in ("w1", "mae"))])
        sets[-1].append(f"{METRICS['w1'].function(test, train).value:.3g}")
        columns[path.stem] = floor
    table(sets)
    table(
        [
            ["floor", *columns],
            *(
                [name, *(formatted(floor[name]) if name in floor else "-" for floor in columns.values())]
                for name in METRICS
            ),
        ]
    )


def counts(observables: Observables) -> list[str]:
    """Returns the numbers of rows and of unique particles."""
    return [str(len(observables)), str(len(np.unique(observables.primaries.group)))]


if __name__ == "__main__":
    main()
