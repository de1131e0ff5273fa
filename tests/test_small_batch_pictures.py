"""The figures of the lesson on small batches: they draw what they say."""

import pytest

from helpers.course.diagrams import readings, split


def test_readings_diagram_names_every_source_and_leads_it_to_the_layer():
    fig, words = readings.readings_diagram()
    texts = [text for text in fig.axes[0].texts if text.get_text()]
    drawn = {text.get_text() for text in texts}
    for images, how, name in readings.READINGS:
        assert {images, how, name} < drawn
        assert f"{name}: {images.replace(chr(10), ' ')}, {how}" in words
    arrows = [text for text in fig.axes[0].texts if not text.get_text()]
    assert readings.LAYER in drawn and len(arrows) == 2 * len(readings.READINGS)
    assert min(text.get_fontsize() for text in texts) >= 11


def test_split_picture_stacks_the_parts_and_says_them():
    fig, words = split.split_picture({"one": (0.3, 0.1), "two": (0.1, 0.1)}, "sleep")
    bars = [(bar.get_x(), bar.get_width()) for bar in fig.axes[0].patches]
    assert bars == [pytest.approx(p) for p in ((0, 0.3), (0, 0.1), (0.3, 0.1), (0.1, 0.1))]
    assert [text.get_text() for text in fig.axes[0].texts] == ["0.30", "0.10", "0.10", "0.10"]
    assert [label.get_text() for label in fig.axes[0].get_yticklabels()] == ["one", "two"]
    assert words == (
        "Recall lost. one: 0.40, of which 0.30 (75%) mended by sleep, 0.10 remains; "
        "two: 0.20, of which 0.10 (50%) mended by sleep, 0.10 remains."
    )
