"""Cuts the samples that ship with the package from the full files, and writes their card.

    python tools/cut_samples.py DATA [--out FOLDER]

DATA holds zn.h5, zn_wide.h5, zp.h5, zp_wide.h5, primaries.h5, primaries_wide.h5 and the showers ds2_1_100GeV.h5. Test
and validation folds are kept whole, and so is the training part of the wide sets. Where the two files of a detector
exceed the budget, training particles of the repeated set are left out, drawn at random, each with all its repeats. The
two files of primaries become one, without those that were never shot; training primaries are left out until it fits
its budget. Of the showers some are drawn from each part of the ordered split and stay in it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from caloforge.detectors import DS2, ZN, ZP, Detector
from caloforge.events import EventSource, Selected, split
from caloforge.io import calochallenge, hdf5, open_events, open_trials, sha256, summarize, write_trials
from caloforge.io.files import replacing, write_text
from caloforge.io.source import columns_of
from caloforge.samples import TRIALS
from caloforge.trials import OUTCOMES, joined_trials

BUDGET = 5_900_000
SHOWERS = {"train": 238, "validation": 34, "test": 68}
SHOWERS_FILE = "ds2_1_100GeV.h5"
TRIALS_BUDGET = 1_900_000
SEED = 0
SOURCE = (
    "GEANT 3.21 (GHEISHA) simulation of the ALICE ZDC with the ALICE O2 geometry; "
    "pp primaries at 13.6 TeV from Pythia 8; photon sum >= 10"
)


def rows_kept(source: EventSource, particles: int) -> np.ndarray:
    """Returns the rows of test, validation and of so many training particles, ascending."""
    parts = split(source, "canonical")
    train = parts["train"]
    group = source.primaries.group
    order = np.random.default_rng(SEED).permutation(np.unique(group[train]))
    chosen = train[np.isin(group[train], order[:particles])]
    return np.sort(np.concatenate([parts["test"], parts["validation"], chosen]))


def write(path: Path, detector: Detector, original: Path, rows: np.ndarray) -> int:
    """Writes the rows of a file and returns the size in bytes."""
    provenance: dict[str, Any] = {
        "source": SOURCE,
        "cut_from": {"name": original.name, "sha256": sha256(original)},
    }
    provenance |= {"rows": len(rows), "seed": SEED}
    with replacing(path) as temporary:
        output = hdf5.output(temporary, detector, json.dumps(provenance), np.uint16, level=9)
        output.append(columns_of(open_events(original, detector).slices(rows)))
        output.finish()
    return path.stat().st_size


def cut(detector: Detector, data: Path, out: Path) -> None:
    """Writes both files of a detector within the budget."""
    wide, repeated = (Path(f"{detector.name}{kind}.h5") for kind in ("_wide", ""))
    source = open_events(data / wide)
    size = write(out / wide, detector, data / wide, np.arange(len(source)))
    room = BUDGET - size
    source = open_events(data / repeated)
    every = particles = len(np.unique(source.primaries.group[split(source, "canonical")["train"]]))
    while (size := write(out / repeated, detector, data / repeated, rows_kept(source, particles))) > room:
        particles -= max(1, int(every * (size - room) / size))


def cut_showers(data: Path, out: Path) -> None:
    """Writes some showers of each part of the ordered split, so that a part of the sample is one of the whole file."""
    original = data / SHOWERS_FILE
    source = open_events(original, DS2)
    rng = np.random.default_rng(SEED)
    rows = np.concatenate(
        [
            np.sort(rng.choice(part, SHOWERS[name], replace=False))
            for name, part in split(source, "ordered").items()
        ]
    )
    provenance = {
        "source": "GEANT 3.21 positrons, 90 x (1.4 mm W + 0.3 mm Si), silicon energy / 0.033",
        "cut_from": {"name": original.name, "sha256": sha256(original)},
        "rows": len(rows),
        "seed": SEED,
    }
    with replacing(out / "ds2.h5") as temporary:
        output = calochallenge.ShowersOutput(temporary, DS2, json.dumps(provenance), np.float32, level=9)
        output.append(columns_of(source.slices(rows)))
        output.finish()


def cut_trials(data: Path, out: Path) -> str:
    """Writes the primaries within their budget; returns their line of the card."""
    originals = [data / "primaries.h5", data / "primaries_wide.h5"]
    every = joined_trials([open_trials(path, ZN) for path in originals])
    provenance: dict[str, Any] = {"source": SOURCE.partition(";")[0], "seed": SEED}
    provenance["cut_from"] = [{"name": path.name, "sha256": sha256(path)} for path in originals]
    train = np.random.default_rng(SEED).permutation(np.flatnonzero(every.fold >= 3))
    kept = len(train)
    path = out / f"{TRIALS}.h5"
    while True:
        rows = np.sort(np.concatenate([np.flatnonzero(every.fold < 3), train[:kept]]))
        chosen = every.slices(rows)
        write_trials(path, chosen, provenance | {"rows": len(rows)})
        if (size := path.stat().st_size) <= TRIALS_BUDGET:
            break
        kept -= max(100, int(len(train) * (size - TRIALS_BUDGET) / size))
    parts = [np.count_nonzero(part) for part in (chosen.fold >= 3, chosen.fold == 2, chosen.fold < 2)]
    hits = ", ".join(
        f"{name} {n / chosen.trials.sum():.1%}" for name, n in zip(OUTCOMES, chosen.hits.sum(0), strict=True)
    )
    cells = [path.name, f"{size / 1e6:.2f}", f"{len(rows):,} of {len(every):,}", f"{chosen.trials.sum():,}"]
    return f"| {' | '.join([*cells, ', '.join(f'{part:,}' for part in parts), hits])} |"


def line(path: Path, original: Path) -> str:
    """Returns the file's line of the card."""
    source = open_events(path)
    parts = split(source, "canonical")
    summary = summarize(source)
    test = summarize(Selected(source, parts["test"]))
    cells = [
        path.name,
        f"{path.stat().st_size / 1e6:.2f}",
        f"{summary.rows:,} ({summary.particles:,}) of {len(open_events(original)):,}",
        ", ".join(f"{len(parts[part]):,}" for part in ("train", "validation", "test")),
        f"{test.particles:,} ({test.repeated})",
        ", ".join(f"{name} {fraction:.0%}" for name, fraction in list(summary.mix.items())[:4]),
    ]
    return f"| {' | '.join(cells)} |"


CARD = """# The samples

Real simulation, not toys: {source}.

| file | MB | events (particles) of the original's | training, validation, test rows \
| test particles (with 10 repeats) | mix |
|---|---|---|---|---|---|
{lines}

| file | MB | primaries of the originals' | trials | training, validation, test rows | trials that gave a response in |
|---|---|---|---|---|---|
{trials}

- `zn`, `zp`: few particles, each simulated many times: for conditional metrics and diversity. `*_wide`: many
  particles, most simulated once: what a network needs to generalise. No particle is in both files of a
  detector.
- Parts are those of the canonical split: test folds 0 and 1, validation 2, training 3 to 9, by particle.
- Cut by `tools/cut_samples.py`: where a file is smaller than its original, training particles drawn at
  random were left out, each with all its repeats; nothing else.
- `primaries`: what was shot at the detectors, with or without a response, one to fifteen times each; from
  `primaries.h5` (all within 3.5 mrad) and `primaries_wide.h5` (within 0.65 mrad; charged and unstable ones also
  beyond 1.1 mrad), so directions are not evenly covered.
- Layout: HDF5 as in docs/formats.md. Each file's `provenance` names its original and its hash.
- `ds2.h5`, 1.4 MB: 340 showers in the CaloChallenge's layout and the geometry of its data set 2, of 10,540: GEANT 3.21
  positrons of 1 to 100 GeV, flat in ln E, in 90 planes of 1.4 mm tungsten and 0.3 mm silicon; recorded is the energy in
  silicon over 0.033, voxels below 15.15 keV are 0. Its parts are those of the ordered split: 238 training, 34
  validation, 68 test showers, each from that part of the whole file. To look at and to test with; for training it is
  too small.
- Known limits: electrons and photons below 200 MeV inside the modules come from a library of showers made
  with the same program (hadron light 1 to 3 % low, photons exact within 1 %); hadron cuts at 50 MeV; no
  crossing angle, no beam spot; central detectors left out.
"""


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "src/caloforge/samples")
    options = parser.parse_args()
    for detector in (ZN, ZP):
        cut(detector, options.data, options.out)
    cut_showers(options.data, options.out)
    names = [f"{name}{kind}.h5" for name in ("zn", "zp") for kind in ("", "_wide")]
    lines = [line(options.out / name, options.data / name) for name in names]
    trials = cut_trials(options.data, options.out)
    card = CARD.format(source=SOURCE, lines="\n".join(lines), trials=trials)
    write_text(options.out / "README.md", card)
    print("\n".join([*lines, trials]))


if __name__ == "__main__":
    main()
