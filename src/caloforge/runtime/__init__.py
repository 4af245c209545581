"""Torch-free generation: noise, and events in constant memory."""
