"""Writes trained models as files that run without PyTorch."""

from caloforge.export.bundle import export

__all__ = ["export"]
