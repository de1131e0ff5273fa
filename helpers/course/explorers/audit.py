"""AuditExplorer: which normalization layers torchvision's builders make, and what is a trap."""

from functools import lru_cache
from html import escape
from itertools import groupby

import ipywidgets as W
from torch import nn

from helpers.audit import Audit, Layer, audit, audit_builder
from helpers.audit.census import WIRINGS, detection_builders
from helpers.course.explorers.live import UNTOUCHED, Live
from helpers.figures import PIXELS
from helpers.text import short

GIVEN = "the given model"
PRESETS = {
    "v1, ImageNet backbone": ("fasterrcnn_resnet50_fpn", "pretrained"),
    "v1, COCO weights": ("fasterrcnn_resnet50_fpn", "coco"),
    "v2": ("fasterrcnn_resnet50_fpn_v2", "pretrained"),
    "MobileNetV3": ("fasterrcnn_mobilenet_v3_large_fpn", "pretrained"),
}
OTHERS = ("deeplabv3_resnet50", "resnet50", "mobilenet_v3_large", "efficientnet_v2_s", "vit_b_16")
HEADER = ("layers", "number", "class", "channels", "eps", "momentum", "mode", "affine", "variance")

# Without the second, JupyterLab takes the arrow keys to go to the next cell.
SCROLLS = 'tabindex="0" data-lm-suppress-shortcuts="true"'

STYLE = f"""<style>
.audit-explorer .widget-toggle-buttons {{ display: flex; }}
.audit-explorer .audit-layers td + td {{ white-space: nowrap; }}
.audit-explorer {{ max-width: {PIXELS}px; color: var(--jp-content-font-color1, inherit); }}
.audit-explorer .widget-toggle-buttons .widget-toggle-button {{ width: auto; }}
.audit-explorer .widget-html {{ width: 100%; margin: 0; }}
.audit-explorer .widget-html-content {{ flex: 1; min-width: 0; }}
.audit-explorer .audit-words {{ line-height: 1.4; height: 13em; overflow: auto; margin: 6px 0; }}
.audit-explorer .audit-layers {{ line-height: 1.4; height: 11em; overflow: auto; margin: 6px 0; }}
.audit-explorer .audit-layers th, .audit-explorer .audit-layers td {{ text-align: left;
  padding: 1px 0.8em 1px 0; vertical-align: top; font-size: 0.9em; }}
.audit-explorer .audit-small {{ font-size: 0.85em; line-height: 1.4; opacity: 0.85; }}
.audit-explorer .audit-error {{ min-height: 2.8em; line-height: 1.4; }}
.audit-explorer .jupyter-widgets-disconnected::before {{ display: none; }}
.audit-explorer.jupyter-widgets-disconnected::before {{ display: none; }}
</style>"""

NEEDS_KERNEL = (
    "The presets switch in the page alone. The controls below need a kernel: run the notebook "
    "first."
)

_of_builder = lru_cache(audit_builder)


class AuditExplorer(Live):
    """The audit of a torchvision builder for the weights of one's choice, or of a given model.

    Nothing is downloaded and nothing runs: builders hold no values. `model` may be your own: it is
    then shown first, beside the builders. Shows itself as a cell's last line; its text/plain has a
    sentence for each preset. `state` is what the controls say, `frames` the presets' HTML and the
    live one, `message` the latest bad input.

    TypeError, as audit() raises it, for what is no model, and for a scripted one.
    """

    def __init__(self, model: nn.Module | None = None):
        super().__init__("audit")
        self._given = None if model is None else audit(model)
        audits = {label: _of_builder(*preset) for label, preset in PRESETS.items()}
        self._views = [W.HTML(frame(each)) for each in audits.values()]
        self._views.append(W.HTML(frame(self._given)))
        sentences = {label: sentence(each) for label, each in audits.items()}
        if self._given is not None:
            sentences = {GIVEN: sentence(self._given), **sentences}
        self.text = "\n".join(f"{label}: {words}" for label, words in sentences.items())
        self._build()

    def _build(self) -> None:
        builder, weights = next(iter(PRESETS.values()))
        self.preset = W.ToggleButtons(
            options=[*PRESETS, "custom"],
            index=len(PRESETS) if self._given else 0,
            description="preset",
            style={"description_width": "4.5em"},
        )
        self.builder = W.Dropdown(
            options=[*([GIVEN] if self._given else []), *detection_builders(), *OTHERS],
            value=GIVEN if self._given else builder,
            description="builder",
            style={"description_width": "4.5em"},
            layout=W.Layout(width="26em"),
        )
        self.weights = W.Dropdown(
            options=[(label, key) for key, label in WIRINGS.items()],
            value=weights,
            description="weights",
            disabled=self._given is not None,
            style={"description_width": "4.5em"},
            layout=W.Layout(width="16em"),
        )
        stack = W.Stack(self._views, selected_index=self.preset.index)
        W.jslink((self.preset, "index"), (stack, "selected_index"))
        self.preset.observe(self._picked, "index")
        self.builder.observe(self._turned, "value")
        self.weights.observe(self._turned, "value")
        self.box = W.VBox(
            [
                W.HTML(STYLE, layout={"display": "none"}),
                self.preset,
                stack,
                self._error,
                W.HTML(f'<div class="audit-small">{NEEDS_KERNEL}</div>'),
                W.HBox([self.builder, self.weights], layout=W.Layout(flex_flow="row wrap")),
            ]
        ).add_class("audit-explorer")

    @property
    def state(self) -> tuple[str, str]:
        """The builder's name, or GIVEN, and the weights it is wired for."""
        return self.builder.value, self.weights.value

    @property
    def frames(self) -> list[str]:
        """The presets' HTML, and last the live one."""
        return [view.value for view in self._views]

    def _draw(self) -> None:
        """Show as "custom" what the controls say; if there is no such thing only say why not."""
        builder, weights = self.state
        try:
            chosen = self._given if builder == GIVEN else _of_builder(builder, weights)
        except ValueError as error:
            return self._say(str(error))
        self._views[-1].value = frame(chosen)
        self._say("")
        with self._not_following():
            self.preset.index = len(PRESETS)

    def _picked(self, change) -> None:
        if not self._following:
            return
        if change["new"] == len(PRESETS):
            return self._draw()
        with self._not_following():
            self.builder.value, self.weights.value = list(PRESETS.values())[change["new"]]
            self.weights.disabled = False
        self._say("")

    def _turned(self, change) -> None:
        if self._following:
            self.weights.disabled = self.builder.value == GIVEN
            self._soon(self._draw)


def sentence(audited: Audit) -> str:
    """The audit in one line: the layers, and each finding by its code."""
    codes = "; ".join(f"{finding.code} in {finding.subject}" for finding in audited.findings)
    return f"{audited.headline} {codes}." if codes else audited.headline


def frame(audited: Audit | None) -> str:
    """The HTML of an audit, its layers in a table below; without one, a sentence in its place.

    Either takes the same room; what is longer scrolls, by keyboard too.
    """
    words = UNTOUCHED if audited is None else audited._repr_html_()
    return (
        f'<div class="audit-words" role="status" {SCROLLS} aria-label="findings">'
        f'{words}</div><div class="audit-layers" role="region" {SCROLLS} '
        f'aria-label="layers">{"" if audited is None else _table(audited.layers)}</div>'
    )


def _table(layers: tuple[Layer, ...]) -> str:
    """Consecutive layers of one kind share a row."""
    rows = [_row(list(alike)) for _, alike in groupby(layers, _kind)]
    lines = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    header = "".join(f'<th scope="col">{name}</th>' for name in HEADER)
    return f"<table><thead><tr>{header}</tr></thead><tbody>{lines}</tbody></table>"


def _kind(layer: Layer) -> tuple:
    return layer.class_name, layer.eps, layer.momentum, layer.training, layer.trainable


def _row(alike: list[Layer]) -> tuple[str, ...]:
    first, last = alike[0], alike[-1]
    names = [layer.name or GIVEN for layer in (first, last)]
    channels = [layer.channels for layer in alike if layer.channels is not None]
    variances = [x.smallest_variance for x in alike if x.smallest_variance is not None]
    return (
        names[0] if first is last else " … ".join(names),
        str(len(alike)),
        first.class_name,
        "–" if not channels else _span(min(channels), max(channels)),
        "–" if first.eps is None else short(first.eps),
        "–" if first.momentum is None else short(first.momentum),
        "train" if first.training else "eval",
        {True: "trainable", False: "frozen", None: "none"}[first.trainable],
        "–" if not variances else f"≥ {short(min(variances))}",
    )


def _span(low: int, high: int) -> str:
    return str(low) if low == high else f"{low} … {high}"
