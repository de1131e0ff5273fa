"""The diagram of lesson 09: all parts are drawn, named in its description, and readable."""

import torch

from helpers.course.diagrams.pipeline import ARROWS, PARTS, pipeline_diagram


def test_every_part_is_drawn_with_its_role_or_shape():
    assert {part for arrow in ARROWS for part in arrow} == PARTS.keys()
    for tensors, image in (None, "RGB in 0–1"), ({"image": torch.zeros(1, 3, 8, 9)}, "3 × 8 × 9"):
        fig, words = pipeline_diagram(tensors)
        texts = [text for text in fig.axes[0].texts if text.get_text()]
        drawn = dict(text.get_text().split("\n") for text in texts)
        assert drawn.keys() == PARTS.keys() and drawn["image"] == image
        assert all(f"{part} ({said})" in words for part, said in drawn.items())
        assert min(text.get_fontsize() for text in texts) >= 10  # points, 13.9 px
