"""What every explorer does with events: tell the reader's from its own, and drop stale ones."""

import asyncio
from collections.abc import Callable
from contextlib import contextmanager
from html import escape

import ipywidgets as W

PATIENCE = 0.02  # seconds to wait for a later event, which makes this one stale


class Live:
    """Base of the explorers. `message` is the sentence about the latest bad input."""

    def __init__(self, name: str):
        self._following = True  # whether a change of a control is the reader's
        self._pending: asyncio.TimerHandle | None = None
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
        """Call `draw` once no further event has come for a moment: the last of a burst wins."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # no loop, no bursts
            return draw()
        if self._pending is not None:
            self._pending.cancel()
        self._pending = loop.call_later(PATIENCE, draw)

    def _say(self, text: str) -> None:
        warning = f"<strong>Not shown:</strong> {escape(text)}" if text else ""
        self._error.value = f'<div class="{self._name}-error" role="status">{warning}</div>'
