"""The base of the explorers: presets, traits, questions and answers, without a browser."""

import base64
import io
import json
import threading

import ipywidgets
import numpy as np
import pytest
import torch
from PIL import Image
from traitlets import Int, Unicode

from helpers.course.explorers.explorer import HERE, YOURS, Control, Explorer, levels, png

BARS = [{"kind": "bars", "rows": [{"label": "a", "share": 0.5, "text": "half"}]}]


class Toy(Explorer):
    number, photo = Int(1).tag(sync=True), Unicode("cat").tag(sync=True)

    def __init__(self):
        controls = {"number": Control("number", (1, 2, 3)), "photo": Control("photo", ("cat",))}
        self.calls, self.inside, self.most = [], 0, 0
        super().__init__({"one": {}, "two": {"number": 2}}, controls)

    def draw(self, state):
        self.calls.append(dict(state))
        self.inside += 1
        self.most = max(self.most, self.inside)
        if state["number"] > 3:
            raise ValueError("number is 3 at most.")
        mean = self.yours().mean().item() if state["photo"] == YOURS else 0.0
        self.inside -= 1
        return {"sentence": f"{state['number']}, {mean:.2f}.", "panels": BARS}


@pytest.fixture
def toy(monkeypatch):
    toy = Toy()
    toy.answers = []
    monkeypatch.setattr(toy, "send", lambda content, buffers=None: toy.answers.append(content))
    return toy


def ask(toy, number=1, photo="cat", pixels=None, id=7):
    question = {"id": id, "state": {"number": number, "photo": photo}, "pixels": pixels is not None}
    toy._answer(toy, question, [] if pixels is None else [memoryview(pixels)])
    return toy.answers[-1]


def test_presets_are_drawn_once_saved_in_order_and_said(toy):
    assert [one["name"] for one in toy.presets] == ["one", "two"]
    assert toy.presets[1]["state"] == {"number": 2, "photo": "cat"}
    assert toy.presets[1]["frame"] is None
    assert toy.text == "one: 1, 0.00.\ntwo: 2, 0.00." and len(toy.calls) == 2
    saved = json.dumps([toy.spec, toy.presets, toy.data])
    assert saved == json.dumps([(again := Toy()).spec, again.presets, again.data])


def test_a_preset_that_cannot_be_drawn_says_why_and_is_asked_for(monkeypatch):
    def init(self, last):
        states = {"one": {"number": last - 1}, "two": {"number": last}}
        Explorer.__init__(self, states, {"number": Control("number", (1, 2, 3))}, view=("photo",))

    monkeypatch.setattr(Toy, "__init__", init)
    monkeypatch.setattr(Toy, "calls", [], raising=False)
    monkeypatch.setattr(Toy, "inside", 0, raising=False)
    monkeypatch.setattr(Toy, "most", 0, raising=False)
    toy = Toy(4)
    assert toy.text == "one: 3, 0.00.\ntwo: number is 3 at most."
    assert toy.presets[1] == {"name": "two", "state": toy.state | {"number": 4}, "frame": None}
    with pytest.raises(ValueError, match="number is 3 at most."):
        Toy(5)


def test_a_question_is_answered_by_a_frame_or_one_sentence(toy):
    toy._answer(toy, {"hello": True}, [])
    assert toy.answers == [{"ready": True}]
    assert ask(toy, 3) == {"id": 7, "frame": {"sentence": "3, 0.00.", "panels": BARS}}
    assert ask(toy, 4) == {"id": 7, "error": "number is 3 at most."}
    assert "choose, drop or paste one" in ask(toy, photo=YOURS)["error"]
    toy._answer(toy, {"id": 8, "state": {}}, [])
    assert toy.answers[-1] == {"id": 8, "error": "KeyError: 'number'"}  # the page must not wait


def test_the_readers_pixels_are_used_and_never_state(toy):
    pixels = np.full((4, 4, 4), 255, np.uint8)
    pixels[..., 0] = 0
    before = toy.get_state()
    assert ask(toy, photo=YOURS, pixels=pixels.tobytes())["frame"]["sentence"] == "1, 0.67."
    assert toy.yours().shape == (3, 4, 4) and toy.yours()[0].max() == 0
    assert toy.get_state() == before


def test_questions_from_several_threads_are_drawn_one_at_a_time(toy):
    threads = [threading.Thread(target=ask, args=(toy, 2)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert toy.most == 1 and len(toy.answers) == 8


def test_controls_are_traits_that_ipywidgets_links(toy):
    slider, seen = ipywidgets.IntSlider(min=1, max=3), []
    ipywidgets.link((slider, "value"), (toy, "number"))
    toy.observe(lambda change: seen.append(change["new"]), "number")
    slider.value = 3
    assert toy.number == 3 and seen == [3] and toy.draw(toy.state)["sentence"] == "3, 0.00."
    assert ipywidgets.jslink((slider, "value"), (toy, "number")).source == (slider, "value")
    assert ipywidgets.HBox([toy, slider]).children == (toy, slider)


def test_it_shows_a_static_picture_and_then_itself(toy, monkeypatch):
    shown = []
    monkeypatch.setattr(
        "helpers.course.explorers.explorer.display", lambda data, **options: shown.append(data)
    )
    toy._ipython_display_()
    static, live = shown
    assert static["text/plain"] == toy.text
    assert Image.open(io.BytesIO(base64.b64decode(static["image/png"]))).width == 1600
    assert "trust" in live["text/plain"] and "application/vnd.jupyter.widget-view+json" in live


def test_a_map_travels_in_eight_bits():
    values = torch.tensor([[-1.0, 0.0, 1.0], [torch.nan, 2.0, 0.5]])
    one = levels("A − B", values, -1.0, 1.0, diverging=True)
    eight = np.frombuffer(base64.b64decode(one["values"]), np.uint8)
    assert one["shape"] == [2, 3] and eight.tolist() == [0, 127, 254, 255, 254, 190]
    picture = Image.open(io.BytesIO(base64.b64decode(png(torch.rand(3, 5, 6)))))
    assert (picture.mode, picture.size) == ("P", (6, 5))


def test_the_modules_are_small():
    module = (HERE / "explorer.js").read_bytes()
    scripts = [*HERE.glob("*.js"), *HERE.glob("*.css")]
    assert len(module) <= 25_000
    assert sum(len(file.read_text("utf-8").splitlines()) for file in scripts) <= 1200
