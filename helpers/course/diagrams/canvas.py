"""Boxes, arrows and words on an empty figure."""

from helpers.figures import BLACK, figure


class Canvas:
    """An empty figure without axes, `width` by `height` units; `inches` high."""

    def __init__(self, width: float, height: float, inches: float = 2.7):
        self.figure, self.axes = figure(height=inches)
        self.axes.set_axis_off()
        self.axes.set(xlim=(0, width), ylim=(0, height))

    def box(self, x: float, y: float, text: str, color=BLACK, dashed: bool = False, size: int = 11):
        """Draw a box around `text`, centered at (x, y)."""
        look = {"boxstyle": "round,pad=0.4", "fc": "white", "ec": color, "lw": 1.8}
        look["ls"] = (0, (3, 2)) if dashed else "-"
        place = {"ha": "center", "va": "center"}
        return self.axes.text(x, y, text, color=color, bbox=look, fontsize=size, **place)

    def arrow(self, start: tuple[float, float], end: tuple[float, float], color=BLACK):
        """Draw an arrow between two points."""
        style = {"arrowstyle": "-|>", "color": color, "lw": 1.3}
        self.axes.annotate("", end, start, arrowprops=style)

    def words(self, x: float, y: float, text: str, color=BLACK, size: int = 11, align="center"):
        """Write `text` at (x, y)."""
        self.axes.text(x, y, text, color=color, fontsize=size, ha=align, va="center")
