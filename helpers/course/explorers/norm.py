"""NormExplorer: toggle the normalization of a network, stage by stage, and see its maps part."""

import base64
from collections.abc import Mapping
from functools import partial
from itertools import product
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn
from traitlets import Float, Int, List, Unicode

from helpers.compare import ROUNDING, Row
from helpers.course.explorers.explorer import (
    YOURS,
    Control,
    Explorer,
    check,
    levels,
    log_share,
    png,
)
from helpers.course.explorers.variants import BATCH, FROZEN, IDENTITY, KINDS, RUNNING, Variants
from helpers.inputs import photos
from helpers.networks import backbones
from helpers.norms import norm_layers
from helpers.stages import STAGES
from helpers.text import short

NETWORKS = {"Lite0": "lite0", "Detector": "detector", "ResNet-50": "resnet50"}
LABELS = "EfficientNet-Lite0 (trained)", "the scene detector's body (trained)", "ResNet-50"
EPS = (0.0, *(10.0**power for power in range(-8, 0)))
share = partial(log_share, low=1e-8, high=10.0)  # how long a bar is
MEAN = -1  # as a channel: the mean of all
SHOWN = 12  # channels that differ most
PAGE_KINDS = RUNNING, FROZEN, BATCH  # those that the page can mix without Python
PRESETS = {
    "another eps": {},
    "in one stage only": {"kinds_b": [RUNNING, RUNNING, FROZEN, RUNNING, RUNNING]},
    "forgot eval()": {"kind_b": BATCH, "kinds_b": [BATCH] * 5},
    "ResNet-50, December 2020": {"network": "ResNet-50", "eps": 0.0},
    "ResNet-50, today": {"network": "ResNet-50"},
    "the accepted answer's test": {"network": "ResNet-50", "eps": 0.0, "kind_a": FROZEN},
}


class NormExplorer(Explorer):
    """A network twice, A and B, with a kind of normalization for each stage of B.

    Traits: `network`, `photo`, `stage` (the one that is open), `channel` (−1: the mean), `kind_a`,
    `kind_b` (all stages), `kinds_b` (one each; a mixture leaves `kind_b` as it was), and `eps`, of
    frozen layers. `networks` may hand over loaded ones by these names, which saves memory.
    ValueError for another name.
    """

    modules = ("norm.js",)
    network, photo, stage = Unicode("Lite0"), Unicode("cat"), Unicode("layer3")
    kind_a, kind_b, kinds_b = Unicode(RUNNING), Unicode(FROZEN), List([FROZEN] * 5)
    eps, channel = Float(1e-5), Int(MEAN)
    for trait in (network, photo, stage, kind_a, kind_b, kinds_b, eps, channel):
        trait.tag(sync=True)
    del trait

    def __init__(self, networks: Mapping[str, nn.Module] | None = None):
        for name in networks or ():
            check(network=(name, NETWORKS))
        self._variants = {name: Variants(model) for name, model in (networks or {}).items()}
        controls = {
            "kind_b": Control("B, all stages:", KINDS, all="kinds_b"),
            "eps": Control("eps of frozen layers", EPS, "range", tuple(map(short, EPS))),
            "network": Control("network", tuple(NETWORKS), labels=LABELS, below=True),
            "kind_a": Control("A", KINDS, below=True),
            "photo": Control("photo", photos.NAMES, below=True),
            "file": Control("or your own", look="file", side=224, below=True),
        }
        super().__init__(PRESETS, controls, self._data(), ("stage", "channel", "kinds_b"))
        self.observe(self._lead, "kind_b")
        self.observe(self._follow, "kinds_b")

    def _lead(self, change) -> None:
        self.kinds_b = [change["new"]] * len(STAGES)

    def _follow(self, change) -> None:
        if len(set(change["new"])) == 1:
            self.kind_b = change["new"][0]

    def _network(self, name: str) -> Variants:
        if name not in self._variants:
            check(network=(name, NETWORKS))
            self._variants[name] = Variants(backbones.load(NETWORKS[name]))
        return self._variants[name]

    @torch.inference_mode()
    def draw(self, state: dict[str, Any]) -> dict[str, Any]:
        """Both networks on the photo; per stage the mean map of A, and how far B's is from it.

        ValueError for an unknown choice, and where there is nothing finite to compare.
        """
        _check(state)
        network = self._network(state["network"])
        yours = state["photo"] == YOURS
        image = self.yours()[None] if yours else photos.load(state["photo"])
        key = hash(image.numpy().tobytes()) if yours else state["photo"]
        sides = (state["kind_a"],) * len(STAGES), tuple(state["kinds_b"])
        x = network.normalize(image)
        a, b = (network.maps(key, x, kinds, state["eps"]) for kinds in sides)
        stage, channel, channels = state["stage"], state["channel"], a[state["stage"]].shape[1]
        if not MEAN <= channel < channels:
            raise ValueError(f"{stage} has channels 0 to {channels - 1}, not {channel}.")
        rows = {stage: Row.of(a[stage], b[stage]) for stage in a}
        if not all(isfinite(row.max_abs) for row in rows.values()):
            for letter, kinds, maps in (("A", sides[0], a), ("B", sides[1], b)):
                _refuse(letter, kinds, maps, network, state["eps"])
        found = causes(*sides, network.eps, state["eps"])
        opened = None if channel == MEAN else _stage(a[stage], b[stage], rows[stage], channel)
        return {
            "sentence": sentence(rows, found, sides[0] == sides[1]),
            "stages": [_stage(a[stage], b[stage], row) for stage, row in rows.items()],
            "channels": [_most(a[stage][0], b[stage][0]) for stage in rows],
            "opened": opened,
            "photo": png(image[0, :, ::2, ::2], 64),
        }

    def stored(self, state: dict[str, Any], frame: dict[str, Any]) -> dict[str, Any] | None:
        """Nothing of the network that the page computes."""
        if state["network"] == "Lite0":
            return None
        for one in frame["stages"]:
            if one["relative"] <= ROUNDING:
                one["d"]["values"] = ""
        return frame | {"channels": [], "photo": None, "partial": True}

    def panels(self, state: dict[str, Any], frame: dict[str, Any]) -> list[dict[str, Any]]:
        """The open stage's maps, and a bar per stage."""
        one = frame["stages"][STAGES.index(state["stage"])]
        values = _values(one["a"]) - _values(one["d"])
        maps = [one["a"], levels("B", values, one["a"]["low"], one["a"]["high"]), one["d"]]
        rows = [
            {"label": stage, "share": share(at["relative"]), "text": times(at["relative"])}
            for stage, at in zip(STAGES, frame["stages"], strict=True)
        ]
        title = "max|A − B| / max|A| by stage; gray: rounding"
        bars = {"kind": "bars", "title": title, "floor": share(ROUNDING), "rows": rows}
        return [{"kind": "maps", "maps": maps}, bars]

    @torch.inference_mode()
    def _data(self) -> dict[str, Any]:
        """All that the page needs to mix three kinds over five stages, 363 maps, without Python."""
        network, image = self._network("Lite0"), photos.load("cat")
        x, eps = network.normalize(image), self.eps
        trained = (RUNNING,) * len(STAGES)
        data = {"stages": STAGES, "all": KINDS, "kinds": PAGE_KINDS}
        data |= {"network": "Lite0", "photo": "cat"}
        data |= {"eps": eps, "rounding": ROUNDING, "picture": png(image[0, :, ::2, ::2], 64)}
        data |= {"a": [], "reach": [], "relative": [], "d": []}
        rows: dict[tuple[str, ...], Row] = {}
        for depth, (stage, a) in enumerate(network.maps("cat", x, trained, eps).items(), 1):
            maps = []
            for kinds in product(PAGE_KINDS, repeat=depth):
                b = network.maps("cat", x, kinds, eps)[stage]
                rows[kinds] = Row.of(a, b)
                maps.append(_stage(a, b, rows[kinds]))
            data["a"].append(maps[0]["a"])
            data["reach"].append([float(f"{one['d']['high']:.3g}") for one in maps])
            data["relative"].append([float(f"{one['relative']:.3g}") for one in maps])
            eight = b"".join(base64.b64decode(one["d"]["values"]) for one in maps)
            data["d"].append(base64.b64encode(eight).decode())
        mains = []
        for kinds in product(PAGE_KINDS, repeat=len(STAGES)):
            at = {stage: rows[kinds[:depth]] for depth, stage in enumerate(STAGES, 1)}
            mains.append(cause(at, causes(trained, kinds, network.eps, eps)))
        known = list(dict.fromkeys(mains))
        return data | {"cause": list(map(known.index, mains)), "causes": known}


def sentence(rows: Mapping[str, Row], causes: Mapping[str, str], same: bool) -> str:
    """The main cause, and where A and B part; rounding is given a bound, no digits."""
    beyond = [stage for stage, row in rows.items() if row.relative > ROUNDING]
    if same:
        return "A and B hold the same layers, so nothing can differ."
    if not beyond or not causes:
        return "Rounding at most: no stage parts by more than 1e-5 of max|A|."
    last, row = list(rows.items())[-1]
    part = f"A and B part from {beyond[0]} on, in {last} by {short(row.relative, 2)} of max|A|."
    return f"Main cause: {cause(rows, causes)}. {part}"


def cause(rows: Mapping[str, Row], causes: Mapping[str, str]) -> str:
    """The main cause, that of the stage at which the relative difference grows most; the others."""
    relative = [row.relative for row in rows.values()]
    growth = {s: now - old for s, now, old in zip(rows, relative, [0.0, *relative], strict=False)}
    main = causes[max(causes, key=growth.get)] if causes else ""
    others = sorted(set(causes.values()) - {main})
    return main + (f" (also: {', '.join(others)})" if others else "")


def causes(a: tuple[str, ...], b: tuple[str, ...], own: float, eps: float) -> dict[str, str]:
    """Stage → what makes A's and B's layers different functions there, where they are.

    `own`: the eps that the network was trained with; `eps`: that of frozen layers.
    """
    found = {}
    for stage, *kinds in zip(STAGES, a, b, strict=True):
        if kinds[0] == kinds[1]:
            continue
        if IDENTITY in kinds:
            found[stage] = "missing normalization"
        elif BATCH in kinds:
            found[stage] = "batch statistics"
        elif own != eps:
            found[stage] = "eps"
    return found


def times(relative: float) -> str:
    """A relative difference as a multiple of rounding, which is ROUNDING at most, in words."""
    if relative <= ROUNDING:
        return "rounding"
    return f"≥ {float(f'{relative / ROUNDING:.2g}'):,.0f} × rounding"


def _check(state: Mapping[str, Any]) -> None:
    check(photo=(state["photo"], (*photos.NAMES, YOURS)), stage=(state["stage"], STAGES))
    for kind in (state["kind_a"], *state["kinds_b"]):
        check(kind=(kind, KINDS))
    if len(state["kinds_b"]) != len(STAGES):
        raise ValueError(f"kinds_b takes one kind for each of {', '.join(STAGES)}.")
    if not 0 <= state["eps"] < 1:
        raise ValueError(f"eps must be a number from 0 to 1, not {state['eps']}.")


def _stage(a: Tensor, b: Tensor, row: Row, channel: int = MEAN) -> dict[str, Any]:
    """A map of A and that of A − B, on scales that hold both; mere rounding leaves A − B blank."""
    a, b = (x[0].mean(0) if channel == MEAN else x[0, channel] for x in (a, b))
    low, high = (end.item() for end in torch.stack([a, b]).aminmax())
    reach = max((a - b).abs().max().item(), ROUNDING * max(abs(low), abs(high)))
    difference = levels("A − B", a - b, -reach, reach, diverging=True)
    return {"a": levels("A", a, low, high), "d": difference, "relative": row.relative}


def _most(a: Tensor, b: Tensor) -> list[list]:
    """The channels that differ most: [number, max|A − B|]."""
    largest, numbers = (a - b).abs().amax((1, 2)).topk(min(SHOWN, len(a)))
    return [[n, float(f"{v:.3g}")] for n, v in zip(numbers.tolist(), largest.tolist(), strict=True)]


def _refuse(letter: str, kinds, maps: Mapping[str, Tensor], network: Variants, eps: float) -> None:
    for stage, kind in zip(maps, kinds, strict=True):
        if maps[stage].isfinite().all():
            continue
        layers = norm_layers(network.part(stage, kind, eps)).values()
        if dead := sum(int((layer.running_var == 0).sum()) for layer in layers if layer.eps == 0):
            raise ValueError(
                f"{letter} is NaN from {stage} on: without eps, the {dead} channels there with "
                "running variance 0 have an infinite scale. Choose a larger eps."
            )
        raise ValueError(f"{letter} is not finite from {stage} on: choose another kind there.")


def _values(one: Mapping[str, Any]) -> Tensor:
    eight = torch.frombuffer(bytearray(base64.b64decode(one["values"])), dtype=torch.uint8)
    return one["low"] + (one["high"] - one["low"]) * eight.double().view(one["shape"]) / 254
