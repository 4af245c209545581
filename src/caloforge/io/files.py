"""Files and folders that are whole or absent: written to a temporary name beside the target and renamed.

The temporary name is `.NAME.partial-PROCESS-MACHINE` and the suffix. What a killed process has left so is removed by
the next that writes the same target: at once where that process was of this machine, else after a day.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import platform
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

STALE = 24 * 3600
"""Seconds after which what a process of another machine has left is taken for dead."""


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Gives a temporary path beside `path`; renames it on success and removes it on any error.

    The content is on the disk before it has its name.

    Raises:
        ValueError: the folder does not exist or cannot be written.
    """
    target = Path(path)
    _check_folder(target)
    if target.is_dir():
        raise ValueError(f"cannot write {target}: it is a folder")
    _remove_stale(target, target.stem, target.suffix)
    # the suffix stays last, since some writers choose the format by it
    temporary = target.with_name(f".{target.stem}.partial-{_owner()}{target.suffix}")
    try:
        yield temporary
        synchronize(temporary)
        temporary.replace(target)
        synchronize(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """Gives a temporary folder beside `path`; renames it on success and removes it on any error.

    Raises:
        ValueError: `path` exists already, or its folder cannot be written.
    """
    target = Path(path)
    check_new_folder(target)
    _remove_stale(target, target.name, "")
    temporary = target.with_name(f".{target.name}.partial-{_owner()}")
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.rglob("*"):
            synchronize(file)
        temporary.replace(target)
        synchronize(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_new_folder(path: Path) -> None:
    """Raises ValueError where a folder cannot be made at a path, or there is something already."""
    if path.exists():
        raise ValueError(f"cannot write {path}: it exists already")
    _check_folder(path)


def synchronize(path: Path) -> None:
    """Waits until a file's or a folder's content is on the disk, where the system can tell."""
    with contextlib.suppress(PermissionError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        except OSError as error:  # file systems that cannot say so of folders
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
        finally:
            os.close(handle)


def _check_folder(target: Path) -> None:
    if not target.parent.is_dir():
        raise ValueError(f"cannot write {target}: there is no folder {target.parent}")
    if not os.access(target.parent, os.W_OK):
        raise ValueError(f"cannot write {target}: the folder {target.parent} is not writable")


def _owner() -> str:
    return f"{os.getpid()}-{re.sub('[^A-Za-z0-9]', '_', platform.node())}"


def _remove_stale(target: Path, stem: str, suffix: str) -> None:
    """Removes what killed processes have left of a target."""
    owner = "([A-Za-z0-9_]+)(?:-([A-Za-z0-9_]*))?"
    pattern = re.compile(rf"\.{re.escape(stem)}\.partial-{owner}{re.escape(suffix)}")
    own = _owner().partition("-")[2]
    for path in target.parent.iterdir():
        match = pattern.fullmatch(path.name)
        if match and _is_stale(path, match[1], own if match[2] is None else match[2], own):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _is_stale(path: Path, process: str, machine: str, own: str) -> bool:
    if machine == own and process.isdigit():
        return int(process) != os.getpid() and not _runs(int(process))
    with contextlib.suppress(OSError):
        return time.time() - path.stat().st_mtime > STALE
    return False


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def write_text(path: str | Path, text: str) -> None:
    """Writes a text file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Writes a JSON file whole or not at all; NaN is refused."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Reads a JSON file.

    Raises:
        ValueError: no such file, or not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error


def sha256(path: str | Path) -> str:
    """Returns the hash of a file's content."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
