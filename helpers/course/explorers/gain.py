"""GainExplorer: what another eps does to every channel's gain, and which channels it breaks."""

from typing import NamedTuple

import ipywidgets as W
import numpy as np
from torch import nn
from torch.nn.parameter import is_lazy

from helpers.course.explorers.stored import Stored, dropdown
from helpers.figures import BLACK, BLUE, ORANGE, figure, png
from helpers.networks.backbones import load
from helpers.norms import norm_layers
from helpers.text import short

NETWORKS = {"ResNet-50": "resnet50", "Lite0": "lite0"}
GIVEN = "the given model"
PRESETS = (0.0, 1e-5, 1e-3)
LARGEST = 5  # of so many dots the sentence says what they carry together
HEIGHT = 460  # px
DOT, RING = "#5E6E7E", "#7A3400"
CAPTION = (
    "A dot per channel. The area of the layer's rings is a channel's share of the difference that "
    "this eps makes to its output; ▲: a gain beyond the axis."
)
WORDS = ("Gain by running variance", "All is computed from stored statistics: no network runs.")


class Layer(NamedTuple):
    """A normalization layer: running variances and weights, float64 (c,), and its own eps."""

    variance: np.ndarray
    weight: np.ndarray
    eps: float

    def shares(self, eps: float) -> np.ndarray | None:
        """Return each channel's share (c,) of what another eps changes in the layer's output.

        In root mean square, the output of a channel changes by |w| · sqrt(v) · |1/sqrt(v + eps) −
        1/sqrt(v + own eps)|; its share is that squared, over the sum. A channel of variance 0 has
        none, as its input stands still. None if nothing changes.
        """
        change = (self._output(eps) - self._output(self.eps)) ** 2
        return change / change.sum() if change.any() else None

    def effect(self) -> float:
        """Return how much the output moves without eps, relative to the output, both squared."""
        own = self._output(self.eps)
        change = (self._output(0.0 if self.eps else 1e-5) - own) ** 2
        return change.sum() / ((own**2).sum() or 1.0)

    def _output(self, eps: float) -> np.ndarray:
        """The root mean square of each channel of the output; 0 at variance 0, whatever eps."""
        v, w = self.variance, self.weight
        return w * np.sqrt(np.divide(v, v + eps, out=0 * v, where=v > 0))


class GainState(NamedTuple):
    """What a picture shows: one layer of a network, with all layers run at `eps`, from 0 to 1."""

    network: str
    layers: dict[str, Layer]
    layer: str
    eps: float


def layers_of(model: nn.Module) -> dict[str, Layer]:
    """Collect what every BatchNorm and FrozenBatchNorm layer of a model has stored.

    Layers without running statistics or without an eps are left out; one without affine parameters
    has weight 1. Raises TypeError for what is not a model, and ValueError if no layer is left or a
    variance is negative or not finite.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"The model must be a torch.nn.Module, not {type(model).__name__}.")
    layers = {}
    for name, layer in norm_layers(model).items():
        v, eps = getattr(layer, "running_var", None), getattr(layer, "eps", None)
        if v is None or eps is None or is_lazy(v):
            continue
        weight = v.new_ones(len(v)) if layer.weight is None else layer.weight
        v, weight = (tensor.detach().double().cpu().numpy() for tensor in (v, weight))
        name = name or "the model"
        if not ((v >= 0) & np.isfinite(v)).all():
            raise ValueError(f"{name} holds a running variance that is negative or not finite.")
        layers[name] = Layer(v, weight, float(eps))
    if not layers:
        raise ValueError(
            f"{type(model).__name__} has no normalization layer with running statistics: give a "
            "network with BatchNorm2d or FrozenBatchNorm2d."
        )
    return layers


def picture(state: GainState) -> tuple[bytes, str]:
    """Draw every channel at its running variance and gain, 1/sqrt(variance + eps); say the numbers.

    Returns a palette PNG of 800 × 460 px and the sentence.
    """
    eps, (ring_v, _, own) = state.eps, state.layers[state.layer]
    shares = state.layers[state.layer].shares(eps)
    v = np.concatenate([layer.variance for layer in state.layers.values()])
    low, high = _limits(v)
    zero, top = low / (high / low) ** 0.08, low**-0.5
    fig, axes = figure(height=HEIGHT / 100)
    axes.set(
        xscale="log", yscale="log", xlabel="running variance", ylim=((2 * high) ** -0.5, 4 * top)
    )
    axes.set(ylabel="gain = 1/√(variance + eps)", xlim=(low, high))
    axes.minorticks_off()
    if (v == 0).any():
        axes.set_xticks([tick for tick in axes.get_xticks() if low <= tick <= high])
        axes.set_xlim(zero / 2, high)
        axes.text(zero, -0.03, "0", transform=axes.get_xaxis_transform(), ha="center", va="top")

    def place(v):
        beyond = (gain := _gain(v, eps)) > top
        return np.where(v == 0, zero, v.clip(low)), np.where(beyond, 2 * top, gain), beyond

    x, y, _ = place(v)
    axes.plot(x, y, "o", ms=4, mew=0, color=DOT, alpha=0.4, label=f"all {len(v):,} channels")
    line = np.geomspace(low, high, 200)
    if eps != own:
        axes.plot(line, _gain(line, eps), color=BLACK, label=f"eps {short(eps)}")
    axes.plot(line, _gain(line, own), "--", color=BLUE, label=f"its own eps, {short(own)}")
    if low <= eps <= high:
        axes.axvline(eps, color=DOT, ls=":", label=f"variance = eps, {short(eps)}")
    sizes = np.full(len(ring_v), 25.0)
    if shares is not None:
        sizes = np.maximum(25, 450 * shares / shares.max())
    x, y, beyond = place(ring_v)
    for marker, at in (("o", ~beyond), ("^", beyond)):
        look = {"marker": marker, "alpha": 0.45, "edgecolors": RING}
        axes.scatter(x[at], y[at], sizes[at], ORANGE, **look)
    label = f"{state.layer}, {len(ring_v):,} channels"
    axes.scatter([], [], 60, ORANGE, edgecolors=RING, label=label)
    axes.legend(loc="upper right", frameon=False)
    return png(fig, CAPTION), _sentence(state, shares, (v == 0).sum())


def read_eps(text: str) -> float:
    """Read the eps that somebody typed. Raises ValueError if it is no number from 0 to 1."""
    try:
        eps = float(text)
    except ValueError:
        eps = -1.0
    if not 0 <= eps <= 1:
        raise ValueError(f"eps must be a number from 0 to 1, such as 1e-5, not {text.strip()!r}.")
    return eps


class GainExplorer(Stored):
    """Show every channel of a network by variance and gain, at an eps: the last line of a cell.

    `network` is "resnet50", "lite0", or a model with BatchNorm2d or FrozenBatchNorm2d layers. The
    text/plain is the first preset's sentence. Raises ValueError or TypeError for a network that
    has nothing to show.
    """

    def __init__(self, network: str | nn.Module = "resnet50"):
        self._models: dict[str, tuple[str, dict[str, Layer]]] = {}
        options, first = list(NETWORKS), network
        if not isinstance(network, str):
            options, first = [GIVEN, *options], GIVEN
            self._models[GIVEN] = _named(network)
        elif network in NETWORKS.values():
            first = options[[*NETWORKS.values()].index(network)]
        layers = self._model(first)[1]
        self.network = dropdown(options, "network", "16em", first)
        self.layer = dropdown(list(layers), "layer", "18em", _most_affected(layers))
        self.eps = W.Text(
            value=short(PRESETS[0]),
            description="custom eps",
            continuous_update=False,
            style={"description_width": "6.5em"},
            layout=W.Layout(width="13em"),
        )
        self._shown = first, self.layer.value  # by the presets
        controls = [self.network, self.layer, self.eps]
        super().__init__("gain", self._states(), controls, picture, HEIGHT, WORDS)
        self.preset.description = "eps"
        self.text = self.text.splitlines()[0]

    @property
    def state(self) -> GainState:
        """What the controls say. Raises ValueError if the box holds no eps."""
        model = self._model(self.network.value)
        return GainState(*model, self.layer.value, read_eps(self.eps.value))

    def _states(self) -> dict[str, GainState]:
        """The presets' states for the chosen layer."""
        model = self._model(self.network.value)
        return {short(eps): GainState(*model, self.layer.value, eps) for eps in PRESETS}

    def _model(self, option: str) -> tuple[str, dict[str, Layer]]:
        """The name and the layers of a network."""
        if option not in self._models:
            self._models[option] = _named(load(NETWORKS.get(option, option)))
        return self._models[option]

    def _set(self, state: GainState) -> None:
        self.eps.value = short(state.eps)

    def _changed(self, change) -> None:
        if not self._following:
            return
        with self._not_following():
            if change["owner"] is self.network:
                try:
                    layers = self._model(change["new"])[1]
                except (RuntimeError, ValueError) as error:  # its weights are missing or altered
                    self.network.value = change["old"]
                    return self._say(str(error))
                self.layer.options = list(layers)
                self.layer.value = _most_affected(layers)
            if change["owner"] is not self.eps:
                try:
                    read_eps(self.eps.value)
                except ValueError:  # the new layer is shown all the same
                    self.eps.value = short(PRESETS[0])
        super()._changed(change)

    def _after_drawing(self) -> None:
        self._soon(self._follow)

    def _follow(self) -> None:
        """Draw the presets anew if another layer is chosen."""
        chosen = self.network.value, self.layer.value
        if chosen != self._shown:
            self._shown = chosen
            for view, state in zip(self._views, self._states().values(), strict=False):
                view.value = self._frame(*picture(state))


def _named(model: nn.Module) -> tuple[str, dict[str, Layer]]:
    layers = layers_of(model)
    return getattr(model, "provenance", type(model).__name__).partition(":")[0], layers


def _most_affected(layers: dict[str, Layer]) -> str:
    return max(layers, key=lambda name: layers[name].effect())


def _gain(variance: np.ndarray, eps: float) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return 1 / np.sqrt(variance + eps)


def _limits(variance: np.ndarray) -> tuple[float, float]:
    """Whole decades around the variances above 0 and the presets; the same for every eps."""
    varying = variance[variance > 0]
    low = max(min(varying.min(initial=1.0), *PRESETS[1:]) / 2, 1e-12)
    return 10 ** np.floor(np.log10(low)), 10 ** np.ceil(np.log10(varying.max(initial=1.0)))


def _sentence(state: GainState, shares: np.ndarray | None, zeros: int) -> str:
    eps, (v, _, own) = state.eps, state.layers[state.layer]
    which = f"eps {short(eps)} instead of its own" if eps != own else "its own eps"
    carried = "no difference"
    if shares is not None:
        largest, below = np.sort(shares)[-LARGEST:], v < (limit := max(eps, own))
        rest = "other channels'" if eps == 0 and (v == 0).any() else "layer's"
        small = f"and no variance is below {short(limit)}"
        if below.any():
            small = f"the {below.sum():,} of variance below {short(limit)} carry "
            small += f"{100 * shares[below].sum():.0f} %"
        carried = (
            f"the {len(largest)} largest dots carry {100 * largest.sum():.0f} % of the {rest} "
        )
        carried += f"difference, {small}"
    words = (
        f"{state.layer} of {state.network}, with {which}, {short(own)}: {len(v):,} channels, "
        f"variance {short(v.min())} … {short(v.max())}; {carried}."
    )
    if zeros:
        gain = "infinite" if eps == 0 else short(eps**-0.5) if eps > 1e-6 else f"{eps**-0.5:,.0f}"
        words += (
            f" {zeros:,} of the network's channels, {(v == 0).sum():,} of them here, have "
            f"variance 0: their gain is {gain}."
        )
    return words
