"""The exercise on what a timer shows."""

from collections.abc import Sequence

from helpers.course.checkers.checker import same_values


def shown(parts: Sequence[tuple[float, float, bool]], gpu_idles: bool = True) -> list[float]:
    """What a timer on the CPU shows for each part; wrong if the GPU never waits for a launch."""
    clock = gpu = 0.0
    times = []
    for launch, work, waits in parts:
        start = clock
        clock += launch
        gpu = (max(gpu, clock) if gpu_idles else gpu) + work
        if waits:
            clock = max(clock, gpu)
        times.append(clock - start)
    return times


CHECKERS = {
    "11-profile": same_values(
        [
            ([(5.0, 28.0, False), (4.0, 12.0, True), (8.0, 20.0, True)],),
            ([(5.0, 1.0, False), (5.0, 1.0, False), (1.0, 1.0, True)],),
            ([(2.0, 3.0, True), (2.0, 9.0, False), (2.0, 0.5, False)],),
        ],
        shown,
        praise="whoever waits first pays for all that was queued.",
        mistakes={
            "these are the GPU's times: a part that does not wait shows its launch "
            "alone.": lambda parts: [work for _, work, _ in parts],
            "each part waits for its own work alone. The GPU works in order: who waits, waits for "
            "all that was queued before.": lambda parts: [
                launch + work if waits else launch for launch, work, waits in parts
            ],
            "the GPU starts before it is told to: work begins when it has been launched, and all "
            "before it is done.": lambda parts: shown(parts, gpu_idles=False),
        },
        wrong={
            "return a list of 3 numbers, not one number": lambda parts: 49.0,
            "True)] the answer, value 1 of 3, is 5, and yours is 33": lambda parts: [
                launch + work for launch, work, _ in parts
            ],
        },
    )
}
