"""Writes the tables of results into README.md, from the scores of the weights that ship.

    python tools/readme.py [--page README.md]

A cell is a score and, in brackets, its matched floor over its floor: 1 for a perfect surrogate. A table stands between
two comments, `<!-- NAME -->` and `<!-- end of NAME -->`. Run it after weights were shipped; a test compares.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from caloforge import samples
from caloforge.io.run import Run
from caloforge.io.scores import Score, Scores
from caloforge.io.typed import read_typed

ZDC = {
    "w1": "W1 [photons]",
    "conditional_w1": "conditional W1",
    "mae_c": "MAE_c",
    "w1_lit": "lit cells",
    "centre_mae": "centre [cells]",
    "radius_mae": "radius [cells]",
}
SHOWERS = {
    "sep_total": "E_tot / E_inc [10⁻³]",
    "sep_layers": "layers [10⁻³]",
    "sep_voxels": "voxels [10⁻³]",
    "sep_centre_eta": "centre [10⁻³]",
    "sep_width_eta": "width [10⁻³]",
    "sep_sparsity": "sparsity [10⁻³]",
    "recall": "recall",
}
TABLES: Mapping[str, tuple[Sequence[str], Mapping[str, str], str]] = {
    "zdc": (("zn", "zp"), ZDC, "w1"),
    "showers": (("ds2_1_100GeV", "g4_ds2", "g4_ds3"), SHOWERS, "sep_layers"),
}
"""Sets, metrics with their titles, and the metric that orders the rows."""


def ratio(score: Score) -> float | None:
    """Returns the matched floor over the floor, where there are both."""
    floor = score.floor.mean if score.floor else None
    matched = score.matched_floor.mean if score.matched_floor else None
    return matched / floor if floor and matched is not None else None


def number(value: float, title: str = "") -> str:
    """Writes three digits, of thousandths where the title says so."""
    scaled = 1e3 * value if "10⁻³" in title else value
    return f"{scaled:#.3g}".rstrip(".")


def cell(score: Score | None, title: str) -> str:
    """Writes a score and its ratio."""
    if score is None or score.mean is None:
        return "–"
    over = ratio(score)
    return number(score.mean, title) + (f" ({number(over)})" if over is not None else "")


def floor_of(score: Score, title: str) -> str:
    """Writes a floor."""
    return "–" if score.floor is None or score.floor.mean is None else number(score.floor.mean, title)


def table(sets: Sequence[str], metrics: Mapping[str, str], order: str) -> str:
    """Returns one table of all weights that ship and have scores on one of the sets."""
    lines = [
        f"| | {' | '.join(metrics.values())} | ms an event |",
        f"|---|{'---|' * (len(metrics) + 1)}",
    ]
    runs = [Run(path).scores for path in samples.weights().values()]
    scored = [read_typed(Scores, path) for path in runs if path.is_file()]
    for name in sets:
        rows = [(one, one.sets[name].groups["all"].metrics) for one in scored if name in one.sets]
        rows.sort(key=lambda row: row[1][order].mean or 0.0)
        whole = max((values for _, values in rows), key=len)
        floors = [floor_of(whole[key], title) for key, title in metrics.items()]
        lines.append(f"| *floor of `{name}`: GEANT, half against half* | {' | '.join(floors)} | |")
        for one, values in rows:
            cells = [cell(values.get(key), title) for key, title in metrics.items()]
            time = number(one.timing.ms_per_event.median) if one.timing else "–"
            lines.append(f"| `{one.name}` | {' | '.join(cells)} | {time} |")
    return "\n".join(lines)


def filled(text: str) -> str:
    """Returns a page with its tables written anew."""
    for name, (sets, metrics, order) in TABLES.items():
        first, last = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
        before, _, rest = text.partition(first)
        _, _, after = rest.partition(last)
        text = f"{before}{first}\n{table(sets, metrics, order)}\n{last}{after}"
    return text


def main() -> None:
    """Writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--page", type=Path, default=Path("README.md"))
    arguments = parser.parse_args()
    arguments.page.write_text(filled(arguments.page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
