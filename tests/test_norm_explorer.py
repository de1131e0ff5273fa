"""The NormExplorer's controls, frames and messages, without a browser (that is in browser/)."""

import asyncio
import base64
import re
from types import SimpleNamespace

import pytest
from frames import pixels, recorded

from helpers.course.explorers import live, norm
from helpers.course.explorers.norm import NormExplorer, frame
from helpers.course.explorers.side_by_side import PRESETS, Side, view
from helpers.inputs import photos
from helpers.text import short

CUSTOM = len(PRESETS)


@pytest.fixture
def explorer():
    return NormExplorer()


def expected(state):
    return frame(state, view(state, photos.load(state.photo)))


def test_presets_are_frames_and_picking_one_sets_the_controls_and_draws_nothing(explorer):
    untouched, lines = explorer.frame, explorer.text.splitlines()[1:]
    assert explorer.state == PRESETS["December 2020"] and norm.UNTOUCHED in untouched
    for index, (name, state) in enumerate(PRESETS.items()):
        explorer.preset.index = index
        assert explorer.state == state and explorer.preset.index == index
        assert explorer._stack.children[index].value == expected(state)
        assert lines[index] == f"{name}: {view(state, photos.load('cat')).sentence}"
    assert explorer.frame == untouched


def test_all_stages_leads_and_follows_and_what_the_controls_say_is_drawn(explorer):
    side = explorer.sides["b"]
    side.every.value = "identity"
    assert side.value == Side.all("ResNet-50", "identity") and explorer.preset.index == CUSTOM
    assert explorer.frame == expected(explorer.state)
    side.kinds[2].value = "frozen"
    assert side.every.value == norm.MIXED and explorer.frame == expected(explorer.state)
    explorer.largest.click()
    assert explorer.state.channel == view(explorer.state, photos.load("cat")).largest
    assert explorer.frame == expected(explorer.state)


def test_bad_input_is_a_sentence_and_the_last_good_picture_stays(explorer):
    a, b = explorer.sides.values()
    explorer.stage.value, explorer.mean.value, explorer.channel.value = "layer4", False, 2000
    before = explorer.frame
    explorer.stage.value = "stem"
    assert "stem has channels 0 to 63, not 2000" in explorer.message
    explorer.preset.index = 1
    assert "Not shown" not in explorer.message
    a.network.value = "Lite0"
    assert "Lite0 and ResNet-50 have feature maps of different shape" in explorer.message
    assert explorer.frame == before and explorer.preset.index == 1
    b.network.value = "Lite0"
    assert "Not shown" not in explorer.message and explorer.preset.index == CUSTOM
    before = explorer.frame
    b.every.value = "frozen, eps 0"
    assert "B is NaN from stem on" in explorer.message and explorer.frame == before
    explorer._uploaded({"new": (SimpleNamespace(content=b"hello"),)})
    assert "The uploaded file is not a JPEG" in explorer.message and explorer.frame == before


def test_networks_at_hand_are_used_and_not_loaded_again(monkeypatch):
    given = {name: norm.variants(name) for name in ("ResNet-50", "Lite0")}
    monkeypatch.setattr(norm, "Variants", given.get)
    monkeypatch.setattr(norm, "variants", None)
    NormExplorer({name: name for name in given})
    with pytest.raises(ValueError, match="No network 'VGG' here: ResNet-50, Lite0"):
        NormExplorer({"VGG": None})


def test_of_a_burst_of_events_the_last_one_wins(explorer, monkeypatch):
    drawn = recorded(monkeypatch, norm, "frame")

    async def burst():
        for stage in ("stem", "layer2", "layer3", "layer4"):
            explorer.stage.value = stage
        await asyncio.sleep(5 * live.PATIENCE)

    asyncio.run(burst())
    assert [state.stage for state, _ in drawn] == ["layer4"]


def test_a_frame_shows_the_maps_on_one_scale_and_rounding_without_digits():
    for name in ("December 2020", "Today"):
        seen = view(PRESETS[name], photos.load("cat"))
        html = frame(PRESETS[name], seen)
        pngs = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
        maps = [pixels(base64.b64decode(png)) for png in pngs]
        assert [each.shape for each in maps] == [(56, 56, 3)] * 3  # the page enlarges
        for end in (min(seen.a.min(), seen.b.min()), max(seen.a.max(), seen.b.max())):
            assert short(end.item()) in html
        assert seen.sentence in html and "layer1 ◂" in html
        if name == "Today":
            assert "rounding at most: blank" in html and html.count("≤ 1e-5 of max|A|") == 5
            assert maps[2].min() > 180  # nothing but near-white
        else:
            assert short((seen.a - seen.b).abs().max().item()) in html
            assert f"{short(seen.rows['layer4'].relative)} of max|A|" in html
    rows = [norm._row("stem", norm.Row((1,), r, r, r, 1e-5), 0) for r in (0.0, 1e-8, 1e-5, 1e6)]
    widths = [float(re.search(r"width: ([\d.]+)%", row)[1]) for row in rows]
    assert widths == [0, 0, 33.3, 100]
