"""Base of the explorers with presets, dropdowns, and one picture for what they say."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import ipywidgets as W

from helpers.course.explorers import live
from helpers.course.explorers.live import UNTOUCHED, Live
from helpers.figures import PIXELS

NEEDS_KERNEL = (
    "The presets switch in the page alone. The controls below need a kernel: run the notebook "
    "first."
)
STYLE = """<style>
.{name}-explorer {{ max-width: {width}px; color: var(--jp-content-font-color1, inherit); }}
.{name}-explorer .widget-toggle-buttons {{ display: flex; margin-bottom: 6px; }}
.{name}-explorer .widget-toggle-buttons .widget-toggle-button {{ width: auto; }}
.{name}-explorer .widget-html {{ width: 100%; margin: 0; }}
.{name}-explorer .widget-html-content {{ flex: 1; }}
.{name}-explorer .{name}-picture {{ width: 100%; aspect-ratio: {width} / {height};
  display: block; }}
.{name}-explorer .{name}-sentence {{ line-height: 1.4; height: 5.6em; overflow: auto;
  margin: 6px 0; }}
.{name}-explorer .{name}-small {{ font-size: 0.85em; line-height: 1.4; opacity: 0.85; }}
.{name}-explorer .{name}-error {{ min-height: {error}em; line-height: 1.4; }}
.{name}-explorer .jupyter-widgets-disconnected::before {{ display: none; }}
.{name}-explorer.jupyter-widgets-disconnected::before {{ display: none; }}
</style>"""


class Stored(Live):
    """`controls`, dropdowns in the order of a state's parts, say which state is drawn as "custom".

    `presets`: name → state; each is drawn once. `draw`: state → palette PNG of `height` px and a
    sentence, or a ValueError, which becomes the message. Its text/plain holds the presets'
    sentences, and the first frame's picture stands in for the widgets where they cannot run.
    `state` is what the controls say, `frames` the presets' HTML and the live one, `message` the
    latest bad input.
    """

    error_height = 1.4  # em, so that an error moves nothing

    def __init__(
        self,
        name: str,
        presets: Mapping[str, tuple],
        controls: list[W.Dropdown],
        draw: Callable[[Any], tuple[bytes, str]],
        height: int,
        words: tuple[str, str],
        shown: list[W.Dropdown] | None = None,
    ):
        """`words`: the pictures' alt text, and a note below them.

        `shown`: the controls in the order of the page, if that is another.
        """
        super().__init__(name)
        alt, note = words
        self._presets, self.controls, self._picture_of = dict(presets), controls, draw
        self._frame = partial(live.frame, name, alt)
        self.preset = W.ToggleButtons(
            options=[*presets, "custom"],
            description="preset",
            index=0,
            style={"description_width": "4em"},
        )
        drawn = [draw(state) for state in presets.values()]
        self._views = [W.HTML(self._frame(*each)) for each in drawn]
        self._views.append(W.HTML(self._frame(None, UNTOUCHED)))
        self.png = drawn[0][0]
        self.text = "\n".join(
            self._said(name, sentence) for name, (_, sentence) in zip(presets, drawn, strict=True)
        )
        stack = W.Stack(self._views, selected_index=0)
        W.jslink((self.preset, "index"), (stack, "selected_index"))
        self.preset.observe(self._picked, "index")
        for control in controls:
            control.observe(self._changed, "value")
        self.box = W.VBox(
            [
                W.HTML(
                    STYLE.format(name=name, width=PIXELS, height=height, error=self.error_height),
                    layout={"display": "none"},
                ),
                self.preset,
                stack,
                self._error,
                W.HTML(f'<div class="{name}-small">{note}<br>{NEEDS_KERNEL}</div>'),
                W.HBox(shown or controls, layout=W.Layout(flex_flow="row wrap")),
            ]
        ).add_class(f"{name}-explorer")

    @staticmethod
    def _said(preset: str, sentence: str) -> str:
        return sentence

    @property
    def state(self) -> Any:
        """What the controls say."""
        kind = type(next(iter(self._presets.values())))
        return kind(*(control.value for control in self.controls))

    @property
    def frames(self) -> list[str]:
        """The HTML of the presets' frames and of the live one."""
        return [view.value for view in self._views]

    def _picked(self, change) -> None:
        if not self._following:
            return
        if change["new"] == len(self._presets):
            return self._soon(self._draw)
        with self._not_following():
            self._set(list(self._presets.values())[change["new"]])
        self._say("")

    def _set(self, state: tuple) -> None:
        for control, value in zip(self.controls, state, strict=True):
            control.value = value

    def _changed(self, change) -> None:
        if self._following:
            self._soon(self._draw)

    def _draw(self) -> None:
        """Show as "custom" what the controls say; what is not stored only says so."""
        try:
            drawn = self._picture_of(self.state)
        except ValueError as error:
            return self._say(str(error))
        self._views[-1].value = self._frame(*drawn)
        self._say("")
        with self._not_following():
            self.preset.index = len(self._presets)
        self._after_drawing()

    def _after_drawing(self) -> None:
        """For a base whose presets change, too."""


def dropdown(options: list, description: str, width: str, value=None) -> W.Dropdown:
    """A list of options with room for its description."""
    given = {} if value is None else {"value": value}
    return W.Dropdown(
        options=options,
        description=description,
        style={"description_width": f"{0.62 * len(description) + 0.6:.1f}em"},
        layout=W.Layout(width=width),
        **given,
    )
