"""A poster, which of BatchNorm's doings each switch leaves going: a picture of measured rows."""

from collections.abc import Mapping, Sequence
from html import escape

from helpers.figures import BLACK
from helpers.text import Table, table

WIDTH, TOP, STEP, COLUMN = 390, 96, 46, 94  # of a phone, in units of the viewBox; text is 12 and up
HEADER = (
    ("affine gets", "a gradient"),
    ("statistics", "move"),
    ("depends on", "other images"),
    ("kept for", "backward"),
)
COLORS = {"yes": "#F6D5BF", "no": "#CFE5F3"}  # light tints of the house's orange and blue
Rows = Mapping[str, Sequence[bool | str]]  # switch → an answer for each column of HEADER


class Poster:
    """An SVG picture with its table as text; it shows itself as a cell's last line."""

    def __init__(self, svg: str, words: Table):
        self.svg, self.words = svg, words

    def __repr__(self) -> str:
        return repr(self.words)

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        return {"image/svg+xml": self.svg, "text/plain": repr(self)}


def poster(rows: Rows) -> Poster:
    """Draw the rows as an SVG picture that reads at 390 px; yes and no have colors, too."""
    cells = {
        name: [{True: "yes", False: "no"}.get(x, x) for x in row] for name, row in rows.items()
    }
    header = ("", *(" ".join(lines) for lines in HEADER))
    words = table([(name, *row) for name, row in cells.items()], header)
    height = TOP + STEP * len(rows) + 4
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="560"'
        f' style="max-width: 100%" role="img" font-family="sans-serif" fill="{BLACK}">',
        f'<title>What stops what</title><rect width="{WIDTH}" height="{height}" fill="white"/>',
        _text(8, 26, "What stops what in BatchNorm?", 17, "bold"),
        _text(8, 46, "In train mode, unless it says eval(). No: stopped.", 13),
    ]
    columns = range(8, WIDTH - COLUMN, COLUMN)
    for x, lines in zip(columns, HEADER, strict=True):
        parts += [_text(x + 4, 70 + 15 * n, line, 13) for n, line in enumerate(lines)]
    for y, (name, row) in zip(range(TOP, height - 4, STEP), cells.items(), strict=True):
        parts.append(_text(8, y + 15, name, 13, "bold"))
        for x, cell in zip(columns, row, strict=True):
            place = f'x="{x}" y="{y + 20}" width="{COLUMN - 3}" height="20"'
            parts.append(f'<rect {place} fill="{COLORS.get(cell, "#EEEEEE")}"/>')
            parts.append(_text(x + 4, y + 35, cell, 13))
    return Poster("\n".join([*parts, "</svg>"]), words)


def _text(x: int, y: int, text: str, size: int, weight: str = "normal") -> str:
    style = f'font-size="{size}" font-weight="{weight}"'
    return f'<text x="{x}" y="{y}" {style}>{escape(text)}</text>'
