"""Figures: what PNG, caption and description must be; heatmaps against the colormap itself."""

import io

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from PIL import Image

from helpers import figures as show
from helpers.compare import Comparison, Row
from helpers.faster_rcnn import walk
from helpers.inputs.scenes import CLASSES, scenes
from helpers.networks.detector import load_detector


@pytest.fixture
def displayed(monkeypatch):
    calls = []
    monkeypatch.setattr(show, "display", lambda data, **options: calls.append((data, options)))
    return calls


def picture(png):
    return Image.open(io.BytesIO(png))


def test_show_gives_a_palette_png_of_800_pixels_and_the_description(displayed):
    fig, axes = show.figure()
    axes.plot([1, 2])
    show.show(fig, "A line from 1 to 2.", caption="A line.")
    (data, options), image = displayed[0], picture(displayed[0][0]["image/png"])
    assert (image.mode, image.width, image.format) == ("P", 800, "PNG")
    assert data["text/plain"] == "A line from 1 to 2." and options["raw"]
    assert options["metadata"]["image/png"]["alt"] == "A line from 1 to 2."


def test_white_stays_white_and_every_color_finds_its_nearest(displayed):
    fig, axes = show.figure()
    axes.imshow(np.linspace(0, 1, 256)[None], aspect="auto", cmap="viridis")
    canvas = io.BytesIO()
    show.show(fig, "A ramp of all colors of viridis.", caption="A ramp.")
    fig.savefig(canvas, format="png", dpi=show.DPI)
    shown = np.asarray(picture(displayed[0][0]["image/png"]).convert("RGB")).astype(int)
    wanted = np.asarray(Image.open(canvas).convert("RGB")).astype(int)
    assert (shown[0, 0] == 255).all() and np.quantile(np.abs(shown - wanted), 0.99) <= 6


def test_the_caption_is_drawn_in_the_figure(displayed):
    heights = []
    for caption in ("short", "long " * 60):
        fig, axes = show.figure()
        show.show(fig, "Nothing is drawn.", caption=caption)
        assert fig._supxlabel.get_text().replace("\n", " ") == caption.strip()
        heights.append(axes.get_position().y0)
    assert heights[1] > heights[0]


@pytest.mark.parametrize(("description", "caption"), [("", "c"), ("d", " "), (None, "c")])
def test_a_figure_without_words_is_refused(description, caption):
    with pytest.raises(ValueError, match="A figure needs a (description|caption): say what"):
        show.show(show.figure()[0], description, caption)


def test_heatmap_colors_are_viridis_and_values_beyond_the_range_are_clipped():
    values = torch.tensor([[0.0, 0.5, 1.0], [-9.0, 2.0, 0.25]])
    image = picture(show.heatmap(values, 0, 1, side=3))
    assert image.mode == "P" and image.size == (3, 2)
    shares = np.array([[0, 0.5, 1], [0, 1, 0.25]])
    wanted = colormaps["viridis"](shares)[..., :3] * 255
    assert np.abs(np.asarray(image.convert("RGB")) - wanted).max() <= 3


def test_zero_is_the_middle_of_a_difference():
    image = picture(show.heatmap(torch.tensor([[-1.0, 0.0, 1.0]]), -1, 1, diverging=True, side=3))
    low, zero, high = np.asarray(image.convert("RGB"))[0].astype(int)
    assert np.ptp(zero) <= 2 and zero.min() > 240  # white: no hue
    assert low[2] > low[0] and high[0] > high[2]  # blue below, red above


def test_heatmap_enlarges_without_blurring_and_shows_what_is_not_finite_in_gray():
    values = torch.tensor([[0.0, float("nan")], [float("inf"), 1.0]])
    pixels = np.asarray(picture(show.heatmap(values, 0, 1, side=100)).convert("RGB"))
    assert pixels.shape == (100, 100, 3) and len(np.unique(pixels.reshape(-1, 3), axis=0)) == 3
    assert (pixels[0, -1] == 150).all() and (pixels[-1, 0] == 150).all()


def test_a_constant_map_is_one_color_in_the_middle():
    pixels = np.asarray(picture(show.heatmap(torch.full((2, 2), 5.0), 5, 5)))
    assert (pixels == 127).all()


@pytest.mark.parametrize(
    ("values", "low", "high", "diverging"),
    [
        (torch.zeros(1, 2, 2), 0, 1, False),
        (torch.zeros(0, 2), 0, 1, False),
        (torch.zeros(2, 2), 1, 0, False),
        (torch.zeros(2, 2), 0, float("nan"), False),
        (torch.zeros(2, 2), -1, 2, True),
    ],
)
def test_heatmap_refuses_in_one_sentence(values, low, high, diverging):
    with pytest.raises(ValueError, match=r"one map of shape \(H,W\)|must rise"):
        show.heatmap(values, low, high, diverging)


def comparison(*relatives):
    rows = (Row((1, 2, 3, 3), r, r, r, 1e-5) for r in relatives)
    return Comparison(zip(("stem", "layer1"), rows, strict=True))


def test_stage_picture_says_every_effect_and_only_a_bound_for_rounding():
    fig, description = show.stage_picture(
        {"large": comparison(0.0123, 0.2), "small": comparison(3e-6, 0)}
    )
    assert "large: stem 0.0123, layer1 0.2" in description
    assert "small: rounding at most (≤ 1e-5) at every point" in description
    large, small = fig.axes[0].lines
    assert list(large.get_ydata()) == [0.0123, 0.2]
    assert min(small.get_ydata()) == fig.axes[0].get_ylim()[0] == 1e-8  # zero stands on the floor


def test_mixed_rows_are_said_one_by_one():
    assert show.in_words(comparison(3e-6, 0.5)) == "stem ≤ 1e-5, layer1 0.5"


def test_feature_maps_share_one_scale_and_zero_is_in_the_middle():
    a, b = torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5, 3.0]])
    fig, description = show.feature_maps(a, b, ("one", "other"), torch.rand(1, 3, 4, 4))
    limits = [axes.images[0].get_clim() for axes in fig.axes[1:4]]
    assert limits[:2] == [(0, 3), (0, 3)] and limits[2] == (-2, 2)
    assert "one scale from 0 to 3; A − B from -2 to -0.5." in description
    assert np.array_equal(fig.axes[3].images[0].get_array(), (a - b).numpy())


def test_variance_picture_counts_and_places_every_channel():
    variances = {"stem": torch.tensor([1e-3, 1e-2, 0.0]), "layer1": torch.tensor([1.0])}
    fig, description = show.variance_picture(variances, eps_trained=1e-3, eps_layer=1e-5)
    assert (
        "stem 3 channels, median variance 1e-3 (scale off by 0.41); 1 have variance 0"
        in description
    )
    assert "layer1 1 channels, median variance 1 (scale off by 4.9e-4)" in description
    top, bottom = fig.axes
    x, y = top.lines[0].get_data()
    assert np.allclose(y, np.sqrt((x + 1e-3) / (x + 1e-5)) - 1)
    assert np.allclose(bottom.lines[0].get_xdata(), variances["stem"])


def test_block_picture_places_every_channel_and_counts_the_small_ones_by_block():
    blocks = {
        "stem": [(torch.tensor([0.0, 1e-4, 2.0]), False)],
        "layer1": [(torch.tensor([1e-3, 5.0]), True), (torch.tensor([3.0]), False)],
    }
    fig, description = show.block_picture(blocks, limit=1e-3)
    assert description == (
        "Running variance of 6 channels in 3 layers. Below 1e-3, by block: stem 1."
    )
    (axes,) = fig.axes
    *layers, dashed = axes.lines
    assert [list(line.get_ydata()) for line in layers] == [
        pytest.approx(values) for values in ([1e-4, 2], [1e-3, 5], [3])
    ]
    assert [line.get_marker() for line in layers] == ["o", "^", "o"]
    for number, line in enumerate(layers):
        assert number < min(line.get_xdata()) <= max(line.get_xdata()) < number + 1
    assert set(dashed.get_ydata()) == {1e-3} and axes.get_ylim()[0] < 1e-4
    assert [label.get_text() for label in axes.get_xticklabels()] == ["stem", "layer1"]
    assert list(axes.get_xticks()) == [0.5, 2]
    assert {text.get_text() for text in axes.texts} == {"1", "channels below 1e-3:"}


def test_block_picture_says_that_none_is_small():
    description = show.block_picture({"stem": [(torch.ones(2), False)]}, 1e-3)[1]
    assert description.endswith("in 1 layers. Below 1e-3, by block: none.")


def test_bar_picture_writes_its_numbers():
    fig, description = show.bar_picture({"one": 106.8, "other": 51.7}, "MiB", "kept")
    assert description == "Kept. one: 107 MiB; other: 52 MiB."
    (axes,) = fig.axes
    assert [bar.get_width() for bar in axes.patches] == [106.8, 51.7]
    assert [text.get_text() for text in axes.texts] == ["107 MiB", "52 MiB"]
    assert axes.get_xlabel() == "kept (MiB)"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["one", "other"]


def test_format_picture_shares_a_panel_between_formats_that_store_the_same():
    photo = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    stored = {"plain": photo.clone(), "levels": 255 * photo, "other levels": 255 * photo + 0.5}
    fig, words = show.format_picture(photo, stored)
    titles = [" ".join(axes.get_title().split()) for axes in fig.axes]
    assert titles == ["photo", "plain: 0 %", "levels, other levels: 99 %"]
    assert words == "A photo in 3 formats, outside of 0–1: plain 0 %; levels, other levels 99 %."


def test_score_picture_sorts_by_recall_and_says_every_number():
    rows = {
        "bad": {"recall": "0.100", "false_positives": "2.500"},
        "good": {"recall": "0.900", "false_positives": "0.250"},
    }
    fig, words = show.score_picture(rows)
    assert words == "Recall, and wrong boxes per image: good 0.90 and 0.25; bad 0.10 and 2.50."
    assert [label.get_text() for label in fig.axes[0].get_yticklabels()] == ["good", "bad"]


def test_box_picture_draws_each_level_and_the_sure_boxes_in_pixels_of_the_image():
    image, _ = scenes(18, 2018)[17]
    image = image[:, :80, :112]  # resized to 91 × 128
    walked = walk(load_detector(), image)
    fig, words = show.box_picture(image, walked, CLASSES, best=2)
    assert words == (
        "Proposals by the level that they are pooled from: 77 from P2, 17 from P3, 6 from P4. "
        "Boxes: triangle P2, disc P4, triangle P3."
    )
    titles = [axes.get_title() for axes in fig.axes]
    assert titles[:3] == ["P2: the best 2 of 77", "P3: the best 2 of 17", "P4: the best 2 of 6"]
    assert [len(axes.patches) for axes in fig.axes] == [4, 4, 4, 6]  # each on a white seam
    first = walked.proposals[walked.pooled_from == 3][0] * torch.tensor([112 / 128, 80 / 91] * 2)
    drawn = fig.axes[1].patches[0]
    wanted = (*first[:2].tolist(), *(first[2:] - first[:2]).tolist())
    placed = (drawn.get_x() + 0.5, drawn.get_y() + 0.5, drawn.get_width(), drawn.get_height())
    assert placed == pytest.approx(wanted, abs=1e-4)
    best = walked.result["boxes"][0]
    assert fig.axes[3].patches[0].get_width() == pytest.approx((best[2] - best[0]).item())


def test_box_picture_of_nothing_is_an_empty_panel():
    model = load_detector()
    model.rpn.score_thresh = 2.0
    image = torch.zeros(3, 40, 60)
    fig, words = show.box_picture(image, walk(model, image), CLASSES)
    assert words == "Proposals by the level that they are pooled from: none. Boxes: none."
    assert len(fig.axes) == 1 and not fig.axes[0].patches
