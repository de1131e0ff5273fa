"""NormExplorer: toggle the normalization of two networks, and see their feature maps part."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from html import escape
from math import log10

import ipywidgets as W
from IPython.display import display
from torch import Tensor, nn

from helpers import figures as show
from helpers.compare import ROUNDING, Row
from helpers.course.explorers.live import Live, source
from helpers.course.explorers.side_by_side import (
    NETWORKS,
    PRESETS,
    NormState,
    Side,
    View,
    variants,
    view,
)
from helpers.course.explorers.variants import Variants
from helpers.inputs import photos
from helpers.norms import KINDS
from helpers.stages import STAGES
from helpers.text import short

FLOOR, CEILING = 1e-8, 10.0  # the ends of the bars, relative to max|A|
UPLOADED = "your photo"
MIXED = "(as below)"

STYLE = """<style>
.norm-explorer { max-width: 60em; color: var(--jp-content-font-color1, inherit); }
.norm-explorer .widget-toggle-buttons .widget-toggle-button { width: auto; }
.norm-explorer .norm-maps { display: grid; grid-template-columns: repeat(3, minmax(0, 224px));
  gap: 12px; }
.norm-explorer .norm-maps figure { margin: 0; }
.norm-explorer .norm-maps img { width: 100%; aspect-ratio: 1; image-rendering: pixelated;
  display: block; }
.norm-explorer .norm-maps figcaption { line-height: 1.35; min-height: 2.7em; font-size: 0.9em; }
.norm-explorer .norm-rows { display: grid; line-height: 1.5; margin: 8px 0 4px; column-gap: 8px;
  max-width: 696px; grid-template-columns: 5.5em minmax(8em, 1fr) 20em; white-space: nowrap; }
.norm-explorer .norm-track { background: linear-gradient(to right,
  var(--jp-layout-color3, #ccc) 33.3%, var(--jp-layout-color2, #eee) 33.3%);
  height: 0.9em; align-self: center; }
.norm-explorer .norm-bar { background: #d55e00; height: 100%; }
.norm-explorer .norm-sentence { font-weight: 600; line-height: 1.4; min-height: 2.8em;
  margin: 6px 0; }
.norm-explorer .norm-small { font-size: 0.85em; opacity: 0.85; }
.norm-explorer .norm-error { min-height: 2.6em; line-height: 1.3; }
.norm-explorer .jupyter-widgets-disconnected::before { display: none; }
.norm-explorer.jupyter-widgets-disconnected::before { display: none; }
</style>"""

NEEDS_KERNEL = (
    "The presets switch in the page alone. All other controls need a kernel: run the notebook "
    "first."
)
UNTOUCHED = "Change any control below, and this frame shows it live."


class NormExplorer(Live):
    """Two networks A and B, a normalization kind per stage, a photo: where do their maps part?

    Shows itself as a cell's last line. `state` is what the controls say; `frame` the HTML of the
    live picture, `message` the sentence about the latest bad input. `networks` may hand over
    networks that are loaded already ("ResNet-50", "Lite0"), which saves memory. Its text/plain
    holds the presets' sentences, and a static picture of the first stands in for the widgets where
    they cannot run.
    """

    def __init__(self, networks: Mapping[str, nn.Module] | None = None):
        super().__init__("norm")
        if unknown := set(networks or {}) - set(NETWORKS):
            raise ValueError(f"No network {unknown.pop()!r} here: {', '.join(NETWORKS)}.")
        self._given = {name: Variants(model) for name, model in (networks or {}).items()}
        self._images: dict[str, Tensor] = {}
        first = next(iter(PRESETS.values()))
        self._views = {name: self._view(state) for name, state in PRESETS.items()}
        self._build(first)
        self._show_state(first)

    def _build(self, first: NormState) -> None:
        wide, auto = {"description_width": "6.5em"}, W.Layout(width="auto")
        self.preset = W.ToggleButtons(options=[*PRESETS, "custom"], index=0, layout=auto)
        self.photo = W.Dropdown(options=photos.NAMES, description="photo", style=wide)
        self.upload = W.FileUpload(
            accept="image/*", description="Your photo (up to 10 MB)", layout=W.Layout(width="19em")
        )
        self.stage = W.ToggleButtons(options=STAGES, description="stage", style=wide)
        self.mean = W.Checkbox(
            value=True, description="mean over channels", indent=False, layout=auto
        )
        self.channel = W.BoundedIntText(0, 0, 2047, description="channel", style=wide)
        self.largest = W.Button(description="channel that differs most", layout=auto)
        self.sides = {"a": _SideControls("A"), "b": _SideControls("B")}

        frames = [W.HTML(frame(PRESETS[name], seen)) for name, seen in self._views.items()]
        untouched = replace(next(iter(self._views.values())), sentence=UNTOUCHED)
        self._live = W.HTML(frame(first, untouched))
        self._stack = W.Stack([*frames, self._live], selected_index=0)
        W.jslink((self.preset, "index"), (self._stack, "selected_index"))

        self.upload.observe(self._uploaded, "value")
        self.largest.on_click(self._to_largest)
        self.preset.observe(self._picked, "index")
        for control in (self.photo, self.stage, self.mean, self.channel):
            control.observe(self._changed, "value")
        for side in self.sides.values():
            side.observe(self._changed)
        self.box = W.VBox(
            [
                W.HTML(STYLE, layout={"display": "none"}),
                self.preset,
                self._stack,
                self._error,
                W.HTML(f'<div class="norm-small">{NEEDS_KERNEL}</div>'),
                W.HBox([self.photo, self.upload], layout=W.Layout(flex_flow="row wrap")),
                self.stage,
                W.HBox(
                    [self.mean, self.channel, self.largest], layout=W.Layout(flex_flow="row wrap")
                ),
                W.HBox(
                    [side.box for side in self.sides.values()],
                    layout=W.Layout(flex_flow="row wrap"),
                ),
            ]
        ).add_class("norm-explorer")

    @property
    def state(self) -> NormState:
        """What the controls say."""
        channel = None if self.mean.value else self.channel.value
        a, b = (side.value for side in self.sides.values())
        return NormState(a, b, self.photo.value, self.stage.value, channel)

    @property
    def frame(self) -> str:
        """The HTML of the live picture."""
        return self._live.value

    def _view(self, state: NormState) -> View:
        return view(state, self._image(state), lambda name: self._given.get(name) or variants(name))

    def _image(self, state: NormState) -> Tensor:
        if state.photo not in self._images:
            self._images[state.photo] = photos.load(state.photo)
        return self._images[state.photo]

    def _show_state(self, state: NormState) -> None:
        """Set every control without taking that for the reader's doing."""
        with self._not_following():
            self.photo.value, self.stage.value = state.photo, state.stage
            self.mean.value = state.channel is None
            self.channel.value = state.channel or 0
            for side, value in zip(self.sides.values(), (state.a, state.b), strict=True):
                side.value = value

    def _picked(self, change) -> None:
        if not self._following:
            return
        if change["new"] == len(PRESETS):
            self._soon(self.draw)
        else:
            self._show_state(list(PRESETS.values())[change["new"]])
            self._say("")

    def _changed(self, change) -> None:
        if self._following:
            self._soon(self.draw)

    def draw(self) -> None:
        """Compute what the controls say and show it as "custom"; after bad input only say why."""
        state = self.state
        try:
            seen = self._view(state)
        except ValueError as error:
            return self._say(str(error))
        self._live.value = frame(state, seen)
        self._say("")
        with self._not_following():
            self.channel.max = seen.channels - 1
            self.preset.index = len(PRESETS)

    def _to_largest(self, _) -> None:
        try:
            seen = self._view(replace(self.state, channel=None))
        except ValueError as error:
            return self._say(str(error))
        with self._not_following():
            self.channel.max = seen.channels - 1
            self.channel.value, self.mean.value = seen.largest, False
        self.draw()

    def _uploaded(self, change) -> None:
        if not change["new"]:
            return
        content = bytes(change["new"][0].content)
        try:
            image = photos.load(content)
        except photos.PhotoError as error:
            return self._say(str(error))
        name = f"{UPLOADED} {hashlib.sha256(content).hexdigest()[:6]}"
        self._images[name] = image
        with self._not_following():
            self.photo.options = [*photos.NAMES, name]
            self.photo.value = name
        self.draw()

    @property
    def text(self) -> str:
        """What stands in for the widgets in words."""
        return "\n".join(
            ["NormExplorer: two networks A and B, their feature maps, and A − B."]
            + [f"{name}: {seen.sentence}" for name, seen in self._views.items()]
        )

    def _ipython_display_(self) -> None:
        name, state = next(iter(PRESETS.items()))
        seen = self._views[name]
        names = tuple(
            f"{letter}: {title}".replace(", ", "\n", 1)
            for letter, title in zip("AB", titles(state), strict=True)
        )
        fig, _ = show.feature_maps(seen.a, seen.b, names, self._image(state))
        png = show.png(fig, f"{name}, {state.stage}, mean over channels. {seen.sentence}")
        data = {**self.box._repr_mimebundle_(), "image/png": png, "text/plain": self.text}
        display(data, raw=True)


class _SideControls:
    """The controls of one network: which, and a kind for all stages or for each."""

    def __init__(self, letter: str):
        style, layout = {"description_width": "7.5em"}, W.Layout(width="21em")
        self.network = W.Dropdown(
            options=list(NETWORKS), description=f"{letter}: network", style=style, layout=layout
        )
        self.every = W.Dropdown(
            options=[MIXED, *KINDS], description=f"{letter}: all stages", style=style, layout=layout
        )
        self.kinds = [
            W.Dropdown(options=KINDS, description=f"{letter}: {stage}", style=style, layout=layout)
            for stage in STAGES
        ]
        self.box = W.VBox([self.network, self.every, *self.kinds])
        self._handlers = []
        self._quiet = False
        self.every.observe(self._all, "value")
        for control in (self.network, *self.kinds):
            control.observe(self._notify, "value")

    @property
    def value(self) -> Side:
        return Side(self.network.value, tuple(kind.value for kind in self.kinds))

    @value.setter
    def value(self, side: Side) -> None:
        self._quiet = True
        self.network.value = side.network
        for control, kind in zip(self.kinds, side.kinds, strict=True):
            control.value = kind
        self._quiet = False
        self._notify(None)

    def observe(self, handler) -> None:
        self._handlers.append(handler)

    def _all(self, change) -> None:
        if not self._quiet and change["new"] != MIXED:
            self.value = Side.all(self.network.value, change["new"])

    def _notify(self, change) -> None:
        if self._quiet:
            return
        kinds = set(self.value.kinds)
        self._quiet = True
        self.every.value = kinds.pop() if len(kinds) == 1 else MIXED
        self._quiet = False
        for handler in self._handlers:
            handler(change)


def titles(state: NormState) -> tuple[str, str]:
    """What A and B are, in a few words each."""
    return tuple(
        f"{side.network}, {side.kinds[0] if len(set(side.kinds)) == 1 else 'mixed kinds'}"
        for side in (state.a, state.b)
    )


def frame(state: NormState, seen: View) -> str:
    """The HTML of a view: sentence, the maps A, B and A − B, and a bar per stage."""
    low = min(seen.a.min().item(), seen.b.min().item())
    high = max(seen.a.max().item(), seen.b.max().item())
    difference = seen.a - seen.b
    reach = difference.abs().max().item()
    rounding = ROUNDING * max(abs(low), abs(high))
    span = max(reach, rounding)  # so that mere rounding leaves the map blank
    where = "mean over channels" if state.channel is None else f"channel {state.channel}"
    scale = f"{short(low)} (dark) … {short(high)} (bright)"
    apart = (
        "rounding at most: blank"
        if reach <= rounding
        else f"−{short(reach)} (blue) … {short(reach)} (red)"
    )
    pictures = [
        (f"A: {titles(state)[0]}", scale, show.heatmap(seen.a, low, high, side=1)),
        (f"B: {titles(state)[1]}", scale, show.heatmap(seen.b, low, high, side=1)),
        ("A − B", apart, show.heatmap(difference, -span, span, True, side=1)),
    ]
    maps = "".join(
        f'<figure><img alt="{escape(title)}, {escape(words)}" src="{source(png)}">'
        f"<figcaption>{escape(title)}<br>{escape(words)}</figcaption></figure>"
        for title, words, png in pictures
    )
    rows = "".join(_row(stage, row, stage == state.stage) for stage, row in seen.rows.items())
    return (
        f'<div class="norm-sentence" role="status">{escape(seen.sentence)}</div>'
        f'<div class="norm-small">{escape(state.photo)}, {state.stage}, {where}</div>'
        f'<div class="norm-maps">{maps}</div><div class="norm-rows">{rows}</div>'
        '<div class="norm-small">Bars: max|A−B| / max|A|, log scale from 1e-8 to 10; the track\'s '
        "left third, up to 1e-5, is rounding.</div>"
    )


def _row(stage: str, row: Row, chosen: bool) -> str:
    share = (log10(min(max(row.relative, FLOOR), CEILING) / FLOOR)) / log10(CEILING / FLOOR)
    _, largest, _, relative = row.cells()
    if row.relative <= ROUNDING:
        words = f"{relative} of max|A|" if row.max_abs else "0"
    else:
        words = f"max|A−B| {largest}, {relative} of max|A|"
    name = f"<strong>{stage} ◂</strong>" if chosen else stage
    return (
        f'<div>{name}</div><div class="norm-track"><div class="norm-bar" '
        f'style="width: {100 * share:.1f}%"></div></div><div>{words}</div>'
    )
