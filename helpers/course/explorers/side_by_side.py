"""Two networks side by side under a choice of normalization: what the NormExplorer shows."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import isfinite

import torch
from torch import Tensor

from helpers.compare import ROUNDING, Row
from helpers.course.explorers.variants import Variants
from helpers.networks import backbones
from helpers.norms import FROZEN_EPS, norm_layers
from helpers.stages import STAGES

NETWORKS = {"ResNet-50": "resnet50", "Lite0": "lite0", "Detector": "detector"}
RUNNING, BATCH, FROZEN = "running statistics", "batch statistics", "frozen"
EPS_0, EPS_DEFAULT, IDENTITY = "frozen, eps 0", "frozen, eps 1e-5", "identity"

EPS, STATISTICS, MISSING = "eps", "batch statistics", "missing normalization"


@dataclass(frozen=True)
class Side:
    """One network and the kind of normalization in each of its stages."""

    network: str
    kinds: tuple[str, ...]

    @classmethod
    def all(cls, network: str, kind: str) -> "Side":
        """The same kind in every stage."""
        return cls(network, (kind,) * len(STAGES))


@dataclass(frozen=True)
class NormState:
    """All that the explorer's controls say. `channel` None is the mean over channels."""

    a: Side
    b: Side
    photo: str = "cat"
    stage: str = "layer1"
    channel: int | None = None


def _resnet(a: str, b: str, **where) -> NormState:
    return NormState(Side.all("ResNet-50", a), Side.all("ResNet-50", b), **where)


PRESETS = {
    "December 2020": _resnet(RUNNING, EPS_0),
    "Today": _resnet(RUNNING, FROZEN),
    "The accepted answer's test": _resnet(EPS_0, EPS_0),
    "Forgot eval()": _resnet(RUNNING, BATCH),
    "Lite0 with the frozen default": NormState(
        Side.all("Lite0", RUNNING), Side.all("Lite0", EPS_DEFAULT), stage="layer3"
    ),
}


@dataclass(frozen=True)
class View:
    """What a state looks like: maps (H,W) at its stage, a Row per stage, and one sentence.

    `largest` is the channel in which A and B differ most at that stage.
    """

    a: Tensor
    b: Tensor
    rows: dict[str, Row]
    sentence: str
    largest: int
    channels: int


class CannotShow(ValueError):
    """One sentence for the reader: why a state has no picture, and what to do."""


@cache
def variants(network: str) -> Variants:
    """The network's variants, made once: its weights are loaded when it is first asked for."""
    return Variants(backbones.load(NETWORKS[network]))


@torch.inference_mode()
def view(state: NormState, image: Tensor, variants: Callable[[str], Variants] = variants) -> View:
    """The state's view on an image (1,3,H,W) in 0–1. CannotShow if there is nothing to compare."""
    if state.a.network != state.b.network:
        raise CannotShow(
            f"{state.a.network} and {state.b.network} have feature maps of different shape: "
            "choose the same network for A and B."
        )
    networks = variants(state.a.network)
    x = networks.normalize(image)
    maps_a, maps_b = (networks.maps(state.photo, x, side.kinds) for side in (state.a, state.b))
    rows = {stage: Row.of(maps_a[stage], maps_b[stage]) for stage in maps_a}
    if not all(isfinite(row.max_abs) for row in rows.values()):
        for letter, side, maps in (("A", state.a, maps_a), ("B", state.b, maps_b)):
            _refuse_nan(letter, side, maps, networks)
    a, b = maps_a[state.stage][0], maps_b[state.stage][0]
    if state.channel is not None and not 0 <= state.channel < len(a):
        raise CannotShow(f"{state.stage} has channels 0 to {len(a) - 1}, not {state.channel}.")
    largest = (a - b).abs().amax((1, 2)).argmax().item()
    pick = (lambda m: m.mean(0)) if state.channel is None else (lambda m: m[state.channel])
    return View(pick(a), pick(b), rows, sentence(state, rows, networks.eps), largest, len(a))


def sentence(state: NormState, rows: dict[str, Row], eps: float) -> str:
    """The main cause, and from which stage on it shows; rounding is given a bound, no digits.

    `eps` is what the network was trained with. The main cause is that of the stage, among those
    with different functions in A and B, at which the relative difference grows most.
    """
    if state.a == state.b:
        return "A and B hold the same layers, so nothing can differ."
    beyond = [stage for stage, row in rows.items() if row.relative > ROUNDING]
    if not beyond:
        return "Rounding at most: no stage parts by more than 1e-5 of max|A|."
    at_work = causes(state, eps)
    relative = [row.relative for row in rows.values()]
    growth = {s: now - old for s, now, old in zip(rows, relative, [0.0, *relative], strict=False)}
    main = at_work[max(at_work, key=growth.get)]
    others = sorted(set(at_work.values()) - {main})
    also = f" (also: {', '.join(others)})" if others else ""
    first, last = beyond[0].replace("stem", "the stem"), list(rows)[-1]
    return (
        f"Main cause: {main}{also}. A and B part from {first} on, "
        f"and in {last} by {rows[last].relative:.1g} of max|A|."
    )


def causes(state: NormState, eps: float) -> dict[str, str]:
    """Stage → what makes A's and B's layers different functions there, where they are."""
    by_stage = {}
    for stage, *kinds in zip(STAGES, state.a.kinds, state.b.kinds, strict=True):
        if IDENTITY in kinds and kinds[0] != kinds[1]:
            by_stage[stage] = MISSING
        elif BATCH in kinds and kinds[0] != kinds[1]:
            by_stage[stage] = STATISTICS
        elif len({eps if FROZEN_EPS.get(kind) is None else FROZEN_EPS[kind] for kind in kinds}) > 1:
            by_stage[stage] = EPS
    return by_stage


def _refuse_nan(letter: str, side: Side, maps: dict[str, Tensor], networks: Variants) -> None:
    for stage, kind in zip(maps, side.kinds, strict=True):
        if maps[stage].isfinite().all():
            continue
        layers = norm_layers(networks.part(stage, kind)).values()
        if dead := sum(int((layer.running_var == 0).sum()) for layer in layers if layer.eps == 0):
            raise CannotShow(
                f"{letter} is NaN from {stage} on: without eps, the {dead} channels there with "
                "running variance 0 have an infinite scale. Choose another kind."
            )
        raise CannotShow(f"{letter} is not finite from {stage} on: choose another kind there.")
