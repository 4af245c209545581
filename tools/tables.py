"""Tables of evaluated runs as Markdown: those of README.md and the log.

    python tools/tables.py RUN... [--metrics w1 conditional_w1 ...] [--groups all n Lambda ...] [--sets zn ...]

RUN is a run folder or a file of scores. A table a reference set and group of particles; every number is the mean over
repeats with its spread, beside its floor. The tables of the publication on inverse autoregressive flows are

    python tools/tables.py RUN... --groups all n Lambda "K(S)0" Sigma+ --metrics w1 mae_c mae_cw
    python tools/tables.py RUN... --metrics centre_mae centre_rmse centre_variance_mae centre_variance_rmse \
        radius_mae radius_rmse radius_variance_mae radius_variance_rmse
"""

import argparse
from pathlib import Path

from caloforge.io.run import Run
from caloforge.io.scores import read_scores
from caloforge.report import markdown
from caloforge.report.tables import scores_table


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--metrics", nargs="*")
    parser.add_argument("--groups", nargs="*", default=["all"])
    parser.add_argument("--sets", nargs="*")
    arguments = parser.parse_args()
    scores = [read_scores(path if path.is_file() else Run(path).scores) for path in arguments.runs]
    for stem in arguments.sets or dict.fromkeys(stem for one in scores for stem in one.sets):
        held = [one for one in scores if stem in one.sets]
        for group in arguments.groups:
            print(f"### {stem}{'' if group == 'all' else f', {group}'}\n")
            table = scores_table(held, stem, metrics=arguments.metrics, group=group, speed=group == "all")
            print(markdown.table(table))


if __name__ == "__main__":
    main()
