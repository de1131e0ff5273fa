"""Exercises on what normalization and NMS cost."""

from collections.abc import Sequence

from helpers.course.checkers.checker import same_values

FLOAT16, FLOAT32 = 2, 4  # bytes


def moved(elements: int) -> int:
    return elements * (FLOAT16 + FLOAT32 + FLOAT32 + FLOAT32)


def speedup(share: float, loop: bool) -> float:
    return 1 / (1 - share / 2) if loop else 1.0


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
    "11-bytes": same_values(
        [(1000,), (8 * 256 * 56 * 56,)],
        moved,
        praise="14 for each element, where BatchNorm2d in eval mode moves 4.",
        mistakes={
            "all is counted as float16: times a float32 scale it is float32.": lambda n: 8 * n,
            "all is counted as float32: x is read as float16.": lambda n: 16 * n,
            "the product is missing: it is written, and read again.": lambda n: 6 * n,
            "the product is counted once: one kernel writes it, the next reads it.": lambda n: (
                10 * n
            ),
            "this is BatchNorm2d: one kernel that reads and writes float16.": lambda n: 4 * n,
            "the output is float32: nothing casts it back.": lambda n: 12 * n,
        },
        wrong={
            "for elements = 1000 the answer is 14000": lambda n: 14 * n / 2**20,
            "return one number, not a list of 2 numbers": lambda n: [n, 14 * n],
        },
    ),
    "11-halve": same_values(
        [(0.16, True), (0.16, False), (0.5, True), (0.01, True)],
        speedup,
        praise="1.09 times at a share of 16 %, by the loop; by the trick there is nothing to gain.",
        mistakes={
            "by the trick nothing is gained: all classes are one call, over as many "
            "boxes.": lambda share, loop: speedup(share, True),
            "half the classes leave half of NMS, not none of it.": lambda share, loop: (
                1 / (1 - share) if loop else 1.0
            ),
            "this is the time that is left: a speedup is 1 divided by that.": lambda share, loop: (
                1 / speedup(share, loop)
            ),
            "the share is added: 1 − share / 2 is left, and the speedup its "
            "inverse.": lambda share, loop: 1 + share / 2 if loop else 1.0,
            "this is how many times as fast NMS is; the rest of the pass is as it "
            "was.": lambda share, loop: 2.0 if loop else 1.0,
        },
        wrong={
            "for share = 0.16, loop = True the answer is 1.08696": lambda share, loop: share,
        },
    ),
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
            "these are the launches: a part that waits shows what the GPU still has to "
            "do.": lambda parts: [launch for launch, _, _ in parts],
            "each part waits for its own work alone. The GPU works in order: who waits, waits for "
            "all that was queued before.": lambda parts: [
                launch + work if waits else launch for launch, work, waits in parts
            ],
            "the GPU starts before it is told to: work begins when it has been launched, and all "
            "before it is done.": lambda parts: shown(parts, gpu_idles=False),
            "every part waits here, though some do not: look at `waits`.": lambda parts: [
                launch + work for launch, work, _ in parts
            ],
        },
        wrong={
            "return a list of 3 numbers, not one number": lambda parts: 49.0,
            "True)] the answer, value 1 of 3, is 5, and yours is 1": lambda parts: [1.0, 2.0, 3.0],
            "in place": lambda parts: [parts.pop()[0] for _ in range(3)],
        },
    ),
}
