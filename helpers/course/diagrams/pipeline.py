"""The way through Faster R-CNN, from the image to the boxes."""

from collections.abc import Mapping

from torch import Tensor

from helpers.course.diagrams.canvas import Canvas
from helpers.figures import BLACK, BLUE, GREEN, ORANGE

GRAY = "#666666"
AFTER = "RoI heads", "boxes"
# part → its place, its color, what it does or is
PARTS = {
    "image": ((0.6, 0.36), BLACK, "RGB in 0–1"),
    "transform": ((1.9, 0.36), BLACK, "resize, pad"),
    **{f"C{n}": ((3.2, 0.72 * n - 1.08), BLUE, f"stride {2**n}") for n in (2, 3, 4, 5)},
    **{f"S{n}": ((4.4, 0.72 * n - 1.08), GRAY, "sum") for n in (2, 3, 4)},
    "S5": ((4.4, 2.52), GRAY, "1 × 1"),
    **{f"P{n}": ((5.6, 0.72 * n - 1.08), ORANGE, f"stride {2**n}") for n in (2, 3, 4, 5, 6)},
    "RPN": ((7.3, 2.52), GREEN, "reads P2–P6"),
    "proposals": ((7.3, 1.8), GREEN, "boxes"),
    "RoI heads": ((7.3, 1.08), GRAY, "read P2–P5"),
    "boxes": ((7.3, 0.36), GRAY, "with a class"),
}
ARROWS = (
    *(("image", "transform"), ("transform", "C2"), ("C2", "C3"), ("C3", "C4"), ("C4", "C5")),
    *((f"C{n}", f"S{n}") for n in (2, 3, 4, 5)),
    *((f"S{n}", f"P{n}") for n in (2, 3, 4, 5)),
    *(("S5", "S4"), ("S4", "S3"), ("S3", "S2"), ("P5", "P6"), ("P5", "RPN"), ("P3", "RoI heads")),
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
    boxes = {
        part: canvas.box(*place, f"{part}\n{said[part]}", color, dashed=part in AFTER, size=10)
        for part, (place, color, _) in PARTS.items()
    }
    for start, end in ARROWS:
        canvas.arrow(boxes[start], boxes[end])
    words = ", ".join(f"{part} ({words})" for part, words in said.items())
    return canvas.figure, f"Faster R-CNN from the image to its boxes: {words}."
