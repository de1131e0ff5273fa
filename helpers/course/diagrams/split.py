"""A loss, split into what is mended and what remains."""

from collections.abc import Mapping

from helpers.figures import BLUE, ORANGE, figure


def split_picture(losses: Mapping[str, tuple[float, float]], mended_by: str):
    """Draw a stacked bar for each loss, (mended, remaining); return figure, description."""
    fig, axes = figure(height=1.9 + 0.5 * len(losses))
    parts = f"mended by {mended_by}", "remains"
    looks = {"color": BLUE}, {"color": "white", "edgecolor": ORANGE, "hatch": "///"}
    start = [0.0] * len(losses)
    for part, look, widths in zip(parts, looks, zip(*losses.values(), strict=True), strict=True):
        bars = axes.barh([*losses], widths, left=start, height=0.55, label=part, lw=1.5, **look)
        for bar, width in zip(bars, widths, strict=True):
            x, y = bar.get_x() + width / 2, bar.get_y() + bar.get_height() / 2
            box = {"facecolor": "white", "edgecolor": "none", "pad": 2}
            axes.text(x, y, f"{width:.2f}", ha="center", va="center", bbox=box)
        start = [a + b for a, b in zip(start, widths, strict=True)]
    axes.invert_yaxis()
    axes.set(xlabel="recall lost", xlim=(0, 1.05 * max(start)))
    axes.legend(ncols=2, frameon=False, loc="lower left", bbox_to_anchor=(0, 1))
    each = (
        f"{name}: {a + b:.2f}, of which {a:.2f} ({a / (a + b):.0%}) {parts[0]}, {b:.2f} {parts[1]}"
        for name, (a, b) in losses.items()
    )
    return fig, f"Recall lost. {'; '.join(' '.join(words.split()) for words in each)}."
