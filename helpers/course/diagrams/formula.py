"""The formula of BatchNorm with running statistics: its steps, and where its parts are kept."""

from itertools import pairwise

from helpers.course.diagrams.canvas import Canvas
from helpers.figures import BLUE, ORANGE

KEPT = "in the checkpoint, one number a channel"
LOST = "only in the layer, one number for all"
# step → its parts and whether a checkpoint holds them
FORMULA = (
    ("− running_mean", {"running_mean": True}),
    ("÷ √(running_var + eps)", {"running_var": True, "eps": False}),
    ("× weight", {"weight": True}),
    ("+ bias", {"bias": True}),
)


def formula_diagram():
    """Draw the way from x to y by its steps, and below them the parts; return figure, description.

    Parts that a checkpoint holds stand in solid boxes, the others in dashed ones.
    """
    canvas, row, steps = Canvas(8, 2.5), 2.05, []
    canvas.words(0.15, row, "x", size=13)
    canvas.words(7.85, row, "y", size=13)
    for place, (text, parts) in zip((1.25, 3.35, 5.2, 6.6), FORMULA, strict=True):
        steps.append(canvas.box(place, row, text))
        for number, (part, kept) in enumerate(parts.items()):
            x = place + 1.3 * (number - (len(parts) - 1) / 2)
            canvas.box(x, 1.1, part, BLUE if kept else ORANGE, not kept)
            canvas.arrow((x, 1.32), (place + 0.4 * (x - place), 1.8))
    for start, end in pairwise([(0.25, row), *steps, (7.75, row)]):
        canvas.arrow(start, end)
    for x, color, line, words in (0.2, BLUE, "solid", KEPT), (4.3, ORANGE, "dashed", LOST):
        canvas.words(x, 0.3, f"{line}: {words}", color, align="left")
    stored = {part: held for _, parts in FORMULA for part, held in parts.items()}
    held = ", ".join(part for part in stored if stored[part])
    lacking = ", ".join(part for part in stored if not stored[part])
    chain = ", then ".join(text for text, _ in FORMULA)
    return canvas.figure, (
        f"BatchNorm with running statistics, from x to y: {chain}. "
        f"{held}: {KEPT}. {lacking}: {LOST}."
    )
