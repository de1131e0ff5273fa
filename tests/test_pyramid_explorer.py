"""The PyramidExplorer's frames: maps and overlays against the view, the diagram, what is saved."""

import base64
import json

import numpy as np
import pytest
import torch

from helpers.compare import ROUNDING
from helpers.course.explorers.explorer import MISSING, TOP, YOURS
from helpers.course.explorers.feeding import bound, pictures
from helpers.course.explorers.levels import BATCH, BATCHNORM, BODY_KINDS, EPS_0, FROZEN, LEVELS
from helpers.course.explorers.pyramid import COLORS, PRESETS, PyramidExplorer
from helpers.networks.detector import load_detector


@pytest.fixture(scope="module")
def explorer():
    return PyramidExplorer(load_detector())


def state_of(explorer, **changes):
    names = explorer.spec["traits"]
    return {name: explorer.traits()[name].default_value for name in names} | changes


def frame(explorer, **changes):
    return explorer.draw(state_of(explorer, **changes))


def numbers(one):
    """The values of a map, which has 255 steps."""
    eight = np.frombuffer(base64.b64decode(one["values"]), np.uint8).reshape(one["shape"])
    assert (eight < MISSING).all()
    return one["low"] + (one["high"] - one["low"]) * eight / TOP


def test_it_opens_as_the_detector_is_and_sentences_are_short(explorer):
    assert (explorer.level, explorer.kind) == ("P2", BATCHNORM) and not PRESETS["P2"]
    for changes in PRESETS.values():
        one = frame(explorer, **changes)
        assert len(one["sentence"].split()) <= 24
    assert frame(explorer, level="P3", kind=BATCH)["headline"] == "P3 is off by 0.4."
    assert frame(explorer, level="P3", kind=FROZEN)["headline"] == "P3 is off by ≤ 1e-5."


def test_the_maps_are_the_levels_and_rounding_is_blank(explorer):
    scene, _ = pictures()["scene 1"]
    for level, channel, kind in (("P3", -1, BATCH), ("C5", 2, EPS_0), ("P4", 3, FROZEN)):
        view = explorer._levels.view(scene, kind)
        both = [walked.maps[level][0] for walked in (view.now, view.base)]
        now, base = (x.mean(0) if channel < 0 else x[channel] for x in both)
        _, maps, _ = frame(explorer, level=level, channel=channel, kind=kind)["panels"]
        wanted = (now, base, now - base)
        for one, values in zip(maps["maps"], wanted, strict=True):
            step = (one["high"] - one["low"]) / TOP
            assert np.abs(numbers(one) - values.numpy()).max() <= 0.51 * step
        blank = numbers(maps["maps"][2]) == 0
        assert blank.all() == (kind == FROZEN) == (maps["maps"][2]["note"] == "rounding: blank")
    _, maps, _ = frame(explorer, kind=BATCHNORM)["panels"]
    assert len(maps["maps"]) == 1  # nothing to subtract


def test_the_diagram_chooses_the_level_and_says_how_far_each_is_off(explorer):
    view = explorer._levels.view(pictures()["scene 1"][0], BATCH)
    diagram = frame(explorer, level="C4", kind=BATCH)["panels"][0]
    cards = {card["title"]: card for row in diagram["rows"] for card in row if "pick" in card}
    assert tuple(cards) == LEVELS
    assert [title for title, card in cards.items() if card["pressed"]] == ["C4"]
    for level, card in cards.items():
        assert card["pick"] == {"level": level, "box": -1}
        assert card["text"] == f"off {bound(view.off[level])}" and view.off[level] > ROUNDING
        assert card.get("color") == (COLORS[int(level[1])] if level[0] == "P" else None)


def test_a_box_is_traced_back_to_its_proposal_and_level(explorer):
    view = explorer._levels.view(pictures()["scene 1"][0], BATCH)
    _, _, image = frame(explorer, level="P3", kind=BATCH)["panels"]
    pooled = view.now.proposals[view.now.pooled_from == 3]
    thin = [one["box"] for one in image["boxes"] if one["kind"] == "own thin"]
    assert np.allclose(thin, pooled[: len(thin)].numpy(), atol=0.06) and thin
    lost = [one["text"] for one in image["boxes"] if one["kind"] == "truth"]
    assert lost == [f"BatchNorm only: {one.name}" for one in view.lost]
    picks = [one for one in image["boxes"] if "pick" in one]
    for box, one in zip(view.boxes, picks, strict=True):
        assert (one["badge"], one["color"]) == (box.pooled_from, COLORS[box.pooled_from])
        assert one["text"] == box.name and not one["pressed"]
        traced = frame(explorer, **one["pick"], kind=BATCH)
        *_, chosen = traced["panels"]
        assert box.name in traced["headline"]
        [proposal] = [each for each in chosen["boxes"] if each["kind"] == "own dashed"]
        assert proposal["badge"] == box.proposed_by
        assert np.allclose(proposal["box"], box.proposal, atol=0.06)
        [again] = [each["pick"] for each in chosen["boxes"] if each.get("pressed")]
        assert again == one["pick"] | {"box": -1}  # a second click leaves it
        text = " ".join(card.get("text", "") for row in traced["panels"][0]["rows"] for card in row)
        assert ", pools it" in text and ", proposes it" in text
    unchanged = explorer._levels.view(pictures()["scene 1"][0], BATCHNORM).boxes
    assert [box.proposed_by for box in unchanged if box.pooled_from == 2] == [3, 3]  # lesson 09
    none = frame(explorer, box=99)  # of another picture
    assert none == frame(explorer)


def test_bad_input_is_one_sentence_and_a_readers_pictures_are_shown(explorer):
    for changes, words in (
        ({"picture": "dog"}, "No picture 'dog' here: choose one of scene 0"),
        ({"level": "P7"}, "No level 'P7' here: choose one of C2"),
        ({"kind": "GroupNorm"}, "No kind 'GroupNorm' here"),
        ({"channel": 16}, "No channel 16 here"),
        ({"picture": YOURS}, "There is no picture of yours yet"),
    ):
        with pytest.raises(ValueError, match=words):
            frame(explorer, **changes)
    explorer._yours = torch.rand(3, 128, 128)
    assert frame(explorer, picture=YOURS)["panels"][2]["size"] == [128, 128]


def test_what_is_saved_is_small_and_holds_every_level_and_box(explorer):
    assert len(json.dumps([explorer.presets, explorer.data, explorer.spec])) <= 150_000
    states = [state for state, _ in json.loads(explorer.data["frames"])]
    for kind in BODY_KINDS:
        for level in LEVELS:
            assert state_of(explorer, kind=kind, level=level) in states
        view = explorer._levels.view(pictures()["scene 1"][0], kind)
        of_kind = [state["box"] for state in states if state["kind"] == kind]
        assert sorted(of_kind)[len(LEVELS) :] == [*range(len(view.boxes))]
