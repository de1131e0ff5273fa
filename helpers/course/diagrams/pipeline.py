"""The way through Faster R-CNN, from the image to the boxes."""

from collections.abc import Mapping

from torch import Tensor

from helpers.course.diagrams.canvas import Canvas
from helpers.figures import BLACK, BLUE, GREEN, ORANGE

GRAY = "#666666"
# part → its place, its color, what it does or is
PARTS = {
    "image": ((0.6, 0.36), BLACK, "RGB in 0–1"),
    "transform": ((1.9, 0.36), BLACK, "resize, pad"),
    **{f"C{n}": ((3.25, 0.72 * n - 1.08), BLUE, f"stride {2**n}") for n in (2, 3, 4, 5)},
    **{f"P{n}": ((4.65, 0.72 * n - 1.08), ORANGE, f"stride {2**n}") for n in (2, 3, 4, 5, 6)},
    "RPN": ((6.0, 2.52), GREEN, "reads P2–P6"),
    "proposals": ((7.35, 2.52), GREEN, "boxes"),
    "RoI heads": ((7.35, 1.44), GRAY, "read P2–P5"),
    "boxes": ((7.35, 0.36), GRAY, "with a class"),
}
ARROWS = (
    *(("image", "transform"), ("transform", "C2"), ("C2", "C3"), ("C3", "C4"), ("C4", "C5")),
    *((f"C{n}", f"P{n}") for n in (2, 3, 4, 5)),
    *(("P5", "P6"), ("P5", "P4"), ("P4", "P3"), ("P3", "P2"), ("P4", "RPN"), ("P3", "RoI heads")),
    *(("RPN", "proposals"), ("proposals", "RoI heads"), ("RoI heads", "boxes")),
)


def pipeline_diagram(tensors: Mapping[str, Tensor] | None = None):
    """Draw the parts from image to boxes; return figure, description.

    Below the names of `tensors` stand their shapes, without a batch of one.
    """
    canvas = Canvas(8, 3.7, inches=3.9)
    said = {part: role for part, (_, _, role) in PARTS.items()}
    for part, tensor in (tensors or {}).items():
        said[part] = " × ".join(map(str, tensor.shape[tensor.ndim == 4 :]))
    for part, (place, color, _) in PARTS.items():
        canvas.box(*place, f"{part}\n{said[part]}", color, dashed=color == GRAY, size=10)
    for start, end in ARROWS:
        (x, y), (to_x, to_y) = PARTS[start][0], PARTS[end][0]
        right, up = (to_x > x) - (to_x < x), (to_y > y) - (to_y < y)
        if to_x == x:
            canvas.arrow((x, y + 0.26 * up), (to_x, to_y - 0.26 * up))
        else:
            canvas.arrow((x + 0.56 * right, y), (to_x - 0.56 * right, to_y))
    words = ", ".join(f"{part} ({words})" for part, words in said.items())
    return canvas.figure, f"Faster R-CNN from the image to its boxes: {words}."
