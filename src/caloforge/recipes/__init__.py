"""Recipes that ship, one TOML file each."""
