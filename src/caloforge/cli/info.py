"""`caloforge info`: versions, devices, and what there is."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table

from caloforge import __version__, samples
from caloforge.cli.bars import output

PACKAGES = (
    "numpy",
    "h5py",
    "onnxruntime",
    "torch",
    "lightning-fabric",
    "matplotlib",
    "optuna",
    "pyarrow",
    "uproot",
)


def info() -> None:
    """Show versions, devices, and what there is: detectors, models, recipes, samples, weights."""
    import platform

    from caloforge.detectors import DETECTORS
    from caloforge.recipe import packaged

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("caloforge", f"{__version__}, Python {platform.python_version()}")
    installed, absent = _versions()
    table.add_row(
        "packages", ", ".join(installed) + (f"; not installed: {', '.join(absent)}" if absent else "")
    )
    try:
        from caloforge.models import CLASSIFIERS, MODELS, READOUTS
    except ImportError:
        models: dict[str, Iterable[str]] = {}
    else:
        import torch

        models = {"models": MODELS, "readouts": READOUTS, "classifiers": CLASSIFIERS}
        cuda = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        table.add_row("devices", ", ".join(["cpu", *cuda]))
    table.add_row("detectors", ", ".join(DETECTORS))
    table.add_row("samples", ", ".join((*samples.SAMPLES, samples.TRIALS)))
    for title, names in models.items():
        table.add_row(title, ", ".join(names))
    for title, names in (("recipes", packaged()), ("weights", samples.weights())):
        table.add_row(title, "; ".join(grouped(names)) or "none")
    output.print(table)


def _versions() -> tuple[list[str], list[str]]:
    """Returns packages with their versions, and those that are not installed."""
    from importlib.metadata import PackageNotFoundError, version

    installed, absent = [], []
    for package in PACKAGES:
        try:
            installed.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            absent.append(package)
    return installed, absent


def grouped(names: Iterable[str]) -> list[str]:
    """Writes names `DETECTOR-REST` by what they share: `zn-, zp-: gan, gan-paper`.

    Detectors that have a rest come in one line with the others that have it too; what is also there with `-paper` ends
    with `[-paper]`.
    """
    detectors: dict[str, list[str]] = {}
    for name in names:
        detector, _, rest = name.partition("-")
        detectors.setdefault(rest, []).append(detector)
    lines: dict[tuple[str, ...], list[str]] = {}
    for rest, of_rest in detectors.items():
        base = rest.removesuffix("-paper")
        if base != rest and detectors.get(base) == of_rest:
            continue
        paper = "[-paper]" if detectors.get(f"{rest}-paper") == of_rest else ""
        lines.setdefault(tuple(of_rest), []).append(f"{rest}{paper}")
    order = sorted(lines, key=lambda of: (-len(lines[of]), -len(of), of))
    return [f"{', '.join(f'{detector}-' for detector in of)}: {', '.join(lines[of])}" for of in order]
