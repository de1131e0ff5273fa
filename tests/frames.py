"""What the tests of the explorers read in a frame: its sentence, its picture, its pixels."""

import base64
import html
import io
import re

import numpy as np
from PIL import Image


def shown(frame):
    """The picture, as PNG bytes, and the sentence."""
    sentence = re.search(r'-sentence" role="status">(.*?)</div>', frame)[1]
    return base64.b64decode(re.search(r"base64,([^\"]+)", frame)[1]), html.unescape(sentence)


def pixels(png):
    """(H,W,3) of what is a palette PNG."""
    image = Image.open(io.BytesIO(png))
    assert (image.format, image.mode) == ("PNG", "P")
    return np.asarray(image.convert("RGB")).astype(int)


def near(image, color, within=12):
    rgb = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return np.abs(image - rgb).sum(-1) < within


def recorded(monkeypatch, owner, name):
    """The arguments of every call from here on; what is called still does what it did."""
    calls, call = [], getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *a, **k: calls.append(a) or call(*a, **k))
    return calls
