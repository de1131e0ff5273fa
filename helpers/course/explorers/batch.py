"""BatchExplorer: how the batch size changes what BatchNorm normalizes by, and what it stores."""

from collections.abc import Mapping
from functools import partial

import ipywidgets as W
from torch import nn

from helpers.batch_statistics import Statistics, collect, crops
from helpers.course.explorers import live
from helpers.course.explorers.batch_picture import HEIGHT, SIZES, BatchState, picture
from helpers.course.explorers.live import UNTOUCHED, Live
from helpers.figures import PIXELS
from helpers.networks.backbones import load

PRESETS = (1, 2, 8, 64)
STYLE = f"""<style>
.batch-explorer {{ max-width: {PIXELS}px; color: var(--jp-content-font-color1, inherit); }}
.batch-explorer .widget-toggle-buttons {{ display: flex; margin-bottom: 6px; }}
.batch-explorer .widget-toggle-buttons .widget-toggle-button {{ width: auto; min-width: 4em; }}
.batch-explorer .widget-button {{ padding: 0 6px; }}
.batch-explorer .widget-readout {{ pointer-events: none; -webkit-user-modify: read-only; }}
.batch-explorer .widget-html {{ width: 100%; margin: 0; }}
.batch-explorer .widget-html-content {{ flex: 1; }}
.batch-explorer .batch-picture {{ width: 100%; aspect-ratio: {PIXELS} / {HEIGHT};
  display: block; }}
.batch-explorer .batch-sentence {{ line-height: 1.4; height: 7em; overflow: auto;
  margin: 6px 0; }}
.batch-explorer .batch-small {{ font-size: 0.85em; line-height: 1.4; opacity: 0.85; }}
.batch-explorer .batch-error {{ min-height: 1.4em; line-height: 1.4; }}
.batch-explorer .jupyter-widgets-disconnected::before {{ display: none; }}
.batch-explorer.jupyter-widgets-disconnected::before {{ display: none; }}
</style>"""

WHAT_IT_IS = (
    "All images: crops of four photos. σ: √(variance + eps), by which the layer divides. The "
    "layers before this one use their running statistics."
)
NEEDS_KERNEL = (
    "The batch size buttons switch in the page alone. The controls below need a kernel: run the "
    "notebook first."
)
frame = partial(live.frame, "batch", "A channel by batch size")


class BatchExplorer(Live):
    """One channel of one BatchNorm layer, by batch size; shows itself as a cell's last line.

    `network`: "resnet50", "lite0", a model that batch_statistics.collect takes, which then runs
    once on `crops()`, or what `collect` has returned. No control runs the network. It
    starts at the channel with the largest share of between-image variance. Its text/plain holds the
    presets' sentences, and the first frame's picture stands in for the widgets where they cannot
    run. `state` is what the controls say, `frames` the presets' HTML and the live one, `message`
    the latest bad input.

    ValueError or TypeError for a network that has nothing to show.
    """

    def __init__(self, network: str | nn.Module | Mapping[str, Statistics] = "resnet50"):
        super().__init__("batch")
        if isinstance(network, str):
            network = load(network)
        if not isinstance(network, Mapping):
            network = collect(network, crops())
        self._by_stage = network
        self._batch = 0
        first = max(network, key=lambda stage: network[stage].between_share.max())
        self._build(first, network[first])
        self._shown = self.state
        self.png, self.text = self._draw_presets()

    def _build(self, stage: str, statistics: Statistics) -> None:
        wide, auto = {"description_width": "6em"}, W.Layout(width="auto")
        self._presets = [size for size in PRESETS if size <= len(statistics)]
        self.preset = W.ToggleButtons(
            options=[*map(str, self._presets), "custom"], description="batch size", style=wide
        )
        self.size = W.SelectionSlider(
            options=[size for size in SIZES if size <= len(statistics)],
            description="custom size",
            style=wide,
            layout=W.Layout(width="22em"),
        )
        self.another = W.Button(description="another batch", layout=auto)
        self.stage = W.Dropdown(
            options=list(self._by_stage),
            value=stage,
            description="stage",
            style=wide,
            layout=W.Layout(width="14em"),
        )
        self.channel = W.BoundedIntText(
            statistics.most_between(),
            0,
            statistics.channels - 1,
            description="channel",
            style={"description_width": "4.5em"},
            layout=W.Layout(width="11em"),
        )
        self.most = W.Button(description="largest between-image share", layout=auto)
        self.least = W.Button(description="smallest between-image share", layout=auto)
        self._views = [W.HTML() for _ in self._presets] + [W.HTML(frame(None, UNTOUCHED))]
        stack = W.Stack(self._views, selected_index=0)
        W.jslink((self.preset, "index"), (stack, "selected_index"))
        self.preset.observe(self._picked, "index")
        self.size.observe(self._slid, "value")
        self.stage.observe(self._turned_stage, "value")
        self.channel.observe(self._turned_channel, "value")
        self.another.on_click(self._to_another)
        self.most.on_click(lambda _: self._to(self._statistics.most_between()))
        self.least.on_click(lambda _: self._to(self._statistics.least_between()))
        row = W.Layout(flex_flow="row wrap")
        self.box = W.VBox(
            [
                W.HTML(STYLE, layout={"display": "none"}),
                self.preset,
                stack,
                self._error,
                W.HTML(f'<div class="batch-small">{WHAT_IT_IS}<br>{NEEDS_KERNEL}</div>'),
                W.HBox([self.size, self.another], layout=row),
                W.HBox([self.stage, self.channel, self.most, self.least], layout=row),
            ]
        ).add_class("batch-explorer")

    @property
    def state(self) -> BatchState:
        """What the controls say."""
        return BatchState(self._statistics, self.channel.value, self.size.value, self._batch)

    @property
    def frames(self) -> list[str]:
        """The presets' HTML, and last the live one."""
        return [view.value for view in self._views]

    @property
    def _statistics(self) -> Statistics:
        return self._by_stage[self.stage.value]

    def _draw_presets(self) -> tuple[bytes, str]:
        """Fill the presets' frames for the channel shown; the first's picture, all sentences."""
        drawn = [picture(BatchState(*self._shown[:2], size)) for size in self._presets]
        for view, (png, sentence) in zip(self._views, drawn, strict=False):
            view.value = frame(png, sentence)
        return drawn[0][0], "\n".join(sentence for _, sentence in drawn)

    def _draw(self) -> None:
        """Show as "custom" what the controls say; after bad input only say why not."""
        try:
            png, sentence = picture(self.state)
        except ValueError as error:
            return self._say(str(error))
        self._views[-1].value = frame(png, sentence)
        self._say("")
        with self._not_following():
            self.preset.index = len(self._presets)
        before, self._shown = self._shown, self.state
        if self._shown[:2] != before[:2]:
            self._soon(self._draw_presets)

    def _picked(self, change) -> None:
        if not self._following:
            return
        if change["new"] == len(self._presets):
            return self._draw()
        self._batch = 0
        with self._not_following():  # the presets' frames show the last channel that can be shown
            self.size.value = self._presets[change["new"]]
            self.stage.value = next(
                stage for stage, one in self._by_stage.items() if one is self._shown.statistics
            )
            self._bound_channel(self._shown.channel)
        self._say("")

    def _slid(self, change) -> None:
        if self._following:
            self._batch = 0
            self._draw()

    def _to_another(self, _) -> None:
        self._batch += 1
        self._draw()

    def _turned_channel(self, change) -> None:
        if self._following:
            self._draw()

    def _turned_stage(self, change) -> None:
        if not self._following:
            return
        try:
            channel = self._statistics.most_between()
        except ValueError as error:
            with self._not_following():
                self.stage.value = change["old"]
            return self._say(str(error))
        self._to(channel)

    def _to(self, channel: int) -> None:
        with self._not_following():
            self._bound_channel(channel)
        self._draw()

    def _bound_channel(self, channel: int) -> None:
        self.channel.max = self._statistics.channels - 1
        self.channel.value = channel
