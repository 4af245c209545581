"""A page as one PDF, printed by Chromium or Chrome where one is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from caloforge.io.files import replacing

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
"""Programs that can print a page."""

LIMIT = 180
"""Seconds after which a browser that has not printed is stopped."""


def browser() -> str:
    """Returns the path of the first of `BROWSERS` that is installed.

    Raises:
        ValueError: there is none.
    """
    for name in BROWSERS:
        if path := shutil.which(name):
            return path
    raise ValueError("--pdf needs Chromium or Chrome, and found neither: install the package chromium")


def command(program: str, profile: str | Path) -> list[str]:
    """Returns how a browser is started without a window.

    Args:
        program: the browser.
        profile: folder in which it may keep what it likes.
    """
    options = ["--headless", "--disable-gpu", "--no-first-run", f"--user-data-dir={profile}"]
    # the sandbox of Chromium does not start for root, as in a container
    return [program, *options, *(["--no-sandbox"] if os.geteuid() == 0 else [])]


def write_pdf(page: Path, out: Path) -> None:
    """Prints a page of HTML.

    Args:
        page: the page.
        out: the PDF; it appears whole or not at all.

    Raises:
        ValueError: there is no browser, or it did not print.
    """
    program = browser()
    with tempfile.TemporaryDirectory() as profile, replacing(out) as temporary:
        options = ["--no-pdf-header-footer", f"--print-to-pdf={temporary.resolve()}", page.resolve().as_uri()]
        try:
            done = subprocess.run(  # noqa: S603
                [*command(program, profile), *options],
                capture_output=True,
                text=True,
                timeout=LIMIT,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ValueError(f"{program} did not print {page} within {LIMIT} s") from error
        if done.returncode or not temporary.is_file():
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise ValueError(f"{program} did not print {page}: {reason}")
