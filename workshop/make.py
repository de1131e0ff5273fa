"""Make build/workshop/: notebooks for a class and for its teacher, and one zip to hand round.

    python workshop/make.py             everything; solutions are executed, which takes minutes
    python workshop/make.py --no-run    solutions without outputs

student/ holds no outputs and no solutions. In solutions/ every exercise is solved and every check
says Right. workshop.zip holds both, and the site where `python site/make.py` has made build/site.
build/workshop is replaced as a whole or not at all.
"""

import argparse
import importlib.util
import re
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbclient.exceptions import CellControlSignal, DeadKernelError

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "build" / "workshop"
SITE = ROOT / "build" / "site"
SOLUTION = re.compile(
    r"<details><summary>Solution</summary>\n\n```python\n(.*?)```\n\n</details>\n?", re.DOTALL
)

# notebooks/make.py, which is a script and in no package
spec = importlib.util.spec_from_file_location("notebooks_make", ROOT / "notebooks" / "make.py")
spec.loader.exec_module(notebooks := importlib.util.module_from_spec(spec))

READ_ME = """\
Two backbones: a workshop on normalization layers in object detectors

student/      the notebooks without outputs and solutions
solutions/    the same notebooks with every exercise solved{outputs}
{site}
The notebooks need the course itself, for its folders helpers/ and data/, which are not in here:

1. Clone the course, or copy the cloned folder from your teacher's stick.
2. Copy student/ into the cloned folder, beside notebooks/.
3. In the cloned folder, with Python 3.11 or newer:
       python3 tools/course.py lab      on macOS and Linux
       py tools/course.py lab           on Windows
   The first time this installs Python packages. Without a network, workshop/README.md in the
   cloned folder says how to install them from a stick.
4. In JupyterLab, open student/00_start_here.ipynb.
"""
READ_ME_SITE = """\
site/         the course as web pages: open site/index.html in a browser

The pages need no installation and no network. They show every output, and hints and solutions
folded away.
"""


def student(nb):
    """A copy of a notebook without outputs, explorers' state and solutions."""
    nb = notebooks.normalize(nb)
    nb.metadata.pop("widgets", None)
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        else:
            cell.source = SOLUTION.sub("", cell.source).strip("\n")
    return nb


def right_attempts(nb):
    """Cell id → the cell's source with the notebook's solution in place of the attempt.

    Raises ValueError where the notebook has not one solution for each check.
    """
    texts = [cell.source for cell in nb.cells if cell.cell_type == "markdown"]
    solutions = [code for text in texts for code in SOLUTION.findall(text)]
    calls = {cell.id: cell.source.split("\n")[-1] for cell in nb.cells if cell.cell_type == "code"}
    checks = {key: call for key, call in calls.items() if call.startswith("check(")}
    pairs = zip(solutions, checks.items(), strict=True)
    return {key: f"{code.rstrip()}\n\n\n{call}" for code, (key, call) in pairs}


def solved(nb):
    """A copy of the student's notebook with the right attempts in it, without outputs."""
    attempts = right_attempts(nb)
    nb = student(nb)
    for cell in nb.cells:
        cell.source = attempts.get(cell.id, cell.source)
    return nb


def executed(nb):
    """The solved notebook with its outputs. Raises ValueError if a check does not say Right."""
    attempts = right_attempts(nb)
    if not attempts:
        return nb  # nothing in it is solved, so its stored outputs are those of this run, too
    nb = notebooks.execute(solved(nb))
    problems = list(notebooks.faults(nb))
    for cell in nb.cells:
        if cell.id in attempts:
            verdict = cell.outputs[-1].data["text/plain"] if cell.outputs else "nothing"
            if not verdict.startswith("Right: "):
                problems.append(f"The check in cell {cell.id} says: {verdict}")
    if problems:
        raise ValueError("\n".join(problems))
    return nb


def fill(folder, run):
    """Write the notebooks, READ ME FIRST.txt and workshop.zip into an empty folder."""
    for path in notebooks.every():
        nb = notebooks.loads(path.read_text(encoding="utf-8"))
        try:
            made = {"student": student(nb), "solutions": executed(nb) if run else solved(nb)}
        except (CellControlSignal, DeadKernelError, ValueError) as error:
            raise SystemExit(f"{path.name}: {error}\nbuild/workshop is left as it was.") from None
        for kind, notebook in made.items():
            nbformat.validate(notebook)
            file = folder / kind / path.relative_to(notebooks.NOTEBOOKS)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(notebooks.dumps(notebook), encoding="utf-8", newline="\n")
        print(f"{path.stem}: exercises solved: {len(right_attempts(nb))}")
    site = SITE.is_dir()
    if not site:
        print("Without the site, which is not made: python site/make.py, and then this again.")
    outputs = " and every output" if run else ""
    text = READ_ME.format(outputs=outputs, site=READ_ME_SITE if site else "")
    (folder / "READ ME FIRST.txt").write_text(text, encoding="utf-8")
    files = {file.relative_to(folder): file for file in folder.rglob("*")}
    files |= {"site" / file.relative_to(SITE): file for file in SITE.rglob("*")}
    with zipfile.ZipFile(folder / "workshop.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, file in sorted(files.items()):
            archive.write(file, name)


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--no-run", action="store_true", help="do not execute the solutions")
    options = parser.parse_args(arguments)
    TARGET.parent.mkdir(exist_ok=True)
    with TemporaryDirectory(dir=TARGET.parent, prefix="workshop-") as temporary:
        new = Path(temporary, "new")
        new.mkdir()
        fill(new, run=not options.no_run)
        if TARGET.exists():
            TARGET.rename(Path(temporary, "old"))
        new.rename(TARGET)
    size = (TARGET / "workshop.zip").stat().st_size
    print(f"wrote {TARGET}: workshop.zip has {size / 1e6:.1f} MB")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("Stopped. build/workshop is left as it was.", file=sys.stderr)
        sys.exit(130)
