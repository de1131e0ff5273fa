"""The questions: their files, their proofs, their use in the notebooks, and how they are shown."""

import ast
import json
import re
from collections import Counter
from pathlib import Path

import pytest

from helpers.course import questions
from helpers.course.questions import choices, find, load, predict, quiz

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = {path.stem: path for path in sorted((ROOT / "notebooks").rglob("*.ipynb"))}
FILES = {path.stem: path for path in sorted(questions.FOLDER.glob("*.yaml"))}
GOOD = """\
01-a:
  text: Is `a < b`?
  options:
    - right: No
      reason: It is & stays `a > b`.
    - wrong: Yes
      reason: It is not.
  proof: tests/test_questions.py::test_right_answers_stand_in_every_place
"""


def code(notebook: Path) -> dict[str, str]:
    """Source by id of a notebook's code cells."""
    cells = json.loads(notebook.read_text("utf-8"))["cells"]
    return {c["id"]: "".join(c["source"]) for c in cells if c["cell_type"] == "code"}


def asked(notebook: Path) -> list[str]:
    calls = re.findall(r"\b(?:predict|quiz)\(([^)]*)\)", "\n".join(code(notebook).values()))
    return re.findall('"([^"]+)"', "".join(calls))


def test_every_question_is_asked_once_in_the_order_of_its_file():
    lessons = {stem for stem, path in NOTEBOOKS.items() if path.parent.name != "deeper"}
    assert lessons <= FILES.keys() | {"00_start_here"} and FILES.keys() <= NOTEBOOKS.keys()
    for stem, path in FILES.items():
        keys = re.findall(r"^(\S+):", path.read_text("utf-8"), re.M)  # YAML drops a repeated key
        lesson = stem[:2] if stem[0].isdigit() else stem
        predictions = sum("-q" not in key for key in keys)
        assert keys == [
            *(f"{lesson}-{letter}" for letter in "abcdefgh"[:predictions]),
            *(f"{lesson}-q{n}" for n in range(1, len(keys) - predictions + 1)),
        ]
        assert asked(NOTEBOOKS[stem]) == keys == [*load(path)]


def test_options_fit_and_reasons_are_sentences():
    for path in FILES.values():
        for key, question in load(path).items():
            assert 3 <= len(question["options"]) <= 5, key
            for label, _, reason in choices(question):
                assert len(label) <= 83 and reason.endswith("."), label
                assert (label + reason + question["text"]).count("`") % 2 == 0, label


def test_right_answers_stand_in_every_place():
    """About equally often, so that no place gives an answer away."""
    places = Counter()
    for path in FILES.values():
        for question in load(path).values():
            verdicts = [verdict for _, verdict, _ in choices(question)]
            places[len(verdicts), verdicts.index("Right")] += 1
    for options in {options for options, _ in places}:
        counts = [places[options, place] for place in range(options)]
        assert max(counts) - min(counts) <= max(2, sum(counts) / 10), (options, counts)


def unproved(proof: str) -> str:
    """Why what the proof names proves nothing, or an empty text."""
    path, _, name = proof.partition("::")
    if not (ROOT / path).is_file():
        return "no such file"
    if path.endswith(".ipynb"):
        source = code(ROOT / path).get(name)
    else:
        text = (ROOT / path).read_text("utf-8")
        functions = {n.name: n for n in ast.parse(text).body if isinstance(n, ast.FunctionDef)}
        source = ast.unparse(functions[name]) if name in functions else None
    if source is None:
        return "no such test or code cell"
    nodes = [*ast.walk(ast.parse(source))]
    if any(
        "skip" in node.attr or "xfail" in node.attr
        for node in nodes
        if isinstance(node, ast.Attribute)
    ):
        return "it is skipped"
    asserts = any(
        isinstance(node, ast.Assert) or "assert_" in getattr(node, "attr", "") for node in nodes
    )
    return "" if asserts else "it asserts nothing"


def test_every_answer_is_proved():
    proofs = {key: q["proof"] for path in FILES.values() for key, q in load(path).items()}
    assert {key: fault for key, proof in proofs.items() if (fault := unproved(proof))} == {}


def test_a_proof_that_proves_nothing_is_named():
    for proof, fault in {
        "tests/none.py::test_none": "no such file",
        "tests/test_questions.py::test_none": "no such test",
        "tests/test_questions.py::code": "asserts nothing",
        "tests/browser/lab.py::find_chromium": "is skipped",
        "notebooks/01_two_backbones.ipynb::title": "no such test or code cell",
        "notebooks/01_two_backbones.ipynb::quiz": "asserts nothing",
    }.items():
        assert fault in unproved(proof), proof


def test_a_malformed_file_is_one_sentence(tmp_path):
    path = tmp_path / "01_some.yaml"
    for old, new, fault in [
        ("text: Is", "txt: Is", "question 01-a: text is missing"),
        ("  proof: ", "  prof: ", "question 01-a: proof is missing"),
        ("    - right", "    - wrong", "question 01-a: 0 options are right"),
        ("    - wrong", "    - right", "question 01-a: 2 options are right"),
        ("wrong: Yes", "wrong: No", "question 01-a: two options are alike"),
        ("      reason: It is not.\n", "", "reason, not {'wrong': 'Yes'}"),
        ("reason: It is not.", "reason:", "reason, not {'wrong': 'Yes', 'reason': ''}"),
        ("It is not.", "No: it is not.", "line 7: mapping values"),
    ]:
        path.write_text(GOOD.replace(old, new), "utf-8")
        load.cache_clear()
        with pytest.raises(ValueError, match=r"^01_some.yaml, .*\.$") as raised:
            load(path)
        assert fault in str(raised.value)


def test_an_unknown_key_is_one_sentence_with_the_nearest_keys():
    for call in lambda: predict("01-q9"), lambda: quiz("01-a", "01-q9"):
        with pytest.raises(
            LookupError, match=r"^There is no question '01-q9'; near it: 01-q\d, .*"
        ):
            call()
    with pytest.raises(LookupError, match=r"near it: \d\d-a"):
        find("1-a")


def test_a_question_is_text_and_html_that_opens_on_the_reasons(tmp_path, monkeypatch):
    (tmp_path / "01_some.yaml").write_text(GOOD, "utf-8")
    monkeypatch.setattr(questions, "FOLDER", tmp_path)
    shown = predict("01-a")._repr_mimebundle_()
    assert shown["text/plain"] == "Is `a < b`?\n   A. No\n   B. Yes"
    html = re.sub(r' style="[^"]*"', "", shown["text/html"]).replace("\n", "")
    assert html == (
        "<div><p><strong>Is <code>a &lt; b</code>?</strong></p>"
        "<details><summary>A. No</summary>"
        "<p><strong>Right:</strong> It is &amp; stays <code>a &gt; b</code>.</p></details>"
        "<details><summary>B. Yes</summary>"
        "<p><strong>Wrong:</strong> It is not.</p></details></div>"
    )
    two = quiz("01-a", "01-a")
    assert repr(two).startswith("1. Is `a") and "\n\n2. Is `a" in repr(two)
    assert two._repr_mimebundle_()["text/html"].count("<details") == 4
