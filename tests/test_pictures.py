"""The figures of single lessons: marks where the numbers are, and descriptions that hold them."""

import numpy as np
import pytest
import torch

from helpers.batch_statistics import collect
from helpers.course import pictures
from helpers.course.diagrams import formula
from helpers.faster_rcnn import walk
from helpers.inputs.scenes import CLASSES, scenes
from helpers.networks.detector import load_body, load_detector


def dots(axes, marker=None):
    """The coordinates of every mark, or of those of this kind."""
    marked = [line for line in axes.lines if line.get_marker() != "None"]
    chosen = [line.get_data() for line in marked if marker in (None, line.get_marker())]
    return np.concatenate([np.stack([*map(list, data)], axis=1) for data in chosen if len(data[0])])


def test_variance_picture_counts_and_places_every_channel():
    variances = {"stem": torch.tensor([1e-3, 1e-2, 0.0]), "layer1": torch.tensor([1.0])}
    fig, words = pictures.variance_picture(variances, eps_trained=1e-3, eps_layer=1e-5)
    assert "stem 3 channels, median variance 1e-3 (scale off by 0.41); 1 have variance 0" in words
    assert "layer1 1 channels, median variance 1 (scale off by 4.9e-4)" in words
    x, y = fig.axes[0].lines[0].get_data()
    assert np.allclose(y, np.sqrt((x + 1e-3) / (x + 1e-5)) - 1)
    assert np.allclose(fig.axes[1].lines[0].get_xdata(), variances["stem"])


def test_formula_diagram_draws_what_it_says_and_a_layer_computes():
    fig, words = formula.formula_diagram()
    layer = torch.nn.BatchNorm2d(3, eps=0.25).double().eval()
    x = torch.rand(1, 3, 2, 2, generator=torch.Generator().manual_seed(0)).double()
    for number, name in enumerate(("weight", "bias", "running_mean", "running_var")):
        getattr(layer, name).data.fill_(number + 0.5)
    parts = {name: getattr(layer, name) for _, some in formula.FORMULA for name in some}
    numbers = {name: part if name == "eps" else part[0] for name, part in parts.items()}
    y = x
    for step, some in formula.FORMULA:
        values = sum(numbers[name] for name in some)
        y = {"−": y - values, "÷": y / values**0.5, "×": y * values, "+": y + values}[step[0]]
        for name, kept in some.items():
            assert name in step and (name in layer.state_dict()) is kept
            assert f"{name}" in words.partition(formula.KEPT if kept else formula.LOST)[0]
    torch.testing.assert_close(y, layer(x))
    drawn = [text.get_text() for text in fig.axes[0].texts]
    assert {"x", "y", *parts, *(step for step, _ in formula.FORMULA)} < set(drawn)
    assert min(text.get_fontsize() for text in fig.axes[0].texts if text.get_text()) >= 11


def test_format_picture_shares_a_panel_between_formats_that_store_the_same():
    photo = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    stored = {"plain": photo.clone(), "levels": 255 * photo, "other levels": 255 * photo + 0.5}
    fig, words = pictures.format_picture(photo, stored)
    titles = [" ".join(axes.get_title().split()) for axes in fig.axes]
    assert titles == ["photo", "plain: 0 %", "levels, other levels: 99 %"]
    assert words == "A photo in 3 formats, outside of 0–1: plain 0 %; levels, other levels 99 %."
    fig, _ = pictures.format_picture(photo, {str(n): n * photo for n in range(1, 9)})
    assert fig.axes[0].get_gridspec().nrows == 2


def test_score_picture_sorts_by_recall_and_says_every_number():
    rows = {
        "bad": {"recall": "0.100", "false_positives": "2.500"},
        "good": {"recall": "0.900", "false_positives": "0.250"},
    }
    fig, words = pictures.score_picture(rows)
    assert words == "Recall, and false positives per image: good 0.90 and 0.25; bad 0.10 and 2.50."
    assert [label.get_text() for label in fig.axes[0].get_yticklabels()] == ["good", "bad"]


def test_batch_picture_says_what_the_statistics_say():
    images = torch.stack([x for x, _ in scenes(4, 4)])
    channel = collect(load_body(), images)["stem"].channel(3)
    _, words = pictures.batch_picture(channel, (1, 2))
    pool = channel.within + channel.between
    one, two = (100 * (channel.within + part * channel.between) / pool for part in (0, 0.5))
    one, two = one.item(), two.item()
    assert f"within + between: {one:.0f} % at B = 1, {two:.0f} % at B = 2." in words


def test_power_picture_draws_its_points_on_axes_alike():
    panels = {
        "one": {"a": [(1, 2.0), (10, 3.0)], "b": [(1, 0.5), (10, 5)]},
        "other": {"a": [(1, 2.0), (10, 4.0)], "b": [(1, 0.1), (10, 1)]},
    }
    fig, words = pictures.power_picture(panels, "bytes", "time")
    left, right = fig.axes
    assert words == (
        "Time by bytes, from, to. one: a 2 at 1 to 3 at 10; b 0.5 at 1 to 5 at 10. "
        "other: a 2 at 1 to 4 at 10; b 0.1 at 1 to 1 at 10."
    )
    assert left.get_xlim() == right.get_xlim() and left.get_ylim() == right.get_ylim()
    assert [list(line.get_ydata()) for line in left.lines] == [[2, 3], [0.5, 5]]


def test_box_picture_draws_each_level_and_the_sure_boxes_in_pixels_of_the_image():
    image, _ = scenes(18, 2018)[17]
    image, model = image[:, :80, :112], load_detector()  # resized to 91 × 128
    walked = walk(model, image)
    fig, words = pictures.box_picture(image, walked, CLASSES, best=2)
    assert words == (
        "Proposals by the level that they are pooled from: 77 from P2, 17 from P3, 6 from P4. "
        "Boxes: triangle P2, disc P4, triangle P3."
    )
    assert [len(axes.patches) for axes in fig.axes] == [4, 4, 4, 6]  # each on a white seam
    first = walked.proposals[walked.pooled_from == 3][0] * torch.tensor([112 / 128, 80 / 91] * 2)
    drawn, best = fig.axes[1].patches[0], walked.result["boxes"][0]
    placed = drawn.get_x() + 0.5, drawn.get_y() + 0.5, drawn.get_width(), drawn.get_height()
    wanted = *first[:2].tolist(), *(first[2:] - first[:2]).tolist()
    assert placed == pytest.approx(wanted, abs=1e-4)
    assert fig.axes[3].patches[0].get_width() == pytest.approx((best[2] - best[0]).item())
    model.rpn.score_thresh = 2.0
    fig, words = pictures.box_picture(image, walk(model, image), CLASSES)
    assert words == "Proposals by the level that they are pooled from: none. Boxes: none."
    assert len(fig.axes) == 1 and not fig.axes[0].patches
