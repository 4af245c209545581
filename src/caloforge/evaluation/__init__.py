"""Scores of runs and of generated events."""
