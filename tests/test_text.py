"""Numbers with few digits, and tables that align."""

import pytest

from helpers.text import short, table


def test_short():
    for number, text in (
        (0.01734, "0.0173"),
        (1.2345e-5, "1.23e-5"),
        (-1e-3, "-1e-3"),
        (0.0, "0"),
        (-0.0, "0"),
        (25, "25"),
    ):
        assert short(number) == text


def test_a_table_aligns_and_escapes():
    result = table([{"name": "a<b", "σ": 0.012345}, {"name": "n", "count": 123456}])
    assert repr(result).splitlines() == [
        "name  σ       count",
        "a<b   0.0123",
        "n             123456",
    ]
    html = result._repr_html_()
    assert html.startswith("<table><thead><tr><th>name</th><th>σ</th><th>count</th></tr></thead>")
    assert "<tbody><tr><td>a&lt;b</td><td>0.0123</td><td></td></tr><tr><td>n</td>" in html
    assert repr(table([("x", True)], ("", "agrees"))) == "   agrees\nx  True"


def test_rows_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="need a header"):
        table([("x", 1)])
    with pytest.raises(ValueError, match="needs 1 cells"):
        table([("x", 1)], ["name"])
