"""PyramidExplorer: a level of the pyramid under four normalizations, and where boxes come from."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection import FasterRCNN
from traitlets import Int, Unicode

from helpers.compare import ROUNDING
from helpers.course.explorers.explorer import YOURS, Control, Explorer, check, levels, png, saved
from helpers.course.explorers.feeding import bound, pictures, rounded, share
from helpers.course.explorers.levels import BATCHNORM, BODY_KINDS, LEVELS, Levels, SureBox, View
from helpers.inputs.scenes import SIZE
from helpers.networks.detector import load_detector

MEAN, NONE = -1, -1  # as a channel: the mean of all; as a box
CHANNELS = (MEAN, *range(16))
MOST_PROPOSALS = 5
COLORS = {2: "#B34700", 3: "#0060A0", 4: "#00704F", 5: "#A03070", 6: "#505050"}  # under white words
PRESETS = {"P2": {}, "P6": {"level": "P6"}, "C2": {"level": "C2"}, "C5": {"level": "C5"}}


class PyramidExplorer(Explorer):
    """The scene detector's pyramid: each level's map against BatchNorm's, proposals and boxes.

    Traits: `level`, one of LEVELS; `kind`, how the body normalizes, one of BODY_KINDS; `picture`;
    `channel` (−1: the mean); `box`, the sure box that is traced back (−1, or one that there is not:
    none). `model`: the detector if it is loaded already; None loads it. TypeError or ValueError for
    a model that is no scene detector in eval mode; RuntimeError if the weights are missing.
    """

    level, kind, picture = Unicode("P2"), Unicode(BATCHNORM), Unicode("scene 1")
    channel, box = Int(MEAN), Int(NONE)
    for trait in (level, kind, picture, channel, box):
        trait.tag(sync=True)
    del trait

    def __init__(self, model: FasterRCNN | None = None):
        self._levels = Levels(load_detector() if model is None else model)
        controls = {
            "kind": Control("the body normalizes by", tuple(BODY_KINDS)),
            "channel": Control("channel", CHANNELS, labels=("mean", *map(str, CHANNELS[1:]))),
            "picture": Control("picture", tuple(pictures()), below=True),
            "file": Control("or your own", look="file", side=SIZE, below=True),
        }
        super().__init__(PRESETS, controls, view=("level", "box"))
        self.data = saved(self.draw, self._states())

    def _states(self) -> Iterator[dict[str, Any]]:
        """Every level and every box under every kind, for the first picture: the page has these."""
        for kind in BODY_KINDS:
            state = self.state | {"kind": kind, "channel": MEAN, "box": NONE}
            yield from (state | {"level": level} for level in LEVELS)
            boxes = self._levels.view(self._image(state), kind).boxes
            for i, box in enumerate(boxes):
                yield state | {"level": f"P{box.pooled_from}", "box": i}

    def _image(self, state: dict[str, Any]) -> Tensor:
        return self.yours() if state["picture"] == YOURS else pictures()[state["picture"]][0]

    def draw(self, state: dict[str, Any]) -> dict[str, Any]:
        """The diagram of the levels, a level's maps, and the boxes with their proposals.

        One forward pass for a kind or picture that is new, none for another level, channel or box.
        ValueError for an unknown choice, and for what is not finite.
        """
        check(
            level=(state["level"], LEVELS),
            channel=(state["channel"], CHANNELS),
            kind=(state["kind"], BODY_KINDS),
            picture=(state["picture"], (*pictures(), YOURS)),
        )
        view = self._levels.view(self._image(state), state["kind"])
        box = view.boxes[state["box"]] if 0 <= state["box"] < len(view.boxes) else None
        return {
            **view.words(state["level"], box),
            "panels": [_diagram(view, state, box), _maps(view, state), _image(view, state, box)],
            "table": _table(view),
        }


def _diagram(view: View, state: dict[str, Any], box: SureBox | None) -> dict[str, Any]:
    """Image → C2 … C5, and below them P2 … P6 → heads: the cards choose the level."""

    def card(level: str, arrow: str) -> dict[str, Any]:
        number = int(level[1])
        rows, columns = view.now.maps[level].shape[-2:]
        one = {"title": level, "text": f"{rows} × {columns}", "arrow": arrow}
        if state["kind"] != BATCHNORM:
            off = view.off[level]
            one |= {"text": f"off {bound(off)}", "share": share(off)}
        if level[0] == "P":
            one |= {"kind": "own", "color": COLORS[number]}
            if box and number == box.proposed_by:
                one["text"] += ", proposes it"
            if box and number == box.pooled_from:
                one["text"] += ", pools it"
        return one | {"pick": {"level": level, "box": NONE}, "pressed": level == state["level"]}

    body = [card(level, "→" if level != "C5" else "") for level in LEVELS[:4]]
    pyramid = [card(level, "←" if level != "P5" else "→") for level in LEVELS[4:]]
    return {
        "kind": "cards",
        "arrows": True,
        "wide": True,
        "floor": share(ROUNDING),
        "rows": [
            [{"title": "image", "text": state["picture"]}, *body, {"title": ""}],
            [{"title": "RoI heads", "text": f"boxes: {len(view.boxes)}", "arrow": "←"}, *pyramid],
        ],
    }


def _maps(view: View, state: dict[str, Any]) -> dict[str, Any]:
    """The level's map, and how far it is from BatchNorm's; mere rounding leaves that blank."""
    level, channel = state["level"], state["channel"]
    now, base = (
        walked.maps[level][0].mean(0) if channel == MEAN else walked.maps[level][0, channel]
        for walked in (view.now, view.base)
    )
    low, high = (end.item() for end in torch.stack([now, base]).aminmax())
    of = "mean of the channels" if channel == MEAN else f"channel {channel}"
    scale = f"{rounded(low)} … {rounded(high)}"
    shown = [levels(level, now, low, high, note=scale)]
    if state["kind"] != BATCHNORM:
        reach = max((now - base).abs().max().item(), ROUNDING * max(abs(low), abs(high)))
        note = "rounding: blank" if view.off[level] <= ROUNDING else f"±{rounded(reach)}"
        shown.append(levels("with BatchNorm", base, low, high, note=scale))
        shown.append(levels("difference", now - base, -reach, reach, note=note, diverging=True))
    return {"kind": "maps", "maps": shown, "note": f"{level}, {of}"}


def _image(view: View, state: dict[str, Any], box: SureBox | None) -> dict[str, Any]:
    """The boxes; the level's best proposals, or that of the box which is traced back."""
    number, overlays = int(state["level"][1]), []
    if box:  # below the box, whose number can then be clicked
        text = f"its proposal, by P{box.proposed_by}"
        overlays.append(_overlay(box.proposal, box.proposed_by, "own dashed", text=text))
    else:
        by = view.now.proposed_by if number == 6 else view.now.pooled_from
        for proposal in view.now.proposals[by == number][:MOST_PROPOSALS].tolist():
            overlays.append(_overlay(proposal, number, "own thin"))
    for i, one in enumerate(view.boxes):
        more = {"text": one.name, "pressed": one == box}
        more["pick"] = {"box": NONE if one == box else i, "level": f"P{one.pooled_from}"}
        overlays.append(_overlay(one.xyxy, one.pooled_from, "own", **more))
    for one in () if box else view.lost:
        text = f"BatchNorm only: {one.name}"
        overlays.append(_overlay(one.xyxy, one.pooled_from, "truth", text=text))
    what = "Proposed by P6" if number == 6 else f"Pooled from P{number}"
    names = ", ".join(one.name for one in view.boxes) or "none"
    return {
        "kind": "image",
        "title": "A box, its proposal." if box else f"{what} (thin), and the boxes.",
        "note": "Numbers and colors: the level. Choose a box to trace it back.",
        "alt": f"{state['picture']}, boxes: {names}",
        "png": png(view.image, 64),
        "size": [view.image.shape[2], view.image.shape[1]],
        "boxes": overlays,
    }


def _overlay(xyxy: tuple[float, ...], level: int, kind: str, **more: Any) -> dict[str, Any]:
    one = {"box": [round(v, 1) for v in xyxy], "kind": kind, "badge": level}
    return one | {"color": COLORS[level]} | more


def _table(view: View) -> dict[str, Any]:
    rows = []
    for level in LEVELS:
        shape = " × ".join(map(str, view.now.maps[level].shape[1:]))
        row = [level, shape, f"{2 ** int(level[1])} px", bound(view.off[level])]
        if level[0] == "P":
            row += [len(view.now.anchors[level]), *view.counts(int(level[1]))]
        rows.append([str(cell) for cell in row])
    header = ["level", "map", "stride", "off from BatchNorm", "anchors", "proposals by it"]
    return {"header": [*header, "pooled from it"], "rows": rows}
