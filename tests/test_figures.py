"""Figures: what PNG, caption and description must be; heatmaps against the colormap itself."""

import base64
import io

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from PIL import Image

from helpers import figures
from helpers.compare import Comparison, Row


def picture(png):
    return Image.open(io.BytesIO(png))


def comparison(*relatives):
    rows = (Row((1, 2, 3, 3), r, r, r, 1e-5) for r in relatives)
    return Comparison(zip(("stem", "layer1"), rows, strict=True))


def test_what_is_shown_is_a_palette_png_of_800_pixels_and_its_description():
    fig, axes = figures.figure()
    axes.imshow(np.linspace(0, 1, 256)[None], aspect="auto", cmap="viridis")
    data, metadata = figures.show(fig, "All of viridis.", caption="A ramp.")._repr_mimebundle_()
    image, exact = picture(base64.b64decode(data["image/png"])), io.BytesIO()
    assert (image.mode, image.width, image.format) == ("P", 800, "PNG")
    assert data["text/plain"] == metadata["image/png"]["alt"] == "All of viridis."
    fig.savefig(exact, format="png", dpi=figures.DPI)
    shown, wanted = (np.asarray(one.convert("RGB"), int) for one in (image, Image.open(exact)))
    assert (shown[0, 0] == 255).all() and np.quantile(np.abs(shown - wanted), 0.99) <= 6


def test_the_caption_is_drawn_in_the_figure():
    heights = []
    for caption in ("short", "long " * 60):
        fig, axes = figures.figure()
        figures.png(fig, caption)
        assert fig._supxlabel.get_text().replace("\n", " ") == caption.strip()
        heights.append(axes.get_position().y0)
    assert heights[1] > heights[0]


def test_a_figure_without_words_is_refused():
    for description, caption in (("", "c"), ("d", " "), (None, "c")):
        with pytest.raises(ValueError, match="A figure needs a (description|caption): say what"):
            figures.show(figures.figure()[0], description, caption)


def test_heatmap_colors_are_the_maps_and_the_unseen_is_gray():
    values = torch.tensor([[0.0, 0.5, 1.0, float("nan")], [-9.0, 2.0, 0.25, float("inf")]])
    image = picture(figures.heatmap(values, 0, 1, side=4))
    wanted = colormaps["viridis"]([[0, 0.5, 1], [0, 1, 0.25]])[..., :3] * 255
    pixels = np.asarray(image.convert("RGB"))
    assert image.mode == "P" and image.size == (4, 2)
    assert np.abs(pixels[:, :3] - wanted).max() <= 3 and (pixels[:, 3] == 150).all()
    image = picture(figures.heatmap(torch.tensor([[-1.0, 0, 1]]), -1, 1, diverging=True, side=30))
    low, zero, high = np.asarray(image.convert("RGB"), int)[0, 5::10]
    assert image.size == (30, 10) and len(image.getcolors()) == 3  # enlarged without blurring
    assert np.ptp(zero) <= 2 and zero.min() > 240  # white: no hue
    assert low[2] > low[0] and high[0] > high[2]  # blue below, red above
    constant = picture(figures.heatmap(torch.full((2, 2), 5.0), 5, 5))
    assert (np.asarray(constant) == 127).all()


def test_heatmap_refuses_in_one_sentence():
    flat = torch.zeros(2, 2)
    for values, low, high, diverging in (
        (torch.zeros(1, 2, 2), 0, 1, False),
        (torch.zeros(0, 2), 0, 1, False),
        (flat, 1, 0, False),
        (flat, 0, float("nan"), False),
        (flat, -1, 2, True),
    ):
        with pytest.raises(ValueError, match=r"one map of shape \(H,W\)|must rise"):
            figures.heatmap(values, low, high, diverging)


def test_stage_picture_says_every_effect_and_only_a_bound_for_rounding():
    rows = {"large": comparison(0.0123, 0.2), "small": comparison(3e-6, 0)}
    fig, words = figures.stage_picture(rows)
    assert "large: stem 0.0123, layer1 0.2; small: rounding at most (≤ 1e-5) at every" in words
    large, small = fig.axes[0].lines
    assert list(large.get_ydata()) == [0.0123, 0.2]
    assert min(small.get_ydata()) == fig.axes[0].get_ylim()[0] == 1e-8  # zero stands on the floor
    assert figures.in_words(comparison(3e-6, 0.5)) == "stem ≤ 1e-5, layer1 0.5"


def test_bar_picture_writes_its_numbers():
    fig, words = figures.bar_picture({"one": 106.8, "other": 51.7}, "MiB", "kept")
    assert words == "Kept. one: 107 MiB; other: 52 MiB."
    assert [bar.get_width() for bar in fig.axes[0].patches] == [106.8, 51.7]
    assert [text.get_text() for text in fig.axes[0].texts] == ["107 MiB", "52 MiB"]


def test_feature_maps_share_one_scale_and_zero_is_in_the_middle():
    a, b = torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5, 3.0]])
    fig, words = figures.feature_maps(a, b, ("one", "other"), torch.rand(1, 3, 4, 4))
    limits = [axes.images[0].get_clim() for axes in fig.axes[1:4]]
    assert limits == [(0, 3), (0, 3), (-2, 2)]
    assert "one scale from 0 to 3; A − B from -2 to -0.5." in words
    assert np.array_equal(fig.axes[3].images[0].get_array(), (a - b).numpy())
