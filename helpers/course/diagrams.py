"""Diagrams: what a formula or a network is made of; each function returns figure and description.

They are drawn from the same words that describe them.
"""

from collections.abc import Sequence

from helpers.figures import BLACK, BLUE, ORANGE, figure

KEPT = "in the checkpoint, one number a channel"
LOST = "only in the layer, one number for all"
# step → its parts and whether a checkpoint holds them
FORMULA = (
    ("− running_mean", {"running_mean": True}),
    ("÷ √(running_var + eps)", {"running_var": True, "eps": False}),
    ("× weight", {"weight": True}),
    ("+ bias", {"bias": True}),
)


def formula_diagram(steps: Sequence[tuple[str, dict[str, bool]]] = FORMULA):
    """Draw BatchNorm with running statistics: from x to y by its steps, and below them the parts.

    Parts that a checkpoint holds stand in solid boxes, the others in dashed ones.
    """
    fig, axes = figure(height=2.7)
    axes.set_axis_off()
    axes.set(xlim=(0, 8), ylim=(0.1, 2.6))

    def box(x, y, text, color=BLACK, dashed=False):
        look = {"boxstyle": "round,pad=0.4", "fc": "white", "ec": color, "lw": 1.8}
        look["ls"] = (0, (3, 2)) if dashed else "-"
        return axes.text(x, y, text, ha="center", va="center", color=color, bbox=look, fontsize=11)

    def arrow(start, end):
        axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": BLACK, "lw": 1.3})

    places = 1.25, 3.35, 5.2, 6.6
    row, ends = 2.15, (0.15, *places, 7.85)
    axes.text(ends[0], row, "x", ha="center", va="center", fontsize=13)
    axes.text(ends[-1], row, "y", ha="center", va="center", fontsize=13)
    reach = [0.1, *(0.04 * len(text) + 0.17 for text, _ in steps), 0.1]
    for left, right, a, b in zip(ends, ends[1:], reach, reach[1:], strict=False):
        arrow((left + a, row), (right - b, row))
    for place, (text, parts) in zip(places, steps, strict=True):
        box(place, row, text)
        for number, (part, kept) in enumerate(parts.items()):
            x = place + 1.3 * (number - (len(parts) - 1) / 2)
            box(x, 1.2, part, BLUE if kept else ORANGE, not kept)
            arrow((x, 1.42), (place + 0.4 * (x - place), 1.9))
    keys = (0.2, BLUE, "solid", KEPT), (4.3, ORANGE, "dashed", LOST)
    for x, color, line, words in keys:
        axes.text(x, 0.4, f"{line}: {words}", color=color, va="center", fontsize=11)
    stored = {part: held for _, parts in steps for part, held in parts.items()}
    held = ", ".join(part for part in stored if stored[part])
    lacking = ", ".join(part for part in stored if not stored[part])
    chain = ", then ".join(text for text, _ in steps)
    return fig, (
        f"BatchNorm with running statistics, from x to y: {chain}. "
        f"{held}: {KEPT}. {lacking}: {LOST}."
    )
