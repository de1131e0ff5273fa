"""Plausible wrong attempts at the exercises on costs, each with words of the answer."""


def each_by_itself(parts):
    return [launch + work if waits else launch for launch, work, waits in parts]


def no_idle_gpu(parts):
    clock = gpu = 0.0
    found = []
    for launch, work, waits in parts:
        start, clock, gpu = clock, clock + launch, gpu + work
        clock = max(clock, gpu) if waits else clock
        found.append(clock - start)
    return found


def all_wait(parts):
    return [launch + work for launch, work, _ in parts]


WRONG = {
    "07-bytes": [
        (lambda n: 8 * n, "counted as float16"),
        (lambda n: 16 * n, "counted as float32"),
        (lambda n: 6 * n, "written, and read again"),
        (lambda n: 10 * n, "counted once"),
        (lambda n: 4 * n, "this is BatchNorm2d"),
        (lambda n: 12 * n, "nothing casts it back"),
        (lambda n: 14 * n / 2**20, "for 1000 the answer is 14000"),
        (lambda n: f"{14 * n} bytes", "one number"),
        (lambda n: [n, 14 * n], "one number"),
    ],
    "07-halve": [
        (lambda share, loop: 1 / (1 - share / 2), "by the trick nothing is gained"),
        (lambda share, loop: 1 / (1 - share) if loop else 1, "not none of it"),
        (lambda share, loop: 1 - share / 2 if loop else 1, "the time that is left"),
        (lambda share, loop: 1 + share / 2 if loop else 1, "the share is added"),
        (lambda share, loop: 2 if loop else 1, "how many times as fast NMS is"),
        (lambda share, loop: share, "for 0.16, True the answer is 1.08696, and yours is 0.16"),
    ],
    "07-profile": [
        (lambda parts: [work for _, work, _ in parts], "the GPU's times"),
        (lambda parts: [launch for launch, _, _ in parts], "these are the launches"),
        (each_by_itself, "waits for all that was queued before"),
        (no_idle_gpu, "before it is told to"),
        (all_wait, "every part waits here"),
        (lambda parts: 49.0, "a list with one number for each part"),
        (lambda parts: [1.0 for _ in parts], "the answer is 5, 40, 28"),
    ],
}
