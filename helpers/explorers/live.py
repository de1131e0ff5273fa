"""What every explorer does with events: tell the reader's from its own, and drop stale ones."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import contextmanager
from html import escape

import ipywidgets as W

PATIENCE = 0.02  # seconds to wait for a later event, which makes this one stale


class Live:
    """Base of the explorers. `message` is the sentence about the latest bad input."""

    def __init__(self, name: str):
        self._following = True  # whether a change of a control is the reader's
        self._pending: dict[Callable, asyncio.TimerHandle] = {}
        self._drawing = threading.RLock()  # JupyterLab's events may come in several threads
        self._name = name  # before "-error", the CSS class of the message
        self._error = W.HTML()
        self._say("")

    @property
    def message(self) -> str:
        return self._error.value

    @contextmanager
    def _not_following(self):
        """Set controls without taking that for the reader's doing."""
        before, self._following = self._following, False
        try:
            yield
        finally:
            self._following = before

    def _soon(self, draw: Callable[[], None]) -> None:
        """Call `draw` once it has not been asked for again for a moment: of a burst, the last wins.

        One such call runs at a time.
        """

        def alone():
            with self._drawing:
                draw()

        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # no loop, no bursts
            return alone()
        self._not_now(draw)
        self._pending[draw] = loop.call_later(PATIENCE, alone)

    def _not_now(self, draw: Callable[[], None]) -> None:
        """Forget a call that `_soon` was asked for."""
        if (pending := self._pending.pop(draw, None)) is not None:
            pending.cancel()

    def _say(self, text: str) -> None:
        warning = f"<strong>Not shown:</strong> {escape(text)}" if text else ""
        self._error.value = f'<div class="{self._name}-error" role="status">{warning}</div>'
