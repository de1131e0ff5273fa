"""The workshop's guides name what is there, and their minutes add up."""

import ast
import builtins
import json
import re
from pathlib import Path

import pytest
import yaml

from helpers.course.questions import choices, find

ROOT = Path(__file__).resolve().parent.parent
TRANSFER = yaml.safe_load((ROOT / "workshop" / "transfer.yaml").read_text("utf-8"))


def before(cell, sources):
    """The cells above, in the notebook's order."""
    lesson = [key for key in sources if key[0] == cell[0]]
    return lesson[: lesson.index(cell)]


def unknown(rows, sources, left_out=()):
    """Names that a cell of the rows takes, and no cell of its lesson in the rows before gives."""
    known = {}
    for lesson, cell in re.findall(r"`(\d\d_\w+):([\w-]+)`", "\n".join(rows)):
        source = sources[lesson, cell]
        if f"{lesson}:{cell}" in left_out or source[0] in "#<":  # a text, not code
            continue
        names = known.setdefault(lesson, set(dir(builtins)))
        nodes = list(ast.walk(ast.parse(source)))
        names |= {node.arg for node in nodes if isinstance(node, ast.arg)}
        names |= {node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
        for node in nodes:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names |= {(name.asname or name.name).partition(".")[0] for name in node.names}
        uses = [node for node in nodes if isinstance(node, ast.Name)]
        names |= {node.id for node in uses if isinstance(node.ctx, ast.Store)}
        yield from ((cell, node.id) for node in uses if node.id not in names)


@pytest.mark.parametrize(("name", "minutes"), [("90-minutes", 90), ("half-day", 210)])
def test_a_guide_names_what_is_there_and_its_minutes_add_up(name, minutes):
    text = (ROOT / "workshop" / f"guide-{name}.md").read_text("utf-8")
    table = re.findall(r"^\| (\d+) \| (\d+) \|([^|]*)\| (.*)", text, re.M)
    at = 0
    for begins, lasts, *_ in table:
        assert int(begins) == at
        at += int(lasts)
    assert at == minutes
    cells = re.findall(r"`(\d\d_\w+):([\w-]+)`", text)
    sources = {}
    for lesson in {lesson for lesson, _ in cells}:
        nb = json.loads((ROOT / "notebooks" / f"{lesson}.ipynb").read_text("utf-8"))
        sources |= {(lesson, cell["id"]): "".join(cell["source"]) for cell in nb["cells"]}
    assert set(cells) - sources.keys() == set()
    for *_, section, do in table:
        for cell in re.findall(r"`(\d\d_\w+):([\w-]+)`", do)[:1]:
            above = "".join(sources[key] for key in before(cell, sources)).rpartition("\n## ")[2]
            here = re.findall(r"^## (.*)", "## " + above + "\n" + sources[cell], re.M)
            assert section.strip() in here, cell
    assert not list(unknown([do for *_, do in table], sources))
    late = text.partition("**If you are late**")[2].partition("\n\nThe break")[0]
    left_out = re.findall(r"^\d\. `(\d\d_\w+:[\w-]+)`: homework", late, re.M)
    assert not list(unknown([do for *_, do in table], sources, left_out))
    votes = re.findall(r"\*\*Vote (\d\d-\w)\*\* at `(\d\d_\w+):([\w-]+)`", text)
    explained = re.findall(r"^### (\S+): .*\n\n((?:- [A-D]\. .*\n)+)", text, re.M)
    assert [key for key, *_ in votes] == [key for key, _ in explained]
    for key, *cell in votes:
        assert f'predict("{key}")' in sources[tuple(cell)], key
    for key, options in explained:
        right = [verdict == "Right" for _, verdict, _ in choices(find(key))]
        assert [line[2] for line in options.splitlines()] == [*"ABCD"][: len(right)]
        assert right == ["**Right.**" in line for line in options.splitlines()], key
    asked = re.findall(r"(\d) of `(\d\d_\w+)`", text)
    assert asked and all(1 <= int(n) <= len(TRANSFER[lesson]) for n, lesson in asked)
