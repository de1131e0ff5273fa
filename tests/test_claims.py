"""claims.toml: its snippets print what is recorded, and what it names exists and proves."""

import re
from functools import cache

import claims
import pytest
from notebook_rules import ROOT, code, make
from test_house import imports
from test_questions import unproved

CLAIMS = {claim.id: claim for claim in claims.claims()}
TEXT, NOTEBOOKS = claims.CLAIMS.read_text("utf-8"), ROOT / "notebooks"


def test_every_snippet_prints_what_is_recorded():
    snippets = [claim.snippet for claim in CLAIMS.values()]
    *printed, fault = claims.run_all([*snippets, "import os; print(os.listdir()); 1 / 0"])
    assert fault == "[]\nZeroDivisionError: division by zero"
    assert dict(zip(CLAIMS, printed, strict=True)) == {n: c.prints for n, c in CLAIMS.items()}


def test_snippets_are_short_and_import_little(tmp_path):
    for name, claim in CLAIMS.items():
        lengths = [len(line) for line in claim.snippet.splitlines() if line.strip()]
        assert len(lengths) <= 8 and max(lengths) <= 88, name
        (path := tmp_path / "snippet.py").write_text(claim.snippet, "utf-8")
        assert {m.split(".")[0] for m in imports(path)} <= {"torch", "torchvision", "numpy"}, name


def test_what_a_claim_names_exists_and_proves():
    assert 15 <= len(CLAIMS) == len(claims.claims()) <= 20
    notebook = cache(lambda name: make.loads((NOTEBOOKS / f"{name}.ipynb").read_text("utf-8")))
    for name, claim in CLAIMS.items():
        assert re.fullmatch(r"[a-z]\w*(-\w+)*", name) and claim.source.startswith("https://")
        assert claim.sentence.endswith(".") and ". " not in claim.sentence, name
        lesson, label = claim.section.split("#")
        assert any(f'<a id="{label}"></a>' in c.source for c in notebook(lesson).cells), name
        assert not unproved(re.sub(r"^([\w/]+):", r"notebooks/\1.ipynb::", claim.proof)), name
        if claim.figure:
            lesson, cell_id = claim.figure.split(":")
            outputs = [cell.outputs for cell in code(notebook(lesson)) if cell.id == cell_id]
            assert any("image/png" in out.get("data", {}) for out in sum(outputs, [])), name


def test_a_bad_file_is_one_sentence(tmp_path):
    for old, new, fault in (
        ("proof", "prof", "proof is missing"),
        ("figure", "figur", "the key figur is unknown"),
        ("held = ", "held = 2 #", "held is no text"),
    ):
        (path := tmp_path / "claims.toml").write_text(TEXT.replace(old, new), "utf-8")
        with pytest.raises(ValueError, match=rf"^claims.toml, claim [-\w]+: {fault}\.$"):
            claims.claims(path)


def test_held_is_written_where_a_claim_held_and_never_lowered():
    assert (new := claims.with_held(TEXT, {"rescale"}, "9.10.0")).count('held = "9.10.0"') == 1
    assert new.replace("9.10.0", CLAIMS["rescale"].held) == TEXT
    assert claims.with_held(TEXT, {*CLAIMS}, "2.9.1") == TEXT
