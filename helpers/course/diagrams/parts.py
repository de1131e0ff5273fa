"""Body, FPN and heads of a detector: what of them trains, and what normalizes them."""

from collections import Counter
from collections.abc import Mapping

from torch import nn

from helpers.course.diagrams.canvas import Canvas
from helpers.figures import BLUE, ORANGE
from helpers.norms import is_frozen, norm_layers

PARTS = {"body": "backbone.body", "FPN": "backbone.fpn", "RPN": "rpn", "box head": "roi_heads"}


def parts_of(detector: nn.Module) -> dict[str, tuple[float, float, Counter, bool]]:
    """Return part → millions of parameters that train and in all, its layers by class, all fixed.

    The last says whether no layer of the part has statistics that move in train mode.
    """
    parts = {}
    for part, path in PARTS.items():
        module = detector.get_submodule(path)
        layers = norm_layers(module).values()
        sizes = [(p.numel() / 1e6, p.requires_grad) for p in module.parameters()]
        trained = sum(size for size, trains in sizes if trains)
        kinds = Counter(type(layer).__name__ for layer in layers)
        parts[part] = trained, sum(size for size, _ in sizes), kinds, all(map(is_frozen, layers))
    return parts


def parts_diagram(detectors: Mapping[str, nn.Module]):
    """Draw a row of parts for each detector; dashed where statistics move. Figure, description."""
    canvas = Canvas(8, 1.9 * len(detectors), inches=1.6 * len(detectors))
    described = []
    for row, (name, detector) in enumerate(detectors.items()):
        y = 1.9 * (len(detectors) - row) - 1.15
        canvas.words(0.1, y + 0.85, name, align="left")
        for column, (part, (trained, size, kinds, fixed)) in enumerate(parts_of(detector).items()):
            layers = ", ".join(f"{n} {kind}" for kind, n in kinds.items()) or "no normalization"
            text = f"{part}\n{trained:.1f} of {size:.1f} M train\n{layers}"
            x = 1 + 2 * column
            canvas.box(x, y, text, BLUE if fixed else ORANGE, not fixed, size=10)
            if column:
                canvas.arrow((x - 1.1, y), (x - 0.9, y))
            described.append(f"{name}, {part}: {trained:.1f} of {size:.1f} M train, {layers}")
    return canvas.figure, f"{'; '.join(described)}. Dashed: statistics move in train mode."
