"""The scatter: dots where the ticks say, sizes by share, what lies beyond on the border."""

import io
import time

import numpy as np
import pytest
from PIL import Image, ImageColor

from helpers.course.explorers import scatter as module
from helpers.course.explorers.scatter import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, Axes, scatter
from helpers.figures import PIXELS

AXES = Axes((1e-4, 1.0), (0.1, 1000.0), "x", "y")
WITH_ZERO = Axes((1e-4, 1.0), (0.1, 1000.0), "x", "y", zero=True)
LABELS = ("all", "these")


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def changed(axes, x, y, chosen, shares=None, **options):
    """Where the picture differs from the one without those dots: rows and columns."""
    options = {"labels": LABELS, **options}
    if shares is not None:  # one more line in the legend: of no interest here
        options["share_label"] = "of it"
    with_dots = pixels(scatter(axes, x, y, chosen, shares, **options))
    without = pixels(scatter(axes, [], [], [], **options))
    plot = np.abs(with_dots - without).sum(2) > 60
    plot[: TOP + 120, PIXELS // 2 :] = False  # the legend
    return plot.nonzero()


def test_the_picture_is_a_palette_png_of_800_pixels():
    image = Image.open(io.BytesIO(scatter(AXES, [0.1], [1.0], [True], labels=LABELS)))
    assert (image.format, image.mode, image.size) == ("PNG", "P", (PIXELS, HEIGHT))
    assert image.getpixel((LEFT + 40, HEIGHT - BOTTOM - 40)) == image.getpixel((1, HEIGHT - 1)) == 0
    assert image.convert("RGB").getpixel((1, 1)) == (255, 255, 255)


def test_a_dot_stands_over_the_tick_of_its_x_and_beside_the_tick_of_its_y():
    rows, columns = changed(AXES, [1e-2], [1.0], [True])
    picture = pixels(scatter(AXES, [], [], [], labels=LABELS))
    axis = np.array(ImageColor.getrgb(module.AXIS))
    below = (np.abs(picture[HEIGHT - BOTTOM + 3] - axis).sum(1) < 30).nonzero()[0]
    beside = (np.abs(picture[:, LEFT - 3] - axis).sum(1) < 30).nonzero()[0]
    assert len(below) == 5 and len(beside) == 5  # the decades 1e-4 … 1 and 0.1 … 1000
    assert abs(columns.mean() - below[2]) < 1 and abs(rows.mean() - beside[3]) < 1


def test_places_are_linear_in_the_logarithm_and_rest_on_the_border_beyond_the_limits():
    assert AXES.columns([1e-4, 1e-2, 1.0]) == pytest.approx(
        [LEFT, (LEFT + PIXELS - RIGHT) / 2, PIXELS - RIGHT]
    )
    assert AXES.rows([0.1, 10, 1000]) == pytest.approx(
        [HEIGHT - BOTTOM, (HEIGHT - BOTTOM + TOP) / 2, TOP]
    )
    assert AXES.rows([np.inf, 1e9, 1e-9]) == pytest.approx([TOP, TOP, HEIGHT - BOTTOM])
    assert AXES.columns([1e-9, 5.0]) == pytest.approx([LEFT, PIXELS - RIGHT])


def test_zero_has_a_column_of_its_own_left_of_the_axis():
    zero, first = WITH_ZERO.columns([0.0, 1e-4])
    assert LEFT < zero < first - 20
    rows, columns = changed(WITH_ZERO, [0.0], [10.0], [True])
    assert abs(columns.mean() - zero) < 1


def test_what_is_beyond_the_upper_limit_is_a_triangle_and_said_in_words():
    circle_rows, circle_columns = changed(WITH_ZERO, [1e-3], [10.0], [True])
    rows, columns = changed(WITH_ZERO, [1e-3], [np.inf], [True])
    shape = rows < TOP + 10
    assert np.ptp(columns[shape]) > np.ptp(circle_columns)
    widths = [np.ptp(columns[rows == row]) for row in (TOP - 5, TOP, TOP + 4)]
    assert widths == sorted(widths) and widths[0] < widths[2]
    assert (~shape).any()  # ∞ below it
    infinite, large = (
        scatter(WITH_ZERO, [1e-3], [y], [False], labels=LABELS) for y in (np.inf, 1e5)
    )
    assert infinite != large  # "∞" and "> 1000", for the gray dots too


def test_the_area_of_a_ring_is_in_proportion_to_its_share():
    widths = []
    for x in (1e-3, 1e-2):
        rows, columns = changed(AXES, [1e-3, 1e-2], [1.0, 1.0], [True, True], [0.8, 0.2])
        near = np.abs(columns - AXES.columns(x)) < 30
        widths.append(np.ptp(columns[near]) + 1)
    assert abs(widths[0] / widths[1] - 2) < 0.2  # the radius goes with the root
    rows, columns = changed(AXES, [1e-3, 1e-2], [1.0, 1.0], [True, True], [1.0, 0.0])
    smallest = np.ptp(columns[np.abs(columns - AXES.columns(1e-2)) < 30])
    assert 3 <= smallest <= 8  # a share of 0 is still seen


def test_the_gray_of_a_place_grows_with_the_dots_that_meet_there():
    rows, columns = (int(np.rint(place)) for place in (AXES.rows(1.0), AXES.columns(0.01)))
    x, y = [0.01, *[0.1] * 1000], [1.0] * 1001
    one = pixels(scatter(AXES, x, y, [False] * 1001, labels=LABELS))
    assert one[rows, columns].sum() > one[rows, int(np.rint(AXES.columns(0.1)))].sum() + 100


def test_curves_pass_through_their_points_and_stop_at_the_upper_limit():
    x = np.geomspace(1e-4, 1.0, 50)
    picture = pixels(scatter(AXES, [], [], [], labels=LABELS, curves=[(x, 1 / x, "1/x")]))
    dark = picture.sum(2) < 250
    assert dark[int(AXES.rows(20.0)), int(AXES.columns(0.05))]
    assert dark[int(AXES.rows(2.0)), int(AXES.columns(0.5))]
    assert not dark[TOP - 3 : TOP + 3, LEFT + 5 : int(AXES.columns(8e-4))].any()  # y above 1000


def test_the_second_curve_is_told_from_the_first_without_its_color():
    x, y = np.array([1e-4, 1.0]), np.array([0.5, 0.5])
    curves = [(x, 2 * y, "one"), (x, y, "two")]
    picture = pixels(scatter(AXES, [], [], [], labels=LABELS, curves=curves))
    solid, dashed = (
        (picture[int(np.rint(AXES.rows(height))), LEFT + 2 : PIXELS - RIGHT].sum(1) < 600).mean()
        for height in (1.0, 0.5)
    )
    assert solid == 1 and 0.5 < dashed < 0.8


def test_the_upright_stands_at_its_x_and_its_label_stays_inside():
    for x in (1e-3, 0.9):
        plain = pixels(scatter(AXES, [], [], [], labels=LABELS))
        lined = pixels(scatter(AXES, [], [], [], labels=LABELS, line=(x, "a long label")))
        rows, columns = np.abs(plain - lined).sum(2).nonzero()
        assert np.abs(np.median(columns[rows < TOP + 200]) - AXES.columns(x)) <= 1
        assert columns.min() > LEFT and columns.max() < PIXELS - RIGHT
    outside = scatter(AXES, [], [], [], labels=LABELS, line=(1e-5, "beyond"))
    assert outside == scatter(AXES, [], [], [], labels=LABELS)


@pytest.mark.parametrize(
    ("x", "y", "chosen", "shares", "sentence"),
    [
        ([1.0, 2.0], [1.0], [True], None, r"must be \(n,\)"),
        ([[1.0]], [[1.0]], [[True]], None, r"must be \(n,\)"),
        ([-1.0], [1.0], [True], None, "x from 0 up"),
        ([np.nan], [1.0], [True], None, "x from 0 up"),
        ([np.inf], [1.0], [True], None, "x from 0 up"),
        ([1.0], [0.0], [True], None, "y above 0"),
        ([1.0], [np.nan], [True], None, "y above 0"),
        ([1.0, 2.0], [1.0, 1.0], [True, False], [0.5, 0.5], "1 dots are chosen"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_sentence(x, y, chosen, shares, sentence):
    with pytest.raises(ValueError, match=sentence):
        scatter(AXES, x, y, chosen, shares, labels=LABELS)


@pytest.mark.parametrize("limits", [(0, 1), (1, 1), (2, 1), (1, np.inf), (np.nan, 1)])
def test_limits_that_do_not_rise_are_refused(limits):
    with pytest.raises(ValueError, match="must be positive and rise"):
        Axes(limits, (1, 10), "x", "y")


def test_26560_dots_are_drawn_fast_enough_for_a_toggle():
    x = np.geomspace(1e-4, 1.0, 26560)
    chosen = np.arange(26560) < 2048
    shares = x[chosen] / x[chosen].sum()
    times = []
    for _ in range(7):
        start = time.process_time()
        scatter(AXES, x, 1 / x, chosen, shares, labels=LABELS)
        times.append(time.process_time() - start)
    assert min(times) < 0.1  # about 0.02 s; matplotlib's savefig alone takes 0.15
