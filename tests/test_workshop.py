"""The workshop: student notebooks give nothing away, solutions are right, the zip is whole."""

import re
import zipfile

import nbformat
import pytest
from notebook_rules import ROOT, code, make
from test_checkers import attempts

from helpers.course.exercises import check
from workshop import make as workshop


@pytest.fixture
def build(tmp_path, monkeypatch):
    monkeypatch.setattr(workshop, "TARGET", tmp_path / "workshop")
    monkeypatch.setattr(workshop, "SITE", ROOT / "site" / "assets")
    (tmp_path / "workshop" / "of the last run").mkdir(parents=True)
    workshop.main(["--no-run"])
    return tmp_path


def contents(file):
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name[-1] != "/"}


def test_the_zip_lacks_outputs_and_solutions_only_and_its_attempts_are_right(build):
    made = {file.name for file in build.glob("workshop*/*")}
    sheets = {f"before-and-after-{name}.txt" for name in ("90-minutes", "half-day")}
    key, to = "before-and-after-key.txt", "READ ME FIRST.txt"
    assert made == {"student", "solutions", *workshop.ZIPS, to, key, *sheets}
    students, held = (contents(build / "workshop" / name) for name in workshop.ZIPS)
    assert not any(b"Right " in students[name] for name in sheets)
    assert students.pop(to) != held[to] and b"open site/index.html" in held.pop(to)
    assert b"Right " in held.pop(key)
    assert students == {name: text for name, text in held.items() if name[:10] != "solutions/"}
    held = {name: text for name, text in held.items() if name not in sheets}
    for path in make.every():
        name = path.relative_to(make.NOTEBOOKS).as_posix()
        texts = path.read_bytes(), held.pop(f"student/{name}"), held.pop(f"solutions/{name}")
        committed, *made = (make.loads(text.decode()) for text in texts)
        for nb in made:
            nbformat.validate(nb)
            assert "Solution" not in make.dumps(nb) and "widgets" not in nb.metadata
            assert not any(cell.outputs or cell.execution_count for cell in code(nb))
        for old, cell, solved in zip(*(nb.cells for nb in (committed, *made)), strict=True):
            kept = re.sub(r"(?m)^<details><summary>Sol(.*\n)+?</details>\n?", "", old.source)
            assert [cell.id, cell.source, cell.metadata] == [old.id, kept.strip(), old.metadata]
            for key, attempt in attempts([solved.source] * ("\ncheck(" in old.source)).items():
                assert check(key, attempt).ok and key in old.source
                solved.source = cell.source
            assert solved == cell
    assert held.keys() == {f"site/{file.name}" for file in workshop.SITE.iterdir()}


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_a_wrong_check_and_an_interruption_leave_the_last_workshop(build, monkeypatch, error):
    def execute(nb):
        if error is KeyboardInterrupt:
            raise error
        for cell in code(nb):
            cell.outputs = [nbformat.v4.new_output("display_data", {"text/plain": "Not yet"})]
        return nb

    monkeypatch.setattr(workshop.notebooks, "execute", execute)
    held = {path: path.stat().st_mtime_ns for path in build.rglob("*")}
    with pytest.raises(error, match="01_two.*says: Not yet" if error is SystemExit else None):
        workshop.main([])
    assert {path: path.stat().st_mtime_ns for path in build.rglob("*")} == held
