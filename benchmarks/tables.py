"""Tables of evaluated runs as Markdown: those of README.md and docs/log.md.

    python benchmarks/tables.py RUN... [--metrics w1 conditional_w1 ...]

A table a reference set; every number is the mean over repeats with its spread, beside its floor.
"""

import argparse
from pathlib import Path

from caloforge.io.files import read_json
from caloforge.io.run import Run
from caloforge.report.tables import markdown, scores_table


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--metrics", nargs="*")
    arguments = parser.parse_args()
    scores = [read_json(Run(path).scores) for path in arguments.runs]
    for stem in dict.fromkeys(stem for one in scores for stem in one["sets"]):
        held = [one for one in scores if stem in one["sets"]]
        print(f"### {stem}\n")
        print(markdown(scores_table(held, stem, metrics=arguments.metrics, speed=True)))


if __name__ == "__main__":
    main()
