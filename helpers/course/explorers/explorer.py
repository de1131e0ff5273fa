"""The base of the explorers: a widget whose frames are data, drawn by the page or from Python.

CONTRIBUTING.md, Frames, says what one holds. The page takes a frame from its own modules, from what
is saved, or asks for it.
"""

import base64
import io
import json
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from math import log10
from pathlib import Path
from typing import Any, NamedTuple

import anywidget
import numpy as np
import torch
from IPython.display import display
from PIL import Image
from torch import Tensor
from traitlets import Dict, List, Unicode

from helpers.course.explorers.still import still
from helpers.figures import activation_map, difference_map

HERE = Path(__file__).parent
TOP, MISSING = 254, 255  # of a map's 8-bit numbers: the end of its range; what is not finite
YOURS = "your picture"
STANDS_IN = "{}: a live view. It moves in JupyterLab, once the notebook is trusted."
LONG = 60  # characters of JSON from which on what is repeated is saved once
WHOLE = {"header", "pick", "box"}  # the keys by which one knows a table, a card, a box


class Control(NamedTuple):
    """A control of the page; its `look` is select, buttons, range or file.

    `options`: the values of its trait; `labels`: what stands for them. `all`: the trait that holds
    an entry per stage, all of which this one sets. `side`: px of a reader's picture. `below`: it
    stands below the panels, for what is used less.
    """

    label: str
    options: tuple = ()
    look: str = "select"
    labels: tuple[str, ...] | None = None
    all: str | None = None
    side: int | None = None
    below: bool = False


class Explorer(anywidget.AnyWidget):
    """A view with controls, whose traits are real: `link`, `jslink` and `observe` work with them.

    A subclass has a trait per part of its state, tagged `sync`, and `draw`. It shows itself as a
    cell's last line, below a static picture that stands where no widget can.
    """

    modules: tuple[str, ...] = ()  # files whose JavaScript computes frames in the page
    _esm, _css = HERE / "explorer.js", HERE / "explorer.css"
    spec, data = Dict().tag(sync=True), Dict().tag(sync=True)
    presets = List().tag(sync=True)
    page = Unicode().tag(sync=True)

    def __init__(
        self,
        presets: Mapping[str, Mapping[str, Any]],
        controls: Mapping[str, Control],
        data: Mapping[str, Any] | None = None,
        view: tuple[str, ...] = (),
    ):
        """`presets`: name → what differs from the traits' defaults; the first one is shown first.

        `controls`: trait → control, in order. `data`: what the modules compute with. `view`: traits
        that have no control of their own.
        """
        super().__init__()
        self._drawing = threading.RLock()  # messages may come in several threads
        self._yours: Tensor | None = None
        traits = list(dict.fromkeys([*(n for n in controls if self.has_trait(n)), *view]))
        defaults = {name: getattr(self, name) for name in traits}
        drawn, stored, lines = [], [], []
        for name, changes in presets.items():
            state = defaults | changes
            try:
                frame = self.draw(state)
                kept = self.stored(state, frame)
            except ValueError as error:  # with a reader's own weights nothing may be finite
                if not drawn:
                    raise
                frame, kept = {"sentence": str(error)}, None  # the page asks, and is told
            drawn.append((state, frame))
            stored.append({"name": name, "state": state, "frame": kept})
            words = " ".join(filter(None, [frame.get("headline"), frame["sentence"]]))
            lines.append(words if words.startswith(f"{name}:") else f"{name}: {words}")
        self.text = "\n".join(lines)
        self._first = drawn[0]
        for name, value in self._first[0].items():
            setattr(self, name, value)
        with self.hold_sync():
            files = (HERE / name for name in self.modules)
            self.page = "\n".join(file.read_text(encoding="utf-8") for file in files)
            self.data, self.presets = dict(data or {}), stored
            self.spec = {
                "name": type(self).__name__,
                "modules": list(self.modules),
                "traits": traits,
                "controls": [
                    {"trait": trait} | {k: v for k, v in one._asdict().items() if v is not None}
                    for trait, one in controls.items()
                ],
                "palettes": {
                    "activation": _palette(activation_map()),
                    "difference": _palette(difference_map()),
                },
                "yours": YOURS,
                "photo": next((n for n in traits if n in ("photo", "picture")), None),
            }
        self.on_msg(self._answer)

    def draw(self, state: dict[str, Any]) -> dict[str, Any]:
        """The frame of a state. ValueError, in one sentence for the reader, if it has none."""
        raise NotImplementedError

    def stored(self, state: dict[str, Any], frame: dict[str, Any]) -> dict[str, Any] | None:
        """What is saved of a preset's frame: None where `data` has it, or the page computes it."""
        return None

    def panels(self, state: dict[str, Any], frame: dict[str, Any]) -> list[dict[str, Any]]:
        """The panels of a frame, for the static picture."""
        return frame["panels"]

    @property
    def state(self) -> dict[str, Any]:
        """The traits that say what is shown."""
        return {name: getattr(self, name) for name in self.spec["traits"]}

    def _answer(self, _, question: dict[str, Any], buffers: list) -> None:
        if question.get("hello"):
            return self.send({"ready": True})
        answer = {"id": question.get("id")}
        try:
            with self._drawing:
                if question.get("pixels"):
                    rgba = torch.frombuffer(bytearray(buffers[0]), dtype=torch.uint8)
                    side = round((len(rgba) / 4) ** 0.5)
                    rgb = rgba.view(side, side, 4)[..., :3]
                    self._yours = rgb.permute(2, 0, 1).float() / 255
                state = {name: question["state"][name] for name in self.spec["traits"]}
                answer["frame"] = self.draw(state)
        except ValueError as error:
            answer["error"] = str(error)
        except Exception as error:  # the page waits for an answer
            answer["error"] = f"{type(error).__name__}: {error}"
        self.send(answer)

    def yours(self) -> Tensor:
        """The reader's picture, float32 (3,side,side) in 0–1. ValueError before there is one."""
        if self._yours is None:
            raise ValueError("There is no picture of yours yet: choose, drop or paste one.")
        return self._yours

    def _ipython_display_(self) -> None:
        picture = still(self.panels(*self._first), self.text.partition("\n")[0])
        data = {"image/png": base64.b64encode(picture).decode(), "text/plain": self.text}
        display(data, metadata={"image/png": {"alt": self.text}}, raw=True)
        data, metadata = self._repr_mimebundle_()
        stands_in = STANDS_IN.format(type(self).__name__)
        display({**data, "text/plain": stands_in}, metadata=metadata, raw=True)


def saved(draw: Callable, states: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Draw the frames of `states` as an explorer's `data`: pairs of a state and its frame, as JSON.

    What is long and may be repeated, such as a picture, stands once in `pool`: {"$": its index}.
    """
    pool: dict[str, int] = {}

    def shared(part: Any) -> Any:
        whole = isinstance(part, str) or (isinstance(part, Mapping) and WHOLE & part.keys())
        text = json.dumps(part, ensure_ascii=False, separators=(",", ":"))
        if whole and len(text) > LONG:
            return {"$": pool.setdefault(text, len(pool))}
        if isinstance(part, Mapping):
            return {name: shared(value) for name, value in part.items()}
        return [shared(each) for each in part] if isinstance(part, list) else part

    frames = [[state, shared(draw(state))] for state in states]
    frames = json.dumps(frames, ensure_ascii=False, separators=(",", ":"))
    return {"frames": frames, "pool": f"[{','.join(pool)}]"}


def check(**given: tuple[object, Collection]) -> None:
    """ValueError, in one sentence, for a value that is not among the choices: (value, choices)."""
    for name, (value, choices) in given.items():
        if value not in choices:
            listed = ", ".join(map(str, choices))
            raise ValueError(f"No {name} {value!r} here: choose one of {listed}.")


def levels(title: str, values: Tensor, low: float, high: float, **more: Any) -> dict[str, Any]:
    """A map (H,W) in 8-bit numbers from `low` to `high`, which are −r and r for a difference."""
    array = values.detach().cpu().double().numpy()
    share = (np.where(np.isfinite(array), array, low) - low) / ((high - low) or 1.0)
    eight = np.where(np.isfinite(array), np.rint(TOP * share.clip(0, 1)), MISSING)
    text = base64.b64encode(eight.astype(np.uint8).tobytes()).decode()
    ends = {"low": low, "high": high}
    return {"title": title, "shape": list(values.shape), "values": text, **ends, **more}


def log_share(value: float, low: float, high: float) -> float:
    """How far along a log scale from `low` to `high` a value is, 0 to 1."""
    return log10(min(max(value, low), high) / low) / log10(high / low)


def png(image: Tensor, colors: int = 256) -> str:
    """An image (3,H,W), clamped to 0–1, as a palette PNG in base64."""
    values = (255 * image.clamp(0, 1)).round().byte().permute(1, 2, 0).cpu().numpy()
    picture = Image.fromarray(np.ascontiguousarray(values))
    picture.quantize(colors, Image.Quantize.FASTOCTREE).save(out := io.BytesIO(), "png")
    return base64.b64encode(out.getvalue()).decode()


def _palette(colormap) -> str:
    colors = colormap(np.linspace(0, 1, TOP + 1))[:, :3]
    table = np.concatenate([np.rint(255 * colors), [[128, 128, 128]]]).astype(np.uint8)
    return base64.b64encode(table.tobytes()).decode()
