"""The real data that ship with the package; README.md beside them is their card."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from caloforge._lookup import nearest
from caloforge.detectors import detector_named

SAMPLES = ("zn", "zn_wide", "zp", "zp_wide", "ds2")
"""Of ZN and ZP few particles simulated many times, and many particles (`_wide`); a few showers of DS2."""

TRIALS = "primaries"
"""Primaries of both detectors, and how often each left a response (`caloforge.trials`)."""


def sample(name: str) -> Path:
    """Returns the path of a sample file.

    Args:
        name: one of `SAMPLES`, or `TRIALS`.

    Raises:
        ValueError: no sample of that name; the message lists those there are.
    """
    known = (*SAMPLES, TRIALS)
    if name not in known:
        raise ValueError(f"no sample {name!r}; there are {', '.join(known)}{nearest(name, known)}")
    return Path(str(files("caloforge.samples") / f"{name}.h5"))


def located(name: str | Path) -> Path:
    """Returns the path of a file, or of a sample where the name is `sample:NAME`.

    Raises:
        ValueError: no sample of that name.
    """
    text = str(name)
    return sample(text.removeprefix("sample:")) if text.startswith("sample:") else Path(name)


def samples_of(detector: str) -> list[Path]:
    """Returns the sample files of a detector.

    Raises:
        ValueError: none ship for it.
    """
    names = [sample(name) for name in SAMPLES if name.partition("_")[0] == detector]
    if not names:
        raise ValueError(f"no sample of {detector!r} ships with the package: name data files")
    return names


def particles_for(detector: str) -> Path:
    """Returns a sample whose particles a detector takes: its own last one, or that of one with the same features.

    Raises:
        ValueError: none ships.
    """
    features = detector_named(detector).features
    for name in (detector, *sorted({name.partition("_")[0] for name in SAMPLES})):
        own = [other for other in SAMPLES if other.partition("_")[0] == name]
        if own and detector_named(name).features == features:
            return sample(own[-1])
    return samples_of(detector)[-1]


def weights() -> dict[str, Path]:
    """Returns the run folders of the trained weights that ship, by name."""
    folder = Path(str(files("caloforge.samples"))) / "weights"
    return {path.parent.name: path.parent for path in sorted(folder.glob("*/card.json"))}
