"""The tutorials run as they stand: every command and every block of Python, in order, in one folder."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from caloforge import cli

PAGES = sorted((Path(__file__).parents[1] / "docs" / "tutorials").glob("*.md"))


def steps(page):
    """Gives the language and text of each block that runs."""
    for language, text in re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE):
        if language in ("console", "python"):
            yield language, text


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_tutorial_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "runs").mkdir()
    names = {"__name__": "__main__"}
    for language, text in steps(page):
        if language == "python":
            exec(compile(text, str(page), "exec"), names)
            continue
        for line in text.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "))
            assert words[0] == "caloforge", line
            monkeypatch.setattr(sys, "argv", words)
            try:
                cli.main()
            except SystemExit as stop:
                assert not stop.code, line  # noqa: PT017
