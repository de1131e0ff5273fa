"""NmsExplorer: which boxes non-maximum suppression leaves, by class or not, and its stored cost."""

from typing import NamedTuple

from torchvision.ops import batched_nms, nms

from helpers.course.explorers.canvas import AXIS, Canvas, palette
from helpers.course.explorers.stored import Stored, dropdown
from helpers.course.stored.costs import devices, nms_ms
from helpers.figures import BLACK, BLUE, ORANGE
from helpers.implementations import CANDIDATES, CLASSES, IMAGE, candidates

HEIGHT = 400
SIDE = 330  # of the picture of an image of IMAGE px
LEFT, TOP = 10, 56
NUMBERS = 380  # left edge of what stands at the right, px
GONE = "#C9CDD1"
THRESHOLDS = (0.3, 0.5, 0.7)
WHAT_IT_IS = (
    "Random boxes of 16 to 256 px in an image of 800 px, the labels spread over the classes. Blue: "
    "kept per class; gray: suppressed by a box of their own class. The times are stored ones, at "
    "IoU 0.5; which boxes stay is computed here."
)


class State(NamedTuple):
    """How many candidates of how many classes; from which IoU on one suppresses another."""

    candidates: int = 300
    classes: int = 20
    iou: float = 0.5


PRESETS = {
    "1 class": State(300, 1),
    "20 classes": State(300, 20),
    "80 classes": State(300, 80),
    "1000 boxes": State(1000, 20),
    "IoU 0.3": State(300, 20, 0.3),
}


def picture(state: State) -> tuple[bytes, str]:
    """The boxes that stay and those that go, and numbers, as a palette PNG; a sentence.

    800 × 400 px. ValueError for an IoU outside of 0–1, and for what has no stored time.
    """
    if not 0 <= state.iou <= 1:
        raise ValueError(f"IoU {state.iou:g}: give a number from 0 to 1.")
    boxes, scores, labels = candidates(state.candidates, state.classes)
    per_class = batched_nms(boxes, scores, labels, state.iou)
    agnostic = nms(boxes, scores, state.iou)
    canvas = Canvas(HEIGHT, palette([(c, "#FFFFFF") for c in (BLACK, BLUE, ORANGE, GONE, AXIS)]))
    title = f"{state.candidates} candidates of {state.classes} class{'es' * (state.classes > 1)}"
    canvas.text(LEFT, 12, f"{title}, IoU {state.iou:g}", "lt", 15)
    canvas.text(LEFT, 34, "blue: kept, per class; gray: suppressed", "lt", 12)
    canvas.box(LEFT - 1, TOP - 1, LEFT + SIDE + 1, TOP + SIDE + 1, AXIS)
    canvas.box(LEFT, TOP, LEFT + SIDE, TOP + SIDE, "white")
    kept = set(per_class.tolist())
    for number in sorted(range(len(boxes)), key=kept.__contains__):
        _draw(canvas, boxes[number].tolist(), BLUE if number in kept else GONE)
    _draw_numbers(canvas, state, len(per_class), len(agnostic))
    return canvas.png(), _sentence(state, len(per_class), len(agnostic))


class NmsExplorer(Stored):
    """Boxes that non-maximum suppression leaves, by class and not; shows itself as a last line.

    FileNotFoundError if no device's costs are stored.
    """

    def __init__(self):
        devices()
        controls = [
            dropdown(list(CANDIDATES), "candidates", "12em", 300),
            dropdown(list(CLASSES), "classes", "10em", 1),
            dropdown(list(THRESHOLDS), "IoU", "8.5em", 0.5),
        ]
        super().__init__(
            "nms", PRESETS, controls, picture, HEIGHT, ("Boxes before and after NMS", WHAT_IT_IS)
        )


def _draw(canvas: Canvas, box: list[float], color: str) -> None:
    x, y, right, bottom = (SIDE * value / IMAGE for value in box)
    corners = [(x, y), (right, y), (right, bottom), (x, bottom), (x, y)]
    canvas.line([(LEFT + a, TOP + b) for a, b in corners], color, 0.8)


def _draw_numbers(canvas: Canvas, state: State, per_class: int, agnostic: int) -> None:
    y = TOP
    for words, count, color in (
        ("kept, each class by itself", per_class, BLUE),
        ("kept, without regard to the class", agnostic, ORANGE),
    ):
        canvas.text(NUMBERS, y, words, "lt")
        canvas.box(NUMBERS, y + 20, NUMBERS + 300 * count / state.candidates, y + 36, color)
        canvas.text(NUMBERS + 300 * count / state.candidates + 8, y + 28, str(count))
        y += 56
    canvas.text(NUMBERS, y + 8, "stored times at IoU 0.5, ms", "lt")
    for column, words in enumerate(("agnostic", "trick", "loop")):
        canvas.text(NUMBERS + 200 + 70 * column, y + 30, words, "rt", 12)
    y += 52
    for device in devices():
        canvas.text(NUMBERS, y, device[:22], "lt", 12)
        for column, ms in enumerate(nms_ms(device, state.candidates, state.classes).values()):
            canvas.text(NUMBERS + 200 + 70 * column, y, f"{ms:.3g}", "rt", 12)
        y += 20


def _sentence(state: State, per_class: int, agnostic: int) -> str:
    words = (
        f"{state.candidates} candidates, {state.classes} class{'es' * (state.classes > 1)}, IoU "
    )
    words += f"{state.iou:g}: {per_class} stay per class, {agnostic} without regard to the class. "
    times = []
    for device in devices():
        ms = nms_ms(device, state.candidates, state.classes)
        times.append(f"{device}: " + ", ".join(f"{way} {value:.3g}" for way, value in ms.items()))
    return words + f"Stored times at IoU 0.5, ms: {'; '.join(times)}."
