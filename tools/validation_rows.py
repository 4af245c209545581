"""Writes the validation rows of events files as a file whose every row counts as a test row.

    python tools/validation_rows.py OUT FILE...
    caloforge evaluate RUN --reference OUT --out RUN/validation.json

For choices between trained runs: `evaluate` scores test rows alone, and nothing is to be chosen by those. For runs
with the canonical split.
"""

import argparse
import dataclasses
from pathlib import Path

import numpy as np

from caloforge.events import Joined, load, split
from caloforge.io import create, open_events


def main() -> None:
    """Writes the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("files", nargs="+", type=Path)
    arguments = parser.parse_args()
    source = Joined([open_events(path) for path in arguments.files])
    events = load(source).slices(split(source, "canonical")["validation"])
    events = dataclasses.replace(events, fold=np.zeros_like(events.fold))
    names = ", ".join(path.name for path in arguments.files)
    with create(arguments.out, events.detector, {"source": f"validation rows of {names}"}) as writer:
        writer.append(events)
    print(f"{len(events)} responses of {len(np.unique(events.group))} particles")


if __name__ == "__main__":
    main()
