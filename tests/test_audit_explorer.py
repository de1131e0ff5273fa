"""The audit explorer: frames against audit(), controls in step, errors said."""

import asyncio
import re

import pytest
from frames import recorded
from torch import nn

from helpers.audit import audit
from helpers.course.explorers import audit as module
from helpers.course.explorers import live
from helpers.course.explorers.audit import GIVEN, PRESETS, AuditExplorer, frame, sentence
from helpers.norms import freeze

CUSTOM = len(PRESETS)


@pytest.fixture
def explorer():
    return AuditExplorer()


def small():
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, eps=1e-3), nn.GroupNorm(1, 4))


def test_a_frame_holds_the_summary_and_the_layers():
    shown = frame(audit(freeze(small())))
    assert audit(freeze(small()))._repr_html_() in shown
    rows = re.findall("<tr>(.*?)</tr>", shown.partition("audit-layers")[2])
    assert [re.findall(">([^<]+)</t[hd]>", row) for row in rows] == [
        list(module.HEADER),
        ["1", "1", "FrozenBatchNorm2d", "4", "1e-3", "–", "train", "frozen", "≥ 1"],
        ["2", "1", "GroupNorm", "4", "1e-5", "–", "train", "trainable", "–"],
    ]
    shown = frame(module._of_builder("fasterrcnn_resnet50_fpn_v2"))
    rows = re.findall("<tr>(.*?)</tr>", shown.partition("audit-layers")[2])
    rows = [re.findall("<td>([^<]+)</td>", row) for row in rows]
    first, last = rows[1:]  # consecutive layers of one kind share a row
    assert first[:2] == ["backbone.body.bn1 … backbone.body.layer1.2.bn3", "11"]
    assert (first[3], first[7], last[1], last[7]) == ("64 … 256", "frozen", "54", "trainable")
    shown = frame(audit(nn.ModuleDict({"<b>": nn.BatchNorm2d(2)})))
    assert "&lt;b&gt;" in shown and "<b>" not in shown


def test_the_presets_are_their_audits_and_set_the_controls(explorer):
    before = explorer.frames
    *presets, untouched = before
    lines = explorer.text.splitlines()
    for index, (name, preset) in enumerate(PRESETS.items()):
        assert presets[index] == frame(module._of_builder(*preset))
        assert lines[index] == f"{name}: {sentence(module._of_builder(*preset))}"
        explorer.preset.index = index
        assert explorer.state == preset and explorer.preset.index == index
    assert explorer.frames == before and "this frame shows it live" in untouched
    codes = [re.findall(r"[a-z]+(?:-[a-z]+)+ in \d+ layers", line) for line in lines]
    assert codes == [[], [], ["statistics-move in 11 layers"], ["eps-differs in 46 layers"]]


def test_every_choice_is_shown_as_custom_or_refused_in_one_sentence(explorer):
    presets = explorer.frames[:-1]
    for name in ("resnet50", "deeplabv3_resnet50"):
        explorer.builder.value = name
        for _, weights in explorer.weights.options:
            before = explorer.frames
            explorer.weights.value = weights
            refused = "Not shown:" in explorer.message
            assert refused == (weights == "coco" and not name.startswith("deeplab")), name
            if refused:
                assert f"{name} has no weights &#x27;coco&#x27;" in explorer.message
                assert explorer.frames == before
            else:
                assert explorer.frames[-1] == frame(module._of_builder(name, weights))
        explorer.weights.value = "pretrained"
        assert "Not shown" not in explorer.message and explorer.preset.index == CUSTOM
    assert explorer.frames[:-1] == presets


def test_of_a_burst_the_last_wins(explorer, monkeypatch):
    drawn = recorded(monkeypatch, module, "_of_builder")

    async def burst():
        for name in ("fcos_resnet50_fpn", "ssd300_vgg16", "resnet50"):
            explorer.builder.value = name
        await asyncio.sleep(4 * live.PATIENCE)

    asyncio.run(burst())
    assert drawn == [("resnet50", "pretrained")]


def test_a_model_of_ones_own_is_shown_first_and_the_builders_stay_at_hand():
    model = freeze(small())
    explorer = AuditExplorer(model)
    assert explorer.state[0] == GIVEN and explorer.preset.index == CUSTOM
    assert explorer.frames[-1] == frame(audit(model)) and explorer.weights.disabled
    assert explorer.text.startswith(f"{GIVEN}: {sentence(audit(model))}\nv1, ImageNet backbone: ")
    explorer.preset.index = 0
    assert explorer.state[0] == "fasterrcnn_resnet50_fpn" and not explorer.weights.disabled
    with pytest.raises(TypeError, match="must be a torch.nn.Module, not int"):
        AuditExplorer(3)
