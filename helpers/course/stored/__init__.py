"""Readers of data/results and data/golden."""
