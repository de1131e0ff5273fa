"""The two figures of stored runs: every run a dot, and a description with the numbers."""

import numpy as np
import pytest

from helpers.course.pictures import difference_picture, run_picture
from helpers.course.stored.runs import difference

SERIES = {
    "one": {1: {0: 0.5, 1: 0.7}, 16: {0: 0.9, 1: 0.8}},
    "two": {1: {0: 0.25, 1: 0.35}, 4: {0: 0.1, 1: 0.1}},
}


def dots(axes):
    """The y of every marker that is no part of a line or of the legend."""
    lines = [line for line in axes.lines if line.get_marker() != "None" and len(line.get_xdata())]
    return sorted(float(y) for line in lines for y in np.asarray(list(line.get_ydata())))


def test_every_run_is_a_dot_and_every_mean_in_the_description():
    fig, text = run_picture(SERIES, "distance")
    (axes,) = fig.axes
    values = [v for runs in SERIES.values() for seeds in runs.values() for v in seeds.values()]
    assert dots(axes) == pytest.approx(sorted(values))
    assert [label.get_text() for label in axes.get_xticklabels()] == ["B = 1", "B = 4", "B = 16"]
    assert text.startswith("Distance by batch size, means of the runs: ")
    assert "one: 0.6 at 1, 0.85 at 16; two: 0.3 at 1, 0.1 at 4." in text


def test_differences_are_drawn_pair_by_pair_with_their_interval():
    found = difference({0: 0.5, 1: 0.5, 2: 0.5}, {0: 0.6, 1: 0.4, 2: 0.8})
    fig, text = difference_picture({"a": found, "b": found}, "recall")
    (axes,) = fig.axes
    drawn = sorted(
        float(x)
        for line in axes.lines
        if line.get_marker() == "o"
        for x in np.asarray(line.get_xdata())
    )
    assert drawn == pytest.approx(sorted(2 * found.pairs))
    bar = axes.patches[0]
    assert bar.get_x() == pytest.approx(found.low)
    assert bar.get_x() + bar.get_width() == pytest.approx(found.high)
    assert text == f"Paired differences of recall. a: {found}; b: {found}."
