"""claims.toml and symptoms.toml: snippets print what is recorded, and a claim names its proof."""

import ast
import re
from functools import cache

import claims
import pytest
from notebook_rules import ROOT, code, make
from test_questions import unproved

CLAIMS = {claim.id: claim for claim in claims.claims()}
TEXT, NOTEBOOKS = claims.CLAIMS.read_text("utf-8"), ROOT / "notebooks"


def assert_short_and_alone(snippets):
    """At most eight lines that fit on a page, and no import but of what a reader has."""
    for snippet in snippets:
        lengths = [len(line) for line in snippet.splitlines() if line.strip()]
        assert len(lengths) <= 8 and max(lengths) <= 88, snippet
        for node in ast.walk(ast.parse(snippet)):
            names = [alias.name for alias in getattr(node, "names", [])]
            for name in [node.module] if isinstance(node, ast.ImportFrom) else names:
                assert name.split(".")[0] in {"torch", "torchvision", "numpy"}, snippet


def test_every_snippet_prints_what_is_recorded():
    files = map(claims.recorded, (claims.CLAIMS, claims.SYMPTOMS))
    snippets, wanted = zip(*(pair for file in files for pair in file.values()), strict=True)
    assert len(snippets) >= 25
    assert_short_and_alone(snippets)
    *printed, fault = claims.run_all([*snippets, "import os; print(os.listdir()); 1 / 0"])
    assert fault == "[]\nZeroDivisionError: division by zero"
    assert printed == [*wanted]


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
