"""How good a zero response is on test primaries: scores, reliability and fractions by particle.

    python benchmarks/zero_response.py RUN TRIALS... [--figure FILE.svg]

TRIALS are files of trials; "sample" is the one that ships. Prints tables; the figure shows the reliability. An error is
the greater of two: that of independent trials if the probabilities are right, and that of independent primaries, whose
shots may be alike. Types of particle with fewer than 100 trials are summed.
"""

import argparse
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from caloforge.evaluation.zero_response import evaluate_classifier
from caloforge.io import open_trials, write_trials
from caloforge.report.drawing import style
from caloforge.report.figures import Reliability, reliability
from caloforge.samples import TRIALS, sample
from caloforge.training.checkpoint import load_classifier
from caloforge.trials import joined_trials

TITLES = {"zn": "ZN", "zp": "ZP", "any": "any", "both": "both"}
LEAST = 100

ALIKE = (("K(S)0", "K(L)0"), ("n", "n~"), ("Lambda", "Lambda~"))
"""Types of particle that the nine features do not tell apart."""


def percent(entry: Mapping[str, Any]) -> str:
    """Returns observed, predicted, the error of their difference and how many of it they are apart."""
    error = max(entry["error"], entry["scatter"])
    pull = (entry["predicted"] - entry["observed"]) / error if error else 0.0
    return f"{100 * entry['observed']:.2f} / {100 * entry['predicted']:.2f} ± {100 * error:.2f} ({pull:+.1f})"


def together(outcomes: Mapping[str, Any], labels: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Sums some types of particle."""
    summed = {}
    for name, found in outcomes.items():
        rare = [found["particles"][label] for label in labels]
        n = np.array([entry["trials"] for entry in rare])
        mean = {
            key: float(np.average([e[key] for e in rare], weights=n)) for key in ("observed", "predicted")
        }
        errors = {
            key: float(np.sqrt(((n * np.array([e[key] for e in rare])) ** 2).sum()) / n.sum())
            for key in ("error", "scatter")
        }
        summed[name] = {"trials": int(n.sum()), **mean, **errors}
    return summed


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("trials", nargs="+")
    parser.add_argument("--figure", type=Path)
    arguments = parser.parse_args()
    paths = [sample(TRIALS) if name == "sample" else Path(name) for name in arguments.trials]
    _, model = load_classifier(arguments.run)
    with tempfile.TemporaryDirectory() as folder:
        joined = Path(folder) / "joined.h5"
        write_trials(joined, joined_trials([open_trials(path, model.detector) for path in paths]))
        scores = evaluate_classifier(arguments.run, [joined]).content()
    outcomes = scores["sets"]["joined"]["outcomes"]
    print(
        f"{scores['name']}, {scores['parameters']:,} parameters, {outcomes['any']['all']['trials']:,} test trials of "
        f"{scores['sets']['joined']['reference']['rows']:,} primaries\n"
    )
    print(
        "| outcome | observed / predicted, % (difference in errors) | Brier | repeated: Brier | floor | ROC AUC |"
    )
    print("|---|---|---|---|---|---|")
    for name, found in outcomes.items():
        repeated = found["repeated"]
        print(
            f"| {TITLES[name]} | {percent(found['all'])} | {found['brier']:.5f} | {repeated['brier']:.5f} | "
            f"{repeated['floor']:.5f} | {found['auc']:.5f} |"
        )
    print(
        "\nReliability, observed / predicted ± error in % (difference in errors), bins of predicted probability\n"
    )
    print("| outcome | " + " | ".join(str(number + 1) for number in range(15)) + " |")
    print("|---|" + "---|" * 15)
    for name, found in outcomes.items():
        cells = [percent(part) for part in found["reliability"]]
        print(f"| {TITLES[name]} | " + " | ".join(cells + [""] * (15 - len(cells))) + " |")
    print("\nFractions by particle, observed / predicted ± error in % (difference in errors)\n")
    print("| particle | trials | ZN | ZP | any | both |")
    print("|---|---|---|---|---|---|")
    for label, entry in outcomes["any"]["particles"].items():
        if entry["trials"] >= LEAST:
            cells = [percent(found["particles"][label]) for found in outcomes.values()]
            print(f"| {label} | {entry['trials']:,} | {' | '.join(cells)} |")
    kinds = outcomes["any"]["particles"]
    groups: dict[str, Sequence[str]] = {
        "others": [label for label, entry in kinds.items() if entry["trials"] < LEAST]
    }
    groups |= {" + ".join(pair): pair for pair in ALIKE if all(label in kinds for label in pair)}
    for title, labels in groups.items():
        if labels:
            summed = together(outcomes, labels)
            cells = [percent(entry) for entry in summed.values()]
            print(f"| {title} | {summed['any']['trials']:,} | {' | '.join(cells)} |")
    if arguments.figure:
        curves = []
        for number, name in enumerate(("zn", "zp", "any")):
            parts = outcomes[name]["reliability"]
            columns = [
                np.array([part[key] for part in parts]) for key in ("predicted", "observed", "scatter")
            ]
            curves.append(Reliability(style(number, TITLES[name]), *columns))
        arguments.figure.write_bytes(
            reliability(curves, "predicted probability of a response", "observed fraction")
        )


if __name__ == "__main__":
    main()
