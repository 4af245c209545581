"""Files and folders appear whole, and what killed processes left goes."""

import os
import platform
import re
import subprocess
import sys
import time

import pytest

from caloforge.io.files import STALE, new_folder, replacing, write_text

HERE = re.sub("[^A-Za-z0-9]", "_", platform.node())


def dead_process():
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_it_is_whole(tmp_path):
    target = tmp_path / "a.txt"
    with replacing(target) as temporary:
        temporary.write_text("half")
        assert not target.exists()
        assert temporary.suffix == ".txt"
    assert (target.read_text(), names(tmp_path)) == ("half", ["a.txt"])
    with pytest.raises(TypeError), replacing(target) as temporary:
        temporary.write_text(b"other")
    assert (target.read_text(), names(tmp_path)) == ("half", ["a.txt"])


def test_the_content_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    seen = []

    def fsync(handle):
        seen.append((os.readlink(f"/proc/self/fd/{handle}"), names(tmp_path)))

    monkeypatch.setattr(os, "fsync", fsync)
    write_text(tmp_path / "a.txt", "text")
    (first, before), (second, after) = seen
    assert (".a.partial-" in first, "a.txt" in before) == (True, False)
    assert (second, after) == (str(tmp_path), ["a.txt"])


@pytest.mark.parametrize("owner", ["DEAD", f"DEAD-{HERE}", "a8f3_x1"])
def test_what_a_killed_process_left_goes_with_the_next_of_its_name(tmp_path, owner):
    leftover = tmp_path / f".a.partial-{owner.replace('DEAD', str(dead_process()))}.txt"
    leftover.write_text("half")
    others = [
        tmp_path / f".b.partial-{dead_process()}.txt",
        tmp_path / ".a.txt",
        tmp_path / ".a.partial-1.h5",
    ]
    for other in others:
        other.write_text("of somebody else")
    os.utime(leftover, (0, time.time() - STALE - 60))
    write_text(tmp_path / "a.txt", "whole")
    assert names(tmp_path) == sorted(["a.txt", *(other.name for other in others)])


def test_what_a_process_at_work_has_written_stays(tmp_path):
    alive = [f".a.partial-{os.getppid()}-{HERE}.txt", ".a.partial-12-elsewhere.txt"]
    for name in alive:
        (tmp_path / name).write_text("half")
    write_text(tmp_path / "a.txt", "whole")
    assert names(tmp_path) == sorted(["a.txt", *alive])


def test_a_folder_appears_when_it_is_whole_and_takes_leftovers_with_it(tmp_path):
    leftover = tmp_path / f".v1.2.partial-{dead_process()}"
    leftover.mkdir()
    (leftover / "graph").write_text("half")
    with new_folder(tmp_path / "v1.2") as temporary:
        (temporary / "graph").write_text("whole")
        assert not (tmp_path / "v1.2").exists()
    assert names(tmp_path) == ["v1.2"]
    assert (tmp_path / "v1.2" / "graph").read_text() == "whole"
    with pytest.raises(ValueError, match="exists already"), new_folder(tmp_path / "v1.2"):
        pass
    with pytest.raises(KeyError), new_folder(tmp_path / "v2"):
        raise KeyError
    assert names(tmp_path) == ["v1.2"]
