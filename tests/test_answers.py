"""docs/answers: short, and what they state is printed below their snippet, or a claim's."""

import re

import answers
import binder_link
import claims
import pytest
from notebook_rules import ROOT
from test_claims import assert_short_and_alone

CLAIMS = {claim.id: vars(claim) for claim in claims.claims()}
TEXTS = {name: answers.answer(name, "SITE/") for name in answers.known()}
BLOCKS = {n: re.findall(r"```\w+\n(.*?)\n```", text, re.S) for n, text in TEXTS.items()}
FIELDS, LESSONS = ("sentence", "holds_for", "snippet", "prints"), ROOT / "notebooks"
NUMBER = r"(?<![\w.])\d+(?:\.\d+)*(?:e-?\d+)?"


def test_a_snippet_is_short_and_prints_what_stands_below():
    snippets, below = map(list, zip(*BLOCKS.values(), strict=True))
    assert claims.run_all(snippets) == below
    assert_short_and_alone(snippets)


@pytest.mark.parametrize("name", TEXTS)
def test_links_resolve_and_each_number_is_a_claims_or_printed(name):
    text, known = re.sub(r"```.*?```", "", TEXTS[name], flags=re.S), [BLOCKS[name][1]]
    links = re.findall(r"\]\(SITE/([\w/]+)\.html#([\w-]+)\)", text)
    assert len(links) == text.count("](")
    for page, label in links:
        if page == "claims":
            known += [CLAIMS[label][field] for field in FIELDS]
        else:
            assert f'<a id=\\"{label}\\"></a>' in (LESSONS / f"{page}.ipynb").read_text("utf-8")
    prose = re.sub(r"\(SITE.*?\)", "", text)
    assert {*re.findall(NUMBER, prose)} <= {*re.findall(NUMBER, "\n".join(known))}
    assert len(re.findall(r"[.!?](?=\s|$)|:$", prose, re.M)) <= 12


def test_the_address_is_that_of_the_newest_tag(monkeypatch):
    monkeypatch.setattr(binder_link, "git", lambda *_: "v1.1.0\nv1.0.0\n")
    monkeypatch.setattr(binder_link, "remote_place", lambda: "gh/ada/two")
    assert "(https://ada.github.io/two/v1.1.0/claims" in answers.answer("gluoncv-rescale")
