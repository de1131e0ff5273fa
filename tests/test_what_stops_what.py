"""The poster of what stops what holds what the lesson's own cells measure, cell by cell."""

import re
from xml.etree import ElementTree

from notebook_rules import ROOT, code, make

from helpers.course.diagrams.what_stops_what import WIDTH, poster

LESSON = make.loads((ROOT / "notebooks" / "02_batchnorm.ipynb").read_text(encoding="utf-8"))
MEASURED = {
    "train(), as it is": ("yes", "yes", "yes", "all of x"),
    "requires_grad_(False)": ("no", "yes", "yes", "all of x"),
    "torch.no_grad()": ("no", "yes", "yes", "0 bytes"),
    "momentum=0": ("yes", "no", "yes", "all of x"),
    "eval()": ("yes", "no", "no", "all of x"),
    "eval(), requires_grad_(False)": ("no", "no", "no", "all of x"),
    "FrozenBatchNorm2d": ("no", "no", "no", "64 bytes"),
}


def rows():
    names = {}
    for cell in code(LESSON):
        if cell.id in ("batchnorm", "probe", "ways"):
            exec(cell.source, names)
    return names["rows"]


def test_every_cell_of_the_poster_is_measured():
    shown = poster(rows())
    lines = [re.split("  +", line) for line in repr(shown).splitlines()]
    assert {name: tuple(cells) for name, *cells in lines[1:]} == MEASURED
    texts = [text.text for text in ElementTree.fromstring(shown.svg).findall(".//{*}text")]
    assert texts[-5 * len(MEASURED) :] == [
        t for name, row in MEASURED.items() for t in (name, *row)
    ]
    assert shown._repr_mimebundle_() == {"image/svg+xml": shown.svg, "text/plain": repr(shown)}


def test_the_poster_reads_on_a_phone():
    root = ElementTree.fromstring(poster({**rows(), "a < b": (True, False, True, "x")}).svg)
    *_, width, height = map(float, root.get("viewBox").split())
    assert width == WIDTH <= 390
    for text in root.findall(".//{*}text"):
        size = float(text.get("font-size"))
        assert size >= 12 and float(text.get("y")) < height
        assert float(text.get("x")) + 0.5 * size * len(text.text) < width, text.text
