"""`caloforge info`: versions, devices, and what there is."""

from __future__ import annotations

from rich.table import Table

from caloforge import __version__, samples
from caloforge.cli.bars import output


def info() -> None:
    """Show versions, devices, and what there is: detectors, models, recipes, samples, weights."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    from caloforge.detectors import DETECTORS
    from caloforge.recipe import packaged

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("caloforge", __version__)
    table.add_row("python", platform.python_version())
    for package in (
        "numpy",
        "h5py",
        "onnxruntime",
        "torch",
        "lightning-fabric",
        "matplotlib",
        "optuna",
        "pyarrow",
        "uproot",
    ):
        try:
            table.add_row(package, version(package))
        except PackageNotFoundError:
            table.add_row(package, "not installed")
    table.add_row("detectors", ", ".join(DETECTORS))
    try:
        from caloforge.models import CLASSIFIERS, MODELS, READOUTS
    except ImportError:
        pass
    else:
        import torch

        cuda = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        table.add_row("devices", ", ".join(["cpu", *cuda]))
        table.add_row("models", ", ".join(MODELS))
        table.add_row("readouts", ", ".join(READOUTS))
        table.add_row("classifiers", ", ".join(CLASSIFIERS))
    table.add_row("recipes", ", ".join(packaged()))
    table.add_row("samples", ", ".join((*samples.SAMPLES, samples.TRIALS)))
    table.add_row("weights", ", ".join(samples.weights()) or "none")
    output.print(table)
