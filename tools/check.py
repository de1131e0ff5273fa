"""Is everything in place? A line each, OK or FAIL with the mend: `make check`, in .venv's Python.

python tools/check.py --manifest   writes the hashes of the data files that git knows

Each check returns what is as it should be, or raises Wrong with what is not, and how to mend it.
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from course import CONFIG, notebooks
from sound import RUNTIME

ROOT = Path(__file__).resolve().parent.parent
PREFIX = Path(sys.prefix)
MANIFEST = ROOT / "data" / "SHA256SUMS"
EXTENSIONS = {  # package → its folder in LAB
    "anywidget": "anywidget",
    "jupyterlab_widgets": "@jupyter-widgets/jupyterlab-manager",
}
LAB = "share/jupyter/labextensions"
GB = 1e9
DISK, MEMORY = 1 * GB, 1 * GB  # notebook 01 with its server takes about 1 GB of memory

IN_VENV = PREFIX == ROOT / ".venv"
WINDOWS = os.name == "nt"
MAKE = r"py tools\course.py" if WINDOWS else "make"
PYTHON = r".venv\Scripts\python" if WINDOWS and IN_VENV else sys.executable
INSTALL = f"`{MAKE} packages` installs what is asked for"
SET_UP = f"`{MAKE} lab` puts that right"
if not IN_VENV:
    INSTALL = '`pip install -e ".[course]"` installs what is asked for'
    SET_UP = "`python tools/course.py lab --here` puts that right"


class Wrong(Exception):
    """What is wrong, and what mends it."""


def python():
    if sys.version_info < (3, 11):  # noqa: UP036  (conda's may be any)
        raise Wrong("it is older than 3.11: make the environment with a newer one")
    return ".".join(map(str, sys.version_info[:3]))


def versions():
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = project["dependencies"] + project["optional-dependencies"]["course"]
    asked = {requirement.name: requirement for requirement in map(Requirement, lines)}
    pins = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    if IN_VENV:  # another environment, such as conda's, has versions of its own
        pinned = [Requirement(line) for line in pins if line and line[0] != "#"]
        asked |= {pin.name: pin for pin in pinned if pin.name in asked or installed(pin.name)}
    for name, bounds in asked.items():
        if not (has := installed(name)):
            raise Wrong(f"{name} is missing: {INSTALL}")
        if not bounds.specifier.contains(has, prereleases=True):
            raise Wrong(f"{name} is {has}, not {bounds.specifier}: {INSTALL}")
    return f"{len(asked)} packages"


def installed(name):
    """The version of a package, without what follows a +; None where there is none."""
    try:
        return version(name).partition("+")[0]
    except PackageNotFoundError:
        return None


def torch_pair():
    mend = f"delete the folder .venv, and `{MAKE} lab` makes it anew with a pair"
    pair = f"torch {version('torch')} with torchvision {version('torchvision')}"
    try:
        import torch
        import torchvision

        torchvision.ops.nms(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([1.0]), 0.5)
    except (ImportError, OSError, RuntimeError) as error:
        what = str(error).strip().partition("\n")[0]
        if getattr(error, "winerror", None) in (126, 1114):  # a DLL that torch needs is missing
            mend = f"install {RUNTIME}"
        raise Wrong(f"{pair} do not work together ({what}): {mend}") from None
    return pair


def disk():
    free = shutil.disk_usage(ROOT).free
    if free < DISK:
        raise Wrong(
            f"{free / GB:.1f} GB are free, and {DISK / GB:.0f} are needed: delete something"
        )
    return f"{free / GB:.0f} GB free"


def memory():
    free = available()
    if free < MEMORY:
        need = f"{MEMORY / GB:.0f} is needed"
        raise Wrong(f"{free / GB:.1f} GB are free, and {need}: close other programs")
    return f"{free / GB:.1f} GB free"


def available():
    """Bytes of memory that a program could take now; on macOS, those that there are."""
    if WINDOWS:
        status = (ctypes.c_uint64 * 8)(64)  # MEMORYSTATUSEX; 64 is its length
        ctypes.windll.kernel32.GlobalMemoryStatusEx(status)
        return status[2]
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        return int(meminfo.read_text().partition("MemAvailable:")[2].split()[0]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def widgets():
    for package, extension in EXTENSIONS.items():
        if not (PREFIX / LAB / extension / "package.json").exists():
            raise Wrong(
                f"JupyterLab has no extension of {package}: "
                f"`{PYTHON} -m pip install --force-reinstall --no-deps {package}`"
            )
    import anywidget
    import ipywidgets

    return f"anywidget {anywidget.__version__}, ipywidgets {ipywidgets.__version__}"


def trust():
    import nbformat
    from nbformat.sign import NotebookNotary

    notary = NotebookNotary()
    for file in notebooks():
        if not notary.check_signature(nbformat.read(ROOT / file, 4)):
            name = Path(file).name
            raise Wrong(f"{name} is not trusted, so its widgets do not show: {SET_UP}")
    return f"{len(notebooks())} notebooks"


def config_files():
    for name, folder in CONFIG.items():
        file = PREFIX / folder / name
        if not file.exists() or file.read_bytes() != (ROOT / "jupyter" / name).read_bytes():
            raise Wrong(f"{name} is not in {PREFIX / folder}, or is another: {SET_UP}")
    return "both of Jupyter's"


def data_files():
    lines = MANIFEST.read_text("utf-8").splitlines()
    for line in lines:
        digest, name = line.split("  ")
        file = ROOT / name
        if not file.exists() or hashlib.sha256(file.read_bytes()).hexdigest() != digest:
            raise Wrong(f"{name} is missing or altered: `git checkout -- {name}` brings it back")
    return f"{len(lines)} files"


def manifest():
    """The lines of MANIFEST, as sha256sum writes them: the data files that git knows."""
    listed = subprocess.check_output(["git", "ls-files", "-z", "data"], cwd=ROOT, text=True)
    names = [
        name for name in listed.split("\0") if name and Path(name).suffix not in (".py", ".md")
    ]
    names = [name for name in names if name != MANIFEST.relative_to(ROOT).as_posix()]
    digests = [hashlib.sha256((ROOT / name).read_bytes()).hexdigest() for name in names]
    return "".join(f"{digest}  {name}\n" for digest, name in zip(digests, names, strict=True))


def forward_pass():
    from helpers.inputs.scenes import scenes
    from helpers.networks.detector import evaluate, load_detector

    try:
        scores = evaluate(load_detector(), scenes(4, seed=0))
    except (RuntimeError, ValueError) as error:
        raise Wrong(str(error).rstrip(".")) from None
    if scores.recall < 0.5:
        raise Wrong(f"the detector finds {scores.recall:.0%} of the shapes: {INSTALL}")
    return f"the detector finds {scores.recall:.0%} of {scores.objects} shapes"


CHECKS = {
    "Python": python,
    "versions": versions,
    "torch and torchvision": torch_pair,
    "disk": disk,
    "memory": memory,
    "widgets": widgets,
    "trust": trust,
    "config files": config_files,
    "data files": data_files,
    "forward pass": forward_pass,
}


def main():
    """Print a line for each check; the exit status is 1 where one is wrong."""
    status = 0
    for name, check in CHECKS.items():
        try:
            print(f"OK   {name}: {check()}", flush=True)
        except Wrong as wrong:
            print(f"FAIL {name}: {wrong}.", flush=True)
            status = 1
        except Exception as error:
            what = f"{type(error).__name__}: {error}".strip().partition("\n")[0]
            print(f"FAIL {name}: {what}. {INSTALL}.", flush=True)
            status = 1
    return status


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    if sys.argv[1:] == ["--manifest"]:
        MANIFEST.write_bytes(manifest().encode("utf-8"))
    else:
        sys.exit(main())
