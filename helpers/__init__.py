"""The small package behind the notebooks: one concept, one file."""

from pathlib import Path

DATA = Path(__file__).resolve().parent.parent / "data"
