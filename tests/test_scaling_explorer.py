"""The ScalingExplorer's frames: numbers against the view, words, own pictures, what is saved."""

import json

import pytest
import torch

from helpers.course.explorers.explorer import YOURS
from helpers.course.explorers.feeding import ENTERING, Feeding, bound, pictures, share
from helpers.course.explorers.scaling import PRESETS, ScalingExplorer
from helpers.inputs.pixels import KNOWN
from helpers.networks.detector import load_detector


@pytest.fixture(scope="module")
def explorer():
    return ScalingExplorer(load_detector())


def frame(explorer, **changes):
    state = {name: trait.default_value for name, trait in explorer.traits().items()}
    return explorer.draw({name: state[name] for name in explorer.spec["traits"]} | changes)


def test_it_opens_on_a_mistake_and_says_it_in_a_pair_of_words(explorer):
    assert next(iter(PRESETS)) == "0-255" == explorer.emits and explorer.expects == "0-1"
    for changes in PRESETS.values():
        one = frame(explorer, **changes)
        emits = changes.get("emits", "0-255")
        assert f"The loader emits {emits}, the network expects 0-1: " in one["sentence"]
        assert len(one["sentence"].split()) <= 20
        assert ("≤ 1e-5" in one["sentence"]) == (emits == "0-1")
        words = json.dumps(one)
        assert not any(other in words for other in ("emitted", "told", "taken"))


def test_the_panels_are_those_of_the_view(explorer):
    feeding = Feeding(load_detector())
    for name, emits, expects, brightness in (
        ("scene 0", "0-255", "0-1", 1.0),
        ("cat", "BGR", "keras-tf", 0.5),
        ("scene 0", "halved", "halved", 2.0),
    ):
        view = feeding.view(*pictures()[name], brightness, emits, expects)
        state = {"picture": name, "emits": emits, "expects": expects, "brightness": brightness}
        chain, right, now, bars = frame(explorer, **state)["panels"]
        [[picture, loader, normalized, _]] = chain["rows"]
        assert ("×" in picture["title"]) == (brightness != 1)
        assert ("cut off at 1" in picture["title"]) == (brightness > 1)
        assert loader["text"] == f"emits {view.emitted}"
        assert str(view.spans[ENTERING][0]) in normalized["text"]
        assert normalized["warn"] == (emits != expects)
        for panel, found in ((right, view.right), (now, view.found)):
            assert found.words in panel["note"] and found.words in panel["alt"]
            assert panel["boxes"] == found.boxes
        for row, off in zip(bars["rows"], view.off.values(), strict=True):
            assert (row["text"], row["share"]) == (bound(off), share(off))


def test_bad_input_is_one_sentence_and_a_readers_picture_is_shown(explorer):
    for changes, words in (
        ({"picture": "dog"}, "No picture 'dog' here: choose one of scene 0"),
        ({"emits": "caffe"}, "No format 'caffe': choose one of torchvision"),
        ({"brightness": 0.0}, "brightness must be above 0"),
        ({"picture": YOURS}, "There is no picture of yours yet"),
    ):
        with pytest.raises(ValueError, match=words):
            frame(explorer, **changes)
    explorer._yours = torch.rand(3, 128, 128)
    assert "a photo has no truth" in frame(explorer, picture=YOURS, emits="0-1")["headline"]
    explorer._yours = torch.zeros(3, 128, 128)  # another one is not taken for the first
    assert frame(explorer, picture=YOURS)["panels"][0]["rows"][0][0]["text"] == "0 … 0"


def test_what_is_saved_is_small_and_holds_all_that_the_loader_can_emit(explorer):
    saved = json.dumps([explorer.presets, explorer.data, explorer.spec])
    assert len(saved) <= 120_000 and "your picture:" not in saved
    pool, frames = json.loads(explorer.data["pool"]), json.loads(explorer.data["frames"])

    def whole(part):
        if isinstance(part, dict):
            return pool[part["$"]] if "$" in part else {k: whole(v) for k, v in part.items()}
        return [whole(each) for each in part] if isinstance(part, list) else part

    assert [state["emits"] for state, _ in frames] == list(KNOWN)
    for state, one in frames[::4]:
        assert list(state) == explorer.spec["traits"]
        assert whole(one) == json.loads(json.dumps(explorer.draw(state)))
