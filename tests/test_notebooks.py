"""Every notebook keeps every rule, and nbval is set up to see what they leave to it."""

import re

import pytest
from nbval.plugin import get_sanitize_patterns
from notebook_rules import IGNORED, ROOT, RULES, make

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
README = ROOT / "README.md"
SANITIZE = ROOT / "tests" / "nbval_sanitize.cfg"


def read(path):
    return make.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_rule(path, rule):
    assert list(RULES[rule](read(path), path)) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_file_is_as_make_writes_it(path):
    assert path.read_bytes() == make.dumps(read(path)).encode()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_course_map_lists_notebook(path):
    assert f"](notebooks/{path.name})" in README.read_text(encoding="utf-8")


@pytest.mark.skipif(not README.exists(), reason="no README.md yet")
def test_course_map_lists_no_other():
    listed = re.findall(r"\]\((notebooks/[^)]*\.ipynb)\)", README.read_text(encoding="utf-8"))
    assert [name for name in listed if not (ROOT / name).exists()] == []


def test_every_reason_has_its_cell():
    cells = {(path.stem, cell.id) for path in NOTEBOOKS for cell in read(path).cells}
    assert IGNORED.keys() <= cells


def test_sanitizing_is_what_was_meant():
    text = SANITIZE.read_text(encoding="utf-8")
    patterns = get_sanitize_patterns(text)
    assert patterns == [(r"\b(\d+\.\d+\.\d+)\+(?:cpu|cu\d+)\b", r"\1")]
    assert len(patterns) == len(re.findall(r"^\W*(?:regex|replace)\b", text, re.MULTILINE)) / 2


@pytest.mark.parametrize(
    ("printed", "compared"),
    [
        ("torch 2.15.0+cpu", "torch 2.15.0"),
        ("torch 2.15.0+cu130, torchvision 0.30.0+cu130", "torch 2.15.0, torchvision 0.30.0"),
        ("torch 2.15.0", "torch 2.15.0"),
        ("1.2.3+4", "1.2.3+4"),
    ],
)
def test_sanitizing(printed, compared):
    for pattern, replacement in get_sanitize_patterns(SANITIZE.read_text(encoding="utf-8")):
        printed = re.sub(pattern, replacement, printed)
    assert printed == compared
