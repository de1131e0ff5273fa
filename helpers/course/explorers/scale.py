"""ScaleExplorer: what another eps does to the scale of every channel of a network."""

import base64
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from torch import nn
from traitlets import Float, Unicode

from helpers.course.explorers.explorer import Control, Explorer
from helpers.networks import backbones
from helpers.norms import norm_layers
from helpers.text import short

DEFAULTS = {
    1e-5: "torchvision's frozen default",
    0.0: "its default before 0.9",
    1e-3: "Keras's default",
}
EPS = (0.0, *(float(f"{10 ** (power / 10):.2g}") for power in range(-80, -9)))
LIMITS = {1: "1 %", 10: "10 %", 40: "40 %"}
LAST = 2**16 - 1  # of a variance's 16-bit numbers, which are logarithmic; 0 is variance 0
ALL = "all layers"


class Layer(NamedTuple):
    """The running variances of a layer, float64 (c,), and the eps that it was trained with."""

    variance: np.ndarray
    trained: float

    def errors(self, eps: float) -> np.ndarray:
        """How far 1/sqrt(variance + eps) is off the scale trained with, in percent of that one."""
        if eps == self.trained:
            return np.zeros_like(self.variance)
        with np.errstate(divide="ignore"):
            return 100 * (np.sqrt((self.variance + self.trained) / (self.variance + eps)) - 1)


class ScaleExplorer(Explorer):
    """Every channel of a network by its running variance and the error of its scale at another eps.

    `network`: "lite0", "resnet50" or a model with BatchNorm2d or FrozenBatchNorm2d layers. Traits:
    `eps`, at which the whole network runs, and `layer`, the one that is highlighted, or "all
    layers". ValueError for a network that has nothing to show.
    """

    modules = "plot.js", "scale.js"
    eps, layer = Float(1e-5).tag(sync=True), Unicode().tag(sync=True)

    def __init__(self, network: str | nn.Module = "lite0"):
        model = backbones.load(network) if isinstance(network, str) else network
        packed = [_packed(name, layer) for name, layer in layers_of(model).items()]
        # From the page's numbers, so that both count alike: a variance is off by 2e-4 at most.
        self._layers = {one[0]: Layer(_unpacked(one), one[1]) for one in packed}
        self._of = getattr(model, "provenance", type(model).__name__).partition(":")[0]
        trained = {layer.trained for layer in self._layers.values()}
        order = sorted(DEFAULTS, key=lambda eps: eps in trained)  # begin with a difference
        presets = {
            f"{DEFAULTS[eps]}, {short(eps)}{', as trained' * (trained == {eps})}": {"eps": eps}
            for eps in order
        }
        off = {name: abs(one.errors(order[0])) for name, one in self._layers.items()}
        self.layer = max(off, key=lambda n: ((off[n] > max(LIMITS)).sum(), off[n].max()))
        controls = {
            "eps": Control("eps", EPS, "range", tuple(short(eps, 2) for eps in EPS)),
            "layer": Control("layer", (ALL, *self._layers)),
        }
        variance = np.concatenate([layer.variance for layer in self._layers.values()])
        varying = variance[variance > 0].clip(1e-12)
        ends = varying.min(initial=min(1e-2, *trained) or 1e-2), varying.max(initial=1.0)
        low, high = 10 ** np.floor(np.log10(ends[0])), 10 ** np.ceil(np.log10(ends[1]))
        low /= 10 ** (len(varying) < len(variance))  # there stand those of variance 0
        self._axes = {
            "x": {"label": "running variance", "low": float(low), "high": float(high), "log": True},
            "y": {"label": "scale error, %", "low": 0.1, "high": 1000.0, "log": True},
        }
        data = {"layers": packed, "limits": list(LIMITS.items())}
        data |= {"axes": self._axes, "of": self._of}
        super().__init__(presets, controls, data)

    def draw(self, state: dict[str, Any]) -> dict[str, Any]:
        """Count the channels whose scale is off. ValueError for an eps or a layer that is none."""
        eps, layer = state["eps"], state["layer"]
        if not 0 <= eps <= 1:
            raise ValueError(f"eps must be a number from 0 to 1, not {eps}.")
        if layer not in (ALL, *self._layers):
            raise ValueError(f"No layer {layer!r} in {self._of}: choose one of its list.")
        errors = {name: one.errors(eps) for name, one in self._layers.items()}
        every = np.concatenate(list(errors.values()))
        headline, words = sentence(every, {one.trained for one in self._layers.values()}, eps)
        off = abs(every)
        counts = [
            {"title": f"{(off > limit).sum():,} channels", "text": f"off by more than {percent}"}
            for limit, percent in LIMITS.items()
        ]
        panels = [{"kind": "cards", "rows": [counts]}, self._plot(state, errors)]
        return {"headline": headline, "sentence": words, "panels": panels}

    def _plot(self, state: Mapping[str, Any], errors: Mapping[str, np.ndarray]) -> dict[str, Any]:
        axes, dots = self._axes, []
        for kind, names in (("many", self._layers), ("chosen", {state["layer"]} - {ALL})):
            x = [self._layers[name].variance.clip(axes["x"]["low"]) for name in names]
            y = [abs(errors[name]).clip(axes["y"]["low"], axes["y"]["high"]) for name in names]
            dots += [{"kind": kind, "x": np.concatenate(x), "y": np.concatenate(y)}] if x else []
        ends = [axes["x"]["low"], axes["x"]["high"]]
        lines = [{"kind": "thin", "x": ends, "y": [limit, limit]} for limit in LIMITS]
        layer = "" if state["layer"] == ALL else f"; orange: {state['layer']}"
        title = f"{self._of} at eps {short(state['eps'])}: every channel{layer}"
        return {"kind": "plot", "title": title, **axes, "dots": dots, "lines": lines}


def layers_of(model: nn.Module) -> dict[str, Layer]:
    """Collect what every layer of a model has that holds running variances and an eps.

    ValueError for what is no model, if no layer is left, and for a variance that cannot be.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"The network must be a torch.nn.Module, not {type(model).__name__}.")
    layers = {}
    for name, layer in norm_layers(model).items():
        variance, eps = getattr(layer, "running_var", None), getattr(layer, "eps", None)
        if variance is None or eps is None:
            continue
        variance = variance.detach().double().cpu().numpy()
        if not ((variance >= 0) & np.isfinite(variance)).all():
            raise ValueError(
                f"{name or 'It'} holds a running variance that is negative or not finite."
            )
        layers[name or "the model"] = Layer(variance, float(eps))
    if not layers:
        raise ValueError(
            f"{type(model).__name__} has no normalization layer with running statistics: give a "
            "network with BatchNorm2d or FrozenBatchNorm2d."
        )
    return layers


def sentence(every: np.ndarray, trained: set[float], eps: float) -> tuple[str, str]:
    """The headline, how many channels' scales are off by more than 10 %, and what it is said of."""
    own = " to ".join(map(short, sorted({min(trained), max(trained)})))
    if not every.any():
        words = f"of {len(every):,} are scaled wrongly: eps {own} is that of the training."
        return "0 channels", words
    ways = [every.max() > 0 and "too much", every.min() < 0 and "too little"]
    way = " or ".join(filter(None, ways))
    infinite = np.isinf(every).sum()
    also = f", {infinite:,} infinitely" if infinite else ""
    words = f"of {len(every):,} are scaled over 10 % {way}{also}"
    words += f": eps {short(eps)}, trained with {own}."
    return f"{(abs(every) > 10).sum():,} channels", words


def _packed(name: str, layer: Layer) -> list:
    """Name, trained eps, the ends of the variances above 0, and the variances in 16 bits."""
    v = layer.variance
    low, high = (v[v > 0].min(), v[v > 0].max()) if (v > 0).any() else (1.0, 1.0)
    share = np.log(np.where(v > 0, v, low) / low) / (np.log(high / low) or 1.0)
    codes = np.where(v > 0, 1 + np.rint((LAST - 1) * share), 0).astype("<u2")
    text = base64.b64encode(codes.tobytes()).decode()
    return [name, layer.trained, float(low), float(high), text]


def _unpacked(packed: list) -> np.ndarray:
    _, _, low, high, text = packed
    codes = np.frombuffer(base64.b64decode(text), "<u2")
    return np.where(codes > 0, low * (high / low) ** ((codes - 1.0) / (LAST - 1)), 0.0)
