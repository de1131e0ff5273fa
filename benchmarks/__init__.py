"""Benchmarks: `make bench` writes JSON lines to stdout, progress and warnings to stderr."""
