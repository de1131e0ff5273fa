"""Boxes, arrows and words on an empty figure."""

from matplotlib.text import Text

from helpers.figures import BLACK, figure


class Canvas:
    """An empty figure without axes, `width` by `height` units; `inches` high."""

    def __init__(self, width: float, height: float, inches: float = 2.7):
        self.figure, self.axes = figure(height=inches)
        self.axes.set_axis_off()
        self.axes.set(xlim=(0, width), ylim=(0, height))

    def words(self, x: float, y: float, text: str, color=BLACK, size: int = 11, align="center"):
        """Write `text` at (x, y)."""
        return self.axes.text(x, y, text, color=color, fontsize=size, ha=align, va="center")

    def box(self, x: float, y: float, text: str, color=BLACK, dashed: bool = False, size: int = 11):
        """Draw a box around `text`, centered at (x, y); an arrow can begin or end at it."""
        written, line = self.words(x, y, text, color, size), (0, (3, 2)) if dashed else "-"
        written.set_bbox(dict(boxstyle="round,pad=0.4", fc="white", ec=color, lw=1.8, ls=line))
        return written

    def arrow(self, start: Text | tuple, end: Text | tuple, color=BLACK):
        """Draw an arrow between two boxes, from edge to edge, or between points (x, y)."""
        (tail, patch_a), (tip, patch_b) = (
            (at.get_position(), at.get_bbox_patch()) if isinstance(at, Text) else (at, None)
            for at in (start, end)
        )
        style = {"arrowstyle": "-|>", "color": color, "lw": 1.3}
        style |= {"patchA": patch_a, "patchB": patch_b}
        self.axes.annotate("", tip, tail, arrowprops=style)
