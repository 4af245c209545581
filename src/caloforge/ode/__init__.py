"""Ordinary differential equations: paths, losses and solvers."""
