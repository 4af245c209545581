"""Folders of trained models: runs, bundles, and weights that ship by their name."""

from __future__ import annotations

from pathlib import Path

from caloforge import samples
from caloforge._lookup import nearest
from caloforge.io import FORMATS
from caloforge.io.source import check_file
from caloforge.runtime.bundle import is_bundle


def run_path(name: str | Path) -> Path:
    """Returns the folder of a run or bundle, or of weights that ship by their name.

    Raises:
        ValueError: neither; the message gives the nearest name.
    """
    shipped, path = samples.weights(), Path(name)
    if path.is_dir():
        return path
    if path.is_file():
        raise ValueError(f"{name} is a file, wanted a run folder, a bundle, or the name of weights that ship")
    if str(name) in shipped:
        return shipped[str(name)]
    if path.suffix.lower() in FORMATS:
        check_file(path)
    near = nearest(str(name), [*_runs_in(path.parent), *shipped]) or nearest(
        str(Path("runs") / path), _runs_in(Path("runs"))
    )
    names = near or f" ({', '.join(shipped)})"
    raise ValueError(f"no run folder {name}, nor weights of that name that ship{names}")


def _runs_in(folder: Path) -> list[str]:
    """Returns the paths of the runs and bundles in a folder."""
    if not folder.is_dir():
        return []
    return [
        str(path) for path in sorted(folder.iterdir()) if (path / "recipe.toml").is_file() or is_bundle(path)
    ]
