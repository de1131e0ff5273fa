"""ScalingExplorer: what the loader emits, what the network expects, and what it then detects."""

from typing import Any

from torchvision.models.detection import FasterRCNN
from traitlets import Float, Unicode

from helpers.compare import ROUNDING
from helpers.course.explorers import feeding
from helpers.course.explorers.explorer import YOURS, Control, Explorer, check, png, saved
from helpers.inputs.pixels import KNOWN
from helpers.inputs.scenes import SIZE
from helpers.networks.detector import load_detector

BRIGHTNESS = (0.1, 0.2, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0)
PRESETS = {  # the names are those of pixels.loader_mistakes
    "0-255": {},
    "halved": {"emits": "halved"},
    "normalized twice": {"emits": "torchvision"},
    "BGR": {"emits": "BGR"},
    "-1 to 1": {"emits": "keras-tf"},
    "right": {"emits": "0-1"},
}


class ScalingExplorer(Explorer):
    """A loader, the scene detector and a picture: what it emits, what it expects, what it finds.

    Traits: `emits` and `expects`, formats of helpers.inputs.pixels.KNOWN; `picture`; `brightness`,
    by which the picture is multiplied before the loader has it. `model`: the detector if it is
    loaded already; None loads it. TypeError or ValueError for a model that is no scene detector in
    eval mode; RuntimeError if the detector's weights are missing.
    """

    emits, expects = Unicode("0-255").tag(sync=True), Unicode("0-1").tag(sync=True)
    picture, brightness = Unicode("scene 1").tag(sync=True), Float(1.0).tag(sync=True)

    def __init__(self, model: FasterRCNN | None = None):
        self._feeding = feeding.Feeding(load_detector() if model is None else model)
        times = tuple(f"× {feeding.rounded(one)}" for one in BRIGHTNESS)
        controls = {
            "emits": Control("loader emits", tuple(KNOWN)),
            "expects": Control("network expects", tuple(KNOWN)),
            "brightness": Control("brightness", BRIGHTNESS, "range", times),
            "picture": Control("picture", tuple(feeding.pictures()), below=True),
            "file": Control("or your own", look="file", side=SIZE, below=True),
        }
        super().__init__(PRESETS, controls)
        # The page has what the network finds for all that the loader can emit.
        self.data = saved(self.draw, [self.state | {"emits": one} for one in KNOWN])

    def draw(self, state: dict[str, Any]) -> dict[str, Any]:
        """The chain with its numbers, the right input beside the one that is fed, a bar per stage.

        ValueError for an unknown choice, and where maps are not finite.
        """
        check(picture=(state["picture"], (*feeding.pictures(), YOURS)))
        if not 0 < state["brightness"] <= 10:
            raise ValueError(
                f"brightness must be above 0 and at most 10, not {state['brightness']}."
            )
        yours = state["picture"] == YOURS
        image, target = (self.yours(), None) if yours else feeding.pictures()[state["picture"]]
        emits, expects = state["emits"], state["expects"]
        view = self._feeding.view(image, target, state["brightness"], emits, expects)
        largest = max(view.off, key=view.off.get)
        by = feeding.rounded(view.off[largest])
        most = f"{largest}'s maps are off most, by {by} × their right maximum."
        if view.off[largest] <= ROUNDING:
            most = "no stage is off by more than rounding (≤ 1e-5)."
        return {
            "headline": f"{view.found.words}.",
            "sentence": f"The loader emits {emits}, the network expects {expects}: {most}",
            "panels": [_chain(view, state["brightness"]), *_images(view, state), _bars(view)],
        }


def _chain(view: feeding.View, brightness: float) -> dict[str, Any]:
    """What becomes of the values on their way, smallest and largest."""
    times = "" if brightness == 1 else f" × {feeding.rounded(brightness)}"
    cut = ", cut off at 1" if brightness > 1 else ""
    cards = [
        {"title": f"picture{times}{cut}", "text": feeding.span(view.image)},
        {"title": "loader", "text": f"emits {view.emitted}"},
    ]
    for title, point in (("normalized", feeding.ENTERING), ("conv1", feeding.LEAVING)):
        now, right = view.spans[point]
        text = f"{now}, as is right" if now == right else f"{now}, right: {right}"
        cards.append({"title": title, "text": text, "warn": now != right})
    return {"kind": "cards", "arrows": True, "wide": True, "rows": [cards]}


def _images(view: feeding.View, state: dict[str, Any]) -> list[dict[str, Any]]:
    """The right input and what is fed, each with what is found in it."""
    outside = (view.fed - 0.5).abs().max() > 0.5 + 1e-4  # by more than rounding
    clipped = "; values outside 0–1 are drawn as 0 or 1" if outside else ""
    now = f"{state['emits']} where {state['expects']} is expected"
    sides = (("The right input", view.image, view.right, ""), (now, view.fed, view.found, clipped))
    return [
        {
            "kind": "image",
            "title": f"{title}:",
            "note": f"{found.words}{clipped}.",
            "alt": f"{title}, {state['picture']}: {found.words}.",
            "png": png(image, 64),
            "size": [image.shape[2], image.shape[1]],
            "boxes": found.boxes,
        }
        for title, image, found, clipped in sides
    ]


def _bars(view: feeding.View) -> dict[str, Any]:
    return {
        "kind": "bars",
        "title": "max|now − right| / max|right| of each stage's maps; log scale, gray: rounding",
        "floor": feeding.share(ROUNDING),
        "rows": [
            {"label": stage, "share": feeding.share(off), "text": feeding.bound(off)}
            for stage, off in view.off.items()
        ],
    }
