"""Is an environment whole? If not: what can be mended, and what must be made anew."""
# Python 3.6 can parse this file: see tools/course.py.

import csv
import json
import os
import subprocess
from pathlib import Path
from urllib.request import url2pathname

WINDOWS = os.name == "nt"
RUNTIME = "https://aka.ms/vs/17/release/vc_redist.x64.exe"  # Visual C++'s, which torch needs there
PROJECT = "normalization_notebooks"
ABOUT = (
    "import json, sys, sysconfig as s;"
    "print(json.dumps([sys.version_info[:2], sys.prefix, s.get_path('purelib')]))"
)


def about(python):
    """The version, environment and packages' folder of `python`; None each if it does not run."""
    try:
        quiet = {"stderr": subprocess.DEVNULL}
        return json.loads(subprocess.check_output([str(python), "-c", ABOUT], **quiet))
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None, None, None


def too_old(version, name):
    """What to say of a Python older than 3.11, or of one that does not run; None for others."""
    if version and tuple(version) >= (3, 11):
        return None
    which = "{} is {}.{}".format(name, *version) if version else f"{name} does not run"
    other = "PYTHON=python3.12 names another"
    if WINDOWS:
        other = r"install 3.12 from python.org, and `py -3.12 tools\course.py lab` takes it"
    return f"Python 3.11 or newer is needed, and {which}: {other}."


def kept_torch(venv):
    """The choice between cpu and pypi that an environment was made with."""
    kept = venv / "torch"
    return kept.read_text().strip() if kept.exists() else "pypi"


def state(venv, python, torch="auto", asked=None):
    """Why `venv` must be made anew (a sentence or None), and what `broken` says of its packages.

    `python` is its interpreter, `torch` this call's choice, `asked` a Python's version or None.
    """
    version, prefix, site = about(python)
    scripts = python.parent / "activate"
    if not prefix or not scripts.exists() or Path(prefix).resolve() != venv.resolve():
        return ("its making was interrupted" if venv.exists() else "there is none"), {}
    if too_old(version, ""):
        return "its Python is older than 3.11", {}
    if asked and asked != version:
        return "it is of Python {}.{}".format(*version), {}
    if torch not in ("auto", kept_torch(venv)):
        return f"it was not made with TORCH={torch}", {}
    for info in Path(site).glob(PROJECT + "-*.dist-info/direct_url.json"):
        url = json.loads(info.read_text("utf-8"))["url"]
        if Path(url2pathname(url[len("file://") :])) != venv.resolve().parent:
            return "it belongs to another folder", {}
    wrong = broken(Path(site))
    if not set(Path(site).glob("pip-*.dist-info")) - set(wrong):
        return "it has no pip", {}
    return None, wrong


def broken(site):
    """What an interrupted install left in the folder `site`: a path to remove → what is wrong.

    pip counts a package as installed once its METADATA is there. Here it counts when its RECORD
    names its INSTALLER, which is written last, and when all files of the RECORD have their length.
    """
    wrong = {path: f"{path.name} is left over" for path in site.glob("~*")}
    for info in site.glob("*.dist-info"):
        record = info / "RECORD"
        rows = list(csv.reader(record.read_text("utf-8").splitlines())) if record.exists() else []
        sizes = {path: int(size or 0) for path, _, size in rows if "__pycache__" not in path}
        if info.name + "/INSTALLER" not in sizes:
            wrong[info] = f"the installation of {info.stem} was interrupted"
        for path, size in sizes.items():
            file = site / path
            if not file.exists() or file.stat().st_size < size:
                wrong[info] = f"{path} is missing or cut short"
    return wrong
