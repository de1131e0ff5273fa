"""Every notebook keeps every rule, and nbval is set up to see what they leave to it."""

import re

import pytest
from nbval.plugin import get_sanitize_patterns
from notebook_rules import ROOT, RULES, code, kind_of, lines_beyond_imports, make, words

NOTEBOOKS = sorted((ROOT / "notebooks").rglob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_keeps_every_rule(path):
    text = path.read_text(encoding="utf-8")
    nb = make.loads(text)
    assert "\n".join(offence for rule in RULES.values() for offence in rule(nb, path)) == ""
    assert text == make.dumps(nb)


def test_course_map_lists_every_notebook_and_no_other():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"\]\((notebooks/[^)]*\.ipynb)\)", text))
    assert listed == {path.relative_to(ROOT).as_posix() for path in NOTEBOOKS}


def test_the_course_is_short():
    numbered = (path for path in NOTEBOOKS if kind_of(path) != "deeper")
    lessons = [make.loads(path.read_text("utf-8")) for path in numbered]
    cells = [cell for nb in lessons for cell in code(nb)]
    assert sum(words(nb) for nb in lessons) <= 10_000
    assert sum(len(lines_beyond_imports(cell)) for cell in cells) <= 1_000


def test_only_the_build_of_torch_is_sanitized():
    text = (ROOT / "tests" / "nbval_sanitize.cfg").read_text(encoding="utf-8")
    patterns = get_sanitize_patterns(text)
    assert len(patterns) == len(re.findall(r"^\W*(?:regex|replace)\b", text, re.MULTILINE)) / 2
    for printed, compared in (
        ("torch 2.15.0+cu130, torchvision 0.30.0+cpu", "torch 2.15.0, torchvision 0.30.0"),
        ("1.2.3+4", "1.2.3+4"),
    ):
        for pattern, replacement in patterns:
            printed = re.sub(pattern, replacement, printed)
        assert printed == compared
