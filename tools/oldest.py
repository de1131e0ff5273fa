"""Print the oldest versions that pyproject.toml allows, for pip -c: python tools/oldest.py"""

import re
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


def oldest() -> list[str]:
    """A line `name==version` for each package that the project and its tests ask for."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    asked = project["dependencies"] + extras["course"] + extras["test"]
    return [re.sub(r"^([\w-]+)>=([\w.]+).*", r"\1==\2", line) for line in asked]


if __name__ == "__main__":
    print("\n".join(oldest()))
