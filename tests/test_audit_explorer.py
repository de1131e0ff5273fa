"""The audit explorer: frames against audit(), controls in step, errors said."""

import asyncio
import html
import re

import pytest
import torch
from torch import nn

from helpers.audit import audit, audit_builder
from helpers.course.explorers import audit as module
from helpers.course.explorers import live
from helpers.course.explorers.audit import GIVEN, OTHERS, PRESETS, AuditExplorer, frame, sentence
from helpers.norms import freeze


@pytest.fixture
def explorer():
    return AuditExplorer()


def small():
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, eps=1e-3), nn.GroupNorm(1, 4))


def words(frame):
    return " ".join(html.unescape(re.sub("<[^>]*>", " ", frame)).split())


# The frame


def test_a_frame_holds_the_summary_and_the_layers():
    shown = frame(audit(freeze(small())))
    assert audit(freeze(small()))._repr_html_() in shown
    assert "never-calibrated" in words(shown)
    rows = re.findall("<tr>(.*?)</tr>", shown)
    assert [re.findall(">([^<]+)</t[hd]>", row) for row in rows] == [
        list(module.HEADER),
        ["1", "1", "FrozenBatchNorm2d", "4", "1e-3", "–", "train", "frozen", "≥ 1"],
        ["2", "1", "GroupNorm", "4", "1e-5", "–", "train", "trainable", "–"],
    ]


def test_consecutive_layers_of_one_kind_share_a_row():
    shown = frame(audit_builder("fasterrcnn_resnet50_fpn_v2"))
    rows = [re.findall("<td>([^<]+)</td>", row) for row in re.findall("<tr>(.*?)</tr>", shown)]
    first, last = rows[1:]
    assert first[:2] == ["backbone.body.bn1 … backbone.body.layer1.2.bn3", "11"]
    assert (first[3], first[7], last[1], last[7]) == ("64 … 256", "frozen", "54", "trainable")


def test_both_parts_of_a_frame_have_a_fixed_height_and_scroll_by_keyboard():
    for shown in (frame(None), frame(audit(small()))):
        assert shown.count('tabindex="0"') == shown.count("aria-label=") == 2
    for part in ("audit-words", "audit-layers"):
        assert re.search(rf"\.{part} {{[^}}]*height: \d+em; overflow: auto", module.STYLE)


def test_names_are_escaped():
    shown = frame(audit(nn.ModuleDict({"<b>": nn.BatchNorm2d(2)})))
    assert "&lt;b&gt;" in shown and "<b>" not in shown


def test_a_layer_by_itself_has_a_name():
    assert GIVEN in words(frame(audit(nn.BatchNorm2d(2))))


# The widget


def test_the_presets_frames_are_the_audits_of_the_presets(explorer):
    assert explorer.preset.options == (*PRESETS, "custom")
    for preset, shown in zip(PRESETS.values(), explorer.frames, strict=False):
        assert shown == frame(audit_builder(*preset))
    assert "this frame shows it live" in explorer.frames[-1] and len(set(explorer.frames)) == 5


def test_what_the_presets_say(explorer):
    said = dict(zip(PRESETS, map(words, explorer.frames), strict=False))
    assert "No findings" in said["v1, ImageNet backbone"]
    assert "FrozenBatchNorm2d, eps 0. No findings" in said["v1, COCO weights"]
    assert "statistics-move: 11 layers" in said["v2"]
    assert "eps-differs: 46 layers" in said["MobileNetV3"]


def test_the_presets_switch_in_the_page_by_a_link(monkeypatch):
    links = []
    monkeypatch.setattr(module.W, "jslink", lambda *ends: links.append(ends))
    for model, index in ((None, 0), (small(), len(PRESETS))):
        explorer = AuditExplorer(model)
        ((preset, name), (stack, selected)) = links.pop()
        assert (preset, name, selected) == (explorer.preset, "index", "selected_index")
        assert [child.value for child in stack.children] == explorer.frames
        assert stack.selected_index == preset.index == index


def test_picking_a_preset_sets_the_controls_and_does_not_switch_to_custom(explorer):
    before = explorer.frames
    for index in (1, 2, 3, 0):
        explorer.preset.index = index
        assert explorer.state == list(PRESETS.values())[index] and explorer.preset.index == index
    assert explorer.frames == before


def test_a_control_switches_to_custom_and_is_shown_there(explorer):
    presets = explorer.frames[:-1]
    explorer.weights.value = "none"
    assert explorer.preset.value == "custom"
    assert explorer.frames[-1] == frame(audit_builder("fasterrcnn_resnet50_fpn", "none"))
    explorer.builder.value = "deeplabv3_resnet50"
    assert explorer.frames[-1] == frame(audit_builder("deeplabv3_resnet50", "none"))
    assert "batch-of-one" in explorer.frames[-1] and explorer.frames[:-1] == presets


def test_choosing_custom_shows_what_the_controls_say(explorer):
    explorer.preset.index = 2
    explorer.preset.index = len(PRESETS)
    assert explorer.frames[-1] == explorer.frames[2] and explorer.preset.value == "custom"


def test_a_burst_draws_only_the_last(explorer, monkeypatch):
    drawn = []

    def audited(*state):
        drawn.append(state)
        return audit_builder(*state)

    monkeypatch.setattr(module, "_of_builder", audited)

    async def burst():
        for name in ("fcos_resnet50_fpn", "ssd300_vgg16", "resnet50"):
            explorer.builder.value = name
        await asyncio.sleep(4 * live.PATIENCE)

    asyncio.run(burst())
    assert drawn == [("resnet50", "pretrained")]


def test_every_choice_is_shown_or_refused_in_one_sentence(explorer):
    for name in OTHERS:
        explorer.builder.value = name
        for _, weights in explorer.weights.options:
            explorer.weights.value = weights
            refused = "Not shown:" in explorer.message
            assert refused == (weights == "coco" and not name.startswith("deeplab")), name
            assert name in words(explorer.frames[-1])
        explorer.weights.value = "pretrained"
        assert "Not shown" not in explorer.message


def test_after_a_bad_choice_the_last_good_frame_stays(explorer):
    explorer.builder.value = "resnet50"
    before = explorer.frames
    explorer.weights.value = "coco"
    assert "resnet50 has no weights &#x27;coco&#x27;" in explorer.message
    assert explorer.frames == before
    explorer.preset.index = 1
    assert "Not shown" not in explorer.message


def test_a_model_of_ones_own_is_shown_first_and_the_builders_stay_at_hand():
    model = freeze(small())
    explorer = AuditExplorer(model)
    assert explorer.builder.options[:2] == (GIVEN, "fasterrcnn_mobilenet_v3_large_320_fpn")
    assert explorer.state[0] == GIVEN and explorer.preset.value == "custom"
    assert explorer.frames[-1] == frame(audit(model)) and explorer.weights.disabled
    assert explorer.text.startswith(f"{GIVEN}: {sentence(audit(model))}\nv1, ImageNet backbone: ")
    explorer.preset.index = 0
    assert explorer.state[0] == "fasterrcnn_resnet50_fpn" and not explorer.weights.disabled
    explorer.builder.value = GIVEN
    assert explorer.frames[-1] == frame(audit(model)) and explorer.weights.disabled


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")
def test_what_cannot_be_audited_is_refused_in_one_sentence():
    with pytest.raises(TypeError, match="must be a torch.nn.Module, not int"):
        AuditExplorer(3)
    with pytest.raises(TypeError, match="A scripted model hides the classes of its layers"):
        AuditExplorer(torch.jit.script(small()))


def test_every_control_has_a_label(explorer):
    controls = (explorer.preset, explorer.builder, explorer.weights)
    assert [control.description for control in controls] == ["preset", "builder", "weights"]


def test_the_output_is_a_sentence_per_preset_where_widgets_cannot_run(explorer, monkeypatch):
    shown = []
    monkeypatch.setattr(live, "display", lambda data, **options: shown.append((data, options)))
    explorer.builder.value = "resnet50"
    explorer._ipython_display_()
    data, options = shown[0]
    lines = data["text/plain"].splitlines()
    for line, (label, preset) in zip(lines, PRESETS.items(), strict=True):
        assert line == f"{label}: {sentence(audit_builder(*preset))}"
    assert lines[3].endswith(
        "eps-differs in 46 layers (backbone.body.0.1, backbone.body.1.block.0.1, …)."
    )
    assert "application/vnd.jupyter.widget-view+json" in data and options["raw"]
