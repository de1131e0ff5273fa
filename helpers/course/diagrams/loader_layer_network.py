"""An image's way from the loader through the first layers: what is done, which values come out."""

from collections.abc import Mapping

from torch import Tensor

from helpers.course.diagrams.canvas import Canvas
from helpers.figures import BLUE, ORANGE
from helpers.text import short

BOXES = {  # name → the middle, half of the width, what it does
    "loader": (1.65, 0.72, "÷ 255\n− mean, ÷ std"),
    "Rescale": (3.63, 0.66, "× 255 · std\n+ 255 · mean"),
    "BatchNorm": (5.6, 0.77, "− running_mean\n÷ √running_var"),
    "network": (7.45, 0.45, ""),
}
LEVELS = 20  # a range this wide is of levels, and drawn in their color


def loader_layer_network(file: Tensor, after: Mapping[str, Tensor]):
    """Draw the way of an image from its file to the network; return figure and description.

    `file` holds its levels; `after` what each of the loader, `Rescale` and `BatchNorm` gives.
    """
    canvas = Canvas(8, 1.7, inches=1.8)
    row, start, said = 0.75, 0.1, []
    passing = {"file": file, **after}
    for (source, values), (name, box) in zip(passing.items(), BOXES.items(), strict=True):
        middle, half, does = box
        ends = values.aminmax()
        low, high = (short(round(end.item(), 2)).replace("-", "−") for end in ends)
        color, end = ORANGE if ends.max - ends.min > LEVELS else BLUE, middle - half
        canvas.arrow((start, row), (end, row), color)
        canvas.words((start + end) / 2, row + 0.4, f"{low}\nto {high}", color)
        canvas.box(middle, row, f"{name}\n{does}".rstrip())
        said.append(f"from {source}: {low} to {high}")
        start = middle + half
    return canvas.figure, f"The values of one image on their way. {'; '.join(said)}."
