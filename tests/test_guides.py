"""The workshop's guides name what is there, and their minutes add up."""

import json
import re
from pathlib import Path

import pytest
import yaml

from helpers.course.questions import choices, find

ROOT = Path(__file__).resolve().parent.parent
TRANSFER = yaml.safe_load((ROOT / "workshop" / "transfer.yaml").read_text("utf-8"))


@pytest.mark.parametrize(("name", "minutes"), [("90-minutes", 90), ("half-day", 210)])
def test_a_guide_names_what_is_there_and_its_minutes_add_up(name, minutes):
    text = (ROOT / "workshop" / f"guide-{name}.md").read_text("utf-8")
    assert sum(map(int, re.findall(r"^\| (\d+) \|", text, re.M))) == minutes
    cells = re.findall(r"`(\d\d_\w+):([\w-]+)`", text)
    sources = {}
    for lesson in {lesson for lesson, _ in cells}:
        nb = json.loads((ROOT / "notebooks" / f"{lesson}.ipynb").read_text("utf-8"))
        sources |= {(lesson, cell["id"]): "".join(cell["source"]) for cell in nb["cells"]}
    assert set(cells) - sources.keys() == set()
    votes = re.findall(r"\*\*Vote (\d\d-\w)\*\* at `(\d\d_\w+):([\w-]+)`", text)
    explained = re.findall(r"^### (\S+): .*\n\n((?:\d\. .*\n)+)", text, re.M)
    assert [key for key, *_ in votes] == [key for key, _ in explained]
    for key, *cell in votes:
        assert f'predict("{key}")' in sources[tuple(cell)], key
    for key, options in explained:
        right = [verdict == "Right" for _, verdict, _ in choices(find(key))]
        assert right == ["**Right.**" in line for line in options.splitlines()], key
    asked = re.findall(r"(\d) of `(\d\d_\w+)`", text)
    assert asked and all(1 <= int(n) <= len(TRANSFER[lesson]) for n, lesson in asked)
