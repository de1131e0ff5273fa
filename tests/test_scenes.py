"""The synthetic scenes: the same everywhere, and true to their targets."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch

from helpers.inputs.scenes import SIZE, scenes

COUNT = 40
DIGEST = "53dbac83bacb573d83da5bf23219de9f98ba673e296deb8b65c649b0fcfbaec2"
PLAIN_PATH = {
    "ATEN_CPU_CAPABILITY": "default",
    # numpy's names for them, before 2.4 and since
    "NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3 AVX512F AVX512_SKX AVX512_ICL X86_V3 X86_V4",
}


def digest():
    """The sha256 of scenes on gray instead of the photos, so that no JPEG decoder counts."""
    sha256 = hashlib.sha256()
    photo = "helpers.inputs.scenes._photo"
    with patch(photo, lambda name: np.full((3, 200, 200 + len(name)), 0.4)):
        for light, shift in [(False, None), (True, None), (True, "texture"), (False, "gain")]:
            for image, target in scenes(40, 7, light, shift):
                pixels = (image * 255).round().byte()
                for tensor in (pixels, target["boxes"].short(), target["labels"]):
                    sha256.update(tensor.numpy().tobytes())
    return sha256.hexdigest()


@pytest.fixture(scope="module")
def drawn():
    return scenes(COUNT, 7)


def same(one, other):
    return torch.equal(one[0], other[0]) and all(
        torch.equal(one[1][name], other[1][name]) for name in ("boxes", "labels")
    )


def test_a_scene_is_what_torchvision_trains_on(drawn):
    assert len(drawn) == COUNT
    for image, target in drawn:
        assert image.shape == (3, SIZE, SIZE) and image.dtype == torch.float32
        assert 0 <= image.min() < image.max() <= 1
        assert torch.equal((image * 255).round().byte().float() / 255, image)  # 8 bits deep
        assert target.keys() == {"boxes", "labels"}
        assert target["boxes"].dtype == torch.float32 and target["labels"].dtype == torch.int64
        assert 1 <= len(target["labels"]) == len(target["boxes"]) <= 6
        left, top, right, bottom = target["boxes"].T
        assert (0 <= left).all() and (left < right).all() and (right <= SIZE).all()
        assert (0 <= top).all() and (top < bottom).all() and (bottom <= SIZE).all()


def test_boxes_are_tight_around_what_is_visible(monkeypatch):
    black = torch.zeros(1, 3, SIZE, SIZE)
    monkeypatch.setattr("helpers.inputs.scenes._photo", lambda name: black[0].double().numpy())
    alone = [scene for scene in scenes(60, 3) if len(scene[1]["labels"]) == 1]
    assert len(alone) > 3
    for image, target in alone:
        strongest = image.amax()
        rows, columns = (image.amax(0) >= 0.55 * strongest).nonzero().T
        drawn = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert (drawn - target["boxes"][0]).abs().max() <= 1


def test_a_scene_depends_on_seed_and_place_only(drawn):
    torch.manual_seed(3)
    again = scenes(5, 7)
    assert all(same(*pair) for pair in zip(again, drawn, strict=False))
    assert not any(same(*pair) for pair in zip(again, scenes(5, 8), strict=True))
    again[0][0].zero_()
    assert same(scenes(1, 7)[0], drawn[0])


def test_the_scenes_are_the_recorded_ones():
    assert digest() == DIGEST


@pytest.mark.sweep
def test_the_same_scenes_on_the_plainest_processor_path():
    code = [sys.executable, "-c", "import test_scenes; print(test_scenes.digest())"]
    env = os.environ | PLAIN_PATH
    out = subprocess.run(code, capture_output=True, text=True, env=env, cwd=Path(__file__).parent)
    assert out.stdout.strip() == DIGEST, out.stderr


def test_an_unknown_shift_is_one_sentence():
    with pytest.raises(ValueError, match="No shift 'night' here: choose one of texture, gain, or"):
        scenes(1, 1, shift="night")
