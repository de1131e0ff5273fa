"""Where the numbers come from that a BatchNorm layer with fixed weights divides by."""

from helpers.course.diagrams.canvas import Canvas
from helpers.figures import BLACK, BLUE, GREEN, ORANGE

READINGS = (  # from which images, how, and the name of what comes out
    ("the batches of training,\nB images each", "each moves it by momentum", "moving average"),
    ("256 other images,\nin batches of 64", "weights fixed, plain average", "recalibrated"),
    ("the test image", "no average at all", "each image's own"),
)
COLORS = (ORANGE, BLUE, GREEN)
LAYER = "(x − mean) / √(var + eps)\n× weight + bias"


def readings_diagram():
    """Draw a row per source of mean and var, all into one layer; return figure, description."""
    canvas = Canvas(8, 3)
    canvas.box(6.75, 1.5, LAYER)
    canvas.words(6.75, 0.75, "the same weights, three ways")
    for (images, how, name), color, y in zip(READINGS, COLORS, (2.6, 1.5, 0.4), strict=True):
        canvas.box(1.15, y, images)
        canvas.arrow((2.15, y), (3.3, y), color)
        canvas.box(4.1, y, name, color)
        canvas.words(3.3, y - 0.4, how, color)
        canvas.arrow((4.95, y), (5.5, 1.5 + 0.15 * (y - 1.5)), BLACK)
    words = "; ".join(f"{name}: {' '.join(i.split())}, {how}" for i, how, name in READINGS)
    return canvas.figure, f"Three sources of mean and var for one layer, weights fixed. {words}."
