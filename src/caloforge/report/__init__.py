"""Reports: scores as tables, events as figures, runs side by side on one self-contained page."""

from __future__ import annotations

from caloforge.report.pages.run import write_report

__all__ = ["write_report"]
