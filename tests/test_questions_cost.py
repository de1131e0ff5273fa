"""Proofs of the answers about costs, of which most are stored measurements."""

import pytest

from helpers.course.checkers.where_the_time_goes import shown
from helpers.course.diagrams.timeline import PARTS, timeline
from helpers.course.stored.costs import FORWARD, cost, gpus, nms_ms, nms_shares, part_shares

H200 = "NVIDIA H200"


def test_nms_takes_as_long_for_80_classes():
    for device in gpus():
        one, many = (nms_ms(device, 300, classes)["trick"] for classes in (1, 80))
        assert many == pytest.approx(one, rel=0.1)


def test_a_timer_that_does_not_wait_blames_the_rpn():
    for device in gpus():
        parts = part_shares(device)
        assert parts["rpn"][1] == pytest.approx(0.5, abs=0.05) and parts["rpn"][0] < 0.2
        assert parts["backbone"][0] > 3 * parts["backbone"][1]


def test_many_boxes_take_longer_than_a_pass():
    for device, boxes, whole in (H200, 27.4, 16.7), ("NVIDIA H100 80GB HBM3", 30.9, 16.4):
        assert nms_ms(device, 25_000, 80)["trick"] == pytest.approx(boxes, abs=0.1)
        assert nms_shares(device)[-1]["ms"] == pytest.approx(whole, abs=0.1)


def test_layers_must_be_8_times_as_slow():
    share = 1 - cost(H200, "body", 1, "float32", FORWARD, "identity").ratio
    assert share == pytest.approx(0.3, abs=0.01)
    assert 0.7 + 0.3 * 7.7 == pytest.approx(3, abs=0.02)


def test_what_both_do_dilutes():
    alike, fast, slow = 0.5, 0.5, 1.5
    assert (alike + slow) / (alike + fast) < slow / fast == 3


def test_the_timeline_shows_what_the_exercise_computes():
    _, words = timeline()
    for part, ms in zip(PARTS, shown([*PARTS.values()]), strict=True):
        assert f"{part} {ms:g}" in words.partition("A timer")[2]
