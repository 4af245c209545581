"""Runs the command line as `python -m caloforge`."""

from __future__ import annotations

from caloforge.cli import main

if __name__ == "__main__":
    main()
