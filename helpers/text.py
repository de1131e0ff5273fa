"""Numbers and tables as text."""

from collections.abc import Mapping, Sequence
from html import escape
from numbers import Integral, Real
from typing import Any


def short(number: float, digits: int = 3) -> str:
    """Write a number with `digits` significant digits: 0.0173, and below 0.01 as 2.6e-4."""
    if not 0 < abs(number) < 0.01:
        return f"{number + 0.0:.{digits}g}"  # -0.0 + 0.0 is 0.0
    mantissa, exponent = f"{number:.{digits - 1}e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


class Table:
    """Rows of text, printed in aligned columns and shown as an HTML table in a notebook."""

    def __init__(self, header: Sequence[str], rows: Sequence[Sequence[str]]):
        self.header, self.rows = header, rows

    def __repr__(self) -> str:
        lines = [self.header, *self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in lines
        )

    def _repr_html_(self) -> str:
        head, body = _html_row("th", self.header), "".join(_html_row("td", r) for r in self.rows)
        return f"<table><thead>{head}</thead><tbody>{body}</tbody></table>"


def table(
    rows: Sequence[Mapping[str, Any]] | Sequence[Sequence[Any]], header: Sequence[str] | None = None
) -> Table:
    """Lay out rows as a table: mappings from column to cell, or sequences with a `header`.

    A fraction is written by `short`, anything else by `str`; a cell that a mapping lacks is empty.
    Raises ValueError for sequences without a header and for a row of another length.
    """
    rows = list(rows)
    if all(isinstance(row, Mapping) for row in rows):
        header = list(header or dict.fromkeys(column for row in rows for column in row))
        rows = [[row.get(column, "") for column in header] for row in rows]
    if header is None:
        raise ValueError("Rows that are not mappings need a header: one name per column.")
    cells = [tuple(map(_cell, row)) for row in rows]
    if any(len(row) != len(header) for row in cells):
        raise ValueError(f"Every row needs {len(header)} cells, as many as the header has names.")
    return Table(tuple(header), cells)


def _cell(value: Any) -> str:
    is_fraction = isinstance(value, Real) and not isinstance(value, Integral)
    return short(value) if is_fraction else str(value)


def _html_row(tag: str, cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"
