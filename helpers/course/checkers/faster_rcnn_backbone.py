"""The exercise on Faster R-CNN's backbone."""

import copy
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torchvision.models.detection import FasterRCNN

from helpers.course.checkers.checker import RETURNS_NOTHING, Checker, is_empty
from helpers.faster_rcnn import walk
from helpers.inputs.scenes import scenes
from helpers.networks.detector import load_detector

ORDER = "transform C2 C3 C4 C5 P5 P6 P4 P3 P2 anchors scores proposals".split()


def change(model: FasterRCNN, step: str) -> None:
    """Change the one thing that makes a detector depart at `step`."""
    match step:
        case "transform":
            model.transform.image_mean = [0.5] * 3
        case "C4":
            model.backbone.body["layer3"][0].bn1.eps = 0.1
        case "P5" | "P4":
            model.backbone.fpn.inner_blocks[int(step[1]) - 2][0].weight.data.mul_(2)
        case "proposals":
            model.rpn.nms_thresh = 0.5


def steps(changed: str) -> dict[str, Tensor]:
    """What each step gives for one image; the levels stand by number, as in the lesson."""
    model, image = load_detector(), scenes(1, seed=2018)[0][0]
    change(model, changed)
    walked = walk(model, image)
    boxes, scores = (torch.cat([*part.values()]) for part in (walked.anchors, walked.objectness))
    maps = {"transform": walked.image, **walked.body, **walked.pyramid}
    return maps | {"anchors": boxes, "scores": scores, "proposals": walked.proposals}


@cache
def cases() -> dict[str, tuple]:
    """The step that departs first → what is given."""
    one = steps("none")
    return {step: (one, steps(step)) for step in "transform C4 P4 P5 proposals none".split()}


def find_mistake(attempt: Callable) -> str | None:
    answers = {step: attempt(*copy.deepcopy(given)) for step, given in cases().items()}
    if all(map(is_empty, answers.values())):
        return RETURNS_NOTHING
    for step, answer in answers.items():
        if answer not in (*ORDER, "none"):
            return 'return the name of a step, or "none".'
        if answer != step:
            why = ": the FPN starts at C5, and makes P2 last" if step[0] == "P" else ""
            return f"where {step} departs first, you return {answer}{why}."
    return None


def by_name(one, other):
    return next((s for s in one if not torch.equal(one[s], other[s])), "none")


def from_the_coarsest(one, other):
    order = [*ORDER[:5], "P6", "P5", *ORDER[7:]]
    return next((s for s in order if not torch.equal(one[s], other[s])), "none")


CHECKERS = {
    "09-departs": Checker(
        find_mistake,
        praise="of all that differ, you name the step that is computed first.",
        wrong={
            "where P4 departs first, you return P2: the FPN starts at C5": by_name,
            "where P5 departs first, you return P6": from_the_coarsest,
        },
    )
}
