"""Is .venv whole? Its own Python runs this; where not, it says why, and `make` makes it anew.

    .venv/bin/python tools/sound.py [TORCH [PYTHON]]

TORCH is the choice asked for (cpu, pypi; empty: any), PYTHON the interpreter (empty: any).

pip counts a package as installed once its METADATA is there, so an interrupted install can leave
one that is "already satisfied" and incomplete. Here a package counts when its RECORD names its
INSTALLER, which pip writes last, and when all files of the RECORD are there in full length.
"""

import csv
import json
import subprocess
import sys
import sysconfig
from pathlib import Path
from urllib.parse import unquote, urlparse

PROJECT = "normalization_notebooks"
VERSION = "import sys; print(*sys.version_info[:2])"


def reason(venv, torch="", python=""):
    """What is wrong with the environment `venv` (a Path), as a sentence; None when it is whole."""
    if Path(sys.prefix).resolve() != venv.resolve() or not (venv / "bin" / "activate").exists():
        return "its making was interrupted"
    if sys.version_info < (3, 11):  # noqa: UP036  (any Python may have made it)
        return "its Python is older than 3.11"
    if python:
        asked = subprocess.run([python, "-c", VERSION], capture_output=True, text=True, check=True)
        if asked.stdout.split() != [str(part) for part in sys.version_info[:2]]:
            return f"it is not of {python}"
    kept = venv / "torch"
    if torch and torch != (kept.read_text().strip() if kept.exists() else "pypi"):
        return f"it was not made with TORCH={torch}"
    return broken_package(Path(sysconfig.get_path("purelib")), venv.resolve().parent)


def broken_package(site, here):
    """What is wrong in the folder `site`, as a sentence; None when all packages are whole."""
    for leftover in site.glob("~*"):
        return f"{leftover.name} is left over from an interrupted install"
    if not any(site.glob("pip-*.dist-info")):
        return "it has no pip"
    for info in site.glob("*.dist-info"):
        record = info / "RECORD"
        rows = list(csv.reader(record.read_text("utf-8").splitlines())) if record.exists() else []
        if not any(row[0] == f"{info.name}/INSTALLER" for row in rows):
            return f"the installation of {info.stem} was interrupted"
        for path, _, size in rows:
            if "__pycache__" in path:
                continue
            file = site / path
            if not file.exists() or file.stat().st_size < int(size or 0):
                return f"{path} is missing or cut short"
        if info.name.startswith(PROJECT + "-"):
            url = json.loads((info / "direct_url.json").read_text("utf-8"))["url"]
            if Path(unquote(urlparse(url).path)) != here:
                return "it belongs to another folder"
    return None


if __name__ == "__main__":
    why = reason(Path(".venv"), *sys.argv[1:])
    if why:
        sys.exit(f".venv is not usable: {why}.")
