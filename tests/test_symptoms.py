"""symptoms.toml: every symptom leads somewhere; test_claims runs the snippets."""

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
