"""symptoms.toml: every symptom leads somewhere, and every snippet prints what stands beside it."""

import ast
import contextlib
import io
import json
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SYMPTOMS = tomllib.loads((ROOT / "symptoms.toml").read_text(encoding="utf-8"))["symptom"]
PAGES = [symptom for symptom in SYMPTOMS if "section" not in symptom]
EVERY, PAGE = {"id", "says", "words", "thread", "answer"}, {"happens", "snippet", "prints", "do"}


def test_each_symptom_leads_somewhere():
    assert len(SYMPTOMS) >= 30 and len(PAGES) >= 10
    assert len({symptom["id"] for symptom in SYMPTOMS}) == len(SYMPTOMS)
    for symptom in SYMPTOMS:
        needed = EVERY | ({"section"} if "section" in symptom else PAGE)
        assert needed <= set(symptom) <= needed | {"asked", "more"}, symptom["id"]
        assert all(symptom[key] for key in needed), symptom["id"]
        assert symptom["thread"].startswith("https://"), symptom["id"]
        for link in (symptom[key] for key in ("section", "more") if key in symptom):
            name, label = link.split("#")
            cells = json.loads((ROOT / f"notebooks/{name}.ipynb").read_text("utf-8"))["cells"]
            text = "".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
            assert f'<a id="{label}"></a>' in text, (symptom["id"], link)


def test_snippets_print_what_is_recorded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for page in PAGES:
        code, printed = page["snippet"], io.StringIO()
        lines = [line for line in code.splitlines() if line.strip()]
        assert len(lines) <= 8 and max(map(len, lines)) <= 88, page["id"]
        for node in ast.walk(ast.parse(code)):
            names = [alias.name for alias in getattr(node, "names", [])]
            for name in [node.module] if isinstance(node, ast.ImportFrom) else names:
                assert name.split(".")[0] in {"torch", "torchvision", "numpy"}, page["id"]
        with contextlib.redirect_stdout(printed):
            exec(compile(code, page["id"], "exec"), {})
        assert printed.getvalue() == page["prints"], page["id"]
        assert not list(tmp_path.iterdir()), page["id"]
