"""Change a plotted value, a constant, an answer or a helper: nbval has to go red.

Each mutation works on a copy, only up to the first red cell; an unchanged copy has to pass.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from notebook_rules import ROOT, make


class Mutation(NamedTuple):
    notebook: str  # the stem of its file
    file: str  # of helpers/ or data/; "" is the notebook
    what: str
    old: str  # occurs once: in the notebook's code cells, or in `file`
    new: str

    def __str__(self):
        return f"{self.notebook}-{self.what}"


def mutations(path):
    """Those of a notebook: of its own cells first, then of the files that are named."""
    file = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if row := re.fullmatch(r"  ([^:]+): (.+) → (.+)", line):
            yield Mutation(path.stem, file, *row.groups())
        else:
            file = line


FOLDER = ROOT / "tests" / "mutations"  # a file for each notebook
NOTEBOOKS = {path.stem: path for path in sorted((ROOT / "notebooks").rglob("*.ipynb"))}
MUTATIONS = [one for path in sorted(FOLDER.glob("*.txt")) for one in mutations(path)]


class Red(NamedTuple):
    cell: int  # its number among the code cells
    message: str


def nbval(folder: Path) -> Red | None:
    """The first red cell of the notebook in `folder`/notebooks."""
    command = "-m pytest -x -q --color=no -p no:cacheprovider --nbval --nbval-current-env".split()
    command += ["--nbval-sanitize-with", str(ROOT / "tests/nbval_sanitize.cfg")]
    command += ["--nbval-cell-timeout=120", "--junitxml=report.xml", "notebooks"]
    drop = ("PYTEST_ADDOPTS", "PYTEST_CURRENT_TEST")
    settings = {"OMP_NUM_THREADS": "1", "HELPERS_WEIGHTS": "stand-in", "PYTHONPATH": str(folder)}
    run = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={key: value for key, value in os.environ.items() if key not in drop} | settings,
        capture_output=True,
        text=True,
    )
    assert run.returncode in (0, 1), f"nbval did not run:\n{run.stdout}{run.stderr}"
    cases = list(ElementTree.parse(folder / "report.xml").iter("testcase"))
    assert cases and not any(case.find("error") is not None for case in cases), run.stdout
    red = [
        Red(int(case.get("name").removeprefix("Cell ")), failure.text)
        for case in cases
        for failure in case.iter("failure")
    ]
    assert bool(red) == (run.returncode == 1), run.stdout
    return red[0] if red else None


def lay_out(folder: Path, nb, name: str) -> Path:
    """A tree with this one notebook, and copies of helpers/ and data/."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "helpers", folder / "helpers", ignore=ignore)
    shutil.copytree(ROOT / "data", folder / "data", ignore=ignore)
    (folder / "notebooks").mkdir()
    (folder / "notebooks" / f"{name}.ipynb").write_text(make.dumps(nb), encoding="utf-8")
    return folder


def changed(mutation: Mutation, nb, root: Path = ROOT) -> str:
    """The changed text of the mutation's file; of a notebook, which is changed itself."""
    if mutation.file:
        return replace_once((root / mutation.file).read_text(encoding="utf-8"), mutation)
    code = [cell for cell in nb.cells if cell.cell_type == "code"]
    boundary = "\0"  # in no cell: the old text has to stand in a single one
    sources = replace_once(boundary.join(cell.source for cell in code), mutation)
    for cell, source in zip(code, sources.split(boundary), strict=True):
        cell.source = source
    return make.dumps(nb)


def replace_once(text: str, mutation: Mutation) -> str:
    count = text.count(mutation.old)
    assert count == 1, f"{mutation.old!r} occurs {count} times, not once"
    assert mutation.old != mutation.new
    return text.replace(mutation.old, mutation.new)


def goes_red(mutation: Mutation, nb, folder: Path) -> Red:
    """The cell that turns red by `mutation`; an AssertionError if none does by it alone."""
    lay_out(folder, nb, mutation.notebook)
    file = folder / (mutation.file or f"notebooks/{mutation.notebook}.ipynb")
    text = changed(mutation, nb)
    file.write_text(text, encoding="utf-8")
    red = nbval(folder)
    assert red, f"nbval does not see it: {mutation.what}"
    seen = "Cell outputs differ" in red.message or "AssertionError" in red.message
    assert seen, f"Red, but not by the outputs or an assert: {red.message}"
    return red


def load(stem: str):
    return make.loads(NOTEBOOKS[stem].read_text(encoding="utf-8"))


def test_every_mutation_has_its_place():
    for mutation in MUTATIONS:
        changed(mutation, load(mutation.notebook))
    assert {mutation.notebook for mutation in MUTATIONS} == NOTEBOOKS.keys()


@pytest.mark.parametrize(
    "mutation",
    # the first one is quick: `make test` runs it, too
    [MUTATIONS[0], *(pytest.param(one, marks=pytest.mark.mutation) for one in MUTATIONS[1:])],
    ids=str,
)
def test_mutation_is_seen(mutation, tmp_path):
    goes_red(mutation, load(mutation.notebook), tmp_path)


@pytest.mark.mutation
@pytest.mark.parametrize("stem", NOTEBOOKS)
def test_unchanged_copy_passes(stem, tmp_path):
    assert nbval(lay_out(tmp_path, load(stem), stem)) is None


def small():
    """A notebook that the tests of the test mutate: it plots, prints, and uses a helper."""
    show = "display({'image/png': 'AAAA', 'text/plain': f'Bars of {heights}.'}, raw=True)"
    bars = new_output("display_data", {"image/png": "AAAA", "text/plain": "Bars of [1, 2]."})
    printed = new_output("stream", name="stdout", text="data\n")
    cells = [
        new_code_cell("from helpers import DATA\nunused = 0"),
        new_code_cell(f"heights = [1, 2]\n{show}", outputs=[bars]),
        new_code_cell("print(DATA.name)", outputs=[printed]),
        new_code_cell("answer = 2\nassert answer == 2"),
    ]
    return make.normalize(new_notebook(cells=cells))


def test_red_cell_is_found(tmp_path):
    helper = ROOT / "helpers" / "__init__.py"
    before = helper.read_bytes()
    for file, old, new, cell in (
        ("", "[1, 2]", "[1, 3]", 1),
        ("helpers/__init__.py", '/ "data"', '/ "date"', 2),
        ("", "answer = 2", "answer = 3", 3),
    ):
        mutation = Mutation("small", file, "", old, new)
        assert goes_red(mutation, small(), tmp_path / str(cell)).cell == cell
    assert helper.read_bytes() == before


def test_bad_mutation_is_rejected(tmp_path):
    for old, new, complaint in (
        ("unused = 0", "unused = 1", "nbval does not see it"),
        ("answer = 7", "answer = 8", "0 times"),
        ("answer", "reply", "2 times"),
        ("answer = 2", "answer = ", "not by the outputs"),
    ):
        with pytest.raises(AssertionError, match=complaint):
            goes_red(Mutation("small", "", "", old, new), small(), tmp_path / new)
