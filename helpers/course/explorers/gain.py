"""GainExplorer: what another eps does to every channel's gain, and which channels it breaks."""

from dataclasses import dataclass
from functools import partial
from math import ceil, floor, log10
from typing import NamedTuple

import ipywidgets as W
import numpy as np
from torch import nn
from torch.nn.parameter import is_lazy

from helpers.course.explorers import live
from helpers.course.explorers.live import UNTOUCHED, Live
from helpers.course.explorers.scatter import HEIGHT, Axes, scatter
from helpers.figures import PIXELS
from helpers.networks.backbones import load
from helpers.norms import norm_layers
from helpers.text import short

NETWORKS = {"ResNet-50": "resnet50", "Lite0": "lite0"}
GIVEN = "the given model"
PRESETS = (0.0, 1e-5, 1e-3)
LARGEST = 5  # of so many dots the sentence says what they carry together

STYLE = f"""<style>
.gain-explorer {{ max-width: {PIXELS}px; color: var(--jp-content-font-color1, inherit); }}
.gain-explorer .widget-toggle-buttons {{ display: flex; margin-bottom: 6px; }}
.gain-explorer .widget-toggle-buttons .widget-toggle-button {{ width: auto; min-width: 5em; }}
.gain-explorer .widget-html {{ width: 100%; margin: 0; }}
.gain-explorer .widget-html-content {{ flex: 1; }}
.gain-explorer .gain-picture {{ width: 100%; aspect-ratio: {PIXELS} / {HEIGHT}; display: block; }}
.gain-explorer .gain-sentence {{ line-height: 1.4; height: 5.6em; overflow: auto; margin: 6px 0; }}
.gain-explorer .gain-small {{ font-size: 0.85em; line-height: 1.4; opacity: 0.85; }}
.gain-explorer .gain-error {{ min-height: 1.4em; line-height: 1.4; }}
.gain-explorer .jupyter-widgets-disconnected::before {{ display: none; }}
.gain-explorer.jupyter-widgets-disconnected::before {{ display: none; }}
</style>"""

NEEDS_KERNEL = (
    "The eps buttons switch in the page alone. The controls below need a kernel: run the notebook "
    "first."
)
frame = partial(live.frame, "gain", "Gain by running variance")


@dataclass(frozen=True, eq=False)
class Channels:
    """What the normalization layers of a network have stored, channel by channel.

    `variance` and `weight`: float64 (C,), of all C channels; `layers`: layer name → its slice of
    them; `eps`: layer name → the eps it has, and was trained with unless somebody changed it.
    """

    network: str
    layers: dict[str, slice]
    eps: dict[str, float]
    variance: np.ndarray
    weight: np.ndarray

    def shares(self, layer: str, eps: float) -> np.ndarray | None:
        """Each channel's share (c,) of what running `layer` at `eps` changes in its output.

        The running variance is that of the layer's input around its running mean. So the output of
        a channel changes by |w| · |1/sqrt(v + eps) − 1/sqrt(v + own eps)| · sqrt(v) in root mean
        square; its share is that squared, over the sum. A channel of variance 0 has none, as its
        input stands still. None if nothing changes.
        """
        change = self._change(layer, eps)
        return change / change.sum() if change.any() else None

    def most_affected(self) -> str:
        """The layer whose output moves most without its eps, in proportion to that output."""

        def effect(layer):
            own, part = self.eps[layer], self.layers[layer]
            v = self.variance[part]
            output = (self.weight[part] ** 2 * _times_gain(v, own) ** 2).sum()
            return self._change(layer, 0.0 if own else 1e-5).sum() / (output or 1.0)

        return max(self.layers, key=effect)

    def _change(self, layer: str, eps: float) -> np.ndarray:
        v, w = self.variance[self.layers[layer]], self.weight[self.layers[layer]]
        return (w * (_times_gain(v, eps) - _times_gain(v, self.eps[layer]))) ** 2


class GainState(NamedTuple):
    """What a picture shows: `layer` of `channels.layers`, and every layer run at `eps`, 0 to 1."""

    channels: Channels
    layer: str
    eps: float


def channels(model: nn.Module) -> Channels:
    """The stored statistics of every BatchNorm and FrozenBatchNorm layer of a model.

    Other normalization layers, those without running statistics, and frozen ones that do not say
    their eps are left out; a layer without affine parameters has weight 1. TypeError for what is
    not a model; ValueError if no layer is left, or a variance is negative or not finite.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"The model must be a torch.nn.Module, not {type(model).__name__}.")
    layers, eps, variances, weights, end = {}, {}, [], [], 0
    for name, layer in norm_layers(model).items():
        v, own = getattr(layer, "running_var", None), getattr(layer, "eps", None)
        if v is None or own is None or is_lazy(v):
            continue
        name = name or "the model"
        variances.append(_float64(v))
        weights.append(np.ones(len(v)) if layer.weight is None else _float64(layer.weight))
        if not ((variances[-1] >= 0) & np.isfinite(variances[-1])).all():
            raise ValueError(f"{name} holds a running variance that is negative or not finite.")
        layers[name], eps[name] = slice(end, end + len(v)), float(own)
        end += len(v)
    if not layers:
        raise ValueError(
            f"{type(model).__name__} has no normalization layer with running statistics: give a "
            "network with BatchNorm2d or FrozenBatchNorm2d."
        )
    network = getattr(model, "provenance", type(model).__name__).partition(":")[0]
    return Channels(network, layers, eps, np.concatenate(variances), np.concatenate(weights))


def picture(state: GainState) -> tuple[bytes, str]:
    """Every channel at (running variance, gain at this eps), the layer's in color; and a sentence.

    The gain is 1/sqrt(variance + eps). Returns a palette PNG and what it shows, with its key
    numbers. ValueError for an unknown layer and for an eps outside 0 to 1.
    """
    found, layer, eps = state
    if layer not in found.layers:
        raise ValueError(f"No layer {layer!r} in {found.network}.")
    if not 0 <= eps <= 1:
        raise ValueError(f"eps must be a number from 0 to 1, such as 1e-5, not {eps}.")
    own, shares = found.eps[layer], found.shares(layer, eps)
    chosen = np.zeros(len(found.variance), bool)
    chosen[found.layers[layer]] = True
    axes = _axes(found.variance)
    line = np.geomspace(*axes.xlim, 200)
    curves = [(line, _gain(line, eps), f"eps {short(eps)}")]
    if eps == own:
        curves = [(*curves[0][:2], f"its own eps, {short(own)}")]
    else:
        curves.append((line, _gain(line, own), f"its own eps, {short(own)}"))
    png = scatter(
        axes,
        found.variance,
        _gain(found.variance, eps),
        chosen,
        shares,
        labels=(f"all {len(chosen):,} channels", f"{layer}, {chosen.sum():,} channels"),
        share_label="of the layer's difference",
        curves=curves,
        line=(eps, f"variance = eps, {short(eps)}"),
    )
    return png, _sentence(state, shares)


def read_eps(text: str) -> float:
    """The eps somebody typed. ValueError, a sentence, if it is no number from 0 to 1."""
    try:
        eps = float(text)
    except ValueError:
        eps = -1.0
    if not 0 <= eps <= 1:
        raise ValueError(f"eps must be a number from 0 to 1, such as 1e-5, not {text.strip()!r}.")
    return eps


class GainExplorer(Live):
    """Every channel of a network by variance and gain, at an eps; shows itself as the last line.

    `network`: "resnet50", "lite0", or a model with BatchNorm2d or FrozenBatchNorm2d layers. All
    comes from stored statistics: nothing runs. Its text/plain is the first preset's sentence, and
    that frame's picture stands in for the widgets where they cannot run. `state` is what the
    controls say, `frames` the presets' HTML and the live one, `message` the latest bad input.

    ValueError or TypeError for a network that has nothing to show.
    """

    def __init__(self, network: str | nn.Module = "resnet50"):
        super().__init__("gain")
        self._known: dict[str, Channels] = {}
        names = {key: name for name, key in NETWORKS.items()}
        if isinstance(network, str):
            first = names.get(network, network)
        else:
            first, self._known[GIVEN] = GIVEN, channels(network)
        found = self._channels(first)
        self._build(first, found)
        self.png, self.text = self._draw_presets()

    def _build(self, first: str, found: Channels) -> None:
        style = {"description_width": "4.5em"}
        self.preset = W.ToggleButtons(
            options=[*map(short, PRESETS), "custom"], description="eps", style=style
        )
        self.network = W.Dropdown(
            options=[*self._known.keys() - NETWORKS.keys(), *NETWORKS],
            value=first,
            description="network",
            style=style,
            layout=W.Layout(width="16em"),
        )
        self.layer = W.Dropdown(
            options=list(found.layers),
            value=found.most_affected(),
            description="layer",
            style={"description_width": "3em"},
            layout=W.Layout(width="18em"),
        )
        self.eps = W.Text(
            value=short(PRESETS[0]),
            description="custom eps",
            continuous_update=False,
            style={"description_width": "6.5em"},
            layout=W.Layout(width="13em"),
        )
        self._views = [W.HTML() for _ in PRESETS] + [W.HTML(frame(None, UNTOUCHED))]
        stack = W.Stack(self._views, selected_index=0)
        W.jslink((self.preset, "index"), (stack, "selected_index"))
        for control, handler in (
            (self.preset, self._picked),
            (self.network, self._turned_network),
            (self.layer, self._turned_layer),
            (self.eps, self._typed),
        ):
            control.observe(handler, "index" if control is self.preset else "value")
        row = W.Layout(flex_flow="row wrap")
        self.box = W.VBox(
            [
                W.HTML(STYLE, layout={"display": "none"}),
                self.preset,
                stack,
                self._error,
                W.HTML(f'<div class="gain-small">{NEEDS_KERNEL}</div>'),
                W.HBox([self.network, self.layer, self.eps], layout=row),
            ]
        ).add_class("gain-explorer")

    @property
    def state(self) -> GainState:
        """What the controls say. ValueError if the eps box holds no eps."""
        return GainState(
            self._channels(self.network.value), self.layer.value, read_eps(self.eps.value)
        )

    @property
    def frames(self) -> list[str]:
        return [view.value for view in self._views]

    def _channels(self, name: str) -> Channels:
        if name not in self._known:
            self._known[name] = channels(load(NETWORKS.get(name, name)))
        return self._known[name]

    def _draw_presets(self) -> tuple[bytes, str]:
        """Fill the presets' frames for the chosen layer; picture and sentence of the first."""
        found = self._channels(self.network.value)
        drawn = [picture(GainState(found, self.layer.value, eps)) for eps in PRESETS]
        for view, (png, sentence) in zip(self._views, drawn, strict=False):
            view.value = frame(png, sentence)
        return drawn[0]

    def _draw(self) -> None:
        """Show as "custom" what the controls say; after bad input only say why not."""
        try:
            png, sentence = picture(self.state)
        except ValueError as error:
            return self._say(str(error))
        self._views[-1].value = frame(png, sentence)
        self._say("")
        with self._not_following():
            self.preset.index = len(PRESETS)

    def _picked(self, change) -> None:
        if not self._following:
            return
        if change["new"] == len(PRESETS):
            return self._draw()
        self._set_eps(PRESETS[change["new"]])
        self._say("")

    def _typed(self, change) -> None:
        if self._following:
            self._draw()

    def _turned_layer(self, change) -> None:
        if not self._following:
            return
        try:
            read_eps(self.eps.value)
        except ValueError:  # the new layer is shown all the same, at the first eps
            self._set_eps(PRESETS[0])
        self._draw()
        self._soon(self._draw_presets)

    def _turned_network(self, change) -> None:
        if not self._following:
            return
        try:
            found = self._channels(change["new"])
        except (RuntimeError, ValueError) as error:  # its weights are missing or altered
            with self._not_following():
                self.network.value = change["old"]
            return self._say(str(error))
        with self._not_following():
            self.layer.options = list(found.layers)
            self.layer.value = found.most_affected()
        self._turned_layer(change)

    def _set_eps(self, eps: float) -> None:
        with self._not_following():
            self.eps.value = short(eps)


def _gain(variance: np.ndarray, eps: float) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return 1 / np.sqrt(variance + eps)


def _times_gain(variance: np.ndarray, eps: float) -> np.ndarray:
    """sqrt(v) / sqrt(v + eps), the output's size at weight 1; 0 at v = 0, whatever eps."""
    return np.sqrt(np.divide(variance, variance + eps, out=0 * variance, where=variance > 0))


def _axes(variance: np.ndarray) -> Axes:
    """The same for every eps, so that only the dots move."""
    varying = variance[variance > 0]
    low = max(min(varying.min(initial=np.inf), *PRESETS[1:]) / 2, 1e-12)
    xlim = _decade(low, floor), _decade(varying.max(initial=1.0), ceil)
    ylim = _decade(_gain(xlim[1], 1.0), floor), _decade(_gain(xlim[0], 0.0), ceil)
    return Axes(
        xlim, ylim, "running variance", "gain = 1/√(variance + eps)", bool((variance == 0).any())
    )


def _decade(value: float, rounded) -> float:
    return 10.0 ** rounded(log10(value))


def _float64(tensor) -> np.ndarray:
    return tensor.detach().double().cpu().numpy()


def _sentence(state: GainState, shares: np.ndarray | None) -> str:
    found, layer, eps = state
    v, own = found.variance[found.layers[layer]], found.eps[layer]
    which = f"its own eps, {short(own)}"
    if eps != own:
        which = f"eps {short(eps)} instead of its own, {short(own)}"
    carried = "no difference"
    if shares is not None:
        largest, limit = np.sort(shares)[-LARGEST:], max(eps, own)
        rest = "other channels'" if eps == 0 and (v == 0).any() else "layer's"
        carried = (
            f"the {len(largest)} largest dots carry {_percent(largest)} of the {rest} difference, "
        )
        if (below := v < limit).any():
            carried += f"the {below.sum():,} of variance below {short(limit)} carry "
            carried += _percent(shares[below])
        else:
            carried += f"and no variance is below {short(limit)}"
    words = (
        f"{layer} of {found.network}, with {which}: {len(v):,} channels, variance "
        f"{short(v.min())} … {short(v.max())}; {carried}."
    )
    if zeros := (found.variance == 0).sum():
        gain = "infinite" if eps == 0 else short(eps**-0.5) if eps > 1e-6 else f"{eps**-0.5:,.0f}"
        words += (
            f" {zeros:,} of the network's channels, {(v == 0).sum():,} of them here, have "
            f"variance 0: their gain is {gain}."
        )
    return words


def _percent(shares: np.ndarray) -> str:
    return f"{100 * shares.sum():.0f} %"
