"""What every explorer does with events, also when they come in several threads."""

import asyncio
import threading
import time

from helpers.course.explorers.live import PATIENCE, Live


def test_two_drawings_never_overlap():
    explorer, inside, most = Live("test"), [], []

    def draw():
        inside.append(1)
        most.append(len(inside))
        time.sleep(5 * PATIENCE)
        inside.pop()

    async def event():
        explorer._soon(lambda: draw())
        await asyncio.sleep(20 * PATIENCE)

    threads = [threading.Thread(target=asyncio.run, args=(event(),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1]


def test_of_a_burst_the_last_wins_and_another_drawing_stays():
    explorer, drawn = Live("test"), []
    first, second = (lambda: drawn.append("first")), (lambda: drawn.append("second"))

    async def burst():
        for draw in (first, second, first):
            explorer._soon(draw)
        await asyncio.sleep(5 * PATIENCE)
        explorer._soon(first)
        explorer._not_now(first)
        await asyncio.sleep(5 * PATIENCE)

    asyncio.run(burst())
    assert sorted(drawn) == ["first", "second"]
