"""What every explorer does: tell the reader's events from its own, drop stale ones, show itself."""

import asyncio
import base64
import threading
from collections.abc import Callable
from contextlib import contextmanager
from html import escape

import ipywidgets as W
from IPython.display import display

PATIENCE = 0.02  # seconds to wait for a later event, which makes this one stale
UNTOUCHED = "Change a control below, and this frame shows it live."


class Live:
    """Base of the explorers. `message` is the sentence about the latest bad input.

    A subclass has a `box` of widgets, and what stands in for it where widgets cannot run: a `text`
    and, unless None, a picture, `png`.
    """

    box: W.Box
    text: str
    png: bytes | None = None

    def __init__(self, name: str):
        self._following = True  # whether a change of a control is the reader's
        self._pending: dict[Callable, asyncio.TimerHandle] = {}
        self._drawing = threading.RLock()  # JupyterLab's events may come in several threads
        self._name = name  # before "-error", the CSS class of the message
        self._error = W.HTML()
        self._say("")

    @property
    def message(self) -> str:
        """The HTML of the sentence about the latest bad input; empty of words after good input."""
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

    def _ipython_display_(self) -> None:
        # A widget's own text names the model, and differs with every run.
        data, metadata = {**self.box._repr_mimebundle_(), "text/plain": self.text}, {}
        if self.png is not None:
            data["image/png"] = base64.b64encode(self.png).decode()
            metadata["image/png"] = {"alt": self.text}
        display(data, metadata=metadata, raw=True)


def source(png: bytes) -> str:
    """What an <img> shows."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def frame(name: str, alt: str, png: bytes | None, sentence: str) -> str:
    """The HTML of a picture with its sentence below; without a picture, the sentence in its place.

    Either takes the same room. `name`, before "-picture" and "-sentence", is the explorer's.
    """
    words = escape(sentence)
    if png is None:
        return f'<div class="{name}-picture">{words}</div><div class="{name}-sentence"></div>'
    # The sentence stands below: as the alt text, a screen reader would read it twice.
    image = f'<img class="{name}-picture" alt="{alt}" src="{source(png)}">'
    return f'{image}<div class="{name}-sentence" role="status">{words}</div>'
