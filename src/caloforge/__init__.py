"""Fast generative surrogates of calorimeter simulation: train, validate, export, deploy.

A generator is a deterministic function of conditions and noise: physical units in, physical units out.
"""

from __future__ import annotations

from importlib.metadata import version

__version__ = version("caloforge")
__all__ = ["__version__"]
