"""Exercises: the notebook's solution passes, plausible mistakes are named, and nothing raises."""

import re

import numpy as np
import pytest
import torch
from notebook_rules import ROOT, exercise_sections, make
from torchvision.ops import FrozenBatchNorm2d

from helpers.course.checkers import FILES, load_all
from helpers.course.checkers.checker import Verdict
from helpers.course.exercises import check
from helpers.norms import freeze
from workshop.make import right_attempts

CHECKERS = load_all()
IMPORTED = {"torch": torch, "FrozenBatchNorm2d": FrozenBatchNorm2d}
NOTEBOOKS = [make.loads(path.read_text(encoding="utf-8")) for path in make.every()]


def attempts(sources):
    """Key → what the cells with these sources hand to `check`."""
    found = {}
    for source in sources:
        exec(source, {**IMPORTED, "check": found.__setitem__})
    return found


SOLUTIONS = attempts(source for nb in NOTEBOOKS for source in right_attempts(nb).values())


def test_every_exercise_has_a_checker_and_every_checker_an_exercise():
    assert len(SOLUTIONS) == sum(len(exercise_sections(nb)) for nb in NOTEBOOKS)
    assert SOLUTIONS.keys() == CHECKERS.keys()


def test_only_the_file_of_a_key_is_loaded():
    """No detector is loaded for the exercises of a lesson that has none."""
    for name in "exercises", "checkers/__init__", "checkers/checker", "checkers/two_backbones":
        text = (ROOT / "helpers" / "course" / f"{name}.py").read_text(encoding="utf-8")
        for module in re.findall(r"^(?:from|import) (helpers[\w.]*)", text, re.MULTILINE):
            assert module == "helpers.course" or module.split(".")[2] in ("checkers", "questions")
    assert {key[:2] for key in CHECKERS} == FILES.keys()


@pytest.mark.parametrize("key", CHECKERS)
def test_right_and_wrong_attempts(key):
    verdict = check(key, SOLUTIONS[key])
    assert verdict.ok is True, verdict
    assert repr(verdict).startswith("Right: ")
    assert CHECKERS[key].wrong
    for says, attempt in CHECKERS[key].wrong.items():
        verdict = check(key, attempt)
        assert verdict.ok is False and says in verdict.text, (says, verdict)
        assert repr(verdict).startswith("Not yet: ")
    for other in lambda *_: object(), lambda *_: "text":
        verdict = check(key, other)
        assert verdict.ok is False and "raises" not in verdict.text, verdict
    assert check(key, SOLUTIONS[key]).ok, "an attempt has changed what the next one is given"


@pytest.mark.parametrize("key", CHECKERS)
def test_untouched_and_broken_attempts(key):
    for untouched in ..., None, lambda *_: None, lambda *_: ...:
        verdict = check(key, untouched)
        assert verdict.ok is None
        assert repr(verdict).startswith("Not attempted yet: ")

    def broken(*_):
        raise RuntimeError("first line\nsecond line")

    assert repr(check(key, broken)) == "Not yet: your code raises RuntimeError: first line"
    assert "takes 0 positional arguments" in repr(check(key, lambda: 1))
    assert "StopIteration: no message" in repr(check(key, lambda *_: next(iter(()))))


def test_what_is_no_function_or_no_exercise_gets_a_sentence():
    assert "the function itself" in repr(check("01-converter", torch.ones(4)))
    for key, near in ("01-tolerence", "near it: 01-tolerance"), ("nothing", "01-con"), (5, "01-"):
        with pytest.raises(LookupError, match=f"^There is no exercise {key!r}; .*{near}[^\n]*$"):
            check(key, ...)


def test_verdict_in_html():
    html = Verdict(False, "`a < b` & more")._repr_html_()
    assert "<strong>Not yet:</strong> <code>a &lt; b</code> &amp; more" in html


def test_right_answers_in_another_form_pass():
    right = SOLUTIONS["01-tolerance"]
    for kind in bool, torch.tensor, np.bool_:
        assert check("01-tolerance", lambda a, b, kind=kind: kind(right(a, b))).ok
    assert check("01-converter", lambda bn: freeze(bn)).ok
