"""Exercises on what normalization and NMS cost."""

from collections.abc import Callable, Sequence

from helpers.course.checkers.task import RETURNS_NOTHING, Task, Verdict, is_empty

FLOAT16, FLOAT32 = 2, 4  # bytes


def _same_numbers(
    cases: Sequence[tuple],
    right: Callable,
    praise: str,
    mistakes: tuple[tuple[str, Callable], ...],
    form: str,
) -> Callable[[Callable], Verdict]:
    """A checker of functions that map each of `cases`, a tuple of arguments, to numbers.

    It compares with the formula `right`, and with the wrong ones, each after what to say of it;
    `form` says what is to be returned.
    """

    def numbers(answer) -> list[float]:
        return [float(value) for value in (answer if isinstance(answer, list) else [answer])]

    def checker(attempt) -> Verdict:
        answers = [attempt(*case) for case in cases]
        if all(is_empty(answer) for answer in answers):
            return RETURNS_NOTHING
        wanted = [numbers(right(*case)) for case in cases]
        try:
            given = [numbers(answer) for answer in answers]
        except (TypeError, ValueError):
            return Verdict(False, f"return {form}.")
        if [len(one) for one in given] != [len(one) for one in wanted]:
            return Verdict(False, f"return {form}.")

        def follow(formula) -> bool:
            return all(
                abs(a - b) <= 1e-6 * abs(b)
                for case, one in zip(cases, given, strict=True)
                for a, b in zip(one, numbers(formula(*case)), strict=True)
            )

        if follow(right):
            return Verdict(True, praise)
        for mistake, formula in mistakes:
            if follow(formula):
                return Verdict(False, mistake)
        number = next(n for n, one in enumerate(given) if one != wanted[n])
        shown, meant = (", ".join(f"{v:.6g}" for v in row[number]) for row in (given, wanted))
        arguments = ", ".join(str(argument) for argument in cases[number])
        return Verdict(False, f"for {arguments} the answer is {meant}, and yours is {shown}.")

    return checker


def _moved(elements: int) -> int:
    return elements * (FLOAT16 + FLOAT32 + FLOAT32 + FLOAT32)


def _speedup(share: float, loop: bool) -> float:
    return 1 / (1 - share / 2) if loop else 1.0


def _shown(parts: Sequence[tuple[float, float, bool]]) -> list[float]:
    clock = gpu = 0.0
    found = []
    for launch, work, waits in parts:
        start = clock
        clock += launch
        gpu = max(gpu, clock) + work
        if waits:
            clock = max(clock, gpu)
        found.append(clock - start)
    return found


def _each_waits_for_itself(parts) -> list[float]:
    return [launch + work if waits else launch for launch, work, waits in parts]


def _gpu_is_never_idle(parts) -> list[float]:
    clock = gpu = 0.0
    found = []
    for launch, work, waits in parts:
        start = clock
        clock += launch
        gpu += work
        if waits:
            clock = max(clock, gpu)
        found.append(clock - start)
    return found


_PARTS = (
    [(5.0, 28.0, False), (4.0, 12.0, True), (8.0, 20.0, True)],
    [(5.0, 1.0, False), (5.0, 1.0, False), (1.0, 1.0, True)],
    [(2.0, 3.0, True), (2.0, 9.0, False), (2.0, 0.5, False)],
)

TASKS: dict[str, Task] = {
    "07-bytes": Task(
        "Count the bytes",
        difficulty=2,
        minutes=1,
        checker=_same_numbers(
            [(1000,), (8 * 256 * 56 * 56,)],
            _moved,
            "14 for each element, where BatchNorm2d in eval mode moves 4.",
            (
                (
                    "everything is counted as float16: float16 times a float32 scale is float32.",
                    lambda n: 8 * n,
                ),
                (
                    "everything is counted as float32: x is read as float16.",
                    lambda n: 16 * n,
                ),
                (
                    "the product of the first kernel is missing: it is written, and read again.",
                    lambda n: 6 * n,
                ),
                (
                    "the product is counted once: one kernel writes it, and the next one reads it.",
                    lambda n: 10 * n,
                ),
                (
                    "this is BatchNorm2d: one kernel, which reads float16 and writes float16.",
                    lambda n: 4 * n,
                ),
                ("the output is float32: nothing casts it back.", lambda n: 12 * n),
            ),
            "one number of bytes",
        ),
        hints=(
            "Two kernels: `x * scale` and `… + shift`. Write down what each reads and what it "
            "writes, with the dtype of each of the four.",
            "The common error is the dtype of the product: `scale` is float32, so the product and "
            "all that follows it are, too.",
        ),
        solution="""\
def moved(elements):
    return elements * (2 + 4 + 4 + 4)
""",
    ),
    "07-halve": Task(
        "Halve the classes",
        difficulty=1,
        minutes=1,
        checker=_same_numbers(
            [(0.16, True), (0.16, False), (0.5, True), (0.01, True)],
            _speedup,
            "1.09 times at a share of 16 %, by the loop; by the trick there is nothing to gain.",
            (
                (
                    "by the trick nothing is gained: all classes are one call, over as many boxes.",
                    lambda share, loop: _speedup(share, True),
                ),
                (
                    "half the classes leave half of NMS, not none of it.",
                    lambda share, loop: 1 / (1 - share) if loop else 1.0,
                ),
                (
                    "this is the time that is left: a speedup is 1 divided by that.",
                    lambda share, loop: 1 / _speedup(share, loop),
                ),
                (
                    "the share is added: 1 − share / 2 is left, and the speedup its inverse.",
                    lambda share, loop: 1 + share / 2 if loop else 1.0,
                ),
                (
                    "this is how many times as fast NMS is; the rest of the pass is as it was.",
                    lambda share, loop: 2.0 if loop else 1.0,
                ),
            ),
            "one number, 1 for no gain",
        ),
        hints=(
            "Take a pass of 1. How much of it is left when NMS takes half its time?",
            "The common error is to forget the way: by the trick, the number of boxes counts, and "
            "it stays.",
        ),
        solution="""\
def speedup(share, loop):
    return 1 / (1 - share / 2) if loop else 1.0
""",
    ),
    "07-profile": Task(
        "What a profile really says",
        difficulty=3,
        minutes=2,
        checker=_same_numbers(
            [(parts,) for parts in _PARTS],
            _shown,
            "whoever waits first pays for all that was queued.",
            (
                (
                    "these are the GPU's times: a part that does not wait shows its launch alone.",
                    lambda parts: [work for _, work, _ in parts],
                ),
                (
                    "these are the launches: a part that waits shows what the GPU still has to do.",
                    lambda parts: [launch for launch, _, _ in parts],
                ),
                (
                    "each part waits for its own work alone. The GPU works in order: who waits, "
                    "waits for all that was queued before.",
                    _each_waits_for_itself,
                ),
                (
                    "the GPU starts before it is told to: work begins when it has been launched, "
                    "and all before it is done.",
                    _gpu_is_never_idle,
                ),
                (
                    "every part waits here, though some do not: look at `waits`.",
                    lambda parts: _shown([(launch, work, True) for launch, work, _ in parts]),
                ),
            ),
            "a list with one number for each part",
        ),
        hints=(
            "Keep two clocks: the CPU's, which a timer reads, and the time at which the GPU will "
            "have done all that is queued.",
            "The common error is the start of a part's work: it begins when it has been launched "
            "and the GPU is free, so at the later of the two clocks.",
        ),
        solution="""\
def shown(parts):
    clock = gpu = 0.0
    found = []
    for launch, work, waits in parts:
        start = clock
        clock += launch
        gpu = max(gpu, clock) + work
        if waits:
            clock = max(clock, gpu)
        found.append(clock - start)
    return found
""",
    ),
}
