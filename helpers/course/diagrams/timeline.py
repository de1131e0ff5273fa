"""Why a timer blames the wrong part: the CPU queues work, the GPU does it later."""

from helpers.figures import BLACK, BLUE, ORANGE, figure

# part → ms to launch it, ms of the GPU's work, whether the CPU then waits for the GPU
PARTS = {"backbone": (3.0, 14.0, False), "rpn": (3.0, 4.0, True), "heads": (3.0, 6.0, True)}


def timeline():
    """Draw when the CPU launches each part and waits, and when the GPU does its work.

    Returns the figure and its description, which says what a timer on the CPU shows.
    """
    fig, axes = figure(height=2.3)
    clock = gpu = 0.0
    shown = {}
    colors = BLUE, ORANGE, BLACK
    for (part, (launch, work, waits)), color in zip(PARTS.items(), colors, strict=True):
        start, launched = clock, clock + launch
        begun = max(gpu, launched)
        gpu = begun + work
        clock = max(launched, gpu) if waits else launched
        shown[part] = clock - start
        axes.barh("CPU", launch, left=start, color=color, edgecolor="white")
        axes.barh("CPU", clock - launched, left=launched, color="none", edgecolor=color, hatch="//")
        axes.barh("GPU", work, left=begun, color=color, edgecolor="white")
        axes.text(begun + work / 2, "GPU", part, ha="center", va="center", color="white")
    axes.invert_yaxis()
    axes.set_xlabel("ms; hatched: the CPU waits until the GPU is done", color=BLACK)
    truth = ", ".join(f"{part} {work:g}" for part, (_, work, _) in PARTS.items())
    timer = ", ".join(f"{part} {ms:g}" for part, ms in shown.items())
    return fig, f"The GPU works: {truth} ms. A timer on the CPU that does not wait: {timer} ms."
