"""The settings that the benchmarks share, and the lines they write."""

import json
import os
import sys

import torch


def settle() -> None:
    """Set one thread and the stand-in weights, here and for every process started from here."""
    os.environ |= {"OMP_NUM_THREADS": "1", "HELPERS_WEIGHTS": "stand-in"}
    torch.set_num_threads(1)


def emit(name: str, value: float, unit: str, limit: float) -> None:
    """Print a result as a JSON line, with four significant digits; say on stderr if it is high."""
    value = float(f"{value:.4g}")
    _write(name=name, value=value, unit=unit, limit=limit)
    if value > limit:
        print(f"{name}: {value} {unit} is above the limit of {limit}".strip(), file=sys.stderr)


def skip(name: str, unit: str, limit: float, reason: str) -> int:
    """Print that something cannot be measured here; return the exit status, which fails CI."""
    _write(name=name, value=None, unit=unit, limit=limit, skipped=reason)
    return int(bool(os.environ.get("CI")))


def _write(**line) -> None:
    print(json.dumps(line, ensure_ascii=False), flush=True)
